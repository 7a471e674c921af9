"""Disks that are full, and folders that nothing can be written to: one sentence, and nothing half."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.fault_runs import config, everything
from support.kill_chains import begin, cli, ended
from support.tiny_runs import Quiet, contents

from tutelage.config.toml_file import write
from tutelage.runs import train


def can_mount() -> bool:
    """Whether a small file system can be made here: a real full disk."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    probe = Path("/tmp") / f"tutelage-mount-{os.getpid()}"
    probe.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(probe)],
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        subprocess.run(["umount", str(probe)], check=False)
    probe.rmdir()
    return done.returncode == 0


MOUNTS = can_mount()
Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes a file system of so many kB."""
    mounted: list[Path] = []

    def small(kilobytes: int) -> Path:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        mounted.append(path)
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
        subprocess.run(command, check=True)
        return path

    yield small
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=False)


needs_mount = pytest.mark.skipif(not MOUNTS, reason="no file system can be mounted here")


def command(*arguments: str, folder: Path, limit: int = 0) -> tuple[int, str]:
    """The exit code of a command, and the last line that it writes to stderr. No file may become
    longer than `limit` bytes, where it is above 0."""
    code, message = cli(folder, *arguments, limit=limit)
    return code, (message.strip().splitlines() or [""])[-1]


# -- training: the sentence, and the same bytes afterwards


@needs_mount
def test_a_run_on_a_full_disk_stops_in_a_sentence_and_goes_on_to_the_same_bytes(
    finished: Path, disk: Disk, tmp_path: Path
) -> None:
    """At every size up to what the run needs, it stops somewhere else."""
    need = sum(p.stat().st_size for p in finished.rglob("*") if p.is_file()) // 1024
    for share in (0.15, 0.4, 0.6, 0.8):
        place = disk(int(need * share))

        def job(place: Path = place) -> None:
            from tutelage.errors import RunError

            try:
                train.train(config(place / "run"), watch=Quiet())
            except RunError as error:
                (tmp_path / "message").write_text(str(error))
                return
            raise AssertionError("the disk was large enough")

        ended(begin(tmp_path, job), tmp_path)
        message = (tmp_path / "message").read_text()
        assert "\n" not in message
        assert str(place / "run") in message
        subprocess.run(["mount", "-o", "remount,size=16m", str(place)], check=True)
        begun = (place / "run/config.toml").exists()
        again = config(place / "run")
        resumed = partial(train.train, again, resume=begun, watch=Quiet())
        ended(begin(tmp_path, resumed), tmp_path)
        expected = contents(finished)
        found = contents(place / "run")
        different = [n for n in expected if expected[n] != found.get(n) and n != "config.toml"]
        assert not different, (share, different)


# -- exports, collections, results


def sizes(finished: Path) -> tuple[int, ...]:
    largest = (finished / "checkpoints/step-000004/model.safetensors").stat().st_size
    return 300, largest // 2, largest - 1


def test_an_export_that_does_not_fit_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    for limit in sizes(finished):
        code, message = command("export", str(finished), "out", folder=tmp_path, limit=limit)
        assert code == 2
        assert "out could not be written" in message
        assert everything(tmp_path) == {}
        assert list(tmp_path.iterdir()) == []


def test_a_collection_that_does_not_fit_keeps_its_whole_lines_under_another_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "train.toml").write_text(write(config()))
    collect = ("collect", "train.toml", "--episodes", "40", "--out", "e.jsonl")
    code, message = command(*collect, folder=tmp_path, limit=200)
    assert code == 2
    assert "e.jsonl could not be written" in message
    assert not (tmp_path / "e.jsonl").exists()
    code, message = command(*collect, folder=tmp_path, limit=6000)
    assert code == 2
    assert not (tmp_path / "e.jsonl").exists()
    lines = (tmp_path / "e.jsonl.partial").read_bytes()
    assert lines.endswith(b"\n")
    assert f"the {lines.count(b'}' + bytes([10]))} episodes so far are in" in message
    # and they are not written over
    code, message = command(*collect, folder=tmp_path)
    assert code == 2
    assert "e.jsonl.partial exists already" in message


READ_ONLY = ("export", "collect", "collect into a new folder", "eval", "train", "init", "examples")


@needs_mount
@pytest.mark.parametrize("case", READ_ONLY)
def test_a_folder_that_nothing_can_be_written_to_is_one_sentence(
    case: str, finished: Path, disk: Disk, tmp_path: Path
) -> None:
    place = disk(64)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    (tmp_path / "train.toml").write_text(write(config()))
    arguments = {
        "export": ("export", str(finished), str(place / "out")),
        "collect": ("collect", "train.toml", "--episodes", "1", "--out", str(place / "e.jsonl")),
        "collect into a new folder": (
            "collect",
            "train.toml",
            "--episodes",
            "1",
            "--out",
            str(place / "x/y/e.jsonl"),
        ),
        "eval": ("eval", str(finished), "--tasks", "1", "--out", str(place / "out")),
        "train": ("train", "train.toml", f"run.folder={place / 'run'}"),
        "init": ("init", "doors", str(place / "x.toml"), "--model", "builtin:household-teacher"),
        "examples": ("examples", "household_grpo", "--copy", str(place / "x")),
    }[case]
    code, message = command(*arguments, folder=tmp_path)
    assert code in (1, 2)
    assert str(place) in message


@needs_mount
def test_the_output_of_a_command_on_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    place = disk(4)
    with (place / "printed").open("w") as file:
        file.write("x" * 4096)
        file.flush()
        code, message = cli(tmp_path, "examples", "household_grpo", output=file.fileno())
    assert code == 1, message
