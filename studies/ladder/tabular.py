"""A policy that is a table of logits: exact, trained in milliseconds, and able to read a hint."""

import copy
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.maths.distributions import Distribution
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Dtype, Request
from tutelage.policies.hf.sampling import draw
from tutelage.policies.hf.tiny import train_tokenizer
from tutelage.prompts.answer_format import write
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids, Sample

LETTERS = ("a", "b", "c", "d")
DIGITS = ("1", "3", "4", "7")
LENGTH = 4
"""Tokens of an answer: <action>, a digit, </action>, the end of the turn."""
CERTAIN = 12.0
"""The logit of the right form: what is to be learnt is which digit is said."""
_TEXTS = (*LETTERS, *map(write, DIGITS), "the end", *(f"{k}. {d}" for k in "12" for d in DIGITS))
_PLAN = re.compile(r"(?:^|\n)\s*(?:\d\.|>) ?([1347])(?=\s|$)")
"""An action in a hint ("1. 3") or in the episode that a hindsight shows ("> 3")."""


class _Remembering(Chat):
    """A chat that encodes each text once: the games have few, and encoding took half of the time."""

    def _plain(self, text: str) -> Ids:
        return _encoded(text)


@cache
def _encoded(text: str) -> Ids:
    return Chat._plain(chat(), text)


@cache
def chat() -> Chat:
    return _Remembering(train_tokenizer(_TEXTS * 3, entries=320))


@cache
def answer(digit: str) -> Ids:
    """The ids of a whole turn."""
    ids = chat().reply(write(digit))
    assert len(ids) == LENGTH, f"{digit} takes {len(ids)} tokens"
    return ids


class LogitTable(nn.Module):
    """A policy that is a table: logits [rows, LENGTH, V], by the row of a prompt and the place in
    the answer; tokens after LENGTH repeat the last place. `opens` is an answer's first token.
    """

    chat: Chat
    opens: int
    logits: nn.Parameter

    def row(self, prompt: Ids) -> int:
        """The row of a prompt, which ends before the answer."""
        raise NotImplementedError

    def table(self) -> Tensor:
        """The logits of all rows, with their gradient."""
        return self.logits

    def begun(self, prompt: Ids) -> int:
        """How much of an answer a prompt ends with: a turn that another policy began."""
        return next((k for k in range(1, LENGTH) if prompt[-k] == self.opens), 0)

    @torch.no_grad()
    def sample(self, requests: Sequence[Request]) -> list[Completion]:
        """All turns at once, a token of each at a time; each from its own seed."""
        rngs = [random.Random(r.seed) for r in requests]
        begun = [self.begun(r.prompt) for r in requests]
        ends = [len(r.prompt) - n for r, n in zip(requests, begun, strict=True)]
        rows = [self.row(r.prompt[:end]) for r, end in zip(requests, ends, strict=True)]
        pairs: list[list[tuple[int, float]]] = [[] for _ in requests]
        going, table = list(range(len(requests))), self.table()
        while going:
            places = [min(begun[i] + len(pairs[i]), LENGTH - 1) for i in going]
            tokens, logps = draw(
                table[[rows[i] for i in going], places],
                torch.tensor([requests[i].temperature for i in going]),
                torch.tensor([rngs[i].random() for i in going], dtype=torch.float64),
            )
            for i, token, logp in zip(going, tokens.tolist(), logps.tolist(), strict=True):
                pairs[i].append((token, logp))
            going = [
                i
                for i in going
                if pairs[i][-1][0] != self.chat.end and len(pairs[i]) < requests[i].max_new
            ]
        return [
            Completion(
                key=request.key,
                tokens=tuple(token for token, _ in sampled),
                logps=tuple(logp for _, logp in sampled),
                ended=sampled[-1][0] == self.chat.end,
            )
            for request, sampled in zip(requests, pairs, strict=True)
        ]

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        at = [
            self.row(s.prompt) * LENGTH + min(k, LENGTH - 1)
            for s in samples
            for k in range(len(s.tokens))
        ]
        table = self.table().flatten(0, 1)
        places = torch.eye(len(table))[torch.tensor(at, dtype=torch.long)]
        return Scores(
            distribution=Distribution(hidden=places, head=table.T, temperature=temperature),
            token=torch.tensor([t for s in samples for t in s.tokens]),
        )


class Tabular(LogitTable):
    """logits [rows, LENGTH, V]: a row for each letter seen last, without a hint and with each digit
    that a hint tells for the turn, so that what is learnt with a hint is not known without it.

    knows   letter -> digit whose logit is `by` above those of the others, with a hint or without
    reads   how far the logit of the told digit is above those of the others
    """

    device = "cpu"
    dtype: Dtype = "float32"
    context_length = 512

    def __init__(
        self, *, knows: Mapping[str, str] | None = None, by: float = 6.0, reads: float = 0.0
    ) -> None:
        super().__init__()
        self.chat, self.opens = chat(), answer(DIGITS[0])[0]
        self.logits = nn.Parameter(torch.zeros(len(LETTERS) * 5, LENGTH, self.chat.size))
        with torch.no_grad():
            for row in range(len(self.logits)):
                letter, digit_shown = LETTERS[row // 5], row % 5
                for k, digit in enumerate(DIGITS):
                    ids = answer(digit)
                    self.logits[row, range(LENGTH), ids] = CERTAIN
                    self.logits[row, 1, ids[1]] += by * ((knows or {}).get(letter) == digit)
                    self.logits[row, 1, ids[1]] += reads * (digit_shown == k + 1)
        self._letters = {self.chat.content(letter)[0]: k for k, letter in enumerate(LETTERS)}
        self._user = self.chat.open("", "")[0]
        self._rows: dict[Ids, int] = {}
        self._waiting: list[Request] = []

    def row(self, prompt: Ids) -> int:
        """By the letter seen last and the digit that a hint tells for the turn."""
        if prompt not in self._rows:
            users = [k for k, token in enumerate(prompt) if token == self._user]
            letter = next((self._letters[t] for t in reversed(prompt) if t in self._letters), 0)
            plan = _PLAN.findall(self.chat.text(prompt[: users[0]])) if users[0] else []
            turn = len(users) - 1
            shown = DIGITS.index(plan[turn]) + 1 if turn < len(plan) else 0
            self._rows[prompt] = letter * 5 + shown
        return self._rows[prompt]

    # -- acting

    def submit(self, request: Request) -> None:
        self._waiting.append(request)

    def poll(self) -> list[Completion]:
        requests, self._waiting = self._waiting, []
        return self.sample(requests)

    def release(self, key: str) -> None:
        pass

    def refresh(self) -> None:
        pass

    # -- being trained

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return super().parameters(recurse)

    def save(self, folder: Path) -> None:
        torch.save(self.state_dict(), folder / "table.pt")

    def copied(self) -> "Tabular":
        other = copy.deepcopy(self)
        other.freeze()
        return other

    def freeze(self) -> None:
        self.requires_grad_(False)

    def chance(self, letter: str, digit: str) -> float:
        """Of a digit after a letter without a hint, given that one of DIGITS is said."""
        ids = [answer(each)[1] for each in DIGITS]
        shares: Tensor = self.logits.detach()[LETTERS.index(letter) * 5, 1, ids].softmax(-1)
        return float(shares[DIGITS.index(digit)])


class Shared(Tabular):
    """The same whose rows with a hint are the row without plus what the hint adds, which is fixed: as in
    a language model, what is learnt without a hint moves what is said with one."""

    def __init__(self, *, reads: float = 0.0) -> None:
        super().__init__(reads=reads)
        plain = self.logits.detach()[::5].repeat_interleave(5, 0)
        self.register_buffer("added", self.logits.detach() - plain)
        self.added: Tensor

    def table(self) -> Tensor:
        return self.logits[::5].repeat_interleave(5, 0) + self.added
