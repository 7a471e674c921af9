"""A model behind an OpenAI-compatible server: it acts and is scored, by token ids, over HTTP.

Only sampled tokens are scored: the probabilities of a whole vocabulary would be 600 kB a token.
Nothing is kept between turns here; the server's prefix cache does that.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, TypeVar

import torch

from tutelage.errors import PolicyError
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import Compute
from tutelage.policies.packing import Row, pack
from tutelage.policies.server.dialects import DIALECTS, Dialect, Name, Scored, Unreadable
from tutelage.policies.server.http import Client
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids, Sample

GOLDEN = 48
"""Ids of the sequence that a server is tried out on."""
STEADY = 0.1
"""Nats by which two scores of it may differ on average: rounding of bfloat16 in other batches."""
PATIENCE = 0.002
"""Seconds that a poll waits for an answer where nobody else has work."""
PASS = 0.0005
"""Seconds between two polls above which somebody else had: a pass over idle actors takes less, the
decoding of one token more."""
EARLY = 8192
"""Rows at most that are scored before they are asked for."""
BROKEN = "\ufffd"
Key = tuple[Ids, int]
"""A row's ids, and the first that is scored."""
T = TypeVar("T")


class RemotePolicy:
    """Is scored at temperature 1, at which servers tell log-probabilities, and acts at 1 and 0.

    client   where the server is, and how it is asked
    chat     a tokenizer that must be the server's; `connect` checks it
    model    its name there; the first that it lists if empty
    context  its length in tokens; as the server says if 0
    heated   the server tells those of sampled tokens at the temperature of sampling (vLLM's
             --logprobs-mode processed_logprobs), so that it may act at any
    """

    dtype: Compute = "bfloat16"  # a server's number format is not known: the coarser is assumed

    def __init__(
        self, client: Client, chat: Chat, *, model: str = "", dialect: Name = "vllm",
        context: int = 0, heated: bool = False,
    ) -> None:  # fmt: skip
        self.client, self.chat, self.model, self.heated = client, chat, model, heated
        self.dialect: Dialect = DIALECTS[dialect]
        self.context = context
        self.turns: dict[Future[Any], Request] = {}
        self.early: OrderedDict[Key, Future[Any]] = OrderedDict()
        self.polled = 0.0

    @property
    def context_length(self) -> int:
        return self.context

    # -- a first look

    def connect(self) -> None:
        """Find the model, and try it out: the same tokens must score the same twice, and mean the
        same texts here. Raises PolicyError where they do not."""
        self._find(self.client.ask("/v1/models").result())
        ids = self._golden()
        first, second = (self._score_row(ids, 1) for _ in range(2))
        apart = [abs(a - b) for (a, _), (b, _) in zip(first, second, strict=True)
                 if a is not None and b is not None]  # fmt: skip
        if sum(apart) > STEADY * len(apart):
            raise PolicyError(
                f"the server of {self.client.name} scores the same tokens differently each time "
                f"(by {sum(apart) / len(apart):.3g} on average), so every gap would be noise; "
                "serve one model, without dropout or a router before several"
            )
        for token, (_, text) in zip(ids, first, strict=True):
            mine = self._text(token)
            if text is not None and BROKEN not in text + mine and text.strip() != mine.strip():
                raise PolicyError(
                    f"token {token} is {text!r} to the server of {self.client.name} and {mine!r} "
                    f"to our tokenizer; set {self.client.name}.tokenizer to that of the served "
                    "model, which must be the student's too"
                )

    def _find(self, answer: Any) -> None:
        listed = answer.get("data") if isinstance(answer, dict) else None
        there = {str(m["id"]): m for m in listed or () if isinstance(m, dict) and "id" in m}
        if not there:
            raise PolicyError(
                f"{self.client.url} lists no model under /v1/models, so it is no OpenAI-compatible "
                f"server; mend {self.client.name}.url"
            )
        self.model = self.model or next(iter(there))
        if self.model not in there:
            raise PolicyError(
                f"the server of {self.client.name} has no model {self.model!r}, only "
                f"{', '.join(sorted(there))}; set {self.client.name}.model to one of them"
            )
        if not self.context:
            # scoring a prompt costs a token more, since servers refuse to sample none
            self.context = int(there[self.model].get("max_model_len") or 1) - 1
        if self.context < 1:
            raise PolicyError(
                f"the server of {self.client.name} does not say how long its context is; set "
                f"{self.client.name}.server.context to it"
            )

    def _golden(self) -> Ids:
        """Ids from all over the vocabulary, its last one and the end-of-turn token among them."""
        count = min(GOLDEN, self.context - 2)
        spread = [k * (self.chat.size - 1) // (count - 1) for k in range(count)]
        return (spread[0], *spread, self.chat.end)  # of the first token, nothing is told

    def _text(self, token: int) -> str:
        return str(self.chat.tokenizer.decode([token], skip_special_tokens=False))

    # -- acting

    def submit(self, request: Request) -> None:
        if request.temperature not in (0, 1) and not self.heated:
            raise PolicyError(self._heat(request.temperature))
        if len(request.prompt) + request.max_new > self.context:
            raise PolicyError(
                f"a prompt of {len(request.prompt)} tokens and {request.max_new} new ones exceed "
                f"the {self.context} of {self.client.name}; serve it with a longer context, or "
                "lower rollout.max_turns or rollout.max_new_tokens"
            )
        path, body = self.dialect.ask(self.model, request, self.chat.end)
        self.turns[self.client.ask(path, body)] = request

    def poll(self) -> list[Completion]:
        if not self.turns:
            return []
        if time.monotonic() - self.polled < PASS:
            # the caller does nothing but ask, and would keep the threads that read answers from it
            wait(self.turns, timeout=PATIENCE, return_when=FIRST_COMPLETED)
        # in the order in which they were asked for
        made = [self._completion(answer) for answer in list(self.turns) if answer.done()]
        self.polled = time.monotonic()
        return made

    def _completion(self, answer: "Future[Any]") -> Completion:
        request = self.turns.pop(answer)
        made = self._read(answer, lambda x: self.dialect.completion(x, request, self.chat.end))
        if max(made.tokens) >= self.chat.size:
            raise PolicyError(
                f"{self.client.name} sampled token {max(made.tokens)}, which is not among the "
                f"{self.chat.size} of our tokenizer; set {self.client.name}.tokenizer to that of "
                "the served model"
            )
        return made

    def release(self, key: str) -> None:
        """Nothing is kept of an episode."""

    def refresh(self) -> None:
        """Let turns go that nobody waits for."""
        for answer in self.turns:
            answer.cancel()
        self.turns = {}

    # -- being scored

    def expect(self, samples: Sequence[Sample]) -> None:
        """Begin to score what will be asked for soon; it costs nothing here if it never is."""
        for row in pack(samples):
            key = tuple(row.ids), row.at[0] if row.at else 0
            if row.at and key not in self.early:
                self.early[key] = self._ask(*key, later=True)
        while len(self.early) > EARLY:
            self.early.popitem(last=False)[1].cancel()

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        """Log-probabilities of the sampled tokens, a request for each append-only episode; equal
        ones share theirs."""
        if temperature != 1:
            raise PolicyError(self._heat(temperature))
        rows = [row for row in pack(samples) if row.at]
        keys = [(tuple(row.ids), row.at[0]) for row in rows]
        asked = {
            key: self.early.pop(key) if key in self.early else self._ask(*key)
            for key in dict.fromkeys(keys)
        }
        logp = torch.empty(sum(len(row.at) for row in rows))
        try:
            for row, key in zip(rows, keys, strict=True):
                logp[row.out] = torch.tensor(self._row(row, asked[key]))
        finally:
            for answer in asked.values():
                answer.cancel()
        return Scores(logp=logp)

    def _row(self, row: Row, answer: "Future[Any]") -> list[float]:
        told = self._read(answer, lambda x: self.dialect.scores(x, row.ids, row.at[0]))
        found = [told[t][0] for t in row.at]
        if any(x is None for x in found):
            raise PolicyError(self._wrong("a token has no log-probability"))
        return [x for x in found if x is not None]

    def _score_row(self, ids: Ids, start: int) -> Scored:
        return self._read(self._ask(ids, start), lambda x: self.dialect.scores(x, ids, start))

    def _ask(self, ids: Ids, start: int, *, later: bool = False) -> "Future[Any]":
        return self.client.ask(*self.dialect.ask_scores(self.model, ids, start), later=later)

    def _read(self, answer: "Future[Any]", read: Callable[[Any], T]) -> T:
        try:
            return read(answer.result())
        except (Unreadable, KeyError, IndexError, TypeError, AttributeError) as error:
            raise PolicyError(self._wrong(str(error))) from error

    def _wrong(self, what: str) -> str:
        return (
            f"the server of {self.client.name} at {self.client.url} does not answer as asked: "
            f"{what}; serve the model with vLLM, SGLang or `tutelage serve`, and set "
            f"{self.client.name}.server.dialect to which it is"
        )

    def _heat(self, temperature: float) -> str:
        return (
            f"{self.client.name} is on a server, which tells log-probabilities at temperature 1 "
            f"only, not at {temperature:g}; set rollout.temperature = 1.0, or load the model here "
            "instead of a url"
        )
