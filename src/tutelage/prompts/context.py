"""Contexts: the prompt text of each turn, as a growing transcript or a window of turns.

transcript  the complete conversation, one message more every turn, append-only
agent       the conversation that an agent of its own keeps (see `prompts.conversation`)
window(h)   a fresh prompt every turn: the task, the last h turns and the current observation,
            as the ALFWorld stacks of SDAR and ATOD do (arXiv:2605.15155, arXiv:2606.27814)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.envs.base import Render
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How prompts are built and answers read. `instructions` and a hint go into the system message;
    `tags` are the environment's own (see `answer_format.parse`)."""

    kind: Literal["transcript", "window", "agent"] = "transcript"
    window: int = 2
    render: Render = text
    instructions: str = ""
    tags: tuple[str, ...] = ()

    def parse(self, text: str) -> Parsed:
        """What the environment is given for a completion: its action, or for an agent all of it."""
        return Parsed(action=text) if self.kind == "agent" else parse(text, self.tags)

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
