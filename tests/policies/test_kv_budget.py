"""What keys and values may take: as much as the machine and a container have, shared by the
engines that act; a plan counts the same. And who waits where that is little."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scripted_turns import Fed, Talk, V, assert_same, play, reference, request
from support.tiny_models import policy, run
from support.tiny_runs import Quiet, tiny_table

from tutelage import cpu
from tutelage.cli import dry_run
from tutelage.config.schema import Config
from tutelage.config.toml_file import parse
from tutelage.envs.registry import suite_of
from tutelage.errors import PolicyError
from tutelage.policies.base import OpenedPolicy
from tutelage.policies.hf.cuda_graphs import Recordings
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.kv_cache import budget
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.translated import Translated
from tutelage.runs import assemble, models, phases
from tutelage.runs.phases import phases_of
from tutelage.runs.train import train

SMALL: dict[str, Any] = {"layers": 1, "build": {"hidden": 16, "context": 4096}}


def config(algorithm: str = "guided_opd", **settings: Mapping[str, Any]) -> Config:
    """A household run of small models, with a teacher where the algorithm has one."""
    raw = tiny_table(run={"steps": 1}, env={"suite": "household"}, algorithm={"name": algorithm})
    raw |= {"rollout": {"group_size": 2}, "policy": SMALL}
    if algorithm != "grpo":
        raw["policies"] = {"teacher": {**SMALL, "tokenizer": "builtin:household-teacher"}}
    return parse({key: {**part, **settings.get(key, {})} for key, part in raw.items()})


def limited(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(cpu, "memory", lambda: size)


@pytest.mark.parametrize(
    ("new", "old", "want"),
    [
        ("max", "", 4096_000),
        ("", "", 4096_000),
        ("1000000", "", 1_000_000),
        ("5000000", "", 4096_000),
        ("", "2000000", 2_000_000),
        ("", "9223372036854771712", 4096_000),  # as older systems say that there is no limit
    ],
)
def test_memory_is_the_machines_within_a_containers_limit(
    new: str, old: str, want: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("new", new), ("old", old)):
        if text:
            (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(cpu, "LIMITS", (tmp_path / "new", tmp_path / "old"))
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(cpu.os, "sysconf", sizes.__getitem__)
    assert cpu.memory() == want


def test_a_system_may_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "LIMITS", ())
    monkeypatch.delattr(cpu.os, "sysconf")
    assert cpu.memory() == 0
    with pytest.raises(PolicyError, match="TUTELAGE_KV_CACHE_GB"):
        budget("cpu")
    assert budget("cpu", wanted=0.5) == 500_000_000


def test_a_third_is_shared_by_the_engines_that_act(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 9_000_000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 36_000_000))
    assert budget("cpu") == 3_000_000
    assert budget("cpu", engines=2) == 1_500_000
    assert budget("cpu", wanted=0.001, engines=2) == 1_000_000
    assert budget("cuda:1", engines=3) == 4_000_000


def acting(of: Config) -> set[str]:
    return phases.acting(of, phases_of(of))


def test_engines_are_those_of_policies_that_act_here() -> None:
    assert acting(config("opd")) == {"self"}  # the teacher only scores
    assert acting(config("guided_opd")) == {"self", "teacher"}
    away = config("guided_opd").model_dump()
    away["policies"]["teacher"] = {"model": "http://there:1"}
    assert acting(parse(away)) == {"self"}
    away["policy"]["sampler"] = {}
    assert acting(parse(away)) == set()


def engine(of: OpenedPolicy) -> SlotEngine:
    of = of.inner if isinstance(of, Translated) else of
    assert isinstance(of, HFPolicy)
    assert isinstance(of.engine, SlotEngine)
    return of.engine


def opened(of: Config, engines: int) -> Mapping[str, OpenedPolicy]:
    suite = suite_of(of.env)
    context = assemble.context_of(of.context, suite)
    return models.policies_of(of, ["teacher"], suite, context, engines=engines)


def test_a_plan_counts_what_the_engines_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 60_000_000)
    roomy = config(rollout={"group_size": 4})
    student, teacher = dry_run.make(roomy).models
    assert student.cache == teacher.cache == 10_000_000  # much less than 64 episodes would fill
    for each in opened(roomy, len(acting(roomy))).values():
        assert engine(each).budget == 10_000_000
    monkeypatch.setenv("TUTELAGE_KV_CACHE_GB", "0.003")
    limited_config = config(rollout={"group_size": 4})
    assert [m.cache for m in dry_run.make(limited_config).models] == [
        3_000_000,
        3_000_000,
    ]  # each engine's
    assert engine(opened(limited_config, 2)["self"]).budget == 3_000_000
    monkeypatch.setenv("TUTELAGE_KV_CACHE_GB", "1e-6")
    # one row there is always, and a teacher that only scores has none
    student, teacher = dry_run.make(config("opd")).models
    assert student.shape is not None
    assert 1000 < (student.cache or 0) <= student.shape.cache(SMALL["build"]["context"], 4)
    assert teacher.cache == 0


def test_a_run_tells_its_engines_how_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[object] = []

    def noted(*args: object, engines: int, **kwargs: object) -> None:
        counts.append(engines)
        raise PolicyError("enough")

    monkeypatch.setattr(models, "policies_of", noted)
    for algorithm in ("opd", "guided_opd"):
        folder = {"folder": str(tmp_path / algorithm)}
        with pytest.raises(PolicyError, match="enough"):
            train(config(algorithm, run=folder), watch=Quiet())
    assert counts == [1, 2]


# -- fewer rows than episodes


def computed(rows: int, count: int = 12, turns: int = 6) -> int:
    """Tokens that the model is fed while so many episodes are played at the same time."""
    rng = random.Random(0)
    says = [[tuple(rng.choices(range(10, V), k=9)) for _ in range(turns)] for _ in range(count)]
    of = policy(slots=rows, context=768)
    fed = Fed(of)
    completions = play(of, [Talk(f"e{k}", texts, False, 1.0) for k, texts in enumerate(says)])
    assert len(completions) == count * turns
    for asked, completion in completions:
        assert_same(completion, reference(of, asked))
    return sum(b * t for b, t in fed.shapes)


@pytest.mark.parametrize("rows", [1, 6])
def test_nothing_is_computed_twice_for_lack_of_rows(rows: int, plenty: int) -> None:
    """Rows that decode beside a longer one are counted whether they sit out or not, so that fewer
    rows may even compute less."""
    assert computed(rows) <= plenty


@pytest.fixture(scope="module")
def plenty() -> int:
    return computed(12)


def test_two_engines_that_wait_for_each_others_rows_go_on() -> None:
    """An episode with a row in one engine wants one in the other, and the other way round."""
    engines = [policy(slots=1), policy(slots=1)]
    for k, of in enumerate(engines):
        run(of, [request((10, 11), key="ab"[k])])
    for k, of in enumerate(engines):
        asked = request((10, 11, 12), key="ba"[k])
        assert_same(run(of, [asked])[asked.key], reference(of, asked))


def test_a_new_episode_waits_while_others_have_the_rows() -> None:
    of = policy(slots=3)
    replies = {
        key: run(of, [request((*range(10, 40), 50 + ord(key)), key=key)])[key] for key in "ab"
    }
    for key in "cd":
        of.submit(request((7, 8, 9), key=key))
    back = request((*range(10, 40), 50 + ord("a"), *replies["a"].tokens, 60), key="a")
    of.submit(back)
    of.poll()
    assert {row.key for row in engine(of).slots} == {"a", "b", "c"}
    of.release("b")
    of.poll()
    assert {row.key for row in engine(of).slots} == {"a", "c", "d"}


@pytest.mark.parametrize(
    ("slots", "recorded", "want"),
    [(0, False, 256), (256, False, 512), (640, False, 832), (640, True, 1280), (1280, False, 1600)],
)
def test_long_rows_grow_by_a_quarter_where_no_change_is_recorded(
    slots: int, recorded: bool, want: int
) -> None:
    """They are read whole, so what nobody wrote yet must be little of them."""
    of = policy(context=4096).engine
    assert isinstance(of, SlotEngine)
    of.cache.capacity = slots
    if recorded:
        of.recordings = Recordings(lambda step: step)
    assert of.capacity_for(slots + 1) == want
    assert of.capacity_for(slots) == slots
