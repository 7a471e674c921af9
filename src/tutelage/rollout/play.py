"""Play episodes: decide who acts in each turn, let them act, tell the environment.

Every episode advances on its own. An environment that breaks ends its episode, which is recorded,
played again, and trains nothing.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tutelage.envs.base import ScriptKind
from tutelage.envs.pool import Failure
from tutelage.errors import EnvError
from tutelage.hints import kinds_in
from tutelage.objective import STUDENT, Algorithm, View
from tutelage.objective.penalties import penalised
from tutelage.policies.base import Completion, Policy, Request
from tutelage.policies.hf.turn_divergence import divergences
from tutelage.prompts import answer_format
from tutelage.prompts.prompter import Ids, Reader, Sample
from tutelage.rollout.demonstrations import ASTRAY, script
from tutelage.rollout.session import (
    Session,
    foresee,
)
from tutelage.seeding import seed_of
from tutelage.types import Episode, Observation, Stop, Taken, Task, Turn

EXPERT = "expert"


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
    head: Completion | None = None  # what the student wrote of the turn that was taken from it
    opening: list[Completion] = field(default_factory=list)  # turns that are there beforehand
    openers: list[str] = field(default_factory=list)  # whose each of them is


def play(
    session: Session,
    tasks: Sequence[Task],
    algorithm: Algorithm,
    *,
    seed: int,
    step: int = 0,
    group_size: int = 1,
    recorded: Mapping[str, Sequence[Turn]] = MappingProxyType({}),
) -> list[Episode]:
    """`copies` episodes of every task, in the order of tasks and copies; broken attempts after the
    episode that replaced them, or alone where retries ran out.

    recorded  by task id, turns that stand for those of the environment's expert
    """
    if len({task.id for task in tasks}) < len(tasks):
        raise ValueError("a task is played twice; name each once and ask for `copies`")
    session.ready(tasks, algorithm, step)
    game = _Game(session, algorithm, seed, step, recorded)
    jobs = [Job(task=task, copy=copy) for task in tasks for copy in range(group_size)]
    return game.run(jobs)


class _Game:
    """One call of `play`."""

    def __init__(
        self, session: Session, algorithm: Algorithm, seed: int, step: int,
        recorded: Mapping[str, Sequence[Turn]],
    ) -> None:  # fmt: skip
        self.session, self.algorithm, self.seed, self.step = session, algorithm, seed, step
        self.recorded = recorded
        self.views = algorithm.all_views()
        self.chances = {name: chance(step) for name, chance in algorithm.actors.items()}
        self.live: dict[str, _Playing] = {}
        self.finished: list[tuple[Job, Episode]] = []
        self.jobs: list[Job] = []

    def run(self, jobs: list[Job]) -> list[Episode]:
        order = {(job.task.id, job.copy): i for i, job in enumerate(jobs)}
        self.jobs = list(jobs)
        actors = {view.policy for view in self.views.values()} & set(self.session.policies)
        acting = [self.session.policies[name] for name in sorted(actors)]
        for actor in acting:
            actor.refresh()
        try:
            while self.jobs or self.live:
                self._admit()
                moved = self._environments(block=False)
                for actor in acting:
                    since = time.perf_counter()
                    made = actor.poll()
                    self.session.clock.add("generate", since)
                    for completion in self._whole(made):
                        self._acted(completion)
                    moved = moved or bool(made)
                if not moved and not self._generating():
                    self._environments(block=True)
        finally:
            for key in list(self.live):
                self.session.pool.close(key)
        self.finished.sort(key=lambda f: (order[f[0].task.id, f[0].copy], -f[0].attempt))
        return [episode for _, episode in self.finished]

    def _generating(self) -> bool:
        return any(p.seen and len(p.turns) < len(p.seen) for p in self.live.values())

    def _admit(self) -> None:
        while self.jobs and len(self.live) < self.session.limits.concurrency:
            job = self.jobs.pop(0)
            name = repr((self.seed, self.step, job.task.id, job.copy, job.attempt))
            self.live[job.key] = _Playing(job=job, rng_name=name)
            since = time.perf_counter()
            self.session.pool.open(job.key, job.task)
            self.session.clock.add("environment", since)

    # -- an environment answered

    def _environments(self, *, block: bool) -> bool:
        since = time.perf_counter()
        answers = self.session.pool.poll(block=block)
        self.session.clock.add("environment", since)
        for key, answer in answers:
            if isinstance(answer, Failure):
                self._failed(key, answer)
            else:
                self._observed(key, answer)
        return bool(answers)

    def _failed(self, key: str, failure: Failure) -> None:
        job = self._finish(key, failure.stop, error=failure.reason)
        if job.attempt < self.session.limits.retries:
            self.jobs.append(replace(job, attempt=job.attempt + 1))

    def _observed(self, key: str, observation: Observation) -> None:
        p = self.live[key]
        if p.turns:
            p.turns[-1] = self._rewarded(p.turns[-1], observation)
        p.seen.append(observation)
        if observation.done:
            self._finish(key, Stop.DONE)
        elif len(p.turns) == self.session.limits.max_turns:
            self._finish(key, Stop.TURNS)
        else:
            self._ask(key, p)

    def _rewarded(self, turn: Turn, after: Observation) -> Turn:
        limits = self.session.limits
        valid = turn.valid and (after.valid or limits.invalid == "format")
        return replace(
            turn,
            reward=float(after.reward),
            valid=valid,
            penalty=0.0 if valid else limits.invalid_penalty,
        )

    # -- somebody must act

    def _choose(self, p: _Playing) -> str:
        """The view that takes this turn: the expert to the end of its opening, then each actor
        with its scheduled chance, else the student."""
        if self._opens(p):
            return p.openers[len(p.turns)] if len(p.turns) < len(p.openers) else EXPERT
        lot = random.Random(seed_of("actor", p.rng_name, len(p.turns))).random()
        for name, chance in self.chances.items():
            lot -= chance
            if lot < 0:
                return name
        return STUDENT

    def _opens(self, p: _Playing) -> bool:
        return self.algorithm.demonstrated or len(p.turns) < len(p.opening)

    def _view(self, name: str) -> View:
        return self.views.get(name, View())

    def _read(self, p: _Playing, name: str) -> tuple[Ids, Ids]:
        """The prompt that a view is shown now, and what is new in it."""
        if name not in p.readers:
            prompter = self.session.prompter(self._view(name), p.job.task)
            p.readers[name] = Reader(prompter=prompter)
        return p.readers[name].prompt(p.turns, p.seen[-1])

    def _ask(self, key: str, p: _Playing) -> None:
        if not p.turns:
            p.opening, p.openers = self._opening(p)
        p.actor = self._choose(p)
        prompt, p.piece = self._read(p, p.actor)
        room = self._room(p.actor, prompt)
        switch = self.algorithm.switch
        if switch is not None and p.actor == STUDENT:
            room = min(room, self._room(switch.to, self._read(p, switch.to)[0]))
        if room < self.session.limits.max_new_tokens:
            self._finish(key, Stop.TOKENS)
        elif self._opens(p):
            self._demonstrate(key, p)
        else:
            self._submit(p, p.actor, prompt, seed=seed_of("turn", p.rng_name, len(p.turns)))

    def _policy(self, name: str) -> Policy:
        return self.session.policies[self._view(name).policy]

    def _room(self, name: str, prompt: Ids) -> int:
        return min(
            self.session.limits.max_new_tokens, self._policy(name).context_length - len(prompt)
        )

    def _submit(self, p: _Playing, name: str, prompt: Ids, *, seed: int, used: int = 0) -> None:
        limits = self.session.limits
        self._policy(name).submit(
            Request(
                key=p.job.key,
                prompt=prompt,
                seed=seed,
                max_new=limits.max_new_tokens - used,
                temperature=limits.temperature,
            )
        )

    # -- somebody else begins

    def _opener(self, p: _Playing) -> str:
        """The expert, or with its share of the demonstrated episodes a view that does what it is
        told."""
        lot = random.Random(seed_of("planned", p.rng_name)).random()
        for name, share in self.algorithm.planned.items():
            lot -= share
            if lot < 0:
                return name
        return EXPERT

    def _opening(self, p: _Playing) -> tuple[list[Completion], list[str]]:
        """The expert's turns, all of them or those that the student does not take over, and whose
        each is."""
        a, task, opener = self.algorithm, p.job.task, self._opener(p)
        if not a.demonstrated and a.left is None:
            return [], []
        turns = [(opener, t.tokens, t.logps) for t in self.recorded.get(task.id, ())]
        if not turns:
            view = a.views.get(opener)
            kind: ScriptKind = "plan" if view and "plan" in kinds_in(view.hint) else "trace"
            strays = a.strays and view is not None
            chat = self.session.policies["self"].chat
            for text, meant in script(
                self.session.suite, task, aloud=a.aloud, kind=kind, strays=strays
            ):
                ids = chat.reply(text)
                turns.append((opener if meant else ASTRAY, ids, (0.0,) * len(ids)))
        left = 0 if a.left is None else int(a.left(self.step))
        kept = turns[: max(0, len(turns) - left)]
        made = [
            Completion(key=p.job.key, tokens=ids, logps=logps, ended=True) for _, ids, logps in kept
        ]
        return made, [who for who, *_ in kept]

    def _demonstrate(self, key: str, p: _Playing) -> None:
        if len(p.turns) >= len(p.opening):
            raise EnvError(
                f"the expert's {len(p.opening)} actions did not end task {p.job.task.id}; "
                "its `demonstrate` must solve the task"
            )
        self._acted(p.opening[len(p.turns)])

    # -- somebody else ends

    def _whole(self, made: Sequence[Completion]) -> Sequence[Completion]:
        """The turns that are finished. Where one is to be taken from the student, another view
        goes on from there."""
        switch = self.algorithm.switch
        begun = [c for c in made if self._begun(self.live[c.key])]
        if switch is None or not begun:
            return made
        since = time.perf_counter()
        turns = [(self._sample(c, STUDENT), self._sample(c, switch.to)) for c in begun]
        policies = self._policy(STUDENT), self._policy(switch.to)
        keys = [c.key for c in begun]
        apart = divergences(*policies, turns, self.session.limits.temperature, keys)
        self.session.clock.add("teacher", since)
        cuts = {c.key: switch.at(d) for c, d in zip(begun, apart, strict=True)}
        for c in begun:
            at = cuts[c.key]
            if at is not None:
                self._take(self.live[c.key], c, at, switch.to)
        return [c for c in made if cuts.get(c.key) is None]

    def _sample(self, made: Completion, name: str) -> Sample:
        prompt, _ = self._read(self.live[made.key], name)
        return Sample(prompt=prompt, tokens=made.tokens)

    def _begun(self, p: _Playing) -> bool:
        """Whether the turn under way has only been the student's so far."""
        return p.actor == STUDENT and p.head is None

    def _take(self, p: _Playing, made: Completion, at: int, to: str) -> None:
        """Let another view write the turn from its token `at` on."""
        p.head = replace(made, tokens=made.tokens[:at], logps=made.logps[:at], ended=False)
        prompt = (*self._read(p, to)[0], *p.head.tokens)
        seed = seed_of("taken", p.rng_name, len(p.turns))
        self._submit(p, to, prompt, seed=seed, used=at)

    def _acted(self, made: Completion) -> None:
        p = self.live[made.key]
        prompter, taken = p.readers[p.actor].prompter, None
        if p.head is not None and self.algorithm.switch is not None:
            taken = Taken(at=len(p.head.tokens), by=self.algorithm.switch.to)
            tokens, logps = (*p.head.tokens, *made.tokens), (*p.head.logps, *made.logps)
            made, p.head = replace(made, tokens=tokens, logps=logps), None
        text = prompter.chat.text(made.tokens)
        parsed = answer_format.parse(text, self.session.context.tags)
        p.turns.append(
            Turn(
                observation=p.seen[-1],
                prompt=p.piece,
                text=text,
                tokens=made.tokens,
                logps=made.logps,
                action=parsed.action,
                actor=p.actor,
                taken=taken,
                valid=parsed.valid,
                fresh=prompter.fresh,
            )
        )
        since = time.perf_counter()
        self.session.pool.act(made.key, parsed.action)
        self.session.clock.add("environment", since)

    def _finish(self, key: str, stop: Stop, error: str = "") -> Job:
        p = self.live.pop(key)
        self.session.pool.close(key)
        wrote = {t.actor for t in p.turns} | {t.taken.by for t in p.turns if t.taken}
        if self.algorithm.switch is not None:  # who could have taken a turn has read them all
            wrote.add(self.algorithm.switch.to)
        for view in {self.views[name].policy for name in wrote if name in self.views}:
            self.session.policies[view].release(key)
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
        self.finished.append((p.job, penalised(episode, self.algorithm.penalties)))
        foresee(self.session, self.algorithm, episode)
        if not stop.broken:
            done = sum(not e.stop.broken for _, e in self.finished)
            self.session.tick(done, done + len(self.live) + len(self.jobs))
        return p.job
