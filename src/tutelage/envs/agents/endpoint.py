"""The HTTP endpoint that agents talk to: chat completions, of one secret and address an episode.

    POST /sessions/ID/v1/chat/completions   streamed or not
    POST /sessions/ID/v1/responses          likewise (see `responses`)
    GET  /sessions/ID/v1/models
    POST /sessions/ID/reward                {"reward": 1.0}, and "id" of a completion to pay for it

A thread of its own serves it. Whoever plays takes the calls that wait in a session one by one and
answers each. Calls that an agent makes beside each other are a round: they are taken in an order
that depends on what they ask, and their answers leave together when the last of them is there. A
call that comes while others of its session are being answered joins their round, so that what an
agent is told does not depend on which of its threads was faster.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tutelage.envs.agents import responses, tools
from tutelage.envs.agents.requests import MODEL, Asked, Refused, asked, malformed
from tutelage.envs.pool import Reply
from tutelage.errors import EnvError, install
from tutelage.types import Call

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MAX_BODY: Final = 16 << 20
"""Bytes of a request; whole conversations are sent with every call."""
BODY_SECONDS: Final = 30.0
"""In which a request's body must have arrived."""
CONNECTIONS: Final = 4096
REMEMBERED: Final = 1000
"""Ended sessions whose late requests are told that they are over."""
EVERY: Final = ["GET", "POST", "PUT", "DELETE", "PATCH"]
RETRY: Final = "x-stainless-retry-count"
"""The header in which OpenAI's clients count how often they have sent a request before."""


def digest(call: Call) -> str:
    """Equal for calls that ask the same."""
    whole = repr((call.tools, [(m.role, m.content) for m in call.messages]))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


@dataclass(slots=True, eq=False)
class Exchange:
    """A call, and its answer once there is one."""

    call: Call
    digest: str
    turn: int = -1  # its number in the session, once it is taken
    reply: Reply | None = None
    done: bool = False  # whether the answer may leave
    delivered: bool = False
    waiting: int = 0  # connections that wait for it
    futures: list["asyncio.Future[None]"] = field(default_factory=list)


class AgentSession:
    """The calls of one episode. Its methods are called under the endpoint's lock."""

    def __init__(self, key: str, quiet: float) -> None:
        self.quiet = quiet
        self.key, self.secret = key, secrets.token_urlsafe(24)
        self.arrived: list[Exchange] = []  # since the round began
        self.round: list[Exchange] = []  # still to be taken
        self.held: list[Exchange] = []  # answered, until all of the round are
        self.now: Exchange | None = None
        self.past: list[Exchange] = []  # answered, by turn
        self.earned, self.paid = 0.0, list[tuple[int, float]]()
        self.was_paid = False
        self.counts: dict[str, int] = {}
        self.changed = 0.0  # when the last call came
        self.closed = ""  # why no more calls are answered

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def ask(self, call: Call, *, retried: bool) -> Exchange:
        """The exchange of a call: a new one, or the one that a client lost the answer of."""
        if self.closed:
            raise Refused(410, "session_over", self.closed, count="late")
        key = digest(call)
        under_way = [*self.arrived, *self.round, *self.held, *([self.now] if self.now else [])]
        for exchange in (*under_way, *reversed(self.past)):
            lost = not exchange.waiting and not exchange.delivered
            if exchange.digest == key and (lost or retried):
                self.count("repeated")
                return exchange
        exchange = Exchange(call, key)
        self.arrived.append(exchange)
        self.changed = time.monotonic()
        return exchange

    def ready(self) -> float | None:
        """Seconds until a call can be taken; None where none waits."""
        if self.round:
            return 0.0
        if not any(exchange.waiting for exchange in self.arrived):
            return None
        return max(0.0, self.changed + self.quiet - time.monotonic())

    def _begin_round(self) -> None:
        asked = [exchange for exchange in self.arrived if exchange.waiting]  # others gave up
        self.round, self.arrived = sorted(asked, key=lambda e: e.digest), []

    def take(self) -> Call:
        if not self.round:
            self._begin_round()
        self.now = self.round.pop(0)
        self.now.turn = len(self.past) + len(self.held)
        return self.now.call

    def answer(self, reply: Reply) -> list[Exchange]:
        """Answer the call that was taken; the exchanges whose answers may leave now."""
        assert self.now is not None
        self.now.reply = reply
        self.held.append(self.now)
        self.now = None
        if not self.round:
            self._begin_round()
        if self.round:
            return []
        free, self.held = self.held, []
        for exchange in free:
            exchange.done = True
        self.past += free
        return free

    def reply_to(self, call_id: str) -> str | None:
        """The text of the answer that made a call of a function."""
        _, _, number = call_id.partition("call_")
        turn = number.partition("_")[0]
        if not _small(turn) or int(turn) >= len(self.past):
            return None
        reply = self.past[int(turn)].reply
        return reply.text if reply is not None else None

    def pay(self, reward: float, turn: int | None) -> None:
        if self.closed:
            raise Refused(410, "session_over", self.closed, count="late")
        if turn is not None and not 0 <= turn < len(self.past):
            raise malformed("id: it is no completion of this session")
        self.was_paid = True
        if turn is None:
            self.earned += reward
        else:
            self.paid.append((turn, reward))

    def settle(self) -> tuple[float, tuple[tuple[int, float], ...]]:
        """What was paid since the last time, for no turn in particular and for turns."""
        earned, paid = self.earned, tuple(self.paid)
        self.earned, self.paid = 0.0, []
        return earned, paid

    def close(self, why: str) -> list[Exchange]:
        """End it; the exchanges that will have no answer."""
        self.closed = self.closed or why
        lost = [*self.arrived, *self.round, *self.held, *([self.now] if self.now else [])]
        self.arrived, self.round, self.held, self.now = [], [], [], None
        for exchange in lost:
            exchange.done = True
        return lost


class Endpoint:
    """Serves sessions on an address of this machine, from `__init__` until `stop`.

    quiet    seconds without another call after which a session's calls are a round
    changed  a condition whose lock guards the sessions; notified when a call or a result comes
    """

    def __init__(self, host: str = "127.0.0.1", *, quiet: float = 0.01) -> None:
        self.quiet = quiet
        self.changed = threading.Condition()
        self.sessions: dict[str, AgentSession] = {}  # by the key of whoever plays
        self.names: dict[str, AgentSession] = {}  # by the name in their addresses; ended ones too
        self.ended: deque[str] = deque()
        self.strangers = 0  # requests of nobody's session
        self.loop: asyncio.AbstractEventLoop | None = None
        _check_installed()
        self.socket = _listening(host)
        port = self.socket.getsockname()[1]
        shown = "127.0.0.1" if host in ("0.0.0.0", "") else host
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
        self.server = _server(self._application())
        self.thread = threading.Thread(target=self._serve, daemon=True, name="agents' endpoint")
        self.thread.start()

    def _serve(self) -> None:
        self.server.run(sockets=[self.socket])

    def stop(self) -> None:
        with self.changed:
            for key in list(self.sessions):
                self.close(key, "training is over")
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(timeout=5.0)
        self.socket.close()

    # -- for whoever plays; under the lock

    def open(self, key: str) -> tuple[str, str]:
        """Begin a session; the address and the secret that its agent is given."""
        name = secrets.token_urlsafe(9)
        session = AgentSession(name, self.quiet)
        self.sessions[key] = session
        self.names[name] = session
        return f"{self.url}/sessions/{name}/v1", session.secret

    def answer(self, key: str, reply: Reply) -> None:
        self._release(self.sessions[key].answer(reply))

    def close(self, key: str, why: str) -> None:
        session = self.sessions.pop(key, None)
        if session is not None:
            self._release(session.close(why))
            self.ended.append(session.key)
            if len(self.ended) > REMEMBERED:
                self.names.pop(self.ended.popleft(), None)

    def _release(self, exchanges: list[Exchange]) -> None:
        futures = [f for exchange in exchanges for f in exchange.futures]
        if futures and self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(_resolve, futures)

    # -- HTTP; in the loop's thread

    def _application(self) -> "Starlette":
        from starlette.applications import Starlette
        from starlette.routing import Route

        one, post = "/sessions/{name}", ["POST"]
        return Starlette(
            routes=[
                Route(f"{one}/v1/chat/completions", self._guarded(self._chat), methods=post),
                Route(f"{one}/v1/responses", self._guarded(self._responses), methods=post),
                Route(f"{one}/v1/models", self._guarded(self._models)),
                Route(f"{one}/reward", self._guarded(self._reward), methods=post),
                Route("/sessions/{name}/{rest:path}", self._guarded(self._nothing), methods=EVERY),
                Route("/{rest:path}", self._guarded(self._nothing), methods=EVERY),
            ]
        )

    def _guarded(
        self, handle: "Callable[[Request, AgentSession], Awaitable[Response]]"
    ) -> "Callable[[Request], Awaitable[Response]]":
        """Find the session, count what is refused, and answer it as OpenAI's servers do."""
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse, Response

        async def run(request: "Request") -> "Response":
            self.loop = asyncio.get_running_loop()
            session: AgentSession | None = None
            try:
                session = self._session(request)
                return await handle(request, session)
            except Refused as refused:
                with self.changed:
                    if session is None:
                        self.strangers += 1
                    else:
                        session.count(refused.count)
                return JSONResponse(refused.body(), status_code=refused.status)
            except ClientDisconnect:
                with self.changed:
                    if session is not None:
                        session.count("broken_off")
                return Response(status_code=400)
            except Exception as error:  # an agent that is told so may go on
                with self.changed:
                    if session is not None:
                        session.count("failed")
                failed = Refused(500, "server_error", f"{type(error).__name__}: {error}"[:300])
                return JSONResponse(failed.body(), status_code=failed.status)

        return run

    def _session(self, request: "Request") -> AgentSession:
        session = self.names.get(request.path_params.get("name", ""))
        given = request.headers.get("authorization", "")
        wanted = f"Bearer {session.secret if session else secrets.token_urlsafe(24)}"
        if not hmac.compare_digest(given.encode(), wanted.encode()) or session is None:
            if session is not None:
                with self.changed:
                    session.count("wrong_key")
            raise Refused(
                401,
                "invalid_api_key",
                "the key does not belong to this session; send the key that the agent was given",
            )
        return session

    async def _nothing(self, request: "Request", session: AgentSession) -> "Response":
        raise Refused(
            404,
            "not_found",
            f"there is no /{request.path_params.get('rest', '')[:100]}; v1/chat/completions, "
            "v1/responses, v1/models and reward are there",
        )

    async def _models(self, request: "Request", session: AgentSession) -> "Response":
        from starlette.responses import JSONResponse

        card = {"id": MODEL, "object": "model", "created": 0, "owned_by": "tutelage"}
        return JSONResponse({"object": "list", "data": [card]})

    async def _reward(self, request: "Request", session: AgentSession) -> "Response":
        from starlette.responses import JSONResponse

        body = await _json(request)
        reward = body.get("reward") if isinstance(body, dict) else None
        if isinstance(reward, bool) or not isinstance(reward, int | float) or not abs(reward) < 1e9:
            raise malformed('reward: a number is wanted, as in {"reward": 1.0}')
        with self.changed:
            session.pay(float(reward), _turn(body.get("id")))
        return JSONResponse({"object": "reward", "reward": reward})

    async def _chat(self, request: "Request", session: AgentSession) -> "Response":
        return await self._answered(request, session, await _json(request), self._respond)

    async def _responses(self, request: "Request", session: AgentSession) -> "Response":
        body = responses.chat_body(await _json(request))
        return await self._answered(request, session, body, self._respond_in_items)

    async def _answered(
        self,
        request: "Request",
        session: AgentSession,
        body: object,
        respond: "Callable[[AgentSession, Exchange, Asked], Response]",
    ) -> "Response":
        """Wait until a call is answered, and write the answer in its form."""
        again = request.headers.get(RETRY, "0")
        with self.changed:
            wanted = asked(body, session.reply_to)
            exchange = session.ask(wanted.call, retried=_small(again) and int(again) > 0)
            exchange.waiting += 1
            future = asyncio.get_running_loop().create_future()
            exchange.futures.append(future)
            if exchange.done:
                future.set_result(None)
            self.changed.notify_all()
        try:
            await _answered_or_gone(request, future)
        finally:
            with self.changed:
                exchange.waiting -= 1
                exchange.futures.remove(future)
        if not future.done():
            with self.changed:
                session.count("broken_off")
                self.changed.notify_all()
            return _gone()
        if exchange.reply is None:
            raise Refused(410, "session_over", session.closed, count="late")
        return respond(session, exchange, wanted)

    def _respond_in_items(
        self, session: AgentSession, exchange: Exchange, wanted: Asked
    ) -> "Response":
        from starlette.background import BackgroundTask
        from starlette.responses import JSONResponse, StreamingResponse

        reply = exchange.reply
        assert reply is not None
        message, reason = message_of(reply, exchange)
        counts = dict(zip(("prompt_tokens", "completion_tokens"), reply.tokens, strict=True))
        whole = responses.response_of(
            message,
            reason,
            name=str(exchange.turn),
            head={
                "created_at": int(time.time()),
                "model": MODEL,
                "metadata": {"version": f"step-{reply.version}"},
            },
            usage={**counts, "total_tokens": sum(reply.tokens)},
        )

        async def delivered() -> None:
            with self.changed:
                exchange.delivered = True

        if not wanted.stream:
            return JSONResponse(whole, background=BackgroundTask(delivered))

        async def stream() -> AsyncIterator[str]:
            for event in responses.events(whole):
                yield event
            await delivered()

        return StreamingResponse(stream(), media_type="text/event-stream")

    def _respond(self, session: AgentSession, exchange: Exchange, wanted: Asked) -> "Response":
        from starlette.background import BackgroundTask
        from starlette.responses import JSONResponse, StreamingResponse

        reply = exchange.reply
        assert reply is not None
        message, reason = message_of(reply, exchange)
        head = {
            "id": f"chatcmpl-{exchange.turn}",
            "created": int(time.time()),
            "model": MODEL,
            "system_fingerprint": f"step-{reply.version}",
        }
        counts = dict(zip(("prompt_tokens", "completion_tokens"), reply.tokens, strict=True))
        usage = {**counts, "total_tokens": sum(reply.tokens)}

        async def delivered() -> None:
            with self.changed:
                exchange.delivered = True

        if not wanted.stream:
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
            whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            return JSONResponse(whole, background=BackgroundTask(delivered))

        async def events() -> AsyncIterator[str]:
            for chunk in chunks(message, reason):
                yield _event({**head, "object": "chat.completion.chunk", "choices": [chunk]})
            if wanted.usage:
                last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}
                yield _event(last)
            yield "data: [DONE]\n\n"
            await delivered()

        return StreamingResponse(events(), media_type="text/event-stream")


def message_of(reply: Reply, exchange: Exchange) -> tuple[dict[str, Any], str]:
    """An answer as a message, and why it ended."""
    read = tools.read(reply.text, tools.names_of(exchange.call.tools))
    message: dict[str, Any] = {"role": "assistant", "content": read.content or None}
    if not read.calls:
        message["content"] = read.content
        return message, "stop" if reply.ended else "length"
    message["tool_calls"] = [
        {
            "id": f"call_{exchange.turn}_{k}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for k, call in enumerate(read.calls)
    ]
    return message, "tool_calls"


PIECE: Final = 64
"""Characters of an answer in one event of a stream."""


def chunks(message: dict[str, Any], reason: str) -> list[dict[str, Any]]:
    """A message as the choices of a stream's events."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    text = message["content"] or ""
    deltas += [{"content": text[k : k + PIECE]} for k in range(0, len(text), PIECE)]
    for k, call in enumerate(message.get("tool_calls", ())):
        deltas.append({"tool_calls": [{"index": k, **call}]})
    whole = [{"index": 0, "delta": d, "logprobs": None, "finish_reason": None} for d in deltas]
    return [*whole, {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}]


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _small(text: str) -> bool:
    """Whether it is a number that fits everywhere, in ordinary digits."""
    return text.isascii() and text.isdigit() and len(text) < 10


def _turn(name: object) -> int | None:
    if name is None:
        return None
    number = name.removeprefix("chatcmpl-") if isinstance(name, str) else ""
    if not _small(number):
        raise malformed("id: it is no completion of this session")
    return int(number)


def _resolve(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _gone() -> "Response":
    from starlette.responses import Response

    return Response(status_code=499)


async def _answered_or_gone(request: "Request", future: "asyncio.Future[None]") -> None:
    """Wait until a call is answered, or its client has gone."""
    leaves = asyncio.ensure_future(_leaves(request))
    try:
        await asyncio.wait({leaves, future}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaves.cancel()


async def _leaves(request: "Request") -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _json(request: "Request") -> Any:
    """The body, which is bounded in size and in time. Raises Refused."""
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 12 or int(length) > MAX_BODY:
        raise Refused(413, "request_too_large", f"a request has {MAX_BODY:,} bytes at most")
    raw = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                raw += part
                if len(raw) > MAX_BODY:
                    raise Refused(
                        413, "request_too_large", f"a request has {MAX_BODY:,} bytes at most"
                    )
    except TimeoutError:
        raise Refused(408, "timeout", f"the body did not come in {BODY_SECONDS:g} s") from None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the body is not JSON ({str(error)[:200]})") from None


def _listening(host: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.bind((host, 0))
        listening.listen(1024)
    except OSError as error:
        raise EnvError(
            f"agents cannot be served on {host} ({error.strerror}); leave env.options.host out to "
            "serve them on this machine alone"
        ) from error
    return listening


def _check_installed() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise EnvError(f"agents need starlette and uvicorn: {install('view')}") from error


def _server(application: "Starlette") -> "uvicorn.Server":
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            application,
            log_level="critical",
            access_log=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
    )
