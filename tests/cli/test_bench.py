"""`tutelage bench`: its measurement and its output."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_runs import TEACHER, tiny_file

from tutelage.cli import bench
from tutelage.cli.bench import Part, Report, show
from tutelage.cli.main import main
from tutelage.config.schema import Config
from tutelage.config.toml_file import load
from tutelage.rollout.session import Limits, Session
from tutelage.runs.assemble import assemble, limits_of
from tutelage.runs.offline import opened
from tutelage.runs.phases import phases_of
from tutelage.types import Episode, Observation, Stop, Task, Turn

FILE = tiny_file(
    rollout={"tasks_per_step": 3, "group_size": 2, "concurrency": 2},
    algorithm={"name": "opd"},
    update={"lr": 3e-3},
    policies=TEACHER,
)


def part(name: str, seconds: float) -> Part:
    return Part(name=name, seconds=seconds, rate=10.0, unit="tokens")


def test_a_file_is_measured_within_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "my.toml").write_text(FILE)
    assert main(["bench", "my.toml", "--seconds", "8"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("A step of 6 episodes takes about ")
    for word in (
        "generate",
        "environment",
        "prompts",
        "teacher",
        "update",
        "share",
        "Bottleneck: ",
    ):
        assert word in output
    assert max(len(line) for line in output.splitlines()) <= 80
    assert list(tmp_path.iterdir()) == [tmp_path / "my.toml"]  # nothing is written


def ignored(done: int, total: int) -> None:
    pass


@contextmanager
def at(path: Path) -> Iterator[tuple[Config, Session]]:
    """A file's configuration and its session."""
    config = load(path)
    with opened(assemble(config, evaluates=False), tick=ignored) as session:
        yield config, session


def test_the_seconds_are_those_of_a_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.toml").write_text(FILE)
    monkeypatch.setattr(bench, "_parts", lambda session, episodes, cut: [part("update", 1.0)])
    result = bench.measure(load(tmp_path / "my.toml"), seconds=1e-9, tick=ignored)
    assert (result.played, result.step) == (2, 6)
    assert [p.seconds for p in result.parts] == [3.0]


def test_an_expert_plays_a_task_of_a_step_once(tmp_path: Path) -> None:
    """As in a run: with more episodes asked for than there are tasks, a step is all tasks."""
    path = tmp_path / "my.toml"
    path.write_text(FILE)
    sft = ["algorithm={name = 'sft'}", "rollout.tasks_per_step=2", "rollout.group_size=1000"]
    config = load(path, sft)
    result = bench.measure(config, seconds=1e-9, tick=ignored)
    assert result.step == result.tasks < 2000


def test_without_time_for_a_whole_episode_it_is_cut_and_says_so(tmp_path: Path) -> None:
    """One turn of 8 tokens at first, twice as much while there is time, whole at last."""
    path = tmp_path / "my.toml"
    path.write_text(
        FILE.replace("max_turns = 3", "max_turns = 50").replace("_tokens = 4", "_tokens = 100")
    )
    with at(path) as (config, session):
        result = bench._step(config, session, phases_of(config)[-1], 1e-9)
        assert result.cut.startswith(
            "cut to 1 of 50 turns and 8 of 100 tokens per turn; seconds are "
        )
        assert {len(e.turns) for e in result.episodes} == {1}
        assert max(len(e.turns[0].tokens) for e in result.episodes) <= 8
        assert session.limits == limits_of(config)
        assert bench._step(config, session, phases_of(config)[-1], 600.0).cut == ""


def episode(turns: int, tokens: int, stop: Stop) -> Episode:
    turn = Turn(
        observation=Observation(text="x"),
        prompt=(),
        text="",
        tokens=(5,) * tokens,
        logps=(0.0,) * tokens,
    )
    return Episode(task=Task(id="t"), group="t", turns=(turn,) * turns, stop=stop)


def test_what_was_cut_is_taken_to_go_on_to_the_end() -> None:
    full = Limits(max_turns=40, max_new_tokens=32)
    cut = replace(full, max_turns=4, max_new_tokens=8)
    # 4 turns become 40, and 8 tokens 32
    assert bench._left_out([episode(4, 8, Stop.TURNS)], cut, full) == (40.0, 10.0)
    assert bench._left_out([episode(4, 7, Stop.TURNS)], cut, full) == (10.0, 10.0)
    assert bench._left_out([episode(2, 8, Stop.DONE)], cut, full) == (4.0, 1.0)
    assert bench._left_out([episode(2, 7, Stop.DONE)], cut, full) == (1.0, 1.0)
    # 4 x 7 and 2 x 7 tokens: the first 28 stand for 280
    both = [episode(4, 7, Stop.TURNS), episode(2, 7, Stop.DONE)]
    assert bench._left_out(both, cut, full) == (294 / 42, 42 / 6)
    assert bench._left_out(both, full, full) == (1.0, 1.0)
    twice = bench._twice(replace(full, max_turns=24, max_new_tokens=8), full)
    assert (twice.max_turns, twice.max_new_tokens) == (40, 16)


def test_no_time_at_all_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "0"]) == 2
    assert "--seconds must be above 0, got 0" in capsys.readouterr().err


def test_without_a_file_the_built_in_models_are_measured() -> None:
    usual = bench.usual()
    assert isinstance(usual, Config)
    assert usual.algorithm.name == "opd"
    assert (usual.env.suite, usual.policy.model) == ("household", "builtin:household-teacher")


def test_the_bottleneck_is_the_slowest_phase() -> None:
    report = Report(played=2, step=4, parts=(part("generate", 46.0), part("update", 54.0)))
    assert report.bottleneck.name == "update"
    out = io.StringIO()
    show(report, Console(file=out, width=80))
    assert out.getvalue().startswith(
        "A step of 4 episodes takes about 100 s on this machine (measured on 2 episodes).\n"
    )
    assert out.getvalue().endswith("\nBottleneck: update (54 %).\n")
