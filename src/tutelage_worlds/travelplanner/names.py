"""Words for a world of our own: invented names, and what things are."""

from random import Random
from typing import Final

_HEADS: Final = ("b", "br", "d", "dr", "f", "g", "gr", "h", "k", "l", "m", "n", "r", "s", "st", "t",
                 "tr", "v", "w", "z")  # fmt: skip
_MIDDLES: Final = ("a", "e", "i", "o", "u", "ai", "ea")
_TAILS: Final = ("l", "n", "r", "s", "ld", "nd", "rn", "st", "lm", "rd", "sk", "nt")
TOWNS: Final = ("ton", "ford", "ville", "burg", "field", "port", "dale", "wick")
LANDS: Final = ("ia", "ora", "ana", "omi", "aska", "ington")
SIGHTS: Final = ("Museum", "Gardens", "Bridge", "Park", "Castle", "Zoo", "Tower", "Aquarium",
                 "Market Hall", "Lighthouse")  # fmt: skip
TABLES: Final = ("Kitchen", "Diner", "Grill", "Bistro", "Noodle House", "Tea Room", "Oven",
                 "Canteen", "Curry Corner", "Taproom")  # fmt: skip
BEDS: Final = ("Room", "Loft", "Studio", "Cottage", "Flat", "House")
LOOKS: Final = ("Quiet", "Bright", "Small", "Roomy", "Old", "Modern", "Sunny", "Plain")
PLACES: Final = ("by the river", "near the station", "on the hill", "with a garden", "downtown",
                 "at the market")  # fmt: skip
STREETS: Final = ("Mill St", "Lake Rd", "Oak Ave", "Station St", "Hill Rd", "Bay St")
OTHER_CUISINES: Final = ("Tea", "Bakery", "BBQ", "Cafe", "Fast Food", "Seafood", "Pizza",
                         "Desserts")  # fmt: skip


class Words:
    """Invented words, none of them a part of another."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._used: set[str] = set()
        self._parts: set[str] = set()  # all parts of the words that are in use

    def word(self, ending: str = "") -> str:
        while True:
            rng = self._rng
            made = rng.choice(_HEADS) + rng.choice(_MIDDLES) + rng.choice(_TAILS)
            made += ending or rng.choice(_MIDDLES) + rng.choice(_TAILS)
            ends = range(len(made) + 1)
            parts = {made[a:b] for a in ends for b in ends[a + 3 :]}
            if made not in self._parts and not parts & self._used:
                self._used.add(made)
                self._parts |= parts
                return made.capitalize()
