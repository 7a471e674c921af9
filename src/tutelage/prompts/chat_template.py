"""Chat templates as pieces of token ids, so that sampled tokens are never re-tokenized.

A chat template is rendered once with markers in the place of contents, which gives the text around
a system, a user and an assistant message. A turn's prompt is then the ids of the turns before plus
the ids of the new pieces: append-only by construction. Contents are encoded with special tokens
switched off, so that an environment cannot end the user's message by printing the end-of-turn
token.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tutelage.config.plain_file import read_text
from tutelage.errors import EndlessTemplateError, PolicyError, first_line
from tutelage.prompts.bounded import TooMuch, bounded, check_operations
from tutelage.prompts.toolbox import WORDS, Toolbox

SYSTEM, USER, AGENT, AGAIN = (
    "\u2063sys\u2063",
    "\u2063usr\u2063",
    "\u2063agt\u2063",
    "\u2063nxt\u2063",
)
History = Literal["exact", "append"]
LONGEST_FRAME = 1_000_000
"""Characters that a template may write around a few words."""
MOST_TRIED = 400
"""Added tokens that are tried in contents."""
MARKER = re.compile(r"[<\[{(|\u3010\uff1c].+[>\]})|\u3011\uff1e]", re.DOTALL)
"""Of a token that is markup rather than a word."""


DAY = datetime(2024, 7, 26)
"""The date of every prompt, for templates that write today's (Llama 3.1): a run that is continued
tomorrow, or done again next month, has the same prompts."""
THOUGHT, THOUGHT_DONE = "<think>", "</think>"
OPENED = re.compile(
    r"(?P<open>[<\[\u25c1](?:\|?START_)?)(?P<name>[\w:]*(?:think|thought|reason)\w*)"
    r"(?P<close>\|?[>\]\u25b7])\s*\Z",
    re.IGNORECASE,
)
"""The mark of a thought that ends a prompt: <think>, <thought> (EXAONE Deep), [THINK]."""
RENDERINGS = 16
"""Of one message, to find something random in a template: one choice of two passes 2^-15 of the
time."""


def read_template(path: Path) -> str:
    """The text of a Jinja file, which is UTF-8 in every locale and may begin with a byte-order mark.

    Raises PolicyError for a file that is no text.
    """
    try:
        return read_text(path).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise PolicyError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None


DIRECTIVES = "aAbBcdDeFfGhHIjmMnpRSTtuUVwWxXyY"
"""What may follow a % in a date's format; numbers also with a - before, which drops zeros."""


def _clock() -> str:
    """A definition to put before a template: strftime_now as a macro that tells `DAY`, since
    transformers takes no function as an argument of a template.

    >>> '"%-d"' in _clock() and '"26"' in _clock()
    True
    """
    known = {f"%{each}": DAY.strftime(f"%{each}") for each in DIRECTIVES}
    known |= {f"%-{key[1]}": value.lstrip("0") or "0" for key, value in known.items()}
    # the sign itself goes through a character that no format has
    pairs = [("%%", "\u2063"), *known.items(), ("\u2063", "%")]
    chain = "".join(f"|replace({json.dumps(old)}, {json.dumps(new)})" for old, new in pairs)
    # the environment of chat templates drops the line end after a block
    return f"{{% macro strftime_now(format) %}}{{{{ format{chain} }}}}{{% endmacro %}}\n"


MOST_CHARACTERS = 1 << 21
"""Of the texts whose ids are kept: some 20 MB of ids."""


class Recent:
    """Ids of the texts that were encoded last, by (kind, text), up to a number of characters."""

    def __init__(self, characters: int) -> None:
        self.room = characters
        self.ids: dict[tuple[str, str], tuple[int, ...]] = {}

    def get(
        self, key: tuple[str, str], encode: Callable[[str], tuple[int, ...]]
    ) -> tuple[int, ...]:
        ids = self.ids.pop(key, None)
        if ids is None:
            ids = encode(key[1])
            self.room -= len(key[1])
        self.ids[key] = ids  # last again
        while self.room < 0:
            oldest = next(iter(self.ids))
            del self.ids[oldest]
            self.room += len(oldest[1])
        return ids


def _divided(text: str, name: str) -> list[str]:
    """A text cut after the first character of every place where a name stands."""
    first, *rest = text.split(name)
    parts = [first]
    for each in rest:
        parts[-1] += name[0]
        parts.append(name[1:] + each)
    return parts


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template.

    history  what to do when the template would render an earlier turn differently once it is
             past (Qwen3 strips its thoughts): "exact" refuses such a template, "append" keeps
             every turn as it was sampled
    options  the template's own switches, such as {"enable_thinking": False}
    more_ends
             further tokens that end a turn when they are sampled (Llama 3's <|end_of_text|>); the
             template's own end-of-turn token still follows them in the transcript
    """

    tokenizer: Any  # transformers.PreTrainedTokenizerBase, untyped upstream
    history: History = "exact"
    options: tuple[tuple[str, object], ...] = ()
    more_ends: tuple[int, ...] = ()

    def _dated(self, options: Mapping[str, object]) -> dict[str, object]:
        """An argument for rendering: the template with `_clock` where it asks for today's date. A
        template without it is rendered as it is."""
        template = self.tokenizer.get_chat_template(None, options.get("tools"))
        check_operations(template)
        return {"chat_template": _clock() + template} if "strftime_now" in template else {}

    def _render(self, messages: list[tuple[str, str]], generate: bool, **options: object) -> str:
        plain = [{"role": role, "content": content} for role, content in messages]
        return self.render(plain, generate, **options)

    def render(
        self, messages: Sequence[Mapping[str, Any]], generate: bool, **options: object
    ) -> str:
        """The text of messages, with the beginning of the next answer if it is to be generated.

        Raises PolicyError for a template that does not take them.
        """
        if not self.tokenizer.chat_template:
            raise PolicyError(
                "the tokenizer has no chat template, so turns cannot be separated; use an "
                "instruction-tuned model, or set `chat.template` to a Jinja file in the policy"
            )
        roles = ", ".join(str(message["role"]) for message in messages)
        try:
            text = bounded(
                lambda: self.tokenizer.apply_chat_template(
                    list(messages),
                    tokenize=False,
                    add_generation_prompt=generate,
                    **{**self._dated(options), **dict(self.options), **options},
                )
            )
        except Exception as error:  # a template is a program of anybody's
            reason = first_line(error)[:200]
            if isinstance(error, TooMuch):
                raise EndlessTemplateError(
                    f"the chat template was given up on: {reason}; set `chat.template` to a Jinja "
                    "file that shows messages and little more"
                ) from error
            raise PolicyError(
                f"the chat template does not take messages from {roles} ({reason}); set "
                "`chat.template` to a Jinja file that takes system, user and assistant messages"
            ) from error
        if not isinstance(text, str) or len(text) > LONGEST_FRAME:
            raise PolicyError(
                f"the chat template renders a few words as {len(text):,} characters; set "
                "`chat.template` to a Jinja file that shows messages and little more"
            )
        return text

    @cached_property
    def _pieces(self) -> dict[str, str]:
        """before/after texts around each content, read off the template."""
        one = self._render([("user", USER)], generate=True)
        with_system = self._render([("system", SYSTEM), ("user", USER)], generate=True)
        two = self._render([("user", USER), ("assistant", AGENT), ("user", AGAIN)], generate=True)
        for rendered, markers in (
            (one, (USER,)),
            (with_system, (SYSTEM, USER)),
            (two, (USER, AGENT, AGAIN)),
        ):
            for marker in markers:
                if rendered.count(marker) != 1:
                    raise PolicyError(
                        "the chat template does not show every message exactly once, so turns "
                        "cannot be appended to it; set `chat.template` to a simpler Jinja file"
                    )
        before_system, _, rest = with_system.partition(SYSTEM)
        middle, _, tail = rest.partition(USER)
        plain, _, tail_plain = one.partition(USER)
        _, _, after_agent = two.partition(AGENT)
        glue, _, tail_again = after_agent.partition(AGAIN)
        if not tail == tail_plain == tail_again:
            raise PolicyError(
                "the chat template ends a prompt differently from turn to turn, so turns cannot "
                "be appended to it; set `chat.template` to a simpler Jinja file"
            )
        end = self._end_text(glue)
        closing = glue[: glue.index(end) + len(end)]
        return {
            "system": before_system,
            "user": middle,
            "plain": plain,
            "generate": tail,
            "again": glue[len(closing) :],
            "closing": closing,
        }

    def _end_text(self, glue: str) -> str:
        """The text of the end-of-turn token: the text after an assistant message begins with it, up
        to white space (Llama 2)."""
        ends = [t for t in self._special if t and glue.lstrip().startswith(t)]
        if not ends:
            raise PolicyError(
                "the chat template closes an assistant message with no special token, so the "
                "student could never learn to stop; set `chat.template` to one that does"
            )
        return max(ends, key=len)

    @cached_property
    def _special(self) -> list[str]:
        # all_special_tokens are those that have a name, such as eos_token; the end of a turn may
        # be one that is only marked as special (Phi-3's <|end|>, Gemma 3's <end_of_turn>)
        marked = [t for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        names = [*self.tokenizer.all_special_tokens, *marked]
        return list(dict.fromkeys(str(name) for name in names))

    @cached_property
    def end(self) -> int:
        """The id of the end-of-turn token: a completion's last, and trained on."""
        text = self._end_text(self._pieces["closing"])
        return int(self.tokenizer.convert_tokens_to_ids(text))

    @cached_property
    def _before_end(self) -> str:
        """White space that the template writes before the end-of-turn token."""
        closing = self._pieces["closing"]
        return closing[: closing.index(self._end_text(closing))]

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end a turn when they are sampled, `end` first."""
        return (self.end, *self.more_ends)

    def ending_with(self, tokens: Iterable[int]) -> "Chat":
        """Itself where further tokens also end a turn. Only special ones do: a model whose settings
        name a word as an end token could not say that word any more."""
        special = set(self.tokenizer.convert_tokens_to_ids(self._special)) - {self.end}
        more = tuple(sorted({token for token in tokens if 0 <= token < self.size} & special))
        return self if more == self.more_ends else replace(self, more_ends=more)

    @cached_property
    def size(self) -> int:
        """The largest id of the tokenizer's vocabulary, plus 1: there may be unused ids below it."""
        return 1 + int(max(len(self.tokenizer) - 1, *self.tokenizer.get_vocab().values()))

    @cached_property
    def _frames(self) -> dict[str, tuple[int, ...]]:
        """The pieces as ids, special tokens and all."""
        return {name: self.frame(text) for name, text in self._pieces.items()}

    def frame(self, text: str) -> tuple[int, ...]:
        """Ids of what the template itself writes, special tokens and all."""
        if not text:
            return ()
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def control(self) -> frozenset[int]:
        """Ids that no content may hold: the end of a turn, special tokens, and what the template
        writes between messages, whether the tokenizer marks it as special or not."""
        tokenizer = self.tokenizer
        special = {int(i) for i in tokenizer.all_special_ids}
        frames = {i for ids in self._frames.values() for i in ids}
        markers = {i for i in special | frames if self._is_marker(i)}
        # characters that the vocabulary lacks are encoded as the unknown token
        unknown = {tokenizer.unk_token_id} - {self.end}
        return frozenset(((special & frames) | markers | {self.end}) - unknown)

    def _is_marker(self, token: int) -> bool:
        """Whether a token looks like markup, such as <|im_start|> or [INST]: words and line ends,
        which templates also write between messages, stand in contents too."""
        name = str(self.tokenizer.convert_ids_to_tokens(token))
        text = self.tokenizer.decode([token], skip_special_tokens=False)
        return any(MARKER.fullmatch(each.strip(" \u2581\u0120")) for each in (name, str(text)))

    @cached_property
    def _encoded(self) -> Recent:
        """Contents and replies that were encoded lately. Every view, every copy of a task and the
        update read the same texts again."""
        return Recent(MOST_CHARACTERS)

    def content(self, text: str) -> tuple[int, ...]:
        """Ids of a message's content; the name of a token that the template uses for control is
        plain text in it. Raises PolicyError where the tokenizer has no plain text for it."""
        return self._encoded.get(("content", text), self._content)

    def _content(self, text: str) -> tuple[int, ...]:
        ids = self._plain(text)
        return ids if self.control.isdisjoint(ids) else self._apart(text)

    def _plain(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])

    def _apart(self, text: str) -> tuple[int, ...]:
        """A content in which a control token's name would become that token: encoded in parts that
        divide each such name after its first character."""
        parts = [text]
        for name in self._control_names:
            parts = [piece for part in parts for piece in _divided(part, name)]
        ids: list[int] = []
        for part in parts:
            found = self._plain(part)
            if not self.control.isdisjoint(found):
                # a normaliser wrote the name: characters on their own are none
                found = tuple(i for character in part for i in self._plain(character))
            ids += found
        if not self.control.isdisjoint(ids):
            raise PolicyError(
                "the tokenizer turns plain text into tokens that the chat template uses for "
                "control, so an observation could open a turn of its own; use the tokenizer of "
                "another model"
            )
        return tuple(ids)

    @cached_property
    def _control_names(self) -> list[str]:
        """Texts of control tokens, the longest first."""
        texts = {
            str(form).strip()
            for token in self.control
            for form in (
                self.tokenizer.decode([token], skip_special_tokens=False),
                self.tokenizer.convert_ids_to_tokens(token),
            )
        }
        return sorted((t for t in texts if len(t) > 1), key=lambda t: (-len(t), t))

    def check_control(self) -> None:
        """Try every special and added token in contents: alone, doubled, cut in two, and between
        its neighbours. Raises PolicyError if one of them is encoded to a control id."""
        added = [str(t) for t in self.tokenizer.get_added_vocab()]
        names = list(dict.fromkeys([*self._control_names, *self._special, *added[:MOST_TRIED]]))
        for k, name in enumerate(names):
            other, half = names[(k + 1) % len(names)], len(name) // 2
            for text in (
                name,
                name + name,
                f"a{name}b",
                f" {name} ",
                f"\n{name}\n",
                name + other,
                name[:half] + name + name[half:],
                name[:half] + " " + name[half:],
            ):
                self.content(text)

    def open(self, system: str, user: str) -> tuple[int, ...]:
        """The prompt of a first turn, up to where the agent's message begins."""
        f = self._frames
        prefix = (*f["system"], *self.content(system), *f["user"]) if system else f["plain"]
        return (*prefix, *self.content(user), *f["generate"])

    def follow(self, user: str, *, ended: bool) -> tuple[int, ...]:
        """The ids between the agent's last token and its next turn. A completion that was cut off
        before its end-of-turn token is closed here, in tokens that are not trained on."""
        f = self._frames
        close = () if ended else (self.end,)
        return (*close, *f["again"], *self.content(user), *f["generate"])

    @cached_property
    def opens_thought(self) -> bool:
        """Whether a prompt ends with an opened thought (DeepSeek-R1-Distill, QwQ)."""
        return self.opened(self._pieces["generate"])

    @staticmethod
    def opened(prompt: str) -> bool:
        """Whether a prompt ends with the mark of a thought."""
        return OPENED.search(prompt) is not None

    @cached_property
    def _thought_done(self) -> str:
        """What ends the thought that a prompt has opened.

        >>> from unittest.mock import Mock
        >>> [Chat(Mock(), Mock())._closing_of(x) for x in ("<thought>\\n", "[THINK]", "<think>")]
        ['</thought>', '[/THINK]', '</think>']
        """
        return self._closing_of(self._pieces["generate"])

    @staticmethod
    def _closing_of(prompt: str) -> str:
        mark = OPENED.search(prompt)
        if mark is None:
            return THOUGHT_DONE
        opening = mark["open"]
        if "START_" in opening.upper():
            opening = opening.upper().replace("START_", "END_")
        elif opening in "<[":
            opening += "/"
        return f"{opening}{mark['name']}{mark['close']}"

    def with_tools(self, system: str, tools: str) -> str:
        """The content of a system message that also names functions (JSON, as OpenAI's API lists
        them): as the template writes it, or in words of our own where it knows no functions."""
        pieces = self._pieces
        messages = [("system", SYSTEM), ("user", USER)]
        try:
            text = self._render(messages, generate=True, tools=json.loads(tools))
        except EndlessTemplateError:
            raise
        except PolicyError:  # a template that refuses functions knows none
            text = ""
        before, _, _ = text.partition(USER)
        inner = before.removeprefix(pieces["system"]).removesuffix(pieces["user"])
        framed = before == f"{pieces['system']}{inner}{pieces['user']}"
        if framed and inner != SYSTEM and inner.count(SYSTEM) == 1:
            return inner.replace(SYSTEM, system) if system else inner.replace(SYSTEM, "").lstrip()
        return f"{system}\n\n{WORDS.format(tools=tools)}".strip()

    # -- functions (JSON, as OpenAI's API lists them) in the template's own words

    @cached_property
    def _toolboxes(self) -> dict[str, Toolbox]:
        return {}

    @property
    def control_texts(self) -> list[str]:
        """Texts that would become control tokens where the template itself writes."""
        return [*self._control_names, *self._special]

    def piece(self, name: str) -> str:
        """One of the texts around contents: "generate" before an answer, "closing" after it."""
        return self._pieces[name]

    def toolbox(self, tools: str) -> Toolbox:
        if tools not in self._toolboxes:
            self._toolboxes[tools] = Toolbox(self, tools)
        return self._toolboxes[tools]

    def open_with(self, tools: str, system: str, user: str) -> tuple[int, ...]:
        """The prompt of a first turn whose answer may call functions."""
        return self.toolbox(tools).open(system, user)

    def follow_results(self, tools: str, results: Sequence[str], *, ended: bool) -> tuple[int, ...]:
        """The ids between an answer with calls and the next turn: what the calls returned."""
        return self.toolbox(tools).follow(results, ended=ended)

    def reply_with(self, tools: str, text: str) -> tuple[int, ...]:
        """Ids of a demonstrated turn, with its calls in the words of the template."""
        return self._encoded.get((f"calls {tools}", text), self.toolbox(tools).reply)

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of a demonstrated turn, end-of-turn token included. Its thoughts are marked with the
        tokens that the model itself would sample for them."""
        return self._encoded.get(("reply", text), self._reply)

    def _reply(self, text: str) -> tuple[int, ...]:
        if not self.opens_thought:
            return (*self._own_words(text + self._before_end), self.end)
        text, done, rest = text.removeprefix(THOUGHT).partition(THOUGHT_DONE)
        mark = self._thought_done_id
        if not done or mark is None:
            text += (self._thought_done if done else "") + rest
            return (*self._own_words(text + self._before_end), self.end)
        after = self._own_words(rest + self._before_end)
        return (*self._own_words(text), mark, *after, self.end)

    def _own_words(self, text: str) -> tuple[int, ...]:
        """Ids of a reply's text; no control token in it but marks of thoughts."""
        ids = self._plain(text)
        return ids if not self._never_said & set(ids) else self._apart(text)

    @cached_property
    def _thought_done_id(self) -> int | None:
        """The token that ends a thought, where it is a special one: texts are read without those."""
        known = self._thought_done in self._special
        return int(self.tokenizer.convert_tokens_to_ids(self._thought_done)) if known else None

    @cached_property
    def _never_said(self) -> frozenset[int]:
        """Control tokens that no reply may hold; markers of thoughts are none."""
        special = {int(i) for i in self.tokenizer.all_special_ids} | {self.end}
        return frozenset(special & self.control)

    def text(self, tokens: tuple[int, ...]) -> str:
        """The text of a completion without the token that ended it; with the beginning of the thought
        that its prompt has opened."""
        body = tokens[:-1] if tokens and tokens[-1] in self.ends else tokens
        if not self.opens_thought:
            return self._decoded(body)
        mark = self._thought_done_id
        if mark is None or mark not in body:
            return THOUGHT + self._decoded(body).replace(self._thought_done, THOUGHT_DONE, 1)
        at = body.index(mark)
        return THOUGHT + self._decoded(body[:at]) + THOUGHT_DONE + self._decoded(body[at + 1 :])

    def _decoded(self, ids: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def check(self, *, system: bool = True) -> None:
        """Raise PolicyError for a template that changes past turns, unless history is "append".

        system  whether the turns come after a system message
        """
        if len({self._render([("user", USER)], True) for _ in range(RENDERINGS)}) > 1:
            raise PolicyError(
                "the chat template renders the same message differently each time, so no two runs "
                "would be alike; set `chat.template` to a Jinja file without anything random"
            )
        before = [("system", "rules")] if system else []
        turns = [
            ("user", "one"),
            ("assistant", "<think>why</think>two"),
            ("user", "three"),
            ("assistant", "<think>how</think>four"),
            ("user", "five"),
        ]
        rendered = [self._render([*before, *turns[: k + 1]], generate=True) for k in (0, 2, 4)]
        appended = rendered[0]
        for k in (1, 2):
            p = self._pieces
            appended += (
                turns[2 * k - 1][1] + p["closing"] + p["again"] + turns[2 * k][1] + p["generate"]
            )
            if appended != rendered[k] and self.history == "exact":
                raise PolicyError(
                    "the chat template rewrites earlier turns (it drops their thoughts or an "
                    "empty thinking block, or moves the system message), so a growing transcript "
                    "is not its own: set "
                    'template_history = "append" in the policy to keep every turn as it was '
                    "sampled, or context.history to a number of turns"
                )

    def fingerprint(self) -> str:
        """Equal for tokenizers that give every id the same meaning."""
        import hashlib

        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return hashlib.sha256(repr((vocabulary, self.end)).encode()).hexdigest()[:16]
