"""Runs on a Ray cluster of several nodes of this machine: what they write, and what happens when a
node is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agreement import agree
from support.clusters import (
    SECTIONS,
    Nodes,
    alive,
    alone,
    meanwhile,
    on_cluster,
    rows,
    served_alone,
    served_on_cluster,
    started,
    teacher,
    write_suites,
)
from support.tiny_runs import contents, tiny_file

from tutelage.cli.main import main
from tutelage.runs import cluster as clusters

pytest.importorskip("ray")

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """One cluster for all tests."""
    with started() as found:
        yield found


def test_ranks_on_two_nodes_of_which_one_is_lost(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    """What both ranks played and learnt before, and what they do after --resume, is what one
    process does."""
    monkeypatch.chdir(tmp_path)
    nodes.fill(2)
    folder, seen = tmp_path / "two", ""

    def lose() -> None:
        nonlocal seen
        seen = capfd.readouterr().out
        nodes.lose(rows(seen, "rank "))

    with meanwhile(folder, 3, lose):
        code = on_cluster(nodes, folder, "--ranks", "2")
    assert code == 2
    assert len(set(rows(seen, "rank "))) == 2
    err = capfd.readouterr().err
    sentences = [line for line in err.splitlines() if line.startswith("tutelage: ")]
    assert len(sentences) == 1, err
    assert "--resume" in sentences[0]
    assert "Traceback" not in err
    assert on_cluster(nodes, folder, "--ranks", "1", "--resume") == 0
    assert "done: run" in capfd.readouterr().out
    agree(alone(tmp_path / "one"), folder)


def test_environments_go_on_where_their_node_is_lost(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    """The run writes the bytes that it writes with workers of its own machine."""
    monkeypatch.chdir(tmp_path)
    nodes.fill(4)
    spread, seen = tmp_path / "spread", ""
    env = {"suite": "held_doors:Held", "workers": 2}

    def lose() -> None:
        nonlocal seen
        seen = capfd.readouterr().out
        hold, until = spread / "hold", time.monotonic() + 60
        hold.touch()
        try:
            while len(held := list(spread.glob("held-*"))) < 2:
                assert time.monotonic() < until, "no environment takes a step"
                time.sleep(0.05)
            nodes.lose(rows(seen, "environments"))
            # those of a lost node go on for a moment, and could answer
            while all(alive(each.name.removeprefix("held-")) for each in held):
                assert time.monotonic() < until, "no environment died with its node"
                time.sleep(0.05)
        finally:
            hold.unlink()

    with meanwhile(spread, 2, lose):
        code = on_cluster(nodes, spread, env=env)
    assert code == 0
    assert "with environments was lost; " in capfd.readouterr().err
    assert len(set(rows(seen, "environments") + rows(seen, "rank "))) == 3
    local = alone(tmp_path / "local", env=env)
    assert contents(spread / "run") == contents(local / "run")


@pytest.mark.nightly  # a minute; `make scale-smoke` runs it
def test_a_sampler_that_is_killed_is_started_again(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    """The run, which has a teacher on a server as well, is that of one process with a sampler that
    nobody disturbs."""
    monkeypatch.chdir(tmp_path)
    nodes.fill(3)
    model, folder = teacher(tmp_path / "teacher"), tmp_path / "served"
    folder.mkdir()
    (folder / "deaths").write_text("1 2 --reload\n")
    assert served_on_cluster(nodes, folder, model) == 0
    seen, err = capfd.readouterr()
    assert len((folder / "killed").read_text().splitlines()) == 1
    assert "the server of policy.sampler 0 was lost and is started again, at http://" in err
    assert len(set(rows(seen, "rank ") + rows(seen, "policy.") + rows(seen, "policies."))) == 3
    agree(served_alone(tmp_path / "alone", model), folder)


@pytest.mark.nightly
def test_ctrl_c_writes_a_checkpoint(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "stopped"
    sections: dict[str, Any] = {"run": {"steps": 100, "checkpoint_every": 90}}
    with meanwhile(folder, 3, lambda: os.kill(os.getpid(), signal.SIGINT)):
        code = on_cluster(nodes, folder, **sections)
    assert code == 130
    sentence = [x for x in capfd.readouterr().err.splitlines() if x.startswith("tutelage: ")]
    assert len(sentence) == 1
    assert "stopped; " in sentence[0]
    assert "--resume" in sentence[0]


@pytest.mark.nightly
def test_a_cluster_of_this_machine_is_started_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: this one belongs to another cluster already."""
    (tmp_path / "file.toml").write_text(tiny_file(**SECTIONS))
    write_suites(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "tutelage", "train", "file.toml", "--cluster", "local"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "done: run" in ended.stdout
    agree(alone(tmp_path / "one"), tmp_path)


def test_what_a_cluster_cannot_run_is_said_at_once(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*more: str, **sections: Any) -> str:
        assert on_cluster(nodes, tmp_path, *more, **sections) == 2
        err = capfd.readouterr().err
        assert err.count("tutelage: ") == 1, err
        assert "Traceback" not in err
        assert not (tmp_path / "run").exists()
        return err

    monkeypatch.setenv("TUTELAGE_CLUSTER_DEADLINE", "2")
    many = refused("--ranks", "9")
    assert "no room for 9 ranks, which need a CPU each, within 2 seconds" in many
    assert "CPUs" in many
    workers = refused(env={"suite": "doors", "workers": 9})
    assert "no room for the 9 environment workers of each of 1 rank" in workers
    monkeypatch.setenv("TUTELAGE_CLUSTER_DEADLINE", "60")
    assert "not_there could not be imported" in refused(env={"suite": "not_there:Mine"})
    here = clusters.versions()
    monkeypatch.setattr(clusters, "versions", lambda: here | {"torch": "1.0"})
    assert f"has torch {here['torch']} and this machine has torch 1.0" in refused()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("somewhere", "that is no address of a cluster"),
        ("ray://127.0.0.1:1", "that is no address of a cluster"),
    ],
)
def test_an_unknown_address(
    address: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.toml").write_text(tiny_file())
    assert main(["train", "file.toml", "--cluster", address]) == 2
    assert sentence in capfd.readouterr().err


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    Path("file.toml").write_text(tiny_file())
    assert main(["train", "file.toml", "--cluster", "auto"]) == 2
    assert "pip install 'tutelage[ray]'" in capfd.readouterr().err


def test_ranks_belong_to_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.toml").write_text(tiny_file())
    assert main(["train", "file.toml", "--ranks", "2"]) == 2
    assert "it belongs to --cluster" in capfd.readouterr().err


def test_playing_ahead_is_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.toml").write_text(tiny_file())
    asked = ["train", "file.toml", "--cluster", "auto", "rollout.concurrency.ahead=1"]
    assert main(asked) == 2
    assert "plays in a second process of one machine" in capfd.readouterr().err
