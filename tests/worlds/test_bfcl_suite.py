"""The bfcl suite: generated tasks, conversations, limits, and messages for what is wrong."""

import importlib.util
import json
import pickle
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.config.schema import EnvSection
from tutelage.envs.check import check
from tutelage.envs.registry import suite_of
from tutelage.errors import ConfigError
from tutelage.rollout.session import context_for, context_of
from tutelage.types import Observation
from tutelage_worlds.bfcl import BFCL, files, game, generate, needs, package
from tutelage_worlds.bfcl.render import compact
from tutelage_worlds.bfcl.scenario import Call, Scenario, Turn

pytestmark = pytest.mark.skipif(find_spec("bfcl_eval") is None, reason=f"needs {package.GET}")
APIS = tuple(package.APIS)
SHORT = BFCL(docs="short", reward="turns")


def calls_of(scenario: Scenario) -> list[Call]:
    return [call for turn in scenario.turns for call in turn.calls]


@pytest.fixture(scope="module")
def drawn() -> list[Scenario]:
    families = generate.FAMILIES
    return [generate.scenario("train", k, families[k % len(families)], APIS) for k in range(240)]


def test_generated_tasks_are_solved_by_their_calls_without_an_error(drawn: list[Scenario]) -> None:
    functions, apis = set(), set()
    for scenario in drawn:
        played = game.Game(scenario)
        for turn in scenario.turns:
            if turn.calls:
                results = played.make(turn.calls)
                assert not any("rror" in each for each in results), (scenario.id, results)
            played.finish_turn()
        assert not played.wrong
        functions |= {call.name for call in calls_of(scenario)}
        apis |= set(scenario.apis)
    assert apis == set(APIS)
    assert len(functions) > 55


def test_generated_tasks_lack_what_their_family_says(drawn: list[Scenario]) -> None:
    for scenario in drawn:
        silent = [k for k, turn in enumerate(scenario.turns) if not turn.calls]
        assert len(silent) == (scenario.family != "base")
        if scenario.family == "miss_func":
            k = silent[0]
            (held,) = scenario.turns[k + 1].added
            assert not any(c.name == held for turn in scenario.turns[:k] for c in turn.calls)
            assert any(c.name == held for c in scenario.turns[k + 1].calls)
        if scenario.family == "miss_param":
            texts = [
                str(v) for c in scenario.turns[silent[0] + 1].calls for v in c.arguments.values()
            ]
            before = scenario.turns[silent[0]].says
            assert any(text not in before for text in texts)


def test_the_user_says_what_calls_need(drawn: list[Scenario]) -> None:
    """Numbers and names that are long enough to be told apart: said, or returned before."""
    for scenario in drawn:
        played, known = game.Game(scenario), ""
        for turn in scenario.turns:
            known += turn.says
            for call in turn.calls:
                for value in call.arguments.values():
                    if isinstance(value, str) and len(value) > 4:
                        assert value.lower() in known.lower(), (scenario.id, call)
                known += "".join(played.make([call]))
            played.finish_turn()


def test_generated_tasks_are_the_same_everywhere_and_differ() -> None:
    code = (
        "from tutelage_worlds.bfcl import generate, package\n"
        "import hashlib\n"
        "rows = [generate.scenario('dev', k, 'base', tuple(package.APIS)) for k in range(5)]\n"
        "print(hashlib.sha256(repr(rows).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    splits = ("train", "dev")
    texts = {repr(generate.scenario(s, k, "base", APIS).turns) for s in splits for k in range(25)}
    assert len(texts) == 50
    few = BFCL(train=300, dev=100)
    assert len({task.id for split in (*splits, "test") for task in few.tasks(split)}) == 1200
    assert pickle.loads(pickle.dumps(SHORT)) == SHORT


@pytest.mark.parametrize("calls", [False, True], ids=["text", "calls"])
def test_the_checks_of_an_environment_pass(calls: bool) -> None:
    section = EnvSection(suite="bfcl", options={"docs": "short"})
    found = check(suite_of(section, calls=calls), ["train", "test"], tasks=1)
    assert [problem for finding in found for problem in finding.problems] == []


def conversation(calls: bool, **options: Any) -> tuple[Any, Any, Any]:
    """A task in which a function is added, and its environment."""
    suite: Any = suite_of(EnvSection(suite="bfcl", options=options), calls=calls)
    task = next(
        task
        for task in suite.tasks("test")
        if task.id == "bfcl/multi_turn_miss_func_0"  # `sort` comes with the fourth turn
    )
    return suite, task, suite.make()


def test_functions_are_those_of_the_task_and_come_when_they_are_added() -> None:
    suite, task, env = conversation(True)
    context = context_for(suite)
    own = context_of(context, suite, task)
    assert {"sort", "mv", "post_tweet", "startEngine"} <= set(context.names)
    assert {"mv", "post_tweet"} <= set(own.names)
    assert not {"sort", "startEngine"} & set(own.names)
    assert len(own.names) == 18 + 14 - 1
    seen = env.reset(task)
    script = list(suite.demonstrate(task))
    texts = [seen.text, *(env.step(action).text for action in script)]
    (added,) = [text for text in texts if '"name": "sort"' in text]
    assert "updated some more functions" in added
    text_suite, _, text_env = conversation(False, docs="short")
    opening = text_env.reset(task).text
    assert opening.startswith("Functions:\nauthenticate_twitter(")
    assert "\nmv(source: string, destination: string)" in opening
    assert "sort(" not in opening
    assert re.search(r"\n\nUser: Move 'final_report.pdf'", opening)
    assert "[cd(folder='docs'), ls(a=True)]" in text_suite.instructions()


def test_refused_answers_are_told_why_and_change_nothing() -> None:
    _, task, env = conversation(True)
    before = env.reset(task)
    for answer, reason in (
        ('<tool_call>{"name": "cd"}</tool_call>', "missing 1 required positional argument"),
        ('<tool_call>{"name": "ls", "arguments": {"x": 3}}</tool_call>', "unexpected keyword"),
        ('<tool_call>{"name": "cd", "arguments": ["docs"]}</tool_call>', "are not an object"),
        ('<tool_call>{"name": "chdir", "arguments": {}}</tool_call>', "no function 'chdir'"),
    ):
        seen = env.step(answer)
        assert reason in seen.text
        assert "sort" not in seen.text
        assert not seen.valid
        assert seen.state == before.state
    other = '<tool_call>{"name": "startEngine", "arguments": {"ignitionMode": "START"}}</tool_call>'
    seen = env.step(other)  # of an API that the task does not have
    assert seen.text == "Error during execution: name 'startEngine' is not defined"
    assert not seen.valid
    _, task, env = conversation(False)
    env.reset(task)
    assert "arguments of a call have no names" in env.step("[cd('document')]").text
    assert not env.step("").valid
    assert env.step("Hello!").valid  # said to the user, who goes on


def test_too_many_answers_in_one_turn_lose() -> None:
    _, task, env = conversation(False)
    env.reset(task)
    for _ in range(20):
        assert not env.step("[pwd()]").done
    seen = env.step("[pwd()]")
    assert (seen.done, seen.won, seen.reward) == (True, False, 0.0)


def test_rewards_scores_and_early_ends() -> None:
    for early in (False, True):
        suite, task, env = conversation(False, reward="turns", early=early)
        env.reset(task)
        script = list(suite.plan(task))
        earned = [env.step(action) for action in script[:2]]
        assert [seen.reward for seen in earned] == [0.0, 0.2]
        wrong = env.step("I will not.")  # the second turn needs calls
        assert (wrong.reward, wrong.score, wrong.done) == (0.0, 0.2, early)
        if not early:
            rest = [env.step(action) for action in script[4:]]
            assert sum(seen.reward for seen in rest) == 0
            assert (rest[-1].done, rest[-1].won, rest[-1].score) == (True, False, 0.2)


def test_what_is_shown_of_a_result_is_bounded() -> None:
    suite = BFCL(families="long_context", limit=300)
    texts = []
    for task in list(suite.tasks("test"))[:8]:
        env = suite.make()
        env.reset(task)
        texts += [env.step(action).text for action in suite.demonstrate(task)]
    assert any(re.search(r" \.\.\. \(\d+ more characters\)$", text) for text in texts)
    assert max(max(map(len, text.split("\n"))) for text in texts) < 1000


def test_episodes_share_nothing() -> None:
    """In the package's own module, a list without which a post is made is that of all posts; and
    padding belongs to all tasks of `long_context`."""
    start = {"TwitterAPI": {"authenticated": True, "username": "a"}}
    scenario = Scenario(
        id="x", family="base", apis=("TwitterAPI",), start=start, turns=(Turn(says="Post."),)
    )
    for _ in range(2):
        apis = game.Apis(scenario)
        assert '"mentions": []' in apis.make(Call(name="post_tweet", arguments={"content": "b"}))
        apis.make(Call(name="mention", arguments={"tweet_id": 0, "mentioned_usernames": ["c"]}))
    one, other = (package.start("TravelAPI", {}, long=True) for _ in range(2))
    next(iter(one.credit_card_list.values()))["balance"] = -1
    assert one.credit_card_list != other.credit_card_list


def test_calls_that_would_never_end_are_not_made() -> None:
    scenario = Scenario(id="x", family="base", apis=("MathAPI",), start={}, turns=())
    apis = game.Apis(scenario)
    for arguments in ({"base": 9, "exponent": 10**9}, {"base": 2**2000, "exponent": 2000}):
        text = apis.make(Call(name="power", arguments=arguments))
        assert text == "Error during execution: the result would be too large"
    text = apis.make(Call(name="square_root", arguments={"number": 2, "precision": 10**9}))
    assert "precision is too high" in text
    # the package's precision may be in quotes
    text = apis.make(
        Call(name="logarithm", arguments={"value": 2, "base": 10, "precision": "99999999"})
    )
    assert "precision is too high" in text
    text = apis.make(
        Call(name="round_number", arguments={"number": 12345, "decimal_places": -(10**9)})
    )
    assert "too many decimal places" in text
    rounded = Call(name="round_number", arguments={"number": 12345, "decimal_places": -3})
    assert apis.make(rounded) == '{"result": 12000}'
    assert (
        apis.make(Call(name="power", arguments={"base": 2, "exponent": 10})) == '{"result": 1024}'
    )
    import decimal

    apis.make(Call(name="square_root", arguments={"number": 2, "precision": 3}))
    assert decimal.getcontext().prec == 28


def test_arguments_nested_deeply_are_an_error_in_words() -> None:
    env = SHORT.make()
    env.reset(SHORT.tasks("test")[0])
    nested = "[" * 900 + "]" * 900
    call = f'{{"name": "echo", "arguments": {{"content": {nested}}}}}'
    seen = env.step(f"<tool_call>{call}</tool_call>")
    assert seen.text.startswith("Error during execution: maximum recursion depth")


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_arguments_break_an_api(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, 20))
    played = game.Game(generate.scenario("train", index, "base", APIS))
    for _ in range(5):
        name = data.draw(st.sampled_from(sorted(package.parameters())))
        names = package.parameters()[name]
        arguments = {key: data.draw(VALUES) for key in names if data.draw(st.booleans())}
        (text,) = played.make([Call(name=name, arguments=arguments)])
        assert isinstance(text, str)
        played.apis.mark()
    played.finish_turn()


def test_compact_words() -> None:
    text = "Functions:\ncd(folder: string)\n\nUser: Go to docs, then stop."
    assert compact(Observation(text=text)).splitlines()[-1] == "User : Go to docs , then stop ."
    assert compact(Observation(text='{"a": [{"b": ""}], "c": null}')) == 'a b "" c null'
    assert compact(Observation(text="{}")) == "nothing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": "simple"}, "families: there is no 'simple'; there are base, miss_func"),
        ({"apis": ["TradingBots"]}, "there is no 'TradingBots'; did you mean TradingBot"),
        ({"apis": []}, "apis names none"),
        ({"train": -1}, "a split has no fewer than 0 tasks"),
        ({"limit": 5}, "at least 100 characters"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        suite_of(EnvSection(suite="bfcl", options=options))


def test_splits_and_tasks_that_are_refused() -> None:
    with pytest.raises(ValueError, match="There is no docs 'long'; there are full, short, none"):
        BFCL(docs="long")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="There is no split 'seen'"):
        BFCL().tasks("seen")
    with pytest.raises(ValueError, match="not generated"):
        BFCL(families="long_context").tasks("train")
    task = suite_of(EnvSection(suite="doors")).tasks("seen")[0]
    with pytest.raises(ValueError, match="is not a bfcl task"):
        BFCL().make().reset(task)
    with pytest.raises(RuntimeError, match="call reset"):
        BFCL().make().step("[pwd()]")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("", "{", "line 1 of"),
        ("", '{"id": "a"}', "has no answer in"),
        ("", '{"id": "multi_turn_base_0"}', "is not a task as bfcl-eval"),
        (
            "possible_answer",
            '{"id": "multi_turn_base_0", "ground_truth": [["os.kill(1)"]]}',
            "no call",
        ),
        (
            "possible_answer",
            '{"id": "multi_turn_base_0", "ground_truth": [["f(%s)"]]}' % ("[" * 150_000),
            "is not a task as bfcl-eval",
        ),
        ("possible_answer", None, "cannot be read"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    for kind in ("", "possible_answer"):
        (tmp_path / kind).mkdir(exist_ok=True)
        for family in files.FAMILIES:
            file = files.NAME.format(family=family)
            lines = (package.folder() / "data" / kind / file).read_text().splitlines()
            (tmp_path / kind / file).write_text(lines[0])
    path = tmp_path / name / files.NAME.format(family="base")
    if text is None:
        path.unlink()
    else:
        row = json.loads((tmp_path / files.NAME.format(family="base")).read_text())
        if "ground_truth" in text:
            row["question"] = row["question"][:1]
            (tmp_path / files.NAME.format(family="base")).write_text(json.dumps(row))
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        BFCL(data=str(tmp_path)).tasks("test")


def test_files_may_have_a_byte_order_mark_and_any_character(tmp_path: Path) -> None:
    """A line ends at a line break alone, not at what Unicode counts as one too."""
    for kind in ("", "possible_answer"):
        (tmp_path / kind).mkdir(exist_ok=True)
        for family in files.FAMILIES:
            file = files.NAME.format(family=family)
            row = (package.folder() / "data" / kind / file).read_text().splitlines()[0]
            changed = {**json.loads(row), "note": "\u2028 \x85"}
            text = json.dumps(changed, ensure_ascii=False)
            (tmp_path / kind / file).write_text(f"\ufeff{text}\n", encoding="utf-8")
    assert len(BFCL(data=str(tmp_path)).tasks("test")) == len(files.FAMILIES)


def test_without_the_package_one_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    package.folder.cache_clear()
    try:
        with pytest.raises(ConfigError, match=re.escape("pip install --no-deps bfcl-eval")):
            package.folder()
    finally:
        package.folder.cache_clear()
    found = {need.name: need for need in needs({"data": "/none"})}
    assert found["bfcl-eval"].get == "pip install --no-deps bfcl-eval"
    assert found["data = /none"].missing
