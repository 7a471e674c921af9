"""Experts of webshop: one that reads pages, and one that knows the product to buy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tutelage_worlds.webshop.game import Game
from tutelage_worlds.webshop.pages import BUTTONS, PER_PAGE
from tutelage_worlds.webshop.product import Goal, Product
from tutelage_worlds.webshop.reward import matched_options
from tutelage_worlds.webshop.wish import Wish, choose, read, within, words

if TYPE_CHECKING:
    from tutelage_worlds.webshop.shop import Shop

Turns = list[tuple[str, str]]
"""Actions with the thoughts behind them."""
PATIENCE: Final = 12
"""Products that are opened before the best of them is bought."""


def demonstrate(game: Game, shop: "Shop") -> Turns:
    """Search with the words of the instruction, open what fits best by title and price, look into
    its features and description for what the title does not tell, and buy the first product that
    has everything; if none has, the one that lacks least."""
    return _Shopper(game, shop).run()


class _Shopper:
    def __init__(self, game: Game, shop: "Shop") -> None:
        self.game, self.shop, self.turns = game, shop, Turns()
        self.asked = game.goal.text
        self.wish: Wish = read(self.asked, lambda phrase: bool(shop.search(f"<a> {phrase}")))
        self.best: tuple[int, int] | None = None  # what the best opened product lacks; its number

    def act(self, action: str, thought: str) -> None:
        self.game.step(action)
        self.turns.append((action, thought))

    def run(self) -> Turns:
        query = self.wish.query or "product"
        self.act(f"search[{query}]", f"look for {query}")
        found = self.shop.search(query)
        least, opened = None, 0
        for start in range(0, max(len(found), 1), PER_PAGE):
            if start:
                self.act("click[next >]", "nothing more fits on this page")
            shown = [
                n
                for n in found[start : start + PER_PAGE]
                if within(self.shop.product(n).price_tag, self.asked)
            ]
            if least is None and shown:
                least = min(self.missing(n) for n in shown)
            for number in sorted(shown, key=self.missing):
                if least is not None and self.missing(number) <= least and opened < PATIENCE:
                    opened += 1
                    if self.fits(number):
                        return self.buy(number, "it has everything")
                    self.act("click[< prev]", "back to the results")
        return self.settle(query, found)

    def missing(self, number: int) -> int:
        """How many words for the kind of product or its options a title does not have."""
        title = set(words(self.shop.product(number).title))
        return sum(word not in title for word in self.wish.rest)

    def fits(self, number: int) -> bool:
        """Open a product and find out whether it has everything; if so, its page is shown."""
        product = self.shop.product(number)
        # a page has the code before the title: who reads the code out first need not look back
        code, title = product.asin.lower(), " ".join(words(product.title))
        self.act(f"click[{code}]", f"{code} {title} may fit")
        chosen = " ".join(choose(product.options, self.wish.text).values())
        have = {*words(product.title), *words(chosen)}
        lacking = sum(word not in have for word in self.wish.rest)
        unknown = [a for a in self.wish.attributes if a not in product.title.lower()]
        if not lacking:
            texts = {"features": " ".join(product.bullets), "description": product.description}
            for name, text in texts.items():
                if unknown:
                    self.act(f"click[{name}]", f"is it {unknown[0]}")
                    self.act("click[< prev]", "back to the product")
                    unknown = [a for a in unknown if a not in text.lower()]
        lacking += len(unknown)
        if self.best is None or lacking < self.best[0]:
            self.best = lacking, number
        return not lacking

    def buy(self, number: int, why: str) -> Turns:
        for value in choose(self.shop.product(number).options, self.wish.text).values():
            self.act(f"click[{value}]", f"{value} is wanted")
        self.act("click[buy now]", why)
        return self.turns

    def settle(self, query: str, found: Sequence[int]) -> Turns:
        """Buy what lacks least, or the first that was found; nothing if nothing was."""
        if not found:
            return self.turns
        number = self.best[1] if self.best else found[0]
        self.act(f"search[{query}]", "one of these must do")
        for _ in range(found.index(number) // PER_PAGE):
            self.act("click[next >]", "it was further on")
        self.act(f"click[{self.shop.product(number).asin.lower()}]", "this one lacks least")
        return self.buy(number, "nothing fits better")


def plan(game: Game, shop: "Shop") -> list[str]:
    """The product that the instruction was written for, found by its title, with its options."""
    goal, wanted = game.goal, shop.product(game.goal.product)
    title = " ".join(wanted.title.translate(dict.fromkeys(map(ord, "[]"), " ")).lower().split())
    ways = [
        (shop.search(query).index(goal.product), query)
        for query in (title, f"<q> {wanted.query}")
        if query and goal.product in shop.search(query)
    ]
    place, query = min(ways, key=lambda way: way[0] // PER_PAGE)
    turns = ["click[next >]"] * (place // PER_PAGE)
    # a value that is called like a button, or cannot be said, cannot be chosen
    values = [v for v in _gold_options(wanted, goal) if v not in BUTTONS and not set("[\n") & {*v}]
    options = [f"click[{value}]" for value in values if value]
    link = f"click[{wanted.asin.lower()}]"
    return [f"search[{query}]", *turns, link, *options, "click[buy now]"]


def _gold_options(product: Product, goal: Goal) -> list[str]:
    """Values of the product's choices that match what is wanted, one of a choice."""
    if not isinstance(goal.options, tuple):
        return list(goal.options.values())
    options: dict[str, str] = {}
    for wish in goal.options:
        offers = [
            (value == wish, name, value)
            for name, values in product.options.items()
            for value in values
            if name not in options and matched_options([value], (wish,))
        ]
        if offers:
            _, name, value = max(offers, key=lambda offer: offer[0])
            options[name] = value
    return list(options.values())
