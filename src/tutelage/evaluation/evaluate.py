"""Evaluation: success rate and score of a policy on a fixed panel of tasks, with intervals."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from tutelage.envs.base import Converses, Identifies, Suite, Summarises
from tutelage.envs.check import splits_of
from tutelage.envs.guard import attempt, first_observation
from tutelage.envs.observations import observation
from tutelage.errors import ConfigError
from tutelage.evaluation.statistics import mean, success
from tutelage.objective import Algorithm, View
from tutelage.policies.base import CountsTokens
from tutelage.rollout.play import play
from tutelage.rollout.session import Session
from tutelage.schedules import constant
from tutelage.types import Episode, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The tasks of an evaluation, and a fingerprint of their first observations and of the suite's
    `identity`: two machines with the same fingerprint evaluate on the same tasks."""

    split: str
    tasks: tuple[Task, ...]
    fingerprint: str


def panel(suite: Suite, split: str, count: int) -> Panel:
    """The first `count` tasks of a split, identified by their ids and first observations."""
    available = suite.tasks(split)
    if count > len(available):
        raise ConfigError(
            f"the {split} split has {len(available)} tasks, fewer than the {count} asked for; "
            "ask for fewer, or choose another split"
        )
    tasks = tuple(available[i] for i in range(count))
    return Panel(split=split, tasks=tasks, fingerprint=fingerprint(suite, tasks))


def fingerprint(suite: Suite, tasks: Sequence[Task]) -> str:
    """A hash of the suite's identity, and of the ids and first observations of tasks."""
    digest = hashlib.sha256()
    if isinstance(suite, Identifies):
        digest.update(suite.identity().encode())
    for task in tasks:
        if isinstance(suite, Converses):  # its prompts are its own affair, and may hold the date
            digest.update(f"{task.id}\n{suite.pinned(task)}\n".encode())
            continue
        seen = first_observation(suite, task)
        digest.update(f"{task.id}\n{observation(seen).text}\n".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Results on a panel: `repeats` episodes per task, in the panel's order."""

    panel: Panel
    episodes: tuple[Episode, ...]
    hint: str = ""  # the privileged information in the policy's prompt
    summary: Mapping[str, float] = field(default_factory=dict)  # the suite's own numbers
    repeats: int = 1  # of every task, one after the other in `episodes`
    spent: tuple[int, ...] = ()  # sampled tokens of each, where a server counts them itself

    @property
    def tokens(self) -> tuple[int, ...]:
        """Sampled tokens of every episode."""
        return self.spent or tuple(sum(len(t.tokens) for t in e.turns) for e in self.episodes)

    @property
    def outcomes(self) -> list[float]:
        """Each task's share of episodes that were won."""
        return self._by_task(self.won)

    def _by_task(self, values: Sequence[float]) -> list[float]:
        """The mean over each task's episodes: episodes of one task are not independent."""
        k = self.repeats
        return [sum(values[i : i + k]) / k for i in range(0, len(values), k)]

    @property
    def won(self) -> list[bool]:
        return [e.won for e in self.episodes]

    @property
    def rate(self) -> tuple[float, float, float]:
        """The success rate and its 95 % interval: (rate, low, high), each in [0, 1]."""
        return success(self.outcomes)

    @property
    def scores(self) -> list[float]:
        """Each task's final score in [0, 1], the mean over its episodes, 0 for a failed one; empty
        if the environment reports none."""
        if all(e.score is None for e in self.episodes):
            return []
        return self._by_task([0.0 if e.stop.broken else e.score or 0.0 for e in self.episodes])

    def line(self, step: int, name: str) -> Mapping[str, object]:
        """A line for evals.jsonl: numbers, intervals, and the outcome of every task. Values that
        the environment does not report are left out.

        step  training steps of the policy
        name  display name of the policy
        """
        n, (rate, low, high) = len(self.episodes), self.rate
        turns = [len(e.turns) for e in self.episodes]
        return {
            "step": step,
            "name": name,
            "hint": self.hint,
            "panel": self.panel.fingerprint,
            "split": self.panel.split,
            "n": n,
            "won": sum(self.won),
            "success": rate,
            "low": low,
            "high": high,
            "turns": sum(turns) / n if n else 0.0,
            "invalid": sum(not t.valid for e in self.episodes for t in e.turns)
            / max(1, sum(turns)),
            "broken": sum(e.stop.broken for e in self.episodes),
            "families": self.families(),
            "outcomes": self.outcomes if self.repeats > 1 else [int(w) for w in self.won],
            **self._scored(),
            **({"summary": dict(self.summary)} if self.summary else {}),
        }

    def _scored(self) -> Mapping[str, object]:
        if not self.scores:
            return {}
        average = dict(zip(("score", "score_low", "score_high"), mean(self.scores), strict=True))
        return {**average, "score_families": self.score_families(), "scores": self.scores}

    def score_families(self) -> dict[str, list[float]]:
        """Per family: the mean score and its interval; empty if there are no scores."""
        found = self._by_family(self.scores) if self.scores else {}
        return {name or "all": [*mean(scores)] for name, scores in found.items()}

    def families(self) -> dict[str, list[float]]:
        """Per family: won episodes, episodes, and the interval of their rate."""
        won = {}
        for name, shares in self._by_family(self.outcomes).items():
            n = len(shares) * self.repeats
            won[name or "all"] = [round(sum(shares) * self.repeats), n, *success(shares)[1:]]
        return won

    def _by_family(self, values: Sequence[float]) -> dict[str, list[float]]:
        """Values of tasks by their family, sorted by its name."""
        names = [e.task.family for e in self.episodes[:: self.repeats]]
        found: dict[str, list[float]] = {name: [] for name in sorted({*names})}
        for name, value in zip(names, values, strict=True):
            found[name].append(value)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A finished episode, and how many tokens were sampled in it."""

    episode: Episode
    tokens: int


TEST_SPLITS = ("test", "unseen", "validation", "valid", "dev", "seen", "train")
"""Split names, the most test-like first."""


def default_split(suite: Suite) -> str:
    """The default split to evaluate on: the most test-like one that the suite has."""
    there = splits_of(suite)
    return next(split for split in TEST_SPLITS if split in there)


def named(policy: str, hint: str) -> str:
    """The display name of an evaluation.

    >>> named("student", "skills:random"), named("student", "")
    ('student with skills:random', 'student')
    """
    return f"{policy} with {hint}" if hint else policy


def evaluate(
    session: Session,
    tested: Panel,
    *,
    policy: str = "self",
    hint: str = "",
    acting: Algorithm | None = None,
    seed: int,
    temperature: float,
    repeats: int = 1,
    known: Mapping[str, Sequence[Known]] = MappingProxyType({}),
    ended: Callable[[Known], None] = lambda one: None,
) -> Evaluation:
    """Play every task of the panel, once or with `repeats`, with one policy.

    policy       the name of the policy in the session; "self" is the student
    hint         privileged information in the policy's prompt; empty for none. Random draws are
                 the same with and without it.
    acting       an algorithm that acts instead of the policy, such as the suite's expert
    temperature  of sampling; 0 is greedy
    repeats      episodes of every task, each with draws of its own
    known        by task id, all its episodes from before: they are not played again
    ended        called with every episode that is whole, as it ends
    """
    actor = session.policies[policy]
    counted = actor if isinstance(actor, CountsTokens) and acting is None else None
    fresh: dict[tuple[str, int], Known] = {}

    def keep(key: str, episode: Episode) -> None:
        tokens = counted.tokens_of(key) if counted else sum(len(t.tokens) for t in episode.turns)
        one = fresh[episode.task.id, episode.copy] = Known(episode=episode, tokens=tokens)
        if not episode.stop.broken:
            ended(one)

    alone = replace(
        session,
        policies={"self": actor},
        limits=replace(session.limits, temperature=temperature),
        ended=keep,
    )
    if acting is None:
        acting = Algorithm(terms=())
    if hint:
        views = {"hinted": View(hint=hint)}
        acting = Algorithm(terms=(), views=views, actors={"hinted": constant(1.0)})
    left = [task for task in tested.tasks if task.id not in known]
    if left:
        for episode in play(alone, left, acting, seed=seed, step=-1, group_size=repeats):
            if (episode.task.id, episode.copy) not in fresh:  # another rank played it
                tokens = sum(len(turn.tokens) for turn in episode.turns)
                one = Known(episode=episode, tokens=tokens)
                fresh[episode.task.id, episode.copy] = one
    ones = [
        one
        for task in tested.tasks
        for one in known.get(task.id) or [fresh[task.id, copy] for copy in range(repeats)]
    ]
    episodes = tuple(one.episode for one in ones)
    summary: Mapping[str, float] = {}
    if isinstance(session.suite, Summarises):
        summary = attempt("summarise", partial(session.suite.summarise, episodes))
    return Evaluation(
        panel=tested,
        episodes=episodes,
        hint=hint,
        summary=summary,
        repeats=repeats,
        spent=tuple(one.tokens for one in ones) if counted else (),
    )
