"""Small hand-written rooms."""

from dataclasses import replace

from tutelage_worlds.household.scene import Family, Goal, Receptacle, Scene, Thing

FOOD = frozenset({"pickupable", "heatable", "coolable", "cleanable", "sliceable"})

CABINET_2 = "Cabinet_bar__minus_01_dot_00_bar__plus_00_dot_50_bar__plus_00_dot_10"
CABINET_1 = "Cabinet_bar__plus_01_dot_00_bar__plus_00_dot_50_bar__plus_00_dot_10"
COUNTER = "CounterTop_bar__plus_00_dot_30_bar__plus_00_dot_90_bar__plus_00_dot_00"
FRIDGE = "Fridge_bar__plus_02_dot_00_bar__plus_00_dot_00_bar__plus_01_dot_00"
MICROWAVE = "Microwave_bar__plus_00_dot_10_bar__plus_01_dot_00_bar__plus_00_dot_00"
SINK = "Sink_bar__minus_02_dot_00_bar__plus_00_dot_90_bar__plus_00_dot_00_bar_SinkBasin"
TABLE = "DiningTable_bar__plus_03_dot_00_bar__plus_00_dot_70_bar__plus_00_dot_00"
SHELF = "Shelf_bar__plus_03_dot_00_bar__plus_01_dot_70_bar__plus_00_dot_00"

APPLE_2 = "Apple_bar__minus_00_dot_10_bar__plus_00_dot_90_bar__plus_00_dot_00"
APPLE_1 = "Apple_bar__plus_00_dot_10_bar__plus_00_dot_90_bar__plus_00_dot_00"
EGG = "Egg_bar__plus_02_dot_00_bar__plus_00_dot_50_bar__plus_01_dot_00"
KNIFE = "Knife_bar__plus_00_dot_40_bar__plus_00_dot_90_bar__plus_00_dot_00"
MUG = "Mug_bar__plus_03_dot_00_bar__plus_00_dot_80_bar__plus_00_dot_00"
LAMP = "DeskLamp_bar__plus_03_dot_10_bar__plus_00_dot_80_bar__plus_00_dot_00"
HIDDEN = "DeskLamp_bar__plus_09_dot_10_bar__plus_00_dot_80_bar__plus_00_dot_00"


def place(name: str) -> str:
    return f"loc_bar_{name}_bar_0_bar_0_bar_30"


def _thing(id: str, where: str, at: str, traits: frozenset[str] = FOOD) -> Thing:
    kind = id.split("_bar_")[0]
    return Thing(id=id, kind=kind, inside=(where,), at=(place(at),), traits=traits)


def kitchen(goal: Goal | None = None, task: str = "put a apple in fridge") -> Scene:
    """Eight pieces of furniture, of which the table and the shelf share a location (5)."""
    carried = frozenset({"pickupable", "cleanable"})
    return Scene(
        receptacles=(
            Receptacle(id=CABINET_2, kind="Cabinet", location=place("1"), openable=True),
            Receptacle(id=CABINET_1, kind="Cabinet", location=place("2"), openable=True),
            Receptacle(id=COUNTER, kind="CounterTop", location=place("3")),
            Receptacle(id=FRIDGE, kind="Fridge", location=place("4"), openable=True),
            Receptacle(id=TABLE, kind="DiningTable", location=place("5")),
            Receptacle(id=SHELF, kind="Shelf", location=place("5")),
            Receptacle(id=MICROWAVE, kind="Microwave", location=place("6"), openable=True),
            Receptacle(id=SINK, kind="SinkBasin", location=place("7")),
        ),
        things=(
            _thing(APPLE_2, COUNTER, "3"),
            _thing(APPLE_1, COUNTER, "3"),
            _thing(EGG, FRIDGE, "4"),
            _thing(KNIFE, COUNTER, "3", carried),
            _thing(MUG, TABLE, "5", FOOD - {"sliceable"} | {"isreceptacleobject"}),
            _thing(LAMP, TABLE, "5", frozenset({"toggleable"})),
            _thing(HIDDEN, CABINET_1, "2", frozenset({"toggleable"})),
        ),
        accepts=frozenset(
            (where, what)
            for where in ("CounterTop", "Fridge", "DiningTable", "Shelf", "Microwave", "SinkBasin")
            for what in ("Apple", "Egg", "Mug")
        )
        | {("CounterTop", "Knife"), ("Cabinet", "Mug"), ("DiningTable", "Knife")},
        start=place("0"),
        goal=goal or Goal(family=Family.PICK, thing="Apple", receptacle="Fridge"),
        task=task,
    )


def with_thing(scene: Scene, thing: Thing) -> Scene:
    """The scene with a thing added, or put in the place of the one with its id."""
    return replace(scene, things=(*(t for t in scene.things if t.id != thing.id), thing))
