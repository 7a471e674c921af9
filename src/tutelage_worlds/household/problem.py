"""Read the PDDL problem of a game file: the objects, their places and the goal."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tutelage_worlds.household.scene import Family, Goal, Receptacle, Scene, Thing

_BRACKET = re.compile(r"[()]")
_NEGATED = re.compile(r"\(\s*not\s*\([^()]*\)\s*\)", re.IGNORECASE)
_COMMENT = re.compile(r";[^\n]*")
_FACT = re.compile(r"\(\s*([A-Za-z=][\w-]*)\s*([^()]*)\)")
_NUMERIC: Final = frozenset({"=", "distance", "total-cost", "totalcost"})
_TRAITS: Final = (
    *("pickupable", "cleanable", "heatable", "coolable", "sliceable", "toggleable"),
    *("isreceptacleobject", "isclean", "ishot", "iscool", "issliced", "istoggled"),
)
_PAIRS: Final = (
    *("atlocation", "receptacleatlocation", "receptacletype", "objecttype", "inreceptacle"),
    *("objectatlocation", "inreceptacleobject", "cancontain", "holds"),
)
_SIZES: Final = dict.fromkeys(_PAIRS, 2) | dict.fromkeys((*_TRAITS, "openable", "opened"), 1)

_PLACED: Final = ("inreceptacle ?o ?r", "objecttype ?o X", "receptacletype ?r Y")
_ATOMS: Final = {
    Family.PICK: _PLACED,
    Family.CLEAN: (*_PLACED, "cleanable ?o", "isclean ?o"),
    Family.HEAT: (*_PLACED, "heatable ?o", "ishot ?o"),
    Family.COOL: (*_PLACED, "coolable ?o", "iscool ?o"),
    Family.TWO: (
        *(atom.replace("?o", "?o1") for atom in _PLACED),
        *(atom.replace("?o", "?o2") for atom in _PLACED),
        "= ?o1 ?o2",
    ),
    Family.LIGHT: (
        *("objecttype ?ot T", "toggleable ?ot", "istoggled ?ot", "inreceptacle ?ot ?r"),
        *("receptacleatlocation ?r ?l", "atlocation ?a ?l", "objecttype ?o X", "holds ?a ?o"),
    ),
}


class ProblemError(ValueError):
    """A problem that is not a household game, or not a whole one."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """The facts by predicate, in lower case; the ids that any fact names, by type."""

    about: dict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))
    named: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


def load(text: str) -> Scene:
    """The scene of a problem, with the task sentence still empty. Raises ProblemError."""
    text = _COMMENT.sub("", text)
    objects, init, goal = _sections(text)
    facts = _facts(_NEGATED.sub("", init), _types(objects))
    start = [args[1] for args in facts.about["atlocation"]]
    if len(start) != 1:
        raise ProblemError(f"its agent is at {len(start)} locations instead of one")
    if facts.about["holds"] or facts.about["holdsany"]:
        raise ProblemError("its agent holds something at the start, which no game of ALFWorld does")
    receptacles = tuple(_receptacles(facts))
    if not receptacles:
        raise ProblemError("it has no receptacles")
    things = tuple(_things(facts))
    used = {start[0].lower(), *(r.location.lower() for r in receptacles)}
    used |= {place.lower() for thing in things for place in thing.at}
    idle = (place for low, place in sorted(facts.named["location"].items()) if low not in used)
    return Scene(
        receptacles=receptacles,
        things=things,
        accepts=frozenset((_type(a), _type(b)) for a, b in facts.about["cancontain"]),
        start=start[0],
        goal=_goal(goal),
        task="",
        places=tuple(idle),
    )


def _sections(text: str) -> tuple[str, str, str]:
    names = ("objects", "init", "goal")
    found = [re.search(rf"\(\s*:{name}\b", text, re.IGNORECASE) for name in names]
    starts = [match.start() for match in found if match]
    if len(starts) < len(names) or starts != sorted(starts):
        raise ProblemError(
            "it lacks :objects, :init or :goal, in this order: it is cut off or foreign"
        )
    objects, init, goal = (_balanced(text, start) for start in starts)
    return objects, init, goal


def _balanced(text: str, start: int) -> str:
    """The expression that opens at `start`, up to the bracket that closes it."""
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += 1 if bracket[0] == "(" else -1
        if depth == 0:
            return text[start : bracket.end()]
    raise ProblemError("its brackets do not match, so the problem is cut off or damaged")


def _types(objects: str) -> dict[str, str]:
    """The type of each declared id, both in lower case."""
    types: dict[str, str] = {}
    waiting: list[str] = []
    words = iter(re.findall(r"[^\s()]+", objects.lower()))
    for word in words:
        if word == "-":
            types |= dict.fromkeys(waiting, next(words, ""))
            waiting = []
        else:
            waiting.append(word)
    return types


def _facts(init: str, types: dict[str, str]) -> _Facts:
    facts = _Facts()
    for predicate, words in _FACT.findall(init):
        name, args = predicate.lower(), words.split()
        if name in _NUMERIC:
            continue
        if len(args) != _SIZES.get(name, len(args)):
            raise ProblemError(f"its fact ({predicate} {words}) is not about {_SIZES[name]} things")
        for arg in args:
            type_ = types.get(arg.lower())
            if type_ is None:
                raise ProblemError(f"its fact ({predicate} {words}) is about an unknown {arg}")
            facts.named[type_].setdefault(arg.lower(), arg)
        facts.about[name].append(args)
    for thing, where in facts.about["inreceptacle"]:
        if where.lower() not in facts.named["receptacle"]:
            raise ProblemError(f"its object {thing} is in {where}, which is not a receptacle")
    for name in ("inreceptacle", "objectatlocation", "inreceptacleobject", "objecttype", *_TRAITS):
        for args in facts.about[name]:
            if args[0].lower() not in facts.named["object"]:
                raise ProblemError(f"its fact ({name} {' '.join(args)}) is not about an object")
    return facts


def _type(name: str) -> str:
    return name[: -len("Type")] if name.lower().endswith("type") else name


def _kinds(pairs: list[list[str]]) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for id, kind in pairs:
        if kinds.setdefault(id.lower(), _type(kind)).lower() != _type(kind).lower():
            raise ProblemError(f"its {id} is of two kinds")
    return kinds


def _receptacles(facts: _Facts) -> Iterator[Receptacle]:
    about = facts.about
    kinds = _kinds(about["receptacletype"])
    places = {id.lower(): place for id, place in about["receptacleatlocation"]}
    if any(places[id.lower()].lower() != p.lower() for id, p in about["receptacleatlocation"]):
        raise ProblemError("one of its receptacles is at two locations")
    openable = {id.lower() for (id,) in about["openable"]}
    opened = {id.lower() for (id,) in about["opened"]}
    for low, id in sorted(facts.named["receptacle"].items()):
        yield Receptacle(
            id=id,
            kind=kinds.get(low, ""),
            location=places.get(low, ""),
            openable=low in openable,
            open=low in opened,
        )


def _things(facts: _Facts) -> Iterator[Thing]:
    about = facts.about
    kinds = _kinds(about["objecttype"])
    inside, at = _grouped(about["inreceptacle"]), _grouped(about["objectatlocation"])
    holds = _grouped([outer, inner] for inner, outer in about["inreceptacleobject"])
    traits: dict[str, set[str]] = defaultdict(set)
    for trait in _TRAITS:
        for (id,) in about[trait]:
            traits[id.lower()].add(trait)
    for low, id in sorted(facts.named["object"].items()):
        yield Thing(
            id=id,
            kind=kinds.get(low, ""),
            inside=inside.get(low, ()),
            at=at.get(low, ()),
            holds=holds.get(low, ()),
            traits=frozenset(traits.get(low, ())),
        )


def _grouped(pairs: Iterable[list[str]]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for first, second in pairs:
        groups[first.lower()].setdefault(second.lower(), second)
    return {first: tuple(group[low] for low in sorted(group)) for first, group in groups.items()}


def _sliced(family: Family) -> tuple[str, ...]:
    names = ("?o1", "?o2") if family is Family.TWO else ("?o",)
    return tuple(f"{trait} {name}" for name in names for trait in ("sliceable", "issliced"))


def _goal(text: str) -> Goal:
    atoms: set[str] = set()
    kinds: dict[str, str] = {}
    for predicate, words in _FACT.findall(text):
        name, args = predicate.lower(), words.split()
        if name in ("objecttype", "receptacletype") and len(args) == 2:
            slot = "Y" if name == "receptacletype" else "T" if args[0].lower() == "?ot" else "X"
            if kinds.setdefault(slot, args[1]).lower() != args[1].lower():
                raise ProblemError("its goal asks for different kinds of things at once")
            atoms.add(f"{name} {args[0].lower()} {slot}")
        else:
            atoms.add(" ".join([name, *args]).lower())
    heads = {word.lower() for word in re.findall(r"\(\s*([a-zA-Z][\w-]*)", text)}
    for family, wanted in _ATOMS.items():
        logic = {"and", "exists", "not"} if family is Family.TWO else {"and", "exists"}
        for cut in ((), _sliced(family)):
            predicates = {atom.split()[0] for atom in (*wanted, *cut)} - {"="}
            if atoms == {*wanted, *cut} and heads == logic | predicates:
                return Goal(
                    family=family,
                    thing=_type(kinds["X"]),
                    receptacle=_type(kinds.get("Y", "")),
                    toggle=_type(kinds.get("T", "")),
                    sliced=bool(cut),
                )
    raise ProblemError("its goal is not one of ALFWorld's six families")


_TEXT: Final = """\
(define (problem household)
(:domain alfred)
(:objects
{objects}
)
(:init
{init}
)
(:goal {goal})
)
"""


def dump(scene: Scene) -> str:
    """A scene as a PDDL problem: `load` gives back all but the task sentence, sinks and wording."""
    things, furniture, goal = scene.things, scene.receptacles, scene.goal
    otypes = {t.kind for t in things} | {kind for _, kind in scene.accepts}
    rtypes = {r.kind for r in furniture} | {kind for kind, _ in scene.accepts}
    # The domain's rules name these kinds, so the planner wants them declared.
    otypes |= {goal.thing, goal.toggle, "Knife", "ButterKnife"}
    rtypes |= {goal.receptacle, "Sink", "SinkBasin", "Microwave", "Fridge"}
    places = {scene.start, *scene.places, *(r.location for r in furniture)}
    places |= {place for t in things for place in t.at}
    objects = ["agent1 - agent", *(f"{place} - location" for place in sorted(places - {""}))]
    objects += [f"{r.id} - receptacle" for r in furniture] + [f"{t.id} - object" for t in things]
    objects += [f"{kind}Type - otype" for kind in sorted(otypes - {""})]
    objects += [f"{kind}Type - rtype" for kind in sorted(rtypes - {""})]
    init = [f"(atLocation agent1 {scene.start})"]
    init += [f"(examined {place})" for place in scene.places]
    for r in furniture:
        init += [f"(receptacleType {r.id} {r.kind}Type)"] if r.kind else []
        init += [f"(receptacleAtLocation {r.id} {r.location})"] if r.location else []
        init += [f"(openable {r.id})"] if r.openable else []
        init += [f"(opened {r.id})"] if r.open else []
    for t in things:
        init += [f"(objectType {t.id} {t.kind}Type)"] if t.kind else []
        init += [f"({trait} {t.id})" for trait in sorted(t.traits)]
        init += [f"(inReceptacle {t.id} {where})" for where in t.inside]
        init += [f"(objectAtLocation {t.id} {place})" for place in t.at]
        init += [f"(inReceptacleObject {inner} {t.id})" for inner in t.holds]
    init += [f"(canContain {where}Type {kind}Type)" for where, kind in sorted(scene.accepts)]
    return _TEXT.format(objects="\n".join(objects), init="\n".join(init), goal=_formula(goal))


def _formula(goal: Goal) -> str:
    kinds = {"X": goal.thing, "Y": goal.receptacle, "T": goal.toggle}
    atoms = [*_ATOMS[goal.family], *(_sliced(goal.family) if goal.sliced else ())]
    conditions: list[str] = []
    for atom in atoms:
        *words, last = atom.split()
        text = "(" + " ".join([*words, f"{kinds[last]}Type" if last in kinds else last]) + ")"
        conditions.append(f"(not {text})" if words[0] == "=" else text)
    if goal.family is Family.LIGHT:
        held = [text for text in conditions if " ?o " in text or " ?o)" in text]
        lit = [text for text in conditions if text not in held]
        return (
            "(and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) "
            f"(and {' '.join(lit)})) (exists (?o - object ?a - agent) (and {' '.join(held)})))"
        )
    names = "?o1 - object ?o2 - object" if goal.family is Family.TWO else "?o - object"
    return f"(and (exists (?r - receptacle) (exists ({names}) (and {' '.join(conditions)}))))"
