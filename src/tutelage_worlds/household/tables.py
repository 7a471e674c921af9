"""Tables of furniture and things, and of the places where things are usually found.

The kinds are named as in AI2-THOR and ALFWorld; the tables are our own. Rooms are letters: K
kitchen, L living room, B bedroom, W bathroom (washroom).
"""

from dataclasses import dataclass
from typing import Final

ROOMS: Final = {"K": "kitchen", "L": "living room", "B": "bedroom", "W": "bathroom"}

OPENABLE: Final = frozenset({"Cabinet", "Drawer", "Fridge", "Microwave", "Safe"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of thing.

    `found` is the furniture it usually lies in or on, the likeliest first; `fits` is where else it
    may be, and be put.
    """

    rooms: str
    found: tuple[str, ...]
    fits: tuple[str, ...] = ()
    traits: frozenset[str] = frozenset({"pickupable"})


def _kind(rooms: str, can: str, found: str, fits: str = "") -> Kind:
    words = {
        "heat": "heatable",
        "cool": "coolable",
        "clean": "cleanable",
        "slice": "sliceable",
        "vessel": "isreceptacleobject",
        "take": "pickupable",
        "light": "toggleable",
    }
    return Kind(
        rooms=rooms,
        found=tuple(found.split()),
        fits=tuple(fits.split()),
        traits=frozenset(words[w] for w in can.split()),
    )


_FOOD = "CounterTop Fridge DiningTable SinkBasin"
_DISH = "CounterTop DiningTable Cabinet SinkBasin"
_TOOL = "Drawer CounterTop DiningTable SinkBasin"
_DESK = "Desk Drawer SideTable Shelf Dresser"
_SEAT = "CoffeeTable Sofa SideTable ArmChair"

THINGS: Final[dict[str, Kind]] = {
    # kitchen: food
    "Apple": _kind("K", "take heat cool clean slice", _FOOD, "Microwave GarbageCan SideTable"),
    "Bread": _kind(
        "K",
        "take heat cool slice",
        "CounterTop DiningTable Fridge",
        "Microwave GarbageCan SideTable",
    ),
    "Egg": _kind(
        "K",
        "take heat cool clean slice",
        "Fridge CounterTop SinkBasin DiningTable",
        "Microwave GarbageCan SideTable",
    ),
    "Lettuce": _kind(
        "K",
        "take cool clean slice",
        "Fridge CounterTop DiningTable SinkBasin",
        "GarbageCan SideTable",
    ),
    "Potato": _kind(
        "K",
        "take heat cool clean slice",
        "CounterTop Fridge SinkBasin DiningTable",
        "Microwave GarbageCan SideTable",
    ),
    "Tomato": _kind("K", "take heat cool clean slice", _FOOD, "Microwave GarbageCan SideTable"),
    # kitchen: dishes and tools
    "Bowl": _kind(
        "KLB",
        "take cool clean vessel",
        "CounterTop Cabinet DiningTable Fridge CoffeeTable Dresser Shelf",
        "SinkBasin Microwave Desk SideTable",
    ),
    "Cup": _kind("K", "take heat cool clean vessel", _DISH, "Fridge Microwave Shelf SideTable"),
    "Mug": _kind(
        "KB",
        "take heat cool clean vessel",
        "CounterTop CoffeeMachine Cabinet Desk Shelf SinkBasin Dresser",
        "DiningTable Fridge Microwave SideTable",
    ),
    "Plate": _kind(
        "KL",
        "take heat cool clean vessel",
        "CounterTop DiningTable Cabinet Fridge CoffeeTable",
        "SinkBasin Microwave Shelf SideTable",
    ),
    "Pan": _kind(
        "K",
        "take cool clean vessel",
        "StoveBurner CounterTop Cabinet SinkBasin",
        "DiningTable Fridge SideTable",
    ),
    "Pot": _kind(
        "K",
        "take cool clean vessel",
        "StoveBurner Cabinet CounterTop SinkBasin",
        "DiningTable Fridge Shelf SideTable",
    ),
    "Kettle": _kind(
        "K", "take clean", "StoveBurner CounterTop Cabinet", "SinkBasin DiningTable Shelf"
    ),
    "Fork": _kind("K", "take clean", _TOOL, "SideTable"),
    "Spoon": _kind("K", "take clean", _TOOL, "SideTable"),
    "Knife": _kind("K", "take clean", _TOOL, "SideTable"),
    "ButterKnife": _kind("K", "take clean", _TOOL, "SideTable"),
    "Ladle": _kind(
        "K", "take clean", "Drawer CounterTop Cabinet SinkBasin", "DiningTable SideTable"
    ),
    "Spatula": _kind("K", "take clean", _TOOL, "SideTable"),
    "PepperShaker": _kind("K", "take", "CounterTop Cabinet DiningTable Drawer", "Shelf SideTable"),
    "SaltShaker": _kind("K", "take", "CounterTop Cabinet DiningTable Drawer", "Shelf SideTable"),
    "WineBottle": _kind(
        "K", "take cool", "Cabinet Fridge CounterTop DiningTable", "GarbageCan Shelf SideTable"
    ),
    "Glassbottle": _kind(
        "K", "take clean", "Fridge CounterTop Cabinet", "SinkBasin Microwave DiningTable Shelf"
    ),
    "PaperTowelRoll": _kind("KW", "take", "CounterTop GarbageCan Toilet", "Cabinet Drawer"),
    # wet rooms
    "DishSponge": _kind(
        "KW",
        "take clean",
        "SinkBasin CounterTop Drawer Cabinet",
        "BathtubBasin GarbageCan Shelf Cart Toilet",
    ),
    "SoapBottle": _kind(
        "KW", "take", "CounterTop Cabinet Toilet Drawer Cart", "GarbageCan Shelf SideTable"
    ),
    "SprayBottle": _kind(
        "WK", "take", "Cabinet Toilet CounterTop Shelf", "Drawer GarbageCan Cart SideTable"
    ),
    "SoapBar": _kind(
        "W",
        "take clean",
        "SinkBasin CounterTop BathtubBasin Toilet Cabinet",
        "Drawer GarbageCan Cart Shelf SideTable",
    ),
    "Cloth": _kind(
        "W",
        "take clean",
        "BathtubBasin Cabinet CounterTop Drawer SinkBasin",
        "GarbageCan Cart Shelf Toilet SideTable",
    ),
    "Candle": _kind(
        "WL", "take", "Toilet CounterTop Shelf CoffeeTable Drawer", "Cabinet Cart Dresser SideTable"
    ),
    "ToiletPaper": _kind(
        "W",
        "take",
        "ToiletPaperHanger Toilet Cabinet CounterTop",
        "Drawer GarbageCan Cart Shelf SideTable",
    ),
    "HandTowel": _kind(
        "W",
        "take",
        "HandTowelHolder CounterTop",
        "Cabinet SinkBasin BathtubBasin GarbageCan Toilet Cart",
    ),
    "Towel": _kind("W", "take", "TowelHolder", "BathtubBasin"),
    "Plunger": _kind("W", "take", "Cabinet Toilet", "Cart"),
    "TissueBox": _kind(
        "WLB",
        "take",
        "Toilet CoffeeTable SideTable Cabinet Dresser Shelf",
        "CounterTop Drawer GarbageCan Desk Cart TVStand",
    ),
    # living room and bedroom
    "Book": _kind(
        "LB",
        "take",
        "Desk Bed CoffeeTable Shelf Sofa SideTable",
        "Drawer Dresser ArmChair Ottoman DiningTable",
    ),
    "Box": _kind(
        "LB",
        "take vessel",
        "CoffeeTable DiningTable Dresser SideTable Desk Sofa",
        "ArmChair Ottoman Shelf",
    ),
    "CD": _kind("B", "take", _DESK, "Safe GarbageCan Cabinet"),
    "CellPhone": _kind(
        "LB",
        "take",
        "Desk Bed SideTable Dresser Drawer CoffeeTable Sofa",
        "Safe Shelf ArmChair Ottoman DiningTable",
    ),
    "CreditCard": _kind(
        "LB",
        "take",
        "SideTable Desk Drawer CoffeeTable Dresser Shelf Sofa ArmChair",
        "Safe Ottoman DiningTable",
    ),
    "KeyChain": _kind(
        "LB",
        "take",
        "Drawer SideTable Safe CoffeeTable Dresser Desk Shelf",
        "Sofa ArmChair Ottoman DiningTable",
    ),
    "Laptop": _kind(
        "LB", "take", "Bed Desk Sofa CoffeeTable DiningTable", "ArmChair Ottoman Dresser SideTable"
    ),
    "Newspaper": _kind(
        "L",
        "take",
        "Sofa CoffeeTable SideTable DiningTable Drawer",
        "ArmChair Ottoman GarbageCan Shelf Cabinet Dresser",
    ),
    "Pen": _kind("LB", "take", _DESK + " GarbageCan CoffeeTable", "DiningTable"),
    "Pencil": _kind("LB", "take", _DESK + " GarbageCan CoffeeTable", "DiningTable"),
    "Pillow": _kind("LB", "take", "Bed Sofa ArmChair", "Ottoman"),
    "RemoteControl": _kind(
        "LB",
        "take",
        "Sofa CoffeeTable SideTable ArmChair TVStand Drawer Dresser",
        "Ottoman DiningTable Shelf",
    ),
    "Statue": _kind(
        "LB", "take", "Shelf CoffeeTable Dresser TVStand SideTable DiningTable", "Safe Desk Cabinet"
    ),
    "Vase": _kind(
        "LB", "take", "Shelf CoffeeTable DiningTable SideTable Dresser", "Safe Desk Cabinet"
    ),
    "Watch": _kind(
        "LB", "take", "SideTable Shelf Drawer CoffeeTable Dresser Safe", "Desk DiningTable TVStand"
    ),
    "WateringCan": _kind(
        "L", "take", "SideTable Shelf Cabinet CoffeeTable", "Drawer Dresser DiningTable"
    ),
    "AlarmClock": _kind("B", "take", "SideTable Desk Dresser Shelf", "Drawer"),
    "BaseballBat": _kind("B", "take", "Bed Desk", "Dresser SideTable"),
    "BasketBall": _kind("B", "take", "Bed Dresser Desk ArmChair", "SideTable"),
    "TeddyBear": _kind("B", "take", "Bed ArmChair", "Dresser"),
    "TennisRacket": _kind("B", "take", "Bed Dresser Desk", "SideTable"),
    # used where it stands, never carried
    "DeskLamp": _kind("LB", "light", "Desk SideTable Dresser Shelf"),
}

LAMP: Final = "DeskLamp"


def _ranges(text: str) -> dict[str, tuple[int, int]]:
    words = [item.split() for item in text.split(",")]
    return {kind: (int(least), int(most)) for kind, least, most in words}


FULL: Final = {  # room: kind of furniture, at least, at most
    "K": _ranges(
        "CounterTop 1 3, Cabinet 4 8, Drawer 2 6, Fridge 1 1, Microwave 1 1, SinkBasin 1 1, "
        "StoveBurner 2 4, CoffeeMachine 1 1, Toaster 1 1, GarbageCan 1 1, DiningTable 0 2, "
        "Shelf 0 3, SideTable 0 1"
    ),
    "L": _ranges(
        "Sofa 1 2, ArmChair 1 3, CoffeeTable 1 2, SideTable 1 3, DiningTable 0 1, Shelf 0 4, "
        "Cabinet 0 4, Drawer 2 6, Dresser 0 1, TVStand 0 1, Ottoman 0 1, Safe 0 1, Desk 0 1, "
        "GarbageCan 1 1"
    ),
    "B": _ranges(
        "Bed 1 2, Desk 1 2, Drawer 3 8, Dresser 0 1, SideTable 1 2, Shelf 2 6, Safe 0 1, "
        "LaundryHamper 0 1, ArmChair 0 1, Cabinet 0 2, GarbageCan 1 1"
    ),
    "W": _ranges(
        "CounterTop 1 2, Cabinet 2 6, Drawer 0 4, SinkBasin 1 2, BathtubBasin 0 1, Toilet 1 1, "
        "ToiletPaperHanger 1 1, TowelHolder 1 2, HandTowelHolder 1 2, Shelf 0 2, SideTable 0 1, "
        "Cart 0 1, GarbageCan 1 1"
    ),
}

SMALL: Final = {
    "K": _ranges(
        "CounterTop 1 1, Cabinet 1 2, Drawer 0 1, Fridge 1 1, Microwave 1 1, SinkBasin 1 1, "
        "StoveBurner 0 1, CoffeeMachine 0 1, DiningTable 0 1, Shelf 0 1, GarbageCan 0 1"
    ),
    "L": _ranges(
        "Sofa 1 1, ArmChair 0 1, CoffeeTable 0 1, SideTable 1 2, Shelf 0 2, Drawer 1 2, "
        "Dresser 0 1, Cabinet 0 1, Safe 0 1, TVStand 0 1, GarbageCan 0 1"
    ),
    "B": _ranges(
        "Bed 1 1, Desk 1 1, Drawer 1 2, SideTable 0 2, Shelf 0 2, Dresser 0 1, Safe 0 1, "
        "LaundryHamper 0 1, GarbageCan 0 1"
    ),
    "W": _ranges(
        "CounterTop 1 1, Cabinet 1 2, SinkBasin 1 1, Toilet 1 1, TowelHolder 0 1, "
        "HandTowelHolder 0 1, ToiletPaperHanger 0 1, BathtubBasin 0 1, Drawer 0 1, "
        "Shelf 0 1, GarbageCan 0 1"
    ),
}

LIMITS: Final = {
    "full": (12, 29, 18, 54),
    "small": (6, 10, 6, 14),
}  # furniture and things, from and to

ACCEPTS: Final = frozenset(
    (where, name)
    for name, kind in THINGS.items()
    if "pickupable" in kind.traits
    for where in (*kind.found, *kind.fits)
)
