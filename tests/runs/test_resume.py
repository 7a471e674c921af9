"""A run that is killed anywhere and continued writes the same bytes as one that never stopped."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_runs import Quiet, changed, contents, tiny_table

from tutelage.config.schema import Config
from tutelage.config.toml_file import load, parse
from tutelage.errors import RunError
from tutelage.runs import checkpoint, train
from tutelage.runs import folder as run_folder

STEPS = 4
TABLE = tiny_table(
    run={"steps": STEPS, "checkpoint_every": 2, "columns": True},
    rollout={"group_size": 2},
    algorithm={"name": "grpo", "kl": 0.1, "entropy": 0.01},
    warm_start={"name": "sft", "steps": 3, "lr": 3e-3},
    update={"lr": {"cosine": [1e-3, 0.0]}, "warmup": 1, "minibatches": 2},
    policy={"build": {"context": 128}},
    eval={"every": 2, "tasks": 3},
)


def config(**changes: object) -> Config:
    return changed(TABLE, **changes)


def in_child(folder: Path, job: Callable[[], object]) -> int:
    """Run a job in a forked process in `folder`; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            job()
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def whole(folder: Path, settings: Config | None = None, *, resume: bool = False) -> None:
    chosen = settings or config()
    assert in_child(folder, lambda: train.train(chosen, resume=resume, watch=Quiet())) == 0


def kill_at(event: int, job: Callable[[], object]) -> Callable[[], object]:
    """The job, killed without warning at its n-th operation on a file of the run."""
    count = 0

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if name in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            count += "run" in str(arguments[0])
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)

    def armed() -> object:
        sys.addaudithook(hook)
        result = job()
        Path("operations").write_text(str(count))
        return result

    return armed


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """What an undisturbed run writes, and how many operations on files it makes."""
    folder = tmp_path_factory.mktemp("whole")
    # what is imported here need not be imported again in every child
    train.train(config(run__folder=str(tmp_path_factory.mktemp("first") / "run")), watch=Quiet())
    job = kill_at(-1, lambda: train.train(config(), watch=Quiet()))
    assert in_child(folder, job) == 0
    return contents(folder / "run"), int((folder / "operations").read_text())


def test_two_runs_write_the_same_bytes(
    uninterrupted: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    whole(tmp_path)
    first = contents(tmp_path / "run")
    assert first == uninterrupted[0]
    assert {"config.toml", "episodes.jsonl", "evals.jsonl", "columns.jsonl"} < set(first)
    assert f"checkpoints/step-{STEPS:06d}/optimizer.safetensors" in first


def test_a_killed_run_resumes_to_the_same_bytes(
    uninterrupted: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    expected, operations = uninterrupted
    draw = random.Random(7)
    # one kill in every stretch of the run, so that each kind of moment is met
    count = 6
    points = [
        draw.randrange(1 + k * operations // count, 1 + (k + 1) * operations // count)
        for k in range(count)
    ]
    for point in points:
        folder = tmp_path / str(point)
        folder.mkdir()
        status = in_child(folder, kill_at(point, lambda: train.train(config(), watch=Quiet())))
        assert os.WIFSIGNALED(status), f"operation {point} was never reached"
        begun = (folder / "run" / run_folder.CONFIG).exists()
        whole(folder, resume=begun)
        assert contents(folder / "run") == expected, f"killed at operation {point}"


@pytest.mark.nightly
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    uninterrupted: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    expected, operations = uninterrupted
    for attempt in range(60):
        begun = (tmp_path / "run" / run_folder.CONFIG).exists()
        job = kill_at(
            operations // 3 + attempt,
            lambda go=begun: train.train(config(), resume=go, watch=Quiet()),
        )
        if in_child(tmp_path, job) == 0:
            break
    assert attempt > 1, "nothing was ever killed"
    assert contents(tmp_path / "run") == expected


def test_timings_have_a_line_for_each_step_after_a_crash(
    uninterrupted: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    in_child(
        tmp_path, kill_at(uninterrupted[1] * 3 // 4, lambda: train.train(config(), watch=Quiet()))
    )
    whole(tmp_path, resume=True)
    steps = [json.loads(x) for x in (tmp_path / "run/timings.jsonl").read_text().splitlines()]
    named = [(line["phase"], line["step"]) for line in steps]
    expected = [("warm_start", k) for k in range(3)] + [("train", k) for k in range(STEPS)]
    assert named == expected
    assert all(line["seconds"]["all"] > 0 for line in steps)


def test_what_a_killed_run_left_behind_is_dropped(finished: Path, tmp_path: Path) -> None:
    """Half a checkpoint, a whole one that was never named, and lines after the last checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    expected = contents(folder)
    shutil.copytree(folder / "checkpoints/step-000004", folder / "checkpoints/.step-000006")
    shutil.copytree(folder / "checkpoints/step-000004", folder / "checkpoints/step-000008")
    steps = len((folder / "timings.jsonl").read_text().splitlines())
    for name in ("episodes.jsonl", "metrics.jsonl", "evals.jsonl", "timings.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"step": 9}\n{"step": 1')
    reopened(folder).close()
    assert without_config(folder) == {k: v for k, v in expected.items() if k != "config.toml"}
    assert len((folder / "timings.jsonl").read_text().splitlines()) == steps


def reopened(folder: Path) -> run_folder.RunFolder:
    """A run's folder, found and claimed as `--resume` does."""
    settings = _constant(run__folder=str(folder))
    found = run_folder.find(settings, steps_matter=False, resume=True)
    run_folder.claim(found, settings, {})
    return found


def without_config(folder: Path) -> dict[str, bytes]:
    return {name: text for name, text in contents(folder).items() if name != "config.toml"}


def test_a_run_goes_on_from_its_newest_checkpoint_where_latest_is_missing(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    expected = without_config(folder)
    (folder / "latest").unlink()
    reopened(folder).close()
    assert without_config(folder) == expected


def test_a_run_whose_checkpoints_are_gone_is_not_started_anew(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "latest").unlink()
    shutil.rmtree(folder / "checkpoints")
    message = _refused(folder, _constant(run__folder=str(folder)), resume=True)
    assert "holds no checkpoint" in message
    assert "7 steps that would be lost" in message


def test_a_seventh_digit_is_no_smaller_step(tmp_path: Path) -> None:
    for name in ("step-1000000", "step-999990", "warm-1000000", "warm-000002"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "state.json").touch()
    assert checkpoint.names(tmp_path) == [
        "warm-000002",
        "warm-1000000",
        "step-999990",
        "step-1000000",
    ]


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    finished: Path, tmp_path: Path
) -> None:
    """One step of the warm start was done, and half a checkpoint written."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "latest").unlink()
    first = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)[0]
    (folder / "metrics.jsonl").write_text(first)
    (folder / "checkpoints/step-000004").rename(folder / "checkpoints/.warm-000002")
    for name in checkpoint.names(folder):
        shutil.rmtree(folder / "checkpoints" / name)
    reopened(folder).close()
    assert list((folder / "checkpoints").iterdir()) == []
    assert (folder / "episodes.jsonl").read_bytes() == b""
    assert (folder / "timings.jsonl").read_bytes() == b""


def test_the_console_is_told_how_to_go_on_after_ctrl_c(tmp_path: Path) -> None:
    from tutelage.config.toml_file import write

    settings = config(run__steps=100_000, run__checkpoint_every=5)
    (tmp_path / "long.toml").write_text(write(settings))
    command = [sys.executable, "-m", "tutelage.cli.main", "train", "long.toml"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test runner in the background ignores Ctrl-C, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        latest = tmp_path / "run" / checkpoint.LATEST
        while not (latest.exists() and latest.read_text().startswith("step-0000")):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    advice = stderr.splitlines()[-1]
    assert "--resume` continues from checkpoint step-" in advice
    # what it says is true
    name = advice.split("checkpoint ")[1].strip()
    assert (tmp_path / "run" / checkpoint.FOLDER / name / "state.json").exists()
    state = checkpoint.read_state(checkpoint.latest(tmp_path / "run"))
    for log, length in state.logs.items():
        assert (tmp_path / "run" / log).stat().st_size >= length


# -- refusals


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    whole(folder, _constant())
    return folder / "run"


def _constant(**changes: object) -> Config:
    """Settings under which nothing depends on the number of steps."""
    return config(**{"update__lr": 1e-3, **changes})


def _refused(folder: Path, settings: Config, *, resume: bool) -> str:
    before = contents(folder)
    with pytest.raises(RunError) as refusal:
        train.train(settings, resume=resume, watch=Quiet())
    assert contents(folder) == before
    return str(refusal.value)


def test_a_folder_with_a_run_is_not_written_over(finished: Path) -> None:
    message = _refused(finished, _constant(run__folder=str(finished)), resume=False)
    assert "--resume" in message
    assert "run.folder" in message


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="without --resume"):
        train.train(config(run__folder=str(tmp_path / "none")), resume=True, watch=Quiet())


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("update__lr", 2e-3, "update.lr"),
        ("rollout__tasks_per_step", 3, "rollout.tasks_per_step"),
        ("algorithm__kl", 0.2, "algorithm.kl"),
        ("run__seed", 1, "run.seed"),
        ("run__steps", STEPS - 1, "run.steps"),
    ],
)
def test_a_changed_setting_is_named(finished: Path, key: str, value: object, named: str) -> None:
    settings = _constant(run__folder=str(finished), **{key: value})
    assert _refused(finished, settings, resume=True).startswith(named)


def test_steps_may_not_grow_under_a_schedule_that_they_shape(
    tmp_path: Path, finished: Path
) -> None:
    message = _refused(finished, config(run__folder=str(finished), run__steps=9), resume=True)
    assert message.startswith("run.steps")


def test_steps_may_grow_where_nothing_depends_on_them(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    whole(tmp_path, _constant(run__steps=STEPS + 2), resume=True)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in lines][-2:] == [STEPS, STEPS + 1]
    assert load(tmp_path / "run").run.steps == STEPS + 2
    # a longer run from the start is the same run
    other = tmp_path / "other"
    other.mkdir()
    whole(other, _constant(run__steps=STEPS + 2))
    assert (other / "run/metrics.jsonl").read_text().splitlines() == lines


def test_a_moved_folder_resumes(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    whole(tmp_path, _constant(run__folder="elsewhere"), resume=True)
    after = contents(tmp_path / "elsewhere")
    assert {k: v for k, v in after.items() if k != "config.toml"} == {
        k: v for k, v in before.items() if k != "config.toml"
    }


def test_two_processes_do_not_train_in_one_folder(finished: Path) -> None:
    held = run_folder.find(_constant(run__folder=str(finished)), steps_matter=False, resume=True)
    try:
        message = _refused(finished, _constant(run__folder=str(finished)), resume=True)
    finally:
        held.close()
    assert "another process" in message


def test_a_shortened_log_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/episodes.jsonl").write_text("")
    with pytest.raises(RunError, match=r"episodes\.jsonl is shorter"):
        train.train(_constant(run__folder=str(tmp_path / "run")), resume=True, watch=Quiet())


def test_a_lost_checkpoint_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(RunError, match="step-000004"):
        train.train(_constant(run__folder=str(tmp_path / "run")), resume=True, watch=Quiet())


# -- disks


def limited(limit: int, job: Callable[[], object]) -> Callable[[], object]:
    """The job on a disk on which no file can be longer than `limit` bytes."""

    def run_limited() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            job()
        except RunError as error:
            Path("told").write_text("")
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            Path("told").write_text(str(error))

    return run_limited


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    uninterrupted: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    expected = uninterrupted[0]
    sizes = {name.rpartition("/")[2]: len(data) for name, data in expected.items()}
    # too small for a log, for the optimiser, for the weights
    for limit in (
        sizes["episodes.jsonl"] * 2 // 3,
        sizes["optimizer.safetensors"] - 1,
        sizes["model.safetensors"] - 1,
    ):
        folder = tmp_path / str(limit)
        folder.mkdir()
        job = limited(limit, lambda: train.train(config(), watch=Quiet()))
        assert in_child(folder, job) == 0
        message = (folder / "told").read_text()
        assert "could not be written" in message
        assert "--resume" in message
        assert "\n" not in message
        whole(folder, resume=True)
        assert contents(folder / "run") == expected, f"files of at most {limit} bytes"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be used"):
        train.train(config(run__folder=str(tmp_path / "file" / "run")), watch=Quiet())


def test_only_the_newest_checkpoints_and_the_references_start_are_kept(
    uninterrupted: tuple[dict[str, bytes], int],
) -> None:
    names = {name.split("/")[1] for name in uninterrupted[0] if name.startswith("checkpoints/")}
    assert names == {"step-000000", "step-000002", "step-000004"}


@pytest.mark.nightly
def test_memory_of_old_episodes_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc

    from tutelage.types import Episode

    alive: list[int] = []

    class Holder(Quiet):
        def stepped(self, line: object, seconds: object) -> None:
            alive.append(count())

    def count() -> int:
        gc.collect()
        return sum(type(x) is Episode for x in gc.get_objects())

    monkeypatch.chdir(tmp_path)
    others = count()  # that other tests hold on to
    train.train(config(eval__every=0), watch=Holder())
    assert max(alive) <= others + 4


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_nothing_of_it(tmp_path: Path) -> None:
    """Deleting a folder takes many steps; whatever was left after any of them goes on resume."""
    settings = _constant()
    whole(tmp_path, settings)
    folder = tmp_path / "run"
    expected = contents(folder)
    newest = checkpoint.latest(folder)
    for count in range(1, 4):
        half = newest.parent / ".step-000000"
        half.mkdir()
        for path in sorted(newest.iterdir())[:count]:
            (half / path.name).write_bytes(path.read_bytes())
        reopened(folder).close()
        assert not half.exists()
    assert without_config(folder) == {k: v for k, v in expected.items() if k != "config.toml"}


class Heard(Quiet):
    """Collects a run's warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, sentence: object) -> None:
        self.warnings.append(str(sentence))


def test_a_resume_with_other_threads_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of threads decides the order of additions: silence would look like a fault."""
    monkeypatch.chdir(tmp_path)
    table = tiny_table(run={"folder": "run", "checkpoint_every": 1}, eval={"every": 0})
    for steps in (1, 2):
        table["run"] = {**table["run"], "steps": steps}
        watch = Heard()
        train.train(parse(table), resume=steps > 1, watch=watch)
        assert not [w for w in watch.warnings if "resumed" in w]
    path = Path("run/meta.json")
    meta = json.loads(path.read_text())
    assert "resumed_elsewhere" not in meta
    meta["threads"], meta["packages"]["torch"] = 7, "1.0"
    path.write_text(json.dumps(meta))
    table["run"]["steps"] = 3
    train.train(parse(table), resume=True, watch=(watch := Heard()))
    (warning,) = [w for w in watch.warnings if "resumed" in w]
    assert "threads 1 (was 7), torch" in warning
    assert "(was 1.0): numbers are rounded differently" in warning
    (entry,) = json.loads(path.read_text())["resumed_elsewhere"]
    assert entry == {"from": "step-000002", "before": {"threads": 7, "torch": "1.0"}}
