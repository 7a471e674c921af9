"""A policy small enough to reason about: a table of logits per (letter last seen, place in the
answer). It acts, it is scored, it can be trained, and it remembers what it was asked."""

import random
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from tutelage.envs.doors import RULE
from tutelage.maths.distributions import Distribution
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.sampling import draw
from tutelage.policies.hf.tiny import train_tokenizer
from tutelage.prompts.answer_format import write
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample

LETTERS = tuple(RULE)
DIGITS = ("1", "3", "4", "7")  # the last opens no door
ANSWER = 4  # <action>, digit, </action>, end of turn
TEXTS = (*LETTERS, *map(write, DIGITS), "the end", "Answer each letter with its digit.") * 3
CERTAIN = 12.0


@cache
def chat() -> Chat:
    return Chat(train_tokenizer(TEXTS, entries=320))


def answer(digit: str) -> tuple[int, ...]:
    """Ids of a whole turn."""
    result = chat().reply(write(digit))
    assert len(result) == ANSWER
    return result


class Table(nn.Module):
    """logits [letters, ANSWER, V]; after ANSWER tokens the last place goes on.

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
        self.chat = talk or chat()
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

    def begun(self, prompt: Sequence[int]) -> int:
        """How much of an answer a prompt ends with: a turn that somebody else began."""
        first = answer(DIGITS[0])[0]
        return next((k for k in range(1, ANSWER) if prompt[-k] == first), 0)

    # -- acting

    def submit(self, request: Request) -> None:
        assert len(request.prompt) + request.max_new <= self.context_length
        self.asked.append(request)
        self.waiting.append(request)

    def poll(self) -> list[Completion]:
        self.order.shuffle(self.waiting)
        now, self.waiting = self.waiting[: self.width], self.waiting[self.width :]
        return self._sample(now) if now else []

    @torch.no_grad()
    def _sample(self, requests: Sequence[Request]) -> list[Completion]:
        """All of them at once, a token of each at a time; each from its own seed."""
        rngs = [random.Random(request.seed) for request in requests]
        rows = [self.row(request.prompt) for request in requests]
        begun = [self.begun(request.prompt) for request in requests]
        result: list[list[tuple[int, float]]] = [[] for _ in requests]
        going = list(range(len(requests)))
        while going:
            at = [(rows[i], min(begun[i] + len(result[i]), ANSWER - 1)) for i in going]
            logits = self.logits[[r for r, _ in at], [k for _, k in at]]
            heats = [requests[i].temperature for i in going]
            lots = [rngs[i].random() for i in going]
            tokens, logps = draw(
                logits, torch.tensor(heats), torch.tensor(lots, dtype=torch.float64)
            )
            for i, token, logp in zip(going, tokens.tolist(), logps.tolist(), strict=True):
                result[i].append((token, logp))
            going = [
                i
                for i in going
                if result[i][-1][0] != self.chat.end and len(result[i]) < requests[i].max_new
            ]
        return [
            Completion(
                key=request.key,
                tokens=tuple(token for token, _ in pairs),
                logps=tuple(logp for _, logp in pairs),
                ended=pairs[-1][0] == self.chat.end,
            )
            for request, pairs in zip(requests, result, strict=True)
        ]

    def release(self, key: str) -> None:
        self.released.append(key)

    def refresh(self) -> None:
        self.refreshed += 1

    # -- scoring

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        self.scored += samples
        at = [
            self.row(s.prompt) * ANSWER + min(k, ANSWER - 1)
            for s in samples
            for k in range(len(s.tokens))
        ]
        table = self.logits.flatten(0, 1)
        places = torch.eye(len(table))[torch.tensor(at, dtype=torch.long)]
        return Scores(
            distribution=Distribution(hidden=places, head=table.T, temperature=temperature),
            token=torch.tensor([t for s in samples for t in s.tokens]),
        )

    def chances(self, letter: str) -> Tensor:
        """Of each of DIGITS, given that one of them is said."""
        ids = torch.tensor([answer(digit)[1] for digit in DIGITS])
        return self.logits[LETTERS.index(letter), 1, ids].softmax(-1).detach()
