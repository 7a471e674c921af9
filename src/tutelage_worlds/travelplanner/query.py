"""A query: the constraints and wishes of one trip."""

from dataclasses import dataclass
from typing import Final

LEVELS: Final = ("easy", "medium", "hard")
DAYS: Final = (3, 5, 7)
RULES: Final = ("smoking", "parties", "children under 10", "visitors", "pets")
"""What a house may forbid, as "No smoking"."""
ROOMS: Final = ("entire room", "private room", "shared room", "not shared room")
TRANSPORT: Final = ("no flight", "no self-driving")
CUISINES: Final = ("American", "Chinese", "French", "Indian", "Italian", "Mediterranean", "Mexican")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query with its constraints, which agents read as a sentence.

    dest      a city for 3 days, else the state in which `cities` cities are to be seen
    dates     of every day, as 2022-03-16
    rule      what the accommodation must allow, one of RULES; None for any
    cuisines  each must be eaten once
    room      one of ROOMS; None for any
    transport one of TRANSPORT; None for any
    """

    text: str
    level: str
    org: str
    dest: str
    days: int
    cities: int
    dates: tuple[str, ...]
    people: int
    budget: int
    rule: str | None = None
    cuisines: tuple[str, ...] = ()
    room: str | None = None
    transport: str | None = None

    @property
    def hard(self) -> tuple[str, ...]:
        """The hard constraints that it has, in the words of the paper."""
        has = {
            "budget": True,
            "room_rule": self.rule is not None,
            "cuisine": bool(self.cuisines),
            "room_type": self.room is not None,
            "transportation": self.transport is not None,
        }
        return tuple(name for name, there in has.items() if there)
