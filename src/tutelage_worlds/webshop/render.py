"""Compact renderings of pages for small models: the text without the instruction."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from tutelage.types import Observation
from tutelage_worlds.webshop.wish import mentions, read, within, words

SEPARATOR: Final = " [SEP] "
_PAGE: Final = re.compile(r"Page (-?\d+) \(Total results: (\d+)\)")
_MARK: Final = re.compile(r"(?<=\S)([,.;:])(?=\s|$)")
Words = Callable[[str], str]


def compact(observation: Observation) -> str:
    """An observation in few words. Texts of another wording stay as they are.

    >>> text = "Instruction: [SEP] Find tea [SEP] Back to Search [SEP] Page 1 (Total results: 1)"
    >>> compact(Observation(text=f"{text} [SEP] Next > [SEP] B01 [SEP] Green Tea [SEP] $4.5"))
    'page 1 , 1 found\\nb01 : green tea , $4.5'
    """
    return _worded(observation, _plain, lambda value: value, lambda tag: tag)


def marked(observation: Observation) -> str:
    """As `compact`, with a star before each word of a title and each option that the instruction
    has, and before each price within its limit: for models too small to compare at a distance.

    >>> text = "Instruction: [SEP] Find tea [SEP] Back to Search [SEP] Page 1 (Total results: 1)"
    >>> text = f"{text} [SEP] Next > [SEP] B01 [SEP] Green Tea [SEP] $4.5"
    >>> marked(Observation(text=text, focus=("find tea , and price lower than 10.00 dollars",)))
    'page 1 , 1 found\\nb01 : green * tea , * $4.5'
    """
    focus = " ".join(observation.focus)
    wish = read(focus, lambda phrase: False)
    asked = set(wish.rest)

    def star_words(text: str) -> str:
        return " ".join(
            f"* {word}" if asked & set(words(word)) else word for word in _plain(text).split()
        )

    def star_option(value: str) -> str:
        return f"* {value}" if mentions(wish.text, value) else value

    def star_price(tag: str) -> str:
        return f"* {tag}" if within(tag, focus) else tag

    return _worded(observation, star_words, star_option, star_price)


def _plain(text: str) -> str:
    """In lower case, with blanks before the marks between words.

    >>> _plain("Tea, 2.5 oz. New")
    'tea , 2.5 oz . new'
    """
    return _MARK.sub(r" \1", text.lower())


def _worded(seen: Observation, text: Words, option: Words, price: Words) -> str:
    parts = seen.text.split(SEPARATOR)
    if seen.done:
        return f"bought : score {seen.score}"
    if parts[0] == "WebShop":
        return f"wanted : {_plain(SEPARATOR.join(parts[2:-1]))}"
    if parts[0] != "Instruction:" or "Back to Search" not in parts:
        return seen.text
    body = parts[parts.index("Back to Search") + 1 :]
    page = _PAGE.fullmatch(body[0]) if body else None
    if page:
        return _results(page, body[1:], text, price)
    if "Rating: N.A." in body and "click[buy now]" in seen.actions:
        return _product(body, seen.actions, text, option, price)
    return "told : " + " ; ".join(text(part) for part in body[1:])


def _results(page: re.Match[str], rest: Sequence[str], text: Words, price: Words) -> str:
    lines = [f"page {page[1]} , {page[2]} found"]
    products = [part for part in rest if part not in ("< Prev", "Next >")]
    for code, title, tag in zip(products[::3], products[1::3], products[2::3], strict=False):
        lines.append(f"{code.lower()} : {text(title)} , {price(tag)}")
    return "\n".join(lines)


def _product(
    body: Sequence[str], actions: Sequence[str], text: Words, option: Words, price: Words
) -> str:
    end = body.index("Rating: N.A.")
    title, tag = body[end - 2], body[end - 1].removeprefix("Price: ")
    lines = [f"{text(title)} , {price(tag)}"]
    for part in body[1 : end - 2]:
        if f"click[{part}]" not in actions:
            lines.append(f"{part} :")
        elif lines[-1].endswith(" :"):
            lines[-1] += f" {option(part)}"
        else:
            lines[-1] += f" , {option(part)}"
    return "\n".join(lines)
