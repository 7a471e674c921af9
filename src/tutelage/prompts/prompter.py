"""Build the prompts of one view as token ids, turn by turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import Context
from tutelage.prompts.conversation import Rows, whole
from tutelage.types import Episode, Observation, Turn

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A prompt and the tokens after it that are scored."""

    prompt: Ids
    tokens: Ids
    family: str = ""  # of the task, for policies that differ by it


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompter:
    """Builds the prompts of one view of one task: its chat, its context and its hint."""

    chat: Chat
    context: Context
    hint: str = ""
    family: str = ""  # of the task

    @property
    def fresh(self) -> bool:
        """Whether every turn has a new prompt, instead of extending the last one."""
        return self.context.kind == "window"

    def piece(self, seen: Sequence[Observation], texts: Sequence[str], ended: bool) -> Ids:
        """The ids before the next turn: a complete prompt for a first turn or a window, else only
        what is new since the last completion (`ended`: it had its end-of-turn token)."""
        if (call := seen[-1].call) is not None:
            return whole(self.chat, call, self.context.system(self.hint))
        text, tools = self.context.user(seen, texts), self.context.tools
        if self.fresh or len(seen) == 1:
            system = self.context.system(self.hint)
            return (
                self.chat.open_with(tools, system, text) if tools else self.chat.open(system, text)
            )
        if tools and seen[-1].results:
            results = self.context.results(seen[-1])
            return self.chat.follow_results(tools, results, ended=ended)
        return self.chat.follow(text, ended=ended)

    def samples(self, episode: Episode, hindsight: Sequence[str] = ()) -> list[Sample]:
        """For every turn of an episode, the prompt that this view would have had and the tokens that
        were sampled, whichever policy sampled them, so that the scores of views can be compared.

        hindsight  for each turn, a text to add to the system message; turns with the same text
                   share an append-only prompt
        """
        readers: dict[str, Reader] = {}
        result = []
        for k, turn in enumerate(episode.turns):
            text = hindsight[k] if hindsight else ""
            reader = readers.setdefault(text, Reader(prompter=self._with_hint(text)))
            prompt, _ = reader.prompt(episode.turns[:k], turn.observation)
            result.append(Sample(prompt=prompt, tokens=turn.tokens, family=self.family))
        return result

    def _with_hint(self, text: str) -> "Prompter":
        parts = [part for part in (self.hint.strip(), text.strip()) if part]
        return replace(self, hint="\n\n".join(parts)) if text.strip() else self


@dataclass(slots=True, kw_only=True)
class Reader:
    """The prompt of one view for an episode so far. Whichever policy acted, each view tokenizes the
    turns with its own chat template, so that it is scored on the prompt it would have had."""

    prompter: Prompter
    ids: list[int] = field(default_factory=list)
    read: int = 0  # number of observations in `ids`
    rows: Rows | None = None  # of an agent that keeps its own conversation

    @property
    def fresh(self) -> bool:
        """Whether the last prompt is complete in itself, instead of extending the turns before."""
        return self.prompter.fresh if self.rows is None else self.rows.fresh

    def prompt(self, turns: Sequence[Turn], now: Observation) -> tuple[Ids, Ids]:
        """The complete prompt before the turn that answers `now`, and the part of it that is new since
        the last completion. `turns` are all turns before it; call it in their order."""
        if now.call is not None:
            if self.rows is None:
                hint = self.prompter.context.system(self.prompter.hint)
                self.rows = Rows(chat=self.prompter.chat, hint=hint)
            return self.rows.prompt(turns, now.call)
        seen = [*(turn.observation for turn in turns), now]
        actions = [turn.action for turn in turns]
        new: Ids = ()
        for k in range(len(turns) if self.prompter.fresh else self.read, len(seen)):
            ended = k > 0 and turns[k - 1].tokens[-1:] == (self.prompter.chat.end,)
            new = self.prompter.piece(seen[: k + 1], actions[:k], ended)
            past = () if self.prompter.fresh or k == 0 else (*self.ids, *turns[k - 1].tokens)
            self.ids = [*past, *new]
        self.read = len(seen)
        return tuple(self.ids), new
