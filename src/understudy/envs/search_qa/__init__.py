"""Search-QA as in Search-R1 (arXiv:2503.09516): search, information, answer."""

from understudy.envs.search_qa.needs import needs
from understudy.envs.search_qa.passages import Passage
from understudy.envs.search_qa.questions import Question
from understudy.envs.search_qa.rows import DataError
from understudy.envs.search_qa.suite import SearchQA

__all__ = ["DataError", "Passage", "Question", "SearchQA", "needs"]
