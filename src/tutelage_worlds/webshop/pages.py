"""The pages of WebShop: their texts and the actions on them.

A page is a row of visible texts. In the "text" wording they are joined by " [SEP] "; in "text_rich"
each stands on a line of its own, and what can be clicked is marked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final, Literal

from tutelage_worlds.webshop.product import Product

if TYPE_CHECKING:
    from tutelage_worlds.webshop.shop import Shop

Kind = Literal["plain", "button", "label", "link"]
Mode = Literal["text", "text_rich"]
PER_PAGE: Final = 10
CACHE_SIZE: Final = 4096
"""Pages that are remembered."""
MAX_CACHED_QUERY: Final = 1000
"""Queries longer than this are not remembered: there may be a million characters of them."""

SEARCH, BACK, PREVIOUS, NEXT, BUY = "search", "back to search", "< prev", "next >", "buy now"
SUB_PAGES: Final = {
    name.lower(): name for name in ("Description", "Features", "Reviews", "Attributes")
}

BUTTONS: Final = frozenset({SEARCH, BACK, PREVIOUS, NEXT, BUY, *SUB_PAGES})


@dataclass(frozen=True, slots=True)
class Node:
    """A visible text."""

    text: str
    kind: Kind = "plain"


@dataclass(frozen=True, slots=True)
class Click:
    """What a click does: `option` is the name of the choice that it sets, if it sets one."""

    link: bool = False
    option: str | None = None


BUTTON: Final = Click()


def nodes(*parts: str | Node) -> list[Node]:
    """Texts as a browser would keep them: blanks alone shrink, and empty ones or lines are lost."""
    result = []
    for part in parts:
        node = part if isinstance(part, Node) else Node(part)
        text = node.text
        if not text.strip(" \n\t\f\r"):
            if not text or "\n" in text:
                continue
            text = " "
        result.append(node if text == node.text else Node(text, node.kind))
    return result


@dataclass(frozen=True)
class Page:
    """The part of a page below its head; `clicks` by lower-case text, in the order of the page."""

    body: tuple[Node, ...]
    clicks: Mapping[str, Click]
    search_bar: bool = False

    @cached_property
    def text(self) -> str:
        return " [SEP] ".join(node.text.strip() for node in self.body)

    @cached_property
    def actions(self) -> tuple[str, ...]:
        """Everything that can be done here, as commands."""
        bar = ("search[<your query>]",) if self.search_bar else ()
        # a name with a bracket or a line break cannot be said, so it cannot be clicked
        names = (c for c in self.clicks if c and c != SEARCH and not {"[", "\n"} & set(c))
        return bar + tuple(f"click[{name}]" for name in names)

    def rich(self, head: Sequence[Node], url: str, visited: frozenset[str]) -> str:
        """In the wording "text_rich"; what was clicked is read off the address, as there."""
        clicked, lines = "", []
        for node in (*head, *self.body):
            if node.kind == "button":
                lines.append(f"[button] {node.text} [button_]\n")
            elif node.kind == "label" and f'"{node.text}"' in url:
                lines.append(f"  [clicked button] {node.text} [clicked button_]\n")
                clicked = f"You have clicked {node.text}.\n{clicked}"
            elif node.kind == "label":
                lines.append(f"  [button] {node.text} [button_]\n")
            elif node.kind == "link":
                mark = "clicked button" if node.text in visited else "button"
                lines.append(f"\n[{mark}] {node.text} [{mark}_]\n")
            else:
                lines.append(f"{node.text}\n")
        return clicked + "".join(lines)


def head(instruction: str) -> list[Node]:
    """What stands above every page but the first and the last."""
    return nodes("Instruction:", instruction, Node("Back to Search", "button"))


def start(instruction: str) -> Page:
    """The first page."""
    body = nodes("WebShop", "Instruction: ", instruction, Node("Search", "button"))
    return Page(tuple(body), {SEARCH: BUTTON}, search_bar=True)


def end(reward: float, asin: str, options: Mapping[str, str]) -> Page:
    """The last page. Most of it is empty: the site would say more than the text environment."""
    chosen = json.dumps(dict(options), sort_keys=True)
    for character in "<>&'":
        chosen = chosen.replace(character, f"\\u{ord(character):04x}")
    bought = ("asin", asin, "options", chosen, "attrs", "None", "category", "None")
    target = ("asin", "options", "attrs", "price upper", "instuction text", "category")
    body = nodes(
        "Thank you for shopping with us!",
        "Your code: ",
        "None",
        " (Paste it in your MTurk interface.)",
        "Purchased",
        *bought,
        "query",
        "None",
        "product category",
        "None",
        "Target",
        *target,
        "product category",
        "query",
        "Goal ",
        "None",
        "Reward",
        "Your score (min 0.0, max 1.0)",
        str(reward),
        "Reward Details ",
        "None",
    )
    return Page(tuple(body), {})


class Pages:
    """The pages of a shop, remembered; with `attributes`, products have a button for theirs."""

    def __init__(self, shop: "Shop", attributes: bool) -> None:
        self.shop, self.attributes = shop, attributes
        self.item = lru_cache(CACHE_SIZE)(self._item)
        self.sub = lru_cache(CACHE_SIZE)(self._sub)
        self._cached_results = lru_cache(CACHE_SIZE)(self._results)

    def results(self, query: str, page: int, draw: str) -> Page:
        """A page of what a search finds; `draw` decides what random searches find."""
        if len(query) > MAX_CACHED_QUERY:
            return self._results(query, page, draw)
        return self._cached_results(query, page, draw if self.shop.is_random(query) else "")

    def _results(self, query: str, page: int, draw: str) -> Page:
        found = self.shop.search(query, draw)
        body: list[str | Node] = [f"Page {page} (Total results: {len(found)})"]
        clicks = {BACK: BUTTON}
        if page > 1:
            body.append(Node("< Prev", "button"))
            clicks[PREVIOUS] = BUTTON
        body.append(Node("Next >", "button"))
        clicks[NEXT] = BUTTON
        # an address that the agent made up can lead before the first page; slices tell what is
        # there just as they do for the site
        for number in found[(page - 1) * PER_PAGE : page * PER_PAGE]:
            product = self.shop.product(number)
            body += [Node(product.asin, "link"), product.title, product.price_tag]
            clicks[product.asin.lower()] = Click(link=True)
        return Page(tuple(nodes(*body)), clicks)

    def _item(self, number: int) -> Page:
        product = self.shop.product(number)
        names = list(SUB_PAGES.values())[: 4 if self.attributes else 3]
        body: list[str | Node] = [Node("< Prev", "button")]
        for name, values in product.options.items():
            body += [name, *(Node(value, "label") for value in values)]
        body += [product.title, f"Price: {product.price_tag}", "Rating: N.A."]
        body += [Node(name, "button") for name in (*names, "Buy Now")]
        clicks = {text.lower(): BUTTON for text in (BACK, PREVIOUS, *names, BUY)}
        for name, values in product.options.items():
            clicks.update((value, Click(option=name)) for value in values)
        return Page(tuple(nodes(*body)), clicks)

    def _sub(self, number: int, name: str) -> Page:
        body = nodes(Node("< Prev", "button"), *_details(self.shop.product(number), name))
        return Page(tuple(body), {BACK: BUTTON, PREVIOUS: BUTTON})


def _details(product: Product, name: str) -> list[str]:
    if name == "Description":
        return [product.description]
    if name == "Features":
        return [f" {bullet}" for bullet in product.bullets]
    if name == "Attributes":
        kinds = (product.category, product.query, product.product_category)
        return [*(f" {attribute}" for attribute in product.attributes), *kinds]
    # the site has reviews, but what it loads of them is empty
    return []
