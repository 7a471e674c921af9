"""Solvers of household games: `explore` uses only observations, `plan` the full state."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import permutations, product
from random import Random
from typing import Literal

from tutelage.envs.base import ScriptKind
from tutelage_worlds.household.engine import Game
from tutelage_worlds.household.scene import Family, Scene
from tutelage_worlds.household.tables import OPENABLE, THINGS
from tutelage_worlds.household.wording import NOTHING

_STATION = {Family.CLEAN: "sinks", Family.HEAT: "microwaves", Family.COOL: "fridges"}
_RULE = {Family.CLEAN: "clean", Family.HEAT: "heat", Family.COOL: "cool"}
_SPOTS = {
    name.lower(): [spot.lower() for spot in (*kind.found, *kind.fits)]
    for name, kind in THINGS.items()
}
_LIDDED = frozenset(kind.lower() for kind in OPENABLE)
_STRANGE = (
    0.01  # how likely, beside 1 for the likeliest, a thing is where common sense does not look
)


class UnsolvableError(ValueError):
    """No way to the goal: what it asks for is not there or cannot be reached."""


Search = Literal["sensible", "methodical"]


def explore(scene: Scene, seed: int | None = None, search: Search = "sensible") -> list[str]:
    """Commands that solve a game, each chosen from what the texts before it said.

    Furniture is searched in the order of the chance to find the thing there, over the commands that
    it takes to look. What is equally good is searched in the order in which the room was
    described, which somebody who imitates can see, or, given a `seed`, in a random one. A
    "methodical" search goes through all furniture in that order, common sense or not: longer, and
    easier to imitate. Raises UnsolvableError.
    """
    return _Explorer(scene, seed, search).solve()


def thoughts(scene: Scene, seed: int | None = None, search: Search = "sensible") -> list[str]:
    """What the explorer is after at each command of `explore`: the thing it needs, with its number
    once one was seen and "?" before, then where it goes.

    "tomato ?", "tomato 2", "cool tomato 2", "tomato 2 to sidetable 1"
    """
    explorer = _Explorer(scene, seed, search)
    explorer.solve()
    return explorer.thoughts


def plan(scene: Scene) -> list[str]:
    """The shortest way, everything known, over all choices of things, furniture and order.

    Raises UnsolvableError.
    """
    return _shortest(scene)[0]


def plan_thoughts(scene: Scene) -> list[str]:
    """What each command of `plan` is after, in the words of `thoughts`: a thing has its number
    once it is in sight, as if it had been looked for."""
    return _shortest(scene)[1]


def stray(
    scene: Scene, seed: int, kind: ScriptKind = "plan", search: Search = "sensible"
) -> list[tuple[str, str, bool]]:
    """`plan`, or what `explore` does, with wrong turns: (command, thought, whether it is meant).
    Before it goes somewhere, none to three other places are gone to, drawn from `seed`."""
    lots = Random(f"stray {seed}")
    walker: _Walker
    if kind == "trace":
        walker = explorer = _Explorer(scene, None, search, lots)
        explorer.solve()
    else:
        *_, choice = _shortest(scene)
        walker = _Walker(Game(scene), lots)
        if choice is not None:
            walker.follow(*choice)
    return list(zip(walker.commands, walker.thoughts, walker.planned, strict=True))


_Choice = tuple[tuple[int, ...], tuple[int, ...], int]


def _shortest(scene: Scene) -> tuple[list[str], list[str], _Choice | None]:
    """Commands, their thoughts, and what they follow."""
    game = Game(scene)
    best: tuple[list[str], list[str], _Choice | None] | None
    best = ([], [], None) if game.won else None
    for choice in _choices(game):
        walker = _Walker(game)
        with suppress(UnsolvableError):
            walker.follow(*choice)
        if game.won and (best is None or len(walker.commands) < len(best[0])):
            best = walker.commands, walker.thoughts, choice
    if best is None:
        raise UnsolvableError(f"No way was found to {scene.task!r}: choose another game.")
    return best


def _choices(game: Game) -> Iterator[_Choice]:
    """(things in the order to fetch them, stations, where to put them or, for LIGHT, the lamp)."""
    goal, world = game.scene.goal, game.world
    if goal.sliced:
        raise UnsolvableError(
            "The experts do not know goals with sliced things: choose another game."
        )
    things = [t for t in game.aim.things if t in world.pickupable and world.inside[t]]
    if goal.family is Family.LIGHT:
        lamps = [t for t in world.lamps if world.thing_kinds[t] == goal.toggle.lower()]
        yield from (
            ((thing,), (), lamp)
            for thing, lamp in product(things, sorted(lamps))
            if world.inside[lamp]
        )
        return
    stations = sorted(getattr(world, _STATION[goal.family])) if goal.family in _STATION else [-1]
    kind = goal.receptacle.lower()
    targets = [
        r for r, k in enumerate(world.receptacle_kinds) if k == kind and world.place_of[r] >= 0
    ]
    for target in targets:
        if goal.family is Family.TWO:
            lying = [t for t in game.aim.things if target in world.inside[t]]
            free = [t for t in things if t not in lying]
            wanted = max(0, 2 - len(lying))
            yield from ((chosen, (), target) for chosen in permutations(free, wanted))
        else:
            for thing, station in product(things, stations):
                yield (thing,), () if station < 0 else (station,), target


class _Walker:
    """Commands one after the other, leaving out those that are not needed; with `lots`, wrong
    turns before going somewhere."""

    def __init__(self, game: Game, lots: Random | None = None) -> None:
        self.game, self.lots = game, lots
        self.planned: list[bool] = []
        self.world = game.world
        self.words = game.world.wording
        self.commands: list[str] = []
        self.thought, self.thoughts = "", list[str]()
        game.reset()

    def do(self, template: str, thing: int = -1, receptacle: int = -1) -> None:
        world = self.world
        command = template.format(
            o=world.things[thing] if thing >= 0 else "",
            r=world.receptacles[receptacle] if receptacle >= 0 else "",
        )
        if self.game.step(command) == NOTHING:
            raise UnsolvableError(
                f"{command!r} is not possible here, so this game cannot be solved this way."
            )
        self.commands.append(command)
        self.thoughts.append(self.thought)
        self.planned.append(True)

    def reach(self, receptacle: int) -> None:
        if self.game.at(receptacle):
            return
        for _ in range(self.lots.choice((0, 0, 1, 1, 2, 3)) if self.lots else 0):
            self.wander(receptacle)
        self.do(self.words.go, receptacle=receptacle)

    def wander(self, goal: int) -> None:
        """Go anywhere but to the goal."""
        assert self.lots is not None
        place = self.world.place_of
        others = [
            r for r, p in enumerate(place) if p >= 0 and p != place[goal] and not self.game.at(r)
        ]
        if others:
            self.do(self.words.go, receptacle=self.lots.choice(others))
            self.planned[-1] = False

    def access(self, receptacle: int) -> None:
        self.reach(receptacle)
        if self.game.contents(receptacle) is None:
            self.do(self.words.open, receptacle=receptacle)

    def take(self, thing: int, receptacle: int) -> None:
        self.access(receptacle)
        self.do(self.words.take, thing, receptacle)

    def put(self, thing: int, receptacle: int) -> None:
        self.access(receptacle)
        self.do(self.words.put, thing, receptacle)

    def treat(self, thing: int, station: int) -> None:
        """Clean, heat or cool: the door may stay closed."""
        self.reach(station)
        self.do(getattr(self.words, _RULE[self.game.scene.goal.family]), thing, station)

    def follow(self, things: tuple[int, ...], stations: tuple[int, ...], target: int) -> None:
        names, kinds = self.world.things, self.world.thing_kinds
        family = self.game.scene.goal.family
        for thing in things:
            where = self.world.inside[thing][0]
            self.thought = f"{kinds[thing]} ?"
            self.access(where)
            self.thought = names[thing]
            self.take(thing, where)
            for station in stations:
                self.thought = f"{_RULE[family]} {names[thing]}"
                self.treat(thing, station)
            if family is Family.LIGHT:
                self.thought = f"{kinds[target]} ?"
                self.reach(self.world.inside[target][0])
                self.thought = names[target]
                self.do(self.words.use, target)
            else:
                self.thought = f"{names[thing]} to {self.world.receptacles[target]}"
                self.put(thing, target)


class _Explorer(_Walker):
    """A walker that knows of a receptacle's contents only what it has been shown: `seen`."""

    def __init__(
        self, scene: Scene, seed: int | None, search: Search, lots: Random | None = None
    ) -> None:
        super().__init__(Game(scene), lots)
        self.order: Search = search
        self.goal = scene.goal
        order = [r for r, place in enumerate(self.world.place_of) if place >= 0]
        if seed is not None:
            rng = Random(f"explore {seed}")
            order.sort(key=lambda _: rng.random())
        self.furniture = order
        self.seen: dict[int, list[int]] = {}

    def solve(self) -> list[str]:
        if self.goal.sliced:
            raise UnsolvableError(
                "The experts do not know goals with sliced things: choose another game."
            )
        if self.game.won:
            return []
        target = -1
        for _ in range(2 if self.goal.family is Family.TWO else 1):
            thing = self.fetch(self.goal.thing, avoid=target)
            if self.goal.family is Family.LIGHT:
                self.light()
                break
            if self.goal.family in _STATION:
                stations: frozenset[int] = getattr(self.world, _STATION[self.goal.family])
                self.thought = f"{_RULE[self.goal.family]} {self.world.things[thing]}"
                self.treat(thing, self.nearest(stations))
            if target < 0:
                target = self.destination()
            self.thought = f"{self.world.things[thing]} to {self.world.receptacles[target]}"
            self.put(thing, target)
            if self.game.won:
                break
        return self.commands

    def note(self, receptacle: int) -> None:
        """Remember what the last answer showed."""
        contents = self.game.contents(receptacle)
        if contents is not None:
            self.seen[receptacle] = list(contents)

    def look_into(self, receptacle: int) -> None:
        if self.game.at(receptacle) and self.game.contents(receptacle) is not None:
            self.do(self.words.examine_receptacle, receptacle=receptacle)
        self.access(receptacle)
        self.note(receptacle)

    def search(self, kind: str, avoid: int) -> tuple[int, int]:
        """A thing of a kind, not in `avoid`, and where it is: looking on until one is seen."""
        name = kind.lower()
        for receptacle in self.likely(name):
            if receptacle not in self.seen and receptacle != avoid:
                known = self.known(name, avoid)
                if known:
                    return known
                self.thought = f"{name} ?"
                self.look_into(receptacle)
        known = self.known(name, avoid)
        if known is None:
            raise UnsolvableError(f"There is no {name} to be found: choose another game.")
        return known

    def known(self, name: str, avoid: int) -> tuple[int, int] | None:
        """The first thing of the name that was seen outside `avoid`, and where."""
        kinds = self.world.thing_kinds
        found = (
            (thing, receptacle)
            for receptacle, things in self.seen.items()
            if receptacle != avoid
            for thing in things
            if kinds[thing] == name
        )
        return next(found, None)

    def fetch(self, kind: str, avoid: int) -> int:
        while True:
            thing, receptacle = self.search(kind, avoid)
            self.thought = self.world.things[thing]
            self.access(receptacle)
            command = self.words.take.format(
                o=self.world.things[thing], r=self.world.receptacles[receptacle]
            )
            if command in self.game.admissible():
                self.take(thing, receptacle)
                self.note(receptacle)
                return thing
            self.seen[receptacle].remove(thing)

    def light(self) -> None:
        lamp, receptacle = self.search(self.goal.toggle, avoid=-1)
        self.thought = self.world.things[lamp]
        self.reach(receptacle)
        self.do(self.words.use, lamp)

    def nearest(self, receptacles: frozenset[int]) -> int:
        """One that is here, else the first of the explorer's own order."""
        able = [r for r in self.furniture if r in receptacles]
        if not able:
            raise UnsolvableError(
                "The furniture that the goal needs is not there: choose another game."
            )
        return min(able, key=lambda r: not self.game.at(r))

    def destination(self) -> int:
        """Where to put things: where one already is, else here, else the first of the kind."""
        kind = self.goal.receptacle.lower()
        able = frozenset(r for r in self.furniture if self.world.receptacle_kinds[r] == kind)
        if self.goal.family is Family.TWO:
            holding = [
                r for r in able if any(t in self.game.aim.things for t in self.seen.get(r, ()))
            ]
            if holding:
                return min(holding)
        return self.nearest(able)

    def likely(self, name: str) -> list[int]:
        """Furniture by the chance to find a thing there over the commands to look, best first."""
        if self.order == "methodical":
            return self.furniture
        kinds = self.world.receptacle_kinds
        present = {kinds[r] for r in self.furniture}
        spots = _SPOTS.get(name, [])
        goal = self.goal.receptacle.lower() if name == self.goal.thing.lower() else ""
        likely = [s for s in spots if s in present and s != goal]
        chance = {spot: 1 / (rank + 1) for rank, spot in enumerate(likely)}

        def worth(receptacle: int) -> float:
            kind = kinds[receptacle]
            cost = 2 if kind in _LIDDED else 1
            return chance.get(kind, _STRANGE) / cost

        return sorted(self.furniture, key=worth, reverse=True)
