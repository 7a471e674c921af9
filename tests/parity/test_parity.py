"""Every text, command list, reward and end of the household, against TextWorld playing the same
files.

Needs TextWorld; skipped, with the reason, without it. The environment sets the
size: TUTELAGE_PARITY_GAMES (60), TUTELAGE_PARITY_STEPS (3000, at least so many in all) and
TUTELAGE_PARITY_PUBLISHED, a folder below which official `game.tw-pddl` files lie (none; each is
then played too).
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from parity.reference import cached, missing
from parity.walks import NAMES

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from parity.compare import NativeGame, Walk, moves, play, shrink, sources_for
from parity.games import case, make
from parity.reference import ReferenceGame
from tutelage_worlds.household import Game, Household, read

GAMES = int(os.environ.get("TUTELAGE_PARITY_GAMES", "60"))
STEPS = int(os.environ.get("TUTELAGE_PARITY_STEPS", "3000"))
PUBLISHED = os.environ.get("TUTELAGE_PARITY_PUBLISHED", "")
FILES = sorted(Path(PUBLISHED).rglob("game.tw-pddl")) if PUBLISHED else []


@pytest.fixture(scope="module", autouse=True)
def _fast() -> Iterator[None]:
    with cached():
        yield


@pytest.fixture(scope="module")
def played() -> dict[int, list[Walk]]:
    """The walks of this session by game."""
    return {}


@pytest.mark.parametrize("number", range(GAMES))
def test_both_engines_say_the_same(
    number: int, tmp_path: Path, played: dict[int, list[Walk]]
) -> None:
    path = make(case(number), tmp_path)
    played[number] = play(path, sources_for(number, -(-STEPS // GAMES)), number)
    for walk in played[number]:
        assert walk.mismatch is None, str(walk.mismatch)


def test_the_walks_were_many_and_deep(played: dict[int, list[Walk]]) -> None:
    if len(played) < GAMES:
        pytest.skip(f"only {len(played)} of {GAMES} games were selected")
    steps: Counter[str] = Counter()
    valid: Counter[str] = Counter()
    wins: Counter[str] = Counter()
    for walk in (walk for walks in played.values() for walk in walks):
        steps[walk.source] += walk.steps
        valid[walk.source] += walk.valid
        wins[walk.source] += walk.wins
    assert sum(steps.values()) >= STEPS
    assert set(steps) >= set(NAMES)
    assert wins["expert"] >= GAMES // 4, "most experts should have won their game"
    assert 0 < valid["garbage"] < steps["garbage"], "garbage should be mixed with moves that count"


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_published_files(path: Path) -> None:
    for walk in play(path, sources_for(len(path.parts[-2]), -(-STEPS // GAMES)), 0):
        assert walk.mismatch is None, str(walk.mismatch)


@pytest.mark.parametrize("number", [0, 7, 14, 21])
def test_the_suite_shows_the_same_texts_as_textworld(number: int, tmp_path: Path) -> None:
    folder = tmp_path / "train" / "a" / "b"
    folder.mkdir(parents=True)
    path = make(case(number), folder).rename(folder / "game.tw-pddl")
    suite = Household(games=tmp_path)
    (task,) = suite.tasks("train")
    env, reference = suite.make(), ReferenceGame(path)
    shown, seen = reference.reset(), env.reset(task)
    assert (seen.text, seen.actions, seen.done) == (shown.text, shown.admissible, False)
    for action in ["look", "nonsense", *moves(read(path), 0), "inventory"]:
        valid = action in shown.admissible
        shown, seen = reference.step(action), env.step(action)
        assert (seen.text, seen.actions) == (shown.text, shown.admissible)
        assert (seen.reward, seen.done, seen.won) == (shown.reward, shown.done, shown.won or None)
        assert seen.valid == valid
    env.close()
    reference.close()


def test_a_difference_is_found_and_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: an engine that forgets one rule has to be caught."""
    path = make(case(1), tmp_path)
    honest = Game.step
    monkeypatch.setattr(
        Game,
        "step",
        lambda self, command: honest(self, command).replace("You open", "You pull open"),
    )
    walk = next(walk for walk in play(path, [("random", 200)], 3) if walk.mismatch)
    assert walk.mismatch is not None
    assert "You pull open" in walk.mismatch.ours.text
    short = shrink(path, walk.mismatch.actions)
    assert len(short) == 2
    assert short[0].startswith("go to ")
    assert short[1].startswith("open ")


def test_resets_forget_everything(tmp_path: Path) -> None:
    path = make(case(9), tmp_path)
    ours, reference = NativeGame(path), ReferenceGame(path)
    first = reference.reset()
    for _ in range(2):
        shown = ours.reset()
        assert shown == first
        for _ in range(8):
            action = shown.admissible[len(shown.admissible) // 2]
            shown = ours.step(action)
            assert shown == reference.step(action)
        assert reference.reset() == first
    reference.close()
