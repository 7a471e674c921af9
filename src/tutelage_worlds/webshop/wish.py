"""Parse an instruction into the attributes, options and price that it asks for."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

LIMIT: Final = re.compile(r",? and price lower than (\d+\.\d\d) dollars")
"""How an instruction ends that has a limit of the price."""
LONGEST: Final = 6
"""Words of an attribute at most."""
_WORD: Final = re.compile(r"[^\W_]+(?:[.'\u2019-][^\W_]+)*")
_POLITE_WORDS: Final = """
    a about also am an and are be buy can could find for get help i i'm im in is it looking me
    my need of on ones one or pair please set should some that the them these they this to
    want which with would like you your
"""
_POLITE: Final = frozenset(_POLITE_WORDS.split())


def within(tag: str, text: str) -> bool:
    """Whether all that a price tag may stand for is within the limit that an instruction names.

    >>> text = "tea, and price lower than 20.00 dollars"
    >>> within("$12.5 to $20.0", text), within("$20.01", text), within("$99.0", "tea")
    (True, False, True)
    """
    limit = LIMIT.search(text)
    return not limit or float(tag.split(" to ")[-1].removeprefix("$")) <= float(limit[1])


def words(text: str) -> list[str]:
    """The words of a text in lower case.

    >>> words("Women's X-Large, 6.5 fl oz")
    ["women's", 'x-large', '6.5', 'fl', 'oz']
    """
    return _WORD.findall(text.lower())


def mentions(text: str, phrase: str) -> bool:
    """Whether a text in lower case has a phrase, as whole words.

    >>> mentions("size x-large or 6.5", "large"), mentions("x-large, 6.5", "6.5")
    (False, True)
    """
    start, end = r"(?<![^\W_])(?<![\w][.'\u2019-])", r"(?![^\W_])(?![.'\u2019-][^\W_])"
    return bool(phrase) and bool(re.search(start + re.escape(phrase) + end, text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An instruction, taken apart.

    text        in lower case, without the limit of the price
    attributes  phrases that products of this shop are described by
    rest        the other words that say something: the kind of product, options
    """

    text: str
    attributes: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def query(self) -> str:
        """What to search for."""
        return " ".join((*self.attributes, *self.rest))


def read(instruction: str, known: Callable[[str], bool]) -> Wish:
    """Take an instruction apart; `known` says whether a phrase is an attribute of anything here.

    >>> read("Find me a gluten free tea.", {"gluten free"}.__contains__)
    Wish(text='find me a gluten free tea.', attributes=('gluten free',), rest=('tea',))
    """
    text = LIMIT.sub("", instruction).lower()
    left, attributes, rest = words(text), [], []
    while left:
        size = next((n for n in range(LONGEST, 0, -1) if known(" ".join(left[:n]))), 0)
        phrase = " ".join(left[:size])
        if size and mentions(text, phrase):
            attributes.append(phrase)
        elif left[0] not in _POLITE:
            rest.append(left[0])
        left = left[max(size, 1) :]
    return Wish(text=text, attributes=tuple(attributes), rest=tuple(rest))


def choose(options: Mapping[str, tuple[str, ...]], text: str) -> dict[str, str]:
    """Of each choice the longest value that a text has, where it has one."""
    chosen = {}
    for name, values in options.items():
        named = [value for value in values if mentions(text, value)]
        if named:
            chosen[name] = max(named, key=len)
    return chosen
