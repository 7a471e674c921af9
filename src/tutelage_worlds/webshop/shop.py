"""A shop: its products, its search index and its goals.

It is built once from a source of products, in memory or in a folder, and only read afterwards.
"""

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product as combinations
from pathlib import Path
from random import Random
from typing import Any, Final, get_args

import numpy as np

from tutelage_worlds.json_text import parse
from tutelage_worlds.webshop.analysis import terms
from tutelage_worlds.webshop.index import Builder, Index
from tutelage_worlds.webshop.product import (
    LONGEST_ASIN,
    NO_ATTRIBUTES,
    CatalogueError,
    Goal,
    Goals,
    Product,
    Reader,
    goal_of,
    price_of,
    product_of,
    read_product,
    to_record,
)
from tutelage_worlds.webshop.storage import (
    Folder,
    Keys,
    Memory,
    Place,
    Records,
    check_sizes,
    sizes,
    write_keys,
    write_records,
)

FOUND: Final = 50
"""Products that a search finds at most."""
CACHE_SIZE: Final = 4096
ENDLESS: Final = 1_000_000
"""The highest price where nothing is said of one."""
SHUFFLE: Final = 233
"""The seed with which WebShop shuffles its goals; splits are cut from that order."""
MANIFEST: Final = "shop.json"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a shop's goods come from.

    products    each entry with words for where it stands
    attributes  an entry for each asin that has attributes
    humans      a list of instructions for each asin that has some
    """

    name: str
    products: Callable[[], Iterator[tuple[object, str]]]
    attributes: Mapping[str, object]
    humans: Mapping[str, object]


def build(source: Source, place: Place, *, goals: Goals, seed: int) -> None:
    """Write a shop.

    Random numbers are drawn as WebShop draws them after `random.seed(seed)`: a price for each range
    of prices in the order of the products, then two limits for each goal's price.
    """
    if goals not in get_args(Goals):
        raise ValueError(
            f"There are no goals {goals!r}; there are {' and '.join(get_args(Goals))}."
        )
    rng = Random(seed)
    asins, prices = _write_products(source, place, rng)
    products = Records(place, "products", product_of)
    generated = (_human if goals == "human" else _synthetic)(source, products, asins, prices, rng)
    count = write_records(place, "goals", generated)
    order = list(range(count))
    Random(SHUFFLE).shuffle(order)
    place.array("order", "u4", count)[:] = order
    with place.writer(MANIFEST) as file:
        manifest = {"format": FORMAT, "name": source.name, "goals": goals, "seed": seed}
        manifest |= {"products": len(asins), "tasks": count}
        if isinstance(place, Folder):
            manifest["files"] = {k: n for k, n in sizes(place.path).items() if k != MANIFEST}
        file.write(json.dumps(manifest).encode())


def _write_products(source: Source, place: Place, rng: Random) -> tuple[list[str], "array[float]"]:
    """Everything about the products; their asins and prices, in their order."""
    asins: dict[str, int] = {}
    prices = array("d")
    text, facets = Builder(place, "text"), Builder(place, "facets")

    def records() -> Iterator[list[Any]]:
        for entry, where in source.products():
            asin = Reader(entry, where).text("asin")
            if asin == "nan" or len(asin) > LONGEST_ASIN or asin in asins:
                continue
            product = read_product(entry, where, _attributes(source, asin))
            asins[asin] = len(asins)
            prices.append(price_of(product.price_tag, rng))
            text.add(terms(product.contents()))
            kinds = (f"c\0{product.category}", f"q\0{product.query}")
            facets.add((*kinds, *(f"a\0{name}" for name in dict.fromkeys(product.attributes))))
            yield to_record(product)

    write_records(place, "products", records())
    text.write()
    facets.write()
    order = sorted(asins, key=lambda asin: asin.encode("utf-8", "surrogatepass"))
    write_keys(place, "asins", order)
    place.array("numbers", "u4", len(order))[:] = [asins[asin] for asin in order]
    place.array("prices", "f8", len(prices))[:] = prices
    return list(asins), prices


def _attributes(source: Source, asin: str) -> tuple[str, ...]:
    entry = source.attributes.get(asin)
    if not isinstance(entry, dict) or "attributes" not in entry:
        return NO_ATTRIBUTES
    return tuple(Reader(entry, f"attributes of {asin}").texts("attributes"))


def _upper(price: float, rng: Random) -> tuple[float, str]:
    """The highest price that is accepted, and how it is said."""
    above = [10.0 * i for i in range(1, 100) if 10.0 * i > price][:4]
    if len(above) < 2:
        return ENDLESS, ""
    upper = max(rng.sample(above, 2))
    return upper, f", and price lower than {upper:.2f} dollars"


def _human(
    source: Source,
    products: Sequence[Product],
    asins: Sequence[str],
    prices: Sequence[float],
    rng: Random,
) -> Iterator[list[Any]]:
    """Human-written instructions, each with its price limit."""
    for number, asin in enumerate(asins):
        written = source.humans.get(asin, [])
        if not isinstance(written, list):
            raise CatalogueError(f"instructions of {asin}: {written!r} must be a list")
        for place, entry in enumerate(written):
            read = Reader(entry, f"instruction {place} of {asin}")
            attributes = read.texts("instruction_attributes")
            if attributes:
                upper, price = _upper(prices[number], rng)
                text = read.text("instruction").strip(".") + price
                yield [number, text, attributes, read.texts("instruction_options"), upper]


def _synthetic(
    source: Source,
    products: Sequence[Product],
    asins: Sequence[str],
    prices: Sequence[float],
    rng: Random,
) -> Iterator[list[Any]]:
    """An instruction for every combination of a product's options."""
    for number, asin in enumerate(asins):
        entry = source.attributes.get(asin)
        read = Reader(entry, f"attributes of {asin}") if entry is not None else None
        text = read.optional("instruction", read.text) if read else None
        if read is None or text is None:
            continue
        attributes = read.texts("instruction_attributes")
        if not attributes:
            raise read.wrong("instruction_attributes", attributes, "a list that is not empty")
        upper, price = _upper(prices[number], rng)
        options = products[number].options
        names = sorted(options)
        for values in combinations(*(options[name] for name in names)):
            chosen = dict(zip(names, values, strict=True))
            wish = ", and ".join(f"{name}: {value}" for name, value in chosen.items())
            wish = f" with {wish}" if wish else ""
            yield [number, f"{text}{wish}{price}", attributes, chosen, upper]


class Shop:
    """A shop that was built."""

    def __init__(self, place: Place) -> None:
        manifest = parse(bytes(place.buffer(MANIFEST)))
        self.name: str = manifest["name"]
        self.goals: Goals = manifest["goals"]
        self.seed: int = manifest["seed"]
        self.products = Records(place, "products", product_of)
        self.product = lru_cache(CACHE_SIZE)(self.products.__getitem__)
        self.prices: memoryview[float] = place.buffer("prices").cast("d")
        self._goals = Records(place, "goals", goal_of)
        self.goal = lru_cache(CACHE_SIZE)(self._goal)
        self._order = place.buffer("order").cast("I")
        self._asins = Keys(place, "asins")
        self._numbers = place.buffer("numbers").cast("I")
        self._rank = np.empty(len(self._numbers), np.int64)
        self._rank[np.asarray(self._numbers)] = np.arange(len(self._numbers))
        self._text, self._facets = Index(place, "text"), Index(place, "facets")
        self._plain = lru_cache(CACHE_SIZE)(self._full_text)

    def __len__(self) -> int:
        """How many goals there are."""
        return len(self._goals)

    def _goal(self, index: int) -> Goal:
        """A goal by its number after the shuffle."""
        return self._goals[self._order[index]]

    def number(self, asin: str) -> int | None:
        """The number of a product."""
        place = self._asins.get(asin)
        return None if place is None else self._numbers[place]

    @staticmethod
    def is_random(query: str) -> bool:
        return query.split(" ", 1)[0] == "<r>"

    def search(self, query: str, draw: str = "") -> Sequence[int]:
        """Numbers of the products that are found, best first.

        Besides words: "<c> CATEGORY", "<q> QUERY" and "<a> ATTRIBUTE" find all that have it, "<r>"
        a random sample that `draw` decides.
        """
        kind, *rest = query.split(" ")
        if kind == "<r>":
            some = min(FOUND, len(self.products))
            return Random(f"webshop {draw}").sample(range(len(self.products)), some)
        if kind == "<c>":
            return self._facets.having(f"c\0{rest[0].strip()}") if rest else ()
        if kind in ("<a>", "<q>"):
            return self._facets.having(f"{kind[1]}\0{' '.join(rest).strip()}")
        return self._full_text(query) if len(query) > 1000 else self._plain(query)

    def _full_text(self, query: str) -> tuple[int, ...]:
        return tuple(self._text.search(terms(query), FOUND, self._rank))


def built(folder: Path) -> Shop:
    """The shop that lies in a folder."""
    try:
        manifest = parse((folder / MANIFEST).read_bytes())
        if (found := manifest.get("format")) != FORMAT:
            raise CatalogueError(
                f"{folder} holds a shop of format {found}, but this version reads {FORMAT}; build "
                "it again"
            )
        check_sizes(folder, manifest.get("files", {}))
        return Shop(Folder(folder))
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise CatalogueError(
            f"{folder} holds no shop that can be read ({error}); build it again: "
            "python -m tutelage_worlds.webshop DATA FOLDER"
        ) from None


def in_memory(source: Source, *, goals: Goals, seed: int) -> Shop:
    place = Memory()
    build(source, place, goals=goals, seed=seed)
    return Shop(place)
