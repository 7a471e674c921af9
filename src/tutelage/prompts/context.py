"""Contexts: the prompt text of each turn, as a growing transcript or a window of turns.

transcript  the complete conversation, one message more every turn, append-only
agent       the conversation that an agent of its own keeps (see `prompts.conversation`)
window(h)   a fresh prompt every turn: the task, the last h turns and the current observation,
            as the ALFWorld stacks of SDAR and ATOD do (arXiv:2605.15155, arXiv:2606.27814)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from tutelage.envs.agents.tools import LONGEST, names_of, read
from tutelage.envs.base import Render
from tutelage.prompts import answer_format
from tutelage.prompts.answer_format import Parsed, parse
from tutelage.types import Observation

HINT_OPEN = "Information that only you have been given; act on it and never mention it:"


def text(observation: Observation) -> str:
    """The text of the environment."""
    return observation.text.strip()


def with_actions(observation: Observation) -> str:
    """The text of the environment, then the admissible actions, one per line."""
    if not observation.actions or observation.done:
        return text(observation)
    return f"{text(observation)}\n\nAdmissible actions:\n" + "\n".join(observation.actions)


GENERIC: dict[str, Render] = {"text": text, "actions": with_actions}
"""Renderings of an observation that every environment has."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """How prompts are built and answers read. `instructions` and a hint go into the system message;
    `tags` are the environment's own (see `answer_format.parse`). With `tools`, the functions of the
    environment as JSON, answers call them in the model's own format."""

    kind: Literal["transcript", "window", "agent"] = "transcript"
    window: int = 2
    render: Render = text
    instructions: str = ""
    tags: tuple[str, ...] = ()
    tools: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The functions that answers may call."""
        return tuple(names_of(self.tools))

    def parse(self, text: str) -> Parsed:
        """What the environment is given for a completion: its action, or for an agent all of it;
        with `tools`, everything but the thought, which the environment reads again."""
        if self.kind == "agent":
            return Parsed(action=text)
        if not self.tools:
            return parse(text, self.tags)
        thought, answer = _parted(text)
        return Parsed(action=answer, thought=thought, valid=not self._misread(answer))

    def problem(self, text: str) -> str:
        """Why an answer cannot be read; "" where it can."""
        if not self.tools:
            return answer_format.problem(text, self.tags)
        return self._misread(_parted(text)[1])

    def _misread(self, answer: str) -> str:
        return read(answer, self.names).problem if answer else "it is empty"

    def written(self, action: str, thought: str = "") -> str:
        """An answer that `parse` reads as this action and thought."""
        if not self.tools:
            return answer_format.write(action, thought)
        return f"<think>{thought}</think>\n{action}" if thought else action

    def results(self, seen: Observation) -> tuple[str, ...]:
        """What calls returned, each as it is worded for the agent."""
        last = len(seen.results) - 1
        return tuple(
            self.render(
                replace(seen, text=each, results=(each,), actions=seen.actions if k == last else ())
            )
            for k, each in enumerate(seen.results)
        )

    def system(self, hint: str = "") -> str:
        """The system message with an optional hint, which is never truncated."""
        parts = [self.instructions.strip(), f"{HINT_OPEN}\n{hint.strip()}" if hint.strip() else ""]
        return "\n\n".join(part for part in parts if part)

    def user(self, seen: Sequence[Observation], actions: Sequence[str]) -> str:
        """The user message before the next action.

        seen     all observations so far, the current one last
        actions  the actions after each of them but the last
        """
        if self.kind == "transcript" or len(seen) == 1:
            return self.render(seen[-1])
        # as in the papers' prompts, only the current observation lists admissible actions: what was
        # possible earlier is not what is possible now
        past_render = text if self.render is with_actions else self.render
        first = past_render(seen[0])
        past = list(zip(seen[:-1], actions, strict=True))[-self.window :] if self.window else []
        start = len(actions) - len(past)
        lines = [
            # the first observation is shown above already
            (
                f"[{start + k}] " + (past_render(o) if start + k else "(the start)"),
                f"[{start + k}] > {a}",
            )
            for k, (o, a) in enumerate(past)
        ]
        history = "\n".join(line for pair in lines for line in pair)
        return (
            f"{first}\n\n{len(actions)} actions have been taken. The last {len(past)}, each after "
            f"what was seen before it:\n{history}\n\nNow:\n{self.render(seen[-1])}"
        )


def _parted(text: str) -> tuple[str, str]:
    """The thought of an answer that calls functions, and the rest of it; a thought that does not
    end leaves none."""
    before, mark, rest = text.partition("</think>")
    if not mark:
        unended = text.lstrip().startswith("<think>")
        return (text, "") if unended else ("", text.strip()[:LONGEST])
    return before.strip().removeprefix("<think>").strip(), rest.strip()[:LONGEST]
