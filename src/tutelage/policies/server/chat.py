"""A model behind any OpenAI-compatible server, asked in messages over /v1/chat/completions.

It plays episodes, as a baseline or as a teacher that takes whole turns, and is never scored or
trained, since such a server tells no token ids. It may tell log-probabilities of likely tokens as
texts with each that it writes. Its ids here are the characters of the messages,
with an id above all characters where a message begins, so that prompts are built as for every other
policy and turned back into messages when they are sent.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from functools import cached_property
from types import MappingProxyType
from typing import Any, NoReturn

from tutelage.envs.guard import one_line
from tutelage.errors import PolicyError
from tutelage.policies.base import Completion, Dtype, Request
from tutelage.policies.server.account import Account
from tutelage.policies.server.http import Client, Failure
from tutelage.policies.server.top_logprobs import likely
from tutelage.policies.server.vllm_api import SEEDS
from tutelage.prompts.alignment import Likely
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids

SYSTEM, USER, ASSISTANT, END = range(0x110000, 0x110004)
"""Ids above every character: where a message begins, and where a turn ends."""
ROLES = {SYSTEM: "system", USER: "user", ASSISTANT: "assistant"}
CONTEXT = 1 << 40
"""Characters: only the server knows its limit, and says so."""
TOPS = (20, 5, 0)
"""Likely tokens that a server is asked for: the next number where it refuses one."""
MOST_TOKENS = 1 << 40
"""Of one answer; a larger number is none."""
POLL_WAIT = 0.002
"""Seconds a poll waits for an answer."""


class TextChat(Chat):
    """Messages as the ids of their characters."""

    def __init__(self) -> None:
        super().__init__(tokenizer=None)

    @cached_property
    def end(self) -> int:
        return END

    @cached_property
    def size(self) -> int:
        return END + 1

    @cached_property
    def control(self) -> frozenset[int]:
        return frozenset((*ROLES, END))

    def content(self, text: str) -> Ids:
        return tuple(map(ord, text))

    def open(self, system: str, user: str) -> Ids:
        first = (SYSTEM, *self.content(system)) if system else ()
        return (*first, USER, *self.content(user), ASSISTANT)

    def follow(self, user: str, *, ended: bool) -> Ids:
        return (*(() if ended else (END,)), USER, *self.content(user), ASSISTANT)

    def reply(self, text: str) -> Ids:
        return (*self.content(text), END)

    def reply_with(self, tools: str, text: str) -> Ids:
        return self.reply(text)

    def text(self, tokens: Ids) -> str:
        return "".join(chr(token) for token in tokens if token < SYSTEM)

    def check(self, *, system: bool = True) -> None:
        """Nothing: messages are sent as they are."""

    def check_control(self) -> None:
        """Nothing: no character is a control id."""

    def fingerprint(self) -> str:
        return "messages"


def messages(prompt: Sequence[int]) -> list[dict[str, str]]:
    """The messages that a prompt's ids are, without the empty one that is asked for.

    >>> messages(TextChat().open("Be brief.", "Hello"))
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hello'}]
    """
    found: list[tuple[str, list[str]]] = []
    for token in prompt:
        if token in ROLES:
            found.append((ROLES[token], []))
        elif token != END:
            found[-1][1].append(chr(token))
    if found and found[-1][0] == "assistant" and not found[-1][1]:
        found.pop()
    return [{"role": role, "content": "".join(text)} for role, text in found]


class ChatPolicy:
    """Samples turns from a server; a policy that is asked for scores refuses.

    client  the server's address, and how it is asked
    model   its name on the server; the one that is listed if empty
    prefix  what its paths begin with
    fields  further fields of every request, such as reasoning_effort
    account what it costs, the limit to that, and the answers that were paid for

    `seed` is sent until the server refuses it, and `top_logprobs` to those requests that want them,
    fewer or none where it refuses them; a limit of tokens is sent under the name that the
    server takes. A temperature that it refuses is an error: a result must have the one it states.
    """

    dtype: Dtype = "bfloat16"  # unknown for a server
    context_length = CONTEXT

    def __init__(
        self,
        client: Client,
        *,
        model: str = "",
        prefix: str = "/v1",
        fields: Mapping[str, Any] = MappingProxyType({}),
        account: Account | None = None,
    ) -> None:
        self.client, self.model, self.prefix, self.chat = client, model, prefix, TextChat()
        self.fields, self.account = dict(fields), account or Account(name=client.name)
        self.limit, self.seeds, self.top = "max_tokens", True, TOPS[0]
        self.turns: dict[Future[Any], tuple[Request, dict[str, Any]]] = {}
        self.spent: dict[str, int] = {}
        self.likely: dict[str, tuple[Likely, ...]] = {}
        self.notes: dict[str, str] = {}  # what to say of it once, by kind, in order

    def connect(self) -> None:
        """Find the model, where none is named. Raises PolicyError where the server lists none."""
        if self.model:
            return
        answer = self.client.ask(f"{self.prefix}/models").result()
        listed = answer.get("data") if isinstance(answer, dict) else None
        names = [str(m["id"]) for m in listed or () if isinstance(m, dict) and "id" in m]
        if len(names) != 1:
            shown = ", ".join(names[:5]) or "none"
            raise PolicyError(
                f"the server at {self.client.url} lists {len(names)} models ({shown}); name one, as "
                f"in {self.client.url}#NAME"
            )
        self.model = names[0]

    # -- sampling

    def body(self, request: Request) -> dict[str, Any]:
        top = min(self.top, request.top_logprobs)
        return {
            **({"logprobs": True, "top_logprobs": top} if top else {}),
            **self.fields,
            "model": self.model,
            "messages": messages(request.prompt),
            "temperature": request.temperature,
            self.limit: request.max_new,
            **({"seed": request.seed % SEEDS} if self.seeds else {}),
        }

    def submit(self, request: Request) -> None:
        """Ask for a turn. Raises PolicyError where log-probabilities at another temperature than 1
        are wanted."""
        if request.top_logprobs and request.temperature != 1:
            raise PolicyError(
                f"{self.client.name} is asked in messages, whose log-probabilities are at "
                f"temperature 1, not at {request.temperature:g}; set rollout.temperature = 1.0, or "
                'learn from its tokens alone (teacher_turns = "sampled")'
            )
        body = self.body(request)
        key = self._key(request, body)
        answer: Future[Any] = Future()
        if (known := self.account.known(key)) is not None:
            answer.set_result(known)
        else:
            self.account.reserve(key, body, request.max_new)
            answer = self.client.ask(f"{self.prefix}/chat/completions", body)
        self.turns[answer] = request, body

    def _key(self, request: Request, body: Mapping[str, Any]) -> str:
        return self.account.key(self.client.url + self.prefix, body, request.seed)

    def poll(self) -> list[Completion]:
        """The finished turns, in the order in which they were submitted."""
        if not self.turns:
            return []
        wait(self.turns, timeout=POLL_WAIT, return_when=FIRST_COMPLETED)
        return [
            done
            for answer in list(self.turns)
            if answer.done() and (done := self._completion(answer)) is not None
        ]

    def wait(self) -> None:
        """Wait until every turn that was submitted is answered, or one of them cannot be."""
        wait(self.turns, return_when=FIRST_EXCEPTION)

    def _completion(self, answer: "Future[Any]") -> Completion | None:
        """A turn; None where the server refused a field that it need not be sent."""
        request, body = self.turns.pop(answer)
        key = self._key(request, body)
        try:
            found = answer.result()
        except PolicyError as error:
            self.account.settle(key)
            if self._adapted(error, request, body):
                self.submit(request)
                return None
            raise
        text, tokens, ended = self._read(found)
        self.account.settle(key, found)
        self.spent[request.key] = self.spent.get(request.key, 0) + tokens
        self._hear(request, found["choices"][0], text)
        ids = self.chat.reply(text) if ended else self.chat.content(text) or (END,)
        return Completion(key=request.key, tokens=ids, logps=(0.0,) * len(ids), ended=ended)

    def _adapted(self, error: PolicyError, request: Request, body: Mapping[str, Any]) -> bool:
        """Whether something else is to be sent, now that the server has refused this body."""
        cause = error.__cause__
        if not isinstance(cause, Failure) or cause.status not in (400, 403, 422):
            return False
        if "max_tokens" in body and "max_completion_tokens" in str(cause):
            self.limit = "max_completion_tokens"
        elif "seed" in body and "seed" in str(cause):
            self.seeds = False
        elif {"top_logprobs"} <= body.keys() - self.fields.keys() and "logprobs" in str(cause):
            self.top = min(self.top, next(n for n in TOPS if n < body["top_logprobs"]))
            if not self.top:
                self.notes["refused"] = f"the server refuses top_logprobs ({cause})"
        return self.body(request) != body

    def _read(self, answer: Any) -> tuple[str, int, bool]:
        """The text, its tokens as the server counts them, and whether it came to its end."""
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            if not isinstance(text, str):
                raise TypeError("its content is no text")
        except (LookupError, TypeError, AttributeError) as error:
            raise PolicyError(
                f"the server at {self.client.url} does not answer as OpenAI's chat completions "
                f"do ({_why(answer, error)}); fix the address"
            ) from error
        usage = answer.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        # what is read costs as well, where there is a price
        for name in ("completion_tokens", *["prompt_tokens"] * self.account.priced):
            if not _is_count(counts.get(name)):
                raise PolicyError(
                    f"an answer of the server at {self.client.url} has {counts.get(name)!r:.40} for "
                    f"usage.{name}, where its number of tokens belongs; let the server, or the proxy "
                    "before it, tell the usage"
                )
        whole = text.encode("utf-8", "replace").decode()  # without halves of surrogate pairs
        return whole, counts["completion_tokens"], choice.get("finish_reason") != "length"

    def _hear(self, request: Request, choice: Mapping[str, Any], text: str) -> None:
        """Keep what an answer tells of its tokens, if it is at the temperature of scores."""
        if request.temperature != 1:
            return
        try:
            self.likely[request.key] = likely(choice, text)
            if min(self.top, request.top_logprobs) and text and not self.likely[request.key]:
                self.notes.setdefault("none", "the server's answers have no top_logprobs")
        except ValueError as error:
            self.account.unread += 1
            self.likely[request.key] = ()
            self.notes["unread"] = f"top_logprobs of an answer cannot be read: {error}"

    def likely_of(self, key: str) -> tuple[Likely, ...]:
        """What the answer to the last request with this key told of its tokens; asked once."""
        return self.likely.pop(key, ())

    def tokens_of(self, key: str) -> int:
        return self.spent.pop(key, 0)

    def release(self, key: str) -> None:
        """Forget what was told and not asked for: no other state is kept per episode."""
        self.likely.pop(key, None)

    def refresh(self) -> None:
        """Drop the turns under way."""
        for answer, (request, body) in self.turns.items():
            if answer.cancel():  # others are under way, and may be paid for
                self.account.settle(self._key(request, body))
        self.turns = {}

    def score(self, samples: Sequence[Any], temperature: float) -> NoReturn:
        """Raises PolicyError: such a server tells no log-probabilities of given tokens."""
        raise PolicyError(
            f"{self.client.name} is asked in messages, so its tokens cannot be scored; serve a "
            "teacher with vLLM or `tutelage serve`, and name its address without chat:"
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS


def _why(answer: object, error: Exception) -> str:
    """Why an answer is none: some servers send an error as if it were an answer."""
    problem = answer.get("error") if isinstance(answer, dict) else None
    text = problem.get("message", problem) if isinstance(problem, dict) else problem
    return one_line(str(text), 200).rstrip(".") if problem else f"{type(error).__name__}: {error}"
