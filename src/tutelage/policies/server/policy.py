"""A model behind an OpenAI-compatible server: samples and scores token ids over HTTP.

Only the sampled tokens are scored: log-probabilities of the full vocabulary would be 600 kB a
token. Nothing is kept between turns here; the server's own prefix cache does that.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from typing import Any, TypeVar

import torch

from tutelage.errors import PolicyError
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Dtype, Request
from tutelage.policies.packing import PackedSequence, pack
from tutelage.policies.server import vllm_api
from tutelage.policies.server.http import Client
from tutelage.policies.server.vllm_api import InvalidAnswer, ScoredTokens
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids, Sample

MIN_CONTEXT = 16
"""Tokens of context below which no turn fits."""
PROBE_TOKENS = 48
"""Length of the sequence that `connect` scores twice."""
MAX_SCORE_JITTER = 0.1
"""Nats by which two scores of it may differ on average: bfloat16 rounds differently by batch."""
POLL_WAIT = 0.002
"""Seconds a poll waits for an answer when the caller has nothing else to do."""
IDLE_POLL_GAP = 0.0005
"""Seconds between two polls below which the caller did nothing else: polling idle engines takes
less, decoding one token with any local model takes more."""
MAX_PREFETCH = 8192
"""Sequences at most whose scores are requested ahead of time."""
REPLACEMENT_CHARACTER = "\ufffd"
SequenceKey = tuple[Ids, int]
"""The ids of a sequence, and the first position that is scored."""
T = TypeVar("T")


class RemotePolicy:
    """Scores at temperature 1, at which servers report log-probabilities; samples at 1 and 0.

    client   the server's address, and how it is asked
    chat     a tokenizer that must equal the server's; `connect` checks it
    model    its name on the server; the first that is listed if empty
    context  its length in tokens; what the server reports if 0
    returns_temperature_scaled
             the server reports log-probabilities of sampled tokens at the sampling temperature
             (vLLM's --logprobs-mode processed_logprobs), so that it may sample at any
    """

    # unknown for a server: the coarser is assumed where tolerances depend on it
    dtype: Dtype = "bfloat16"

    def __init__(
        self,
        client: Client,
        chat: Chat,
        *,
        model: str = "",
        context: int = 0,
        returns_temperature_scaled: bool = False,
    ) -> None:
        self.client, self.chat, self.model = client, chat, model
        self.returns_temperature_scaled = returns_temperature_scaled
        self.context = context
        self.turns: dict[Future[Any], Request] = {}
        self.prefetched: OrderedDict[SequenceKey, Future[Any]] = OrderedDict()
        self.last_poll = 0.0

    @property
    def context_length(self) -> int:
        return self.context

    # -- connecting

    def connect(self) -> None:
        """Find the model and probe it: a fixed sequence must get the same scores twice, and its
        tokens must be the same texts here. Raises PolicyError where that fails."""
        self._choose_model(self.client.ask("/v1/models").result())
        ids = self.probe()
        first, second = (self._probe_scores(ids) for _ in range(2))
        differences = [
            abs(a - b)
            for (a, _), (b, _) in zip(first, second, strict=True)
            if a is not None and b is not None
        ]
        if sum(differences) > MAX_SCORE_JITTER * len(differences):
            mean = sum(differences) / len(differences)
            raise PolicyError(
                f"the server of {self.client.name} scores the same tokens differently each time "
                f"(by {mean:.3g} on average), so every log-probability gap would be noise; "
                "serve one model, without dropout or a router in front of several"
            )
        for token, (_, served_text) in zip(ids, first, strict=True):
            ours = self.token_text(token)
            if served_text is None or REPLACEMENT_CHARACTER in served_text + ours:
                continue
            if served_text.strip() != ours.strip():
                raise PolicyError(
                    f"token {token} is {served_text!r} to the server of {self.client.name} and {ours!r} "
                    f"to our tokenizer; {self._tokenizer_fix()}"
                )

    def _choose_model(self, answer: Any) -> None:
        listed = answer.get("data") if isinstance(answer, dict) else None
        models = {str(m["id"]): m for m in listed or () if isinstance(m, dict) and "id" in m}
        if not models:
            raise PolicyError(
                f"{self.client.url} lists no model under /v1/models, so it is no OpenAI-compatible "
                f"server; fix the address in {self.client.setting}"
            )
        self.model = self.model or next(iter(models))
        if self.model not in models:
            raise PolicyError(
                f"the server of {self.client.name} has no model {self.model!r}, only "
                f"{', '.join(sorted(models))}; set {self.client.setting} to one of them"
            )
        if not self.context:
            # scoring a prompt costs one token more, since vLLM refuses to sample none
            length = models[self.model].get("max_model_len")
            if not isinstance(length, int) or isinstance(length, bool) or length < MIN_CONTEXT:
                raise PolicyError(
                    f"the server of {self.client.name} reports a context of {str(length)[:40]!r} "
                    f"tokens (max_model_len), where a number from {MIN_CONTEXT} on belongs; serve "
                    "the model with vLLM or `tutelage serve`"
                )
            self.context = length - 1

    def probe(self) -> Ids:
        """Ids spread over the vocabulary, its last and the end-of-turn token among them."""
        count = min(PROBE_TOKENS, self.context - 2)
        spread = [k * (self.chat.size - 1) // (count - 1) for k in range(count)]
        return (spread[0], *spread, self.chat.end)  # the first token gets no score

    def token_text(self, token: int) -> str:
        return str(self.chat.tokenizer.decode([token], skip_special_tokens=False))

    # -- sampling

    def submit(self, request: Request) -> None:
        if request.temperature not in (0, 1) and not self.returns_temperature_scaled:
            raise PolicyError(self._temperature_error(request.temperature))
        if len(request.prompt) + request.max_new > self.context:
            raise PolicyError(
                f"a prompt of {len(request.prompt)} tokens and {request.max_new} new ones exceed "
                f"the {self.context} of {self.client.name}; serve it with a longer context, or "
                "lower rollout.max_turns or rollout.max_new_tokens"
            )
        body = vllm_api.completion_request(self.model, request, self.chat.ends)
        self.turns[self.client.ask(vllm_api.PATH, body)] = request

    def poll(self) -> list[Completion]:
        """The finished turns, in the order in which they were submitted.

        The play loop polls local and remote engines alike. A fixed wait would be paid in every pass
        of a local student; no wait at all would let an otherwise idle loop take the CPU from the
        threads that read answers. The time since the last poll tells the two cases apart.
        """
        if not self.turns:
            return []
        if time.monotonic() - self.last_poll < IDLE_POLL_GAP:
            wait(self.turns, timeout=POLL_WAIT, return_when=FIRST_COMPLETED)
        completions = [self._completion(answer) for answer in list(self.turns) if answer.done()]
        self.last_poll = time.monotonic()
        return completions

    def wait(self) -> None:
        """Wait until every turn that was submitted is answered, or one of them cannot be."""
        wait(self.turns, return_when=FIRST_EXCEPTION)

    def _completion(self, answer: "Future[Any]") -> Completion:
        request = self.turns.pop(answer)
        completion = self._read(
            answer, lambda x: vllm_api.read_completion(x, request, self.chat.ends)
        )
        if max(completion.tokens) >= self.chat.size:
            raise PolicyError(
                f"{self.client.name} sampled token {max(completion.tokens)}, which is not among "
                f"the {self.chat.size} of our tokenizer; {self._tokenizer_fix()}"
            )
        return completion

    def release(self, key: str) -> None:
        """Does nothing: no state is kept per episode."""

    def refresh(self) -> None:
        """Drop the turns under way."""
        for answer in self.turns:
            answer.cancel()
        self.turns = {}

    # -- scoring

    def prefetch_scores(self, samples: Sequence[Sample]) -> None:
        """Request scores that will be read soon. Requests for turns go first: a turn holds up its
        whole episode, a score nothing before the update."""
        for sequence in pack(samples):
            key = _key(sequence)
            if sequence.positions and key not in self.prefetched:
                self.prefetched[key] = self._request_scores(key, low_priority=True)
        while len(self.prefetched) > MAX_PREFETCH:
            self.prefetched.popitem(last=False)[1].cancel()

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        """Log-probabilities of the sampled tokens, flat [N]: one request per append-only episode,
        and one for equal sequences."""
        if temperature != 1:
            raise PolicyError(self._temperature_error(temperature))
        sequences = [sequence for sequence in pack(samples) if sequence.positions]
        keys = [_key(sequence) for sequence in sequences]
        answers = {
            key: self.prefetched.pop(key) if key in self.prefetched else self._request_scores(key)
            for key in dict.fromkeys(keys)
        }
        logp = torch.empty(sum(len(sequence.positions) for sequence in sequences))
        try:
            for sequence, key in zip(sequences, keys, strict=True):
                logp[sequence.flat] = torch.tensor(self._logps(sequence, answers[key]))
        finally:
            for answer in answers.values():
                answer.cancel()
        return Scores(logp=logp)

    def _logps(self, sequence: PackedSequence, answer: "Future[Any]") -> list[float]:
        scores = self._read(answer, lambda x: vllm_api.read_scores(x, sequence.ids))
        logps = [scores[t][0] for t in sequence.positions]
        if any(x is None for x in logps):
            raise PolicyError(self._invalid("a token has no log-probability"))
        return [x for x in logps if x is not None]

    def _probe_scores(self, ids: Ids) -> ScoredTokens:
        return self._read(self._request_scores((ids, 1)), lambda x: vllm_api.read_scores(x, ids))

    def _request_scores(self, key: SequenceKey, *, low_priority: bool = False) -> "Future[Any]":
        body = vllm_api.score_request(self.model, key[0])
        return self.client.ask(vllm_api.PATH, body, low_priority=low_priority)

    def _read(self, answer: "Future[Any]", read: Callable[[Any], T]) -> T:
        try:
            return read(answer.result())
        except (InvalidAnswer, LookupError, TypeError, AttributeError, ValueError) as error:
            raise PolicyError(self._invalid(str(error))) from error

    def _invalid(self, problem: str) -> str:
        return (
            f"the server of {self.client.name} at {self.client.url} does not answer as asked: "
            f"{problem}; serve the model with vLLM or `tutelage serve`, or fix "
            f"the address in {self.client.setting}"
        )

    def _tokenizer_fix(self) -> str:
        if self.returns_temperature_scaled:  # the student's sampler
            return "serve the student's own model there"
        return f"set {self.client.name}.tokenizer to that of the served model"

    def _temperature_error(self, temperature: float) -> str:
        return (
            f"{self.client.name} is on a server, which reports log-probabilities at temperature 1 "
            f"only, not at {temperature:g}; set rollout.temperature = 1.0, or load the model here "
            "instead of a url"
        )


def _key(sequence: PackedSequence) -> SequenceKey:
    return tuple(sequence.ids), sequence.positions[0] if sequence.positions else 0
