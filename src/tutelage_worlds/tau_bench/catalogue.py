"""Products, names and places of the generated shop; none of them are tau-bench's."""

from typing import Final, NamedTuple

PRODUCTS: Final[tuple[tuple[str, dict[str, tuple[str, ...]]], ...]] = (
    ("Teapot", {"colour": ("green", "white", "grey"), "size": ("small", "large")}),
    ("Blanket", {"colour": ("red", "blue", "beige"), "cloth": ("wool", "cotton")}),
    ("Torch", {"power": ("weak", "strong"), "battery": ("built-in", "AA", "AAA")}),
    ("Kite", {"shape": ("delta", "box"), "colour": ("red", "yellow", "blue")}),
    ("Rucksack", {"volume": ("20 l", "30 l", "40 l"), "colour": ("black", "green")}),
    ("Clock", {"face": ("round", "square"), "drive": ("quartz", "wind-up", "radio")}),
    ("Umbrella", {"size": ("short", "long"), "colour": ("black", "red", "clear")}),
    ("Notebook", {"paper": ("plain", "lined", "dotted"), "size": ("A4", "A5")}),
    ("Lantern", {"light": ("candle", "LED", "oil"), "size": ("small", "large")}),
    ("Hammock", {"width": ("single", "double"), "cloth": ("cotton", "nylon", "mesh")}),
    ("Scarf", {"cloth": ("silk", "wool", "linen"), "colour": ("blue", "pink", "grey")}),
    ("Gloves", {"size": ("S", "M", "L"), "cloth": ("leather", "wool")}),
    ("Skillet", {"metal": ("iron", "steel", "copper"), "size": ("20 cm", "24 cm", "28 cm")}),
    ("Cushion", {"filling": ("foam", "down"), "colour": ("rose", "mint", "sand")}),
    ("Compass", {"case": ("brass", "plastic"), "scale": ("degrees", "mils", "both")}),
    ("Puzzle", {"pieces": ("500", "1000", "2000"), "motif": ("map", "forest", "harbour")}),
    ("Vase", {"height": ("15 cm", "25 cm"), "glaze": ("matt", "gloss", "crackle")}),
    ("Radio", {"band": ("FM", "DAB", "shortwave"), "colour": ("black", "oak")}),
    ("Apron", {"cloth": ("denim", "linen"), "pocket": ("none", "one", "two")}),
    ("Stool", {"wood": ("beech", "oak", "pine"), "height": ("45 cm", "60 cm")}),
    ("Whisk", {"metal": ("steel", "silicone"), "length": ("20 cm", "25 cm", "30 cm")}),
    ("Mirror", {"frame": ("brass", "oak", "none"), "shape": ("round", "oval")}),
    ("Bicycle Bell", {"tone": ("high", "low"), "colour": ("chrome", "black", "red")}),
    ("Chess Set", {"wood": ("maple", "walnut"), "board": ("folding", "flat", "roll-up")}),
)
FIRST_NAMES: Final = (
    "Ada",
    "Bram",
    "Cleo",
    "Dario",
    "Edda",
    "Finn",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kaya",
    "Lorin",
    "Maud",
    "Nils",
    "Oda",
    "Pia",
    "Quinn",
    "Rosa",
    "Sven",
    "Tilda",
    "Ulf",
    "Vera",
    "Wim",
    "Yann",
    "Zoe",
)
LAST_NAMES: Final = (
    "Abbot",
    "Birk",
    "Corder",
    "Dunmore",
    "Ekberg",
    "Fowler",
    "Grange",
    "Holm",
    "Ivers",
    "Jarvis",
    "Kestrel",
    "Lund",
    "Marlow",
    "Norden",
    "Oakes",
    "Penrose",
    "Quill",
    "Rasmus",
    "Stroud",
    "Thorne",
    "Upton",
    "Vance",
    "Weller",
    "Yarrow",
)
STREETS: Final = (
    "Mill Lane",
    "Harbour Road",
    "Chapel Street",
    "Orchard Way",
    "Station Road",
    "Bridge Street",
    "Castle Hill",
    "Willow Walk",
)
PLACES: Final = (
    ("Portland", "OR"),
    ("Madison", "WI"),
    ("Boise", "ID"),
    ("Tucson", "AZ"),
    ("Albany", "NY"),
    ("Savannah", "GA"),
    ("Omaha", "NE"),
    ("Duluth", "MN"),
)
REASONS: Final = ("no longer needed", "ordered by mistake")


class Size(NamedTuple):
    """How large a shop is."""

    users: int
    products: int
    orders: int  # of a user


SIZES: Final = {"small": Size(24, 6, 4), "full": Size(500, 24, 6)}
