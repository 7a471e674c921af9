"""The product kinds of the generated shop, with their attributes and options."""

from dataclasses import dataclass
from typing import Final

from tutelage_worlds.webshop.product import BELOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Ware:
    """A kind of product. `some` is how an instruction asks for it, "a pair of" for shoes."""

    category: str
    name: str
    some: str
    path: str
    prices: tuple[float, float]
    attributes: tuple[str, ...]
    choices: tuple[str, ...]


CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "color": (
        "black",
        "white",
        "red",
        "navy blue",
        "sky blue",
        "forest green",
        "olive",
        "dark grey",
        "silver",
        "purple",
        "coral pink",
        "yellow",
        "burnt orange",
        "brown",
        "beige",
        "turquoise",
    ),
    "size": ("x-small", "small", "medium", "large", "x-large", "xx-large", "3x-large"),
    "shoe size": ("6", "6.5", "7", "7.5", "8", "8.5", "9", "9.5", "10", "10.5", "11", "12 wide"),
    "flavor": (
        "dark chocolate",
        "sea salt",
        "vanilla bean",
        "lemon ginger",
        "wild berry",
        "peanut butter",
        "mango chili",
        "cinnamon apple",
        "garlic herb",
        "maple",
        "hazelnut",
        "coconut",
    ),
    "quantity": ("single", "pack of 2", "pack of 3", "pack of 6", "pack of 12", "pack of 24"),
    "scent": (
        "lavender",
        "eucalyptus mint",
        "rose petal",
        "pine needle",
        "citrus burst",
        "unscented",
        "jasmine",
        "cedar",
        "tea tree",
        "honey almond",
    ),
    "volume": ("1 fl oz", "2 fl oz", "4 fl oz", "8 fl oz", "16 fl oz", "32 fl oz"),
    "dimensions": (
        "2 x 3 ft",
        "3 x 5 ft",
        "4 x 6 ft",
        "5 x 7 ft",
        "6 x 9 ft",
        "8 x 10 ft",
        "9 x 12 ft",
    ),
    "bed size": ("twin", "twin xl", "full", "queen", "king", "california king"),
    "length": ("3 feet", "6 feet", "10 feet", "15 feet", "25 feet", "50 feet"),
    "storage": ("32 gb", "64 gb", "128 gb", "256 gb", "512 gb", "1 tb"),
}

_ATTRIBUTES: Final[dict[str, str]] = {
    "fashion": "machine washable, hand wash only, moisture wicking, long sleeve, short sleeve, "
    "loose fit, slim fit, stretch fabric, quick drying, wrinkle free, elastic waist, high waist, "
    "button closure, drawstring closure, tumble dry, breathable mesh, faux leather, cotton lining",
    "shoes": "rubber sole, memory foam, arch support, slip resistant, lace up, steel toe, "
    "ankle support, shock absorbing, faux leather, breathable mesh, ethylene vinyl, roomy toe box, "
    "low heel, water resistant, quick drying, leather lining",
    "grocery": "gluten free, sugar free, non gmo, low sodium, dairy free, keto friendly, "
    "plant based, high protein, fat free, kosher certified, usda organic, artificial colors free, "
    "low calorie, individually wrapped, resealable bag, nut free, rich in fiber, ready to eat",
    "beauty": "cruelty free, paraben free, long lasting, sulfate free, fragrance free, alcohol "
    "free, dermatologist tested, hyaluronic acid, coconut oil, vitamin c, easy to apply, oil free, "
    "travel size, sensitive skin, dry skin, anti aging, natural ingredients, leak proof",
    "electronics": "noise cancelling, fast charging, high resolution, plug and play, easy to "
    "install, hands free, long battery life, carrying case, gold plated, heavy duty, stereo sound, "
    "remote control, wall mounted, high speed, dust proof, ultra hd, tangle free, usb port",
    "furniture": "easy to assemble, space saving, solid wood, stainless steel, fade resistant, "
    "easy to clean, high density foam, hand made, living room, dining room, scratch resistant, "
    "storage space, water resistant, heavy duty, height adjustable, mid century, faux leather, "
    "metal legs",
    "bedding": "machine washable, stain resistant, non slip backing, fade resistant, easy to "
    "clean, memory foam, energy efficient, hand woven, double sided, living room, dining room, "
    "long lasting, super soft, hypo allergenic, tumble dry, eco friendly, wrinkle free, easy care",
}

# category, pool of attributes, path above the kind; then name, words before it, lowest and highest
# price, choices
_WARES: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
        "fashion",
        "fashion",
        "Clothing, Shoes & Jewelry > Clothing",
        """
        polo shirt; a; 12 45; color, size
        hooded sweatshirt; a; 20 70; color, size
        cargo pants; ; 18 65; color, size
        denim jacket; a; 30 110; color, size
        yoga leggings; ; 14 50; color, size
        summer dress; a; 18 80; color, size
        pajama set; a; 16 60; color, size
        swim trunks; ; 12 40; color, size
        wool socks; ; 8 30; color, quantity""",
    ),
    (
        "fashion",
        "shoes",
        "Clothing, Shoes & Jewelry > Shoes",
        """
        running shoes; a pair of; 30 140; color, shoe size
        hiking boots; a pair of; 45 190; color, shoe size
        house slippers; a pair of; 12 45; color, shoe size
        platform sandals; a pair of; 18 75; color, shoe size""",
    ),
    (
        "grocery",
        "grocery",
        "Grocery & Gourmet Food > Snacks",
        """
        granola bars; ; 6 35; flavor, quantity
        trail mix; some; 6 40; flavor, quantity
        protein cookies; ; 10 45; flavor, quantity
        rice crackers; ; 4 30; flavor, quantity
        popcorn kernels; ; 5 30; flavor, quantity
        fruit gummies; ; 4 28; flavor, quantity""",
    ),
    (
        "grocery",
        "grocery",
        "Grocery & Gourmet Food > Beverages",
        """
        ground coffee; some; 8 50; flavor, quantity
        herbal tea; some; 5 35; flavor, quantity
        oat milk; some; 4 40; flavor, quantity
        sparkling water; some; 5 36; flavor, quantity""",
    ),
    (
        "beauty",
        "beauty",
        "Beauty & Personal Care > Skin Care",
        """
        face serum; a; 10 75; volume
        body lotion; a; 7 45; scent, volume
        night cream; a; 10 80; volume
        lip balm; a; 4 22; scent, quantity
        sunscreen spray; a; 8 40; volume""",
    ),
    (
        "beauty",
        "beauty",
        "Beauty & Personal Care > Hair Care",
        """
        shampoo bar; a; 6 30; scent, quantity
        hair conditioner; a; 7 45; scent, volume
        hair mask; a; 8 50; scent, volume
        styling gel; a; 5 35; scent, volume""",
    ),
    (
        "electronics",
        "electronics",
        "Electronics > Audio & Video",
        """
        bluetooth speaker; a; 20 160; color
        wireless earbuds; ; 15 140; color
        studio headphones; ; 30 250; color
        home projector; a; 70 420; color
        hdmi cable; an; 6 60; color, length""",
    ),
    (
        "electronics",
        "electronics",
        "Electronics > Computers & Accessories",
        """
        mechanical keyboard; a; 30 180; color
        laptop stand; a; 15 90; color
        phone charger; a; 8 60; color, length
        security camera; a; 25 220; storage
        tablet case; a; 10 60; color
        memory card; a; 8 160; storage""",
    ),
    (
        "garden",
        "furniture",
        "Home & Kitchen > Furniture",
        """
        coffee table; a; 60 380; color
        bar stools; a set of; 50 320; color
        bookshelf; a; 40 260; color
        office chair; an; 70 390; color
        storage ottoman; a; 30 160; color""",
    ),
    (
        "garden",
        "bedding",
        "Home & Kitchen > Bedding & Decor",
        """
        area rug; an; 25 290; color, dimensions
        throw pillow; a; 8 45; color, quantity
        blackout curtains; ; 15 90; color, length
        weighted blanket; a; 30 150; color, bed size
        mattress topper; a; 40 280; bed size
        table lamp; a; 18 120; color""",
    ),
)


def _wares() -> tuple[Ware, ...]:
    wares = []
    for category, pool, path, table in _WARES:
        for line in table.strip().splitlines():
            name, some, prices, choices = (part.strip() for part in line.split(";"))
            low, high = prices.split()
            wares.append(
                Ware(
                    category=category,
                    name=name,
                    some=some,
                    path=f"{path} > {name.title()}".replace(">", BELOW),
                    prices=(float(low), float(high)),
                    attributes=tuple(_ATTRIBUTES[pool].split(", ")),
                    choices=tuple(choices.split(", ")),
                )
            )
    return tuple(wares)


WARES: Final = _wares()

SYLLABLES: Final = (
    "bel",
    "cor",
    "dan",
    "el",
    "fen",
    "gar",
    "hal",
    "in",
    "jor",
    "kel",
    "lum",
    "mar",
    "nor",
    "ol",
    "pen",
    "quil",
    "ros",
    "sel",
    "tam",
    "ul",
    "ven",
    "wil",
    "xan",
    "yor",
    "zel",
)
_CODES: Final = """
    bak bem bir bod buf dag dek dim dov dul fab fen fip fog fud gam ged gik gor gup kaf kel kib kom
    kuv lag lep lim lod luk mab mez
"""
CODES: Final = _CODES.split()
"""Syllables of product codes, 32 of them."""
WHOM: Final = ("Men", "Women", "Adults", "Beginners", "Gifts", "Travel", "Everyday Use")
PRAISE: Final = (
    "made to be used every day and to last",
    "you will notice it from the first use",
    "chosen by our team after long tests",
    "what our customers ask us for most",
    "checked piece by piece before it leaves our workshop",
    "so that you have one thing less to care about",
    "for people who know what they want",
)
OPENINGS: Final = (
    "Meet the {name} of {brand}",
    "{brand} has made its {name} better again",
    "The {brand} {name} is a present that pleases",
    "A {name} from {brand} for home and on the way",
)
ASKING: Final = (
    "i am looking for {some} {attributes} {name}{options}",
    "i need {some} {attributes} {name}{options}",
    "find me {some} {name} that should be {listed}{options}",
    "i want to buy {some} {name}, {listed}{options}",
    "can you find {some} {attributes} {name}{options}",
    "please find me {some} {name} with {listed}{options}",
)
CHOOSING: Final = (", in {values}", ". i would like {values}", ", and i want {values}")
