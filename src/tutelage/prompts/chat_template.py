"""Chat templates as pieces of token ids, so that sampled tokens are never re-tokenized.

A chat template is rendered once with markers in the place of contents, which gives the text around
a system, a user and an assistant message. A turn's prompt is then the ids of the turns before plus
the ids of the new pieces: append-only by construction. Contents are encoded with special tokens
switched off, so that an environment cannot end the user's message by printing the end-of-turn
token.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tutelage.errors import PolicyError

SYSTEM, USER, AGENT, AGAIN = (
    "\u2063sys\u2063",
    "\u2063usr\u2063",
    "\u2063agt\u2063",
    "\u2063nxt\u2063",
)
History = Literal["exact", "append"]


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template.

    history  what to do when the template would render an earlier turn differently once it is
             past (Qwen3 strips its thoughts): "exact" refuses such a template, "append" keeps
             every turn as it was sampled
    options  the template's own switches, such as {"enable_thinking": False}
    """

    tokenizer: Any  # transformers.PreTrainedTokenizerBase, untyped upstream
    history: History = "exact"
    options: tuple[tuple[str, object], ...] = ()

    def _render(self, messages: list[tuple[str, str]], generate: bool) -> str:
        if not self.tokenizer.chat_template:
            raise PolicyError(
                "the tokenizer has no chat template, so turns cannot be separated; use an "
                "instruction-tuned model, or set `chat_template` to a Jinja file in the policy"
            )
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                tokenize=False,
                add_generation_prompt=generate,
                **dict(self.options),
            )
        except TemplateError as error:
            roles = ", ".join(role for role, _ in messages)
            raise PolicyError(
                f"the chat template does not take messages from {roles} ({error}); set "
                "`chat_template` to a Jinja file that takes system, user and assistant messages"
            ) from error
        return str(text)

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
                        "cannot be appended to it; set `chat_template` to a simpler Jinja file"
                    )
        before_system, _, rest = with_system.partition(SYSTEM)
        middle, _, tail = rest.partition(USER)
        plain, _, tail_plain = one.partition(USER)
        _, _, after_agent = two.partition(AGENT)
        glue, _, tail_again = after_agent.partition(AGAIN)
        if not tail == tail_plain == tail_again:
            raise PolicyError(
                "the chat template ends a prompt differently from turn to turn, so turns cannot "
                "be appended to it; set `chat_template` to a simpler Jinja file"
            )
        closing = self._end_text(glue)
        return {
            "system": before_system,
            "user": middle,
            "plain": plain,
            "generate": tail,
            "again": glue[len(closing) :],
            "closing": closing,
        }

    def _end_text(self, glue: str) -> str:
        """The text of the end-of-turn token: the text after an assistant message begins with it."""
        ends = [t for t in self._special if t and glue.startswith(t)]
        if not ends:
            raise PolicyError(
                "the chat template closes an assistant message with no special token, so the "
                "student could never learn to stop; set `chat_template` to one that does"
            )
        return max(ends, key=len)

    @cached_property
    def _special(self) -> list[str]:
        return [str(t) for t in self.tokenizer.all_special_tokens]

    @cached_property
    def end(self) -> int:
        """The id of the end-of-turn token: a completion's last, and trained on."""
        return int(self.tokenizer.convert_tokens_to_ids(self._pieces["closing"]))

    @cached_property
    def size(self) -> int:
        """Entries of the tokenizer's vocabulary."""
        return len(self.tokenizer)

    @cached_property
    def _frames(self) -> dict[str, tuple[int, ...]]:
        """The pieces as ids, special tokens and all."""
        encode = self.tokenizer
        return {
            name: tuple(encode(text, add_special_tokens=False)["input_ids"]) if text else ()
            for name, text in self._pieces.items()
        }

    def content(self, text: str) -> tuple[int, ...]:
        """Ids of a message's content; a special token's name in it is plain text."""
        if not text:
            return ()
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])

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

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of a demonstrated turn, end-of-turn token included."""
        return (*self.content(text), self.end)

    def text(self, tokens: tuple[int, ...]) -> str:
        """The text of a completion without its end-of-turn token."""
        body = tokens[:-1] if tokens and tokens[-1] == self.end else tokens
        return str(self.tokenizer.decode(list(body), skip_special_tokens=True))

    def check(self) -> None:
        """Raise PolicyError for a template that changes past turns, unless history is "append"."""
        turns = [
            ("user", "one"),
            ("assistant", "<think>why</think>two"),
            ("user", "three"),
            ("assistant", "<think>how</think>four"),
            ("user", "five"),
        ]
        rendered = [self._render(turns[: k + 1], generate=True) for k in (0, 2, 4)]
        appended = rendered[0]
        for k in (1, 2):
            p = self._pieces
            appended += (
                turns[2 * k - 1][1] + p["closing"] + p["again"] + turns[2 * k][1] + p["generate"]
            )
            if appended != rendered[k] and self.history == "exact":
                raise PolicyError(
                    "the chat template rewrites earlier turns (it drops their thoughts or an "
                    "empty thinking block), so a growing transcript is not its own: set "
                    'template_history = "append" in the policy to keep every turn as it was '
                    "sampled, or context.history to a number of turns"
                )

    def fingerprint(self) -> str:
        """Equal for tokenizers that give every id the same meaning."""
        import hashlib

        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return hashlib.sha256(repr((vocabulary, self.end)).encode()).hexdigest()[:16]
