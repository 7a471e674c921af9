"""The games that are compared: generated ones, worn ones with unusual beginnings, ones dressed like
old official files.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from parity.reference import find_domain
from tutelage_worlds.household import Scene, generate, write
from tutelage_worlds.household.scene import Family, Goal, Receptacle, Thing

SPLITS = ("train", "seen", "unseen")
SIZES = ("small", "full")
FORMS = ("generated", "worn", "dressed", "old")
_FLAGS = ("isclean", "ishot", "iscool", "issliced", "istoggled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One game to compare. `number` decides everything about it."""

    number: int
    form: str
    split: str
    size: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.number:04d}-{self.form}-{self.size}-{self.split}-{self.seed}"


def case(number: int) -> Case:
    """The case of a number. Families, splits, sizes and forms take turns in such a way that any few
    dozen consecutive numbers have every pair of them.
    """
    return Case(
        number=number,
        form=FORMS[number // 2 % len(FORMS)],
        split=SPLITS[number // 3 % len(SPLITS)],
        size=SIZES[(number + number // 8) % len(SIZES)],
        seed=(number % len(Family)) + len(Family) * (number // len(Family) * 7 + 1),
    )


def make(wanted: Case, folder: Path) -> Path:
    """Write the game file of a case."""
    rng = random.Random(f"parity/{wanted.number}")
    scene = generate(wanted.split, wanted.seed, wanted.size)
    domain, grammar = find_domain()
    if wanted.form == "old":
        domain, grammar = old_domain(domain), old_grammar(grammar)
    if wanted.form != "generated":
        scene = wear(scene, rng)
    path = folder / f"{wanted.name}.tw-pddl"
    write(scene, path, domain, grammar)
    if wanted.form in ("dressed", "old"):
        data = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(dress(data, rng)), encoding="utf-8")
    return path


def wear(scene: Scene, rng: random.Random) -> Scene:
    """The same room after a party: doors open, things used, in two places or in none, furniture
    pushed together (sometimes all of it, which crowds every rule into a few moves), the agent
    anywhere. The goal stays in reach; it may now ask for a slice.
    """
    spots = sorted({r.location for r in scene.receptacles})
    crowd = rng.sample(spots, 2) if rng.random() < 0.4 else []
    receptacles = [_worn_receptacle(r, crowd or spots, bool(crowd), rng) for r in scene.receptacles]
    things = list(scene.things)
    accepts = scene.accepts
    goal = scene.goal
    if rng.random() < 0.3:
        goal = replace(goal, sliced=True)
        things = _cuttable(things, goal, receptacles, rng)
        accepts |= {(r.kind, "Knife") for r in receptacles[:4]}
    things = _nested([_worn_thing(t, receptacles, goal, rng) for t in things], rng)
    places = [scene.start, *(r.location for r in receptacles)]
    return replace(
        scene,
        receptacles=tuple(receptacles),
        things=tuple(things),
        accepts=accepts,
        start=rng.choice(places) if rng.random() < 0.4 else scene.start,
        goal=goal,
    )


def _worn_receptacle(
    receptacle: Receptacle, spots: list[str], crowded: bool, rng: random.Random
) -> Receptacle:
    location = receptacle.location
    if crowded or rng.random() < 0.25:
        location = rng.choice(spots)
    return replace(receptacle, location=location, open=receptacle.openable and rng.random() < 0.3)


def _cuttable(
    things: list[Thing], goal: Goal, receptacles: list[Receptacle], rng: random.Random
) -> list[Thing]:
    """With a knife, and what the goal wants can be cut."""
    where = rng.choice(receptacles)
    knife = Thing(
        id="Knife_bar__plus_00_dot_50_bar__plus_00_dot_90_bar__minus_00_dot_25",
        kind="Knife",
        inside=(where.id,),
        at=(where.location,),
        traits=frozenset({"pickupable", "cleanable"}),
    )
    return [knife] + [
        replace(t, traits=t.traits | {"sliceable"}) if t.kind == goal.thing else t for t in things
    ]


def _worn_thing(
    thing: Thing, receptacles: list[Receptacle], goal: Goal, rng: random.Random
) -> Thing:
    at = {r.id: r.location for r in receptacles}
    wanted = thing.kind in (goal.thing, goal.toggle)
    targets = [r.id for r in receptacles if r.kind == goal.receptacle]
    inside = list(thing.inside)
    if wanted and targets and rng.random() < 0.25:
        inside = [rng.choice(targets)]
    elif rng.random() < 0.25:
        inside.append(rng.choice(sorted(at)))
    elif rng.random() < 0.15:
        inside = [rng.choice([r.id for r in receptacles if r.openable] or inside)]
    elif rng.random() < 0.05 and not wanted:
        inside = []
    where = {at[r] for r in inside if r in at}
    if rng.random() < 0.2:
        where.add(rng.choice(sorted(at.values())))
    traits = set(thing.traits)
    if rng.random() < 0.35:
        traits.update(rng.sample(_FLAGS, rng.choice((1, 2, 3))))
    return replace(
        thing,
        inside=tuple(sorted(set(inside))),
        at=tuple(sorted(where)),
        traits=frozenset(traits),
    )


def _nested(things: list[Thing], rng: random.Random) -> list[Thing]:
    """Put some things into bowls and the like, which only "examine" ever tells."""
    movable = [t.id for t in things if "pickupable" in t.traits]
    return [
        replace(t, holds=tuple(sorted({rng.choice(movable), rng.choice(movable)} - {t.id})))
        if "isreceptacleobject" in t.traits and rng.random() < 0.5
        else t
        for t in things
    ]


def old_domain(domain: str) -> str:
    """The rules as in the files of ALFWorld's first data release: no "help", and a sink without a
    basin cleans too.
    """
    domain = _cut(domain, r"\(:action help.*?\n\)\n")
    return _swap(domain, ";(receptacleType ?r SinkType)", "(receptacleType ?r SinkType)")


def old_grammar(grammar: str) -> str:
    """The wording of that release: "put {o} in/on {r}" for "move {o} to {r}", and arrivals at a
    location.
    """
    grammar = _cut(grammar, r"action help \{.*?\n\}\n")
    grammar = _swap(grammar, "move {o} to {r}", "put {o} in/on {r}")
    grammar = _swap(
        grammar,
        "You move the {o.name} to the {r.name}.",
        "You put the {o.name} in/on the {r.name}.",
    )
    return _swap(grammar, "You arrive at {r.name}.", "You arrive at {lend.name}.")


def _cut(text: str, pattern: str) -> str:
    cut, count = re.subn(pattern, "", text, flags=re.DOTALL)
    assert count == 1, f"{pattern} is there {count} times"
    return cut


def _swap(text: str, old: str, new: str) -> str:
    assert old in text, f"{old} is not there"
    return text.replace(old, new)


def dress(data: Mapping[str, object], rng: random.Random) -> dict[str, object]:
    """The file with what official files have besides the game: names of kinds among the objects,
    scenery without furniture, distances and costs, predicates that no rule reads, comments, odd
    spacing and case.
    """
    problem = str(data["pddl_problem"])
    receptacles = re.findall(r"\(receptacleAtLocation ([^\s()?]+) ([^\s()?]+)\)", problem)
    inside = re.findall(r"\(inReceptacle ([^\s()?]+) ([^\s()?]+)\)", problem)
    kinds = re.findall(r"(\w+)Type - otype", problem)
    spots = sorted({place for _, place in receptacles})
    scenery = [
        (
            kind,
            f"{kind}_bar__{sign}_0{n}_dot_{rng.randrange(10, 99)}_bar__plus_01_dot_53",
        )
        for n, kind in enumerate(("Window", "Mirror", "LightSwitch", "Blinds", "SinkBasinLight"))
        for sign in ("minus", "plus")
    ]
    new_kinds = sorted({kind for kind, _ in scenery} - set(kinds))
    objects = [f"{kind} - object" for kind in kinds]
    objects += [f"{kind}Type - otype" for kind in new_kinds]
    objects += [f"{id} - object" for _, id in scenery]
    objects += ["loc_bar_99_bar__minus_99_bar_0_bar_30 - location"]
    facts = [f"(objectType {id} {kind}Type)" for kind, id in scenery]
    facts += [f"(objectAtLocation {id} {rng.choice(spots)})" for _, id in scenery]
    facts += [f"(wasInReceptacle {thing} {where})" for thing, where in inside]
    facts += [f"(moveable {id})" for _, id in scenery]
    facts += [f"(INRECEPTACLE {thing.upper()} {where.lower()})" for thing, where in inside[:3]]
    facts += [f"(examined {spot})" for spot in spots[:2]]
    facts += ["(= (total-cost) 0)", "; things stand where they stand"]
    facts += [
        f"(= (distance {a} {b}) {rng.randrange(1, 40)})" for a in spots[:5] for b in spots[:5]
    ]
    facts = list(dict.fromkeys(facts))
    problem = _once(problem, r"\(:objects", "(:objects\n" + "\n        ".join(objects) + "\n")
    problem = _once(problem, r"\(:init", "(:init\n\n" + "\n\t".join(facts) + "\n\n")
    problem = problem.rstrip().removesuffix(")") + "\n(:metric minimize (total-cost))\n)\n"
    saved = {key: value for key, value in data.items() if key != "walkthrough"}
    return saved | {"pddl_problem": problem, "solvable": True, "root": "somewhere/else"}


def _once(text: str, pattern: str, new: str) -> str:
    changed, count = re.subn(pattern, lambda _: new, text)
    assert count == 1, f"{pattern} is there {count} times"
    return changed
