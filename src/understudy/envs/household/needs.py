"""What the household wants from the machine."""

from collections.abc import Iterator, Mapping
from typing import Final

from understudy.envs.needs import Need, file, official, package

GET: Final = "pip install alfworld && alfworld-download"


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """Nothing, unless official games are to be played."""
    if options.get("games"):
        yield file("games", options["games"], GET)
    else:
        yield official("games", GET)
    yield package("textworld", "parity", wanted=False, use="to compare with TextWorld itself")
