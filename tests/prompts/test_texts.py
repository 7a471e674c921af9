"""Texts between agent and environment: actions, contexts, hints, doors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.envs.base import Demonstrates, Instructs, Thinks
from tutelage.envs.doors import RULE, Doors
from tutelage.errors import ConfigError
from tutelage.hints import KINDS, hint
from tutelage.prompts.answer_format import LONGEST_ACTION, TAGS, Parsed, parse, write
from tutelage.prompts.context import HINT_OPEN, Context, text, with_actions
from tutelage.types import Episode, Observation, Stop, Task, Turn

PLAIN = st.text(max_size=40).filter(lambda t: not any(tag in t for tag in TAGS))


@given(action=PLAIN, thought=PLAIN)
def test_what_is_written_is_read_back(action: str, thought: str) -> None:
    result = parse(write(action, thought))
    assert result.valid == bool(action.strip())
    assert result.action == action.strip()
    assert result.thought == (thought.strip() if result.valid else "")


@pytest.mark.parametrize(
    ("reply", "want"),
    [
        ("<action>look</action>", Parsed(action="look")),
        ("well <action> look\n</action> then", Parsed(action="look")),
        (
            "<think>a <action>b</action></think><action>c</action>",
            Parsed(action="c", thought="a <action>b</action>"),
        ),
        ("<think>open <action>look</action>", Parsed(action="look")),
        ("look", Parsed(action="look", valid=False)),
        ("", Parsed(action="", valid=False)),
        ("<action></action>", Parsed(action="", valid=False)),
        ("<action> </action>", Parsed(action="", valid=False)),
        ("<action>a</action><action>b</action>", Parsed(action="a  b", valid=False)),
        ("<action>a", Parsed(action="a", valid=False)),
        ("<think>x</think>", Parsed(action="", thought="", valid=False)),
        ("<think>x</think> go", Parsed(action="go", valid=False)),
        ("<action>a<think>hm</think>b</action>", Parsed(action="a b", thought="", valid=False)),
        ("<ACTION>a</ACTION>", Parsed(action="<ACTION>a</ACTION>", valid=False)),
    ],
)
def test_reading_a_completion(reply: str, want: Parsed) -> None:
    result = parse(reply)
    assert (" ".join(result.action.split()), result.valid) == (
        " ".join(want.action.split()),
        want.valid,
    )
    assert result.thought == want.thought


@given(reply=st.text(max_size=200) | st.lists(st.sampled_from([*TAGS, "go", " "])).map("".join))
def test_anything_can_be_read(reply: str) -> None:
    result = parse(reply)
    assert result.action == result.action.strip()
    assert result.valid <= bool(result.action)
    if result.valid:
        assert f"{result.action}" in reply


def test_a_runaway_action_is_cut() -> None:
    long = "x" * (3 * LONGEST_ACTION)
    for long_text in (long, write(long)):
        assert len(parse(long_text).action) == LONGEST_ACTION


# -- contexts


def test_a_transcript_says_only_what_is_new() -> None:
    context = Context()
    seen = [Observation(text=f" room {k}\n") for k in range(3)]
    assert [context.user(seen[: k + 1], ["go"] * k) for k in range(3)] == [
        "room 0",
        "room 1",
        "room 2",
    ]


def test_the_system_message_holds_instructions_and_hint_whole() -> None:
    context = Context(instructions=" Be brief. ")
    assert Context().system() == ""
    assert context.system() == "Be brief."
    assert context.system(" 1. go\n2. look ") == f"Be brief.\n\n{HINT_OPEN}\n1. go\n2. look"
    assert Context().system("x") == f"{HINT_OPEN}\nx"
    assert context.system("  ") == "Be brief."


def test_actions_are_listed_while_there_is_something_to_choose() -> None:
    seen = Observation(text=" a hall ", actions=("go", "look"))
    assert text(seen) == "a hall"
    assert with_actions(seen) == "a hall\n\nAdmissible actions:\ngo\nlook"
    assert with_actions(Observation(text="a hall")) == "a hall"
    over = Observation(text="the end", actions=("go",), done=True)
    assert with_actions(over) == "the end"
    assert Context(render=with_actions).user([seen], []) == with_actions(seen)


@given(count=st.integers(1, 7), window=st.integers(0, 9))
def test_a_window_holds_the_start_the_last_turns_and_now(count: int, window: int) -> None:
    context = Context(kind="window", window=window)
    seen = [Observation(text=f"<room {k}>") for k in range(count)]
    actions = [f"<act {k}>" for k in range(count - 1)]
    result = context.user(seen, actions)
    shown = min(window, count - 1)
    for k in range(count):
        saved = k in (0, count - 1) or k >= count - 1 - shown
        assert result.count(f"<room {k}>") == int(saved)
    for k in range(count - 1):
        assert result.count(f"<act {k}>") == int(k >= count - 1 - shown)
    if count > 1:
        assert f"{count - 1} actions have been taken. The last {shown}, each" in result
        order = [result.index(f"[{k}] > <act {k}>") for k in range(count - 1 - shown, count - 1)]
        assert order == sorted(order)


def test_a_window_lists_what_is_admissible_once_with_what_is_seen_now() -> None:
    seen = [Observation(text=f"room {k}", actions=("go", f"take {k}")) for k in range(4)]
    result = Context(kind="window", window=2, render=with_actions).user(seen, ["go"] * 3)
    assert result.count("Admissible actions:") == 1
    assert result.endswith(f"Now:\n{with_actions(seen[3])}")
    assert all(f"room {k}" in result for k in range(4))
    own = Context(kind="window", window=2, render=lambda o: f"{o.text}: {len(o.actions)}")
    assert "[2] room 2: 2" in own.user(seen, ["go"] * 3)


# -- hints and doors


def test_hints_of_every_kind() -> None:
    class Kitchen(Doors):
        def plan(self, task: Task) -> list[str]:
            return ["go to fridge 1", "take apple 1"]

    task = Doors().tasks("train")[0]
    assert hint(Kitchen(), task, "plan") == "1. go to fridge 1\n2. take apple 1"
    assert hint(Kitchen(), task, "actions") == "1. go\n2. take"
    assert hint(Kitchen(), task, "") == ""
    with pytest.raises(ConfigError, match=f"the kinds are {', '.join(KINDS)}"):
        hint(Kitchen(), task, "skill")


def test_doors_is_a_whole_suite() -> None:
    suite = Doors(2)
    assert isinstance(suite, Demonstrates)
    assert isinstance(suite, Instructs)
    assert not isinstance(suite, Thinks)
    tasks = suite.tasks("train")
    assert len({t.id for t in tasks}) == len(tasks) == 9
    for task in tasks:
        env = suite.make()
        seen = env.reset(task)
        assert (seen.done, seen.reward, seen.won) == (False, 0.0, None)
        for action in suite.demonstrate(task):
            assert not seen.done
            assert set(seen.actions) == set(RULE.values())
            seen = env.step(action)
        assert (seen.done, seen.won, seen.score) == (True, True, 1.0)
    with pytest.raises(ValueError, match="no split 'tset'; it has train, seen, unseen"):
        suite.tasks("tset")


def test_what_a_return_is() -> None:
    def turn(reward: float, penalty: float) -> Turn:
        return Turn(
            observation=Observation(text=""),
            prompt=(),
            text="",
            tokens=(),
            logps=(),
            reward=reward,
            penalty=penalty,
        )

    result = Episode(task=Task(id="t"), group="t", turns=(turn(1.0, 0.5), turn(2.0, 0.0)))
    assert result.total_reward == 2.5
    assert [s for s in Stop if s.broken] == [Stop.ERROR, Stop.TIMEOUT]
