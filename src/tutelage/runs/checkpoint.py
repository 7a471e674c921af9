"""Atomic checkpoints: weights, optimiser, and the length of every log.

checkpoints/step-000020/   model.safetensors ..., optimizer.safetensors, state.json; where episodes
                           are played ahead also acting.safetensors, the weights that play them
latest                     the name of the newest complete one

state.json holds the SHA-256 of every other file and of itself; they are compared on every load.
"""

import contextlib
import hashlib
import json
import math
import re
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage.config.plain_file import open_plain, read_text
from tutelage.errors import Diverged, RunError
from tutelage.policies.base import Divided, Shards, Trainable
from tutelage.rollout.disk import as_disk_error, reason, sync, write_whole
from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.runs.divided_checkpoint import WEIGHTS, Reader, finite, see_the_same, write

LATEST = "latest"
FOLDER = "checkpoints"
START = "step-000000"
KEEP = 2
"""Number of newest checkpoints to keep: the last, and one more in case it is damaged."""
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
ACTING = "acting.safetensors"
PHASES = ("warm_start", "train")
NAME, DRAFT = re.compile(r"(step|warm)-\d{6,}"), re.compile(r"\.(step|warm)-\d{6,}(-old)?")
"""Folders of checkpoints, and of those that are half written or half deleted."""
DECISIVE = (".json", ".safetensors", ".jinja", ".bin", ".pt", ".model", ".gguf", ".py")
"""Files that, if added to a checkpoint, would change what is loaded from it."""
INTERRUPTED = "interrupted"
"""An empty file in a checkpoint that Ctrl-C made."""
Skills = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state of a run at a checkpoint."""

    phase: str  # "warm_start" or "train"
    step: int  # steps of the phase that are done
    logs: Mapping[str, int]  # file name -> length in bytes
    skills: Skills = field(default_factory=dict)  # rewards of each skill, by task family

    @property
    def name(self) -> str:
        return f"{'step' if self.phase == 'train' else 'warm'}-{self.step:06d}"


def save(
    folder: Path,
    state: State,
    student: Trainable,
    optimizer: torch.optim.Optimizer,
    *,
    ranks: Ranks = ALONE,
    pinned: str = "",
    interrupted: bool = False,
    acting: Sequence[torch.Tensor] = (),
) -> None:
    """Write a checkpoint beside the others, then point `latest` at it, then drop old ones.

    ranks        which call this together where the student's weights are divided over them; rank 0
                 calls it alone where they are not
    acting       the weights that play the next step, where those are not the student's
    interrupted  made by Ctrl-C between two regular ones: it drops none, and the next regular one
                 replaces it
    """
    divided = student.sharded if isinstance(student, Shards) else None
    together = ranks if divided is not None else ALONE
    _check_finite(state, student, together)
    target = folder / FOLDER / state.name
    draft = folder / FOLDER / f".{state.name}"
    moments = optimizer_tensors(optimizer, divided)
    try:
        if together.rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        see_the_same(draft, together)
        with as_disk_error():
            if isinstance(student, Shards) and divided is not None:
                if weights := student.stored():
                    write(draft, weights, together, name=WEIGHTS)
                if moments:
                    write(draft, moments, together, name=OPTIMIZER)
            if together.rank:
                return
            student.save(draft)
            _as_before(folder, draft)
            if not (draft / OPTIMIZER).exists():
                save_file(moments, draft / OPTIMIZER)
            if acting:
                save_file({str(k): weight for k, weight in enumerate(acting)}, draft / ACTING)
        for path in draft.iterdir():
            sync(path)
        (draft / STATE).write_text(_text(state, _sums(draft)), encoding="utf-8")
        if interrupted:
            (draft / INTERRUPTED).touch()
        sync(draft / STATE)
        sync(draft)
        if target.exists():
            _drop(folder, state.name)  # made by a run that was killed before it pointed here
        draft.rename(target)
        sync(target.parent)
        write_whole(folder / LATEST, state.name + "\n")
    except OSError as error:
        raise RunError(no_room(target, error)) from error
    if not interrupted:
        drop_interrupted(folder)
        prune(folder, {state.name, pinned})


def _check_finite(state: State, student: Trainable, ranks: Ranks) -> None:
    """Refuse weights that are not finite, which would replace the last good ones."""
    if not finite(ranks, list(student.parameters())):
        raise Diverged(
            f"the weights after step {state.step} are not finite, so they were not saved; continue "
            "from the last checkpoint with --resume and a lower update.lr or update.grad_clip"
        )


def _sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint."""
    return {
        str(path.relative_to(folder)): _sum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (STATE, INTERRUPTED)
    }


def _sum(path: Path) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(state: State, files: Mapping[str, str]) -> str:
    table: dict[str, object] = {**asdict(state), "files": files}
    own = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return json.dumps({**table, "sha256": own}, indent=1) + "\n"


def was_interrupted(folder: Path) -> bool:
    """Whether the newest checkpoint is one that Ctrl-C made."""
    return (folder / LATEST).exists() and (latest(folder) / INTERRUPTED).exists()


def confirm(folder: Path, state: State) -> None:
    """Make the newest checkpoint, which Ctrl-C made, a regular one of the same weights."""
    newest = latest(folder)
    write_whole(newest / STATE, _text(state, _sums(newest)))
    (newest / INTERRUPTED).unlink()


def drop_interrupted(folder: Path) -> None:
    """Drop the checkpoints that Ctrl-C made, but for the newest of all."""
    newest = latest(folder).name
    for name in names(folder):
        if name != newest and (folder / FOLDER / name / INTERRUPTED).exists():
            _drop(folder, name)


def _as_before(folder: Path, draft: Path) -> None:
    """Take what training never changes, such as the tokenizer, from the checkpoint before: read
    and written again, its files would hold other notes on where they came from."""
    if not (folder / LATEST).exists():
        return
    for old in latest(folder).iterdir():
        if (
            old.suffix in (".json", ".jinja")
            and (draft / old.name).exists()
            and ("safetensors" not in old.name)
        ):
            shutil.copyfile(old, draft / old.name)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, divided: Divided | None = None
) -> dict[str, torch.Tensor]:
    """AdamW's moments and counts by parameter number: this rank's rows of divided weights'."""
    parameters, found = _parameters(optimizer), {}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            found[f"{index}.{name}"] = (
                value if divided is None else divided.spread(parameters[index], value)
            )
    return found


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def restore_optimizer(
    optimizer: torch.optim.Optimizer, path: Path, divided: Divided | None = None
) -> None:
    """Load AdamW's moments: of weights that are divided over ranks, this rank's part. Raises
    RunError where they are damaged or of another model."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    parameters = _parameters(optimizer)
    try:
        file = Reader(path)
        for key in file.names():
            index, _, name = key.partition(".")
            of = parameters[int(index)]
            if name == "step":
                value = file.rows(key, slice(None)).reshape(())  # ranks together write it as [1]
            else:
                rows = divided.rows_of(of, file.shape(key)) if divided else slice(None)
                value = file.rows(key, rows)
                if value.shape != of.shape:
                    raise ValueError("it belongs to another model")
            state.setdefault(int(index), {})[name] = value
        if state and set(state) != set(range(len(parameters))):
            raise ValueError("it belongs to another model")
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} cannot be read ({reason}){earlier(path.parent)}") from error


def read_acting(path: Path, like: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The weights that play the next step, one for each of `like`. Raises RunError where they are
    damaged or of another model."""
    try:
        found = load_file(path)
        # copied, since kernels may round by address
        weights = [found[str(k)].clone() for k in range(len(found))]
        if [x.shape for x in weights] != [x.shape for x in like]:
            raise ValueError("it belongs to another model")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} cannot be read ({reason}){earlier(path.parent)}") from error
    return weights


def latest(folder: Path) -> Path:
    """The checkpoint that `latest` names. Raises RunError where there is none."""
    path = folder / LATEST
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(0, "it is no file")
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise RunError(f"{path} cannot be read ({reason}){_advice(folder)}") from None
    found = folder / FOLDER / name
    if NAME.fullmatch(name) and found.is_dir() and not (found / STATE).is_file():
        raise RunError(f"{found / STATE} is missing{_advice(folder)}")
    if not NAME.fullmatch(name) or not (found / STATE).is_file():
        what = f"names the checkpoint {name[:40]!r}" if name else "is empty and names no checkpoint"
        raise RunError(f"{path} {what}, which is not in {folder / FOLDER}{_advice(folder)}")
    return found


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, its files compared with their checksums; None where there is
    none yet. Without `latest` it is the last one that is there: a run may be killed between the
    two. Raises RunError for what is damaged."""
    if (folder / LATEST).exists():
        found = latest(folder)
    else:
        there = names(folder)
        if not there:
            damaged = [x for x in (folder / FOLDER).glob("*") if NAME.fullmatch(x.name)]
            if damaged:
                raise RunError(f"{max(damaged) / STATE} is missing{_advice(folder)}")
            return None
        found = folder / FOLDER / there[-1]
    verify(found)
    if (folder / FOLDER / START).is_dir() and found.name != START:
        verify(folder / FOLDER / START)  # the reference's weights
    return found


def verify(found: Path) -> None:
    """Compare a checkpoint's files with their checksums. Raises RunError, which names the damaged
    file and the newest checkpoint that is whole."""
    problem = damage(found)
    if problem:
        raise RunError(problem + earlier(found))


def damage(found: Path) -> str:
    """The problem of a checkpoint and the damaged file; empty if it is intact."""
    try:
        state = _read(found / STATE)
    except RunError as error:
        return str(error)
    for name, wanted in state.get("files", {}).items():
        path = found / name
        try:
            if _sum(path) != wanted:
                return f"{path} is damaged: its checksum differs from the one it was written with"
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
    if "files" in state:
        for path in sorted(found.iterdir()):
            known = path.name in state["files"] or path.name == STATE
            if path.suffix in DECISIVE and not known:
                return f"{path} was not written by the run, and would change what is loaded"
    return ""


def earlier(found: Path) -> str:
    """The end of an error message: what to do if a checkpoint cannot be used."""
    folder = found.parent.parent if len(found.parts) > 2 else found.absolute().parents[1]
    return _advice(folder, besides=found.name)


def _advice(folder: Path, besides: str = "") -> str:
    whole = [n for n in names(folder) if n != besides and not damage(folder / FOLDER / n)]
    if not whole:
        return "; no other checkpoint is whole: put the file back, or start a new run"
    return (
        f"; the newest whole checkpoint besides is {whole[-1]}: write that name into "
        f"{folder / LATEST} to continue from it, or restore the file"
    )


def read_state(found: Path) -> State:
    """The state of a run at a checkpoint. Raises RunError where its state.json is damaged."""
    try:
        line = _read(found / STATE)
        state = State(**{name: line[name] for name in ("phase", "step", "logs", "skills")})
    except RunError as error:
        raise RunError(f"{error}{earlier(found)}") from error
    if state.name != found.name:
        raise RunError(
            f"{found / STATE} is that of another checkpoint, {state.name}{earlier(found)}"
        )
    return state


def _read(path: Path) -> dict[str, Any]:
    """state.json, every value checked."""
    try:
        line: dict[str, Any] = json.loads(read_text(path))
        own = line.pop("sha256", None)
        if own is not None:
            right = hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
            _must(own == right, "its checksum differs from the one it was written with")
        _must(line["phase"] in PHASES, "it names a phase that no run has")
        _must(_count(line["step"]), "its step is not a count")
        _must(all(map(_count, line["logs"].values())), "a log's length is not a count")
        for families in line["skills"].values():
            for numbers in families.values():
                finite = (isinstance(x, int | float) and math.isfinite(x) for x in numbers.values())
                _must(all(finite), "a skill's count or reward is not a finite number")
        for name, wanted in line.get("files", {}).items():
            inside = not Path(name).is_absolute() and ".." not in Path(name).parts
            _must(isinstance(wanted, str) and inside, "a file's checksum or name is wrong")
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})") from error
    except _MALFORMED as error:
        reason = (str(error).splitlines() or ["it has another form"])[0]
        raise RunError(f"{path} cannot be read ({reason})") from error
    return line


_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading and checking JSON of any other form raises."""


def _must(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def no_room(path: Path, error: OSError) -> str:
    return (
        f"{path} could not be written ({reason(error)}); make room or choose another "
        "folder, then continue with --resume: everything up to the last checkpoint is kept"
    )


def _order(name: str) -> tuple[bool, int]:
    """Warm starts come first, and in a phase the smaller step."""
    phase, _, step = name.partition("-")
    return phase == "step", int(step or -1)  # no name comes first of all


def names(folder: Path) -> list[str]:
    """The checkpoints of a run, oldest first."""
    found = [path.parent.name for path in (folder / FOLDER).glob("*/state.json")]
    return sorted((name for name in found if NAME.fullmatch(name)), key=_order)


def foreign(path: Path) -> list[str]:
    """Files in the folder of a checkpoint that no run wrote; every file where it is no checkpoint."""
    try:
        known = {
            *json.loads((path / STATE).read_text(encoding="utf-8"))["files"],
            STATE,
            INTERRUPTED,
        }
    except FileNotFoundError:
        known = set()  # drafts become checkpoints when they are whole, and are dropped by a rename
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []  # without sums, or damaged
    found = (each for each in path.rglob("*") if each.is_symlink() or not each.is_dir())
    return sorted({str(each.relative_to(path)) for each in found} - known)


def _drop_beside(path: Path, others: Sequence[str]) -> None:
    """Delete a checkpoint's own files, and leave those of others where they are."""
    (path / STATE).unlink(missing_ok=True)  # from here on it is no checkpoint
    for each in sorted(path.rglob("*"), reverse=True):
        if each.is_dir() and not each.is_symlink():
            with contextlib.suppress(OSError):
                each.rmdir()
        elif str(each.relative_to(path)) not in others:
            each.unlink()


def refuse_foreign(folder: Path, current: str) -> None:
    """Refuse to continue from the checkpoint `current` where files that no run wrote are in the
    place of a later one, which would be replaced."""
    for path in sorted((folder / FOLDER).glob("*")):
        later = NAME.fullmatch(path.name) and _order(path.name) > _order(current)
        if later and (others := foreign(path)):
            raise RunError(
                f"{path} holds {others[0]}, which the run did not write, and is where it will write "
                "a checkpoint; move it elsewhere, then continue with --resume"
            )


def clean(folder: Path, current: str) -> None:
    """Delete leftovers of a killed run: drafts, and checkpoints after the one it continues from.
    Files without a checkpoint's name stay."""
    for path in (folder / FOLDER).glob("*"):
        name = path.name
        later = current and NAME.fullmatch(name) and _order(name) > _order(current)
        if not path.is_symlink() and (later or DRAFT.fullmatch(name)):
            shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path, wanted: set[str]) -> None:
    """Drop all checkpoints but the newest two and the wanted ones."""
    for name in names(folder)[:-KEEP]:
        if name not in wanted:
            _drop(folder, name)


def _drop(folder: Path, name: str) -> None:
    """Rename it first: a run killed while it deletes files leaves a draft, which `clean` deletes,
    and not half a checkpoint."""
    old, draft = folder / FOLDER / name, folder / FOLDER / f".{name}-old"
    if others := foreign(old):
        _drop_beside(old, others)
        return
    shutil.rmtree(draft, ignore_errors=True)
    old.rename(draft)
    shutil.rmtree(draft, ignore_errors=True)
