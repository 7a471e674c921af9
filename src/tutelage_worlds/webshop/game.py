"""One episode of webshop: from the first page to a purchase."""

import json
from collections.abc import Hashable
from typing import Final, Literal

from tutelage_worlds.webshop import pages
from tutelage_worlds.webshop.pages import BACK, BUY, NEXT, PREVIOUS, SUB_PAGES, Mode, Page, Pages
from tutelage_worlds.webshop.reward import Nouns, reward

SITE: Final = "http://127.0.0.1:3000"
Where = Literal["index", "search_results", "item_page", "item_sub_page", "done"]


def parse(action: str) -> tuple[str, str]:
    """The name and the argument of an action, the argument in lower case; empty if it has none.

    What the regular expression `(.+)\\[(.+)\\]` finds at the beginning, without its time.

    >>> parse("search[Red Shoes]"), parse("click[a]b]"), parse("buy")
    (('search', 'red shoes'), ('click', 'a]b'), ('buy', ''))
    """
    line = action.partition("\n")[0]
    close = line.rfind("]")
    opening = line.rfind("[", 1, max(close - 1, 0))
    if opening < 1:
        return action, ""
    return line[:opening], line[opening + 1 : close].lower()


class Game:
    """A visit: the page that is shown and everything that led there.

    visited  asins whose links were clicked since the last start
    worth    what was bought is worth; None before
    """

    def __init__(self, shown: Pages, goal: int, nouns: Nouns, mode: Mode) -> None:
        self._pages, self._shop = shown, shown.shop
        self._nouns, self._rich, self._session = nouns, mode == "text_rich", str(goal)
        self.goal = self._shop.goal(goal)
        self._start = pages.start(self.goal.text)
        self._head = pages.head(self.goal.text)
        self._before = "".join(f"{node.text.strip()} [SEP] " for node in self._head)
        self.worth: float | None = None
        self._options: dict[str, str] = {}
        self._query, self._number, self._product, self._sub = "", 1, -1, ""
        self._reset()

    def _reset(self) -> None:
        self.where: Where = "index"
        self.page: Page = self._start
        self._query, self._number, self._product = "", 1, -1
        self._options, self.visited = {}, frozenset[str]()

    # -- what is seen

    def text(self) -> str:
        if self.where in ("index", "done"):
            return self.page.rich((), "", self.visited) if self._rich else self.page.text
        if self._rich:
            address = self._address() if self.where == "item_page" else ""
            return self.page.rich(self._head, address, self.visited)
        return self._before + self.page.text

    def key(self) -> Hashable:
        """Equal in equal situations: what is seen, and what any actions would lead to."""
        seen = self.visited if self._rich else ""
        options = tuple(sorted(self._options.items()))
        return (self.where, self._query, self._number, self._product, self._sub, options, seen)

    def _address(self) -> str:
        """The address of a product's page."""
        asin = self._shop.product(self._product).asin
        keywords = self._query.replace(" ", "+")
        chosen = json.dumps(self._options)
        return f"{SITE}/item_page/{self._session}/{asin}/{keywords}/{self._number}/{chosen}"

    # -- what is done

    def step(self, action: str) -> bool:
        """Whether the action was one; if not, nothing has changed."""
        name, argument = parse(action)
        if self.where == "done" or not argument:
            return False
        if name == "search":
            self._search(argument, 1)
            return True
        if name == "click" and argument != pages.SEARCH and argument in self.page.clicks:
            return self._click(argument)
        return False

    def _search(self, query: str, number: int) -> None:
        self.where, self._query, self._number, self._sub = "search_results", query, number, ""
        self._product, self._options = -1, {}
        self.page = self._pages.results(query, number, self._session)

    def _click(self, name: str) -> bool:
        if name == BUY:
            self._buy()
        elif name == BACK:
            self._reset()
        elif name in (NEXT, PREVIOUS) and self._taken_for() == "search_results":
            self._search(self._query, self._number + (1 if name == NEXT else -1))
        elif name == PREVIOUS and self._taken_for() == "item_page":
            self._search(self._query, self._number)
        elif name in SUB_PAGES:
            self.where, self._sub = "item_sub_page", SUB_PAGES[name]
            self.page = self._pages.sub(self._product, self._sub)
        else:
            return self._open(name)
        return True

    def _open(self, name: str) -> bool:
        """A product's page: after its link, one of its options, or back from a page below it."""
        click = self.page.clicks[name]
        if click.link:
            found = self._shop.number(name.upper())
            if found is None:
                return False
            self._product = found
            self.visited |= {name.upper()}
        elif click.option is not None:
            self._options[click.option] = name
        self.where, self._sub = "item_page", ""
        self.page = self._pages.item(self._product)
        return True

    def _taken_for(self) -> Where:
        """The page that the site takes this one for: it looks for names of pages in the address,
        in which the query and the options stand too."""
        if self.where in ("search_results", "index"):
            return self.where
        address = f"{self._query}\n{self._options}"
        if "search_results" in address:
            return "search_results"
        return "item_page" if self.where == "item_page" or "item_page" in address else self.where

    def _buy(self) -> None:
        product = self._shop.product(self._product)
        wanted = self._shop.product(self.goal.product)
        price = self._shop.prices[self._product]
        self.worth = reward(product, price, self._options, self.goal, wanted, self._nouns)
        self.page = pages.end(self.worth, product.asin, self._options)
        self.where = "done"
