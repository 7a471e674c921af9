"""`understudy bench`: what it measures, what it recommends, how it looks."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from rich.console import Console

from understudy import bench
from understudy.bench import Part, Report, Trial, race, show
from understudy.cli import main
from understudy.config import Config
from understudy.configfile import load

FILE = """
[run]
steps = 2
threads = 1
[env]
suite = "doors"
[rollout]
tasks = 3
copies = 2
turns = 3
new_tokens = 4
live = 2
[algorithm]
name = "opd"
[update]
lr = 3e-3
[policy]
build = {layers = 1, hidden = 16, heads = 2, kv_heads = 1, ffn = 16, context = 160}
[policies.teacher]
build = {layers = 1, hidden = 32, heads = 2, kv_heads = 1, ffn = 32, context = 160}
"""


def part(name: str, seconds: float) -> Part:
    return Part(name=name, seconds=seconds, rate=10.0, unit="tokens")


def trial(setting: str, phase: str, faster: float) -> Trial:
    return Trial(setting=setting, phase=phase, part="sampling", faster=faster)


def test_a_file_is_measured_within_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "my.toml").write_text(FILE)
    assert main(["bench", "my.toml", "--seconds", "0.5"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("A step of 6 episodes takes about ")
    for word in ("generate", "environment", "teacher", "update", "share", "It waits most for: ",
                 'run.matmul = "bfloat16"', 'policy.compute = "bfloat16"', "rollout.live",
                 "Would help: "):  # fmt: skip
        assert word in told
    assert max(len(line) for line in told.splitlines()) <= 80
    assert list(tmp_path.iterdir()) == [tmp_path / "my.toml"]  # nothing is written


def test_the_seconds_are_those_of_a_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.toml").write_text(FILE)
    monkeypatch.setattr(bench, "_parts", lambda stage, episodes: [part("update", 1.0)])
    made = bench.measure(load(tmp_path / "my.toml"), seconds=1e-9, tick=lambda done, total: None)
    assert (made.played, made.step) == (2, 6)
    assert [p.seconds for p in made.parts] == [3.0]


def test_no_time_at_all_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "0"]) == 2
    assert "--seconds must be above 0, got 0" in capsys.readouterr().err


def test_without_a_file_the_built_in_models_are_measured() -> None:
    usual = bench.usual()
    assert isinstance(usual, Config)
    assert usual.algorithm.name == "opd"
    assert (usual.env.suite, usual.policy.model) == ("household", "builtin:household-teacher")


def test_what_helps_is_what_makes_a_slow_phase_faster() -> None:
    parts = (part("generate", 60.0), part("update", 35.0), part("environment", 5.0))
    made = Report(
        played=1, step=1, parts=parts,
        trials=(
            trial("run.threads = 1", "update", 1.5),
            trial("run.threads = 4", "generate", 1.4),
            trial("run.threads = 8", "generate", 1.3),
            trial('run.matmul = "bfloat16"', "generate", 1.05),
            trial('policy.compute = "bfloat16"', "update", 0.5),
            trial("rollout.live = 8", "generate", 2.0),
            trial("env.workers = 2", "environment", 9.0),
        ),
    )  # fmt: skip
    assert made.slowest.name == "generate"
    assert [t.setting for t in made.helpful()] == ["rollout.live = 8", "run.threads = 4"]


def test_settings_are_held_against_things_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three runs each, taken in turns, after one that does not count."""
    now, order, on = [0.0], list[str](), [""]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])

    class Slower(AbstractContextManager[None]):
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            on[0] = self.name

        def __exit__(self, *args: object) -> None:
            on[0] = ""

    def work() -> None:
        order.append(on[0])
        taken = (0.0 if on[0] else 100.0, 1.0, 2.0, 3.0)[(len(order) - 1) // 3 % 4]
        now[0] += taken * {"": 2.0, "half": 1.0, "twice": 4.0}[on[0]]

    settings: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "half": lambda: Slower("half"), "twice": lambda: Slower("twice"),
    }  # fmt: skip
    assert race(settings, work) == {"half": 2.0, "twice": 0.5}
    assert order == ["", "half", "twice"] * 4


def test_nothing_helps() -> None:
    made = Report(played=2, step=4, parts=(part("generate", 1.0),), trials=())
    out = io.StringIO()
    show(made, Console(file=out, width=80))
    assert out.getvalue().endswith(
        "It waits most for: generate (100 %).\n\nWould help: none of these.\n"
    )
