"""Experts of ScienceWorld: the simulator's gold path, and one that looks before it names things."""

import re
from collections.abc import Sequence
from typing import Final

from tutelage_worlds.scienceworld.simulator import Shown, Simulator

LOOK: Final = "look around"
_TWICE: Final = re.compile(r"\b(\w+) \1\b")
_DOOR: Final = re.compile(r"open door to (.*)")


def plan(simulator: Simulator, task: str, variation: int, simplifications: str) -> tuple[str, ...]:
    """The simulator's way, which knows where everything is, up to the task's end."""
    gold = simulator.gold(task, variation, simplifications)
    done, won = _played(simulator, (task, variation, simplifications), gold, tidy=False)
    return tuple(done) if won else tuple(gold)


def demonstrate(
    simulator: Simulator, task: str, variation: int, simplifications: str
) -> tuple[str, ...]:
    """The simulator's way with a look around in every room that is entered, which takes no time,
    and without doors that stand open already; or with them, where the task hangs on the clock."""
    gold = simulator.gold(task, variation, simplifications)
    for tidy in (True, False):
        looked, won = _played(
            simulator, (task, variation, simplifications), gold, tidy=tidy, look=True
        )
        if won:
            return tuple(looked)
    return plan(simulator, task, variation, simplifications)


def _played(
    simulator: Simulator,
    which: tuple[str, int, str],
    gold: Sequence[str],
    *,
    tidy: bool,
    look: bool = False,
) -> tuple[list[str], bool]:
    """What was done until the end of the task, and whether that was a success."""
    game, _, shown = simulator.begin(*which)
    actions: list[str] = []
    for k, action in enumerate(gold):
        if shown.done:
            break
        if tidy and _open(action, shown):
            continue
        action = _TWICE.sub(r"\1", action) if tidy else action
        actions.append(action)
        shown = simulator.act(game, action)
        follows = gold[k + 1] if k + 1 < len(gold) else ""
        if look and action.startswith("go to ") and not shown.done and follows != LOOK:
            actions.append(LOOK)
            shown = simulator.act(game, LOOK)
    game.end()
    return actions, shown.done and shown.score == 1.0


def _open(action: str, shown: Shown) -> bool:
    """Whether an action opens a door that is open."""
    door = _DOOR.fullmatch(action)
    return door is not None and f"door to the {door[1]} (that is open)" in shown.look
