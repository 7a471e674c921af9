"""What keys and values may take: as much as the machine and a container have, shared by the
engines that act; a plan counts the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from understudy import build, models, plan, processor, run
from understudy.config import Config
from understudy.configfile import parse
from understudy.errors import PolicyError
from understudy.policies.cache import budget
from understudy.policies.hf import HFPolicy
from understudy.policies.slots import SlotEngine

SMALL = {"layers": 1, "hidden": 16, "heads": 2, "kv_heads": 1, "ffn": 16, "context": 4096}


def config(algorithm: str = "guided_opd", **settings: Mapping[str, Any]) -> Config:
    """A household run of small models, with a teacher where the algorithm has one."""
    raw: dict[str, Any] = {
        "run": {"steps": 1},
        "env": {"suite": "household"},
        "rollout": {"copies": 2},
        "algorithm": {"name": algorithm},
        "update": {"lr": 1e-3},
        "policy": {"build": SMALL},
    }
    if algorithm != "grpo":
        raw["policies"] = {"teacher": {"build": SMALL, "tokenizer": "builtin:household-teacher"}}
    return parse({key: {**part, **settings.get(key, {})} for key, part in raw.items()})


def limited(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(processor, "memory", lambda: size)


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
    monkeypatch.setattr(processor, "LIMITS", (tmp_path / "new", tmp_path / "old"))
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(processor.os, "sysconf", sizes.__getitem__)
    assert processor.memory() == want


def test_a_system_may_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "LIMITS", ())
    monkeypatch.delattr(processor.os, "sysconf")
    assert processor.memory() == 0
    with pytest.raises(PolicyError, match=r"set policy\.cache"):
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
    return build.acting(of, build.phases_of(of))


def test_engines_are_those_of_policies_that_act_here() -> None:
    assert acting(config("opd")) == {"self"}  # the teacher only scores
    assert acting(config("guided_opd")) == {"self", "teacher"}
    away = config("guided_opd").model_dump()
    away["policies"]["teacher"] = {"url": "http://there:1"}
    assert acting(parse(away)) == {"self"}
    away["policy"]["sampler"] = {}
    assert acting(parse(away)) == set()


def engine(of: models.Model) -> SlotEngine:
    assert isinstance(of, HFPolicy)
    assert isinstance(of.engine, SlotEngine)
    return of.engine


def made(of: Config, engines: int) -> Mapping[str, models.Model]:
    suite = build.suite_of(of.env)
    context = build.context_of(of.context, suite)
    return models.policies_of(of, ["teacher"], suite, context, engines=engines)


def test_a_plan_counts_what_the_engines_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 60_000_000)
    roomy = config(rollout={"copies": 4})
    student, teacher = plan.make(roomy).models
    assert student.cache == teacher.cache == 10_000_000  # much less than 64 episodes would fill
    for policy in made(roomy, len(acting(roomy))).values():
        assert engine(policy).budget == 10_000_000
    told = config(policy={"cache": 0.003}, rollout={"copies": 4})
    assert [m.cache for m in plan.make(told).models] == [3_000_000, 10_000_000]
    assert engine(made(told, 2)["self"]).budget == 3_000_000
    # one row there is always, and a teacher that only scores has none
    student, teacher = plan.make(config("opd", policy={"cache": 1e-6})).models
    assert student.shape is not None
    assert 1000 < (student.cache or 0) <= student.shape.cache(SMALL["context"], 4)
    assert teacher.cache == 0


def test_a_run_tells_its_engines_how_many_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def noted(*args: object, engines: int, **kwargs: object) -> None:
        told.append(engines)
        raise PolicyError("enough")

    monkeypatch.setattr(models, "policies_of", noted)
    for algorithm in ("opd", "guided_opd"):
        folder = {"folder": str(tmp_path / algorithm)}
        with pytest.raises(PolicyError, match="enough"):
            run.train(config(algorithm, run=folder), watch=None)  # type: ignore[arg-type]
    assert told == [1, 2]
