"""The text of a hint from its name, such as "plan+skills:ucb"."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tutelage.envs.base import Answers, Demonstrates, Describes, Plans, Suite, suite_name
from tutelage.errors import ConfigError
from tutelage.hints.bandit import Bandit
from tutelage.hints.bank import Bank
from tutelage.hints.retrieval import RETRIEVALS, Retrieval, retrieve
from tutelage.types import Task

KINDS = ("plan", "actions", "trace", "answer", "skills", "written")
CACHED = 1024
"""Texts that are cached, because a plan may take a search."""


class Part(NamedTuple):
    """One kind of a hint; `retrieval` is that of skills, empty for the configured one."""

    kind: str
    retrieval: str = ""


def parts_of(hint: str) -> tuple[Part, ...]:
    """The parts of a hint's name, in order.

    >>> parts_of("plan+skills:ucb")
    (Part(kind='plan', retrieval=''), Part(kind='skills', retrieval='ucb'))
    """
    parts = tuple(Part(*(piece.partition(":")[::2])) for piece in hint.split("+") if hint)
    for kind, retrieval in parts:
        if kind not in KINDS:
            raise ConfigError(f"there is no hint {kind!r}; the kinds are {', '.join(KINDS)}")
        if retrieval and (kind != "skills" or retrieval not in RETRIEVALS):
            raise ConfigError(
                f"the hint {kind}:{retrieval} does not exist; only skills are retrieved, as "
                f"skills:WAY with one of {', '.join(RETRIEVALS)}"
            )
    if len({kind for kind, _ in parts}) < len(parts):
        raise ConfigError(f"the hint {hint!r} names a kind twice; name each once")
    return parts


def kinds_in(hint: str) -> set[str]:
    """The kinds of a hint.

    >>> sorted(kinds_in("plan+skills:ucb"))
    ['plan', 'skills']
    """
    return {part.kind for part in parts_of(hint)}


@dataclass(kw_only=True)
class Hints:
    """The settings of hints besides the suite, and the hints generated so far.

    bank            skills to show
    retrieval       how they are chosen, if a hint's name does not say it
    allow_general   whether the general skills alone are enough if nothing matches
    written_tokens  longest self-written hint; `written_temperature` it is sampled at
    bandit          the statistics of "ucb"
    written         task id -> the hint that was written for it
    """

    bank: Bank | None = None
    retrieval: Retrieval = "family"
    allow_general: bool = False
    written_tokens: int = 96
    written_temperature: float = 0.0
    bandit: Bandit = field(default_factory=Bandit)
    written: dict[str, str] = field(default_factory=dict)
    cached: dict[tuple[str, Part], str] = field(default_factory=dict, repr=False)

    def way(self, part: Part) -> str:
        """How the skills of a part of a hint are retrieved."""
        return part.retrieval or self.retrieval

    def uses_ucb(self, hint: str) -> bool:
        return any(p.kind == "skills" and self.way(p) == "ucb" for p in parts_of(hint))

    def text(self, suite: Suite, task: Task, hint: str) -> str:
        """The hint of a task; parts that cannot change from step to step are cached."""
        texts = []
        for part in parts_of(hint):
            if part.kind == "written" or (part.kind == "skills" and self.way(part) == "ucb"):
                texts.append(_text(suite, task, part, self))
                continue
            if (task.id, part) not in self.cached:
                if len(self.cached) >= CACHED:
                    self.cached.clear()
                self.cached[task.id, part] = _text(suite, task, part, self)
            texts.append(self.cached[task.id, part])
        return "\n\n".join(text for text in texts if text)


def hint(suite: Suite, task: Task, kind: str, hints: Hints | None = None) -> str:
    """The text of a hint for a task; empty if `kind` is, or if the suite has nothing for the task.

    Raises ConfigError for an unknown hint, or one that this suite cannot give.
    """
    return (hints or Hints()).text(suite, task, kind)


def check(suite: Suite, kind: str, hints: Hints) -> None:
    """Refuse a hint that a suite can never give."""
    for part in parts_of(kind):
        _possible(suite, part, hints)


def _possible(suite: Suite, part: Part, hints: Hints) -> None:
    name, way = suite_name(suite), hints.way(part)
    if part.kind in ("plan", "actions", "written") and not isinstance(suite, Plans):
        other = ', choose the hint "trace"' if isinstance(suite, Demonstrates) else ""
        raise ConfigError(
            f"the hint {part.kind!r} needs an environment that knows its solutions; {name} has no "
            f"`plan` method: add one{other}, or choose an algorithm without privileged information"
        )
    if part.kind == "trace" and not isinstance(suite, Demonstrates):
        raise ConfigError(
            f"the hint 'trace' needs an environment with an expert; {name} has no `demonstrate` "
            "method: add one, or choose another kind of hint"
        )
    if part.kind == "answer" and not isinstance(suite, Answers):
        raise ConfigError(
            f"the hint 'answer' needs an environment with reference answers; {name} has no "
            "`answer` method: add one, or choose another kind of hint"
        )
    if part.kind == "skills" and hints.bank is None:
        raise ConfigError(
            f"the hint 'skills' needs a bank of skills, and there is none for {name}: set "
            f"hints.bank to a built-in one or to a folder of text files{_instead(suite)}"
        )
    by_text = part.kind == "skills" and way in ("keyword", "similarity")
    if by_text and not isinstance(suite, Describes):
        raise ConfigError(
            f"skills by {way} are chosen by the task's text, but {name} has no `describe` method: "
            "add one, or choose another retrieval"
        )


def given_by(suite: Suite) -> list[str]:
    """The kinds of hints that a suite gives by its methods alone, without a bank of skills."""
    kinds = []
    if isinstance(suite, Plans):
        kinds += ["plan", "actions"]
    if isinstance(suite, Demonstrates):
        kinds.append("trace")
    if isinstance(suite, Answers):
        kinds.append("answer")
    return kinds


def _instead(suite: Suite) -> str:
    kinds = given_by(suite)
    if kinds:
        return f', or choose a hint that it gives: algorithm.hint = "{kinds[0]}"'
    return ', or add a `plan` method and choose the hint "plan"'


def _text(suite: Suite, task: Task, part: Part, hints: Hints) -> str:
    _possible(suite, part, hints)
    if part.kind == "answer":
        assert isinstance(suite, Answers)
        answer = suite.answer(task).strip()
        return f"The answer: {answer}" if answer else ""
    if part.kind == "skills":
        return _skills(suite, task, part, hints)
    if part.kind == "written":
        if task.id not in hints.written:
            raise ConfigError(
                f"no hint has been written for task {task.id} yet; call "
                "`tutelage.rollout.hint_preparation.write` before the task is played"
            )
        return hints.written[task.id]
    if part.kind == "trace":
        assert isinstance(suite, Demonstrates)
        return steps(suite.demonstrate(task))
    assert isinstance(suite, Plans)
    return steps(suite.plan(task), whole=part.kind == "plan")


def steps(plan: Sequence[str], *, whole: bool = True) -> str:
    """A plan as a numbered list, with `whole=False` only the first word of each step.

    >>> steps(["go to fridge 1", "look"], whole=False)
    '1. go\\n2. look'
    """
    lines = [step if whole else step.split(" ", 1)[0] for step in plan]
    return "\n".join(f"{k}. {word}" for k, word in enumerate(lines, 1))


def _skills(suite: Suite, task: Task, part: Part, hints: Hints) -> str:
    assert hints.bank is not None
    way = hints.way(part)
    description = suite.describe(task) if isinstance(suite, Describes) else ""
    found = retrieve(hints.bank, way, task, description, hints.bandit)
    if not found and not hints.allow_general:
        raise ConfigError(
            f"no skill of the bank {hints.bank.name} was found for task {task.id} by {way} "
            f"(family {task.family!r}); name it in the bank's bank.toml, or choose another way, "
            'such as "skills:full"'
        )
    return "\n\n".join(text for text in (hints.bank.general, *(s.text for s in found)) if text)
