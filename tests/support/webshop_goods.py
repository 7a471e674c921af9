"""Awkward products in WebShop's format, and the products of the tests."""

from functools import cache
from random import Random

from tutelage_worlds.webshop.generate import Catalogue, generate
from tutelage_worlds.webshop.product import Goals
from tutelage_worlds.webshop.shop import Shop, Source, in_memory

TEXTS = (
    "",
    " ",
    "\n",
    "  \n ",
    "\t",
    "a\nb",
    "  lead and trail  ",
    "<b>bold</b> & \"quoted\" 'single'",
    "&amp; &lt;x&gt; &#39;",
    "naïve café ½ ™ 日本語 カタカナ",
    "😀 👍🏽",
    "search_results",
    "item_page",
    "[SEP]",
    "click[buy now]",
    "</h4></body><script>x</script>",
    "{{ 7*7 }} {% raw %}",
    "\u00a0",
    "x" * 300,
    "\u200b",
    "a\u2028b",
    "<!-- hidden -->",
    "don’t women's",
    "\r\n",
    "a\rb",
    "back\\slash \\n",
    "null",
    "  Page 1 (Total results: 3)",
)
VALUES = (
    "description",
    "< prev",
    "next >",
    "search",
    "back to search",
    "buy now",
    "features",
    "reviews",
    "attributes",
    "search_results",
    "item_page",
    "one size",
    "One Size ",
    "S/M/L",
    "a/b",
    "Red",
    "dark Red",
    "<i>",
    '"q"',
    "it's",
    "é",
    "日本",
    "ß",
    "",
    " ",
    "red & blue",
    "[x]",
    "a]b",
    "x\ny",
    "options",
    "size",
    "6",
    "6",
    "color",
    "\\",
    "navy blue",
)
NAMES = ("Color", "SIZE", "size", "search_results", "item_page", "", "done", 'a"b', "<n>", "日本")
PRICES = (
    None,
    "",
    "$5",
    "$1,299.00",
    "$10.00$20.00",
    "$3$4$5",
    "USD $7.5 ",
    "$950.00",
    "$985.5",
    "$990",
    "$1200$1300",
    "$0",
)


def awkward(products: int, seed: int) -> Catalogue:
    result, rng = generate(products, seed), Random(seed)
    for entry in result.products:
        for key in ("name", "full_description"):
            if rng.random() < 0.25:
                entry[key] = rng.choice(TEXTS) + (rng.choice(TEXTS) if rng.random() < 0.3 else "")
        lot = rng.random()
        if lot < 0.3:
            several = [rng.choice(TEXTS) for _ in range(rng.randint(1, 4))]
            entry["small_description"] = several if lot < 0.15 else several[0]
        if rng.random() < 0.6:
            entry["customization_options"] = {
                rng.choice(NAMES): None
                if rng.random() < 0.1
                else [{"value": rng.choice(VALUES)} for _ in range(rng.randint(0, 5))]
                for _ in range(rng.randint(0, 4))
            }
        if rng.random() < 0.3:
            entry["pricing"] = rng.choice(PRICES)
        if rng.random() < 0.1:
            entry["product_category"] = rng.choice(("", "A", "A › B", "B›A", "A › A › C"))
        if rng.random() < 0.1:
            entry["query"] = rng.choice(("  Shoes ", "x", "running shoes"))
    first, second = result.products[:2]
    extra = (dict(first), {**second, "asin": "nan"}, {**second, "asin": "TOOLONGASIN"})
    result.products.extend(extra)
    for wishes in result.humans.values():
        for wish in wishes:
            if rng.random() < 0.2:
                wish["instruction"] = rng.choice(TEXTS) + "..."
            if rng.random() < 0.15:
                wish["instruction_attributes"] = rng.choices(TEXTS, k=rng.randint(0, 3))
            if rng.random() < 0.4:
                wish["instruction_options"] = rng.choices(VALUES, k=rng.randint(0, 4))
    for entry in result.attributes.values():
        if rng.random() < 0.1:
            entry["attributes"] = [rng.choice(TEXTS) for _ in range(rng.randint(0, 4))]
        if rng.random() < 0.3:
            del entry["instruction"]
    return result


def source_of(catalogue: Catalogue, name: str = "test") -> Source:
    return Source(
        name=name,
        products=lambda: ((entry, f"entry {i}") for i, entry in enumerate(catalogue.products)),
        attributes=catalogue.attributes,
        humans=catalogue.humans,
    )


@cache
def awkward_shop(products: int, seed: int, goals: Goals) -> Shop:
    return in_memory(source_of(awkward(products, seed)), goals=goals, seed=seed)
