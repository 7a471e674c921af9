"""The search_qa environment: an episode is one question, with searches and an answer."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from tutelage.types import Observation, Task
from tutelage_worlds.search_qa import moves, wording
from tutelage_worlds.search_qa.moves import Protocol
from tutelage_worlds.search_qa.passages import Passage
from tutelage_worlds.search_qa.questions import Question
from tutelage_worlds.search_qa.retrieval import Retriever
from tutelage_worlds.search_qa.scores import exact_match, f1, format_reward

Reward = Literal["em", "f1", "format"]
CACHE_SIZE: Final = 10_000
"""Queries whose results a process remembers."""


class Library:
    """A retriever that remembers."""

    def __init__(self, retriever: Retriever, k: int) -> None:
        self._retriever, self._k = retriever, k
        self.find = lru_cache(maxsize=CACHE_SIZE)(self._find)

    def _find(self, query: str) -> tuple[Passage, ...]:
        return tuple(hit.passage for hit in self._retriever.search([query], self._k)[0])


class Rules(NamedTuple):
    """How questions are played: see `SearchQA`."""

    protocol: Protocol = "search_r1"
    reward: Reward = "em"
    words: int | None = None


class SearchQAEnv:
    """The reward comes with the answer, which ends the episode. Only what the agent says is judged,
    whatever stands in a passage."""

    def __init__(
        self,
        question: Callable[[Task], Question],
        library: Callable[[], Library],
        rules: Rules,
    ) -> None:
        self._ask, self._library, self._rules = question, library, rules
        self._question: Question | None = None
        self._task, self._text = Task(id=""), ""
        self._done, self._answer, self._flawless = False, "", True
        self._given = False  # whether there is an answer, which may be empty

    def reset(self, task: Task) -> Observation:
        self._question, self._task = self._ask(task), task
        self._done, self._answer, self._flawless = False, "", True
        self._given = False
        self._text = wording.question(self._question.text)
        return self._observe(valid=True)

    def step(self, action: str) -> Observation:
        if self._question is None:
            raise RuntimeError("No question was asked: call reset(task) before step(action).")
        if self._done:
            return self._observe(valid=False)
        move = moves.read(action, self._rules.protocol)
        self._flawless = self._flawless and move.flawless
        if move.ends:
            self._done, self._answer, self._text = True, move.content, wording.ANSWERED
            # tags of an answer around none earn nothing, not even an empty one's worth
            self._given = move.kind == moves.ANSWER
            earned = self._worth(self._question) if self._given else 0.0
            return self._observe(valid=move.valid, earned=earned)
        if move.kind == moves.SEARCH:
            found = self._library().find(move.content)
            self._text = wording.information(found, self._rules.protocol, self._rules.words)
        else:
            self._text = wording.refusal(self._rules.protocol)
        return self._observe(valid=move.valid)

    def close(self) -> None:
        self._question = None

    def _worth(self, asked: Question) -> float:
        if self._rules.reward == "f1":
            return f1(self._answer, asked.golds)
        correct = exact_match(self._answer, asked.golds)
        if self._rules.reward == "format":
            return format_reward(correct=correct, flawless=self._flawless)
        return float(correct)

    def _observe(self, *, valid: bool, earned: float = 0.0) -> Observation:
        golds = self._question.golds if self._question and self._done else ()
        flaw = self._rules.reward == "format" and not self._flawless
        return Observation(
            text=self._text,
            reward=earned,
            done=self._done,
            state=(self._task.id, self._text, self._answer, flaw),
            score=f1(self._answer, golds),
            won=self._given and exact_match(self._answer, golds) if self._done else None,
            valid=valid,
            focus=(self._question.text,) if self._question else (),
        )
