"""Generate any number of tasks over the benchmark's APIs, with states and sentences of this project.

`scenario(split, seed, family, apis)` is always the same task. A task is two to four wishes at one or
two APIs. In `miss_param` one wish leaves out what the user tells when asked; in `miss_func` a function
that one wish needs is added only after it.

Only `random.Random(str).random()` is used, which Python promises never to change.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

from tutelage_worlds.bfcl.draw import pick, several, whole
from tutelage_worlds.bfcl.office import Files, Messages, Numbers, Posts, Tickets
from tutelage_worlds.bfcl.outside import Car, Journeys, Shares
from tutelage_worlds.bfcl.scenario import Scenario, Turn
from tutelage_worlds.bfcl.wish import Desk, Wish

FAMILIES: Final = ("base", "miss_func", "miss_param")
DESKS: Final[Mapping[str, type[Desk]]] = {
    each.api: each for each in (Files, Numbers, Messages, Posts, Tickets, Shares, Journeys, Car)
}
TWO: Final = 0.4
"""Share of tasks with two APIs."""
ADDED: Final = (
    "There are more functions now. Please try again.",
    "You have been given another function: does it work with that?",
    "I added a function for this. Go on.",
)


def scenario(split: str, seed: int, family: str, apis: Sequence[str]) -> Scenario:
    """Task number `seed` of a split."""
    name = f"{split}/{family}/{','.join(apis)}/{seed}"
    for attempt in range(1000):
        rng = Random(f"bfcl {name} {attempt}")
        found = _drawn(rng, name, family, apis)
        if found is not None:
            return found
    raise AssertionError(f"no task of {name} was found in 1000 draws")


def _drawn(rng: Random, name: str, family: str, apis: Sequence[str]) -> Scenario | None:
    """A task; None where the wishes that were drawn leave nothing out."""
    desks = [DESKS[api](rng) for api in several(rng, apis, 1 + (rng.random() < TWO))]
    start = {desk.api: desk.start() for desk in desks}
    wishes: list[Wish] = []
    kinds: set[tuple[str, str]] = set()
    count = whole(rng, 2, 4)
    for _ in range(20):
        desk = pick(rng, desks)
        kind = pick(rng, desk.kinds)
        if (desk.api, kind) in kinds or len(wishes) == count:
            continue
        wish = desk.wish(kind)
        if wish is not None:
            wishes.append(wish)
            kinds.add((desk.api, kind))
    turns = _turns(rng, wishes, family)
    if turns is None:
        return None
    used = tuple(desk.api for desk in desks)
    return Scenario(id=name, family=family, apis=used, start=start, turns=tuple(turns))


def _turns(rng: Random, wishes: Sequence[Wish], family: str) -> list[Turn] | None:
    turns = [Turn(says=wish.says, calls=wish.calls) for wish in wishes]
    if family == "base":
        return turns
    if family == "miss_param":
        may = [k for k, wish in enumerate(wishes) if wish.vague]
        if not may:
            return None
        k = pick(rng, may)
        later = Turn(says=wishes[k].detail, calls=wishes[k].calls)
        return [*turns[:k], Turn(says=wishes[k].vague), later, *turns[k + 1 :]]
    k = whole(rng, 0, len(wishes) - 1)
    held = wishes[k].calls[-1].name
    if any(held == call.name for wish in wishes[:k] for call in wish.calls):
        return None
    later = Turn(says=pick(rng, ADDED), calls=wishes[k].calls, added=(held,))
    return [*turns[:k], Turn(says=wishes[k].says), later, *turns[k + 1 :]]
