"""Runs on a Ray cluster of several nodes of this machine: what they write, and what happens when a
node is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.agreement import agree, lines
from support.gangs import run
from support.tiny_runs import Quiet, contents, tiny_file, tiny_run

from tutelage.cli.main import main
from tutelage.rollout.ranks import Ranks
from tutelage.runs import cluster as clusters
from tutelage.runs import train

pytest.importorskip("ray")

SECTIONS: dict[str, Any] = {
    "run": {"steps": 3, "checkpoint_every": 1},
    "rollout": {"tasks_per_step": 4, "group_size": 2},
    "algorithm": {"name": "grpo", "kl": 0.1, "entropy": 0.01},
    "warm_start": {"name": "sft", "steps": 2, "lr": 3e-3},
    "update": {"lr": 3e-4, "minibatches": 2},
}
SMALL = 80 << 20
"""Bytes of each node's object store, of which a run uses next to nothing."""
HELD = """
import os
import time
from pathlib import Path

from tutelage.envs.doors import Doors


class Held(Doors):
    def make(self):
        return Waits(super().make())


class Waits:
    def __init__(self, env):
        self.reset, self.close, self.env = env.reset, env.close, env

    def step(self, action):
        until = time.monotonic() + 120
        while Path("hold").exists():
            if time.monotonic() > until:
                raise TimeoutError("the file hold is still there")
            Path(f"held-{os.getpid()}").touch()
            time.sleep(0.05)
        return self.env.step(action)
"""
"""A module with doors whose steps wait while there is a file "hold"."""
Output = pytest.CaptureFixture[str]


class Nodes:
    """A cluster of nodes with one CPU each, of which the first holds its tables."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "object_store_memory": SMALL, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def fill(self, size: int) -> None:
        """Add nodes up to this number."""
        while len(self.cluster.list_all_nodes()) < size:
            self.cluster.add_node(num_cpus=1, object_store_memory=SMALL)

    def lose(self, names: Sequence[str]) -> None:
        """Kill one of these nodes that is not the first, and all that runs on it."""
        node = next(n for n in self.cluster.worker_nodes if n.node_id[:6] in names)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """One cluster for all tests. Ray's processes find this project as the tests do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_health_check_period_ms", "500")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        patch.setenv("OMP_NUM_THREADS", "1")
        found = Nodes()
        yield found
        found.cluster.shutdown()


def alone(folder: Path, **sections: Any) -> Path:
    """The same run in one process."""

    def job(ranks: Ranks) -> None:
        train.train(tiny_run(**SECTIONS | sections), watch=Quiet(), ranks=ranks)

    folder.mkdir(exist_ok=True)
    (folder / "held_doors.py").write_text(HELD)
    run(1, job, folder)
    return folder


def on_cluster(nodes: Nodes, folder: Path, *more: str, **sections: Any) -> int:
    """`tutelage train --cluster` in a folder."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    (folder / "file.toml").write_text(tiny_file(**SECTIONS | sections))
    (folder / "held_doors.py").write_text(HELD)
    return main(["train", "file.toml", "--cluster", nodes.address, *more])


@contextlib.contextmanager
def meanwhile(folder: Path, steps: int, what: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as the run in a folder has logged so many steps. The block's end waits
    for it, and raises what it raised: where it failed, the run was not disturbed."""

    def wait() -> None:
        until = time.monotonic() + 120
        while len(lines(folder, "metrics.jsonl")) < steps:
            if time.monotonic() > until:
                raise TimeoutError(f"the run has not logged {steps} steps")
            time.sleep(0.05)
        what()

    with ThreadPoolExecutor(1) as threads:
        doing = threads.submit(wait)
        yield
        doing.result()


def rows(output: str, kind: str) -> list[str]:
    """The nodes in the table's rows of a kind."""
    found = [line for line in output.splitlines() if line.startswith(kind)]
    return [line.partition("(")[2].partition(")")[0] for line in found]


def alive(process: str) -> bool:
    """Whether a process runs; nothing is left of the command line of one that is dead."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


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
    (tmp_path / "held_doors.py").write_text(HELD)
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
