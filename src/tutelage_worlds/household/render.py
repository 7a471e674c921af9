"""Compact renderings of observations: names and numbers between single spaces."""

import re
from typing import Final

from tutelage.types import Observation

_TASK: Final = (  # the sentences of ALFWorld's tasks and what of them matters
    (re.compile(r"(?:put a|put some) (?P<o>\w+) (?:in|on) (?P<r>\w+)"), "put {o} , {r}"),
    (re.compile(r"put a clean (?P<o>\w+) in (?P<r>\w+)"), "clean {o} , {r}"),
    (re.compile(r"clean some (?P<o>\w+) and put it in (?P<r>\w+)"), "clean {o} , {r}"),
    (re.compile(r"put a hot (?P<o>\w+) in (?P<r>\w+)"), "heat {o} , {r}"),
    (re.compile(r"heat some (?P<o>\w+) and put it in (?P<r>\w+)"), "heat {o} , {r}"),
    (re.compile(r"put a cool (?P<o>\w+) in (?P<r>\w+)"), "cool {o} , {r}"),
    (re.compile(r"cool some (?P<o>\w+) and put it in (?P<r>\w+)"), "cool {o} , {r}"),
    (re.compile(r"put two (?P<o>\w+) in (?P<r>\w+)"), "two {o} , {r}"),
    (re.compile(r"find two (?P<o>\w+) and put them in (?P<r>\w+)"), "two {o} , {r}"),
    (re.compile(r"look at (?P<o>\w+) under the (?P<r>\w+)"), "look {o} , {r}"),
    (re.compile(r"examine the (?P<o>\w+) with the (?P<r>\w+)"), "look {o} , {r}"),
)

_INTRO: Final = re.compile(
    r"-= .* =-\n\n(?P<look>.*)\n\nYour task is to: (?P<task>.*)\.", re.DOTALL
)
_ARRIVE: Final = re.compile(r"You (?:arrive at|open the) [^.]*\. (?P<rest>.*)", re.DOTALL)
_RULES: Final = (
    (re.compile(r"Nothing happens\."), "nothing"),
    (re.compile(r"The (?P<r>[^.]*) is closed\."), "{r} : closed"),
    (re.compile(r"The (?P<r>[^.]*) is open\. In it, you see (?P<l>.*)\."), "{r} : {l}"),
    (re.compile(r"On the (?P<r>[^,.]*), you see (?P<l>.*)\."), "{r} : {l}"),
    (re.compile(r"You close the (?P<r>.*)\."), "{r} : closed"),
    (re.compile(r"You pick up the (?P<o>.*) from the (?P<r>.*)\."), "have {o}"),
    (re.compile(r"You move the (?P<o>.*) to the (?P<r>.*)\."), "{o} : {r}"),
    (re.compile(r"You put the (?P<o>.*) in/on the (?P<r>.*)\."), "{o} : {r}"),
    (re.compile(r"You heat the (?P<o>.*) using the (?P<r>.*)\."), "hot {o}"),
    (re.compile(r"You clean the (?P<o>.*) using the (?P<r>.*)\."), "clean {o}"),
    (re.compile(r"You cool the (?P<o>.*) using the (?P<r>.*)\."), "cool {o}"),
    (re.compile(r"You sliced the (?P<o>.*) with the (?P<r>.*)\."), "sliced {o}"),
    (re.compile(r"You turn on the (?P<o>.*)\."), "on {o}"),
    (re.compile(r"This is a normal (?P<o>.*)\. In it, you see (?P<l>.*)\."), "{o} : {l}"),
    (re.compile(r"This is a (?P<q>.*) (?P<o>\w+ \d+)\."), "{o} : {q}"),
    (re.compile(r"There's nothing special about (?P<o>.*)\."), "{o} : plain"),
    (re.compile(r"You are not carrying anything\."), "have nothing"),
    (re.compile(r"You are carrying: (?P<l>.*)\."), "have {l}"),
    (re.compile(r"You are facing the (?P<r>.*)\. Next to it, you see (?P<l>.*)\."), "at {r} : {l}"),
    (
        re.compile(
            r"You are in the middle of a room\. Looking quickly around you, you see (?P<l>.*)\."
        ),
        "see {l}",
    ),
)


def compact(observation: Observation) -> str:
    """An observation in few words: what its text says, no more. Unknown texts stay as they are.

    >>> compact(Observation(text="On the countertop 1, you see a apple 1, and a mug 2."))
    'countertop 1 : apple 1 , mug 2'
    """
    text = observation.text
    intro = _INTRO.fullmatch(text)
    if intro:
        return f"task : {_short_task(intro['task'])}\n{_short(intro['look'])}"
    return _short(text)


def marked(observation: Observation) -> str:
    """As `compact`, with a star before each thing seen of the kind to be found: a model too small
    to compare words over a distance can read what is the same word.

    >>> seen = "On the countertop 1, you see a apple 1, and a mug 2."
    >>> marked(Observation(text=seen, focus=("mug",)))
    'countertop 1 : apple 1 , * mug 2'
    """
    words = compact(observation)
    place, colon, things = words.partition(" : ")
    if not colon or "\n" in words:
        return words
    starred = [
        f"* {thing}" if thing.split(" ")[0] in observation.focus else thing
        for thing in things.split(" , ")
    ]
    return f"{place} : {' , '.join(starred)}"


def _short(text: str) -> str:
    arrive = _ARRIVE.fullmatch(text)
    if arrive:
        text = arrive["rest"]
    for pattern, template in _RULES:
        match = pattern.fullmatch(text)
        if match:
            found = {name: _spaced(value) for name, value in match.groupdict().items()}
            return template.format(**found)
    return text


def _spaced(listed: str) -> str:
    """ "a apple 1, and a mug 2" as "apple 1 , mug 2"."""
    names = re.split(r", (?:and )?", listed)
    return " , ".join(name.removeprefix("a ") for name in names)


def _short_task(task: str) -> str:
    for pattern, template in _TASK:
        match = pattern.fullmatch(task)
        if match:
            return template.format(**match.groupdict())
    return task
