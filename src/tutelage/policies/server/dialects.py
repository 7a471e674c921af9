"""How servers are asked for tokens and log-probabilities, and how they answer: bodies in JSON.

vllm    /v1/completions with `prompt_logprobs`, `return_token_ids` and sampling switches; recorded
        from vLLM 0.32 (repository vllm-project/vllm), and what `tutelage serve` speaks
sglang  /generate with `return_logprob` and `logprob_start_len` (repository sgl-project/sglang)

Both give log-probabilities at temperature 1 unless told otherwise when they are started.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tutelage.policies.base import Completion, Request

Name = Literal["vllm", "sglang"]
Answer = Mapping[str, Any]
Scored = list[tuple[float | None, str | None]]
"""For each token of a prompt its log-probability and its text, None where not told."""
SEEDS = 2**63
"""Servers take signed 64-bit seeds."""


class Unreadable(ValueError):
    """An answer that does not say what was asked for."""


class Dialect(Protocol):
    def ask(self, model: str, request: Request, end: int) -> tuple[str, Answer]:
        """Path and body of a request to sample until the token `end`."""
        ...

    def completion(self, answer: Answer, request: Request, end: int) -> Completion: ...

    def ask_scores(self, model: str, ids: Sequence[int], start: int) -> tuple[str, Answer]:
        """Path and body of a request to score a prompt's tokens from `start` on."""
        ...

    def scores(self, answer: Answer, ids: Sequence[int], start: int) -> Scored:
        """Of every token; those before `start`, and the first, may lack a log-probability."""
        ...


@dataclass(frozen=True, slots=True)
class Vllm:
    def ask(self, model: str, request: Request, end: int) -> tuple[str, Answer]:
        return "/v1/completions", {
            "model": model,
            "prompt": list(request.prompt),
            "max_tokens": request.max_new,
            "seed": request.seed % SEEDS,
            "temperature": request.temperature,
            # what a model's generation_config.json would otherwise set
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "ignore_eos": True,
            "stop_token_ids": [end],
            "skip_special_tokens": False,
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    def completion(self, answer: Answer, request: Request, end: int) -> Completion:
        choice = _first(answer, "choices")
        told = choice.get("logprobs") or {}
        tokens = choice.get("token_ids")
        if tokens is None:  # servers that do not know `return_token_ids`
            names = told.get("tokens") or []
            if not all(str(name).startswith("token_id:") for name in names):
                raise Unreadable("its tokens come as text, without their ids")
            tokens = [int(str(name).removeprefix("token_id:")) for name in names]
        return _checked(request, tokens, told.get("token_logprobs") or [], end)

    def ask_scores(self, model: str, ids: Sequence[int], start: int) -> tuple[str, Answer]:
        return "/v1/completions", {
            "model": model,
            "prompt": list(ids),
            "max_tokens": 1,  # it refuses to sample none
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }

    def scores(self, answer: Answer, ids: Sequence[int], start: int) -> Scored:
        told = _first(answer, "choices").get("prompt_logprobs")
        if told is None:
            raise Unreadable("it gives no prompt_logprobs, so it can act but not be scored")
        if len(told) != len(ids):
            raise Unreadable(f"{len(ids)} tokens were sent and {len(told)} scored")
        made: Scored = []
        for token, entry in zip(ids, told, strict=True):
            if entry is None:
                made.append((None, None))
            elif str(token) not in entry:
                raise Unreadable(f"token {token} was sent, and others were scored in its place")
            else:
                found = entry[str(token)]
                made.append((_number(found.get("logprob")), found.get("decoded_token")))
        return made


@dataclass(frozen=True, slots=True)
class Sglang:
    def ask(self, model: str, request: Request, end: int) -> tuple[str, Answer]:
        return "/generate", {
            "input_ids": list(request.prompt),
            "sampling_params": {
                "max_new_tokens": request.max_new,
                "sampling_seed": request.seed % SEEDS,
                "temperature": request.temperature,
                "top_p": 1.0,
                "top_k": -1,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "ignore_eos": True,
                "stop_token_ids": [end],
                "skip_special_tokens": False,
                "no_stop_trim": True,
            },
            "return_logprob": True,
        }

    def completion(self, answer: Answer, request: Request, end: int) -> Completion:
        told = _meta(answer).get("output_token_logprobs") or []
        return _checked(request, [t[1] for t in told], [t[0] for t in told], end)

    def ask_scores(self, model: str, ids: Sequence[int], start: int) -> tuple[str, Answer]:
        return "/generate", {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            # the first entry has no number
            "logprob_start_len": max(0, start - 1),
        }

    def scores(self, answer: Answer, ids: Sequence[int], start: int) -> Scored:
        told = _meta(answer).get("input_token_logprobs")
        if told is None:
            raise Unreadable("it gives no input_token_logprobs, so it can act but not be scored")
        first = len(ids) - len(told)
        if first < 0 or first > max(0, start - 1):
            raise Unreadable(f"{len(ids) - start} tokens were asked for and {len(told)} scored")
        if [entry[1] for entry in told] != list(ids[first:]):
            raise Unreadable("the tokens that were scored are not those that were sent")
        scored: Scored = [(None, None)] * first
        for number, _, *text in told:
            scored.append((None if number is None else _number(number), text[0] if text else None))
        return scored


DIALECTS: dict[Name, Dialect] = {"vllm": Vllm(), "sglang": Sglang()}


def _first(answer: Answer, name: str) -> Answer:
    found = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(found, list) or not found or not isinstance(found[0], Mapping):
        raise Unreadable(f"its answer has no {name}")
    return found[0]


def _meta(answer: Answer) -> Answer:
    found = answer.get("meta_info") if isinstance(answer, Mapping) else None
    if not isinstance(found, Mapping):
        raise Unreadable("its answer has no meta_info")
    return found


def _number(found: object) -> float:
    if not isinstance(found, int | float) or not -1e30 < found <= 1e-3:
        raise Unreadable(f"{found!r} stands where a log-probability should")
    return min(0.0, float(found))


def _checked(
    request: Request, tokens: Sequence[int], logps: Sequence[float], end: int
) -> Completion:
    """A turn, where it is one: so many ids as numbers, ended by the right token or cut off."""
    if len(tokens) != len(logps):
        raise Unreadable(f"it sampled {len(tokens)} tokens and gave {len(logps)} log-probabilities")
    ended = tokens[-1:] == [end]
    if not tokens or len(tokens) > request.max_new or end in tokens[:-1]:
        raise Unreadable(
            f"{request.max_new} tokens at most were asked for, up to the end of the turn, and it "
            f"sampled {len(tokens)}"
        )
    if not ended and len(tokens) < request.max_new:
        raise Unreadable(
            f"it ended a turn after {len(tokens)} tokens without the end-of-turn token {end}"
        )
    return Completion(
        key=request.key,
        tokens=tuple(tokens),
        logps=tuple(_number(x) for x in logps),
        ended=ended,
    )
