"""vLLM's /v1/completions: the JSON bodies that are sent, and how the answers are read.

Sampling uses `return_token_ids` and explicit sampling switches, scoring uses `prompt_logprobs`;
both give log-probabilities at temperature 1 unless the server was started otherwise. Recorded from
vLLM 0.32 (repository vllm-project/vllm); `tutelage serve` answers the same requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.policies.base import Completion, Request

PATH = "/v1/completions"
Answer = Mapping[str, Any]
ScoredTokens = list[tuple[float | None, str | None]]
"""For each token of a prompt its log-probability and its text, None where the server gave none."""
SEEDS = 2**63
"""Servers take signed 64-bit seeds."""


class InvalidAnswer(ValueError):
    """An answer that does not contain what was requested."""


def completion_request(model: str, request: Request, ends: Sequence[int]) -> Answer:
    """The body that samples a turn until one of the tokens `ends`."""
    return {
        "model": model,
        "prompt": list(request.prompt),
        "max_tokens": request.max_new,
        "seed": request.seed % SEEDS,
        "temperature": request.temperature,
        # vLLM would otherwise take these from the model's generation_config.json
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "ignore_eos": True,
        "stop_token_ids": list(ends),
        "skip_special_tokens": False,
        "logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def read_completion(answer: Answer, request: Request, ends: Sequence[int]) -> Completion:
    """The sampled turn. Raises InvalidAnswer where it is not what `request` asked for."""
    choice = _first_choice(answer)
    logprobs = choice.get("logprobs") or {}
    tokens = choice.get("token_ids")
    if tokens is None:  # servers that do not know `return_token_ids`
        names = logprobs.get("tokens") or []
        if not all(str(name).startswith("token_id:") for name in names):
            raise InvalidAnswer("its tokens come as text, without their ids")
        numbers = [str(name).removeprefix("token_id:") for name in names]
        if not all(
            number.isascii() and number.isdigit() and len(number) < 10 for number in numbers
        ):
            raise InvalidAnswer("its token ids are not whole numbers from 0 on")
        tokens = [int(number) for number in numbers]
    if not isinstance(tokens, list) or not all(_is_id(token) for token in tokens):
        raise InvalidAnswer("its token ids are not whole numbers from 0 on")
    return _checked(request, tokens, logprobs.get("token_logprobs") or [], ends)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def score_request(model: str, ids: Sequence[int]) -> Answer:
    """The body that scores the tokens of a prompt."""
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,  # vLLM refuses to sample no token at all
        "temperature": 0.0,
        "prompt_logprobs": 0,
    }


def read_scores(answer: Answer, ids: Sequence[int]) -> ScoredTokens:
    """Log-probability and text of every token of `ids`; the first has none. Raises InvalidAnswer
    where other tokens were scored."""
    entries = _first_choice(answer).get("prompt_logprobs")
    if entries is None:
        raise InvalidAnswer("it gives no prompt_logprobs, so it can act but not be scored")
    if len(entries) != len(ids):
        raise InvalidAnswer(f"{len(ids)} tokens were sent and {len(entries)} scored")
    scores: ScoredTokens = []
    for token, entry in zip(ids, entries, strict=True):
        if entry is None:
            scores.append((None, None))
        elif str(token) not in entry:
            raise InvalidAnswer(f"token {token} was sent, and others were scored in its place")
        else:
            found = entry[str(token)]
            text = found.get("decoded_token")
            if text is not None and not isinstance(text, str):
                raise InvalidAnswer("the text of a token is no text")
            scores.append((_logprob(found.get("logprob")), text))
    return scores


def _first_choice(answer: Answer) -> Answer:
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise InvalidAnswer("its answer has no choices")
    if len(choices) > 1:
        raise InvalidAnswer(f"one choice was asked for, and its answer has {len(choices)}")
    return choices[0]


def _logprob(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e30 < value <= 1e-3:
        raise InvalidAnswer(f"{str(value)[:40]} stands where a log-probability should")
    return min(0.0, float(value))


def _checked(
    request: Request, tokens: Sequence[int], logps: Sequence[float], ends: Sequence[int]
) -> Completion:
    """A turn with one log-probability per token that ends with one of `ends` or at the length limit."""
    if len(tokens) != len(logps):
        raise InvalidAnswer(
            f"it sampled {len(tokens)} tokens and gave {len(logps)} log-probabilities"
        )
    ended = tokens[-1:] != [] and tokens[-1] in ends
    if not tokens or len(tokens) > request.max_new or set(ends) & set(tokens[:-1]):
        raise InvalidAnswer(
            f"{request.max_new} tokens at most were asked for, up to the end of the turn, and it "
            f"sampled {len(tokens)}"
        )
    if not ended and len(tokens) < request.max_new:
        raise InvalidAnswer(
            f"it ended a turn after {len(tokens)} tokens without the end-of-turn token {ends[0]}"
        )
    return Completion(
        key=request.key,
        tokens=tuple(tokens),
        logps=tuple(_logprob(x) for x in logps),
        ended=ended,
    )
