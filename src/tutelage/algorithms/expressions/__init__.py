"""Small expressions: the language that configurations compose algorithms in.

registry  the words: functions of this package that return a schedule, a signal, a gate ...
reader    what an expression means, or where it is wrong
"""

from tutelage.algorithms.expressions.reader import Reader, fits, in_words
from tutelage.algorithms.expressions.registry import KINDS, Word, table, words

__all__ = ["KINDS", "Reader", "Word", "fits", "in_words", "table", "words"]
