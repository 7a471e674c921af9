"""Products and goals, and how they are read from WebShop's own files.

The files are three JSON files (arXiv:2207.01206, the repository princeton-nlp/WebShop):

items      a list of products
attributes {asin: {"attributes": [...], "instruction": "...", "instruction_attributes": [...]}}
           the last two only where there is a synthetic goal
humans     {asin: [{"instruction": "...", "instruction_attributes": [...],
           "instruction_options": [...]}, ...]}
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from random import Random
from typing import Any, Literal

from tutelage.errors import EnvError

Goals = Literal["human", "synthetic"]
"""Instructions that people wrote, or made from templates: one for each combination of options."""
NO_PRICE = 100.0
"""What a product costs that has no price."""
LONGEST_ASIN = 10
BELOW = "\u203a"
"""What stands between the parts of a product's category."""
NO_ATTRIBUTES = ("DUMMY_ATTR",)


class CatalogueError(EnvError):
    """A file of products or instructions that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product, in WebShop's terms. `options` maps the name of a choice to its values."""

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    price_tag: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str

    def contents(self) -> str:
        """The text that is searched."""
        choices = ", and ".join(f"{name}: {', '.join(of)}" for name, of in self.options.items())
        first = self.bullets[0] if self.bullets else ""
        return f"{self.title} {self.description} {first} {choices}".lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal: the product that the instruction asks for.

    product   number of the product that the instruction was written for
    options   values wanted; of a synthetic goal, names of choices with their values
    upper     highest price
    """

    product: int
    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...] | Mapping[str, str]
    upper: float


def to_record(product: Product) -> list[Any]:
    """As it is stored."""
    return [getattr(product, name) for name in Product.__slots__]


def product_of(record: Any) -> Product:
    asin, title, description, bullets, tag, options, attributes, *kinds = record
    return Product(
        asin=asin,
        title=title,
        description=description,
        bullets=tuple(bullets),
        price_tag=tag,
        options={name: tuple(values) for name, values in options.items()},
        attributes=tuple(attributes),
        category=kinds[0],
        query=kinds[1],
        product_category=kinds[2],
    )


def goal_of(record: Any) -> Goal:
    product, text, attributes, options, upper = record
    return Goal(
        product=product,
        text=text,
        attributes=tuple(attributes),
        options=options if isinstance(options, dict) else tuple(options),
        upper=upper,
    )


class Reader:
    """Reads one entry of a file: every problem is one sentence that names the place and the key."""

    def __init__(self, entry: object, where: str) -> None:
        if not isinstance(entry, dict):
            raise CatalogueError(f"{where} is {_kind(entry)}; it must be an object with keys")
        self.entry, self.where = entry, where

    def text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a string")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.wrong(key, value, "a list of strings")
        return value

    def optional(self, key: str, read: Callable[[str], Any]) -> Any:
        return None if self.entry.get(key) is None else read(key)

    def _value(self, key: str) -> object:
        if key not in self.entry:
            raise CatalogueError(f"{self.where} has no {key!r}; add it, or take the entry out")
        return self.entry[key]

    def wrong(self, key: str, value: object, must: str) -> CatalogueError:
        return CatalogueError(f"{self.where}: {key!r} is {_kind(value)}; it must be {must}")


def _kind(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def read_product(entry: object, where: str, attributes: tuple[str, ...]) -> Product:
    """A product of an items file. What WebShop does not use is not looked at."""
    read = Reader(entry, where)
    bullets = read.entry.get("small_description")
    return Product(
        asin=read.text("asin"),
        title=read.text("name"),
        description=read.text("full_description"),
        bullets=(
            tuple(read.texts("small_description"))
            if isinstance(bullets, list)
            else (read.text("small_description"),)
        ),
        price_tag=_price_tag(read),
        options=_options(read),
        attributes=attributes,
        category=read.text("category"),
        query=read.text("query").lower().strip(),
        product_category=read.text("product_category"),
    )


def _options(read: Reader) -> dict[str, tuple[str, ...]]:
    choices = read.entry.get("customization_options")
    if not choices:
        return {}
    if not isinstance(choices, dict):
        raise read.wrong("customization_options", choices, "an object or null")
    options = {}
    for name, values in choices.items():
        if values is None:
            continue
        if not isinstance(values, list):
            raise read.wrong(f"customization_options.{name}", values, "a list or null")
        inside = [Reader(v, f"{read.where}, option {name!r}").text("value") for v in values]
        options[name.lower()] = tuple(v.strip().replace("/", " | ").lower() for v in inside)
    return options


def _price_tag(read: Reader) -> str:
    prices = amounts(read.optional("pricing", read.text) or f"${NO_PRICE}", read)
    return f"${prices[0]}" if len(prices) == 1 else f"${prices[0]} to ${prices[1]}"


def amounts(pricing: str, read: Reader) -> list[float]:
    """The numbers of "$12.99" or "$8.99$24.99"."""
    try:
        found = [float(Decimal(re.sub(r"[^\d.]", "", part))) for part in pricing.split("$")[1:]]
    except InvalidOperation:
        found = []
    if not found:
        raise read.wrong("pricing", pricing, 'a price such as "$12.99" or "$8.99$24.99", or null')
    return found


def price_of(tag: str, rng: Random) -> float:
    """What a product costs: of a range, a number that is drawn once and never shown."""
    ends = [float(end) for end in tag.replace("$", "").split(" to ")]
    return ends[0] if len(ends) == 1 else rng.uniform(*ends)
