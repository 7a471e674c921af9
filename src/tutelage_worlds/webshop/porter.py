"""Porter's stemmer (Porter, 1980), as Lucene's PorterStemFilter implements it.

It has the two departures of its author's later programs, "bli" to "ble" and "logi" to "log".

A word is seen as [C](VC)^m[V] with C and V runs of consonants and vowels; m is its measure. "y" is
a vowel after a consonant.
"""

from functools import lru_cache
from typing import Final

_STEP2: Final = (
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
)
_STEP3: Final = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
)
_STEP4: Final = (
    "al",
    "ance",
    "ence",
    "er",
    "ic",
    "able",
    "ible",
    "ant",
    "ement",
    "ment",
    "ent",
    "ion",
    "ou",
    "ism",
    "ate",
    "iti",
    "ous",
    "ive",
    "ize",
)


def _shape(word: str) -> str:
    """A "c" or "v" for each letter.

    >>> _shape("toy"), _shape("syzygy")
    ('cvc', 'cvcvcv')
    """
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape.endswith("c"))
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """m of [C](VC)^m[V]."""
    return _shape(word).count("vc")


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _short(word: str) -> bool:
    """Whether it ends consonant, vowel, consonant and not in w, x or y: "hop", but not "how"."""
    return len(word) > 2 and _shape(word).endswith("cvc") and word[-1] not in "wxy"


def _step1(word: str) -> str:
    """Plurals, -ed and -ing, and a final y."""
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith("eed"):
        word = word[:-1] if _measure(word[:-3]) > 0 else word
    else:
        stem = next((word[: -len(s)] for s in ("ed", "ing") if word.endswith(s)), "")
        if "v" in _shape(stem):
            word = _mended(stem)
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    return word


def _mended(stem: str) -> str:
    """What is left of a word after -ed or -ing, as a word again: "hoping" is "hope"."""
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _double(stem):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _short(stem) else stem


def _replaced(word: str, rules: tuple[tuple[str, str], ...]) -> str:
    """The first suffix that fits is the only one that is tried."""
    for suffix, other in rules:
        if word.endswith(suffix):
            stem = word[: -len(suffix)]
            return stem + other if _measure(stem) > 0 else word
    return word


def _step4(word: str) -> str:
    for suffix in _STEP4:
        if word.endswith(suffix):
            stem = word[: -len(suffix)]
            if suffix == "ion" and not stem.endswith(("s", "t")):
                continue
            return stem if _measure(stem) > 1 else word
    return word


def _step5(word: str) -> str:
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """The stem of a word in lower case; words of one or two letters are their own.

    >>> [stem(w) for w in ("relational", "hopping", "shoes", "happily", "naïve", "as")]
    ['relat', 'hop', 'shoe', 'happili', 'naïv', 'as']
    """
    if len(word) < 3:
        return word
    word = _step1(word)
    return _step5(_step4(_replaced(_replaced(word, _STEP2), _STEP3)))
