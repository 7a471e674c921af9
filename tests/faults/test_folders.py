"""Nothing that a run did not write is deleted, cut or written over, whatever lies in its folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.fault_runs import TABLE, config, everything, refused
from support.kill_chains import begin, cli, ended
from support.tiny_runs import Quiet, contents

import tutelage
from tutelage.cli.arguments import COMMANDS
from tutelage.cli.main import main
from tutelage.config.toml_file import load, parse, write
from tutelage.runs import checkpoint, train
from tutelage.runs import folder as run_folder

# -- a new run


NAMES = {
    "checkpoints/mine.txt": "checkpoints",
    "checkpoints/step-000100/model.safetensors": "checkpoints",
    "episodes.jsonl": "episodes.jsonl",
    "metrics.jsonl": "metrics.jsonl",
    "evals.jsonl": "evals.jsonl",
    "columns.jsonl": "columns.jsonl",
    "hints.jsonl": "hints.jsonl",
    "timings.jsonl": "timings.jsonl",
    "latest": "latest",
    "config.toml": "config.toml",
    "meta.json": "meta.json",
    ".lock": ".lock",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_new_run_is_refused_where_somebody_has_files_of_its_names(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "work" / name
    path.parent.mkdir(parents=True)
    path.write_text("two weeks of work")
    message = refused(config(tmp_path / "work"), tmp_path)
    assert NAMES[name] in message
    assert "run.folder" in message


def test_the_files_are_there_also_where_the_run_is_refused_for_another_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "work/checkpoints").mkdir(parents=True)
    (tmp_path / "work/episodes.jsonl").write_text("mine")
    (tmp_path / "empty").mkdir()
    table = json.loads(json.dumps(TABLE))
    table["policy"] = {"model": str(tmp_path / "none")}
    table["run"]["folder"] = str(tmp_path / "work")
    refused(parse(table), tmp_path)
    table["run"]["folder"] = str(tmp_path / "empty")
    assert "no folder" in refused(parse(table), tmp_path)
    assert list((tmp_path / "empty").iterdir()) == []


def test_nothing_is_written_where_a_check_before_the_first_step_fails(tmp_path: Path) -> None:
    """Its model is loaded and its prompts are tried by then."""
    table = json.loads(json.dumps(TABLE))
    table["run"]["folder"] = str(tmp_path / "run")
    table["policy"]["build"]["context"] = 24
    table["rollout"]["max_new_tokens"] = 20
    refused(parse(table), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_names_stay(tmp_path: Path) -> None:
    """A run may live in a folder of the user's: all that it does not write stays as it was."""
    for name in ("notes.txt", "train.toml", ".episodes.jsonl", ".config.toml", "checkpoints.bak"):
        (tmp_path / name).write_text(name)
    ended(begin(tmp_path, lambda: train.train(config(tmp_path), watch=Quiet())), tmp_path)
    (tmp_path / "checkpoints/mine").mkdir()
    (tmp_path / "checkpoints/mine/weights").write_text("mine")
    (tmp_path / "checkpoints/step-000004-backup").mkdir()
    (tmp_path / "checkpoints/.git").write_text("mine")
    before = everything(tmp_path)
    more = config(tmp_path, run__steps=6)
    ended(begin(tmp_path, lambda: train.train(more, resume=True, watch=Quiet())), tmp_path)
    after = everything(tmp_path)
    for name in ("notes.txt", "train.toml", ".episodes.jsonl", ".config.toml", "checkpoints.bak"):
        assert after[name] == name.encode()
    assert after["checkpoints/mine/weights"] == b"mine"
    assert after["checkpoints/.git"] == b"mine"
    assert (tmp_path / "checkpoints/step-000004-backup").is_dir()
    assert set(before) - set(after) == {
        name for name in before if name.startswith("checkpoints/step-000002/")
    }


def test_episodes_that_a_run_replays_are_not_its_log(tmp_path: Path) -> None:
    """`collect` writes episodes.jsonl, and the run that imitates them may be told to live there."""
    (tmp_path / "train.toml").write_text(write(config()))
    assert cli(tmp_path, "collect", "train.toml", "--episodes", "3").code == 0
    before = everything(tmp_path)
    done = cli(tmp_path, "train", "train.toml", "run.folder=.", "rollout.replay=episodes.jsonl")
    assert done.code == 2, done.message
    assert "episodes.jsonl" in done.message
    assert everything(tmp_path) == before
    assert len(before["episodes.jsonl"]) > 100


# -- a copy of a run


def test_the_folder_on_the_command_line_is_the_one_that_goes_on(run: Path) -> None:
    text = (run / "config.toml").read_text()
    copy = Path(shutil.copytree(run, run.parent / "copy"))
    before = contents(run)
    for where in ("copy", "copy/config.toml"):
        done = cli(run.parent, "train", where, "--resume", "run.steps=6")
        assert done.code == 0, done.message
        assert (copy / "latest").read_text().strip() == "step-000006"
        assert contents(run) == before
    assert (run / "config.toml").read_text() == text
    assert load(copy).run.folder == str(copy)


def test_two_folders_on_the_command_line_are_refused(run: Path) -> None:
    before = everything(run.parent)
    done = cli(run.parent, "train", "run", "--resume", "run.folder=other")
    assert done.code == 2
    assert "leave one of the two out" in done.message
    assert everything(run.parent) == before


# -- links


@pytest.mark.parametrize(
    "name",
    [
        "episodes.jsonl",
        "metrics.jsonl",
        "timings.jsonl",
        "latest",
        "config.toml",
        "checkpoints",
        ".lock",
        "meta.json",
    ],
)
def test_a_link_in_a_run_s_folder_is_not_followed(name: str, run: Path) -> None:
    elsewhere = run.parent / "elsewhere"
    (run / name).rename(elsewhere)
    (run / name).symlink_to(elsewhere)
    if name == "timings.jsonl":
        with elsewhere.open("a") as file:
            file.write('{"of another run"}\n')
    message = refused(config(run), run.parent, resume=True)
    assert f"{run / name} is a symbolic link" in message


def test_a_copy_of_hard_links_leaves_the_original_alone(run: Path) -> None:
    with (run / "episodes.jsonl").open("a") as file:
        file.write('{"after the last checkpoint"}\n')
    copy = run.parent / "copy"
    copy.mkdir()
    for path in run.rglob("*"):
        target = copy / path.relative_to(run)
        if path.is_dir():
            target.mkdir()
        else:
            os.link(path, target)
    before = everything(run)
    more = config(copy, run__steps=6)
    ended(begin(run.parent, lambda: train.train(more, resume=True, watch=Quiet())), run.parent)
    assert everything(run) == before


# -- what a run left


@pytest.fixture
def old(run: Path) -> Path:
    """A run of before there was a mark."""
    (run / ".lock").write_text("")
    return run


def test_runs_from_before_there_was_a_mark_go_on(old: Path) -> None:
    settings = config(old)
    found = run_folder.find(settings, steps_matter=False, resume=True)
    run_folder.claim(found, settings, {})
    found.close()
    assert (old / ".lock").read_text() == run_folder.MARK


def test_a_config_toml_alone_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(write(config(tmp_path)))
    (tmp_path / "episodes.jsonl").write_text("mine")
    message = refused(config(tmp_path), tmp_path, resume=True)
    assert "is not a run's" in message


def test_lines_are_in_their_files_when_a_step_ends(tmp_path: Path) -> None:
    """SIGKILL right after a step: its lines are there."""

    class Dies(Quiet):
        def stepped(self, line: object, seconds: object) -> None:
            if isinstance(line, dict) and line["phase"] == "train" and line["step"] == 2:
                os.kill(os.getpid(), 9)

    status = os.waitpid(
        begin(tmp_path, lambda: train.train(config(run__checkpoint_every=50), watch=Dies())), 0
    )[1]
    assert os.WIFSIGNALED(status)
    for name in ("metrics.jsonl", "timings.jsonl"):
        lines = [json.loads(x) for x in (tmp_path / "run" / name).read_text().splitlines()]
        assert [(x["phase"], x["step"]) for x in lines] == [
            ("warm_start", 0),
            ("train", 0),
            ("train", 1),
            ("train", 2),
        ]
    episodes = (tmp_path / "run/episodes.jsonl").read_text().splitlines()
    assert json.loads(episodes[-1])["step"] == 2
    assert checkpoint.names(tmp_path / "run") == ["step-000000"]


# -- files of others among the checkpoints


def test_a_folder_in_the_place_of_a_later_checkpoint_is_refused(run: Path) -> None:
    path = run / "checkpoints/step-000012"
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    message = refused(config(run, run__steps=20, run__checkpoint_every=4), run, resume=True)
    assert "step-000012 holds thesis.txt, which the run did not write" in message


def test_files_of_others_in_a_checkpoint_stay_when_it_is_dropped(run: Path) -> None:
    old, older = run / "checkpoints/step-000002", run / "checkpoints/step-000001"
    older.mkdir()
    for path in (old / "notes.txt", old / "mine" / "plot.png", older / "thesis.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    settings = config(run, run__steps=8)
    train.train(settings, resume=True, watch=Quiet())
    assert checkpoint.names(run)[-1] == "step-000008"
    left = {k: v for k, v in everything(run).items() if k.startswith("checkpoints/step-00000")}
    whole = {"step-000006", "step-000008"}
    assert {k: v for k, v in left.items() if k.split("/")[1] not in whole} == {
        "checkpoints/step-000001/thesis.txt": b"mine",
        "checkpoints/step-000002/mine/plot.png": b"mine",
        "checkpoints/step-000002/notes.txt": b"mine",
    }


def test_a_configuration_that_was_edited_is_not_continued(run: Path) -> None:
    """Results after it would be those of no file; other line ends are no change."""
    path = run / "config.toml"
    text = path.read_text()
    assert "lr = 0.001" in text
    path.write_bytes(text.replace("\n", "\r\n").encode())
    train.train(load(path, ["run.steps=5"], trust=True), resume=True, watch=Quiet())
    text = path.read_text()
    path.write_text(text.replace("lr = 0.001", "lr = 0.5"))
    settings = load(path, ["run.steps=6"], trust=True)
    assert "config.toml was changed after the run wrote it" in refused(settings, run, resume=True)
    path.write_text(text)
    train.train(load(path, ["run.steps=6"], trust=True), resume=True, watch=Quiet())


def test_a_home_folder_is_not_a_folder_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert config("~/run").run.folder == "/home/me/run"
    assert config("~").run.folder == "/home/me"
    assert config("a~b").run.folder == "a~b"


# -- no working folder


ARGUMENTS = {
    "check-agent": "mine:agent",
    "check-env": "doors",
    "collect": "run.toml",
    "compare": "run other",
    "completion": "bash",
    "convert": "run out --to atif",
    "eval": "run",
    "export": "run out",
    "init": "doors",
    "plan": "run.toml",
    "power": "--tasks 5",
    "send": "run --sink wandb",
    "serve": "model",
    "show": "run",
    "train": "run.toml",
    "try": "run.toml",
    "view": "run",
}
"""Of the commands that do not start without any."""
GONE = "tutelage: the working folder cannot be found (No such file or directory), it was deleted or"


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work").rmdir()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_deleted_working_folder_is_a_sentence(
    command: str, gone: None, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([command, *ARGUMENTS.get(command, "").split()])
    shown = capsys.readouterr()
    if command == "completion":
        assert (code, shown.err) == (0, "")
        return
    assert (code, shown.out) == (2, "")
    assert shown.err.startswith(GONE)
    assert len(shown.err.splitlines()) == 1


def test_a_deleted_working_folder_is_a_sentence_before_torch_is_loaded(gone: None) -> None:
    """Its libraries end the process where there is no working folder."""
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", "init", "doors"],
        env=os.environ | {"PYTHONPATH": str(Path(tutelage.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(GONE)
    assert len(done.stderr.splitlines()) == 1
