"""A session: everything that playing needs, which is the suite, its pool, the policies and their
prompts."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal

from tutelage.config.python_values import number, whole
from tutelage.config.schema import InvalidPenalty, RolloutSection
from tutelage.envs.base import Calls, CallsByTask, Converses, Instructs, Renders, Suite, Tagged
from tutelage.envs.pool import LocalPool, Pool
from tutelage.envs.registry import as_suite
from tutelage.errors import ConfigError, did_you_mean, function, kind
from tutelage.hints import Hints
from tutelage.objective import Algorithm, View
from tutelage.policies.base import DiffersByFamily, Policy, Prefetches
from tutelage.prompts import answer_format
from tutelage.prompts.context import GENERIC, Context
from tutelage.prompts.prompter import Prompter
from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.types import Episode, Observation, Task, Turn

_ROLLOUT = RolloutSection()  # the only place of the defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends a turn or an episode, and what an invalid turn costs: [rollout]'s settings."""

    max_turns: int = _ROLLOUT.max_turns
    max_new_tokens: int = _ROLLOUT.max_new_tokens  # of one turn
    concurrency: int = _ROLLOUT.slots  # episodes played at the same time
    temperature: float = _ROLLOUT.temperature
    invalid_penalty: InvalidPenalty = _ROLLOUT.invalid_penalty
    retries: int = 2  # times that a broken episode is played again

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_new_tokens", "concurrency"):
            whole(name, getattr(self, name), least=1)
        whole("retries", self.retries, least=0)
        number("temperature", self.temperature)
        penalty: object = self.invalid_penalty
        costs = penalty if isinstance(penalty, dict) else {"format": penalty}
        if unknown := [name for name in costs if name not in ("format", "refused")]:
            raise ConfigError(
                f"invalid_penalty has {unknown[0]!r:.40}, which is no kind of an invalid turn; give "
                "format, refused or both"
            )
        for cost in costs.values():
            number("invalid_penalty", cost)

    @property
    def penalties(self) -> Mapping[str, float]:
        """What an invalid turn costs by its kind, "format" (no readable action) and "refused" (by
        the environment); a kind that is left out is not invalid."""
        penalty = self.invalid_penalty
        if isinstance(penalty, dict):
            return {str(kind): value for kind, value in penalty.items()}
        return {"format": penalty, "refused": penalty}


@dataclass(slots=True)
class Clock:
    """Seconds by phase of a step, for people; never part of a result."""

    seconds: dict[str, float] = field(default_factory=dict)

    def restart(self) -> None:
        """Reset for the next step. One clock serves a whole run, since sessions do not change."""
        self.seconds.clear()

    def add(self, phase: str, since: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - since


Ready = Callable[[Sequence[Task], Algorithm, int], None]


def context_for(
    suite: Suite,
    *,
    kind: Literal["transcript", "window"] = "transcript",
    window: int = 2,
    render: str = "text",
    instructions: bool = True,
) -> Context:
    """How a suite's observations become prompts.

    kind          "transcript": the whole conversation; "window": a new prompt every turn
    window        turns before the current one that a window shows
    render        how observations are worded: "text", "actions", or one of the suite's own
    instructions  whether the system message holds the suite's rules and the format of an answer

    Raises ConfigError for a `render` that does not exist.
    """
    if isinstance(suite, Converses):
        if kind == "window":
            raise ConfigError(
                "context.history is a number of turns, but an agent keeps its own conversation and "
                'sends what it wants to be read; leave context.history at "all"'
            )
        return Context(kind="agent")
    own = suite.renders() if isinstance(suite, Renders) else {}
    renders = {**GENERIC, **own}
    if render not in renders:
        raise ConfigError(
            f"context.render = {render!r} does not exist"
            f"{did_you_mean(render, renders)}; there are {', '.join(renders)}"
        )
    tags = tuple(suite.action_tags()) if isinstance(suite, Tagged) else ()
    tools = _tools(suite)
    paragraphs: list[str] = []
    if instructions:
        rules = [suite.instructions().strip()] if isinstance(suite, Instructs) else []
        paragraphs = rules if tools else [*rules, answer_format.instruction(tags)]
    return Context(
        kind=kind,
        window=window,
        render=renders[render],
        instructions="\n\n".join(paragraphs),
        tags=tags,
        tools=tools,
    )


def _tools(suite: Suite) -> str:
    """The functions of a suite whose answers are calls, as JSON."""
    if not getattr(suite, "takes_calls", False):
        return ""
    assert isinstance(suite, Calls)
    return json.dumps(suite.tools(), ensure_ascii=False)


def context_of(context: Context, suite: Suite, task: Task) -> Context:
    """The context of a task: with its own functions, where the tasks of a suite differ in them."""
    if not context.tools or not isinstance(suite, CallsByTask):
        return context
    return replace(context, tools=json.dumps(suite.tools_of(task), ensure_ascii=False))


@dataclass(frozen=True)
class Session:
    """What playing needs. Immutable: `dataclasses.replace` gives one with other limits or policies.

        session = Session(suite, {"self": student, "teacher": teacher})

    policies  by name; "self" is the student, and views name the others
    pool      where environments run; this process if left out
    context   how observations become prompts; the suite's rules and the transcript if left out
    clock     seconds by phase of the step under way
    tick      called with (episodes done, episodes of this call) as they end
    turned    called with (turn, the observation that answers it) after every turn
    ready     called with (tasks, algorithm, step) before tasks are played: makes hints
    ranks     the processes that play beside each other, each whole groups
    ended     called with (the key of its requests, the episode) after every attempt at a task
    version   updates that the acting student has had, where another process learns; else None

    Raises ConfigError for values of another kind.
    """

    suite: Suite
    policies: Mapping[str, Policy]
    _: KW_ONLY
    pool: Pool = None  # type: ignore[assignment]  # filled in by __post_init__
    context: Context = None  # type: ignore[assignment]  # likewise
    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=Clock)
    tick: Callable[[int, int], None] = lambda done, total: None
    turned: Callable[[Turn, Observation], None] = lambda turn, after: None
    hints: Hints = field(default_factory=Hints)
    ready: Ready = lambda tasks, algorithm, step: None
    ranks: Ranks = ALONE
    ended: Callable[[str, Episode], None] = lambda key, episode: None
    version: int | None = None

    def __post_init__(self) -> None:
        kind("limits", self.limits, Limits, "tutelage.Limits(...)")
        kind(
            "policies",
            self.policies,
            Mapping,
            'a dict of policies by name, such as {"self": policy}',
        )
        for name, policy in self.policies.items():
            if not callable(getattr(policy, "refresh", None)):
                raise ConfigError(
                    f"policies[{name!r:.40}] is {type(policy).__name__}, which is no policy; give one, "
                    "such as tutelage.HFPolicy.load(model)"
                )
        self._check_parts()
        fill = object.__setattr__  # the class is frozen, and these defaults depend on the suite
        fill(self, "suite", as_suite(self.suite))
        if self.pool is None:
            fill(self, "pool", LocalPool(self.suite))
        if self.context is None:
            fill(self, "context", context_for(self.suite))

    def _check_parts(self) -> None:
        """Refuse what has defaults and is something else. Raises ConfigError."""
        if self.pool is not None and not callable(getattr(self.pool, "poll", None)):
            raise ConfigError(f"pool is {type(self.pool).__name__}, which is no pool; leave it out")
        kind(
            "context",
            self.context,
            Context | None,
            "what tutelage.rollout.session.context_for gives",
        )
        kind("clock", self.clock, Clock, "a Clock")
        kind("hints", self.hints, Hints, "a tutelage.hints.Hints")
        kind("ranks", self.ranks, Ranks, "the ranks of a run")
        kind("version", self.version, int | None, "a whole number, or None")
        for name in ("tick", "turned", "ready", "ended"):
            function(name, getattr(self, name))

    def prompter(self, view: View, task: Task) -> Prompter:
        """How a view is prompted for a task, its hint included."""
        actor = self.policies.get(view.policy)
        if actor is None:
            raise ConfigError(
                f"the algorithm wants a policy {view.policy!r}, but there is none; "
                f"there are {', '.join(sorted(self.policies))}"
            )
        chat = actor.chat_of(task.family) if isinstance(actor, DiffersByFamily) else actor.chat
        return Prompter(
            chat=chat,
            family=task.family,
            context=context_of(self.context, self.suite, task),
            hint=self.hints.text(self.suite, task, view.hint),
        )


def foresee(session: Session, algorithm: Algorithm, episode: Episode) -> None:
    """Prefetch a remote policy's scores of a finished episode while others are still played.

    Not where a view has hindsight: that needs all episodes of the task, so scoring waits for them;
    nor where another process learns, which is the one that reads scores.
    """
    if not algorithm.terms or episode.stop.broken or session.version is not None:
        return
    for view in algorithm.views.values():
        policy = session.policies.get(view.policy)
        if isinstance(policy, Prefetches) and view.hindsight is None:
            policy.prefetch_scores(session.prompter(view, episode.task).samples(episode))
