"""Ray clusters of several nodes of this machine, runs on them, and suites that let them go wrong."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.agreement import lines
from support.fake_servers import serving
from support.gangs import run
from support.tiny_runs import TEACHER, Quiet, tiny_file, tiny_run
from tutelage.cli.main import main
from tutelage.envs.registry import suite_of
from tutelage.policies.hf.policy import HFPolicy
from tutelage.rollout.ranks import Ranks
from tutelage.runs import train
from tutelage.runs.assemble import context_of
from tutelage.runs.models import policies_of

Table = Mapping[str, Any]
SECTIONS: Table = {
    "run": {"steps": 3, "checkpoint_every": 1},
    "rollout": {"tasks_per_step": 4, "group_size": 2},
    "algorithm": {"name": "grpo", "kl": 0.1, "entropy": 0.01},
    "warm_start": {"name": "sft", "steps": 2, "lr": 3e-3},
    "update": {"lr": 3e-4, "minibatches": 2},
}
SERVED: Table = {
    "run": {"steps": 4, "checkpoint_every": 1},
    "env": {"suite": "killing_doors:Kills", "workers": 0},
    "rollout": {"tasks_per_step": 2, "group_size": 2},
    "algorithm": {"name": "opd"},
    "update": {"lr": 1e-2},
    "eval": {"every": 0},
}
"""Each step plays 4 episodes of two turns, so 8 environment steps."""
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
KILLS = """
import os
import signal
from collections import Counter
from pathlib import Path

from tutelage.envs.doors import Doors

steps = Counter()


class Kills(Doors):
    def make(self):
        return Steps(super().make())


class Steps:
    def __init__(self, env):
        self.reset, self.close, self.env = env.reset, env.close, env

    def step(self, action):
        log = Path("run/metrics.jsonl")
        done = len(log.read_text().splitlines()) if log.exists() else 0
        steps[done] += 1
        deaths = Path("deaths").read_text().splitlines() if Path("deaths").exists() else []
        for logged, number, what in map(str.split, deaths):
            if (int(logged), int(number)) == (done, steps[done]):
                for process in servers(what):
                    os.kill(process, signal.SIGKILL)
                    with Path("killed").open("a") as file:
                        print(logged, number, what, process, file=file)
        return self.env.step(action)


def servers(what):
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().decode().split("\\0")
            here = (place / "cwd").resolve() == Path.cwd()
        except OSError:
            continue
        if here and "serve" in command and any(what in word for word in command):
            yield int(place.name)
"""
"""A module with doors that kill servers of their folder. Each line of the file "deaths" says when and
which: training steps that are logged, environment steps since then, a word of the command line."""


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


@contextlib.contextmanager
def started() -> Iterator[Nodes]:
    """A cluster whose processes find this project as the tests do."""
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


def write_suites(folder: Path) -> None:
    (folder / "held_doors.py").write_text(HELD)
    (folder / "killing_doors.py").write_text(KILLS)


def alone(folder: Path, base: Table = SECTIONS, **sections: Any) -> Path:
    """The same run in one process."""

    def job(ranks: Ranks) -> None:
        train.train(tiny_run(**{**base, **sections}), watch=Quiet(), ranks=ranks)

    folder.mkdir(exist_ok=True)
    write_suites(folder)
    run(1, job, folder)
    return folder


def on_cluster(
    nodes: Nodes, folder: Path, *more: str, base: Table = SECTIONS, **sections: Any
) -> int:
    """`tutelage train --cluster` in a folder."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    (folder / "file.toml").write_text(tiny_file(**{**base, **sections}))
    write_suites(folder)
    return main(["train", "file.toml", "--cluster", nodes.address, *more])


def teacher(folder: Path) -> str:
    """A folder with a model that knows the tiny student's tokens, and is twice as wide."""
    settings = tiny_run(policies=TEACHER)
    suite = suite_of(settings.env)
    context = context_of(settings.context, suite)
    found = policies_of(settings, ["teacher"], suite, context)["teacher"]
    assert isinstance(found, HFPolicy)
    found.save(folder)
    return str(folder)


def served_alone(folder: Path, model: str, **sections: Any) -> Path:
    """The run of SERVED in one process, with the teacher in it and a sampler that a user started."""
    settings = tiny_run()
    suite = suite_of(settings.env)
    student = policies_of(settings, [], suite, context_of(settings.context, suite))["self"]
    assert isinstance(student, HFPolicy)
    with serving(student, reload=True) as server:
        sampler = {"url": f"http://127.0.0.1:{server.port}"}
        given = {"policy": {"sampler": sampler}, "policies": {"teacher": {"model": model}}}
        return alone(folder, SERVED, **given | sections)


def served_on_cluster(nodes: Nodes, folder: Path, model: str, *more: str, **sections: Any) -> int:
    """The same run on a cluster that starts both servers."""
    policies = {"teacher": {"model": model, "servers": 1}}
    placed = {"policy": {"sampler": {"servers": 1}}, "policies": policies}
    return on_cluster(nodes, folder, *more, base=SERVED, **placed | sections)


@contextlib.contextmanager
def meanwhile(folder: Path, steps: int, what: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as the run in a folder has logged so many steps. The block's end waits
    for it, and raises what it raised: where it failed, the run was not disturbed."""

    def wait() -> None:
        until = time.monotonic() + 600
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
