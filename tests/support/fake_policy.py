"""A policy small enough to reason about: a table of logits per (letter last seen, place in the
answer). It acts, it is scored, it can be trained, and it remembers what it was asked."""

import random
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from studies.ladder.tabular import CERTAIN, DIGITS, LogitTable
from studies.ladder.tabular import LENGTH as ANSWER
from tutelage.envs.doors import RULE
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.tiny import train_tokenizer
from tutelage.prompts.answer_format import write
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample

LETTERS = tuple(RULE)
TEXTS = (*LETTERS, *map(write, DIGITS), "the end", "Answer each letter with its digit.") * 3


@cache
def chat() -> Chat:
    return Chat(train_tokenizer(TEXTS, entries=320))


def answer(digit: str) -> tuple[int, ...]:
    """Ids of a whole turn."""
    result = chat().reply(write(digit))
    assert len(result) == ANSWER
    return result


class Table(LogitTable):
    """A row for each letter.

    knows    logit of the right digit above the others
    clumsy   logit of ending the turn at once, against CERTAIN for the right form
    width    completions handed out by one poll, in an order drawn from `seed`
    """

    def __init__(
        self,
        *,
        knows: float = 0.0,
        clumsy: float = 0.0,
        width: int = 10_000,
        seed: int = 0,
        context: int = 4096,
        talk: Chat | None = None,
    ) -> None:
        super().__init__()
        self.chat, self.opens = talk or chat(), answer(DIGITS[0])[0]
        self.context_length = context
        self.logits = nn.Parameter(torch.zeros(len(LETTERS), ANSWER, self.chat.size))
        with torch.no_grad():
            for row, letter in enumerate(LETTERS):
                for digit in DIGITS:
                    ids = answer(digit)
                    for place in (0, 2, 3):
                        self.logits[row, place, ids[place]] = CERTAIN
                    self.logits[row, 1, ids[1]] = CERTAIN + knows * (digit == RULE[letter])
            self.logits[:, 0, self.chat.end] = clumsy
        self.rows = {self.chat.content(letter)[0]: k for k, letter in enumerate(LETTERS)}
        self.width, self.order = width, random.Random(seed)
        self.waiting: list[Request] = []
        self.asked: list[Request] = []
        self.scored: list[Sample] = []
        self.released: list[str] = []
        self.refreshed = 0

    def row(self, prompt: Sequence[int]) -> int:
        """Which letter was seen last."""
        return next((self.rows[t] for t in reversed(prompt) if t in self.rows), 0)

    # -- acting

    def submit(self, request: Request) -> None:
        assert len(request.prompt) + request.max_new <= self.context_length
        self.asked.append(request)
        self.waiting.append(request)

    def poll(self) -> list[Completion]:
        self.order.shuffle(self.waiting)
        now, self.waiting = self.waiting[: self.width], self.waiting[self.width :]
        return self.sample(now) if now else []

    def release(self, key: str) -> None:
        self.released.append(key)

    def refresh(self) -> None:
        self.refreshed += 1

    # -- scoring

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        self.scored += samples
        return super().score(samples, temperature)

    def chances(self, letter: str) -> Tensor:
        """Of each of DIGITS, given that one of them is said."""
        ids = torch.tensor([answer(digit)[1] for digit in DIGITS])
        return self.logits[LETTERS.index(letter), 1, ids].softmax(-1).detach()
