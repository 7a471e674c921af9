"""Generate household games: `generate(split, seed, size)` always gives the same scene.

A split is a promise. "train" and "seen" draw from one distribution with different seeds. "unseen"
has what they never have: its layouts (how many of each kind of furniture a room has) and its pairs
(kind of thing, kind of receptacle or lamp) to ask for. A layout or pair is unseen if the first byte
of the BLAKE2b digest of its name is below 64, which a quarter of them are.

Only `random.Random(str).random()` is used, which Python promises never to change.
"""

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from random import Random
from typing import Final, Literal, TypeVar

from tutelage_worlds.household.scene import Family, Goal, Receptacle, Scene, Thing
from tutelage_worlds.household.tables import (
    ACCEPTS,
    FULL,
    LAMP,
    LIMITS,
    OPENABLE,
    SMALL,
    THINGS,
)

Split = Literal["train", "seen", "unseen"]
Size = Literal["small", "full"]

SPLITS: Final = ("train", "seen", "unseen")
FAMILIES: Final = tuple(Family)
SIZES: Final = {"full": FULL, "small": SMALL}
COPIES: Final = 3  # most things of one kind

_ROOMS = {
    Family.PICK: "KLBW",
    Family.LIGHT: "LB",
    Family.CLEAN: "KW",
    Family.HEAT: "K",
    Family.COOL: "K",
    Family.TWO: "KLBW",
}
_TRAIT = {Family.CLEAN: "cleanable", Family.HEAT: "heatable", Family.COOL: "coolable"}
_STATION = {Family.CLEAN: "SinkBasin", Family.HEAT: "Microwave", Family.COOL: "Fridge"}
_SENTENCES = {
    Family.PICK: ("put a {o} in {r}", "put some {o} on {r}"),
    Family.LIGHT: ("look at {o} under the {t}", "examine the {o} with the {t}"),
    Family.CLEAN: ("put a clean {o} in {r}", "clean some {o} and put it in {r}"),
    Family.HEAT: ("put a hot {o} in {r}", "heat some {o} and put it in {r}"),
    Family.COOL: ("put a cool {o} in {r}", "cool some {o} and put it in {r}"),
    Family.TWO: ("put two {o} in {r}", "find two {o} and put them in {r}"),
}

T = TypeVar("T")


def generate(split: str, seed: int, size: str = "full") -> Scene:
    """The scene number `seed` of a split.

    Its family is the seed's remainder by six, so any run of seeds is balanced.
    Raises ValueError for a split, size or seed that does not exist.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
    if size not in SIZES:
        raise ValueError(f"There is no size {size!r}; the sizes are {', '.join(SIZES)}.")
    if seed < 0:
        raise ValueError(f"A seed counts from 0, so {seed} names no game.")
    rng = Random(f"household {size} {split} {seed}")
    family = FAMILIES[seed % len(FAMILIES)]
    unseen = split == "unseen"
    room, thing, target = _pick(rng, _goals(family, size, unseen))
    goal = _goal(family, thing, target)
    source = _source(rng, room, goal, size)
    layout = _layout(rng, room, size, unseen, _required(rng, room, size, goal, source))
    things = _things(rng, room, goal, layout, size)
    receptacles, start = _furnish(rng, layout, size)
    objects = _place(rng, goal, things, receptacles)
    sentence = _pick(rng, _SENTENCES[family]).format(
        o=thing.lower(), r=goal.receptacle.lower(), t=goal.toggle.lower()
    )
    accepts = frozenset(
        (where, name) for where in layout for name in things if (where, name) in ACCEPTS
    )
    return Scene(
        receptacles=receptacles,
        things=objects,
        accepts=accepts,
        start=start,
        goal=goal,
        task=sentence,
    )


def is_unseen(name: str) -> bool:
    """Whether what is so called, a layout or a pair, is kept for the split "unseen"."""
    return blake2b(name.encode(), digest_size=8).digest()[0] < 64


def pair_name(thing: str, target: str) -> str:
    """What a goal is called for `is_unseen`."""
    return f"{thing} > {target}"


def layout_name(room: str, layout: dict[str, int]) -> str:
    """What a layout is called for `is_unseen`."""
    return room + " " + " ".join(f"{kind} {count}" for kind, count in sorted(layout.items()))


def _pick(rng: Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def _between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def _likely(rng: Random, options: Sequence[T]) -> T:
    """One of the options, the first with weight 1, the second 1/2, the third 1/3, ..."""
    return _weighted(rng, options, [1 / (rank + 1) for rank in range(len(options))])


def _weighted(rng: Random, options: Sequence[T], weights: Sequence[float]) -> T:
    total = 0.0
    for weight in weights:  # sum() of floats is not the same in every version of Python
        total += weight
    point = rng.random() * total
    for option, weight in zip(options, weights, strict=True):
        point -= weight
        if point < 0:
            return option
    return options[-1]


@cache
def _goals(family: Family, size: str, unseen: bool) -> tuple[tuple[str, str, str], ...]:
    """All (room, thing, receptacle or lamp) to ask for: those with somewhere else to start."""
    found: list[tuple[str, str, str]] = []
    for room in _ROOMS[family]:
        kinds = SIZES[size][room]
        for name, kind in THINGS.items():
            if room not in kind.rooms or "pickupable" not in kind.traits:
                continue
            if family in _TRAIT and _TRAIT[family] not in kind.traits:
                continue
            spots = [spot for spot in (*kind.found, *kind.fits) if spot in kinds]
            targets = [LAMP] if family is Family.LIGHT else spots
            found.extend(
                (room, name, target)
                for target in targets
                if target != _STATION.get(family)
                and is_unseen(pair_name(name, target)) == unseen
                and any(spot != target for spot in spots)
            )
    return tuple(found)


def _goal(family: Family, thing: str, target: str) -> Goal:
    if family is Family.LIGHT:
        return Goal(family=family, thing=thing, toggle=target)
    return Goal(family=family, thing=thing, receptacle=target)


def _spots(name: str, kinds: dict[str, int] | dict[str, tuple[int, int]], goal: Goal) -> list[str]:
    """Kinds of furniture where a thing may lie at the start: never where the goal wants it."""
    kind = THINGS[name]
    barred = goal.receptacle if name == goal.thing else ""
    return [spot for spot in (*kind.found, *kind.fits) if spot in kinds and spot != barred]


def _source(rng: Random, room: str, goal: Goal, size: str) -> str:
    return _likely(rng, _spots(goal.thing, SIZES[size][room], goal))


def _required(rng: Random, room: str, size: str, goal: Goal, source: str) -> set[str]:
    required = {source, goal.receptacle or source}
    if goal.toggle:
        required.add(_likely(rng, _spots(LAMP, SIZES[size][room], goal)))
    return required


def _layout(rng: Random, room: str, size: str, unseen: bool, required: set[str]) -> dict[str, int]:
    low, high, _, _ = LIMITS[size]
    ranges = {
        kind: (max(least, 1), most) if kind in required else (least, most)
        for kind, (least, most) in SIZES[size][room].items()
    }
    while True:
        drawn = {kind: _between(rng, least, most) for kind, (least, most) in ranges.items()}
        layout = {kind: count for kind, count in drawn.items() if count}
        fits = low <= sum(layout.values()) <= high
        if fits and is_unseen(layout_name(room, layout)) == unseen:
            return layout


def _things(
    rng: Random, room: str, goal: Goal, layout: dict[str, int], size: str
) -> dict[str, int]:
    """How many of each kind of thing: what the goal needs, then others at random."""
    _, _, low, high = LIMITS[size]
    count = _between(rng, low, high)
    needed = 2 if goal.family is Family.TWO else 1
    things = {goal.thing: _likely(rng, range(needed, COPIES + 1))}
    if goal.toggle:
        things[LAMP] = 1
    choices = [name for name in _natives(room) if name not in things and _spots(name, layout, goal)]
    most = COPIES if size == "full" else 2
    while choices and count > (total := sum(things.values())):
        name = choices.pop(int(rng.random() * len(choices)))
        copies = 1 if name == LAMP else min(_likely(rng, range(1, most + 1)), count - total)
        things[name] = copies
    while sum(things.values()) < low:
        name = _pick(rng, [name for name, many in things.items() if many < COPIES and name != LAMP])
        things[name] += 1
    return things


@cache
def _natives(room: str) -> tuple[str, ...]:
    return tuple(name for name, kind in THINGS.items() if room in kind.rooms)


@cache
def _mangle(number: int) -> str:
    """Hundredths in the writing of ids: -105 is "_minus_01_dot_05"."""
    sign = "minus" if number < 0 else "plus"
    units, cents = divmod(abs(number), 100)
    return f"_{sign}_{units:02d}_dot_{cents:02d}"


def _id(rng: Random, kind: str, used: set[str]) -> str:
    """An id like those of ALFWorld: the kind and three coordinates, in metres."""
    name, basin = kind, ""
    if kind.endswith("Basin"):
        name, basin = kind.removesuffix("Basin"), f"_bar_{kind}"
    while True:
        x = _mangle(int(rng.random() * 800) - 400)
        y = _mangle(int(rng.random() * 200))
        z = _mangle(int(rng.random() * 800) - 400)
        id = f"{name}_bar_{x}_bar_{y}_bar_{z}{basin}"
        if id not in used:
            used.add(id)
            return id


def _furnish(rng: Random, layout: dict[str, int], size: str) -> tuple[tuple[Receptacle, ...], str]:
    """The furniture, most of it at locations of its own, and where the agent starts."""
    used: set[str] = set()
    spots: list[str] = []
    total = sum(layout.values())
    while len(spots) <= total:
        numbers = [int(rng.random() * 25) - 12, int(rng.random() * 25) - 12, int(rng.random() * 4)]
        x, y, way = (f"_minus_{-n}" if n < 0 else str(n) for n in numbers)
        spot = f"loc_bar_{x}_bar_{y}_bar_{way}_bar_30"
        if spot not in used:
            used.add(spot)
            spots.append(spot)
    shares = 0.15 if size == "full" else 0.03
    receptacles: list[Receptacle] = []
    for kind, count in layout.items():
        for _ in range(count):
            place = spots[len(receptacles)]
            if receptacles and rng.random() < shares:
                place = receptacles[-1].location
            receptacles.append(
                Receptacle(
                    id=_id(rng, kind, used), kind=kind, location=place, openable=kind in OPENABLE
                )
            )
    return tuple(sorted(receptacles, key=lambda r: r.id.lower())), spots[-1]


def _place(
    rng: Random, goal: Goal, things: dict[str, int], receptacles: tuple[Receptacle, ...]
) -> tuple[Thing, ...]:
    by_kind: dict[str, list[Receptacle]] = {}
    for receptacle in receptacles:
        by_kind.setdefault(receptacle.kind, []).append(receptacle)
    counts = {kind: len(pieces) for kind, pieces in by_kind.items()}
    used: set[str] = set()
    placed: list[Thing] = []
    for name, count in things.items():
        spots = _spots(name, counts, goal)
        weights = [counts[spot] / (rank + 1) for rank, spot in enumerate(spots)]
        for _ in range(count):
            where = _pick(rng, by_kind[_weighted(rng, spots, weights)])
            placed.append(
                Thing(
                    id=_id(rng, name, used),
                    kind=name,
                    inside=(where.id,),
                    at=(where.location,),
                    traits=THINGS[name].traits,
                )
            )
    return tuple(sorted(placed, key=lambda t: t.id.lower()))
