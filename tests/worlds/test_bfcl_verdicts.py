"""bfcl's verdicts beside those of the benchmark's own checker, on the benchmark's own tasks."""

import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tutelage.config.schema import EnvSection
from tutelage.envs.registry import suite_of
from tutelage_worlds.bfcl import BFCL, files, package
from tutelage_worlds.bfcl.game import judge
from tutelage_worlds.bfcl.scenario import FAMILIES, Call, Scenario

pytestmark = pytest.mark.skipif(find_spec("bfcl_eval") is None, reason=f"needs {package.GET}")
EVERY, SOME = range(800), range(3, 800, 20)
NAMES = count()
Answers = list[list[list[Call]]]


def rows(kind: str) -> dict[str, Any]:
    """The benchmark's own lines by id."""
    place = package.folder() / "data" / kind
    found = (
        json.loads(line)
        for family in FAMILIES
        for line in (place / files.NAME.format(family=family)).read_text().splitlines()
    )
    return {row["id"]: row for row in found}


def gold(scenario: Scenario) -> Answers:
    return [[list(turn.calls)] if turn.calls else [] for turn in scenario.turns]


def altered(scenario: Scenario) -> Iterator[tuple[str, Answers]]:
    """Answers that are more or less wrong."""
    yield "nothing is called", [[] for _ in scenario.turns]
    last = max(k for k, turn in enumerate(scenario.turns) if turn.calls)
    one = gold(scenario)
    one[last] = [one[last][0][:-1]] if len(one[last][0]) > 1 else []
    yield "the last call is left out", one
    one = gold(scenario)
    one[last] = [[call] for call in reversed(one[last][0])]
    yield "the last turn runs backwards", one
    one = gold(scenario)
    one[0] = [*one[0], *one[0]]
    yield "the first turn is done twice", one
    one = gold(scenario)
    one[last] = [[*one[last][0][:-1], other(one[last][0][-1])]]
    yield "an argument is another", one
    one = gold(scenario)
    one[last], one[0] = one[0], one[last]
    yield "two turns are exchanged", one
    one = gold(scenario)
    one[0] = [[Call(name="no_such_function"), *(call for step in one[0] for call in step)]]
    yield "there is one call more", one


def other(call: Call) -> Call:
    """A call with another last argument."""
    if not call.arguments:
        return Call(name=call.name, arguments={"none": 1})
    *_, (key, value) = call.arguments.items()
    new: Any = f"{value}x" if isinstance(value, str) else [] if isinstance(value, list) else 3
    return Call(name=call.name, arguments={**call.arguments, key: new})


def theirs(row: Any, answer: Any, answers: Answers) -> str:
    """The verdict of the package's checker, in a state of its own."""
    for api in package.classes().values():  # lists that earlier calls have filled
        for member in vars(api).values():
            for default in getattr(member, "__defaults__", None) or ():
                if isinstance(default, list):
                    default.clear()
    texts = [[[call.text() for call in step] for step in turn] for turn in answers]
    checker = package.module(package.CHECKER)
    found = checker.multi_turn_checker(
        texts, answer["ground_truth"], row, "multi_turn", f"t{next(NAMES)}"
    )
    held = vars(package.module(checker.execute_multi_turn_func_call.__module__))
    for name in [name for name in held if name.endswith("_instance")]:
        del held[name]
    return str(found.get("error_type", "")).removeprefix("multi_turn:")


def compared(which: Sequence[int]) -> dict[str, int]:
    """How many answers of each verdict there were; all of them are equal."""
    questions, answers = rows(""), rows("possible_answer")
    found: dict[str, int] = {}
    for scenario in (files.published(None)[k] for k in which):
        for what, given in (("the right calls", gold(scenario)), *altered(scenario)):
            ours = judge(scenario, given)
            row, answer = questions[scenario.id], answers[scenario.id]
            assert ours == theirs(row, answer, given), (scenario.id, what)
            assert not (ours and what == "the right calls"), scenario.id
            found[ours] = found.get(ours, 0) + 1
    return found


def test_verdicts_are_those_of_the_benchmarks_checker() -> None:
    found = compared(SOME)
    assert set(found) >= {"", "instance_state_mismatch", "empty_turn_model_response"}
    assert min(found.values()) >= 5


@pytest.mark.nightly
def test_verdicts_of_all_tasks() -> None:
    assert sum(compared(EVERY).values()) == 8 * 800


def played(which: Sequence[int], *, calls: bool, kind: str) -> None:
    suite: Any = suite_of(EnvSection(suite="bfcl"), calls=calls)
    tasks = suite.tasks("test")
    assert len(tasks) == 800
    for task in (tasks[k] for k in which):
        env = suite.make()
        seen = env.reset(task)
        for action in getattr(suite, kind)(task):
            assert not seen.done
            seen = env.step(action)
            assert seen.valid, (task.id, action, seen.text)
            assert len(seen.text) < 100_000
        assert (seen.done, seen.won, seen.score, seen.reward) == (True, True, 1.0, 1.0), task.id


@pytest.mark.parametrize("calls", [False, True], ids=["text", "calls"])
def test_right_calls_win(calls: bool) -> None:
    played(SOME[::2], calls=calls, kind="demonstrate")
    played(SOME[1::4], calls=calls, kind="plan")


@pytest.mark.nightly
@pytest.mark.parametrize("calls", [False, True], ids=["text", "calls"])
@pytest.mark.parametrize("kind", ["demonstrate", "plan"])
def test_right_calls_of_all_tasks_win(calls: bool, kind: str) -> None:
    played(EVERY, calls=calls, kind=kind)


def test_tasks_are_those_of_the_benchmark() -> None:
    tasks = BFCL().tasks("test")
    assert [task.family for task in tasks[:4]] == list(FAMILIES)
    assert {f: sum(t.family == f for t in tasks) for f in FAMILIES} == dict.fromkeys(FAMILIES, 200)
    assert {task.id.removeprefix("bfcl/") for task in tasks} == set(rows(""))
    few = BFCL(families=["miss_func"], apis=["TradingBot", "MessageAPI"]).tasks("test")
    assert 0 < len(few) < 60
    for scenario in (BFCL().scenario(task) for task in few):
        assert set(scenario.apis) <= {"TradingBot", "MessageAPI"}
        (added,) = [k for k, turn in enumerate(scenario.turns) if turn.added]
        assert not any(
            call.name in scenario.held for turn in scenario.turns[:added] for call in turn.calls
        )


def test_tasks_of_a_folder(tmp_path: Path) -> None:
    for kind in ("", "possible_answer"):
        (tmp_path / kind).mkdir(exist_ok=True)
        for family in FAMILIES:
            name = files.NAME.format(family=family)
            lines = (package.folder() / "data" / kind / name).read_text().splitlines()
            (tmp_path / kind / name).write_text("\n".join(lines[:3]))
    suite = BFCL(data=str(tmp_path))
    assert len(suite.tasks("test")) == 12
    assert suite.describe(suite.tasks("test")[0])
