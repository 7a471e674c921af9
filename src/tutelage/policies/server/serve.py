"""A model of ours behind HTTP, in the part of vLLM's dialect that `policies.remote` speaks.

    GET  /health  /v1/models
    POST /v1/completions   ids or text, `logprobs`, `prompt_logprobs`, `return_token_ids`
    POST /tokenize
    POST /collective_rpc   reload_weights from a folder, and /reset_prefix_cache: where allowed

One thread owns the model: it decodes all requests that are under way together, and scores prompts
in between. The dialect is vLLM's (repository vllm-project/vllm), the rest of it is refused.
"""

import json
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

LOWEST = -9999.0
"""Stands for minus infinity, which JSON has not."""
LARGEST = 64 << 20
"""Bytes of a request at most."""
MOST = 1024
"""Alternatives to a token that may be asked for."""


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, kind: str, said: str) -> None:
        super().__init__(said)
        self.status, self.kind = status, kind


class Asked(BaseModel):
    """The body of /v1/completions. What would change the distribution is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    model: str = ""
    prompt: str | list[Annotated[int, Field(ge=0)]]
    max_tokens: Annotated[int, Field(ge=1)] = 16
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    seed: int | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MOST)] | None = None
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


Scored = list[dict[int, tuple[float, int]]]
"""After each token of a prompt but the last: ids with log-probability and rank, the next first."""


@dataclass(slots=True)
class Job:
    """What the model's thread is asked for."""

    request: Request | None = None  # to sample
    prompt: tuple[int, ...] = ()  # to score
    top: int = 0
    weights: Path | None = None  # to load
    answer: "Future[Any]" = field(default_factory=Future)


class Worker(threading.Thread):
    """Owns the policy: nobody else may touch it."""

    def __init__(self, policy: HFPolicy) -> None:
        super().__init__(daemon=True)
        self.policy = policy
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.turns: dict[str, Job] = {}

    def do(self, job: Job) -> Any:
        """Ask, and wait for the answer."""
        self.jobs.put(job)
        return job.answer.result()

    def run(self) -> None:
        while True:
            # with nothing under way, sleep until somebody asks
            while not self.turns or not self.jobs.empty():
                job = self.jobs.get()
                if job is None:
                    return
                self._begin(job)
            for made in self.policy.poll():
                self.turns.pop(made.key).answer.set_result(made)
                self.policy.release(made.key)

    def _begin(self, job: Job) -> None:
        try:
            if job.request is not None:
                self.policy.submit(job.request)
                self.turns[job.request.key] = job
            elif job.weights is not None:
                job.answer.set_result(self._load(job.weights))
            else:
                job.answer.set_result(self._score(job.prompt, job.top))
        except (PolicyError, OSError, RuntimeError) as error:
            job.answer.set_exception(error)

    @torch.no_grad()
    def _score(self, ids: tuple[int, ...], top: int) -> Scored:
        if len(ids) < 2:
            return []
        of = self.policy.score([Sample(prompt=ids[:1], tokens=ids[1:])], 1.0).distribution
        made: Scored = []
        for start in range(0, len(of), of.chunk):
            rows = of[start : start + of.chunk].logps()
            next_ = torch.tensor(ids[start + 1 : start + 1 + len(rows)], device=rows.device)
            mine = rows.gather(-1, next_[:, None])
            rank = (rows > mine).sum(-1) + 1
            best = rows.topk(min(top, rows.shape[-1]), -1)
            found = zip(
                next_.tolist(), mine[:, 0].tolist(), rank.tolist(), best.indices.tolist(),
                best.values.tolist(), strict=True,
            )  # fmt: skip
            for token, logp, place, others, theirs in found:
                listed = {t: (x, k) for k, (t, x) in enumerate(zip(others, theirs, strict=True), 1)}
                listed.pop(token, None)
                made.append({token: (logp, place), **listed})
        return made

    @torch.no_grad()
    def _load(self, folder: Path) -> None:
        """Other weights of the same model, from its safetensors."""
        from safetensors.torch import load_file

        own = self.policy.model.state_dict()
        made: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            made |= load_file(path)
        for name, value in made.items():
            if name not in own or own[name].shape != value.shape:
                raise PolicyError(f"{folder} holds {name}, which is not in this model")
        # a tied head may be told once or twice
        told = {own[name].data_ptr() for name in made}
        if told != {value.data_ptr() for value in own.values()}:
            raise PolicyError(f"{folder} does not hold all weights of this model")
        for name, value in made.items():
            own[name].copy_(value)
        self.policy.refresh()


class Server(ThreadingHTTPServer):
    """Listens; `port` says where, also if any free one was asked for with 0.

    reload  whether those who can reach it may load other weights from folders of this machine
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, policy: HFPolicy, *, name: str, host: str = "127.0.0.1", port: int = 0, key: str = "",
        reload: bool = False,
    ) -> None:  # fmt: skip
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another --port"
            ) from None
        self.name, self.key, self.reload, self.chat = name, key, reload, policy.chat
        self.limit = policy.context_length
        self.keys = count()
        self.worker = Worker(policy)
        self.worker.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def stop(self) -> None:
        """From another thread than the one that serves."""
        self.shutdown()
        self.worker.jobs.put(None)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a run asks thousands of times."""

    def do_GET(self) -> None:
        self._answer({"/health": self._health, "/v1/models": self._models})

    def do_POST(self) -> None:
        paths = {"/v1/completions": self._completions, "/tokenize": self._tokenize}
        if self.server.reload:
            paths |= {"/collective_rpc": self._reload, "/reset_prefix_cache": self._health}
        self._answer(paths)

    def _answer(self, paths: Mapping[str, Any]) -> None:
        try:
            # read before anything is refused: what is left unread would be taken for a request
            body = self._body()
            wanted = self.path.partition("?")[0]
            if wanted not in paths:
                raise Refused(404, "NotFoundError", f"there is no {wanted}")
            key = self.server.key
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                raise Refused(401, "AuthenticationError", "the key is missing or wrong")
            status, made = 200, paths[wanted](body)
        except Refused as refused:
            error = {"message": str(refused), "type": refused.kind, "code": refused.status}
            status, made = refused.status, {"error": error}
        except (PolicyError, OSError, RuntimeError) as problem:
            error = {"message": str(problem), "type": "InternalServerError", "code": 500}
            status, made = 500, {"error": error}
        raw = json.dumps(made).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # nobody waits for it any more

    def _body(self) -> Any:
        length = int(self.headers.get("Content-Length") or 0)
        if length > LARGEST:
            self.close_connection = True
            raise Refused(413, "BadRequestError", f"a request has {LARGEST} bytes at most")
        raw = self.rfile.read(length)
        try:
            return json.loads(raw) if raw else {}
        except ValueError as error:
            raise Refused(400, "BadRequestError", f"the body is not JSON ({error})") from None

    # -- what is answered

    def _health(self, body: Any) -> Any:
        return {}

    def _models(self, body: Any) -> Any:
        card = {"id": self.server.name, "object": "model", "max_model_len": self.server.limit}
        return {"object": "list", "data": [card]}

    def _tokenize(self, body: Any) -> Any:
        ids = self._ids(str(body.get("prompt", "")))
        return {"tokens": ids, "count": len(ids), "max_model_len": self.server.limit}

    def _reload(self, body: Any) -> Any:
        folder = (body.get("kwargs") or {}).get("weights_path")
        if body.get("method") != "reload_weights" or not folder:
            said = "only reload_weights with kwargs.weights_path is known"
            raise Refused(400, "BadRequestError", said)
        if not Path(folder).is_dir():
            raise Refused(400, "BadRequestError", f"there is no folder {folder}")
        self.server.worker.do(Job(weights=Path(folder)))
        return {"results": [None]}

    def _ids(self, text: str) -> list[int]:
        made = self.server.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(token) for token in made]

    def _completions(self, body: Any) -> Any:
        asked = self._asked(body)
        prompt = tuple(self._ids(asked.prompt) if isinstance(asked.prompt, str) else asked.prompt)
        self._refuse_misfits(asked, prompt)
        scored = None
        if asked.prompt_logprobs is not None:
            scored = self.server.worker.do(Job(prompt=prompt, top=asked.prompt_logprobs))
        key = next(self.server.keys)
        seed = time.time_ns() if asked.seed is None else asked.seed
        made: Completion = self.server.worker.do(
            Job(
                request=Request(
                    key=str(key), prompt=prompt, seed=seed, max_new=asked.max_tokens,
                    temperature=asked.temperature,
                )
            )
        )  # fmt: skip
        choice = {
            "index": 0,
            "text": self._text(made.tokens, asked.skip_special_tokens),
            "logprobs": None if asked.logprobs is None else self._told(asked, made),
            "finish_reason": "stop" if made.ended else "length",
            "stop_reason": self.server.chat.end if made.ended else None,
            "token_ids": list(made.tokens) if asked.return_token_ids else None,
            "prompt_token_ids": list(prompt) if asked.return_token_ids else None,
            "prompt_logprobs": None if scored is None else [None, *map(self._entry, scored)],
        }
        counts = {"prompt_tokens": len(prompt), "completion_tokens": len(made.tokens)}
        return {
            "id": f"cmpl-{key}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.server.name,
            "choices": [choice],
            "usage": {**counts, "total_tokens": sum(counts.values())},
        }

    def _asked(self, body: Any) -> Asked:
        try:
            asked = Asked.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"][:1]))
            said = f"{where}: {first['msg']}"
            raise Refused(400, "BadRequestError", said) from None
        if asked.model not in ("", self.server.name):
            said = f"The model `{asked.model}` does not exist, only {self.server.name}."
            raise Refused(404, "NotFoundError", said)
        return asked

    def _refuse_misfits(self, asked: Asked, prompt: tuple[int, ...]) -> None:
        wrong = ""
        if not prompt:
            wrong = "the prompt is empty"
        elif max(prompt) >= self.server.chat.size:
            wrong = f"Token id {max(prompt)} is out of vocabulary"
        elif len(prompt) + asked.max_tokens > self.server.limit:
            wrong = (
                f"the context is {self.server.limit} tokens, and {len(prompt)} of prompt and "
                f"{asked.max_tokens} new ones were asked for"
            )
        elif set(asked.stop_token_ids) - {self.server.chat.end}:
            wrong = f"stop_token_ids: only {self.server.chat.end} ends a turn here"
        elif asked.logprobs:
            wrong = "logprobs: only 0, the sampled token's own, is known"
        if wrong:
            raise Refused(400, "BadRequestError", wrong)

    def _told(self, asked: Asked, made: Completion) -> Any:
        numbers = asked.return_tokens_as_token_ids
        names = [f"token_id:{t}" if numbers else self._text((t,), False) for t in made.tokens]
        logps = [max(x, LOWEST) for x in made.logps]
        return {
            "tokens": names,
            "token_logprobs": logps,
            "top_logprobs": [{name: x} for name, x in zip(names, logps, strict=True)],
        }

    def _entry(self, scored: dict[int, tuple[float, int]]) -> Any:
        return {
            str(token): {
                "logprob": max(logp, LOWEST),
                "rank": rank,
                "decoded_token": self._text((token,), False),
            }
            for token, (logp, rank) in scored.items()
        }

    def _text(self, tokens: tuple[int, ...], skip: bool) -> str:
        return str(self.server.chat.tokenizer.decode(list(tokens), skip_special_tokens=skip))
