"""The folder of a run: checked, claimed, locked during training, and continued.

config.toml      every setting as resolved
meta.json        versions, machine, seed, the panel's fingerprint
episodes.jsonl   every episode that was played; metrics.jsonl, evals.jsonl, columns.jsonl
hints.jsonl      the hints that the student wrote for itself
timings.jsonl    the only file besides meta.json that two equal runs do not share
.lock            marks the folder as a run, and is locked by the training process

`find` checks and writes nothing. `claim` is the last thing before the first step: only after it is
anything written, truncated or deleted, and only in a folder with the mark.
"""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.config.run_mark import LOCK as LOCK
from tutelage.config.run_mark import MARK, META, described, is_run, marked
from tutelage.config.schema import Config
from tutelage.config.toml_file import differences, load, resolved
from tutelage.errors import ConfigError, RunError
from tutelage.rollout import record
from tutelage.rollout.disk import write_whole
from tutelage.rollout.ranks import Ranks
from tutelage.runs import checkpoint, meta
from tutelage.runs.meta import CONFIG as CONFIG

HINTS = "hints.jsonl"
LOGS = ("episodes.jsonl", "metrics.jsonl", "evals.jsonl", "columns.jsonl", HINTS)
TIMINGS = "timings.jsonl"
DIVERGED = ".diverged"
NAMES = (CONFIG, *LOGS, TIMINGS, checkpoint.LATEST, checkpoint.FOLDER)
"""Files of a run besides meta.json and `.lock`."""
HARMLESS = {
    "run.folder",
    "run.checkpoint_every",
    "policy.gradient_checkpointing",
    # servers have other addresses after every start of a job; they are given the student's weights
    *("policy.sampler.url", "policy.sampler.servers", "policy.sampler.folder"),
}
"""Settings that do not change results, which may differ when a run is continued."""
CALMING = {"update.lr", "update.warmup", "update.grad_clip", "warm_start.lr"}
"""Settings that may change when a diverged run is continued."""


@dataclass(kw_only=True)
class RunFolder:
    """A run's folder: its logs once it is claimed, and its state.

    state    None before the first checkpoint
    newest   the folder of that checkpoint
    lock     a handle that is held while the folder is in use; None before a new run claims it
    changed  settings that differ from those that the run was started with, and decide results
    writes   whether this process writes; of several ranks the first does
    """

    path: Path
    state: checkpoint.State | None = None
    newest: Path | None = None
    lock: int | None = None
    changed: Mapping[str, object] = field(default_factory=dict)
    logs: dict[str, record.Log] = field(default_factory=dict)
    writes: bool = True

    def log(self, name: str) -> record.Log:
        if name not in self.logs:
            self.logs[name] = record.Log(self.path / name if self.writes else Path(os.devnull))
        return self.logs[name]

    def flush(self) -> dict[str, int]:
        """Hand all lines to the system, so that they outlive this process; the files' lengths."""
        if not self.writes:
            return {}
        if TIMINGS in self.logs:
            self.logs[TIMINGS].flush()
        return {name: self.log(name).flush() for name in LOGS}

    def lengths(self) -> dict[str, int]:
        """Put all lines on the disk, so that they outlive the machine; the files' lengths."""
        if not self.writes:
            return {}
        if TIMINGS in self.logs:
            self.logs[TIMINGS].sync()
        return {name: self.log(name).sync() for name in LOGS}

    def close(self) -> None:
        try:
            for log in self.logs.values():
                log.close()
        finally:
            if self.lock is not None:
                os.close(self.lock)
                self.lock = None


def find(config: Config, *, steps_matter: bool, resume: bool) -> RunFolder:
    """A run's folder, or the one that a new run will have. Nothing is written; `claim` comes next.

    steps_matter  whether a schedule depends on run.steps, which then must not change

    Raises RunError for a folder that holds a run (without `resume`) or holds none (with it), that
    holds anything else under a name that a run writes, whose settings differ, whose files are
    damaged, or in which another process trains.
    """
    path = Path(config.run.folder)
    try:
        if not resume:
            _check_new(path)
            return RunFolder(path=path)
        if not os.path.lexists(path / CONFIG):
            raise RunError(f"{path} holds no run to continue; start it without --resume")
        if not is_run(path):
            raise RunError(
                f"{path / CONFIG} is not a run's: neither {LOCK} nor {META} marks it; name the "
                "folder of a run, or start a new one in another run.folder"
            )
        _check_kinds(path)
        lock = _lock(path)
    except OSError as error:
        raise RunError(_unusable(path, error)) from None
    try:
        changed = _same_settings(path, config, steps_matter=steps_matter)
        state, newest = _standing(path, max(config.run.checkpoint_every, _every(path)))
        checkpoint.refuse_foreign(path, newest.name if newest else "")
        return RunFolder(path=path, state=state, newest=newest, lock=lock, changed=changed)
    except BaseException:
        os.close(lock)
        raise


def found(folder: RunFolder | None, path: Path, ranks: Ranks) -> RunFolder:
    """What rank 0 found, on every rank, of which the others only read.

    Raises RunError where another rank cannot read the checkpoint.
    """
    if folder is not None:
        ranks.first((folder.state, folder.newest))
        return folder
    state, newest = ranks.first(None)
    if newest is not None and not (newest / checkpoint.STATE).is_file():
        raise RunError(
            f"there is no {newest / checkpoint.STATE} here, which rank 0 continues from: run.folder "
            "must be on a file system that all ranks read, and mean the same folder to each"
        )
    return RunFolder(path=path, state=state, newest=newest, writes=False)


def claim(folder: RunFolder, config: Config, facts: Mapping[str, object]) -> None:
    """Make the folder this run's: mark and lock it, cut its logs back to the checkpoint, drop what
    a killed run left, and describe the run (`facts` go into meta.json)."""
    path = folder.path
    try:
        if folder.lock is None:
            path.mkdir(parents=True, exist_ok=True)
            folder.lock = _lock(path)
            _check_new(path)  # another process may have been faster
        if os.fstat(folder.lock).st_size == 0:
            os.write(folder.lock, MARK.encode())
        checkpoint.clean(path, folder.newest.name if folder.newest else "")
        if folder.newest is not None and not (path / checkpoint.LATEST).exists():
            write_whole(path / checkpoint.LATEST, folder.newest.name + "\n")
        for name in (*LOGS, TIMINGS):
            _unlink_copies(path / name)
        for name in LOGS:
            record.cut(path / name, folder.state.logs.get(name, 0) if folder.state else 0)
        _cut_timings(path)
    except OSError as error:
        raise RunError(_unusable(path, error)) from None
    at = folder.newest.name if folder.newest else "the beginning"
    meta.describe(path, config, facts, at=at, changed=folder.changed)
    with contextlib.suppress(OSError):
        (path / DIVERGED).unlink()


def _unlink_copies(path: Path) -> None:
    """Give a log that another name also leads to (`cp -al`) a file of its own, before it is cut."""
    if path.exists() and path.stat().st_nlink > 1:
        draft = path.with_name(f".{path.name}.draft")
        draft.unlink(missing_ok=True)
        shutil.copyfile(path, draft)
        os.replace(draft, path)


def _unusable(path: Path, error: OSError) -> str:
    return f"{path} cannot be used ({error.strerror}); choose another run.folder"


def _check_new(path: Path) -> None:
    """Refuse a folder in which a new run would meet files that are there already."""
    if os.path.lexists(path / CONFIG) and is_run(path):
        raise RunError(
            f"{path} already holds a run; continue it with --resume, or choose another folder "
            "with run.folder=NAME"
        )
    there = [name for name in NAMES if os.path.lexists(path / name)]
    for name, written in ((META, described), (LOCK, marked)):
        if os.path.lexists(path / name) and not written(path) and not _empty(path / name):
            there.append(name)
    if there:
        raise RunError(
            f"{path} already holds {' and '.join(sorted(there)[:3])}, which a run would write over; "
            "choose another folder with run.folder=NAME, or move what is there"
        )
    with contextlib.suppress(FileNotFoundError):
        path.stat()
    above = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not above.is_dir():
        raise NotADirectoryError(20, f"{above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(13, f"nothing can be written into {above}")


def _empty(path: Path) -> bool:
    found = os.lstat(path)
    return stat.S_ISREG(found.st_mode) and found.st_size == 0


def _check_kinds(path: Path) -> None:
    """Refuse to continue over links, which lead to files of others, and over what is no file."""
    for name in (*NAMES, META, LOCK):
        if not os.path.lexists(path / name):
            continue
        mode = os.lstat(path / name).st_mode
        wanted, what = stat.S_ISREG, "file"
        if name == checkpoint.FOLDER:
            wanted, what = stat.S_ISDIR, "folder"
        if not wanted(mode):
            if name == checkpoint.LATEST and not stat.S_ISLNK(mode):
                continue  # its reader also names the newest complete checkpoint
            kind = "a symbolic link" if stat.S_ISLNK(mode) else f"no {what}"
            raise RunError(
                f"{path / name} is {kind}, where a run has a {what} of its own, so it cannot be "
                f"continued; put that {what} back, or start a new run in another run.folder"
            )


def _own_config(path: Path) -> Config:
    """What the run was started with. Raises RunError where its file is damaged."""
    try:
        return load(path / CONFIG, trust=True)
    except ConfigError as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{path / CONFIG} is not as the run wrote it ({reason[:300]}); put the file back: the "
            f"checkpoints are in {path / checkpoint.FOLDER}"
        ) from None


def _every(path: Path) -> int:
    return _own_config(path).run.checkpoint_every


def _standing(path: Path, every: int) -> tuple[checkpoint.State | None, Path | None]:
    """The newest checkpoint with its state, both checked against the logs."""
    newest = checkpoint.newest(path)
    if newest is None:
        steps = _lines(path / "metrics.jsonl")
        trained = [line for line in steps if line.get("phase") != "warm_start"]
        if trained or len(steps) > every:
            raise RunError(
                f"{path / checkpoint.FOLDER} holds no checkpoint, and {path / 'metrics.jsonl'} "
                f"{len(steps)} steps that would be lost; put a checkpoint back, or start a new run "
                "in another run.folder"
            )
        return None, None
    state = checkpoint.read_state(newest)
    for name in LOGS:
        _check_length(path, newest, name, state.logs.get(name, 0))
    _check_hints(path / HINTS, state.logs.get(HINTS, 0))
    return state, newest


def _check_length(path: Path, newest: Path, name: str, length: int) -> None:
    size = (path / name).stat().st_size if (path / name).exists() else 0
    if size >= length:
        return
    what = "is missing" if not (path / name).exists() else "is shorter than its checkpoint says"
    raise RunError(
        f"{path / name} {what} ({size} < {length} bytes at {newest.name}), so the run cannot be "
        f"continued to the same result; put the file back{checkpoint.earlier(newest)}"
    )


def _check_hints(path: Path, length: int) -> None:
    """Lines that a resumed run reads back: each has a task and a text."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file.read(length).splitlines(), 1):
            try:
                line = json.loads(raw)
                right = isinstance(line["task"], str) and isinstance(line["text"], str)
            except (ValueError, KeyError, TypeError, RecursionError):
                right = False
            if not right:
                raise RunError(
                    f"{path}, line {number} is not a hint that a run wrote, so the run cannot be "
                    "continued; put the file back, or start a new run in another run.folder"
                )


def _lines(path: Path) -> list[Mapping[str, object]]:
    return list(record.read(path)) if path.exists() else []


def _cut_timings(path: Path) -> None:
    """As many lines as there are metrics: its length is in no checkpoint, since it differs from
    run to run."""
    if not (path / TIMINGS).exists():
        return
    metrics, timings = path / "metrics.jsonl", (path / TIMINGS).read_bytes()
    steps = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    lines = timings.splitlines(keepends=True)[:steps]
    record.cut(path / TIMINGS, sum(len(line) for line in lines if line.endswith(b"\n")))


def _lock(path: Path) -> int:
    """Held until the folder is closed or the process ends."""
    follow = getattr(os, "O_NOFOLLOW", 0)  # not on Windows
    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | follow, 0o644)
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RunError(
            f"another process is training in {path}; wait for it, or choose another run.folder"
        ) from None
    except OSError:
        return handle  # a file system without locks
    return handle


def _same_settings(path: Path, config: Config, *, steps_matter: bool) -> Mapping[str, object]:
    """Refuse settings that would change the result. Those that may change it nevertheless, with
    their old values: of a run that diverged."""
    old = _own_config(path)
    if not diverged(path) and not meta.is_as_written(path):
        raise RunError(
            f"{path / CONFIG} was changed after the run wrote it, so the run cannot be continued to "
            "the same result; put it back, or start a new run with it in another run.folder"
        )
    changed = [key for key in differences(old, config) if key not in HARMLESS]
    if changed == ["run.steps"] and config.run.steps > old.run.steps and not steps_matter:
        return {}
    if "run.steps" in changed:
        raise RunError(
            f"run.steps was {old.run.steps} and is now {config.run.steps}: it can only grow, and "
            "only where no schedule of the algorithm or the learning rate depends on it; set it "
            "back, or start a new run in another run.folder"
        )
    if diverged(path):
        calming = {key for key in changed if any(key.startswith(each) for each in CALMING)}
        if len(calming) == len(changed):
            return {key: _setting(old, key) for key in changed}
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise RunError(
            f"{changed[0]}{more} differs from what {path} was started with, so it cannot be "
            "continued to the same result; set it back, or start a new run in another run.folder"
        )
    return {}


def _setting(config: Config, key: str) -> object:
    value: object = resolved(config)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def diverged(path: Path) -> bool:
    """Whether the run stopped because a gradient was not finite."""
    return (path / DIVERGED).exists()


def note_divergence(folder: RunFolder) -> None:
    """Record the divergence: the run may then be continued with a lower learning rate."""
    with contextlib.suppress(OSError):
        (folder.path / DIVERGED).touch()


def standing(path: Path) -> str:
    """How a stopped run can be continued, in words."""
    if not (path / CONFIG).exists():
        return "the run had not begun, and nothing was lost"
    names = checkpoint.names(path)
    where = f"from checkpoint {names[-1]}" if names else "from the beginning"
    return f"`tutelage train {path} --resume` continues {where}"
