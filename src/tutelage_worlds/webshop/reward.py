"""The reward of a purchase (arXiv:2207.01206, section 3.2, and its code).

    r = r_type (matched attributes + matched options + [price <= limit])
        / (attributes + options + 1)

with r_type 1, or 0.5 where the product is of another kind, 0.1 and 0 where titles share hardly a
noun or none.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

from tutelage_worlds.webshop.product import BELOW, Goal, Product

MATCH: Final = 85
"""Texts match that are more alike than this, out of 100."""
SIMILAR: Final = 0.2
"""Titles are of one kind that share more of their nouns than this."""
_COLOURS: Final = """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze
    brown burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas
    coffee cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso
    fuchsia gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki
    lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha
    multicolor mushroom mustard natural navy nude olive orange peach pewter pink plum purple
    rainbow red rose royal rust sand sapphire seashell silver skull slate steel stone
    stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow
"""
COLOURS: Final = _COLOURS.split()
_LATIN_1: Final = dict.fromkeys(range(128, 256))

Nouns = Callable[[str], tuple[str, ...]]
"""The nouns of a title, in lower case and in order; one as often as it occurs."""


def _plain(text: str) -> str:
    """Lower case, blanks for all but letters, digits and underscores; Latin-1 letters are lost."""
    return re.sub(r"\W", " ", text.translate(_LATIN_1)).lower().strip()


def _ratio(a: str, b: str) -> int:
    if a == b:
        return 100
    if not a or not b:
        return 0
    return round(100 * SequenceMatcher(None, a, b).ratio())


@lru_cache(maxsize=1 << 16)
def token_set_ratio(a: str, b: str) -> int:
    """How alike two texts are as sets of words, 0 to 100, as thefuzz 0.19 measures it.

    With the words of both, s, and each with s before its others, a' and b': the best of the ratios
    of Ratcliff and Obershelp of (s, a'), (s, b') and (a', b').

    >>> token_set_ratio("essential oils", "essential oil"), token_set_ratio("Red, dark", "dark red")
    (96, 100)
    """
    one, other = _plain(a), _plain(b)
    if not one or not other:
        return 0
    first, second = set(one.split()), set(other.split())
    both = " ".join(sorted(first & second))
    left = f"{both} {' '.join(sorted(first - second))}".strip()
    right = f"{both} {' '.join(sorted(second - first))}".strip()
    return max(_ratio(both, left), _ratio(both, right), _ratio(left, right))


def colour(text: str) -> str:
    """The first colour of the list that occurs in a text, else the text.

    >>> colour("dark navy blue"), colour("infrared"), colour("xl")
    ('blue', 'red', 'xl')
    """
    return next((name for name in COLOURS if name in text), text)


def _wanted(options: tuple[str, ...] | Mapping[str, str]) -> Iterable[str]:
    """Options as they are compared. Those of a synthetic goal are pairs, which a colour is only
    found in where the whole value is one, and which are compared as Python writes a pair."""
    if not isinstance(options, Mapping):
        return [colour(value) for value in options]
    return [next((name for name in COLOURS if name in pair), str(pair)) for pair in options.items()]


def matched_options(chosen: Iterable[str], options: tuple[str, ...] | Mapping[str, str]) -> int:
    """How many of the wanted options were chosen."""
    have = [colour(value) for value in chosen]
    return sum(
        any(token_set_ratio(value, wish) > MATCH for value in have) for wish in _wanted(options)
    )


def has_attribute(product: Product, attribute: str) -> bool:
    """Whether a product has an attribute: among its own, or word for word in its texts."""
    return (
        any(token_set_ratio(own, attribute) > MATCH for own in product.attributes)
        or attribute in product.title.lower()
        or attribute in " ".join(product.bullets).lower()
        or attribute in product.description.lower()
    )


def _type_reward(bought: Product, wanted: Product, nouns: Nouns) -> float:
    kinds = [{part.strip() for part in p.product_category.split(BELOW)} for p in (bought, wanted)]
    have, want = nouns(bought.title), nouns(wanted.title)
    shared = len(set(have) & set(want)) / len(want) if want else SIMILAR
    if shared == 0:
        return 0.0
    if shared < 0.1:
        return 0.1
    same = bought.query == wanted.query or len(kinds[0] & kinds[1]) >= 2 or shared > SIMILAR
    return 1.0 if same else 0.5


def reward(
    bought: Product,
    price: float,
    chosen: Mapping[str, str],
    goal: Goal,
    wanted: Product,
    nouns: Nouns,
) -> float:
    """What a purchase is worth, in [0, 1].

    bought  the product, at its price, with the options chosen by name
    wanted  the product that the goal was written for
    """
    matched = sum(has_attribute(bought, attribute) for attribute in goal.attributes)
    matched += matched_options(chosen.values(), goal.options) + (price <= goal.upper)
    total = matched / (len(goal.attributes) + len(goal.options) + 1)
    return total * _type_reward(bought, wanted, nouns)
