"""Tools of an MCP server (Model Context Protocol) as an environment, with a reward of the user's."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from tutelage.envs.adapters.common import event_loop, imported
from tutelage.envs.listed_tasks import function, listed_tasks
from tutelage.envs.observations import flag, number
from tutelage.envs.requirements import Need, package
from tutelage.errors import ConfigError, EnvError, did_you_mean, first_line, install
from tutelage.types import Observation, Task

INSTALL: Final = install("mcp")
CLOSE_SECONDS: Final = 10.0
"""For a server to end after its connection was closed; its process is killed earlier than this."""

LOST: Final = (-32000, -32001)
"""Codes with which the client reports a closed connection, and an answer that did not come."""


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    yield package("mcp", "mcp")


@dataclass(frozen=True, slots=True)
class Played:
    """An episode that is over, for a reward function.

    task    the task
    answer  the agent's last words, an answer without a call
    calls   (name, arguments, result) of every call, in order
    ask     calls a tool of the same server: ask(name, **arguments) -> its result, to look at what
            the agent has done
    """

    task: Task
    answer: str
    calls: Sequence[tuple[str, Mapping[str, Any], str]]
    ask: Callable[..., str]


class MCP:
    """Tools of an MCP server. The agent calls them until it answers without a call, which ends the
    episode; a reward function of yours judges it.

    tasks    a function as "module:name", called with the name of a split, or a file of JSON lines;
             the agent reads what a task holds under "question"
    reward   a function as "module:name", called with a `Played`: a number, or a dict with reward,
             won and score; without won, a reward above 0 wins
    command  starts a server that talks over stdin and stdout, as a text or a list of words; `python`
             as its first word is the Python that this library runs in
    url      instead of it: where a server is, such as "http://localhost:8000/mcp"
    only     the names of the tools that the agent gets; all of them if empty
    rules    text that the agent reads first; the server's own instructions if empty
    shared   one connection for all episodes of a worker, for tools that keep nothing between
             calls; otherwise every episode has a new one, and with `command` a new server
    seconds  how long the server may take to start, and for each answer
    """

    class_name = "MCP"

    def __init__(
        self,
        tasks: str | Callable[..., Any],
        reward: str | Callable[..., Any],
        command: str | Sequence[str] = "",
        url: str = "",
        only: Sequence[str] = (),
        rules: str = "",
        shared: bool = False,
        seconds: float = 30.0,
    ) -> None:
        if bool(command) == bool(url):
            raise ConfigError(
                "env.options needs exactly one of command, which starts an MCP server, and url, "
                "where one is"
            )
        if not 0 < seconds <= 3600:
            raise ConfigError(f"env.options.seconds = {seconds:g}: give 1 to 3600 seconds")
        if isinstance(command, str):
            command = shlex.split(command)
        self.listed, self.reward, self.command, self.url = tasks, reward, tuple(command), url
        self.only, self.rules = tuple(only), rules
        self.is_shared, self.seconds = shared, seconds
        self._facts: tuple[list[dict[str, Any]], str] | None = None
        self._connection: Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_facts": None, "_connection": None}

    def tasks(self, split: str) -> Sequence[Task]:
        found = listed_tasks(self.listed, split, prefix="mcp")
        for task in found:
            if not task.data.get("question", "").strip():
                raise ConfigError(
                    f'env.options.tasks: the task {task.id} has no "question", which the agent '
                    "reads first"
                )
        return found

    def connect(self) -> "Connection":
        """A new connection, or the shared one."""
        if not self.is_shared:
            return Connection(self.command, self.url, seconds=self.seconds)
        if self._connection is None or self._connection.ended:
            self._connection = Connection(self.command, self.url, seconds=self.seconds)
        return self._connection

    def facts(self) -> tuple[list[dict[str, Any]], str]:
        """The tools that the agent gets, and the server's instructions."""
        if self._facts is None:
            connection = self.connect()
            every, instructions = connection.tools(), connection.instructions
            if not self.is_shared:
                connection.close()
            names = [tool["name"] for tool in every]
            for name in self.only:
                if name not in names:
                    raise ConfigError(
                        f"env.options.only names {name!r}, which the server does not have"
                        f"{did_you_mean(name, names)}; it has {', '.join(names) or 'no tools'}"
                    )
            tools = [tool for tool in every if not self.only or tool["name"] in self.only]
            if not tools:
                raise ConfigError("env.options: the MCP server has no tools to be called")
            self._facts = tools, instructions
        return self._facts

    def tools(self) -> list[dict[str, Any]]:
        return self.facts()[0]

    def identity(self) -> str:
        """What the agent can call, which no first observation shows."""
        return sha256(json.dumps(self.tools(), sort_keys=True).encode()).hexdigest()[:16]

    def instructions(self) -> str:
        return self.rules or self.facts()[1] or "Answer with the help of the functions."

    def describe(self, task: Task) -> str:
        return task.data["question"]

    def answer(self, task: Task) -> str:
        """The reference answer: what the task's data hold under "answer"."""
        return task.data.get("answer", "")

    def make(self) -> "MCPEnv":
        judge = function(self.reward, where="env.options.reward", what="a reward function")
        return MCPEnv(self, judge)


class MCPEnv:
    """One episode at a time, over a connection of its own or the suite's shared one."""

    def __init__(self, suite: MCP, judge: Callable[..., Any]) -> None:
        self.suite, self.judge = suite, judge
        self.connection: Connection | None = None
        self.calls: list[tuple[str, Mapping[str, Any], str]] = []

    def reset(self, task: Task) -> Observation:
        self.close()
        self.task, self.calls = task, []
        self.connection = self.suite.connect()
        return Observation(text=task.data["question"], state=(task.id, 0))

    def call(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        text, valid = self._connected().call(name, arguments)
        self.calls.append((name, arguments, text))
        return Observation(text=text, valid=valid, state=self._state())

    def step(self, action: str) -> Observation:
        """The last answer."""

        def ask(name: str, **arguments: Any) -> str:
            return self._connected().call(name, arguments)[0]

        played = Played(task=self.task, answer=action, calls=tuple(self.calls), ask=ask)
        reward, won, score = judged(self.judge(played))
        return Observation(
            text="The answer was given.",
            reward=reward,
            won=reward > 0 if won is None else won,
            score=score,
            done=True,
            state=(*self._state(), action),
        )

    def close(self) -> None:
        if self.connection is not None and not self.suite.is_shared:
            self.connection.close()
        self.connection = None

    def _connected(self) -> "Connection":
        if self.connection is None:
            raise EnvError("no episode is under way: call reset(task) first")
        return self.connection

    def _state(self) -> tuple[str, ...]:
        whole = json.dumps(self.calls, sort_keys=True, ensure_ascii=False)
        return self.task.id, sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def judged(value: object) -> tuple[float, bool | None, float | None]:
    """(reward, won, score) as a reward function returned them. Raises EnvError for anything else."""
    table = dict(value) if isinstance(value, Mapping) else {"reward": value}
    try:
        if "reward" not in table or set(table) - {"reward", "won", "score"}:
            raise TypeError(f"the reward function returned {sorted(map(str, table))}")
        won, score = table.get("won"), table.get("score")
        return (
            number(table["reward"], "the function's reward"),
            None if won is None else flag(won, "the function's won"),
            None if score is None else number(score, "the function's score"),
        )
    except (TypeError, ValueError) as error:
        raise EnvError(
            f"env.options.reward: {error}; return a number, or a dict with reward, won and score"
        ) from error


# -- a connection, from code that is not asynchronous


Job = tuple[Callable[[Any], Awaitable[Any]], "Future[Any]"]


class Connection:
    """A session with an MCP server, open until `close`.

    Raises EnvError where the server cannot be reached or started.
    """

    def __init__(self, command: Sequence[str], url: str, *, seconds: float) -> None:
        self.name = url or command[0]
        self.seconds, self.instructions = seconds, ""
        client = imported("mcp", INSTALL)
        # that of the path is another one where no virtual environment is activated
        program = sys.executable if command and command[0] == "python" else self.name
        target = url or client.StdioServerParameters(
            command=program, args=list(command[1:]), env=dict(os.environ)
        )
        self._client = client.Client(target, read_timeout_seconds=seconds)
        self.loop = event_loop().loop
        self.jobs: asyncio.Queue[Job | None] = asyncio.Queue()
        self.ended = False
        ready: Future[str] = Future()
        # entering and leaving must happen in one task, as the client's library demands
        self.live = asyncio.run_coroutine_threadsafe(self._serve(ready), self.loop)
        try:
            self.instructions = ready.result(timeout=seconds)
        except TimeoutError:
            self.live.cancel()
            raise EnvError(
                f"the MCP server {self.name} did not answer within {seconds:g} s; see that it "
                "speaks MCP, or raise env.options.seconds"
            ) from None
        except Exception as error:
            raise EnvError(
                f"the MCP server {self.name} cannot be used ({_reason(error)}); see that "
                "env.options.command or url is right, and that it starts"
            ) from error

    async def _serve(self, ready: "Future[str]") -> None:
        try:
            async with self._client as client:
                ready.set_result(client.instructions or "")
                while (job := await self.jobs.get()) is not None:
                    work, result = job
                    try:
                        result.set_result(await work(client))
                    except Exception as error:
                        result.set_exception(error)
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
        finally:
            self.ended = True
            while not self.jobs.empty():
                if (late := self.jobs.get_nowait()) is not None:
                    late[1].set_exception(EnvError(f"the MCP server {self.name} has ended"))

    def _do(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        if self.ended:
            raise EnvError(f"the MCP server {self.name} has ended")
        result: Future[Any] = Future()
        self.loop.call_soon_threadsafe(self.jobs.put_nowait, (work, result))
        try:
            return result.result(timeout=self.seconds + CLOSE_SECONDS)
        except TimeoutError:
            raise EnvError(
                f"the MCP server {self.name} did not answer within {self.seconds:g} s; raise "
                "env.options.seconds, or see why it hangs"
            ) from None

    def tools(self) -> list[dict[str, Any]]:
        """All tools by name, as functions of a chat template."""

        async def list_all(client: Any) -> list[Any]:
            found, cursor = [], None
            while True:
                page = await client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if not cursor:
                    return found

        try:
            every = self._do(list_all)
        except EnvError:
            raise
        except Exception as error:
            raise EnvError(
                f"the MCP server {self.name} does not list its tools ({_reason(error)})"
            ) from error
        tools = [
            {"name": t.name, "description": t.description or "", "parameters": t.input_schema}
            for t in every
        ]
        return sorted(tools, key=lambda tool: str(tool["name"]))

    def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """The text that a tool returned, and whether it took the call."""
        failures = imported("mcp", INSTALL).MCPError
        try:
            result = self._do(lambda client: client.call_tool(name, dict(arguments)))
        except failures as error:
            if self.ended or _is_lost(error):
                raise EnvError(f"the MCP server {self.name}: {_reason(error)}") from error
            return f"Error: {_reason(error)}", False
        except EnvError:
            raise
        except Exception as error:
            raise EnvError(f"the MCP server {self.name}: {_reason(error)}") from error
        return _text(result), not result.is_error

    def close(self) -> None:
        """End the session, and the server that was started for it."""
        if self.ended:
            return
        self.loop.call_soon_threadsafe(self.jobs.put_nowait, None)
        try:
            self.live.result(timeout=CLOSE_SECONDS)
        except TimeoutError:
            self.live.cancel()


def _is_lost(error: Exception) -> bool:
    """Whether a protocol error says that there is no server any more, or that it was too slow."""
    return getattr(getattr(error, "error", None), "code", None) in LOST


def _text(result: Any) -> str:
    """What a model can read of a result."""
    parts = []
    for block in result.content:
        text = getattr(block, "text", None)
        inner = getattr(getattr(block, "resource", None), "text", None)
        parts.append(
            text if text is not None else inner if inner is not None else f"[{block.type}]"
        )
    if not parts and result.structured_content is not None:
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    return "\n".join(parts).strip() or "(nothing)"


def _reason(error: BaseException) -> str:
    """One line about an error, or about the first of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    message = getattr(getattr(error, "error", None), "message", "")  # of a protocol error
    return (str(message) or first_line(error))[:300]
