"""Adapters: what is shown, taken and judged, and what is refused with a sentence. The real packages
where they are installed; docs/environments/your_own.md is run by tests/repo/test_your_own.py."""

import logging
import pickle
import random
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.config.schema import EnvSection
from tutelage.envs.adapters.common import APART, SPLITS, imported, is_won, seeds, short
from tutelage.envs.adapters.gem import Gem
from tutelage.envs.adapters.gymnasium import Gymnasium
from tutelage.envs.adapters.openenv import OpenEnv
from tutelage.envs.adapters.own import Own, is_own
from tutelage.envs.adapters.verifiers import Verifiers
from tutelage.envs.base import Demonstrates, Instructs, Renders, Thinks, suite_name
from tutelage.envs.check import check
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.envs.registry import SERVER_WORKERS, suite_of, workers_of
from tutelage.errors import ConfigError, EnvError
from tutelage.hints import hint
from tutelage.prompts import answer_format
from tutelage.rollout.demonstrations import script
from tutelage.types import Observation, Task


def needs(package: str) -> pytest.MarkDecorator:
    reason = f"{package} is not installed: pip install 'tutelage[{package}]'"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


def problems(suite: Any, splits: Sequence[str] = ("train",)) -> list[str]:
    return [text for finding in check(suite, splits, tasks=2) for text in finding.problems]


# -- what they share


def test_no_two_splits_share_a_seed() -> None:
    ends = [(part[0].seed, part[-1].seed) for part in (seeds("x", s, APART, 5, 5) for s in SPLITS)]
    assert all(last < first for (_, last), (first, _) in pairwise(ends))
    assert max(last for _, last in ends) < 2**32
    assert seeds("x", "dev")[3] == Task(id="x/dev/0000003", family="x", seed=APART + 3)
    assert [len(seeds("x", split, 1, 2, 3)) for split in SPLITS] == [1, 2, 3]


@pytest.mark.parametrize(("split", "length"), [("seen", 5), ("train", -1), ("train", APART + 1)])
def test_splits_that_cannot_be(split: str, length: int) -> None:
    with pytest.raises(ValueError, match=r"splits are train, dev, test|a split has 0 to"):
        seeds("x", split, length)


def test_who_has_won() -> None:
    assert [is_won(1.0, reward, {}, "info") for reward in (0.9, 1.0)] == [False, True]
    assert [is_won("good", 0.0, {"good": message}, "info") for message in (0, 1)] == [False, True]
    with pytest.raises(EnvError, match=r"info has no 'good' \(it has bad\); set `won`"):
        is_won("good", 0.0, {"bad": 1}, "info")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvError, match=r"no_such could not be imported .*: pip install it"):
        imported("no_such", "pip install it")
    for name in ("gymnasium", "gem", "openenv.core", "verifiers.v1.utils.loaders"):
        monkeypatch.setitem(sys.modules, name, None)
    for make in (
        lambda: Gymnasium(id="x").make(),
        lambda: Gem(id="x").make(),
        lambda: OpenEnv(url="x", action="a", text="b").make(),
        lambda: Verifiers(taskset="x").make(),
    ):
        with pytest.raises(EnvError, match=r"pip install 'tutelage\[\w+\]'"):
            make()


def test_long_texts_are_quoted_shortly() -> None:
    assert short("a\nb") == "'a\\nb'"
    assert len(short("x" * 1_000_000)) == 42


# -- a class of one's own


class Count:
    """Say the numbers from 1 up to `last`."""

    def __init__(self, last: int = 3) -> None:
        self.last, self.closed = last, False

    def reset(self, task: Task) -> Any:
        self.at = 0
        return "Count."

    def step(self, action: str) -> Any:
        if action == "odd":
            return ["no", "tuple"]
        self.at = self.at + 1 if action == str(self.at + 1) else 0
        return f"at {self.at}", float(self.at == self.last), self.at == self.last

    def close(self) -> None:
        self.closed = True


class Teacher(Count):
    def demonstrate(self, task: Task) -> Sequence[str]:
        return [str(k) for k in range(1, self.last + 1)]

    plan = demonstrate

    def thoughts(self, task: Task) -> Sequence[str]:
        return ["on"] * self.last

    def instructions(self) -> str:
        return f"Count to {self.last}."

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(id=f"{split}/{k}") for k in range(4)]


def own(kind: str, **options: Any) -> Any:
    return suite_of(EnvSection(suite=f"test_adapters:{kind}", options=options))


@pytest.fixture(autouse=True)
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module is imported by its name."""
    monkeypatch.setitem(sys.modules, "test_adapters", sys.modules[__name__])


def test_what_is_missing_is_filled_in() -> None:
    suite = own("Count", last=2)
    assert len(suite.tasks("train")) == 10_000
    assert suite_name(suite) == suite_name(Count()) == "Count"
    assert suite.tasks("dev")[0].id == "count/dev/0000000"
    env = suite.make()
    assert env.reset(suite.tasks("train")[0]) == Observation(text="Count.")
    assert env.step("1") == Observation(text="at 1", reward=0.0)
    assert env.step("2") == Observation(text="at 2", reward=1.0, done=True, won=True)
    assert problems(suite, SPLITS) == []
    beside = suite.make()
    beside.reset(suite.tasks("train")[1])
    env.reset(suite.tasks("train")[0])
    env.step("1")
    assert beside.step("2").text == "at 0"
    assert env.step("2").done
    env.close()
    assert env._inner.closed
    assert not isinstance(suite, Demonstrates | Instructs | Renders | Thinks)


def test_optional_methods_of_the_class_are_used() -> None:
    suite = own("Teacher", last=2)
    assert [task.id for task in suite.tasks("train")] == [f"train/{k}" for k in range(4)]
    copy = pickle.loads(pickle.dumps(suite))
    for result in (suite, copy):
        assert isinstance(result, Demonstrates)
        assert isinstance(result, Instructs)
        assert isinstance(result, Thinks)
        assert not isinstance(result, Renders)
        assert result.instructions() == "Count to 2."
        assert result.demonstrate(result.tasks("train")[0]) == ["1", "2"]
    assert problems(suite) == []


class Shows(Count):
    """An expert, and nobody who knows more than it."""

    def demonstrate(self, task: Task) -> Sequence[str]:
        return [str(k) for k in range(1, self.last + 1)]


def test_an_expert_needs_no_plan() -> None:
    suite = own("Shows", last=2)
    task = suite.tasks("train")[0]
    assert problems(suite) == []
    turns = script(suite, task, with_thoughts=False)
    assert [answer_format.parse(text).action for text, _ in turns] == ["1", "2"]
    assert hint(suite, task, "trace") == "1. 1\n2. 2"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("plan", 'Shows has no `plan` method: add one, choose the hint "trace", or'),
        ("answer", "Shows has no `answer` method"),
    ],
)
def test_what_is_missing_is_named_with_the_class_that_lacks_it(kind: str, words: str) -> None:
    suite = own("Shows")
    with pytest.raises(ConfigError, match=words):
        hint(suite, suite.tasks("train")[0], kind)
    with pytest.raises(ConfigError, match=r"Shows has no `plan` method"):
        script(suite, suite.tasks("train")[0], with_thoughts=False, follows="plan")
    with pytest.raises(ConfigError, match=r"Shows has no `thoughts` method"):
        script(suite, suite.tasks("train")[0], with_thoughts=True)
    with pytest.raises(ConfigError, match=r"Count has no `demonstrate` method"):
        script(own("Count"), suite.tasks("train")[0], with_thoughts=False)


def test_a_lost_episode_is_lost() -> None:
    class Loses(Count):
        def step(self, action: str) -> Any:
            return "over", 0.0, True

    env = Own(Loses).make()
    env.reset(Task(id="x"))
    assert env.step("1") == Observation(text="over", done=True, won=False)


def test_observations_pass_as_they_are() -> None:
    class Says(Count):
        def reset(self, task: Task) -> Any:
            return Observation(text="hello", actions=("a",))

        def step(self, action: str) -> Any:
            return Observation(text="bye", done=True, won=False, score=0.5)

    env = Own(Says).make()
    assert env.reset(Task(id="x")).actions == ("a",)
    assert env.step("a").score == 0.5


def test_other_answers_are_explained() -> None:
    env = Own(Count).make()
    env.reset(Task(id="x"))
    with pytest.raises(EnvError, match=r"step returned list; it must return \(text, reward, done"):
        env.step("odd")

    class Five(Count):
        def reset(self, task: Task) -> Any:
            return "text", {}

        def step(self, action: str) -> Any:
            return "text", 0.0, False, False, {}

    env = Own(Five).make()
    like = r'.*set env\.suite = "gymnasium" and env\.options\.id to this class'
    with pytest.raises(EnvError, match=r"reset returned \(observation, info\), as Gym" + like):
        env.reset(Task(id="x"))
    with pytest.raises(EnvError, match=r"step returned 5 values, as Gym" + like):
        env.step("x")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (("a", None, True), "reward is NoneType; it must be a number"),
        (("a", "1", True), "reward is str; it must be a number"),
        ((None, 1.0, True), "text is NoneType; it must be a string"),
        (("a", 1.0, "yes"), "done is 'yes'; it must be True or False"),
    ],
)
def test_three_values_of_other_types_are_explained(returned: Any, message: str) -> None:
    class Odd(Count):
        def step(self, action: str) -> Any:
            return returned

    env = Own(Odd).make()
    env.reset(Task(id="x"))
    with pytest.raises(EnvError, match=f"whose {message}"):
        env.step("1")


class Square(Count):
    """In Gymnasium's shape."""

    def reset(self, task: Task) -> Any:
        return "text", {}


def test_every_promise_is_looked_at_where_no_episode_begins() -> None:
    found = list(check(own("Square"), ["train"]))
    assert [bool(f.problems) for f in found] == [False, *[True] * 6, False, False]
    first, *rest = [text for f in found for text in f.problems]
    assert "as Gymnasium's environments do" in first
    assert set(rest) == {"train: as above"}


def test_whose_class_is_filled_in() -> None:
    assert is_own(Count)
    assert is_own(Teacher)
    assert is_own(DoorsEnv)
    assert not is_own(Doors)

    class Whole(Teacher):
        def make(self) -> Any:
            return self

    assert not is_own(Whole)
    with pytest.raises(ConfigError, match=r"random belongs to Python itself"):
        suite_of(EnvSection(suite="random:Random"))
    with pytest.raises(ConfigError, match=r"tutelage.envs.doors has no class 'Nothing'"):
        suite_of(EnvSection(suite="tutelage.envs.doors:Nothing"))
    with pytest.raises(ConfigError, match=r"options\.last must be an integer"):
        own("Count", last="many")


def few(rooms: int = 1) -> Doors:
    return Doors(rooms)


def test_a_function_may_make_the_suite() -> None:
    assert own("few") == Doors(1)
    assert own("few", rooms=2) == Doors(2)
    with pytest.raises(ConfigError, match=r"env\.options\.doors is not a setting of few"):
        own("few", doors=2)


def test_where_they_run() -> None:
    for name, workers in (("doors", 0), ("gymnasium", 1), ("test_adapters:Count", 1)):
        assert workers_of(EnvSection(suite=name), Doors()) == workers
    asked: list[tuple[str, dict[str, Any], int]] = [
        ("search_qa", {"url": "http://localhost:8000/retrieve"}, SERVER_WORKERS),
        ("search_qa", {"url": ""}, 0),
        (
            "tau_bench",
            {"user": "endpoint", "user_options": {"url": "http://x"}},
            SERVER_WORKERS,
        ),
        ("tau_bench", {"user_options": {}}, 0),
        ("openenv", {"url": "http://x"}, 1),
    ]
    for name, options, workers in asked:
        assert workers_of(EnvSection(suite=name, options=options), Doors()) == workers
    alone = EnvSection(suite="search_qa", options={"url": "http://x"}, workers=0)
    assert workers_of(alone, Doors()) == 0
    with pytest.raises(ConfigError, match="did you mean gymnasium"):
        suite_of(EnvSection(suite="gymnasum"))


# -- Gymnasium

LAKE = {"id": "FrozenLake-v1", "settings": {"is_slippery": False}}
WAYS = ("left", "down", "right", "up")
ROUTE = ("down", "down", "right", "right", "down", "right")


class Space:
    """A space of Gymnasium's, made only where it is installed."""

    @staticmethod
    def discrete(n: int, start: int = 0) -> Any:
        return imported("gymnasium", "").spaces.Discrete(n, start=start)

    @staticmethod
    def text() -> Any:
        return imported("gymnasium", "").spaces.Text(max_length=5, charset="ab")

    @staticmethod
    def box() -> Any:
        return imported("gymnasium", "").spaces.Box(0, 1)


class Echo:
    """What is left of a Gymnasium environment that is registered nowhere."""

    spec, metadata, render_mode = None, {}, None

    def __init__(self, takes: str = "text", shows: Any = "ready", start: int = 0) -> None:
        self.action_space = Space.discrete(3, start) if takes == "discrete" else None
        self.action_space = self.action_space or getattr(Space, takes)()
        self.observation_space, self.shows = Space.box(), shows
        self.closed = False

    def reset(self, *, seed: int) -> Any:
        self.seed = seed
        return self.shows, {}

    def step(self, action: Any) -> Any:
        ends = action == "ab"
        return f"got {action!r}", 0.5, ends, action == "ba", {"good": ends}

    def render(self) -> Any:
        return 5

    def close(self) -> None:
        self.closed = True


@needs("gymnasium")
def test_names_of_actions() -> None:
    suite = Gymnasium(**LAKE, actions=WAYS, state=lambda seen, env: int(seen))
    assert suite.instructions() == "Each turn, answer with one of: left, down, right, up."
    env = suite.make()
    seen = env.reset(suite.tasks("train")[0])
    assert (seen.text, seen.state, seen.actions) == ("0", 0, WAYS)
    places = [env.step(f" {way}\n") for way in ROUTE]
    assert [place.text for place in places] == ["4", "8", "9", "10", "14", "15"]
    assert [place.state for place in places] == [4, 8, 9, 10, 14, 15]
    assert places[-1] == Observation(text="15", reward=1.0, done=True, won=True, state=15)
    assert problems(Gymnasium(**LAKE, actions=WAYS), SPLITS) == []


@needs("gymnasium")
def test_text_that_is_no_action_changes_nothing() -> None:
    suite = Gymnasium(**LAKE, actions=WAYS, words="render")
    env, plain = suite.make(), suite.make()
    assert env.reset(suite.tasks("train")[0]) == plain.reset(suite.tasks("train")[0])
    for way in ROUTE:
        seen = env.step("Left!")
        assert not seen.valid
        assert (seen.reward, seen.done) == (0.0, False)
        assert seen.text.startswith("'Left!' is no action here; the actions are left, down, right,")
        assert "[" in seen.text  # the map is shown again
        assert env.step(way) == plain.step(way)


@needs("gymnasium")
@settings(max_examples=30, deadline=None)
@given(words=st.lists(st.sampled_from([*WAYS, "", "<|im_end|>", "x" * 10_000]), max_size=20))
def test_walks_are_the_environments_own(words: list[str]) -> None:
    """The same ends and rewards as Gymnasium itself, whatever else is said."""
    gymnasium = imported("gymnasium", "")
    suite = Gymnasium(**LAKE, actions=WAYS)
    env, raw = suite.make(), gymnasium.make(**LAKE["settings"], id=LAKE["id"])
    task = suite.tasks("train")[0]
    env.reset(task)
    raw.reset(seed=task.seed)
    for word in words:
        seen = env.step(word)
        assert seen.valid == (word in WAYS)
        if seen.valid:
            there, reward, ended, cut, _ = raw.step(WAYS.index(word))
            assert (seen.text, seen.reward, seen.done) == (str(there), reward, ended or cut)
        if seen.done:
            break


@needs("gymnasium")
def test_spaces_of_actions() -> None:
    env = Gymnasium(id=Echo, won="good").make()
    assert env.reset(Task(id="x", seed=7)) == Observation(text="ready")
    assert env._env.seed == 7
    env.step("b")
    assert (env.step("abc").valid, env.step("abc").reward) == (False, 0.0)
    assert env.step("b").text == "got 'b'"
    assert env.step("ab").won is True
    assert env.step("ba") == Observation(text="got 'ba'", reward=0.5, done=True, won=False)
    env.close()
    assert env._env.closed
    numbered = Gymnasium(id=Echo, settings={"takes": "discrete", "start": 4}, won=1.5).make()
    assert numbered.names == ("4", "5", "6")
    numbered.reset(Task(id="x"))
    assert numbered.step("5").text == "got 5"
    acts = Gymnasium(
        id=Echo, settings={"takes": "box"}, won=1.0, act=lambda text, env: text.upper() or None
    ).make()
    acts.reset(Task(id="x"))
    assert acts.step("hm").text == "got 'HM'"
    assert "try another" in acts.step("").text
    assert Gymnasium(id=Echo, won=1.0).instructions() == "Each turn, answer with your action."
    assert Gymnasium(id=Echo, won=1.0, rules="Do.").instructions() == "Do."
    assert Gymnasium(id=Echo, won=1.0).tasks("train")[0].id == "Echo/train/0000000"


@needs("gymnasium")
def test_the_return_decides() -> None:
    suite = Gymnasium(id=Echo, won=1.5)
    env = suite.make()
    for turns, won in ((2, True), (1, False)):
        env.reset(Task(id="x"))
        for _ in range(turns):
            env.step("b")
        assert env.step("ab").won is won


@needs("gymnasium")
@pytest.mark.parametrize(
    ("suite", "part"),
    [
        (Gymnasium(id="NoSuch-v0"), "gymnasium could not make NoSuch-v0"),
        (Gymnasium(**LAKE, actions=("a", "b")), "has 4 actions, but `actions` names 2"),
        (Gymnasium(id=Echo), "registered without a reward threshold; set `won`"),
        (Gymnasium(id=Echo, settings={"takes": "box"}, won=1), "set `act` to your own function"),
        (Gymnasium(id=Echo, settings={"shows": 0.5}, won=1), "shows float, which is no text"),
        (Gymnasium(id=Echo, settings={"shows": 3}, won=1), "shows int, which is no text"),
        (
            Gymnasium(id=Echo, settings={"render_mode": "ansi"}, won=1),
            "unexpected keyword argument 'render_mode'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_played_is_explained(suite: Gymnasium, part: str) -> None:
    with pytest.raises((EnvError, TypeError)) as error:
        suite.make().reset(Task(id="x"))
    assert part in str(error.value)


@needs("gymnasium")
def test_what_is_drawn() -> None:
    class Draws(Echo):
        def __init__(self, render_mode: str) -> None:
            super().__init__()
            self.drawn: Any = "\n\x1b[41mS\x1b[0mFF\n" if render_mode == "ansi" else 5

        def render(self) -> Any:
            return self.drawn

    seen = Gymnasium(id=Draws, words="render", won=1).make().reset(Task(id="x"))
    assert seen.text == "[S]FF"
    other = Gymnasium(id=Draws, words="render", won=1, settings={"render_mode": "rgb_array"})
    with pytest.raises(EnvError, match="Draws renders int, not text; set `words`"):
        other.make().reset(Task(id="x"))
    own = Gymnasium(id=Echo, words=lambda seen, env: f"<{seen} {env.seed}>", won=1)
    assert own.make().reset(Task(id="x", seed=2)).text == "<ready 2>"


# -- GEM


@needs("gem")
def test_gem_environments_keep_their_dice_to_themselves() -> None:
    numpy = imported("numpy.random", "")
    suite = Gem(id="game:Game2048-v0-easy")
    task = suite.tasks("train")[0]
    moves = [rf"\boxed{{{way}}}" for way in ("up", "left", "down", "right", "up", "left", "down")]
    alone = suite.make()
    texts = [alone.reset(task), *map(alone.step, moves)]
    assert len({seen.text for seen in texts}) > 4
    random.seed(5)
    numpy.seed(5)
    before = random.getstate(), numpy.get_state()[1].tolist()
    one, two = suite.make(), suite.make()
    beside = [one.reset(task)]
    two.reset(suite.tasks("train")[1])
    for move in moves:
        beside.append(one.step(move))
        two.step(move)
        random.random()
    assert beside == texts
    random.setstate(before[0])
    one.reset(task)
    assert random.getstate() == before[0]
    assert numpy.get_state()[1].tolist() == before[1]


@needs("gem")
def test_gem_leaves_logging_alone() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "gem"]:
        sys.modules.pop(name)
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    Gem(id="game:GuessTheNumber-v0-easy").make()
    assert (root.level, root.handlers) == (level, handlers)


@needs("gem")
@pytest.mark.parametrize("game", ["Mastermind", "Minesweeper", "FifteenPuzzle", "Sudoku"])
def test_gem_environments_keep_the_contract(game: str) -> None:
    assert problems(Gem(id=f"game:{game}-v0-easy")) == []


@needs("gem")
def test_gem_says_what_is_wrong() -> None:
    with pytest.raises(EnvError, match=r"GEM has no environment 'game:Sudoko-v0-easy'; did you"):
        Gem(id="game:Sudoko-v0-easy").make()
    suite = Gem(id="game:Sudoku-v0-easy", won="solved")
    env = suite.make()
    env.reset(suite.tasks("train")[0])
    with pytest.raises(EnvError, match="`info` has no 'solved'"):
        env.step("nothing")


# -- OpenEnv: the sessions of a server are in tests/repo/test_your_own.py


@needs("openenv")
def test_a_server_that_is_not_there() -> None:
    suite = OpenEnv(url="http://127.0.0.1:9", action="words", text="told")
    env = suite.make()
    with pytest.raises(EnvError, match=r"no OpenEnv server answers at http://127.0.0.1:9 .*start"):
        env.reset(suite.tasks("train")[0])
    env.close()


# -- verifiers


@needs("verifiers")
@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("", "defines no `__all__`"),
        ("__all__ = []", "exports no Taskset subclass"),
        ("class Some(vf.Task):\n    NEEDS_CONTAINER = True\nTASK = Some", "need a container"),
        (
            "class Some(vf.Task):\n    @classmethod\n    def toolsets(cls, config):\n"
            "        return [1]\nTASK = Some",
            "it has tool servers",
        ),
        (
            "class Some(vf.Task):\n    @vf.reward\n    async def r(self, runtime) -> float:\n"
            "        return 1.0\nTASK = Some",
            "judged inside a container",
        ),
        (
            "class Two(vf.EnvConfig):\n    a: vf.AgentConfig = vf.AgentConfig()\n"
            "    b: vf.AgentConfig = vf.AgentConfig()\nclass Pair(vf.Env[Two]):\n"
            "    async def run(self, task, agents): ...\nTASK = vf.Task\n__all__ = ['Set', 'Pair']",
            "it has the agents a, b",
        ),
    ],
)
def test_tasksets_that_cannot_be_played(
    body: str, part: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "refused" + re.sub(r"\W", "", part)[:12].lower()
    taskset = (
        "class Set(vf.Taskset[TASK, vf.TasksetConfig]):\n    def load(self):\n"
        "        return [TASK(vf.TaskData(idx=0, prompt='x'))]\n"
    )
    text = f"import verifiers.v1 as vf\n{body}\n"
    if "TASK" in body:
        text += taskset + ("" if "__all__" in body else "__all__ = ['Set']\n")
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvError) as error:
        Verifiers(taskset=name).make()
    assert part in str(error.value)
    assert "\n" not in str(error.value)


@needs("verifiers")
def test_stops_and_prompts_of_verifiers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stopping.py").write_text(
        "import verifiers.v1 as vf\n"
        "class Some(vf.Task):\n"
        "    @vf.stop\n"
        "    async def enough(self, trace: vf.Trace) -> bool:\n"
        "        return trace.num_turns >= 2\n"
        "    @vf.reward(weight=0.5)\n"
        "    async def short(self, trace: vf.Trace) -> float:\n"
        "        return float(len(trace.last_reply) < 3)\n"
        "    @vf.metric\n"
        "    async def seen(self, trace: vf.Trace) -> float:\n"
        "        return float(len(trace.messages) == 5)\n"
        "class Set(vf.Taskset[Some, vf.TasksetConfig]):\n"
        "    def load(self):\n"
        "        for k in range(5):\n"
        "            data = vf.TaskData(idx=k, prompt=f'task {k}', system_prompt='Be short.')\n"
        "            yield Some(data, self.config.task)\n"
        "class Chat(vf.SingleAgentEnv):\n"
        "    async def run(self, task, agents):\n"
        "        async with agents.agent.interaction(task) as talk:\n"
        "            segment = await talk.turn()\n"
        "            while not segment.terminated:\n"
        "                segment = await talk.turn('more?')\n"
        "__all__ = ['Set', 'Chat']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    suite = Verifiers(taskset="stopping", test=2, dev=1, won=0.5)
    assert [task.id for task in suite.tasks("test")] == [f"stopping/test/{k:07d}" for k in (0, 1)]
    assert [task.seed for task in suite.tasks("dev")] == [2]
    assert [task.seed for task in suite.tasks("train")] == [3, 4]
    env = suite.make()
    for last, reward in (("ok", 0.5), ("too long", 0.0)):
        assert env.reset(suite.tasks("train")[1]).text == "Be short.\n\ntask 4"
        assert env.step("first").text == "more?"
        seen = env.step(last)
        assert seen == Observation(
            text="The end.", reward=reward, done=True, won=reward == 0.5, score=reward
        )
        with pytest.raises(EnvError, match="no episode is under way"):
            env.step("again")
    metric = Verifiers(taskset="stopping", test=2, dev=1, won="seen").make()
    metric.reset(suite.tasks("test")[0])
    metric.step("a")
    assert metric.step("far too long").won is True
    # an episode that is given up is not judged, and leaves nothing behind
    env.reset(suite.tasks("train")[0])
    env.step("a")
    env.close()
    assert problems(suite, ("train", "test")) == []
