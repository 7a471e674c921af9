"""Commands beside training on a pretended GPU: what is planned, measured and reported there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.pretend_cuda import GB, Device, pretend_cuda
from support.tiny_runs import tiny_run

from tutelage.cli import bench, doctor, dry_run, plan
from tutelage.cli.planned_memory import Machine
from tutelage.config.schema import Config
from tutelage.errors import ConfigError
from tutelage.policies.hf import cuda_graphs, kv_cache
from tutelage.runs import distributed
from tutelage.runs.torchrun import Launch


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(cuda_graphs, "WARMUP_RUNS", 1)
    with pretend_cuda(total=8 * GB) as device:
        yield device


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_run(
        run={"folder": str(tmp_path / "run")},
        algorithm={"name": "grpo", "kl": 0.1},
        policy={"dtype": "bfloat16"},
    )


def test_a_plan_is_for_the_gpu_of_this_machine(config: Config, cuda: Device) -> None:
    found = dry_run.make(config)
    assert found.machine == Machine(gpu=True, memory=8 * GB)
    assert found.machine.words == "8.0 GB of GPU memory"
    student, _ = found.models
    assert student.shape is not None
    # beside float32, layers and the head in 2 bytes: what samples
    twice = student.shape.linear() + student.shape.vocab * student.shape.hidden
    assert student.weights == 4 * student.shape.parameters() + 2 * twice
    assert kv_cache.budget("cuda") == 8 * GB // 3


def test_steps_are_measured_and_planned_on_it(config: Config, cuda: Device) -> None:
    def ignored(*args: object) -> None: ...

    report = bench.measure(config, seconds=1e-9, tick=ignored)
    assert report.seconds > 0
    assert report.step == 2 * 8  # the group that the run chooses, where the file names none
    assert cuda.replays
    links = plan.make(config, seconds=1e-9, tick=ignored).assumptions
    assert any(f"{plan.INSIDE:g} GB" in text for text in links), links


def test_torch_names_the_gpu(cuda: Device) -> None:
    (line,) = doctor.asked_torch()
    assert "a pretended GPU" in line.detail


def test_each_rank_of_a_machine_takes_a_gpu(cuda: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)

    def rank(number: int) -> Launch:
        return Launch(
            rank=number,
            size=2,
            local_rank=number,
            local_size=2,
            address="127.0.0.1",
            port=1,
            agent=True,
        )

    distributed._use_gpu(rank(0))
    assert taken == [0]
    with pytest.raises(ConfigError, match=r"2 ranks were started on a machine with 1 GPUs"):
        distributed._use_gpu(rank(1))
    assert taken == [0]
