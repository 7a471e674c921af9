"""What the household wants from the machine."""

from collections.abc import Iterator, Mapping
from typing import Final

from tutelage.envs.requirements import Need, file, official, package

GET: Final = "pip install alfworld && alfworld-download"


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """Nothing, unless official games are to be played, or TextWorld is to play them."""
    wanted = options.get("engine") == "textworld"
    if options.get("games"):
        yield file("games", options["games"], GET)
    else:
        yield official("games", GET)
    use = 'for engine = "textworld", TextWorld itself (Python 3.11 or 3.12)'
    yield package("textworld", "textworld", wanted=wanted, use=use)
    if wanted and not options.get("games"):
        yield package("alfworld", get="pip install --no-deps alfworld==0.4.2")
