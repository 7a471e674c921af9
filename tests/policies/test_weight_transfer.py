"""What weight transfer by gloo does without vLLM: its settings, its sentences, and its group of
processes. Whole transfers are in `test_real_vllm_transfer`."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_servers import client, listed
from support.tiny_runs import Quiet

from tutelage.config.schema import Config
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.server import gloo_group
from tutelage.policies.server.gloo_group import (
    Rendezvous,
    RendezvousFailed,
    broadcast,
    local_address,
)
from tutelage.policies.server.weight_transfer import Wire, backend_of, require_vllm, status_of
from tutelage.runs import train

SOURCE = Path(__file__).parents[2] / "src"
WORKER = """
import sys, torch
from tutelage.policies.server.gloo_group import broadcast, join
group = join("127.0.0.1", int(sys.argv[1]), rank=int(sys.argv[2]), size=int(sys.argv[3]))
while True:
    tensor = torch.empty(2, 3, dtype=torch.bfloat16)
    broadcast(group, tensor)
    print(tensor.float().sum().item(), flush=True)
"""


def worker(rendezvous: Rendezvous, rank: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(rendezvous.port), str(rank), str(rendezvous.size)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_every_worker_is_sent_the_bytes_of_a_tensor() -> None:
    rendezvous = Rendezvous(("127.0.0.1", 1), workers=2)
    workers = [worker(rendezvous, rank) for rank in (1, 2)]
    try:
        group = rendezvous.wait(lambda: False)
        broadcast(group, torch.full((2, 3), 1.5, dtype=torch.bfloat16))
        broadcast(group, torch.full((2, 3), -2.0, dtype=torch.bfloat16))
        for one in workers:
            assert one.stdout is not None
            assert [one.stdout.readline().strip() for _ in range(2)] == ["9.0", "-12.0"]
    finally:
        for one in workers:
            one.kill()


def test_a_worker_that_dies_is_an_error_at_once() -> None:
    rendezvous = Rendezvous(("127.0.0.1", 1), workers=1)
    one = worker(rendezvous, 1)
    group = rendezvous.wait(lambda: False)
    tensor = torch.zeros(2, 3, dtype=torch.bfloat16)
    broadcast(group, tensor)
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    begun = time.monotonic()
    with pytest.raises(RuntimeError):
        sent_again_and_again(group, tensor)
    assert time.monotonic() - begun < gloo_group.TENSOR_SECONDS / 2


def sent_again_and_again(group: Any, tensor: torch.Tensor) -> None:
    for _ in range(1000):  # the first may still be taken by the system
        broadcast(group, tensor)
        time.sleep(0.01)


def test_nobody_waits_for_workers_that_will_not_come() -> None:
    begun = time.monotonic()
    with pytest.raises(RendezvousFailed):
        Rendezvous(("127.0.0.1", 1), workers=1).wait(lambda: True)
    assert time.monotonic() - begun < gloo_group.RENDEZVOUS_SECONDS / 2


def test_workers_that_do_not_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo_group, "RENDEZVOUS_SECONDS", 0.2)
    with pytest.raises(RendezvousFailed):
        Rendezvous(("127.0.0.1", 1), workers=1).wait(lambda: False)


def test_the_store_listens_on_the_way_to_the_server_alone() -> None:
    rendezvous = Rendezvous(("127.0.0.1", 1), workers=1)
    assert rendezvous.address == local_address(("localhost", 80)) == "127.0.0.1"
    with socket.create_connection(("127.0.0.1", rendezvous.port), 5):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", rendezvous.port), 5)


# -- settings and sentences


def settings(**sampler: Any) -> Config:
    return Config.model_validate(
        {
            "run": {"folder": "run", "steps": 1},
            "env": {"suite": "doors"},
            "algorithm": {"name": "grpo"},
            "policy": {"model": "builtin:household-teacher", "sampler": sampler},
        }
    )


@pytest.mark.parametrize(
    ("sampler", "reason"),
    [
        ({}, "set its url"),
        ({"servers": 2}, "set its url"),
        ({"url": "http://127.0.0.1:1", "folder": "shared"}, "has a folder"),
    ],
)
def test_settings_that_contradict_it(sampler: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        settings(transfer="gloo", **sampler)
    settings(**sampler)


def test_a_trainer_without_vllm_says_so_before_it_asks_anyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("vllm", "vllm.distributed", "vllm.distributed.weight_transfer"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'tutelage\[vllm\]', or leave transfer out"):
        require_vllm()
    with pytest.raises(ConfigError, match=r'transfer = "gloo" takes'):
        train.train(settings(transfer="gloo", url="http://127.0.0.1:1"), watch=Quiet())


def test_each_request_is_sent_once() -> None:
    """A second attempt would be of another transfer, with a group of its own."""
    with listed(503, {}) as server:
        with pytest.raises(PolicyError, match="answered 503") as raised:
            Wire(client(server.port)).init_weight_transfer_engine({"port": 1})
        assert status_of(raised.value) == 503
        assert [(path, body) for path, body, _ in server.asked] == [
            ("/init_weight_transfer_engine", {"init_info": {"port": 1}})
        ]


def test_a_transfer_that_somebody_left_open_is_closed() -> None:
    with listed(500, {}, {}) as server:
        Wire(client(server.port)).start_weight_update()
        assert [path for path, *_ in server.asked] == [
            "/start_weight_update",
            "/finish_weight_update",
            "/start_weight_update",
        ]


@pytest.mark.parametrize(
    ("answer", "backend"),
    [
        ({"vllm_config": {"weight_transfer_config": None}}, ""),
        ({"vllm_config": {"weight_transfer_config": {"backend": "nccl"}}}, "nccl"),
        ({"vllm_config": "text"}, "tutelage-gloo"),
        (404, "tutelage-gloo"),
    ],
)
def test_which_backend_a_server_has(answer: Any, backend: str) -> None:
    with listed(answer) as server:
        assert backend_of(client(server.port)) == backend
