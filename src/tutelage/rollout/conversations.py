"""Conversations of other tools as recorded episodes: demonstrations for `sft`, and prefixes that a
student continues."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tutelage.envs.adapters.messages import Conversation, Messages
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Prompter, Reader
from tutelage.rollout.record import Line, turn_line
from tutelage.types import EXPERT, WRONG_TURN, Observation, Stop, Task, Turn

CONTEXT = Context()
"""Without instructions: what a conversation needs it says itself."""


def episode_line(found: Conversation, task: Task, chat: Chat) -> Line | None:
    """A conversation as a line of episodes.jsonl, in the ids of a tokenizer; None for one without an
    answer.

    An answer of weight 0 is not imitated. A message at the end that waits for an answer is left
    out: the suite `messages` shows it. An episode counts as won unless its line says otherwise.
    """
    reader = Reader(prompter=Prompter(chat=chat, context=CONTEXT))
    turns: list[Turn] = []
    for turn_found in found.turns:
        if turn_found.reply is None:
            break
        seen = Observation(text=turn_found.seen)
        _, new = reader.prompt(turns, seen)
        ids = chat.reply(turn_found.reply)
        turns.append(
            Turn(
                observation=seen,
                prompt=new,
                text=chat.text(ids),
                tokens=ids,
                logps=(0.0,) * len(ids),
                action=turn_found.reply,
                actor=EXPERT if turn_found.imitated else WRONG_TURN,
            )
        )
    if not turns:
        return None
    about = found.about
    earned = about.get("return", 0.0)
    return {
        "phase": "train",
        "step": 0,
        "task": asdict(task),
        "group": task.id,
        "copy": 0,
        "stop": Stop.DONE.value,
        "won": bool(about.get("won", True)),
        "score": None,
        "return": float(earned) if isinstance(earned, int | float) else 0.0,
        "error": "",
        "penalties": {},
        "turns": [turn_line(turn) for turn in turns],
    }


def episode_lines(path: Path, chat: Chat) -> Iterator[Line]:
    """Every conversation of a file of chat messages that has an answer, as a line."""
    suite = Messages(file=str(path))
    for k, found in enumerate(suite.conversations()):
        line = episode_line(found, suite.task(k), chat)
        if line is not None:
            yield line
