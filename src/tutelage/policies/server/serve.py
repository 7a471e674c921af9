"""An HTTP server for one `HFPolicy` that answers the requests `RemotePolicy` sends to vLLM.

    GET  /health  /v1/models
    POST /v1/completions   ids or text, `logprobs`, `prompt_logprobs`, `return_token_ids`
    POST /v1/chat/completions   messages of system, user and assistant, for other programs
    POST /tokenize
    POST /collective_rpc   reload_weights from a folder, and /reset_prefix_cache: with `reload`

One thread owns the model: it decodes all requests under way together and scores prompts in between.
The API is a part of vLLM's (repository vllm-project/vllm); the rest of it is refused.
"""

import hmac
import json
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

LOWEST_LOGPROB = -9999.0
"""JSON has no -inf; this value is sent instead."""
MAX_REQUEST_BYTES = 4 << 20
"""Twice the size of the longest prompts' ids; all clients together may use CONNECTIONS times as
much."""
CONNECTIONS = 256
"""Maximum number of concurrent clients."""
LINGER_SECONDS = 2.0
"""Seconds for which a refused client may continue to send."""
IDLE_SECONDS = 60
"""Seconds after which a silent client is disconnected."""
LOWEST_TEMPERATURE = 0.01
MAX_TOP_LOGPROBS = 1024
"""Alternatives to a token that a request may ask for."""


class RequestError(Exception):
    """A request that is answered with a status other than 200."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class CompletionBody(BaseModel):
    """The body of /v1/completions. Options that change the distribution are refused."""

    model_config = ConfigDict(extra="forbid")

    model: str = ""
    prompt: str | list[Annotated[int, Field(ge=0)]]
    max_tokens: Annotated[int, Field(ge=1)] = 16
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stop_token_ids: list[int] = []
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

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatBody(BaseModel):
    """The body of /v1/chat/completions. Options that change the distribution are refused."""

    model_config = ConfigDict(extra="forbid")

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
TopLogprobs = list[dict[int, tuple[float, int]]]
"""For each token of a prompt but the first: its id and the likeliest ones, with log-probability and
rank; the token itself comes first."""


@dataclass(slots=True)
class Job:
    """One task for the thread that owns the model."""

    request: Request | None = None  # to sample
    prompt: tuple[int, ...] = ()  # to score
    top: int = 0
    weights: Path | None = None  # to load
    answer: "Future[Any]" = field(default_factory=Future)


class Worker(threading.Thread):
    """The thread that owns the policy; no other thread uses it."""

    def __init__(self, policy: HFPolicy) -> None:
        super().__init__(daemon=True)
        self.policy = policy
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.turns: dict[str, Job] = {}

    def do(self, job: Job) -> Any:
        """Queue a job and wait for its answer."""
        self.jobs.put(job)
        return job.answer.result()

    def run(self) -> None:
        while True:
            # with nothing under way, sleep until the next job
            while not self.turns or not self.jobs.empty():
                job = self.jobs.get()
                if job is None:
                    return
                self._begin(job)
            try:
                completions = self.policy.poll()
            except Exception as error:
                # the turns under way are lost, and the model answers again
                self._give_up(error)
                continue
            for completion in completions:
                self.turns.pop(completion.key).answer.set_result(completion)
                self.policy.release(completion.key)

    def _give_up(self, error: Exception) -> None:
        turns, self.turns = self.turns, {}
        for job in turns.values():
            job.answer.set_exception(error)
        self.policy.refresh()

    def _begin(self, job: Job) -> None:
        try:
            if job.request is not None:
                self.policy.submit(job.request)
                self.turns[job.request.key] = job
            elif job.weights is not None:
                job.answer.set_result(self._load(job.weights))
            else:
                job.answer.set_result(self._score(job.prompt, job.top))
        except Exception as error:  # the thread must not die: all clients wait for it
            job.answer.set_exception(error)

    @torch.no_grad()
    def _score(self, ids: tuple[int, ...], top: int) -> TopLogprobs:
        if len(ids) < 2:
            return []
        sample = Sample(prompt=ids[:1], tokens=ids[1:])
        distribution = self.policy.score([sample], 1.0).distribution
        scores: TopLogprobs = []
        for start in range(0, len(distribution), distribution.chunk):
            logps = distribution[start : start + distribution.chunk].logps()
            token = torch.tensor(ids[start + 1 : start + 1 + len(logps)], device=logps.device)
            token_logp = logps.gather(-1, token[:, None])
            rank = (logps > token_logp).sum(-1) + 1
            best = logps.topk(min(top, logps.shape[-1]), -1)
            entries = zip(
                token.tolist(),
                token_logp[:, 0].tolist(),
                rank.tolist(),
                best.indices.tolist(),
                best.values.tolist(),
                strict=True,
            )
            for t, logp, place, best_ids, best_logps in entries:
                ranked = enumerate(zip(best_ids, best_logps, strict=True), 1)
                alternatives = {other: (x, k) for k, (other, x) in ranked if other != t}
                scores.append({t: (logp, place), **alternatives})
        return scores

    @torch.no_grad()
    def _load(self, folder: Path) -> None:
        """Load other weights of the same model from the safetensors of a folder. All of them are
        read and checked before the first is replaced."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        state = self.policy.model.state_dict()
        weights: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            if path.name == "optimizer.safetensors":
                continue
            try:
                weights |= load_file(path)
            except (OSError, ValueError, SafetensorError) as error:
                raise PolicyError(f"{path} cannot be read ({error})") from error
        for name, value in weights.items():
            if name not in state or state[name].shape != value.shape:
                raise PolicyError(f"{folder} holds {name}, which is not in this model")
            if not value.isfinite().all():
                raise PolicyError(f"{folder} holds {name} with numbers that are not finite")
        # a tied LM head may be in the file once or twice
        given = {state[name].data_ptr() for name in weights}
        if given != {value.data_ptr() for value in state.values()}:
            raise PolicyError(f"{folder} does not hold all weights of this model")
        for name, value in weights.items():
            state[name].copy_(value)
        self.policy.refresh()


class Server(ThreadingHTTPServer):
    """The HTTP server. `port` is the real one, also if 0 asked for any free port.

    reload  whether clients may load other weights from folders of this machine
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        policy: HFPolicy,
        *,
        name: str,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = "",
        reload: bool = False,
    ) -> None:
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(
                f"cannot listen on {host}:{port} ({why}); choose another --port"
            ) from None
        self.free = threading.Semaphore(CONNECTIONS)
        self.name, self.key, self.reload, self.chat = name, key, reload, policy.chat
        self.limit = policy.context_length
        self.keys = count()
        self.worker = Worker(policy)
        self.worker.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def stop(self) -> None:
        """Stop serving; call it from another thread than the one that serves."""
        self.shutdown()
        self.worker.jobs.put(None)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a run sends thousands of requests."""

    def do_GET(self) -> None:
        self._answer({"/health": self._health, "/v1/models": self._models})

    def do_POST(self) -> None:
        paths = {
            "/v1/completions": self._completions,
            "/v1/chat/completions": self._chat,
            "/tokenize": self._tokenize,
        }
        if self.server.reload:
            paths |= {"/collective_rpc": self._reload, "/reset_prefix_cache": self._health}
        self._answer(paths)

    def _answer(self, paths: Mapping[str, Any]) -> None:
        read = False
        try:
            length = self._length()
            self._check_key()
            # read the body before any other error: unread bytes would be the next request
            body = self._body(length)
            read = True
            wanted = self.path.partition("?")[0]
            if wanted not in paths:
                raise RequestError(404, "NotFoundError", f"there is no {wanted[:100]}")
            if not isinstance(body, dict):
                raise RequestError(400, "BadRequestError", "the body is no JSON object")
            status, answer = 200, paths[wanted](body)
        except TimeoutError:
            self.close_connection = True
            return
        except RequestError as refused:
            error = {"message": str(refused), "type": refused.kind, "code": refused.status}
            status, answer = refused.status, {"error": error}
        except Exception as problem:
            message = str(problem)[:500] or type(problem).__name__
            error = {"message": message, "type": "InternalServerError", "code": 500}
            status, answer = 500, {"error": error}
        self.close_connection = self.close_connection or not read
        raw = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(raw)
            if not read:
                self._discard()
        except OSError:
            self.close_connection = True  # the client has gone

    def _discard(self) -> None:
        """Read and discard the rest of a refused request: the client would miss the answer
        otherwise."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(LINGER_SECONDS)
        end = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < end and self.connection.recv(1 << 16):
            pass

    def _length(self) -> int:
        """Bytes of the body, before any is read."""
        if self.headers.get("Transfer-Encoding"):
            raise RequestError(411, "BadRequestError", "the body needs a Content-Length")
        text = (self.headers.get("Content-Length") or "0").strip()
        if not (text.isascii() and text.isdigit()):
            raise RequestError(400, "BadRequestError", "the Content-Length is no number")
        if len(text) > 12 or int(text) > MAX_REQUEST_BYTES:
            message = f"a request has {MAX_REQUEST_BYTES} bytes at most"
            raise RequestError(413, "BadRequestError", message)
        return int(text)

    def _check_key(self) -> None:
        key, given = self.server.key, self.headers.get("Authorization") or ""
        if key and not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            raise RequestError(401, "AuthenticationError", "the key is missing or wrong")

    def _body(self, length: int) -> Any:
        raw = self.rfile.read(length)
        try:
            return json.loads(raw) if raw else {}
        except (ValueError, RecursionError) as error:
            reason = str(error)[:200]
            raise RequestError(400, "BadRequestError", f"the body is not JSON ({reason})") from None

    # -- endpoints

    def _health(self, body: Any) -> Any:
        if not self.server.worker.is_alive():
            raise RequestError(503, "ServiceUnavailableError", "the model no longer answers")
        return {}

    def _models(self, body: Any) -> Any:
        card = {"id": self.server.name, "object": "model", "max_model_len": self.server.limit}
        return {"object": "list", "data": [card]}

    def _tokenize(self, body: Any) -> Any:
        prompt = body.get("prompt", "")
        if not isinstance(prompt, str):
            raise RequestError(400, "BadRequestError", "prompt: it must be a text")
        ids = self._ids(prompt)
        return {"tokens": ids, "count": len(ids), "max_model_len": self.server.limit}

    def _reload(self, body: Any) -> Any:
        kwargs = body.get("kwargs")
        folder = kwargs.get("weights_path") if isinstance(kwargs, dict) else None
        if body.get("method") != "reload_weights" or not isinstance(folder, str) or not folder:
            message = "only reload_weights with kwargs.weights_path is known"
            raise RequestError(400, "BadRequestError", message)
        if "\0" in folder or not Path(folder).is_dir():
            raise RequestError(400, "BadRequestError", f"there is no folder {folder[:200]!r}")
        try:
            self.server.worker.do(Job(weights=Path(folder)))
        except PolicyError as error:
            raise RequestError(400, "BadRequestError", str(error)) from None
        return {"results": [None]}

    def _ids(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            message = "prompt: it holds half of a surrogate pair, which no tokenizer knows"
            raise RequestError(400, "BadRequestError", message) from None
        ids = self.server.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(token) for token in ids]

    def _completions(self, body: Any) -> Any:
        options = self._options(body, CompletionBody)
        text = options.prompt
        prompt = tuple(self._ids(text) if isinstance(text, str) else text)
        self._refuse_misfits(options, prompt)
        scored = None
        if options.prompt_logprobs is not None:
            scored = self.server.worker.do(Job(prompt=prompt, top=options.prompt_logprobs))
        key, completion = self._sampled(
            prompt, options.max_tokens, options.temperature, options.seed
        )
        choice = {
            "index": 0,
            "text": self._text(completion.tokens, options.skip_special_tokens),
            "logprobs": None if options.logprobs is None else self._logprobs(options, completion),
            "finish_reason": "stop" if completion.ended else "length",
            "stop_reason": self.server.chat.end if completion.ended else None,
            "token_ids": list(completion.tokens) if options.return_token_ids else None,
            "prompt_token_ids": list(prompt) if options.return_token_ids else None,
            "prompt_logprobs": None if scored is None else [None, *map(self._entry, scored)],
        }
        return self._answered(f"cmpl-{key}", "text_completion", choice, prompt, completion)

    def _sampled(
        self, prompt: tuple[int, ...], most: int, temperature: float, seed: int | None
    ) -> tuple[int, Completion]:
        key = next(self.server.keys)
        request = Request(
            key=str(key),
            prompt=prompt,
            seed=time.time_ns() if seed is None else seed,
            max_new=most,
            temperature=temperature,
        )
        completion: Completion = self.server.worker.do(Job(request=request))
        return key, completion

    def _answered(
        self, name: str, kind: str, choice: Any, prompt: tuple[int, ...], completion: Completion
    ) -> Any:
        counts = {"prompt_tokens": len(prompt), "completion_tokens": len(completion.tokens)}
        return {
            "id": name,
            "object": kind,
            "created": int(time.time()),
            "model": self.server.name,
            "choices": [choice],
            "usage": {**counts, "total_tokens": sum(counts.values())},
        }

    def _chat(self, body: Any) -> Any:
        options = self._options(body, ChatBody)
        prompt = self._conversation(options.messages)
        room = self.server.limit - len(prompt)
        most = options.max_completion_tokens or options.max_tokens or max(1, room)
        asked = {"prompt": list(prompt), "max_tokens": most, "temperature": options.temperature}
        self._refuse_misfits(CompletionBody.model_validate(asked), prompt)
        key, completion = self._sampled(prompt, most, options.temperature, options.seed)
        text = self.server.chat.text(completion.tokens)
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
        chat = self.server.chat
        ids = chat.open(system, rest[0].content)
        for reply, seen in zip(rest[1::2], rest[2::2], strict=True):
            ids = (*ids, *chat.reply(reply.content), *chat.follow(seen.content, ended=True))
        return ids

    def _options(self, body: Any, kind: type[B]) -> B:
        try:
            options = kind.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"][:1]))
            message = f"{where}: {first['msg']}"
            raise RequestError(400, "BadRequestError", message) from None
        if options.model not in ("", self.server.name):
            message = f"The model `{options.model}` does not exist, only {self.server.name}."
            raise RequestError(404, "NotFoundError", message)
        return options

    def _refuse_misfits(self, options: CompletionBody, prompt: tuple[int, ...]) -> None:
        wrong = ""
        if not prompt:
            wrong = "the prompt is empty"
        elif max(prompt) >= self.server.chat.size:
            wrong = f"Token id {max(prompt)} is out of vocabulary"
        elif len(prompt) + options.max_tokens > self.server.limit:
            wrong = (
                f"the context is {self.server.limit} tokens, and {len(prompt)} of prompt and "
                f"{options.max_tokens} new ones were asked for"
            )
        elif 0 < options.temperature < LOWEST_TEMPERATURE:
            wrong = f"temperature: 0, or a number from {LOWEST_TEMPERATURE} to 100"
        elif set(options.stop_token_ids) - {self.server.chat.end}:
            wrong = f"stop_token_ids: only {self.server.chat.end} ends a turn here"
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
        return str(self.server.chat.tokenizer.decode(list(tokens), skip_special_tokens=skip))
