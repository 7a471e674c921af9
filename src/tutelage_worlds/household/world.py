"""Precomputed data of a game that no action changes, as integer indices."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from tutelage_worlds.household.scene import Family, Goal, Scene
from tutelage_worlds.household.wording import Wording

CLEAN, HOT, COOL, SLICED, TOGGLED = 1, 2, 4, 8, 16
FLAGS = {"isclean": CLEAN, "ishot": HOT, "iscool": COOL, "issliced": SLICED, "istoggled": TOGGLED}
KNIVES = frozenset({"knife", "butterknife"})

K = TypeVar("K")
V = TypeVar("V")
Action = tuple[str, int, int]  # the rule's name and what it is about: a thing, a receptacle, or -1


def names(ids: Iterable[str]) -> dict[str, str]:
    """The names shown for mangled ids, which must be in lower case: "apple 2".

    The part before the first `_bar_` is the name, with "basin" added if the id has it anywhere; of
    the ids with one name, the first in alphabetical order has the highest number. An id without
    `_bar_` gets no number but, as in ALFWorld, a blank at its end.
    """
    shown: dict[str, str] = {}
    ordered = sorted(set(ids))
    bases = {}
    for id in ordered:
        base, bar, _ = id.partition("_bar_")
        if bar:
            bases[id] = base + "basin" if "basin" in id else base
    left = Counter(bases.values())
    for id in ordered:
        if id in bases:
            base = bases[id]
            shown[id] = f"{_unmangle(base)} {left[base]}"
            left[base] -= 1
        else:
            shown[id] = f"{_unmangle(id)} "
    return shown


def _unmangle(text: str) -> str:
    if "_" not in text:
        return text
    for word, sign in (("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ",")):
        text = text.replace(word, sign)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Receptacles, things and places (locations) are numbered in the alphabetical order of their
    ids; every listing that a player sees is in that order."""

    wording: Wording
    task: str
    receptacles: list[str]  # names
    things: list[str]
    places: list[str]
    receptacle_kinds: list[str]
    thing_kinds: list[str]
    place_of: list[int]  # receptacle -> place, -1 for nowhere
    here: list[list[int]]  # place -> receptacles
    openable: list[bool]
    opened: int  # bit r: receptacle r is open at the start
    inside: list[tuple[int, ...]]  # thing -> receptacles at the start
    at: list[tuple[int, ...]]  # thing -> places at the start
    flags: list[int]
    holds: list[tuple[int, ...]]
    vessels: frozenset[int]
    pickupable: frozenset[int]
    cleanable: frozenset[int]
    heatable: frozenset[int]
    coolable: frozenset[int]
    sliceable: list[int]
    lamps: frozenset[int]
    knives: frozenset[int]
    sinks: frozenset[int]
    microwaves: frozenset[int]
    fridges: frozenset[int]
    accepts: list[frozenset[str]]  # receptacle -> kinds of thing
    start: int
    going: list[tuple[str, Action]]  # receptacle -> its command
    examining: list[tuple[str, Action]]
    always: dict[str, Action]
    base: list[dict[str, Action] | None]  # place -> `commands_at`, once it was asked for
    cache: dict[Action, str] = field(default_factory=dict)  # the words of a command


def build(scene: Scene) -> World:
    """The world of a scene."""
    receptacles = sorted(scene.receptacles, key=lambda r: r.id.lower())
    things = sorted(scene.things, key=lambda t: t.id.lower())
    places = {place.lower() for t in things for place in t.at}
    places |= {place.lower() for place in (scene.start, *scene.places)}
    places |= {*(r.location.lower() for r in receptacles if r.location)}
    r_index = {r.id.lower(): i for i, r in enumerate(receptacles)}
    t_index = {t.id.lower(): i for i, t in enumerate(things)}
    p_index = {place: i for i, place in enumerate(sorted(places))}
    shown = names([*r_index, *t_index, *p_index])
    words, r_names = scene.wording, [shown[id] for id in r_index]
    place_of = [p_index[r.location.lower()] if r.location else -1 for r in receptacles]
    r_kinds = [r.kind.lower() for r in receptacles]
    t_kinds = [t.kind.lower() for t in things]
    having = _groups((trait, i) for i, t in enumerate(things) for trait in t.traits)
    of_kind = _groups((kind, i) for i, kind in enumerate(r_kinds))
    accepted = _groups((r_kind.lower(), kind.lower()) for r_kind, kind in scene.accepts)
    standing = _groups((place, r) for r, place in enumerate(place_of))
    return World(
        wording=words,
        task=scene.task,
        receptacles=r_names,
        things=[shown[id] for id in t_index],
        places=[shown[place] for place in p_index],
        receptacle_kinds=r_kinds,
        thing_kinds=t_kinds,
        place_of=place_of,
        here=[sorted(standing[place]) for place in range(len(places))],
        openable=[r.openable for r in receptacles],
        opened=sum(1 << i for i, r in enumerate(receptacles) if r.open),
        inside=[tuple(sorted([r_index[r.lower()] for r in t.inside])) for t in things],
        at=[tuple(sorted([p_index[place.lower()] for place in t.at])) for t in things],
        flags=[sum([FLAGS.get(trait, 0) for trait in t.traits]) for t in things],
        # A thing that is said to hold itself is not seen in itself: no two variables of TextWorld's
        # are ever the same thing.
        holds=[
            tuple(sorted(t_index[i.lower()] for i in t.holds if i.lower() != t.id.lower()))
            for t in things
        ],
        vessels=having["isreceptacleobject"],
        pickupable=having["pickupable"],
        cleanable=having["cleanable"],
        heatable=having["heatable"],
        coolable=having["coolable"],
        sliceable=sorted(having["sliceable"]),
        lamps=having["toggleable"],
        knives=frozenset(i for i, kind in enumerate(t_kinds) if kind in KNIVES),
        sinks=frozenset(i for kind in scene.sinks for i in of_kind[kind.lower()]),
        microwaves=of_kind["microwave"],
        fridges=of_kind["fridge"],
        accepts=[accepted[kind] for kind in r_kinds],
        start=p_index[scene.start.lower()],
        going=_actions("go", words.go, r_names),
        examining=_actions("examine_receptacle", words.examine_receptacle, r_names),
        always=_always(words),
        base=[None] * len(places),
    )


def _groups(pairs: Iterable[tuple[K, V]]) -> defaultdict[K, frozenset[V]]:
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return defaultdict(frozenset, {key: frozenset(group) for key, group in groups.items()})


def _actions(rule: str, template: str, receptacles: list[str]) -> list[tuple[str, Action]]:
    return [(template.format(r=name), (rule, -1, r)) for r, name in enumerate(receptacles)]


def _always(words: Wording) -> dict[str, Action]:
    commands = {"inventory": words.inventory, "look": words.look, "help": words.help}
    return {command: (rule, -1, -1) for rule, command in commands.items() if command}


def commands_at(world: World, place: int) -> dict[str, Action]:
    """The commands that depend on the place alone: look, inventory, help, go, examine."""
    known = world.base[place]
    if known is None:
        known = dict(world.always)
        for r, where in enumerate(world.place_of):
            if where == place:
                known[world.examining[r][0]] = world.examining[r][1]
            elif where >= 0:
                known[world.going[r][0]] = world.going[r][1]
        world.base[place] = known
    return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A goal in numbers: one of `things`, or two, with the flags `needed` in one of `receptacles`;
    or, where there are `lamps`, in the hand at one of them that is on."""

    things: tuple[int, ...]
    needed: int
    receptacles: frozenset[int]
    two: bool
    lamps: tuple[int, ...] | None


def aim_at(goal: Goal, world: World) -> Aim:
    """What a goal means in a world: only things count that can be what it asks for."""
    needed, able = {
        Family.CLEAN: (CLEAN, world.cleanable),
        Family.HEAT: (HOT, world.heatable),
        Family.COOL: (COOL, world.coolable),
    }.get(goal.family, (0, frozenset(range(len(world.things)))))
    if goal.sliced:
        needed, able = needed | SLICED, able & frozenset(world.sliceable)
    kind, where, lamp = goal.thing.lower(), goal.receptacle.lower(), goal.toggle.lower()
    lamps = tuple(t for t in sorted(world.lamps) if world.thing_kinds[t] == lamp)
    return Aim(
        things=tuple(t for t, k in enumerate(world.thing_kinds) if k == kind and t in able),
        needed=needed,
        receptacles=frozenset(r for r, k in enumerate(world.receptacle_kinds) if k == where),
        two=goal.family is Family.TWO,
        lamps=lamps if goal.family is Family.LIGHT else None,
    )
