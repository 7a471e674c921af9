"""Servers that are started again somewhere else, over loopback: requests are sent again, weights are
handed over before the first of them, and a server that keeps dying ends in a sentence."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_servers import HASTY
from support.tiny_models import policy, run
from support.tiny_runs import tiny_file, tiny_run

from tutelage.cli import eval_config
from tutelage.cli.main import main
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server import hosted
from tutelage.policies.server.hosted import RESTARTS, HostedClient, Place, Where
from tutelage.policies.server.hosted_sampler import HostedSampler
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.serve import Server
from tutelage.policies.server.vllm import VllmEngine

Output = pytest.CaptureFixture[str]
REQUESTS = [
    Request(key=str(k), prompt=tuple(range(3, 6 + k)), seed=2**40 + k, max_new=9) for k in range(12)
]


class Mortal(Server):
    """A server that can end as a killed process does: its connections end with it."""

    def __init__(self, of: HFPolicy, key: str) -> None:
        super().__init__(of, name="small", key=key, reload=True)
        self.open: list[socket.socket] = []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.dead = False

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.append(request)
        super().process_request(request, client_address)

    def die(self) -> None:
        if self.dead:
            return
        self.dead = True
        self.stop()
        self.thread.join()
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already


class Lives:
    """A server that is started again, as another one with another key, when it is asked for dead.
    Each has a model of its own, of which no two have the same weights."""

    name = "policy.sampler 0"

    def __init__(self) -> None:
        self.models: list[HFPolicy] = []
        self.servers: list[Mortal] = []
        self.short = False  # whether each dies as soon as it is started

    def serve(self) -> Where:
        if not self.servers or self.servers[-1].dead:
            self.models.append(policy(len(self.models) + 1))
            self.servers.append(Mortal(self.models[-1], f"secret {len(self.models)}"))
            if self.short:
                self.servers[-1].die()
        server = self.servers[-1]
        return Where(f"http://127.0.0.1:{server.port}", server.key, str(len(self.servers)))


@contextmanager
def sampled(folder: Path) -> Iterator[tuple[HFPolicy, Lives]]:
    """A student that is sampled on such a server, and has handed over its weights."""
    lives, student = Lives(), policy(0)
    client = HostedClient(lives, name="policy", options=replace(HASTY, retries=2))
    remote = RemotePolicy(client, student.chat, returns_temperature_scaled=True)
    remote.connect()
    sampler = HostedSampler(remote, client, dtype="float32")
    student.engine = VllmEngine(student, [sampler], folder=folder)
    student.engine.refresh()
    try:
        yield student, lives
    finally:
        for server in lives.servers:
            server.die()


def shaken(of: HFPolicy) -> None:
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in of.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=chance))


def same_weights(one: HFPolicy, other: HFPolicy) -> bool:
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def turns(of: HFPolicy) -> dict[str, tuple[int, ...]]:
    return {key: found.tokens for key, found in run(of, REQUESTS).items()}


def test_turns_under_way_are_sampled_again_with_the_same_weights(tmp_path: Path) -> None:
    with sampled(tmp_path) as (student, lives):
        expected = turns(student)
        for request in REQUESTS:
            student.submit(request)
        lives.servers[0].die()
        found: dict[str, tuple[int, ...]] = {}
        while len(found) < len(REQUESTS):
            found |= {each.key: each.tokens for each in student.poll()}
        assert found == expected
        assert len(lives.servers) == 2
        assert same_weights(lives.models[1], student)


def test_a_server_that_dies_before_a_hand_over_gets_the_new_weights(tmp_path: Path) -> None:
    with sampled(tmp_path) as (student, lives):
        lives.servers[0].die()
        shaken(student)
        student.refresh()
        assert same_weights(lives.models[1], student)
        again = turns(student)
        lives.servers[1].die()
        assert turns(student) == again
        assert same_weights(lives.models[2], student)


def test_a_server_that_did_not_take_the_weights_samples_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.policies.server.serve_worker import Worker

    with sampled(tmp_path) as (student, lives):
        lives.servers[0].die()
        monkeypatch.setattr(Worker, "_load", lambda self, folder: None)
        with pytest.raises(PolicyError, match="was started again and differs from the server"):
            turns(student)


def test_one_that_dies_too_often_ends_in_a_sentence(tmp_path: Path) -> None:
    with sampled(tmp_path) as (student, lives):
        lives.short = True
        lives.servers[0].die()
        with pytest.raises(PolicyError, match=f"was lost {RESTARTS + 1} times") as refusal:
            turns(student)
        assert len(lives.servers) == 1 + RESTARTS + 1
        assert "--resume" in str(refusal.value)
        assert "secret" not in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_servers_belong_to_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"policy\.sampler\.servers starts servers on a Ray"):
        hosted.place_of("policy.sampler", {})
    place = Place(address="a:1", namespace="n", actors={"policy.sampler": ["x"]}, shared=True)
    assert hosted.place_of("policy.sampler", {hosted.SERVERS: place.text()}) == place
    with pytest.raises(ConfigError, match=r"set policies\.teacher\.model to its address"):
        hosted.place_of("policies.teacher", {hosted.SERVERS: place.text()})


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_file_with_servers_is_refused_without_a_cluster(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.toml").write_text(tiny_file(policy={"sampler": {"servers": 1}}))
    assert main(["train", "file.toml", *more]) == 2
    err = capsys.readouterr().err
    assert "policy.sampler.servers starts servers on a Ray cluster" in err
    assert "--cluster" in err
    assert not Path("run").exists()


def test_an_evaluation_needs_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    policies = {"teacher": {"model": "builtin:household-teacher", "servers": 2}}
    Path("file.toml").write_text(
        tiny_file(policy={"sampler": {"servers": 1}}, policies=policies, eval={"tasks": 1})
    )
    found, _ = eval_config.of("file.toml", [])
    assert found.policy.sampler is None
    assert found.policies["teacher"].servers == 0


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"policy": {"sampler": {"servers": 1, "url": "http://a"}}}, "a url and servers"),
        ({"policy": {"sampler": {"servers": 1, "options": {"x": 1}}}}, "remove its servers"),
        ({"policy": {"servers": 1}}, r"set policy\.sampler\.servers"),
        ({"policies": {"teacher": {"model": "http://a", "servers": 1}}}, "a folder or a hub id"),
        ({"policies": {"teacher": {"servers": 1}}}, "a folder or a hub id"),
        ({"policies": {"teacher": {"model": "x", "servers": 1, "key": "K"}}}, "keys of their own"),
        ({"policies": {"teacher": {"model": "x", "servers": 1, "quantize": "nf4"}}}, "quantize"),
        ({"policies": {"teacher": {"model": "x", "servers": -1}}}, "at least 0"),
    ],
)
def test_settings_that_contradict_servers(sections: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        tiny_run(**sections)
