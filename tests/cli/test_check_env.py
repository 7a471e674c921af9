"""`tutelage check-env`: a correct environment passes, every violation is found and explained."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tutelage.cli.main import main
from tutelage.envs.base import Env, Render, Suite
from tutelage.envs.check import check, quick, splits_of
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.errors import EnvError
from tutelage.types import Observation, Task
from tutelage_worlds.household import Household
from tutelage_worlds.webshop import WebShop

Change = Callable[[Observation], Observation]


class Bent:
    """Doors whose observations are changed on the way."""

    def __init__(self, reset: Change, step: Change) -> None:
        self.inner, self.on_reset, self.on_step = DoorsEnv(), reset, step

    def reset(self, task: Task) -> Observation:
        return self.on_reset(self.inner.reset(task))

    def step(self, action: str) -> Observation:
        return self.on_step(self.inner.step(action))

    def close(self) -> None:
        self.inner.close()


def same(seen: Observation) -> Observation:
    return seen


@dataclass
class Wrong:
    """A suite of doors with one thing wrong, named by `how`."""

    how: str = ""
    shared: DoorsEnv | None = None
    count: int = 0

    def tasks(self, split: str) -> Sequence[Task]:
        tasks: list[Task] = Doors().tasks(split)
        if self.how == "twins":
            return [*tasks, tasks[0]]
        if self.how == "nameless":
            return [replace(tasks[0], id="")]
        if self.how == "numbered":
            return [replace(task, data={**task.data, "n": 3}) for task in tasks]  # type: ignore[dict-item]
        if self.how == "strings":
            return ["a", "b"]  # type: ignore[list-item]
        if self.how == "empty":
            return []
        if self.how == "a stream":
            return iter(tasks)  # type: ignore[return-value]
        if self.how == "a set":
            return {task.id for task in tasks}  # type: ignore[return-value]
        if self.how == "no family":
            return [replace(task, family=None) for task in tasks]  # type: ignore[arg-type]
        if self.how == "textual seed":
            return [replace(task, seed="7") for task in tasks]  # type: ignore[arg-type]
        if self.how == "listed data":
            return [replace(task, data=["path"]) for task in tasks]  # type: ignore[arg-type]
        if self.how == "hangs at once":
            time.sleep(60)
        if self.how == "tasks raise":
            raise KeyError(split)
        return tasks

    def make(self) -> Env:
        how = self.how
        if how == "make raises":
            raise OSError("no display")
        if how == "shared":
            self.shared = self.shared or DoorsEnv()
            return self.shared
        if how == "drifting":
            self.count += 1
            number = self.count
            return Bent(same, lambda seen: replace(seen, text=f"{seen.text} {number}"))
        if how == "leaking":
            return Leaking()
        if how == "no screen":
            raise EnvError("there is no screen here; plug one in")
        if how in ("fragile", "listens", "slow close", "exits", "dry", "hangs", "dies"):
            return Special(how)
        if how in ("close raises", "close hangs"):
            return Special(how)
        return Bent(*CHANGES.get(how, (same, same)))

    def __getstate__(self) -> object:
        if self.how == "unpicklable":
            raise TypeError("cannot pickle a socket")
        return self.__dict__

    def __setstate__(self, state: dict[str, object]) -> None:
        if state["how"] == "stays away":
            raise OSError("no such file")
        if state["how"] == "forgets":
            state = {**state, "how": "silent at first"}
        self.__dict__.update(state)


class Leaking(DoorsEnv):
    """Something of the last episode is left after a reset."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def step(self, action: str) -> Observation:
        self.total += 1
        return replace(super().step(action), text=f"door {self.total}")


class Special(DoorsEnv):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def step(self, action: str) -> Observation:
        if self.how == "fragile" and not action.isascii():
            raise UnicodeError("bad action")
        if self.how == "exits":
            sys.exit("bye")
        if self.how == "dry":
            raise EnvError("the kettle is dry; fill it")
        if self.how == "hangs" and action == "":
            time.sleep(60)
        if self.how == "dies" and action == "":
            os._exit(3)
        seen = super().step(action)
        if self.how == "listens" and not action.strip():
            return replace(seen, done=True, won=True)
        return seen

    def close(self) -> None:
        if self.how == "close raises":
            raise ConnectionError("the server hung up")
        if self.how == "close hangs":
            time.sleep(600)
        if self.how == "slow close":
            raise RuntimeError("still busy")


CHANGES: Mapping[str, tuple[Change, Change]] = {
    "silent at first": (lambda s: replace(s, text="?"), same),
    "early reward": (lambda s: replace(s, reward=1.0), same),
    "done at once": (lambda s: replace(s, done=True, won=False), same),
    "refused reset": (lambda s: replace(s, valid=False), same),
    "silent": (same, lambda s: replace(s, text="  ")),
    "bytes": (same, lambda s: replace(s, text=b"hello")),
    "no text": (same, lambda s: replace(s, text=None)),
    "nan": (same, lambda s: replace(s, reward=float("nan"))),
    "infinite": (same, lambda s: replace(s, reward=float("inf"))),
    "textual reward": (same, lambda s: replace(s, reward="1")),
    "boolean reward": (same, lambda s: replace(s, reward=True)),
    "numeric done": (same, lambda s: replace(s, done=int(s.done))),
    "numeric valid": (same, lambda s: replace(s, valid=int(s.valid))),
    "numeric won": (same, lambda s: replace(s, won=None if s.won is None else int(s.won))),
    "won too soon": (same, lambda s: replace(s, won=False)),
    "won never": (same, lambda s: replace(s, won=None)),
    "score": (same, lambda s: replace(s, score=7.0)),
    "action list": (same, lambda s: replace(s, actions=list(s.actions))),
    "focus string": (same, lambda s: replace(s, focus="door")),
    "half a letter": (same, lambda s: replace(s, text="\ud83d")),
    "half a letter in an action": (
        lambda s: replace(s, actions=("\udeaa",)),
        same,
    ),
    "action numbers": (same, lambda s: replace(s, actions=(1, 2) if s.actions else ())),
    "list state": (same, lambda s: replace(s, state=[1])),
    "false promises": (lambda s: replace(s, actions=("sing",)), same),
    "a string": (same, lambda s: s.text),
    "nothing": (lambda s: None, same),
}  # type: ignore[assignment]


class Teaches(Wrong):
    """Doors with demonstrations, words and renders, one of which may be wrong."""

    def demonstrate(self, task: Task) -> Sequence[str]:
        right = Doors().demonstrate(task)
        if self.how == "loses":
            return ["9" for _ in right]
        if self.how == "too long":
            return [*right, "3"]
        if self.how == "gives numbers":
            return [1, 2]  # type: ignore[list-item]
        if self.how == "cannot":
            raise NotImplementedError("later")
        return right

    def plan(self, task: Task) -> Sequence[str]:
        return ["x"] if self.how == "no plan" else Doors().plan(task)

    def thoughts(self, task: Task) -> Sequence[str]:
        return [] if self.how == "thoughtless" else ["so" for _ in Doors().plan(task)]

    def plan_thoughts(self, task: Task) -> Sequence[str]:
        return ["so"] if self.how == "half planned" else ["so" for _ in Doors().plan(task)]

    def describe(self, task: Task) -> str:
        return " " if self.how == "tells nothing" else "Open two doors."

    def answer(self, task: Task) -> str:
        return 31 if self.how == "answers a number" else ""  # type: ignore[return-value]

    def instructions(self) -> str:
        return "" if self.how == "speechless" else "Open the doors."

    def renders(self) -> Mapping[str, Render]:
        return {"short": lambda seen: "" if self.how == "blind" else seen.text}

    def __getstate__(self) -> object:
        return self.__dict__


def problems(suite: Suite, splits: Sequence[str] = ("train",)) -> list[str]:
    return [text for finding in check(suite, splits) for text in finding.problems]


@pytest.mark.parametrize(
    "suite",
    [Doors(), Doors(rooms=1), Household(size="small"), Household(), Wrong(), Teaches()],
    ids=["doors", "one door", "small household", "household", "bent nowhere", "teaches"],
)
def test_who_keeps_the_contract_passes(suite: Suite) -> None:
    assert problems(suite, ("train", "seen", "unseen")) == []
    assert quick(suite, "train") == []


FINDINGS = {
    "twins": "two tasks have the id 'doors/aa'",
    "nameless": "has the id ''",
    "numbered": "data are strings",
    "strings": "tasks[0] is str; it must be a Task",
    "empty": "the split has no tasks",
    "a stream": "tasks returned list_iterator; it must return a sequence",
    "a set": "tasks returned set; it must return a sequence",
    "no family": "has a family that is NoneType, not str",
    "textual seed": "has a seed that is str, not int",
    "listed data": "has a data that is list, not Mapping",
    "focus string": "whose focus are not a tuple of strings",
    "half a letter": "whose text holds half a surrogate pair",
    "half a letter in an action": "whose actions hold half a surrogate pair",
    "stays away": "unpickling the suite raised OSError: no such file",
    "forgets": "a pickled copy plays doors/aa differently: its text is 'a' once and '?' another",
    "tasks raise": "tasks raised KeyError",
    "make raises": "make raised OSError: no display",
    "shared": "goes differently beside others",
    "drifting": "its text is",
    "leaking": "differs after a reset",
    "fragile": "raised UnicodeError: bad action",
    "listens": "is won by ''",
    "exits": "raised SystemExit: bye",
    "dry": "the kettle is dry; fill it",
    "slow close": "close raised RuntimeError: still busy",
    "unpicklable": "cannot pickle a socket",
    "early reward": "gives a reward of 1.0",
    "done at once": "is done at once",
    "refused reset": "valid=False, but there was no action",
    "silent": "without text",
    "bytes": "whose text is bytes",
    "no text": "whose text is NoneType",
    "nan": "whose reward is nan",
    "infinite": "whose reward is inf",
    "textual reward": "whose reward is str",
    "won too soon": "done=False and won=False",
    "won never": "done=True and won=None",
    "score": "whose score is 7.0",
    "action numbers": "actions are not a tuple",
    "list state": "is not hashable",
    "false promises": "'sing' was listed as admissible and then refused",
    "a string": "returned str; it must return an Observation",
    "nothing": "reset returned NoneType",
}
CONVERTED = ("boolean reward", "numeric done", "numeric valid", "numeric won", "action list")
TAUGHT = {
    "loses": "demonstrate of doors/aa does not win",
    "too long": "continues after the end",
    "gives numbers": "is not a string",
    "cannot": "demonstrate raised NotImplementedError: later",
    "no plan": "plan of doors/aa does not win",
    "thoughtless": "0 thoughts for 2 actions",
    "half planned": "1 plan_thoughts for 2 actions",
    "tells nothing": "describe of doors/aa returned ' '",
    "answers a number": "answer of doors/aa returned 31",
    "speechless": "instructions returned ''",
    "blind": "render 'short' made ''",
}


@pytest.mark.parametrize(("how", "part"), FINDINGS.items())
def test_every_broken_promise_is_found(how: str, part: str) -> None:
    found = problems(Wrong(how))
    assert any(part in text for text in found), found
    assert all("\n" not in text and text.startswith("train: ") for text in found)


@pytest.mark.parametrize("how", CONVERTED)
def test_what_can_be_converted_is_accepted(how: str) -> None:
    assert problems(Wrong(how)) == []


def test_a_cause_is_reported_once() -> None:
    findings = list(check(Wrong("bytes"), ("train", "seen")))
    texts = [text for finding in findings for text in finding.problems]
    assert len(texts) > 3
    assert texts[0].startswith("train, seen: step(")
    assert "whose text is bytes" in texts[0]
    assert set(texts[1:]) == {"train, seen: as above"}
    broken = [finding.name for finding in findings if finding.problems]
    assert broken[0].startswith("the same actions")
    assert len(quick(Wrong("bytes"), "train")) == 1


@pytest.mark.parametrize(("how", "part"), TAUGHT.items())
def test_every_broken_extra_is_found(how: str, part: str) -> None:
    found = problems(Teaches(how))
    assert any(part in text for text in found), found


@pytest.mark.parametrize(
    "how", ["nan", "drifting", "leaking", "fragile", "early reward", "a string", "make raises"]
)
def test_a_run_would_not_start_on_it(how: str) -> None:
    assert quick(Wrong(how), "train")


class Half(Wrong):
    def tasks(self, split: str) -> Sequence[Task]:
        if split == "unseen":
            raise ValueError("no unseen")
        return super().tasks(split)


def test_only_the_split_that_is_wrong_is_named() -> None:
    found = problems(Half(), ("train", "unseen"))
    assert found
    assert found[0].startswith("unseen: tasks raised ValueError: no unseen")
    assert set(found[1:]) == {"unseen: as above"}


@dataclass
class Closing(Wrong):
    """Counts the environments that are open."""

    open: int = 0

    def make(self) -> Env:
        self.open += 1
        return Counted(self)


class Counted(DoorsEnv):
    def __init__(self, suite: Closing) -> None:
        super().__init__()
        self.suite = suite

    def close(self) -> None:
        self.suite.open -= 1


def test_every_environment_is_closed_again() -> None:
    suite = Closing()
    assert problems(suite, ("train", "seen")) == []
    assert suite.open == 0


def test_splits_are_found_by_their_names() -> None:
    assert splits_of(Doors()) == ["train", "seen", "unseen"]
    assert splits_of(WebShop(products=20, test=3, dev=0)) == ["train", "test"]
    assert splits_of(Wrong("tasks raise")) == splits_of(Wrong("a stream")) == ["train"]


@pytest.fixture
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This file can be imported by the process that checks."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])


@pytest.mark.usefixtures("findable")
def test_the_command_explains_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-env", "test_check_env:Wrong", "how=leaking", "--split", "train"]) == 2 - 1
    output = capsys.readouterr().out
    assert "failed  the same actions give the same observations" in output
    assert "differs after a reset at step 1" in output
    assert "1 check failed (train: 5 tasks of each)" in output
    assert main(["check-env", "test_check_env:Wrong", "how=silent"]) == 1
    assert "checks failed (train, " in capsys.readouterr().out
    assert main(["check-env", "doors", "rooms=1", "--tasks", "2"]) == 0
    output = capsys.readouterr().out
    assert "all checks passed (train, seen, unseen: 2 tasks of each)" in output
    assert main(["check-env", "doors", "rooms=many"]) == 2
    assert "env.options.rooms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["doors", "--tasks", "-3"], ["--tasks must be at least 1, got -3"]),
        (["doors", "--tasks", "0"], ["--tasks must be at least 1, got 0"]),
        (["doors", "--seconds", "0"], ["--seconds must be above 0"]),
        (
            ["doors", "--split", "trian"],
            [
                "'trian' cannot be opened (doors has no split 'trian'; it "
                "has train, seen, unseen); did you mean train?"
            ],
        ),
        (["household", "games=/nowhere"], ["'train' cannot be opened (No game.tw-pddl was found"]),
        (["webshop", "products=0"], ["'train' has no tasks with these options"]),
        (["webshop", "products=9", "--split", "train"], ["'train' has no tasks"]),
        (["test_check_env:Wrong", "how=no screen"], ["cannot be made: there is no screen here"]),
        (["test_check_env:Wrong", "how=tasks raise"], ["tasks('train') raised KeyError"]),
        (
            ["test_check_env:Wrong", "how=hangs at once", "--seconds", "3"],
            ["test_check_env:Wrong cannot be opened: tasks did not return within 3 s"],
        ),
        (
            ["test_check_env:Wrong", "how=close hangs", "--seconds", "3"],
            ["test_check_env:Wrong cannot be opened: close did not return within 3 s"],
        ),
    ],
)
@pytest.mark.usefixtures("findable")
def test_what_cannot_be_opened_is_one_sentence(
    given: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check-env", *given]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert all(part in output.err for part in parts), output.err


@pytest.mark.usefixtures("findable")
def test_a_close_that_always_raises_is_a_finding(capfd: pytest.CaptureFixture[str]) -> None:
    """Also right after make, before anything was played."""
    given = ["check-env", "test_check_env:Wrong", "how=close raises", "--split", "train"]
    assert main([*given, "--tasks", "1"]) == 1
    output = capfd.readouterr()
    assert "close raised ConnectionError: the server hung up" in output.out
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("hangs", "train: step('') did not return within 5 s; fix what it waits for"),
        ("dies", "train: step('') ended its process (exit code 3)"),
    ],
)
@pytest.mark.usefixtures("findable")
def test_a_call_that_never_returns_is_found_and_the_rest_is_checked(
    how: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["test_check_env:Wrong", f"how={how}", "--split", "train", "--tasks", "1"]
    assert main(["check-env", *given, "--seconds", "5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(
        "failed  any text is accepted as an action: nonsense is answered, never raises and never wins"
    )
    assert part in lines[at + 1]
    assert [text.split()[0] for text in lines[-3:-1]] == ["ok", "ok"]


LOCKED = """\
import atexit, multiprocessing, os, time
from tutelage.envs.doors import Doors

LOCK = multiprocessing.Lock()

def leave():
    time.sleep(0.5)
    open(os.environ["LEFT"], "w").write(str(LOCK._semlock.name))

atexit.register(leave)

class Locked(Doors):
    def tasks(self, split):
        if split == "seen":
            raise KeyboardInterrupt
        return super().tasks(split)
"""


def test_an_environment_leaves_in_its_own_way(tmp_path: Path) -> None:
    """What it does at the exit of its process is waited for, a lock of it leaves nothing behind that
    has to be cleared away, and an interrupt that it raises itself is no traceback."""
    (tmp_path / "locked.py").write_text(LOCKED)
    ran = subprocess.run(
        [sys.executable, "-m", "tutelage", "check-env", "locked:Locked", "--tasks", "1"],
        env={**os.environ, "LEFT": str(tmp_path / "left"), "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "all checks passed (train, unseen" in ran.stdout
    assert (tmp_path / "left").read_text() == "None"
