"""Play episodes: decide who acts in each turn, let them act, tell the environment.

Every episode advances on its own. An environment that breaks ends its episode, which is recorded,
played again, and trains nothing.
"""

import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from understudy import protocol
from understudy.contexts import Context
from understudy.envs.base import Demonstrates, Suite, Thinks
from understudy.envs.pool import Failure, Pool
from understudy.errors import ConfigError, EnvError
from understudy.hints import Hints
from understudy.objective import STUDENT, Algorithm, View
from understudy.policies.base import Actor, Completion, Request
from understudy.policies.prompts import Prompter, Reader
from understudy.types import Episode, Observation, Stop, Task, Turn

EXPERT = "expert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What ends a turn or an episode, and what an invalid turn costs."""

    turns: int = 50
    new_tokens: int = 512  # a turn
    live: int = 64  # episodes at a time
    temperature: float = 1.0
    invalid_penalty: float = 0.0
    invalid: Literal["format", "any"] = "any"  # "any" counts actions the environment refuses too
    retries: int = 2  # times that a broken episode is played again


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt to be made."""

    task: Task
    copy: int = 0
    attempt: int = 0

    @property
    def key(self) -> str:
        return f"{self.task.id}#{self.copy}.{self.attempt}"


@dataclass(slots=True)
class _Playing:
    job: Job
    rng_name: str
    seen: list[Observation] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    actor: str = STUDENT
    piece: tuple[int, ...] = ()  # what is new in the prompt of the turn under way
    readers: dict[str, Reader] = field(default_factory=dict)  # by view
    script: list[str] = field(default_factory=list)


def seed_of(*parts: object) -> int:
    """A number for a name, the same in every process and Python."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


@dataclass(slots=True)
class Clock:
    """Seconds by phase, for people; never part of a result."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, since: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - since


Ready = Callable[[Sequence[Task], Algorithm, int], None]


@dataclass(kw_only=True)
class Stage:
    """All that playing needs: the suite and where it runs, the policies, how they are prompted."""

    suite: Suite
    pool: Pool
    policies: Mapping[str, Actor]
    context: Context
    limits: Limits
    clock: Clock = field(default_factory=Clock)
    tick: Callable[[int, int], None] = lambda done, total: None
    hints: Hints = field(default_factory=Hints)
    ready: Ready = lambda tasks, algorithm, step: None  # before tasks are played: make hints

    def prompter(self, view: View, task: Task) -> Prompter:
        actor = self.policies.get(view.policy)
        if actor is None:
            raise ConfigError(
                f"the algorithm wants a policy {view.policy!r}, but there is none; "
                f"there are {', '.join(sorted(self.policies))}"
            )
        return Prompter(
            chat=actor.chat,
            context=self.context,
            hint=self.hints.text(self.suite, task, view.hint),
        )


def play(
    stage: Stage,
    tasks: Sequence[Task],
    algorithm: Algorithm,
    *,
    seed: int,
    step: int = 0,
    copies: int = 1,
) -> list[Episode]:
    """`copies` episodes of every task, in the order of tasks and copies; broken attempts after the
    episode that replaced them, or alone where retries ran out."""
    if len({task.id for task in tasks}) < len(tasks):
        raise ValueError("a task is played twice; name each once and ask for `copies`")
    stage.ready(tasks, algorithm, step)
    game = _Game(stage, algorithm, seed, step)
    jobs = [Job(task=task, copy=copy) for task in tasks for copy in range(copies)]
    return game.run(jobs)


class _Game:
    """One call of `play`."""

    def __init__(self, stage: Stage, algorithm: Algorithm, seed: int, step: int) -> None:
        self.stage, self.algorithm, self.seed, self.step = stage, algorithm, seed, step
        self.views = algorithm.all_views()
        self.chances = {name: chance(step) for name, chance in algorithm.actors.items()}
        self.live: dict[str, _Playing] = {}
        self.finished: list[tuple[Job, Episode]] = []
        self.jobs: list[Job] = []

    def run(self, jobs: list[Job]) -> list[Episode]:
        order = {(job.task.id, job.copy): i for i, job in enumerate(jobs)}
        self.jobs = list(jobs)
        actors = {view.policy for view in self.views.values()} & set(self.stage.policies)
        acting = [self.stage.policies[name] for name in sorted(actors)]
        for actor in acting:
            actor.refresh()
        try:
            while self.jobs or self.live:
                self._admit()
                moved = self._environments(block=False)
                for actor in acting:
                    since = time.perf_counter()
                    made = actor.poll()
                    self.stage.clock.add("generate", since)
                    for completion in made:
                        self._acted(completion)
                    moved = moved or bool(made)
                if not moved and not self._generating():
                    self._environments(block=True)
        finally:
            for key in list(self.live):
                self.stage.pool.close(key)
        self.finished.sort(key=lambda f: (order[f[0].task.id, f[0].copy], -f[0].attempt))
        return [episode for _, episode in self.finished]

    def _generating(self) -> bool:
        return any(p.seen and len(p.turns) < len(p.seen) for p in self.live.values())

    def _admit(self) -> None:
        while self.jobs and len(self.live) < self.stage.limits.live:
            job = self.jobs.pop(0)
            name = repr((self.seed, self.step, job.task.id, job.copy, job.attempt))
            self.live[job.key] = _Playing(job=job, rng_name=name)
            since = time.perf_counter()
            self.stage.pool.open(job.key, job.task)
            self.stage.clock.add("environment", since)

    # -- an environment answered

    def _environments(self, *, block: bool) -> bool:
        since = time.perf_counter()
        answers = self.stage.pool.poll(block=block)
        self.stage.clock.add("environment", since)
        for key, answer in answers:
            if isinstance(answer, Failure):
                self._failed(key, answer)
            else:
                self._observed(key, answer)
        return bool(answers)

    def _failed(self, key: str, failure: Failure) -> None:
        job = self._finish(key, failure.stop, error=failure.reason)
        if job.attempt < self.stage.limits.retries:
            self.jobs.append(replace(job, attempt=job.attempt + 1))

    def _observed(self, key: str, observation: Observation) -> None:
        p = self.live[key]
        if p.turns:
            p.turns[-1] = self._rewarded(p.turns[-1], observation)
        p.seen.append(observation)
        if observation.done:
            self._finish(key, Stop.DONE)
        elif len(p.turns) == self.stage.limits.turns:
            self._finish(key, Stop.TURNS)
        else:
            self._ask(key, p)

    def _rewarded(self, turn: Turn, after: Observation) -> Turn:
        limits = self.stage.limits
        valid = turn.valid and (after.valid or limits.invalid == "format")
        return replace(
            turn,
            reward=float(after.reward),
            valid=valid,
            penalty=0.0 if valid else limits.invalid_penalty,
        )

    # -- somebody must act

    def _choose(self, p: _Playing) -> str:
        """The view that takes this turn: each actor with its scheduled chance, else the student."""
        if self.algorithm.demonstrated:
            return EXPERT
        lot = random.Random(seed_of("actor", p.rng_name, len(p.turns))).random()
        for name, chance in self.chances.items():
            lot -= chance
            if lot < 0:
                return name
        return STUDENT

    def _ask(self, key: str, p: _Playing) -> None:
        p.actor = self._choose(p)
        view = self.views.get(p.actor, View())
        if p.actor not in p.readers:
            p.readers[p.actor] = Reader(prompter=self.stage.prompter(view, p.job.task))
        prompt, p.piece = p.readers[p.actor].prompt(p.turns, p.seen[-1])
        actor = self.stage.policies[view.policy]
        room = min(self.stage.limits.new_tokens, actor.context_length - len(prompt))
        if room < self.stage.limits.new_tokens:
            self._finish(key, Stop.TOKENS)
        elif p.actor == EXPERT:
            self._demonstrate(key, p)
        else:
            actor.submit(
                Request(
                    key=key,
                    prompt=prompt,
                    seed=seed_of("turn", p.rng_name, len(p.turns)),
                    max_new=room,
                    temperature=self.stage.limits.temperature,
                )
            )

    def _demonstrate(self, key: str, p: _Playing) -> None:
        suite = self.stage.suite
        if not isinstance(suite, Demonstrates):
            raise ConfigError(
                f"imitating an expert needs an environment that has one; {type(suite).__name__} "
                'has no `demonstrate` method: add one, or set algorithm.source = "teacher"'
            )
        if not p.turns:
            p.script = self._script(suite, p.job.task)
        if len(p.turns) >= len(p.script):
            raise EnvError(
                f"the expert's {len(p.script)} actions did not end task {p.job.task.id}; "
                "its `demonstrate` must solve the task"
            )
        tokens = p.readers[EXPERT].prompter.chat.reply(p.script[len(p.turns)])
        zeros = (0.0,) * len(tokens)
        self._acted(Completion(key=key, tokens=tokens, logps=zeros, ended=True))

    def _script(self, suite: Demonstrates, task: Task) -> list[str]:
        """The expert's turns in full."""
        actions = suite.demonstrate(task)
        if not self.algorithm.aloud:
            return [protocol.write(action) for action in actions]
        if not isinstance(suite, Thinks):
            raise ConfigError(
                f"imitating an expert's thoughts needs an environment that has them; "
                f"{type(suite).__name__} has no `thoughts` method: add one, or set "
                "algorithm.thoughts = false"
            )
        return [
            protocol.write(action, thought)
            for action, thought in zip(actions, suite.thoughts(task), strict=True)
        ]

    def _acted(self, made: Completion) -> None:
        p = self.live[made.key]
        prompter = p.readers[p.actor].prompter
        text = prompter.chat.text(made.tokens)
        parsed = protocol.parse(text)
        p.turns.append(
            Turn(
                observation=p.seen[-1],
                prompt=p.piece,
                text=text,
                tokens=made.tokens,
                logps=made.logps,
                action=parsed.action,
                actor=p.actor,
                valid=parsed.valid,
                fresh=prompter.fresh,
            )
        )
        since = time.perf_counter()
        self.stage.pool.act(made.key, parsed.action)
        self.stage.clock.add("environment", since)

    def _finish(self, key: str, stop: Stop, error: str = "") -> Job:
        p = self.live.pop(key)
        self.stage.pool.close(key)
        for view in {self.views[t.actor].policy for t in p.turns if t.actor in self.views}:
            self.stage.policies[view].release(key)
        last = p.seen[-1] if p.seen else Observation(text="")
        episode = Episode(
            task=p.job.task,
            group=p.job.task.id,
            turns=tuple(p.turns),
            stop=stop,
            won=bool(last.won) and stop is Stop.DONE,
            score=last.score,
            copy=p.job.copy,
            error=error,
        )
        self.finished.append((p.job, self._penalised(episode)))
        if not stop.broken:
            done = sum(not e.stop.broken for _, e in self.finished)
            self.stage.tick(done, done + len(self.live) + len(self.jobs))
        return p.job

    def _penalised(self, episode: Episode) -> Episode:
        """The episode with the algorithm's penalties taken off its last turn's reward."""
        if episode.stop.broken or not episode.turns:
            return episode
        off = {name: float(of(episode)) for name, of in self.algorithm.penalties.items()}
        for name, amount in off.items():
            if not (math.isfinite(amount) and amount >= 0):
                raise ConfigError(
                    f"the penalty {name!r} is {amount:g} for task {episode.task.id}; it must "
                    "return what is to be taken off the reward, 0 or more"
                )
        *turns, last = episode.turns
        last = replace(last, penalty=last.penalty + sum(off.values()))
        return replace(episode, turns=(*turns, last), penalties=off)
