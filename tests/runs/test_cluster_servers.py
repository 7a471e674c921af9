"""Servers that Ray starts for a run on a cluster of several nodes of this machine: what is refused,
and what happens when they die. One that is killed in a run is in `test_cluster`."""

import contextlib
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agreement import agree
from support.clusters import (
    SERVED,
    Nodes,
    alive,
    meanwhile,
    on_cluster,
    rows,
    served_alone,
    served_on_cluster,
    started,
    teacher,
)
from support.tiny_runs import tiny_run

from tutelage.runs.cluster_servers import needed
from tutelage.runs.server_host import ServerHost

pytest.importorskip("ray")

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """One cluster for all tests."""
    with started() as found:
        yield found


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sentence(capfd: Output) -> str:
    """The one sentence that a command ended with."""
    err = capfd.readouterr().err
    found = [line for line in err.splitlines() if line.startswith("tutelage: ")]
    assert len(found) == 1, err
    assert "Traceback" not in err
    return found[0]


def test_servers_take_gpus_where_there_are_some() -> None:
    models = {"a": {"model": "x", "servers": 1}, "b": {"model": "x", "servers": 2, "device": "cpu"}}
    config = tiny_run(policy={"sampler": {"servers": 2}}, policies=models)
    names = ["policy.sampler 0", "policy.sampler 1"]
    names += ["policies.a 0", "policies.b 0", "policies.b 1"]
    for gpus, each in ((0, [0, 0, 0, 0, 0]), (4, [1, 1, 1, 0, 0])):
        found = needed(config, gpus=gpus)
        assert [server.name for server in found] == names
        assert [server.gpus for server in found] == each


@pytest.mark.nightly
def test_a_server_moves_to_another_node_with_the_same_weights(
    nodes: Nodes, tmp_path: Path, capfd: Output
) -> None:
    nodes.fill(4)
    model, folder, seen = teacher(tmp_path / "teacher"), tmp_path / "moved", ""
    held = {"env": {"suite": "held_doors:Held", "workers": 0}, "run": {"steps": 20}}

    def lose() -> None:
        nonlocal seen
        seen = capfd.readouterr().out
        hold, until = folder / "hold", time.monotonic() + 60
        hold.touch()
        try:
            while not list(folder.glob("held-*")):
                assert time.monotonic() < until, "no environment takes a step"
                time.sleep(0.05)
            nodes.lose(rows(seen, "policy.sampler"))  # one of them is not on the first node
            time.sleep(2.0)  # those of a lost node go on for a moment, and could answer
        finally:
            hold.unlink()

    given = {"policy": {"sampler": {"servers": 2}}, "policies": {"teacher": {"model": model}}}
    with meanwhile(folder, 2, lose):
        code = on_cluster(nodes, folder, base=SERVED, **given | held)
    err = capfd.readouterr().err
    assert code == 0, err
    assert err.count(" was lost and is started again") == 1
    agree(served_alone(tmp_path / "alone", model, **held), folder)


@pytest.mark.nightly
def test_a_server_that_keeps_dying_ends_the_run_and_resume_goes_on(
    nodes: Nodes, tmp_path: Path, capfd: Output
) -> None:
    nodes.fill(3)
    model, folder = teacher(tmp_path / "teacher"), tmp_path / "dying"
    folder.mkdir()
    (folder / "deaths").write_text("1 2 --reload\n1 6 --reload\n2 2 --reload\n2 6 --reload\n")
    assert served_on_cluster(nodes, folder, model) == 2
    assert len((folder / "killed").read_text().splitlines()) == 4
    ended = sentence(capfd)
    assert "the server of policy.sampler 0 was lost 4 times" in ended
    assert "--resume" in ended
    (folder / "deaths").unlink()
    assert served_on_cluster(nodes, folder, model, "--resume") == 0
    agree(served_alone(tmp_path / "alone", model), folder)


@pytest.mark.nightly
@pytest.mark.parametrize("divided", [[], ["--sharded", "always"]])
def test_each_rank_has_samplers_of_its_own_and_shares_a_teacher(
    nodes: Nodes, tmp_path: Path, capfd: Output, divided: list[str]
) -> None:
    """The teacher is killed, by each rank once."""
    nodes.fill(5)
    model, folder = teacher(tmp_path / "teacher"), tmp_path / "two"
    folder.mkdir()
    (folder / "deaths").write_text("1 2 teacher\n")
    policy = {"sampler": {"servers": 2}}
    assert served_on_cluster(nodes, folder, model, "--ranks", "2", *divided, policy=policy) == 0
    seen, err = capfd.readouterr()
    assert len(set(rows(seen, "rank ") + rows(seen, "polic"))) == 5
    assert "the server of policies.teacher was lost and is started again" in err
    agree(served_alone(tmp_path / "alone", model), folder)


@pytest.mark.nightly
def test_servers_start_beside_each_other(nodes: Nodes, tmp_path: Path) -> None:
    """The one whose process is there first stands still until that of the other is there."""
    nodes.fill(4)
    model, folder = teacher(tmp_path / "teacher"), tmp_path / "beside"
    folder.mkdir()

    def stop() -> None:
        first = appear(folder, 1)
        for process in first:
            os.kill(process, signal.SIGSTOP)
        try:
            appear(folder, 2)
        finally:
            for process in first:
                os.kill(process, signal.SIGCONT)

    with meanwhile(folder, 0, stop):
        assert served_on_cluster(nodes, folder, model, run={"steps": 1}) == 0


def appear(folder: Path, count: int) -> set[int]:
    """The processes of the servers that were started in a folder, once there are so many."""
    until = time.monotonic() + 180
    while True:
        found = set()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # one that has just ended
                command = (place / "cmdline").read_bytes().split(b"\0")
                if b"serve" in command and (place / "cwd").resolve() == folder.resolve():
                    found.add(int(place.name))
        if len(found) >= count:
            return found
        assert time.monotonic() < until, f"only {len(found)} servers are started"
        time.sleep(0.01)


@pytest.mark.nightly
def test_what_a_cluster_cannot_serve_is_said(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    nodes.fill(3)
    model = teacher(tmp_path / "teacher")
    monkeypatch.setenv("TUTELAGE_CLUSTER_DEADLINE", "3")
    assert served_on_cluster(nodes, tmp_path, model, policy={"sampler": {"servers": 9}}) == 2
    assert "no room for 10 servers, which need a CPU each, within 3 seconds" in sentence(capfd)
    monkeypatch.setenv("TUTELAGE_CLUSTER_DEADLINE", "60")
    assert served_on_cluster(nodes, tmp_path, model, "--ranks", "2") == 2
    assert "2 ranks but policy.sampler.servers = 1" in sentence(capfd)
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()
    policies = {"teacher": {"model": str(tmp_path / "empty"), "servers": 1}}
    assert on_cluster(nodes, tmp_path, base=SERVED, policies=policies) == 2
    assert "no config.json" in sentence(capfd)
    policies = {"teacher": {"model": model, "dtype": "bfloat16", "servers": 1}}
    (Path(model) / "model.safetensors").write_bytes(b"none")
    assert on_cluster(nodes, tmp_path, base=SERVED, policies=policies) == 2
    ended = sentence(capfd)
    assert "the server of policies.teacher on the cluster cannot be started" in ended
    assert model in ended


@pytest.mark.nightly
def test_a_dry_run_shows_where_servers_would_run(
    nodes: Nodes, tmp_path: Path, capfd: Output
) -> None:
    nodes.fill(3)
    assert served_on_cluster(nodes, tmp_path, teacher(tmp_path / "teacher"), "--dry-run") == 0
    seen = capfd.readouterr().out
    assert len(set(rows(seen, "rank ") + rows(seen, "policy.") + rows(seen, "policies."))) == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_a_server_has_a_key_that_no_list_of_processes_shows(tmp_path: Path) -> None:
    host = ServerHost(str(tmp_path), {})
    model = teacher(tmp_path / "teacher")
    first = host.serve([model])
    assert host.process is not None
    try:
        assert host.serve([model]) == first
        words = Path(f"/proc/{host.process.pid}/cmdline").read_bytes()
        assert b"serve" in words
        assert first.key.encode() not in words
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{first.url}/v1/models", timeout=20)
        bearer = {"Authorization": f"Bearer {first.key}"}
        asked = urllib.request.Request(f"{first.url}/v1/models", headers=bearer)
        assert urllib.request.urlopen(asked, timeout=20).status == 200
        os.kill(host.process.pid, signal.SIGKILL)
        host.process.wait()
        second = host.serve([model])
        assert second.start != first.start
        assert second.key != first.key
    finally:
        host.process.kill()
        host.process.wait()
    assert not alive(str(host.process.pid))
