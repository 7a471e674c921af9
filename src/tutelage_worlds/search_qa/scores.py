"""Scores of answers: exact match and token F1.

After the normalisation of SQuAD (arXiv:1606.05250, section 6.1), as in Search-R1 (arXiv:2503.09516,
`qa_em.py`).
"""

import re
import string
from collections import Counter
from collections.abc import Iterable
from typing import Final

STRUCTURE, FINAL = 0.2, 0.1
"""Search-R1's scores of format: of a sequence without a flaw, and of an answer at the end of
another (`train_grpo_format.sh`)."""

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_NO_MARKS: Final = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and superfluous blanks.

    >>> normalise("The  U.S.A., an  'old' land")
    'usa old land'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_MARKS)).split())


def exact_match(answer: str, golds: Iterable[str]) -> bool:
    """Whether the answer is one of the golden ones.

    >>> exact_match("the Beatles!", ["Beatles", "Fab Four"])
    True
    """
    normalised = normalise(answer)
    return any(normalise(gold) == normalised for gold in golds)


def f1(answer: str, golds: Iterable[str]) -> float:
    """The best harmonic mean of precision and recall over words, in [0, 1].

    2 c / (n_answer + n_gold), with c words in common, each as often as both have it; 0 for c = 0.

    >>> f1("in Paris, France", ["Paris"])
    0.5
    """
    words = Counter(normalise(answer).split())
    return max((_overlap(words, Counter(normalise(gold).split())) for gold in golds), default=0.0)


def _overlap(words: Counter[str], gold: Counter[str]) -> float:
    common = (words & gold).total()
    return 2 * common / (words.total() + gold.total()) if common else 0.0


def format_reward(*, correct: bool, flawless: bool) -> float:
    """Search-R1's reward of format and answer together (`qa_em_format.py`, without its share for
    retrieval, which its runs leave at 0).

    flawless  whether every turn so far was one search or one answer and nothing else
    """
    if correct:
        return 1.0 if flawless else 1.0 - STRUCTURE
    return STRUCTURE if flawless else FINAL
