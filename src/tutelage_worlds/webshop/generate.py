"""Generate a shop in the format of WebShop's files from a seed.

It has up to about as many products as the original. A product's attributes are in its title,
description or features, in the words of the instruction, so a careful shopper can always find out
what to buy.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from tutelage_worlds.webshop.goods import (
    ASKING,
    CHOICES,
    CHOOSING,
    CODES,
    OPENINGS,
    PRAISE,
    SYLLABLES,
    WARES,
    WHOM,
    Ware,
)
from tutelage_worlds.webshop.product import CatalogueError
from tutelage_worlds.webshop.shop import Source

LAST = string.digits + string.ascii_uppercase
PLACES = 32**3
MOST = PLACES * len(LAST)
"""Products that have a code each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The three files, as Python objects."""

    products: list[dict[str, Any]]
    attributes: dict[str, dict[str, Any]]
    humans: dict[str, list[dict[str, Any]]]


def generate(products: int, seed: int = 0) -> Catalogue:
    """A catalogue of `products` products, MOST at most; the first of them are the same in a larger
    one."""
    if products > MOST:
        raise CatalogueError(
            f"products = {products}: {MOST:,} can be generated; ask for fewer, or give a shop's "
            "own files as data"
        )
    catalogue = Catalogue(products=[], attributes={}, humans={})
    for number in range(products):
        rng = Random(f"webshop {seed} {number}")
        ware = rng.choice(WARES)
        like = rng.sample(ware.attributes, rng.randint(3, 6))
        entry = _entry(ware, like, code(number), rng)
        catalogue.products.append(entry)
        asked = rng.sample(like, rng.choice((1, 2, 2, 3)))
        catalogue.attributes[entry["asin"]] = {
            "attributes": like,
            "instruction": f"Find me {', '.join(asked)} {ware.name}",
            "instruction_attributes": asked,
        }
        wishes = [_wish(ware, like, entry, rng) for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2)))]
        if wishes:
            catalogue.humans[entry["asin"]] = wishes
    return catalogue


def source(products: int, seed: int = 0) -> Source:
    """What a shop of generated products is built from."""
    catalogue = generate(products, seed)

    def entries() -> Iterator[tuple[object, str]]:
        return ((entry, f"generated product {i}") for i, entry in enumerate(catalogue.products))

    return Source(
        name=f"generated-{products}-{seed}",
        products=entries,
        attributes=catalogue.attributes,
        humans=catalogue.humans,
    )


def code(number: int) -> str:
    """Ten characters, different for MOST products; a few pieces to a tokenizer."""
    last, place = divmod(number, PLACES)
    place = place * 12_345 % PLACES
    return "".join(CODES[place >> shift & 31] for shift in (10, 5, 0)).upper() + LAST[last]


def _entry(ware: Ware, like: list[str], asin: str, rng: Random) -> dict[str, Any]:
    brand = "".join(rng.sample(SYLLABLES, rng.randint(2, 3))).title()
    name = ware.name.title()
    shown = rng.randint(1, 2)
    in_title = " ".join(like[:shown]).title()
    title = rng.choice(
        (
            f"{brand} {in_title} {name}",
            f"{brand} {in_title} {name} for {rng.choice(WHOM)}",
            f"{brand} {name}, {', '.join(like[:shown]).title()}",
        )
    )
    described = rng.randint(shown, len(like))
    description = rng.choice(OPENINGS).format(name=ware.name, brand=brand) + ". "
    description += " ".join(
        f"{a.capitalize()}: {rng.choice(PRAISE)}." for a in like[shown:described]
    )
    # of the features, only the first is searched
    bullets = [", ".join((*like[described:], rng.choice(PRAISE))).capitalize()]
    bullets.append(f"{name} by {brand}, {rng.choice(PRAISE)}")
    return {
        "asin": asin,
        "category": ware.category,
        "query": ware.name,
        "product_category": ware.path,
        "name": title,
        "full_description": description.strip(),
        "small_description": bullets,
        "pricing": _pricing(ware, rng),
        "customization_options": _options(ware, rng),
        "images": [""],
    }


def _pricing(ware: Ware, rng: Random) -> str | None:
    """Now and then a range; never one so wide that its upper end could be above a goal's limit."""
    lot = rng.random()
    if lot < 0.02:
        return None
    low = round(rng.uniform(*ware.prices), 2)
    return f"${low:.2f}${low + rng.uniform(1, 9):.2f}" if lot < 0.12 else f"${low:.2f}"


def _options(ware: Ware, rng: Random) -> dict[str, list[dict[str, Any]]]:
    if rng.random() < 0.1:
        return {}
    return {
        name: [
            {"value": value, "image": None}
            for value in sorted(rng.sample(values, rng.randint(2, 5)), key=values.index)
        ]
        for name in ware.choices
        for values in (CHOICES[name],)
    }


def _wish(ware: Ware, like: list[str], entry: dict[str, Any], rng: Random) -> dict[str, Any]:
    """An instruction for a product."""
    asked = rng.sample(like, rng.choice((1, 1, 2, 2, 3)))
    options = entry["customization_options"]
    named = rng.sample(sorted(options), rng.randint(0, len(options)))
    chosen = [rng.choice(options[name])["value"] for name in named]
    text = rng.choice(ASKING).format(
        some=ware.some,
        name=ware.name,
        attributes=" ".join(asked),
        listed=" and ".join(asked),
        options=rng.choice(CHOOSING).format(values=" and ".join(chosen)) if chosen else "",
    )
    return {
        "instruction": " ".join(text.split()),
        "instruction_attributes": asked,
        "instruction_options": chosen,
    }
