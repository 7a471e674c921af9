"""Generate questions about the generated corpus, of one fact and of several.

single   one fact: What is the river of Tolmar?
bridge   two facts, the first of which leads to the second
chain    three facts
compare  one fact of each of two things
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple

from tutelage_worlds.search_qa.questions import Question
from tutelage_worlds.search_qa.relations import (
    COMPARISONS,
    KINDS,
    OF_KIND,
    QUESTIONS,
    Comparison,
    Relation,
)
from tutelage_worlds.search_qa.world import Size, Thing, World, world

FAMILIES: Final = ("single", "bridge", "chain", "compare")
HOPS: Final = {"single": 1, "bridge": 2, "chain": 3}
RIVALS: Final = 5
"""Things that each one is compared with."""
_TENTH: Final = {"test": (0,), "dev": (1,), "train": tuple(range(2, 10))}
"""Which tenths of the things a split's questions begin with, or compare: no first fact of one split
is asked for in another."""


class Spec(NamedTuple):
    """What a question is about, before it is put into words."""

    start: str
    path: tuple[Relation, ...] = ()
    rival: str = ""
    comparison: Comparison | None = None


@lru_cache(maxsize=32)
def specs(family: str, split: str, size: Size, count: int, seed: int) -> tuple[Spec, ...]:
    """All questions of a family and a split, in an order that the seed decides."""
    generated, rng = world(size, count, seed), Random(f"search_qa {family} {split} {seed}")
    starts = [
        thing
        for kind in KINDS
        for place, thing in enumerate(generated.of(kind))
        if place % 10 in _TENTH[split]
    ]
    if family == "compare":
        found = [spec for thing in starts for spec in _compared(rng, thing, starts)]
    else:
        found = [
            Spec(thing.name, path) for thing in starts for path in _paths(thing.kind, HOPS[family])
        ]
    rng.shuffle(found)
    return tuple(found)


def _paths(kind: str, hops: int) -> Iterator[tuple[Relation, ...]]:
    """Ways along relations. A capital's country is the one that the way came from."""
    for relation in OF_KIND[kind]:
        if hops == 1:
            yield (relation,)
        elif relation.target:
            for rest in _paths(relation.target, hops - 1):
                if (relation.name, rest[0].name) != ("capital", "country"):
                    yield (relation, *rest)


def _compared(rng: Random, thing: Thing, starts: Sequence[Thing]) -> Iterator[Spec]:
    """A thing beside others of its split: their facts are asked for too."""
    for comparison in COMPARISONS:
        if comparison.kind != thing.kind:
            continue
        value = thing.facts[comparison.relation]
        others = [o for o in starts if o.kind == thing.kind and o.name != thing.name]
        same = [other for other in others if other.facts[comparison.relation] == value]
        different = [other for other in others if other.facts[comparison.relation] != value]
        if comparison.first is not None:
            rivals = rng.sample(different, min(RIVALS, len(different)))
        else:
            # as many for yes as for no
            rivals = [
                rng.choice(pool) for pool in (same, different) if pool and (same and different)
            ]
        for rival in rivals:
            yield Spec(thing.name, rival=rival.name, comparison=comparison)


def question(family: str, split: str, number: int, size: Size, count: int, seed: int) -> Question:
    """A question in words, with its answer and the titles of the passages that answer it."""
    spec = specs(family, split, size, count, seed)[number]
    generated = world(size, count, seed)
    rng = Random(f"search_qa {family} {split} {number} {size} {count} {seed}")
    if spec.comparison is not None:
        return _comparison(rng, spec, spec.comparison, generated, number)
    asked, at, titles = spec.start, spec.start, []
    for relation in spec.path:
        before, after = relation.phrases[_variant(rng, relation.phrases, size)]
        asked = f"{before}{asked}{after}"
        titles.append(at)
        at = generated.things[at].facts[relation.name]
    text = QUESTIONS[_variant(rng, QUESTIONS, size)].format(q=asked)
    return Question(family, number, text, (at,), tuple(titles))


def _variant(rng: Random, choices: Sequence[object], size: Size) -> int:
    return 0 if size == "small" else rng.randrange(len(choices))


def _comparison(
    rng: Random, spec: Spec, comparison: Comparison, generated: World, number: int
) -> Question:
    pair = [spec.start, spec.rival]
    rng.shuffle(pair)
    values = [generated.things[name].facts[comparison.relation] for name in pair]
    text = comparison.text.format(a=pair[0], b=pair[1])
    answer = compared(comparison, pair, values)
    return Question("compare", number, text, (answer,), tuple(pair))


def compared(comparison: Comparison, pair: Sequence[str], values: Sequence[str]) -> str:
    """The answer to a comparison of two things with these values."""
    if comparison.first is None:
        return "yes" if values[0] == values[1] else "no"
    earlier = 0 if int(values[0]) < int(values[1]) else 1
    return pair[earlier if comparison.first else 1 - earlier]
