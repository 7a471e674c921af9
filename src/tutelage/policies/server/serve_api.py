"""What a served model answers: from the body of a request to that of its answer.

    /v1/completions        ids or text, `logprobs`, `prompt_logprobs`, `return_token_ids`
    /v1/chat/completions   messages of system, user and assistant, for other programs
    /v1/models  /health  /tokenize
    /collective_rpc        reload_weights from a folder
    /weight_info  /update_weight_version   a name for the weights, which a new server does not have

The API is a part of vLLM's (repository vllm-project/vllm); the rest of it is refused.
"""

import time
from collections.abc import Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.errors import PolicyError
from tutelage.policies.base import MOST_ENDS, Completion, Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.serve_worker import Job, Worker

LOWEST_LOGPROB = -9999.0
"""JSON has no -inf; this value is sent instead."""
LOWEST_TEMPERATURE = 0.01
MAX_TOP_LOGPROBS = 1024
"""Alternatives to a token that a request may ask for."""
MAX_VERSION = 256
"""Characters of a name for the weights."""
MOST_SPACES = 64
"""Characters that one token may stand for where a tokenizer drops or joins white space."""


class RequestError(Exception):
    """A request that is answered with a status other than 200."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class CompletionBody(BaseModel):
    """The body of /v1/completions. Options that change the distribution are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = ""
    prompt: str | list[Annotated[int, Field(ge=0)]]
    max_tokens: Annotated[int, Field(ge=1)] = 16
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stop_token_ids: list[Annotated[int, Field(ge=0, lt=2**31)]] = []
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    skip_special_tokens: bool = True
    add_special_tokens: bool = False
    ignore_eos: bool = False
    user: str = ""
    n: Literal[1] = 1
    echo: Literal[False] = False
    stream: Literal[False] = False
    top_p: Literal[1] = 1
    top_k: Literal[-1, 0] = -1
    min_p: Literal[0] = 0
    repetition_penalty: Literal[1] = 1
    presence_penalty: Literal[0] = 0
    frequency_penalty: Literal[0] = 0


class MessageBody(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(BaseModel):
    """The body of /v1/chat/completions. Options that change the distribution are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = ""
    messages: Annotated[list[MessageBody], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    user: str = ""
    n: Literal[1] = 1
    stream: Literal[False] = False
    top_p: Literal[1] = 1
    presence_penalty: Literal[0] = 0
    frequency_penalty: Literal[0] = 0


B = TypeVar("B", CompletionBody, ChatBody)


class Endpoints:
    """The answers of one model, by path. Each takes the JSON object of a request and gives that of
    the answer, or raises RequestError.

    reload  whether clients may load other weights from folders of this machine
    """

    def __init__(self, policy: HFPolicy, *, name: str, reload: bool) -> None:
        self.name, self.chat, self.limit = name, policy.chat, policy.context_length
        self.weight_version = "default"
        self.keys = count()
        self.worker = Worker(policy)
        self.get = {"/health": self._health, "/v1/models": self._models}
        self.post = {
            "/v1/completions": self._completions,
            "/v1/chat/completions": self._chat,
            "/tokenize": self._tokenize,
        }
        if reload:
            self.post |= {
                "/collective_rpc": self._reload,
                "/reset_prefix_cache": self._health,
                "/update_weight_version": self._name_weights,
            }
            self.get["/weight_info"] = self._weight_info

    def _health(self, body: Any) -> Any:
        if not self.worker.is_alive():
            raise RequestError(503, "ServiceUnavailableError", "the model no longer answers")
        return {}

    def _models(self, body: Any) -> Any:
        card = {"id": self.name, "object": "model", "max_model_len": self.limit}
        return {"object": "list", "data": [card]}

    def _tokenize(self, body: Any) -> Any:
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise RequestError(400, "BadRequestError", "prompt: it must be a text")
        ids = self._ids(prompt)
        return {"tokens": ids, "count": len(ids), "max_model_len": self.limit}

    def _reload(self, body: Any) -> Any:
        kwargs = body.get("kwargs")
        folder = kwargs.get("weights_path") if isinstance(kwargs, dict) else None
        if body.get("method") != "reload_weights" or not isinstance(folder, str) or not folder:
            message = "only reload_weights with kwargs.weights_path is known"
            raise RequestError(400, "BadRequestError", message)
        if "\0" in folder or not Path(folder).is_dir():
            raise RequestError(400, "BadRequestError", f"there is no folder {folder[:200]!r}")
        try:
            self.worker.do(Job(weights=Path(folder)))
        except PolicyError as error:
            raise RequestError(400, "BadRequestError", str(error)) from None
        return {"results": [None]}

    def _weight_info(self, body: Any) -> Any:
        return {"weight_version": self.weight_version}

    def _name_weights(self, body: Any) -> Any:
        version = body.get("new_version")
        if not isinstance(version, str) or len(version) > MAX_VERSION:
            message = f"new_version: it must be a text of at most {MAX_VERSION} characters"
            raise RequestError(400, "BadRequestError", message)
        self.weight_version = version
        return {"success": True, "new_version": version}

    @cached_property
    def _most_characters(self) -> int:
        """More than a context of the tokenizer's longest tokens has. Longer texts are refused before
        they are encoded, which would take seconds."""
        longest = max(map(len, self.chat.tokenizer.get_vocab()), default=1)
        return self.limit * max(longest, MOST_SPACES)

    def _check_text(self, text: str, where: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            message = f"{where}: it holds half of a surrogate pair, which no tokenizer knows"
            raise RequestError(400, "BadRequestError", message) from None
        if len(text) > self._most_characters:
            message = (
                f"{where}: {len(text):,} characters do not fit the context of {self.limit} tokens"
            )
            raise RequestError(400, "BadRequestError", message)

    def _ids(self, text: str) -> list[int]:
        self._check_text(text, "prompt")
        ids = self.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(token) for token in ids]

    def _completions(self, body: Any) -> Any:
        options = self._options(body, CompletionBody)
        text = options.prompt
        prompt = tuple(self._ids(text) if isinstance(text, str) else text)
        self._refuse_misfits(options, prompt)
        scored = None
        if options.prompt_logprobs is not None:
            scored = self.worker.do(Job(prompt=prompt, top=options.prompt_logprobs))
        key, completion = self._sampled(
            prompt, options.max_tokens, options.temperature, options.seed, self._ends(options)
        )
        choice = {
            "index": 0,
            "text": self._text(completion.tokens, options.skip_special_tokens),
            "logprobs": None if options.logprobs is None else self._logprobs(options, completion),
            "finish_reason": "stop" if completion.ended else "length",
            "stop_reason": completion.tokens[-1] if completion.ended else None,
            "token_ids": list(completion.tokens) if options.return_token_ids else None,
            "prompt_token_ids": list(prompt) if options.return_token_ids else None,
            "prompt_logprobs": None if scored is None else [None, *map(self._entry, scored)],
        }
        return self._answered(f"cmpl-{key}", "text_completion", choice, prompt, completion)

    def _sampled(
        self,
        prompt: tuple[int, ...],
        most: int,
        temperature: float,
        seed: int | None,
        ends: tuple[int, ...] = (),
    ) -> tuple[int, Completion]:
        key = next(self.keys)
        request = Request(
            key=str(key),
            prompt=prompt,
            seed=time.time_ns() if seed is None else seed,
            max_new=most,
            temperature=temperature,
            ends=ends,
        )
        completion: Completion = self.worker.do(Job(request=request))
        return key, completion

    def _answered(
        self, name: str, kind: str, choice: Any, prompt: tuple[int, ...], completion: Completion
    ) -> Any:
        counts = {"prompt_tokens": len(prompt), "completion_tokens": len(completion.tokens)}
        return {
            "id": name,
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "choices": [choice],
            "usage": {**counts, "total_tokens": sum(counts.values())},
        }

    def _chat(self, body: Any) -> Any:
        options = self._options(body, ChatBody)
        prompt = self._conversation(options.messages)
        room = self.limit - len(prompt)
        most = options.max_completion_tokens or options.max_tokens or max(1, room)
        asked = {"prompt": list(prompt), "max_tokens": most, "temperature": options.temperature}
        self._refuse_misfits(CompletionBody.model_validate(asked), prompt)
        key, completion = self._sampled(prompt, most, options.temperature, options.seed)
        text = self.chat.text(completion.tokens)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop" if completion.ended else "length",
        }
        return self._answered(f"chatcmpl-{key}", "chat.completion", choice, prompt, completion)

    def _conversation(self, talk: Sequence[MessageBody]) -> tuple[int, ...]:
        """The ids of messages, laid out as in training: no content becomes a control token."""
        system = talk[0].content if talk[0].role == "system" else ""
        rest = talk[1:] if talk[0].role == "system" else talk
        wanted = ["user", "assistant"] * len(rest)
        if [each.role for each in rest] != wanted[: len(rest)] or len(rest) % 2 == 0:
            message = "messages: after a system message, user and assistant must take turns"
            raise RequestError(400, "BadRequestError", message)
        if len(talk) > self.limit:
            message = f"messages: {len(talk):,} do not fit the context of {self.limit} tokens"
            raise RequestError(400, "BadRequestError", message)
        # together, not one by one: a context may be filled by many
        self._check_text("".join(each.content for each in talk), "messages")
        chat = self.chat
        ids = list(chat.open(system, rest[0].content))
        for reply, seen in zip(rest[1::2], rest[2::2], strict=True):
            ids += chat.reply(reply.content)
            ids += chat.follow(seen.content, ended=True)
        return tuple(ids)

    def _options(self, body: Any, kind: type[B]) -> B:
        try:
            options = kind.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"][:1]))
            message = f"{where}: {first['msg']}"
            raise RequestError(400, "BadRequestError", message) from None
        if options.model not in ("", self.name):
            message = f"The model `{options.model}` does not exist, only {self.name}."
            raise RequestError(404, "NotFoundError", message)
        return options

    def _ends(self, options: CompletionBody) -> tuple[int, ...]:
        """The tokens that end a turn; those of the model where the body names none."""
        own = () if options.ignore_eos and options.stop_token_ids else self.chat.ends
        return tuple(dict.fromkeys((*own, *options.stop_token_ids)))

    def _refuse_misfits(self, options: CompletionBody, prompt: tuple[int, ...]) -> None:
        wrong = ""
        if not prompt:
            wrong = "the prompt is empty"
        elif max(prompt) >= self.chat.size:
            wrong = f"Token id {max(prompt)} is out of vocabulary"
        elif len(prompt) + options.max_tokens > self.limit:
            wrong = (
                f"the context is {self.limit} tokens, and {len(prompt)} of prompt and "
                f"{options.max_tokens} new ones were asked for"
            )
        elif 0 < options.temperature < LOWEST_TEMPERATURE:
            wrong = f"temperature: 0, or a number from {LOWEST_TEMPERATURE} to 100"
        elif len(self._ends(options)) > MOST_ENDS:
            wrong = f"stop_token_ids: {MOST_ENDS} tokens at most end a turn"
        elif options.logprobs:
            wrong = "logprobs: only 0, the sampled token's own, is known"
        if wrong:
            raise RequestError(400, "BadRequestError", wrong)

    def _logprobs(self, options: CompletionBody, completion: Completion) -> Any:
        as_ids = options.return_tokens_as_token_ids
        names = [f"token_id:{t}" if as_ids else self._text((t,), False) for t in completion.tokens]
        logps = [max(x, LOWEST_LOGPROB) for x in completion.logps]
        return {
            "tokens": names,
            "token_logprobs": logps,
            "top_logprobs": [{name: x} for name, x in zip(names, logps, strict=True)],
        }

    def _entry(self, scored: dict[int, tuple[float, int]]) -> Any:
        return {
            str(token): {
                "logprob": max(logp, LOWEST_LOGPROB),
                "rank": rank,
                "decoded_token": self._text((token,), False),
            }
            for token, (logp, rank) in scored.items()
        }

    def _text(self, tokens: tuple[int, ...], skip: bool) -> str:
        return str(self.chat.tokenizer.decode(list(tokens), skip_special_tokens=skip))
