"""Play the same actions in both engines and compare every text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from parity import walks
from parity.reference import ReferenceGame, Shown
from tutelage_worlds.household import Game, Scene, explore, read
from tutelage_worlds.household.expert import UnsolvableError


class NativeGame:
    """Our engine behind the same three methods as `ReferenceGame`."""

    def __init__(self, path: str | Path) -> None:
        self.scene: Scene = read(path)
        self._game = Game(self.scene)

    def reset(self) -> Shown:
        self._game = Game(self.scene)
        return self._shown(self._game.intro(), moved=False)

    def step(self, command: str) -> Shown:
        return self._shown(self._game.step(command), moved=True)

    def _shown(self, text: str, moved: bool) -> Shown:
        won = self._game.won
        return Shown(text, tuple(self._game.admissible()), won, int(won and moved), won and moved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The first difference of a walk. `actions` lead there, the last one made it visible."""

    path: str
    source: str
    actions: tuple[str, ...]
    theirs: Shown
    ours: Shown

    def __str__(self) -> str:
        last = self.actions[-1][:200] if self.actions else "reset"
        lines = [
            f"{self.path}: {self.source}, after {len(self.actions)} actions, the last {last!r}"
        ]
        for name in ("text", "won", "reward", "done"):
            reference, ours = getattr(self.theirs, name), getattr(self.ours, name)
            if reference != ours:
                lines.append(f"  {name}: TextWorld {reference!r}\n  {name}: ours      {ours!r}")
        reference, ours = self.theirs.admissible, self.ours.admissible
        if set(reference) != set(ours):
            lines.append(f"  only TextWorld admits {sorted(set(reference) - set(ours))}")
            lines.append(f"  only we admit         {sorted(set(ours) - set(reference))}")
        elif reference != ours:
            lines.append(f"  order: TextWorld {reference}\n  order: ours      {ours}")
        lines.append(f"  actions: {[action[:200] for action in self.actions]}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One source's walk through one game. `wins` counts the steps that ended in a won state,
    `valid` those whose command was admissible.
    """

    source: str
    steps: int
    valid: int
    wins: int
    mismatch: Mismatch | None


def moves(scene: Scene, seed: int) -> list[str]:
    """What our expert does. It knows no slicing: where the goal wants a slice, it first acts
    without, then cuts, and acts again. Where a scene is beyond it, it only looks.
    """
    goal = scene.goal
    try:
        found = explore(replace(scene, goal=replace(goal, sliced=False)), seed)
    except UnsolvableError:
        found = ["look"]
    return [*found, *_slicing(scene), *found] if goal.sliced else found


def _slicing(scene: Scene) -> list[str]:
    """Fetch a knife, cut every thing of the wanted kind, put the knife down where it was."""
    game = Game(scene)
    done: list[str] = []

    def do(*words: str) -> None:
        """The first admissible command that has all the words, if there is one."""
        fitting = (command for command in game.admissible() if all(w in command for w in words))
        if command := next(fitting, None):
            game.step(command)
            done.append(command)

    places = [command for command in game.admissible() if command.startswith("go to ")]
    for place in places:
        if game.held is None:
            do(place)
            do("open ")
            do("take ", "knife ")
    home = done[-3:]
    for place in places:
        do(place)
        for _ in range(3):
            do("slice ", f" {scene.goal.thing.lower()} ")
    do(*[command for command in home if command.startswith("go to ")])
    do("knife ", " to ")
    do("knife ", " in/on ")
    return done


def sources_for(number: int, steps: int) -> list[tuple[str, int]]:
    """The walks of game `number`: the expert, and two of the other sources for at least `steps`
    steps together.
    """
    others = [name for name in walks.NAMES if name != "expert"]
    half = -(-steps // 2)
    return [("expert", 250), *((others[(number + k) % len(others)], half) for k in (0, 1))]


def play(path: Path, sources: Sequence[tuple[str, int]], seed: int) -> list[Walk]:
    """Play the game of a file once for each (source, longest walk), resetting both engines in
    between, until a difference shows. Ends with a last reset.
    """
    ours = NativeGame(path)
    reference = ReferenceGame(path)
    try:
        known = moves(ours.scene, seed)
        played = []
        for name, steps in sources:
            walk = _walk(path, reference, ours, name, walks.source(name, known, seed, steps))
            played.append(walk)
            if walk.mismatch is not None:
                break
        else:
            last = _differ(path, "reset", (), reference.reset(), ours.reset())
            if last is not None:
                played.append(Walk(source="reset", steps=0, valid=0, wins=0, mismatch=last))
        return played
    finally:
        reference.close()


def _walk(
    path: Path, theirs: ReferenceGame, ours: NativeGame, name: str, source: walks.Source
) -> Walk:
    their, our = theirs.reset(), ours.reset()
    actions: list[str] = []
    valid = wins = 0
    while (found := _differ(path, name, actions, their, our)) is None:
        try:
            action = source.send(their.admissible)
        except StopIteration:
            break
        if action is None:
            break
        actions.append(action)
        valid += action.strip() in their.admissible
        their, our = theirs.step(action), ours.step(action)
        wins += their.won
    return Walk(source=name, steps=len(actions), valid=valid, wins=wins, mismatch=found)


def _differ(
    path: Path, source: str, actions: Sequence[str], theirs: Shown, ours: Shown
) -> Mismatch | None:
    if theirs == ours:
        return None
    return Mismatch(path=str(path), source=source, actions=tuple(actions), theirs=theirs, ours=ours)


def shrink(path: Path, actions: Sequence[str]) -> tuple[str, ...]:
    """A short list of actions, out of the given ones, that still makes the engines differ at its
    end.
    """
    reference, ours = ReferenceGame(path), NativeGame(path)

    def differs(tried: Sequence[str]) -> int | None:
        if reference.reset() != ours.reset():
            return 0
        for count, action in enumerate(tried, 1):
            if reference.step(action) != ours.step(action):
                return count
        return None

    try:
        return _drop_chunks(list(actions), differs)
    finally:
        reference.close()


def _drop_chunks(
    actions: list[str], differs: Callable[[Sequence[str]], int | None]
) -> tuple[str, ...]:
    chunk = max(1, len(actions) // 2)
    while chunk:
        start = 0
        while start < len(actions):
            tried = actions[:start] + actions[start + chunk :]
            count = differs(tried)
            if count is None:
                start += chunk
            else:
                actions = tried[:count]
        chunk //= 2
    return tuple(actions)
