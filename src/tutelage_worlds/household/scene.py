"""The initial state of a household game: the room, the places of things, and the task."""

from dataclasses import dataclass
from enum import StrEnum

from tutelage_worlds.household.wording import DEFAULT, Wording


class Family(StrEnum):
    """The six kinds of task, named as in ALFWorld (arXiv:2010.03768)."""

    PICK = "pick_and_place_simple"
    LIGHT = "look_at_obj_in_light"
    CLEAN = "pick_clean_then_place_in_recep"
    HEAT = "pick_heat_then_place_in_recep"
    COOL = "pick_cool_then_place_in_recep"
    TWO = "pick_two_obj_and_place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receptacle:
    """A piece of furniture. `location` is where one stands to use it; several may share one."""

    id: str
    kind: str
    location: str
    openable: bool = False
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An object. `inside` names receptacles, `at` the locations where a knife can reach it, `holds`
    the objects in it.

    `traits` are the predicates true of it, in lower case: pickupable, cleanable, heatable,
    coolable, sliceable, toggleable, isreceptacleobject, isclean, ishot, iscool, issliced,
    istoggled.
    """

    id: str
    kind: str
    inside: tuple[str, ...] = ()
    at: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    traits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What has to be true, of kinds. `receptacle` is "" for LIGHT, `toggle` (a lamp) otherwise."""

    family: Family
    thing: str
    receptacle: str = ""
    toggle: str = ""
    sliced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A game. Ids are mangled as in ALFWorld's files: `Apple_bar__plus_01_dot_20_bar_...`.

    `accepts` holds (receptacle kind, object kind) pairs: what may be put where. `sinks` are the
    receptacle kinds in which things are cleaned. `task` is the sentence shown to the agent.
    `places` are locations where nothing is: they count when locations are numbered.
    """

    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]
    accepts: frozenset[tuple[str, str]]
    start: str
    goal: Goal
    task: str
    sinks: frozenset[str] = frozenset({"SinkBasin"})
    wording: Wording = DEFAULT
    places: tuple[str, ...] = ()
