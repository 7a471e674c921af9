"""Text to index terms as Lucene 8's EnglishAnalyzer does it.

Words by the rules of Unicode (UAX #29), without possessives, in lower case, without 33 stop words,
and reduced to Porter's stems.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from tutelage_worlds.webshop.porter import stem

_STOP_WORDS: Final = """
    a an and are as at be but by for if in into is it no not of on or such that the their then
    there these they this to was will with
"""
STOP_WORDS: Final = frozenset(_STOP_WORDS.split())
LONGEST: Final = 255
"""Longer words are cut into pieces of this length."""

_ASCII: Final = re.compile(
    r"(?=_*[A-Za-z0-9])(?:[A-Za-z](?:[:.'](?=[A-Za-z]))?|[0-9](?:[,;.'](?=[0-9]))?|_)+|_+"
)

# one letter for each class of UAX #29: A letter, N digit, _ underscore, K katakana, H a word by
# itself, S of a script written without blanks and s a mark in one, E pictograph and M its shade,
# R regional indicator, Z joiner, x what belongs to the character before; : . , are marks inside
# words and numbers
_WORD: Final = re.compile(
    r"(?P<run>(?:_[xZs]*+)++)(?![AN])(?:S[SsxZ]*)?"
    r"|(?:A[xZs]*(?:[:.][xZs]*(?=A))?|N[xZs]*(?:[,.][xZs]*(?=N))?|_[xZs]*)+"
    r"|(?:K[xZs]*)+|H[xZs]*|[Ss][SsxZ]*|[EM][xZs]*(?:M[xZs]*)?(?:(?<=Z)E[xZs]*(?:M[xZs]*)?)*"
    r"|R[xZs]*R[xZs]*"
)
_UNSPACED: Final = re.compile("[Ss][SsxZ]*")
# both take a run of underscores without a letter after it at once: looking for a letter after each
# of them would take time that grows with the square of their number
_MARKS: Final = {
    **dict.fromkeys((0x3A, 0xB7, 0x2D7, 0x387, 0x5F4, 0x2027, 0xFE13, 0xFE55, 0xFF1A), ":"),
    **dict.fromkeys((0x27, 0x2E, 0x2018, 0x2019, 0x2024, 0xFE52, 0xFF07, 0xFF0E), "."),
    **dict.fromkeys((0x2C, 0x3B, 0x37E, 0x589, 0x60C, 0x60D, 0x66C, 0x7F8, 0x2044), ","),
    **dict.fromkeys((0xFE10, 0xFE14, 0xFE50, 0xFE54, 0xFF0C, 0xFF1B), ","),
    0x200B: " ",
    0x200D: "Z",
    0x202F: "_",
}
_APOSTROPHES: Final = "'\u2019\uff07"
_RANGES: Final = (
    (0x0E01, 0x0EDF, "S"),
    (0x1000, 0x109F, "S"),
    (0x1780, 0x17DD, "S"),
    (0x1950, 0x19DF, "S"),
    (0x1A20, 0x1AAD, "S"),
    (0xA9E0, 0xA9FE, "S"),
    (0xAA60, 0xAADF, "S"),
    (0x2E80, 0x2FD5, "H"),
    (0x3007, 0x3007, "H"),
    (0x3021, 0x3029, "H"),
    (0x3031, 0x3035, "K"),
    (0x3038, 0x303A, "H"),
    (0x3041, 0x3096, "H"),
    (0x309B, 0x309C, "K"),
    (0x309D, 0x309F, "H"),
    (0x30A0, 0x30FA, "K"),
    (0x30FC, 0x30FF, "K"),
    (0x31F0, 0x31FF, "K"),
    (0x32D0, 0x32FE, "K"),
    (0x3300, 0x3357, "K"),
    (0x3400, 0x4DBF, "H"),
    (0x4E00, 0x9FFF, "H"),
    (0xF900, 0xFAD9, "H"),
    (0xFF66, 0xFF9D, "K"),
    (0x1B000, 0x1B000, "K"),
    (0x1B001, 0x1B001, "H"),
    (0x20000, 0x3FFFD, "H"),
    (0x1F1E6, 0x1F1FF, "R"),
    (0x1F3FB, 0x1F3FF, "M"),
    (0xA9, 0xA9, "E"),
    (0xAE, 0xAE, "E"),
    (0x203C, 0x203C, "E"),
    (0x2049, 0x2049, "E"),
    (0x2122, 0x2122, "E"),
    (0x2139, 0x2139, "E"),
    (0x2194, 0x2199, "E"),
    (0x21A9, 0x21AA, "E"),
    (0x231A, 0x231B, "E"),
    (0x2328, 0x2328, "E"),
    (0x2388, 0x2388, "E"),
    (0x23CF, 0x23CF, "E"),
    (0x23E9, 0x23F3, "E"),
    (0x23F8, 0x23FA, "E"),
    (0x24B6, 0x24E9, "A"),
    (0x25AA, 0x25AB, "E"),
    (0x25B6, 0x25B6, "E"),
    (0x25C0, 0x25C0, "E"),
    (0x25FB, 0x25FE, "E"),
    (0x2600, 0x2605, "E"),
    (0x2607, 0x2612, "E"),
    (0x2614, 0x2685, "E"),
    (0x2690, 0x2705, "E"),
    (0x2708, 0x2712, "E"),
    (0x2714, 0x2714, "E"),
    (0x2716, 0x2716, "E"),
    (0x271D, 0x271D, "E"),
    (0x2721, 0x2721, "E"),
    (0x2728, 0x2728, "E"),
    (0x2733, 0x2734, "E"),
    (0x2744, 0x2744, "E"),
    (0x2747, 0x2747, "E"),
    (0x274C, 0x274C, "E"),
    (0x274E, 0x274E, "E"),
    (0x2753, 0x2755, "E"),
    (0x2757, 0x2757, "E"),
    (0x2763, 0x2767, "E"),
    (0x2795, 0x2797, "E"),
    (0x27A1, 0x27A1, "E"),
    (0x27B0, 0x27B0, "E"),
    (0x27BF, 0x27BF, "E"),
    (0x2934, 0x2935, "E"),
    (0x2B05, 0x2B07, "E"),
    (0x2B1B, 0x2B1C, "E"),
    (0x2B50, 0x2B50, "E"),
    (0x2B55, 0x2B55, "E"),
    (0x3030, 0x3030, "E"),
    (0x303D, 0x303D, "E"),
    (0x3297, 0x3297, "E"),
    (0x3299, 0x3299, "E"),
    (0x1F000, 0x1F0F5, "E"),
    (0x1F10D, 0x1F10F, "E"),
    (0x1F130, 0x1F149, "A"),
    (0x1F150, 0x1F169, "A"),
    (0x1F170, 0x1F189, "A"),
    (0x1F18E, 0x1F1AD, "E"),
    (0x1F200, 0x1F265, "E"),
    (0x1F300, 0x1F53D, "E"),
    (0x1F546, 0x1F64F, "E"),
    (0x1F680, 0x1F6FC, "E"),
    (0x1F7D5, 0x1F7F0, "E"),
    (0x1F8B0, 0x1F8B1, "E"),
    (0x1F90C, 0x1FAFF, "E"),
)


class _Classes(dict[int, str]):
    """The class of each code point, found when it is first met."""

    def __missing__(self, point: int) -> str:
        category = unicodedata.category(chr(point))
        found = next((kind for low, high, kind in _RANGES if low <= point <= high), "")
        if found == "S" and category[0] == "M":
            found = "s"
        elif not found or (found == "S" and category[0] != "L"):
            found = _by_category(category)
        self[point] = found
        return found


def _by_category(category: str) -> str:
    if category[0] == "L" or category == "Nl":
        return "A"
    if category[0] == "M" or category == "Cf":
        return "x"
    return {"Nd": "N", "Pc": "_"}.get(category, " ")


_CLASSES: Final = _Classes(_MARKS)


def words(text: str) -> list[str]:
    """The words of a text, as they are written.

    >>> words("AT&T's 3,000 e-mails: a.b, 1.5")
    ['AT', "T's", '3,000', 'e', 'mails', 'a.b', '1.5']
    """
    if text.isascii():
        found = [word for word in _ASCII.findall(text) if word.strip("_")]
    else:
        found = [text[start:end] for start, end in _spans(text.translate(_CLASSES))]
    if all(len(word) <= LONGEST for word in found):
        return found
    return [word[i : i + LONGEST] for word in found for i in range(0, len(word), LONGEST)]


def _spans(classes: str) -> Iterator[tuple[int, int]]:
    """Where words begin and end."""
    for match in _WORD.finditer(classes):
        if match["run"] is None:
            yield match.span()
        else:  # words of a script without blanks that stand between underscores
            yield from (piece.span() for piece in _UNSPACED.finditer(classes, *match.span()))


def terms(text: str) -> list[str]:
    """The index terms of a text, in order.

    >>> terms("The women's running-shoes")
    ['women', 'run', 'shoe']
    """
    result = []
    for word in words(text.lower()):
        if len(word) > 1 and word[-1] == "s" and word[-2] in _APOSTROPHES:
            word = word[:-2]
        if word not in STOP_WORDS:
            result.append(stem(word))
    return result
