"""Search-QA as in Search-R1 (arXiv:2503.09516): answer questions with a search engine."""

from tutelage_worlds.search_qa.passages import Passage
from tutelage_worlds.search_qa.questions import Question
from tutelage_worlds.search_qa.rows import DataError
from tutelage_worlds.search_qa.suite import SearchQA, needs

__all__ = ["DataError", "Passage", "Question", "SearchQA", "needs"]
