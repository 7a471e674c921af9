"""Compact renderings for small models: the text without tags and punctuation marks."""

import re
from typing import Final

from tutelage.types import Observation
from tutelage_worlds.search_qa import wording

_MARK: Final = re.compile(r"(?<=\w)([,.;:?!])(?=\s|$)")


def compact(observation: Observation) -> str:
    """An observation in few words, of either protocol.

    >>> compact(Observation(text="Question: What is the river of Oslo?"))
    'Question : What is the river of Oslo ?'
    >>> text = '<information>Doc 1(Title: "Oslo") A town.</information>'
    >>> compact(Observation(text=text))
    'Oslo : A town .'
    """
    text = observation.text.strip()
    if not observation.valid and text in (wording.REFUSED.strip(), wording.EMPTY.strip()):
        return "invalid"
    found = wording.results(text)
    if found is None:
        return _spaced(text)
    if not found:
        return "nothing found"
    return "\n".join(f"{title} : {_spaced(passage)}" for title, passage in found)


def _spaced(text: str) -> str:
    return _MARK.sub(r" \1", text)
