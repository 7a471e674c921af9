"""Whole runs on a pretended GPU: every method takes a step there, and what once was wrong is found.

A run goes through the self-tests, plays, is scored and learns, with every tensor under CUDA's rules
(`support.pretend_cuda`). It does not say that CUDA's own kernels are right.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pretend_cuda import GB, Device, pretend_cuda
from support.tiny_runs import Quiet

from tutelage.algorithms import ALGORITHMS
from tutelage.config.schema import Config
from tutelage.config.toml_file import override, parse, read_extended
from tutelage.errors import PolicyError
from tutelage.objective.batch import TokenBatch
from tutelage.objective.scores import Scores
from tutelage.policies.hf import compat, cuda_graphs
from tutelage.runs import checkpoint, selftest, train

EXAMPLES = Path(__file__).parents[2] / "examples"


class StopsAt(Quiet):
    def __init__(self, stop_at: int = -1) -> None:
        self.stop_at, self.lines = stop_at, list[Any]()

    def stepped(self, line: Any, seconds: object) -> None:
        self.lines.append(line)
        if len(self.lines) == self.stop_at:
            raise Killed


class Killed(Exception):
    """In the place of a process that is ended."""


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(cuda_graphs, "WARMUP_RUNS", 1)  # more of them find nothing here
    with pretend_cuda(total=8 * GB) as device:
        yield device


def config(
    algorithm: dict[str, Any],
    folder: Path,
    *changes: str,
    dtype: str = "bfloat16",
    teacher: bool = False,
) -> Config:
    build = {"hidden": 16, "context": 256}
    table: dict[str, Any] = {
        "run": {"steps": 1, "folder": str(folder / "run")},
        "env": {"suite": "doors"},
        "rollout": {"tasks_per_step": 1, "group_size": 2, "max_turns": 2, "max_new_tokens": 2},
        "eval": {"tasks": 1},
        "algorithm": algorithm,
        "update": {"lr": 1e-3},
        "policy": {"layers": 1, "build": build, "dtype": dtype},
    }
    if teacher:
        table["policies"] = {"teacher": {"layers": 1, "build": build, "dtype": dtype}}
    return parse(override(table, changes))


def of_example(name: str) -> tuple[dict[str, Any], bool]:
    """The settings of a method's example, and whether it has a teacher."""
    table: dict[str, Any] = read_extended(EXAMPLES / f"household_{name}.toml")
    settings = {k: v for k, v in table["algorithm"].items() if k != "thoughts"}
    if settings.get("hint") == "skills":  # of which these small games have none
        settings["hint"] = "plan"
    return settings, "policies" in table


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_every_method_takes_a_step(name: str, tmp_path: Path, cuda: Device) -> None:
    algorithm, teacher = of_example(name)
    watch = StopsAt()
    train.train(config(algorithm, tmp_path, teacher=teacher), watch=watch)
    (line,) = watch.lines
    assert line["tokens"] > 0
    assert line["grad_norm"] >= 0
    assert cuda.launches > 500


@pytest.mark.parametrize("name", ["grpo", "guided_opd", "sdar"])
def test_methods_take_a_step_in_float32(name: str, tmp_path: Path, cuda: Device) -> None:
    algorithm, teacher = of_example(name)
    watch = StopsAt()
    train.train(config(algorithm, tmp_path, dtype="float32", teacher=teacher), watch=watch)
    assert len(watch.lines) == 1


def weights(folder: Path) -> dict[str, bytes]:
    found = checkpoint.latest(folder)
    return {p.name: p.read_bytes() for p in sorted(found.glob("*.safetensors"))}


LORA = ('policy={model = "builtin:household-teacher", layers = 1, lora = 2}',)


@pytest.mark.parametrize(
    "more",
    [
        (),
        LORA,
        pytest.param(("update.offload=true",), marks=pytest.mark.nightly),
        pytest.param(("policy.gradient_checkpointing=true",), marks=pytest.mark.nightly),
    ],
    ids=str,
)
def test_a_run_that_is_ended_goes_on(more: tuple[str, ...], tmp_path: Path, cuda: Device) -> None:
    """To the same bytes: here, in float32, nothing adds in another order."""
    changes = ("run.steps=2", "run.checkpoint_every=1", "eval.every=2", "eval.tasks=1", *more)
    grpo = {"name": "grpo", "kl": 0.1}
    whole = config(grpo, tmp_path / "whole", *changes, dtype="float32")
    train.train(whole, watch=StopsAt())
    cut = config(grpo, tmp_path / "cut", *changes, dtype="float32")
    with pytest.raises(Killed):
        train.train(cut, watch=StopsAt(stop_at=1))
    train.train(cut, resume=True, watch=StopsAt())
    wanted = weights(tmp_path / "whole" / "run")
    assert len(wanted) == 2
    assert weights(tmp_path / "cut" / "run") == wanted
    lines = (tmp_path / "cut" / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if "step" in json.loads(line)]


def test_environments_in_processes_start_after_cuda_began(tmp_path: Path, cuda: Device) -> None:
    train.train(config({"name": "grpo"}, tmp_path, "env.workers=1"), watch=StopsAt())


# -- faults that a GPU has shown, put back


def test_a_batch_that_stays_on_the_cpu_is_found(
    tmp_path: Path, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenBatch, "to", lambda self, device: self)
    algorithm, teacher = of_example("opd")
    with pytest.raises(RuntimeError, match="same device"):
        train.train(config(algorithm, tmp_path, teacher=teacher), watch=StopsAt())


def test_scores_that_stay_where_their_teacher_is_are_found(
    tmp_path: Path, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, teacher = of_example("opd")
    settings = config(algorithm, tmp_path, 'policies.teacher.device="cpu"', teacher=teacher)
    train.train(settings, watch=StopsAt())
    monkeypatch.setattr(Scores, "to", lambda self, device: self)
    again = config(algorithm, tmp_path / "b", 'policies.teacher.device="cpu"', teacher=teacher)
    with pytest.raises(RuntimeError, match="same device"):
        train.train(again, watch=StopsAt())


def test_indices_on_the_cpu_are_found(
    tmp_path: Path, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the self-test's gradient: what they index is on the GPU, but so is what they weigh."""
    algorithm, teacher = of_example("opd")
    usual = selftest.collate
    monkeypatch.setattr(selftest, "collate", lambda episodes: _Stays(usual(episodes)))
    with pytest.raises(RuntimeError, match="same device"):
        train.train(config(algorithm, tmp_path, teacher=teacher), watch=StopsAt())


class _Stays:
    """A batch of which nothing moves."""

    def __init__(self, batch: TokenBatch) -> None:
        self.batch = batch

    def to(self, device: str) -> TokenBatch:
        return self.batch


def test_an_argument_that_the_kernel_lacks_is_found(
    tmp_path: Path, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = compat.varlen_attn

    def older(q: Any, k: Any, v: Any, *ends: Any, scale: float, window_size: Any) -> Any:
        return usual(q, k, v, *ends, scale=scale, window_size=window_size)

    monkeypatch.setattr(compat, "varlen_attn", older)
    with pytest.raises(PolicyError, match=r"in bfloat16 fails \(TypeError: .*enable_gqa"):
        train.train(config({"name": "grpo"}, tmp_path), watch=StopsAt())


@pytest.mark.parametrize("name", ["guided_opd", "sdar"])
def test_gradients_that_are_never_twice_the_same_need_a_bound(
    name: str, tmp_path: Path, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "NOISE_FACTOR", 0.0)
    algorithm, teacher = of_example(name)
    with pytest.raises(PolicyError, match="a loss with coefficient 0 changes the gradient"):
        train.train(config(algorithm, tmp_path, teacher=teacher), watch=StopsAt())


def test_a_process_that_is_forked_is_found(
    tmp_path: Path, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing as mp

    from tutelage.envs import pool

    fork = mp.get_context("fork")
    monkeypatch.setattr(pool.mp, "get_context", lambda method: fork)
    with pytest.raises(RuntimeError, match="forked subprocess"):
        train.train(config({"name": "grpo"}, tmp_path, "env.workers=1"), watch=StopsAt())
