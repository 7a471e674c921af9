"""Extract the nouns of product titles.

They only decide whether titles share a fifth, a tenth or none of them, so simple rules are enough;
WebShop itself uses spaCy's `en_core_web_sm`.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, Literal

from tutelage.errors import ConfigError, install
from tutelage_worlds.webshop.reward import Nouns

Tagger = Literal["rules", "spacy"]
MODEL: Final = "en_core_web_sm"
NOUN_TAGS: Final = ("NOUN", "PROPN")
_WORD: Final = re.compile(r"[^\W\d_]+(?:\d+[^\W_]*)?")
# what is no noun in a title: words of grammar, of degree and number, and common qualities
_NO_NOUNS: Final = """
    a about above after all also an and any are as at be been before below best better between
    big both bright but by can clean clear cold comfortable compatible cute dark daily deep
    dry durable each easy elegant every extra fast few fine firm fit fits flexible for formal
    free fresh from full fun funny gentle good great hard has have healthy heavy her high his
    hot if in into is it its large light lightweight little long loose low many mini modern
    more most natural new nice no non not of off old on one only or organic other our over own
    perfect portable premium pure quick quiet raw real rich round safe same short sleeveless
    slim small smart smooth so soft some strong such super sweet tall than that the their them
    these they thick thin this those three tight to top two ultra under up use used very warm
    washable waterproof we when which while whole wide wireless with without you your
"""
_OTHERS: Final = frozenset(_NO_NOUNS.split())


def by_rules(title: str) -> tuple[str, ...]:
    """Every word of letters that is none of a list.

    >>> by_rules("Soft Cotton T-Shirt for Men, 2 Pack")
    ('cotton', 't', 'shirt', 'men', 'pack')
    """
    words = (word.lower() for word in _WORD.findall(title))
    return tuple(word for word in words if word not in _OTHERS)


def by_model(model: Any) -> Nouns:
    """What a spaCy model takes for a noun."""

    def found(title: str) -> Iterator[str]:
        return (token.text.lower() for token in model(title) if token.pos_ in NOUN_TAGS)

    return lru_cache(1 << 14)(lambda title: tuple(found(title)))


def tagger(name: Tagger) -> Nouns:
    """The tagger of a name."""
    return _rules if name == "rules" else _spacy()


_rules: Final = lru_cache(1 << 14)(by_rules)


@lru_cache(maxsize=1)
def _spacy() -> Nouns:
    try:
        return by_model(import_module("spacy").load(MODEL))
    except (ImportError, OSError) as error:
        raise ConfigError(
            f'nouns = "spacy" needs spaCy and its model {MODEL} ({str(error).splitlines()[0]}): '
            f"{install('nouns')} and python -m spacy download {MODEL}, or leave it "
            'at "rules"'
        ) from None
