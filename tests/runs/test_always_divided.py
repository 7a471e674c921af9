"""Runs whose weights no rank ever holds whole (`--sharded always`), while servers sample: they agree
with one process, write the same files, and go on with any number of ranks."""

import gc
import json
import resource
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.test_ranks_runs import press, reaches
from runs.test_sampler_runs import servers, student, tokens
from safetensors.torch import load_file
from support.gangs import Gang, run
from support.tiny_runs import Quiet, tiny_table
from torch.testing import assert_close
from training.test_ranks import policy

from tutelage.cli.arguments import parsed
from tutelage.config.schema import Config
from tutelage.config.toml_file import parse
from tutelage.errors import ConfigError
from tutelage.policies.base import Sharding
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample
from tutelage.rollout.ranks import Ranks
from tutelage.runs import checkpoint, divided_checkpoint, together, train
from tutelage.runs.assemble import assemble
from tutelage.runs.divided_checkpoint import see_the_same, write

SHAPE = {"layers": 2, "build": {"hidden": 16, "context": 160}}
TEACHER = {"teacher": {"layers": 1, "build": {"hidden": 32, "context": 160}}}
CASES: Mapping[str, dict[str, Any]] = {
    "grpo": {"algorithm": {"name": "grpo", "kl": 0.1, "entropy": 0.01}},
    "opd": {"algorithm": {"name": "opd"}, "policies": TEACHER},
    "sdar": {"algorithm": {"name": "sdar", "hint": "plan"}},
}
"""A copy of the student, another model, and the student itself score beside it."""
ALIKE = 1e-6
WEIGHTS = 3e-5
"""Servers round the log-probabilities of what they sample by what they sample beside. AdamW makes
more of that where a gradient is near 0: at a rate of 3e-4 a weight may move by 1.8e-3 in 6 updates.
Without servers weights agree to 1e-6: see training/test_ranks.py."""


def config(folder: Path, urls: object = None, **sections: Any) -> Config:
    sampler = {} if urls is None else {"sampler": {"url": urls}}
    table = tiny_table(
        run={"folder": str(folder), "steps": 3, "checkpoint_every": 1},
        rollout={"tasks_per_step": 3, "group_size": 2},
        update={"lr": 3e-4, "minibatches": 2, "max_tokens_per_pass": 200},
        eval={"every": 2, "tasks": 3},
    )
    table["policy"] = {**SHAPE, **sampler}
    return parse({**table, **sections})


def job(settings: Config, sharded: Sharding, *, resume: bool = False) -> Callable[[Ranks], int]:
    """A run, whose result is the number of models that this rank holds whole at its end."""

    def of(ranks: Ranks) -> int:
        found = 0
        with pytest.MonkeyPatch.context() as patch:
            step = train.train_step

            def counted(*given: Any, **more: Any) -> Any:
                nonlocal found
                found = sum(type(x) is HFPolicy and not x.sharded for x in gc.get_objects())
                return step(*given, **more)

            patch.setattr(train, "train_step", counted)
            train.train(settings, resume=resume, watch=Quiet(), ranks=ranks, sharded=sharded)
        return found

    return of


def same(folder: Path, other: Path, *, weights: str = "model.safetensors") -> None:
    """Two runs: the same episodes, losses and norms, and the same tensors in the same files."""
    assert tokens(other) == tokens(folder)
    assert evaluations(other) == evaluations(folder)
    for one, two in zip(lines(folder, "metrics.jsonl"), lines(other, "metrics.jsonl"), strict=True):
        assert two["losses"] == pytest.approx(one["losses"], abs=ALIKE)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], abs=ALIKE)
    mine, its = (checkpoint.latest(x) for x in (folder, other))
    assert sorted(p.name for p in its.iterdir()) == sorted(p.name for p in mine.iterdir())
    for name in (weights, "optimizer.safetensors"):
        found, wanted = load_file(its / name), load_file(mine / name)
        found = {key: x.reshape(wanted[key].shape) for key, x in found.items()}
        assert_close(found, wanted, atol=WEIGHTS, rtol=0)
    for path in mine.glob("*config.json"):
        assert (its / path.name).read_bytes() == path.read_bytes(), path.name


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def evaluations(folder: Path) -> list[tuple[object, ...]]:
    return [(x["step"], x["won"]) for x in lines(folder, "evals.jsonl")]


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_never_whole_agrees_with_one_process(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with servers(config(tmp_path / "start"), 2) as (_, urls):
        run(1, job(config(tmp_path / "one", urls[:1], **case), "no"), tmp_path / "ranks-1")
        gc.collect()
        before = sum(type(x) is HFPolicy for x in gc.get_objects())  # those of the servers
        whole = run(2, job(config(tmp_path / "two", urls, **case), "always"), tmp_path / "ranks-2")
    assert whole == [before, before]
    same(tmp_path / "one", tmp_path / "two")


def test_adapters_over_weights_that_are_never_whole(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    (tmp_path / "model").mkdir()
    student(config(tmp_path / "base")).save(tmp_path / "model")
    case = CASES["grpo"]

    def adapted(folder: Path, urls: object) -> Config:
        shape = {"model": str(tmp_path / "model"), "lora": 2, "sampler": {"url": urls}}
        table = config(folder, **case).model_dump()
        return Config.model_validate({**table, "policy": shape})

    with servers(config(tmp_path / "start"), 2) as (_, urls):
        run(1, job(adapted(tmp_path / "one", urls[:1]), "no"), tmp_path / "ranks-1")
        run(2, job(adapted(tmp_path / "two", urls), "always"), tmp_path / "ranks-2")
    same(tmp_path / "one", tmp_path / "two", weights="adapter_model.safetensors")


@pytest.mark.parametrize("after", [1, pytest.param(4, marks=pytest.mark.nightly)])
def test_a_killed_run_goes_on_with_any_number_of_ranks(after: int, tmp_path: Path) -> None:
    """Each rank reads its rows of files that do not say how many ranks wrote them."""
    case = {**CASES["grpo"], "rollout": {"tasks_per_step": 4, "group_size": 2}}
    case["rollout"] |= {"max_turns": 3, "max_new_tokens": 4}
    with servers(config(tmp_path / "start"), 4) as (_, urls):
        run(1, job(config(tmp_path / "run-1", urls[:1], **case), "no"), tmp_path / "ranks-1")
        settings = config(tmp_path / "killed" / "run", urls[:2], **case)
        gang = Gang(2, job(settings, "always"), tmp_path / "killed")
        reaches(tmp_path / "killed", 2)
        gang.kill(1)
        ends = gang.wait(120)
        assert {end.code for end in ends} <= {2, -signal.SIGKILL}, ends[0].message
        assert checkpoint.latest(tmp_path / "killed" / "run").name > checkpoint.START
        # servers are no part of what must stay the same
        more = config(tmp_path / "killed" / "run", urls[:after], **case)
        sharded: Sharding = "no" if after == 1 else "always"
        run(after, job(more, sharded, resume=True), tmp_path / "ranks-after")
    same(tmp_path / "run-1", tmp_path / "killed" / "run")


def test_ctrl_c_writes_a_checkpoint_of_all_ranks(tmp_path: Path) -> None:
    changes = {"run": {"folder": str(tmp_path / "run"), "steps": 3, "checkpoint_every": 100}}
    changes |= CASES["grpo"]
    with servers(config(tmp_path / "start"), 2) as (_, urls):
        run(1, job(config(tmp_path / "one", urls[:1], **CASES["grpo"]), "no"), tmp_path / "ranks-1")
        gang = Gang(2, job(config(tmp_path / "run", urls, **changes), "always"), tmp_path)
        reaches(tmp_path, 1)
        press(gang)
        ends = gang.wait()
        assert [end.code for end in ends] == [130, 2], [end.message for end in ends]
        assert checkpoint.latest(tmp_path / "run").name > checkpoint.START
        settings = config(tmp_path / "run", urls, **changes)
        run(2, job(settings, "always", resume=True), tmp_path / "ranks-2")
    same(tmp_path / "one", tmp_path / "run")


# -- the policy


def whole_bytes(of: HFPolicy) -> int:
    """Bytes of the divided layers that this rank holds as whole weights."""
    assert of.sharded is not None
    return sum(weight.numel() * weight.element_size() for weight in of.sharded.whole)


SAMPLES = [
    Sample(prompt=(5, 6, 7), tokens=(8, 9)),
    Sample(prompt=tuple(range(5, 25)), tokens=(3, 4, 5)),
    Sample(prompt=(9, 9), tokens=(1,)),
]
MAKE: Mapping[str, Callable[[], HFPolicy]] = {
    "plain": lambda: policy(0, 2),
    "adapters": lambda: policy(0, 2, lora=True),
    "bfloat16": lambda: policy(0, 2, dtype="bfloat16"),
}


def scores_of_its_own(name: str, ranks: Ranks) -> dict[str, Any]:
    """A rank's scores of some samples, of which the others have more or none."""
    of, folder = MAKE[name](), Path(f"saved-{name}")
    of.tokens = 8  # a sequence a pass
    mine = SAMPLES[ranks.rank :] if ranks.rank < 2 else []
    with torch.no_grad():
        wanted = of.score(mine, 1.0).logp if mine else torch.zeros(0)
        merged = {key: x.clone() for key, x in of.weights()}
        of.shard(always=True)
        found = of.score(mine, 1.0).logp
    gathered = {key: x.clone() for key, x in of.weights()}
    version = of.version()
    with of.updating():
        for p in of.parameters():
            p.grad = torch.ones_like(p)
        torch.optim.SGD(list(of.parameters()), lr=1e-3).step()
    moved = dict(of.weights())
    if ranks.rank == 0:
        folder.mkdir()
    see_the_same(folder, ranks)
    if stored := of.stored():
        write(folder, stored, ranks, name="model.safetensors")
    if ranks.rank == 0:
        of.save(folder)
    return {
        "scores": (found, wanted),
        "weights": (gathered, merged),
        "moved": moved,
        "versions": (version, of.version()),
        "whole": whole_bytes(of),
    }


@pytest.mark.parametrize("name", MAKE)
def test_a_divided_policy_scores_and_stores_what_the_whole_one_does(
    name: str, tmp_path: Path
) -> None:
    if name == "adapters":
        pytest.importorskip("peft")
    files = []
    for size in (2, 3):
        for each in run(size, partial(scores_of_its_own, name), tmp_path / str(size)):
            found, wanted = each["scores"]
            atol = 5e-2 if name == "bfloat16" else 1e-6
            assert_close(found, wanted, atol=atol, rtol=0)
            assert_close(*each["weights"], atol=0, rtol=0)
            assert each["versions"][0] != each["versions"][1]
            assert each["whole"] == 0
            moved, before = each["moved"], each["weights"][0]
            assert any(not torch.equal(moved[key], before[key]) for key in before)
        files.append(run_files(tmp_path / str(size) / f"saved-{name}"))
        if name != "adapters":
            loaded = load(str(tmp_path / str(size) / f"saved-{name}"))
            assert_close(dict(loaded.weights()), moved, atol=0, rtol=0)
    assert files[0] == files[1], "the files tell how many ranks wrote them"


def run_files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


def test_large_weights_are_stored_in_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divided_checkpoint, "LARGEST", 20_000)
    run(2, partial(scores_of_its_own, "plain"), tmp_path)
    folder = tmp_path / "saved-plain"
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert (folder / divided_checkpoint.INDEX).exists()
    loaded = dict(load(str(folder)).weights())
    before = dict(MAKE["plain"]().weights())
    assert loaded.keys() == before.keys()
    assert any(not torch.equal(loaded[key], before[key]) for key in before)


def test_a_rank_that_sees_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divided_checkpoint, "APPEARS", 1.0)

    def of(ranks: Ranks) -> None:
        folder = tmp_path / f"machine-{ranks.rank}" / "draft"
        folder.mkdir(parents=True)
        see_the_same(folder, ranks)

    ends = Gang(2, of, tmp_path).wait()
    assert [end.code for end in ends] == [2, 2]
    assert "is not the same folder on rank 1 as on rank 0" in ends[0].message


def test_a_rank_whose_disk_is_full(tmp_path: Path) -> None:
    def of(ranks: Ranks) -> None:
        if ranks.rank:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        scores_of_its_own("plain", ranks)

    ends = Gang(2, of, tmp_path).wait()
    assert [end.code for end in ends] == [2, 2], ends
    assert "could not be written by all ranks" in ends[0].message
    assert "has room" in ends[0].message
    assert "Traceback" not in ends[0].message + ends[1].message


# -- what is refused

SERVER = {"sampler": {"url": "http://127.0.0.1:9"}}
REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "nobody plays": ({"policy": SHAPE}, r"set policy\.sampler\.url to a server for each rank"),
    "ahead": (
        {"rollout": {"tasks_per_step": 2, "concurrency": {"episodes": 4, "ahead": 1}}},
        "leave ahead out",
    ),
    "a teacher plays": (
        {"algorithm": {"name": "guided_opd"}, "policies": TEACHER},
        r"policies\.teacher plays turns, .* serve it",
    ),
    "weights are sent": (
        {"policy": {**SHAPE, "sampler": {**SERVER["sampler"], "transfer": "gloo"}}},
        "leave transfer out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_whole_weights_is_refused(name: str, tmp_path: Path) -> None:
    sections, sentence = REFUSED[name]
    settings = config(tmp_path / "run", SERVER["sampler"]["url"], **sections)
    with pytest.raises(ConfigError, match=f"--sharded always: .*{sentence}"):
        together.refuse_always(assemble(settings))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("--sharded my.toml a=1", "update"),
        ("my.toml --sharded a=1", "update"),
        ("my.toml --sharded", "update"),
        ("--sharded update my.toml a=1", "update"),
        ("my.toml a=1 --sharded always", "always"),
        ("--sharded=always my.toml --resume", "always"),
        ("my.toml a=1", "no"),
    ],
)
def test_the_value_of_the_flag_may_be_left_out(given: str, wanted: str) -> None:
    found = parsed(["train", *given.split()])
    assert (found.sharded, str(found.file)) == (wanted, "my.toml")
    assert found.overrides == (["a=1"] if "a=1" in given else [])
