"""Generate a corpus: a graph of invented things, and a passage about each of them.

Everything is drawn from one seed; no sentence is copied from elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Final, Literal, NamedTuple

from tutelage_worlds.search_qa.passages import InMemory, titled
from tutelage_worlds.search_qa.relations import ASIDES, KINDS, OF_KIND, OPENINGS, VALUES

Size = Literal["full", "small"]
PASSAGES: Final[Mapping[str, int]] = {"full": 2400, "small": 240}
FEWEST: Final = 60
_SHARES: Final[Mapping[str, int]] = {
    "country": 2,
    "town": 16,
    "person": 44,
    "book": 14,
    "film": 12,
    "company": 12,
}
"""Of a hundred passages, how many are about things of a kind."""
_ONSETS: Final = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
_VOWELS: Final = ("a", "e", "i", "o", "u", "ai", "ei")
_CODAS: Final = ("l", "m", "n", "r", "s", "t", "nd", "rk", "sh")
_THINGS: Final = (
    "River",
    "Lamp",
    "Winter",
    "Mirror",
    "Garden",
    "Tower",
    "Harbour",
    "Orchard",
    "Letter",
    "Shadow",
    "Window",
    "Bridge",
    "Candle",
    "Meadow",
    "Silence",
    "Clock",
    "Island",
    "Journey",
    "Summer",
    "Stranger",
    "Feather",
    "Lantern",
    "Mountain",
    "Valley",
)
_MANNERS: Final = (
    "Silent",
    "Golden",
    "Broken",
    "Distant",
    "Hidden",
    "Crimson",
    "Early",
    "Empty",
    "Frozen",
    "Gentle",
    "Hollow",
    "Little",
    "Lonely",
    "Patient",
    "Restless",
    "Second",
    "Secret",
    "Seventh",
    "Sleeping",
    "Southern",
    "Stolen",
    "Wandering",
    "Western",
    "Wooden",
)
_FIRMS: Final = ("Works", "Brothers", "Company", "Trading", "Factory", "Union")


class Thing(NamedTuple):
    """A node of the graph. `facts` maps a relation to a name or a value."""

    name: str
    kind: str
    facts: Mapping[str, str]


class World(NamedTuple):
    things: Mapping[str, Thing]
    passages: InMemory

    def of(self, kind: str) -> list[Thing]:
        return [thing for thing in self.things.values() if thing.kind == kind]


@lru_cache(maxsize=4)
def world(size: Size, count: int, seed: int) -> World:
    """The generated corpus of a seed, with `passages` passages."""
    rng = Random(f"search_qa {size} {count} {seed}")
    plain = size == "small"
    names = _names(rng, size, count)
    things = {
        name: Thing(name, kind, _facts(rng, place, kind, names, years=10 if plain else 1))
        for kind in KINDS
        for place, name in enumerate(names[kind])
    }
    order = list(things.values())
    rng.shuffle(order)
    everything = [thing.name for thing in order]
    texts = (_text(rng, thing, everything, plain=plain) for thing in order)
    passages = InMemory(
        f"generated-{size}-{count}-{seed}",
        [
            titled(str(number), thing.name, text)
            for number, (thing, text) in enumerate(zip(order, texts, strict=True))
        ],
    )
    return World(things, passages)


# -- names


def _names(rng: Random, size: Size, count: int) -> dict[str, list[str]]:
    counts = {kind: max(2, count * share // 100) for kind, share in _SHARES.items()}
    counts["person"] += count - sum(counts.values())
    words = _words(rng)
    # few first and family names: that is what makes people hard to tell apart
    root = int(counts["person"] ** 0.5)
    pool = max(24, 2 * root) if size == "small" else 12 + 2 * root
    given, family = ([next(words) for _ in range(pool)] for _ in range(2))
    used: set[str] = set()

    def distinct(draw: Iterator[str], wanted: int) -> list[str]:
        names: list[str] = []
        while len(names) < wanted:
            name = next(draw)
            if name not in used:
                used.add(name)
                names.append(name)
        return names

    def pairs(first: Sequence[str], second: Sequence[str], form: str) -> Iterator[str]:
        while True:
            yield form.format(rng.choice(first), rng.choice(second))

    firms = [next(words) for _ in range(2 + counts["company"] // 4)]
    works = pairs(_MANNERS, _THINGS, "The {} {}")
    longer = pairs([f"The {m} {t}" for m in _MANNERS for t in _THINGS], given, "{} of {}s")
    titles = works if counts["book"] + counts["film"] < 200 else _after(works, 150, longer)
    return {
        "country": distinct(words, counts["country"]),
        "town": distinct(words, counts["town"]),
        "person": distinct(pairs(given, family, "{} {}"), counts["person"]),
        "book": distinct(titles, counts["book"]),
        "film": distinct(titles, counts["film"]),
        "company": distinct(pairs(firms, _FIRMS, "{} {}"), counts["company"]),
        # values that are words, not things
        "language": distinct(words, counts["country"]),
        "river": distinct(words, 1 + counts["town"] // 3),
    }


def _after(first: Iterator[str], count: int, then: Iterator[str]) -> Iterator[str]:
    for _ in range(count):
        yield next(first)
    yield from then


def _words(rng: Random) -> Iterator[str]:
    """Words that mean nothing, each one once."""
    seen: set[str] = set()
    while True:
        syllables = rng.choice((2, 2, 3))
        word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
        word = (word + rng.choice(_CODAS)).capitalize()
        if word not in seen:
            seen.add(word)
            yield word


# -- facts


def _facts(
    rng: Random, place: int, kind: str, names: Mapping[str, list[str]], *, years: int
) -> dict[str, str]:
    """The facts of the thing at a place among those of its kind; years are multiples of `years`."""
    facts = {}
    for relation in OF_KIND[kind]:
        name = relation.name
        if name == "capital":
            facts[name] = names["town"][place]
        elif name == "country" and place < len(names["country"]):
            facts[name] = names["country"][place]
        elif relation.target:
            others, own = names[relation.target], relation.target == kind
            drawn = rng.randrange(len(others) - own)
            facts[name] = others[drawn + (own and drawn >= place)]
        elif name in VALUES:
            facts[name] = rng.choice(VALUES[name])
        elif name.endswith("year"):
            facts[name] = str(rng.randrange(1100, 2000, years))
        else:
            facts[name] = rng.choice(names[name])
    return facts


# -- passages


def _text(rng: Random, thing: Thing, everything: list[str], *, plain: bool) -> str:
    """A passage about an entity: an opening, its facts in any order, and unrelated sentences."""
    sentences = [
        relation.sentences[0 if plain else rng.randrange(len(relation.sentences))].format(
            x=thing.name, y=thing.facts[relation.name]
        )
        for relation in OF_KIND[thing.kind]
    ]
    if plain:
        return " ".join((OPENINGS[thing.kind][0].format(x=thing.name), *sentences))
    asides = rng.sample(ASIDES, rng.randint(1, 3))
    sentences += [aside.format(z=rng.choice(everything)) for aside in asides]
    rng.shuffle(sentences)
    opening = rng.choice(OPENINGS[thing.kind]).format(x=thing.name)
    return " ".join((opening, *sentences))
