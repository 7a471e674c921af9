"""The command line: output, exit codes and error messages, never a traceback."""

import inspect
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from keyword import iskeyword
from pathlib import Path

import pytest
from rich.console import Console
from support.tiny_runs import TEACHER, tiny_file

from tutelage import __version__
from tutelage.algorithms import ALGORITHMS
from tutelage.cli import commands, eval_config, examples
from tutelage.cli.arguments import COMMANDS
from tutelage.cli.listing import option_meanings
from tutelage.cli.main import main
from tutelage.cli.progress import Lines, LiveDisplay, Track, watch_for
from tutelage.config.schema import Config
from tutelage.config.toml_file import load
from tutelage.envs.doors import DoorsEnv
from tutelage.envs.registry import SUITES, suite_class, suite_of
from tutelage.hints import hint
from tutelage.maths.estimators import k3
from tutelage.objective import Algorithm, DistillSampled, View
from tutelage.prompts.prompter import Prompter
from tutelage.rollout import task_sampling
from tutelage.rollout.record import episode_of, read
from tutelage.rollout.replay import Replay
from tutelage.runs import assemble, checkpoint, models, offline, phases, train
from tutelage.types import Episode, Observation, Task

FILE = tiny_file(
    run={"steps": 4, "checkpoint_every": 2},
    rollout={"tasks_per_step": 3},
    algorithm={"name": "guided_opd"},
    update={"lr": 3e-3},
    policies=TEACHER,
    eval={"every": 2, "tasks": 9},
)

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file and its finished run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "my.toml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "my.toml"]) == 0
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def refused(arguments: Sequence[str], capsys: Captured) -> str:
    """What a refused command says: one line, on stderr."""
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert output.err.startswith("tutelage: ")
    assert "Traceback" not in output.err
    return output.err


# -- help


def test_help_needs_no_heavy_imports() -> None:
    code = (
        "import sys\nfrom tutelage.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'rich', 'matplotlib', 'numpy'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert result.stdout.endswith("heavy:\n")
    for command in ("train", "eval", "collect", "demo", "envs", "algorithms", "check-env"):
        assert command in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_without_heavy_imports(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: tutelage {command}" in shown
    assert " ".join(COMMANDS[command].summary.split()) in " ".join(shown.split())
    name = command.replace("-", "_")
    assert hasattr(commands, name + "_" if iskeyword(name) else name)


def test_the_bare_command_lists_the_commands(capsys: Captured) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert name in shown


def test_the_version_is_printed(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"tutelage {__version__}\n"


def test_what_is_required_is_named_and_nothing_else(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["train"])
    assert "are required: FILE\n" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_option(shell: str, capsys: Captured) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name in COMMANDS:
        assert name in script
    for option in ("dry-run", "temperature", "algorithm", "copy"):
        assert option in script


def test_the_script_for_bash_completes() -> None:
    code = f"""
source <({sys.executable} -m tutelage completion bash)
COMP_WORDS=(tutelage tra) COMP_CWORD=1; _tutelage; echo "${{COMPREPLY[@]}}"
COMP_WORDS=(tutelage train --d) COMP_CWORD=2; _tutelage; echo "${{COMPREPLY[@]}}"
"""
    shown = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "train\n--dry-run\n"


def test_examples_are_listed_shown_and_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["examples"]) == 0
    listed = capsys.readouterr().out
    for name in examples.paths():
        assert name in listed
        assert len(examples.description(examples.find(name))) > 10
    assert main(["examples", "household_sdar"]) == 0
    assert capsys.readouterr().out == examples.find("household_sdar").read_text()
    assert main(["examples", "household_sdar.toml", "--copy", "new"]) == 0
    assert Path("new/household_sdar.toml").read_text() == examples.text("household_sdar")
    capsys.readouterr()
    assert "exists already" in refused(["examples", "household_sdar", "--copy", "new"], capsys)
    assert "household_sdar?" in refused(["examples", "household_sdr"], capsys)
    assert "needs the name" in refused(["examples", "--copy", "new"], capsys)


# -- train


def test_a_run_writes_what_was_promised(here: Path) -> None:
    names = {path.name for path in (here / "run").iterdir()} - {".lock"}
    assert names == {
        "config.toml",
        "meta.json",
        "episodes.jsonl",
        "metrics.jsonl",
        "evals.jsonl",
        "columns.jsonl",
        "hints.jsonl",
        "timings.jsonl",
        "checkpoints",
        "latest",
    }
    assert (here / "run/latest").read_text() == "step-000004\n"
    saved = sorted(path.name for path in (here / "run/checkpoints").iterdir())
    assert saved == ["step-000002", "step-000004"]  # the newest two
    meta = json.loads((here / "run/meta.json").read_text())
    assert set(meta["tokenizers"]) == {"self", "teacher"}
    assert len(meta["panel"]) == 16
    evals = list(read(here / "run/evals.jsonl"))
    assert [line["step"] for line in evals] == [0, 2, 4]
    assert {line["panel"] for line in evals} == {meta["panel"]}


def test_metrics_say_what_was_played_and_learnt(here: Path) -> None:
    lines = list(read(here / "run/metrics.jsonl"))
    episodes = [(line["step"], episode_of(line)) for line in read(here / "run/episodes.jsonl")]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        actual = [e for step, e in episodes if step == line["step"]]
        assert line["episodes"] == len(actual) == 3
        assert len({e.task.id for e in actual}) == 3  # no task twice in a step
        assert line["won"] == sum(e.won for e in actual)
        assert line["tokens"] == sum(len(t.tokens) for e in actual for t in e.turns)
        turns = [turn for e in actual for turn in e.turns]
        actors = line["actors"]
        assert isinstance(actors, dict)
        assert actors.get("teacher", 0.0) == sum(t.actor == "teacher" for t in turns) / len(turns)
        losses = line["losses"]
        assert isinstance(losses, dict)
        assert sum(losses.values()) == pytest.approx(line["loss"])
    chances = [line["chances"] for line in lines]
    # cosine over the first 80 % of 4 steps, which are 3
    assert [c["teacher"] for c in chances] == pytest.approx([1.0, 0.75, 0.25, 0.0])  # type: ignore[index]
    chosen = {tuple(e.task.id for s, e in episodes if s == k) for k in range(4)}
    assert len(chosen) == 4  # every step draws its own tasks


def test_worker_processes_change_nothing_but_where_environments_run(
    here: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "workers"
    assert main(["train", "my.toml", f"run.folder={folder}", "env.workers=2"]) == 0
    for name in ("episodes.jsonl", "metrics.jsonl", "evals.jsonl", "checkpoints/step-000004"):
        one, other = here / "run" / name, folder / name
        if one.is_dir():
            one, other = one / "model.safetensors", other / "model.safetensors"
        assert one.read_bytes() == other.read_bytes()


def test_a_finished_run_is_not_run_again(here: Path, capsys: Captured) -> None:
    before = (here / "run/metrics.jsonl").read_bytes()
    assert "already holds a run" in refused(["train", "my.toml"], capsys)
    assert main(["train", "run", "--resume"]) == 0
    assert (here / "run/metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train", "mi.toml"], "did you mean my.toml?"),
        (["train", "my.toml", "update.lrr=1"], "did you mean update.lr?"),
        (
            ["train", "my.toml", "run.folder=new", "rollout.tasks_per_step=10"],
            "rollout.tasks_per_step = 10",
        ),
        (["train", "my.toml", "run.folder=new", "eval.split=later"], "eval.split = 'later'"),
        (["train", "my.toml", "run.folder=my.toml/x"], "cannot be used"),
        (["train", "my.toml", "run.folder=new", "rollout.replay=no.jsonl"], "rollout.replay"),
        (["train", "no-run", "--resume"], "no file no-run"),
        (["eval", "no-run"], "no file no-run; give a TOML file"),
        (
            ["eval", "run", "--policy", "tutor"],
            "no policy 'tutor'; there are student, expert, teacher",
        ),
        (["eval", "run", "--checkpoint", "step-000003"], "did you mean step-00000"),
        (["eval", "run", "--tasks", "10"], "eval.tasks = 10"),
        (["eval", "run", "--tasks", "0"], "eval.tasks"),
        (
            ["eval", "run", "--split", "holdout"],
            "cannot be used: doors has no split 'holdout'; it has",
        ),
        (["collect", "run", "--episodes", "0"], "--episodes"),
        (["collect", "run", "--policy", "exprt"], "did you mean expert?"),
        (["collect", "run", "--out", "my.toml"], "exists already"),
        (["collect", "run", "--policy", "teacher", "--thoughts"], "--thoughts"),
        (["algorithms", "grop"], "did you mean grpo?"),
        (["algorithms", "SDAR"], "did you mean sdar?"),
        (["trian", "my.toml"], "there is no command 'trian'; did you mean train?"),
        (["envs", "housold"], "did you mean household?"),
        (["eval", "builtin:household-teacher"], "no suite is given"),
        (["eval", "builtin:household-teacher", "dors"], "did you mean doors?"),
        (["eval", "builtin:household-teacher", "doors", "--checkpoint", "x"], "--checkpoint"),
        (["eval", "run", "--out", "my.toml"], "exists already"),
        (["init", "doors", "my.toml"], "exists already"),
        (["init", "dors"], "did you mean doors?"),
        (["init", "doors", "--algorithm", "grop"], "did you mean grpo?"),
        (["init", "doors", "--algorithm", "compose"], "has no default for terms"),
        (["init", "doors", "--model", "/nope"], "there is no folder /nope"),
        (["check-env", "dors"], "did you mean doors?"),
        (["sweep", "my.toml"], "there is no command 'sweep'; start a run for each"),
        (["resume", "run"], "there is no command 'resume'; `tutelage train RUN --resume`"),
        (
            ["train", "my.toml", "--run.steps=3"],
            "without dashes and with an equals sign: run.steps=3",
        ),
        (["train", "my.toml", "--seed", "3"], "with an equals sign: run.seed=VALUE"),
        (["train", "my.toml", "--learning-rate=3"], "with an equals sign: update.lr=VALUE"),
        (["train", "my.toml", "--lr", "3"], "with an equals sign: update.lr=VALUE"),
        (["train", "my.toml", "--algorithm.kl=3"], "with an equals sign: algorithm.kl=3"),
        (["train", "my.toml", "--report-to", "wandb"], "no option --report-to; --sink NAME sends"),
        (["train", "my.toml", "--top-p=0.9"], "no option --top-p: replies are drawn from"),
        (
            ["train", "my.toml", "--resume-from-checkpoint", "x"],
            "--resume` continues from the last",
        ),
        (["train", "--config", "my.toml"], "name the file without an option"),
        (["train", "my.toml", "--dryrun"], "there is no option --dryrun; did you mean --dry-run?"),
        (["eval", "run", "--model", "x"], "there is no option --model; it is written without one"),
        (["show", "run", "--seed", "3"], "there is no option --seed; did you mean --step?"),
    ],
)
def test_mistakes_are_one_sentence(
    here: Path, capsys: Captured, arguments: list[str], part: str
) -> None:
    assert part in refused(arguments, capsys)
    assert not (here / "new" / "config.toml").exists()


def test_a_dry_run_makes_nothing(here: Path, capsys: Captured) -> None:
    before = sorted(here.rglob("*"))
    assert main(["train", "my.toml", "run.folder=other", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "probability that teacher acts" in shown
    assert sorted(here.rglob("*")) == before


def test_settings_may_stand_on_both_sides_of_options(here: Path, capsys: Captured) -> None:
    given = ["train", "my.toml", "run.folder=other", "--dry-run", "rollout.max_turns=0"]
    assert main(given) == 2
    assert "rollout.max_turns" in capsys.readouterr().err
    for wrong in ("rollout.max_turns", "--no-such-option"):
        with pytest.raises(SystemExit):
            main(["train", "my.toml", "--dry-run", wrong])
        assert f"unrecognized arguments: {wrong}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["completion", "bash", "a=b"])
    assert "unrecognized arguments: a=b" in capsys.readouterr().err


def test_what_can_only_mean_one_thing_is_read_as_that(here: Path, capsys: Captured) -> None:
    given = ["train", "run.folder=other", "rollout.max_turns=0", "my.toml", "--dry-run"]
    assert main(given) == 2
    assert "rollout.max_turns must be" in capsys.readouterr().err
    for arguments in (["help"], ["help", "train"], ["version"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(arguments)
    shown = capsys.readouterr().out
    assert "usage: tutelage train [-h]" in shown
    assert f"tutelage {__version__}" in shown


@pytest.mark.parametrize("where", ["init", "tasks", "make", "demonstrate"])
def test_a_suite_that_raises_is_a_sentence(here: Path, capsys: Captured, where: str) -> None:
    suite = [
        f'env={{suite="support.faulty_suite:Faulty", options={{where="{where}"}}}}',
        "rollout.tasks_per_step=1",
    ]
    changes = ["run.folder=faulty", "eval.tasks=1", 'algorithm={name="sft"}', "policies={}"]
    output = refused(["train", "my.toml", *suite, *changes], capsys)
    assert "no such machine" in output
    assert "faulty_suite.py:" in output


def test_broken_environments_stop_a_run_with_their_own_words(
    here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, played, down = DoorsEnv.reset, task_sampling.play, False

    def reset(self: DoorsEnv, task: Task) -> Observation:
        if down:
            raise OSError("the game server is down")
        return right(self, task)

    def play(*given: object, step: int, **more: object) -> list[Episode]:
        nonlocal down
        down = step == 1
        return played(*given, step=step, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(DoorsEnv, "reset", reset)
    monkeypatch.setattr(task_sampling, "play", play)
    output = refused(["train", "my.toml", "run.folder=down"], capsys)
    assert "all 9 episodes of step 1 broke" in output  # 3 tasks, each tried 3 times
    assert "the game server is down" in output
    # what was played before is kept, and the broken episodes are there to look at
    monkeypatch.undo()
    monkeypatch.chdir(here)
    lines = [episode_of(line) for line in read(here / "down/episodes.jsonl")]
    assert any("server is down" in e.error for e in lines)
    assert main(["train", "down", "--resume"]) == 0
    lines = [episode_of(line) for line in read(here / "down/episodes.jsonl")]
    assert not any(e.error for e in lines)


def test_an_interrupt_is_not_a_traceback(
    here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_step", stop)
    assert main(["train", "my.toml", "run.folder=stopped"]) == 130
    output = capsys.readouterr().err
    assert "`tutelage train stopped --resume` continues from checkpoint step-000000" in output
    monkeypatch.setattr(train, "run_all", stop)
    assert main(["train", "my.toml", "run.folder=early"]) == 130
    assert "had not begun" in capsys.readouterr().err


def test_a_closed_pipe_is_not_a_traceback(here: Path) -> None:
    command = f"{sys.executable} -m tutelage.cli.main algorithms grpo | head -c 0"
    result = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert result.stderr == b""


# -- models by every name


def test_a_run_is_a_model(here: Path) -> None:
    assert models.locate("run", where="policy") == "run/checkpoints/step-000004"


def test_a_student_starts_from_a_run(here: Path, capsys: Captured) -> None:
    (here / "next.toml").write_text(
        FILE.replace('folder = "run"', 'folder = "next"').split("[policy]")[0]
        + '[policy]\nmodel = "run"\n[policies.teacher]\nmodel = "run"\n[eval]\ntasks = 9\n'
    )
    assert main(["train", "next.toml"]) == 0
    old = list(read(here / "run/evals.jsonl"))[-1]
    new = next(iter(read(here / "next/evals.jsonl")))
    assert new["outcomes"] == old["outcomes"]


def test_the_teacher_is_another_model_than_the_student(here: Path) -> None:
    config = load(here / "next.toml")
    suite = suite_of(config.env)
    result = models.policies_of(
        config, ["teacher"], suite, assemble.context_of(config.context, suite)
    )
    assert result["self"].model is not result["teacher"].model
    assert all(p.requires_grad for p in result["self"].model.parameters())
    assert not any(p.requires_grad for p in result["teacher"].model.parameters())


def test_built_models_are_equal_for_equal_seeds(here: Path) -> None:
    def weights(seed: int) -> list[float]:
        config = load(here / "my.toml", [f"run.seed={seed}"])
        suite = suite_of(config.env)
        result = models.policies_of(config, [], suite, assemble.context_of(config.context, suite))
        return [float(p.detach().double().sum()) for p in result["self"].model.parameters()]

    assert weights(0) == weights(0)
    assert weights(0) != weights(1)


# -- eval and collect


def test_eval_repeats_what_the_run_measured(here: Path, capsys: Captured) -> None:
    assert main(["eval", "run", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    logged = list(read(here / "run/evals.jsonl"))
    assert {name: data[name] for name in logged[-1]} == logged[-1]
    assert main(["eval", "run", "--json", "--checkpoint", "step-000002"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {name: again[name] for name in logged[1]} == logged[1]


def test_eval_compares_on_the_same_tasks(here: Path, capsys: Captured) -> None:
    assert main(["eval", "run", "--policy", "student", "--policy", "teacher", "--tasks", "6"]) == 0
    shown = capsys.readouterr().out
    assert "6 tasks of 'seen'" in shown
    assert "teacher against student" in shown
    assert "not distinguishable" in shown
    assert re.search(r"invalid turns +│ \d+ %", shown)


def test_eval_needs_no_file(here: Path, tmp_path: Path, capsys: Captured) -> None:
    """A model and a suite are enough; the split is the suite's own."""
    asked = ["eval", "run/checkpoints/step-000004", "doors", "--tasks", "3", "--temperature", "0.5"]
    asked.insert(3, "rollout.max_new_tokens=8")  # the run's models have short contexts
    assert main([*asked, "--policy", "student", "--policy", "expert", "--json"]) == 0
    student, expert = map(json.loads, capsys.readouterr().out.splitlines())
    assert (student["split"], student["n"], student["name"]) == ("unseen", 3, "student")
    assert (expert["won"], expert["name"]) == (3, "expert")
    out = tmp_path / "results"
    assert main([*asked, "--out", str(out), "--split", "seen", "env.options.rooms=3"]) == 0
    assert "3 tasks of 'seen'" in capsys.readouterr().out
    rows = list(read(out / "tasks.jsonl"))
    assert [row["policy"] for row in rows] == ["student"] * 3
    assert all(len(str(row["task"])) == len("doors/aaa") for row in rows)


def test_eval_of_a_run_on_another_suite_keeps_its_prompts(here: Path) -> None:
    config, student = eval_config.of(
        "run", ["support.faulty_suite:Faulty", "context.history=3"], tasks=1
    )
    assert student == "run/checkpoints/step-000004"
    assert config.env.suite == "support.faulty_suite:Faulty"
    assert (config.eval.split, config.eval.tasks) == ("unseen", 1)
    assert config.rollout == load(here / "run").rollout
    assert config.context.history == 3


def test_an_evaluation_reads_a_file_that_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(
        '[env]\nsuite = "doors"\n[algorithm]\nname = "sft"\n[update]\nlr = 1e-3\n'
        '[policy]\nmodel = "builtin:household-teacher"\n[run]\nsteps = 1\n[eval]\ntasks = 7\n'
    )
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\n[eval]\ntemperature = 0.5\n')
    config, _ = eval_config.of(str(tmp_path / "mine.toml"), [])
    assert (config.env.suite, config.eval.tasks, config.eval.temperature) == ("doors", 7, 0.5)


def test_eval_takes_as_many_tasks_as_there_are(here: Path) -> None:
    config, _ = eval_config.of("builtin:household-teacher", ["doors"])
    assert config.eval.tasks == 9


# -- init


GUESS = """
import random

class Guess:
    def reset(self, task):
        self.secret = random.Random(task.seed).randrange(10)
        return "Guess a digit."

    def step(self, action):
        right = action == str(self.secret)
        return "right" if right else "wrong", float(right), right
"""


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["household"], "household.toml"),
        (["household", "o.toml", "--algorithm", "guided_opd"], "o.toml"),
        (["doors", "--model", "run"], "doors.toml"),
        (["doors", "d/new.toml", "--model", "builtin:household-teacher"], "d/new.toml"),
        (["guess:Guess", "--model", "run", "--algorithm", "rloo"], "guess.toml"),
    ],
)
def test_init_writes_a_file_that_can_be_run(
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    arguments: list[str],
    file: str,
) -> None:
    shutil.copytree(here / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("guess.py").write_text(GUESS)
    monkeypatch.delitem(sys.modules, "guess", raising=False)  # that of the README, say
    assert main(["init", *arguments]) == 0
    shown = capsys.readouterr().out
    written = Path(file).read_text()
    assert len([line for line in written.splitlines() if " = " in line]) <= 22
    for line in shown.splitlines()[1:]:
        assert line.split()[:3] == ["tutelage", "train", file]
    assert main(["train", file, "--dry-run"]) == 0
    assert "exists already" in refused(["init", *arguments], capsys)


def test_init_looks_up_what_the_suite_has(here: Path, capsys: Captured) -> None:
    assert main(["init", "doors", "looked_up.toml", "--model", "run"]) == 0
    config = load(Path("looked_up.toml"))
    assert (config.env.split, config.eval.split, config.eval.tasks) == ("train", "unseen", 9)
    assert config.rollout.tasks_per_step == 8
    assert config.rollout.max_turns >= 2
    assert config.warm_start is not None  # doors demonstrates its tasks
    assert "# 9 tasks" in Path("looked_up.toml").read_text()
    Path("looked_up.toml").unlink()


SOLVED_GUESS = f"""{GUESS}
    def plan(self, task): return ["1"]
"""


def test_init_takes_a_hint_that_the_class_gives(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    shutil.copytree(here / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("solved_guess.py").write_text(SOLVED_GUESS)
    given = ["init", "solved_guess:Guess", "my.toml", "--model", "run", "--algorithm", "sdar"]
    assert main(given) == 0
    assert 'hint = "plan"' in Path("my.toml").read_text()
    assert main(["train", "my.toml", "--dry-run"]) == 0
    refusal = refused(["train", "my.toml", "algorithm.hint=skills", "--dry-run"], capsys)
    assert 'or choose a hint that it gives: algorithm.hint = "plan"' in refusal
    refusal = refused(["train", "my.toml", "env.split=holdout", "--dry-run"], capsys)
    assert (
        "cannot be used: There is no split 'holdout'; the splits are train, dev, test\n" in refusal
    )
    assert main(["init", "household", "h.toml", "--algorithm", "sdar"]) == 0
    assert "hint" not in Path("h.toml").read_text()  # it has skills, as the algorithm asks for


def test_what_is_collected_can_be_imitated(here: Path, capsys: Captured) -> None:
    assert main(["collect", "run", "--episodes", "20", "--out", "expert.jsonl"]) == 0
    assert "20/20 = 100 %" in capsys.readouterr().out
    episodes = [episode_of(line) for line in read(here / "expert.jsonl")]
    assert len(episodes) == 20
    assert len({e.task.id for e in episodes[:9]}) == 9  # every task once before any twice
    imitate = [
        "run.folder=imitated",
        'algorithm={name="sft"}',
        "rollout.replay=expert.jsonl",
        "rollout.tasks_per_step=5",
        'policy={model="run"}',
        "policies={}",
    ]
    assert main(["train", "my.toml", *imitate]) == 0
    played = [episode_of(line) for line in read(here / "imitated/episodes.jsonl")]
    assert len(played) == 4 * 5
    assert all(e.won and t.actor == "expert" for e in played for t in e.turns)


def test_only_won_episodes_are_kept_unless_asked(here: Path, capsys: Captured) -> None:
    def collect(*more: str) -> list[Episode]:
        path = here / f"by{len(more)}.jsonl"
        arguments = ["collect", "run", "--policy", "teacher", "--episodes", "9", *more]
        assert main([*arguments, "--out", str(path)]) == 0
        return [episode_of(line) for line in read(path)]

    assert all(e.won for e in collect())
    everything = collect("--all")
    assert len(everything) == 9
    assert not all(e.won for e in everything)
    assert {t.actor for e in everything for t in e.turns} == {"teacher"}


def test_a_replay_of_other_words_is_refused(here: Path, capsys: Captured) -> None:
    assert main(["collect", "run", "--episodes", "9", "--out", "some.jsonl"]) == 0
    capsys.readouterr()
    base = ["train", "my.toml", "run.folder=wrong", 'algorithm={name="sft"}', "policies={}"]
    text = (here / "some.jsonl").read_text()
    # another tokenizer, other prompts, another world, no episodes
    (here / "ids.jsonl").write_text(
        text.replace('"tokens":[', '"tokens":[7,').replace('"logps":[', '"logps":[0.0,')
    )
    for changes, part in (
        (["rollout.replay=ids.jsonl"], "another tokenizer"),
        (["rollout.replay=some.jsonl", "context.instructions=false"], "other prompts"),
        (["rollout.replay=changed.jsonl"], "no longer goes as it was recorded"),
        (["rollout.replay=lost.jsonl"], "holds no won episode"),
        (["rollout.replay=words.jsonl"], "line 1 of words.jsonl is not an episode"),
    ):
        (here / "changed.jsonl").write_text(text.replace('"seen":"a"', '"seen":"b"'))
        (here / "lost.jsonl").write_text(text.replace('"won":true', '"won":false'))
        (here / "words.jsonl").write_text("hello\n")
        output = refused([*base, 'policy={model="run"}', *changes], capsys)
        assert part in output
        shutil.rmtree(here / "wrong", ignore_errors=True)


def test_a_replay_restores_what_a_record_leaves_out(here: Path) -> None:
    path = here / "expert2.jsonl"
    assert (
        main(["collect", "run", "context.render=actions", "--episodes", "9", "--out", str(path)])
        == 0
    )
    config = load(here / "run", ["context.render=actions"])
    suite = suite_of(config.env)
    context = assemble.context_of(config.context, suite)
    chat = models.policies_of(config, [], suite, context, student=offline.trained(here / "run"))[
        "self"
    ].chat
    assert episode_of(next(iter(read(path)))).turns[0].observation.actions == ()
    episodes = Replay(path).choose(
        4, lambda task: Prompter(chat=chat, context=context), suite, seed=0, step=0
    )
    assert len({e.task.id for e in episodes}) == 4
    assert all(t.observation.actions for e in episodes for t in e.turns)


# -- tables


def test_algorithms_are_listed_and_explained(capsys: Captured) -> None:
    assert main(["algorithms"]) == 0
    shown = capsys.readouterr().out
    for name in ALGORITHMS:
        assert name in shown
        assert main(["algorithms", name]) == 0
        one = capsys.readouterr().out
        assert f'name = "{name}"' in one
        assert "total_steps" not in one.split("setting")[-1]
    assert main(["algorithms", "grpo"]) == 0
    one = capsys.readouterr().out
    assert "2402.03300" in one
    assert '"sampler" or "recomputed"' in one


def test_suites_are_listed_and_shown_with_their_options(capsys: Captured) -> None:
    assert main(["envs"]) == 0
    listed = capsys.readouterr().out
    for name in SUITES:
        assert name in listed
    for name in SUITES:
        assert main(["envs", name]) == 0
        one = capsys.readouterr().out
        assert f'suite = "{name}"' in one
        assert "<factory>" not in one
        table = one.partition("Options")[2]
        rows = {line.split()[0] for line in table.splitlines() if line.strip()}
        assert set(inspect.signature(suite_class(name)).parameters) <= rows
    assert main(["envs", "household"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "unseen 134 how many games each split has" in shown
    assert "tutelage init household" in shown


def test_every_option_of_a_suite_is_explained() -> None:
    """By the suite's docstring, which `tutelage envs NAME` reads."""
    for name in SUITES:
        kind = suite_class(name)
        meanings = option_meanings(inspect.getdoc(kind) or "")
        for option in inspect.signature(kind).parameters:
            assert len(meanings.get(option, "")) > 5, f"{name}.{option}: say what it means"
            assert len(meanings[option]) < 250, f"{name}.{option}: others' meanings are in it"


# -- progress


LINE = {
    "step": 3,
    "won": 3,
    "episodes": 12,
    "broken": 1,
    "loss": 0.5,
    "grad_norm": 1.25,
    "means": {"gap[teacher|student]": -0.125},
}
SECONDS = {"all": 10.0, "generate": 5.0, "update": 2.5, "teacher": 1.0, "environment": 0.5}


def test_plain_lines_say_it_all(here: Path) -> None:
    out = io.StringIO()
    lines = Lines(out)
    lines.started(load(here / "my.toml"), "train", 0)
    lines.stepped(LINE, SECONDS)
    lines.stepped({**LINE, "loss": None, "means": {}}, SECONDS)
    lines.evaluated({"step": 4, "won": 3, "n": 12})
    output = out.getvalue()
    for part in (
        "step 0 of 4",
        "won 3/12",
        "1 broken",
        "loss 0.5000",
        "gap -0.125",
        "10.0 s",
        "loss nan",
        "3/12 = 25 % (9 to 53 %) at step 4",
    ):
        assert part in output
    assert "\x1b" not in output


def test_the_live_view_says_it_all(here: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, record=True)
    view = watch_for(console)
    assert isinstance(view, LiveDisplay)
    view.tested(["one"])
    view.started(load(here / "my.toml"), "train", 0)
    view.stepped({**LINE, "step": 0}, SECONDS)
    view.stepped({**LINE, "step": 1}, SECONDS)
    view.evaluated({"step": 2, "won": 3, "n": 12})
    view.playing(5, 12)
    view.closed()
    shown = console.export_text()
    for part in (
        "2/4",
        "playing 5/12",
        "last 2 steps: 6/24 = 25 %",
        "generate 50 %",
        "environment 5 %",
        "teacher 10 %",
        "update 25 %",
        "evaluation: 3/12",
    ):
        assert part in shown


def test_a_pipe_gets_lines() -> None:
    assert isinstance(watch_for(Console(file=io.StringIO())), Lines)


def test_rates_and_ends_are_of_the_last_steps(here: Path) -> None:
    track = Track()
    config: Config = load(here / "my.toml", ["run.steps=100"])
    track.begin(config, "train", 20)
    for step in range(20, 50):
        track.add({**LINE, "step": step, "won": step % 2, "episodes": 1}, {**SECONDS, "all": 2.0})
    assert track.success().startswith("5/10")
    assert track.seconds_left() == 50 * 2.0
    track.begin(config, "train", 50)
    assert track.success().startswith("0/0")


# -- memory of the loop


def test_episodes_that_a_view_cannot_read_are_left_out(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Privileged text makes an episode longer than the student saw it."""

    def spied(*, total_steps: int) -> Algorithm:
        return Algorithm(
            terms=(DistillSampled(estimate=k3, teacher="wise"),),
            views={"wise": View(policy="self", hint="plan")},
        )

    def train(context: int) -> int:
        shutil.rmtree(here / "tight", ignore_errors=True)
        build = f"policy.build={{hidden=16, context={context}}}"
        changes = ['algorithm={name="spied"}', "policies={}", build]
        return main(["train", "my.toml", "run.folder=tight", "eval.every=0", *changes])

    monkeypatch.setattr(phases, "ALGORITHMS", {**ALGORITHMS, "spied": spied})
    assert train(400) == 0
    config = load(here / "tight")
    suite = suite_of(config.env)
    context = assemble.context_of(config.context, suite)
    chat = models.policies_of(config, [], suite, context)["self"].chat
    task = suite.tasks("train")[0]
    seen = suite.make().reset(task)
    plain, output = (
        len(Prompter(chat=chat, context=context, hint=text).piece([seen], [], False))
        for text in ("", hint(suite, task, "plan"))
    )
    lengths = [
        sum(len(t.prompt) + len(t.tokens) for t in episode_of(line).turns)
        for line in read(here / "tight/episodes.jsonl")
        if line["step"] == 0
    ]
    # the longest of the first step just fits, then just does not
    assert train(max(lengths) + output - plain) == 0
    assert next(iter(read(here / "tight/metrics.jsonl")))["unfit"] == 0
    capsys.readouterr()
    code = train(max(lengths) + output - plain - 1)
    if len(set(lengths)) == 1:
        assert code == 2
        assert "no episode of step 0 fits the models' contexts" in capsys.readouterr().err
    else:
        unfit = next(iter(read(here / "tight/metrics.jsonl")))["unfit"]
        assert unfit == lengths.count(max(lengths))


def test_a_pruned_run_keeps_its_newest(tmp_path: Path) -> None:
    for name in ("warm-000010", "step-000000", "step-000090", "step-000100"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "state.json").write_text("{}")
    assert checkpoint.names(tmp_path)[0] == "warm-000010"
    assert checkpoint.names(tmp_path)[-1] == "step-000100"


def test_memory_that_runs_out_is_a_sentence(
    here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def hungry(*args: object, **kwargs: object) -> None:
        torch.empty(2**62, dtype=torch.uint8)

    monkeypatch.setattr(train, "train_step", hungry)
    output = refused(["train", "my.toml", "run.folder=hungry"], capsys)
    assert "not enough memory" in output
    assert "update.max_tokens_per_pass" in output


def test_other_errors_are_not_hidden(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a fault of the project")

    monkeypatch.setattr(train, "train_step", broken)
    with pytest.raises(RuntimeError, match="a fault of the project"):
        main(["train", "my.toml", "run.folder=faulty"])
