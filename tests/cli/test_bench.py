"""`tutelage bench`: what it measures, what it recommends, how it looks."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tutelage import cpu
from tutelage.cli import bench, trials
from tutelage.cli.bench import Part, Report, show
from tutelage.cli.main import main
from tutelage.cli.trials import PLAYING, Trial, race
from tutelage.config.schema import Config, EnvSection
from tutelage.config.toml_file import load
from tutelage.envs.pool import Pool
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session
from tutelage.runs import assemble
from tutelage.runs.assemble import limits_of, phases_of, workers_of
from tutelage.runs.offline import staged
from tutelage.types import Episode, Observation, Stop, Task, Turn

FILE = """
[run]
steps = 2
threads = 1
[env]
suite = "doors"
[rollout]
tasks_per_step = 3
group_size = 2
max_turns = 3
max_new_tokens = 4
concurrency = 2
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
    assert main(["bench", "my.toml", "--seconds", "8"]) == 0
    told = capsys.readouterr().out
    other = "blas" if cpu.exact() else "bfloat16"
    assert told.startswith("A step of 6 episodes takes about ")
    for word in ("generate", "environment", "teacher", "update", "share", "It waits most for: ",
                 f'run.matmul = "{other}"', 'policy.dtype = "bfloat16"', "rollout.concurrency",
                 "Would help: "):  # fmt: skip
        assert word in told
    assert max(len(line) for line in told.splitlines()) <= 80
    assert list(tmp_path.iterdir()) == [tmp_path / "my.toml"]  # nothing is written


def ignored(done: int, total: int) -> None:
    pass


@contextmanager
def at(path: Path) -> Iterator[tuple[Config, Session]]:
    """A file's configuration and its session."""
    config = load(path)
    with staged(config, ["teacher"], "", ignored) as session:
        yield config, session


def test_the_seconds_are_those_of_a_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.toml").write_text(FILE)
    monkeypatch.setattr(bench, "_parts", lambda session, episodes, cut: [part("update", 1.0)])
    made = bench.measure(load(tmp_path / "my.toml"), seconds=1e-9, tick=ignored)
    assert (made.played, made.step) == (2, 6)
    assert [p.seconds for p in made.parts] == [3.0]


def test_without_time_for_a_whole_episode_it_is_cut_and_says_so(tmp_path: Path) -> None:
    """One turn of 8 tokens at first, twice as much while there is time, whole at last."""
    path = tmp_path / "my.toml"
    path.write_text(FILE.replace("turns = 3", "turns = 50").replace("_tokens = 4", "_tokens = 100"))
    with at(path) as (config, session):
        made = bench._step(config, session, phases_of(config)[-1], 1e-9)
        assert made.cut.startswith("cut to 1 of 50 turns and 8 of 100 tokens a turn; seconds are ")
        assert {len(e.turns) for e in made.episodes} == {1}
        assert max(len(e.turns[0].tokens) for e in made.episodes) <= 8
        assert session.limits == limits_of(config)
        assert bench._step(config, session, phases_of(config)[-1], 600.0).cut == ""


def episode(turns: int, tokens: int, stop: Stop) -> Episode:
    turn = Turn(observation=Observation(text="x"), prompt=(), text="", tokens=(5,) * tokens,
                logps=(0.0,) * tokens)  # fmt: skip
    return Episode(task=Task(id="t"), group="t", turns=(turn,) * turns, stop=stop)


def test_what_was_cut_is_taken_to_go_on_to_the_end() -> None:
    whole = Limits(max_turns=40, max_new_tokens=32)
    cut = replace(whole, turns=4, max_new_tokens=8)
    # 4 turns become 40, and 8 tokens 32
    assert bench._left_out([episode(4, 8, Stop.TURNS)], cut, whole) == (40.0, 10.0)
    assert bench._left_out([episode(4, 7, Stop.TURNS)], cut, whole) == (10.0, 10.0)
    assert bench._left_out([episode(2, 8, Stop.DONE)], cut, whole) == (4.0, 1.0)
    assert bench._left_out([episode(2, 7, Stop.DONE)], cut, whole) == (1.0, 1.0)
    # 4 x 7 and 2 x 7 tokens: the first 28 stand for 280
    both = [episode(4, 7, Stop.TURNS), episode(2, 7, Stop.DONE)]
    assert bench._left_out(both, cut, whole) == (294 / 42, 42 / 6)
    assert bench._left_out(both, whole, whole) == (1.0, 1.0)
    twice = bench._twice(replace(whole, turns=24, max_new_tokens=8), whole)
    assert (twice.turns, twice.max_new_tokens) == (40, 16)


# -- settings tried out


def test_workers_are_tried_with_as_many_episodes_as_are_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With group_size = 1 a single task would be waited for alone, whatever the workers."""
    path = tmp_path / "my.toml"
    path.write_text(FILE)
    seen: list[tuple[int, str, int, int]] = []
    at_work: list[EnvSection] = []

    def pool_of(section: EnvSection, suite: object) -> Pool:
        at_work[:] = [section]
        return before

    def played(
        session: Session, tasks: Sequence[Task], algorithm: object, *, seed: int, group_size: int
    ) -> None:
        """A second for each episode that waits before another, half of it where none waits for
        the slowest."""
        (env,) = at_work
        seen.append((workers_of(env), env.order, len(tasks) * group_size, session.limits.max_turns))
        waves = -(-len(tasks) * group_size // workers_of(env))
        session.clock.seconds["environment"] = waves * (0.5 if env.order == "arrival" else 1.0)
        session.clock.seconds["generate"] = 2.0

    with at(path) as (config, session):
        before = session.pool
        monkeypatch.setattr(trials, "play", played)
        monkeypatch.setattr(assemble, "pool_of", pool_of)
        rollout = config.rollout.model_copy(update={"tasks_per_step": 16, "group_size": 1, "concurrency": 8})
        env = config.env.model_copy(update={"workers": 1})
        config = config.model_copy(update={"rollout": rollout, "env": env})
        made = list(trials._workers(config, session, phases_of(config)[-1], 1.0, 1000.0))
        assert {call[2] for call in seen} == {8}
        assert {call[3] for call in seen} == {3}
        assert {t.setting: t.faster for t in made} == {
            "env.workers = 2": 10 / 6, 'env.order = "arrival"': 10 / 6,
        }  # fmt: skip
        assert {t.phase for t in made} == {PLAYING}
        seen.clear()  # with less time, the same episodes in fewer turns
        list(trials._workers(config, session, phases_of(config)[-1], 1.0, 35.0))
        assert {call[2:] for call in seen} == {(8, 2)}
        assert session.limits.max_turns == 3


def test_passes_of_another_size_are_tried_where_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(FILE)
    row = [Sample(prompt=(5,) * 20, tokens=(6, 7))]
    with at(path) as (_, session):
        own = session.policies["self"]
        assert isinstance(own, HFPolicy)

        def names(tokens: int) -> list[str]:
            own.tokens = tokens
            return [t.setting for t in trials._updates(own, [row] * 8, 1000.0)]

        assert names(50) == ["update.max_tokens_per_pass = 25", "update.max_tokens_per_pass = 100"]
        assert names(200) == ["update.max_tokens_per_pass = 100"]  # a pass holds all 176 already
        assert names(20) == []  # and here one row alone, in passes of 40 too
        assert own.tokens == 20
        assert all(p.grad is None for p in own.parameters())


def test_a_teacher_that_limits_the_run_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(FILE)
    with at(path) as (config, session):
        phase = phases_of(config)[-1]
        tasks = session.suite.tasks("train")[:1]
        episodes = play(session, tasks, phase.algorithm, seed=0)

        def phases(seconds: dict[str, float]) -> set[str]:
            made = trials.tried(config, session, phase, episodes, seconds, limit=1e-6)
            return {t.setting for t in made if t.phase == "teacher"}

        assert phases({"teacher": 5.0, "generate": 5.0}) == {'policies.teacher.dtype = "bfloat16"'}
        assert phases({"teacher": 0.1, "generate": 5.0}) == set()


def test_compiling_is_tried_where_there_are_a_compiler_and_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.toml"
    path.write_text(FILE)
    names: list[str] = []

    def only_named(settings: trials.Settings, work: object) -> dict[str, float]:
        names[:] = settings
        return {}

    monkeypatch.setattr(trials, "race", only_named)
    with at(path) as (config, session):
        own = session.policies["self"]
        assert isinstance(own, HFPolicy)
        samples = [Sample(prompt=(5, 6), tokens=(7,))]
        for there, seconds, tried in ((True, 12.0, True), (True, 1.0, False), (False, 99.0, False)):
            monkeypatch.setattr(trials, "compiler", lambda device, there=there: there)
            list(trials._passes(config, own, samples, seconds))
            assert ("policy.compile = true" in names) is tried
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "")
    assert not trials.compiler("cpu")


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
            trial('policy.dtype = "bfloat16"', "update", 0.5),
            trial("rollout.concurrency = 8", "generate", 2.0),
            trial("env.workers = 2", "environment", 9.0),
            trial('env.order = "arrival"', PLAYING, 1.2),
        ),
    )  # fmt: skip
    assert made.slowest.name == "generate"
    assert [t.setting for t in made.helpful()] == [
        "rollout.concurrency = 8", "run.threads = 4", 'env.order = "arrival"',
    ]  # fmt: skip


def test_settings_are_held_against_things_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three runs each, taken in turns, after one that does not count."""
    now, order, on = [0.0], list[str](), [""]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

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
