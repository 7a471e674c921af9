"""What a user of a generated task wants, and the words in which they say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Final

from tutelage_worlds.bfcl.draw import pick
from tutelage_worlds.bfcl.scenario import Call

PEOPLE: Final = (
    "Ada", "Boris", "Chen", "Dora", "Emil", "Farah", "Goran", "Hanna", "Iris", "Jonas",
    "Kofi", "Lena", "Mira", "Nils", "Olga", "Pavel", "Rosa", "Selim", "Tara", "Ugo",
)  # fmt: off
TOPICS: Final = (
    "budget", "garden", "concert", "harvest", "library", "museum", "picnic", "railway",
    "recipe", "regatta", "school", "theatre", "weather", "workshop", "orchard", "lighthouse",
)  # fmt: off


def call(name: str, **arguments: Any) -> Call:
    return Call(name=name, arguments=arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """`says` is all that must be known. `vague` leaves out what `detail` then tells; both are empty
    where nothing can be left out."""

    says: str
    calls: tuple[Call, ...]
    vague: str = ""
    detail: str = ""


class Desk:
    """A generated state of one API, and wishes that its functions fulfil. A wish changes the state as
    its calls will, so that the next one fits."""

    api: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    """Names of methods that draw a wish, or None where the state does not allow one."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def start(self) -> Mapping[str, Any]:
        """What the API begins with; asked before the first wish."""
        return {}

    def wish(self, kind: str) -> Wish | None:
        found: Wish | None = getattr(self, kind)()
        return found

    def words(self, *choices: str) -> str:
        return pick(self.rng, choices)


def enumerated(things: Sequence[object]) -> str:
    """A list as it is said.

    >>> enumerated(["a", "b", "c"])
    'a, b and c'
    """
    texts = [str(each) for each in things]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
