"""Play episodes: choose who acts in each turn, sample the turn, step the environment.

Every episode advances on its own. An episode whose environment breaks is recorded, played again,
and never trained on.
"""

import random
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tutelage.envs.base import ScriptKind
from tutelage.envs.pool import AnswersCalls, Failure, Reply
from tutelage.errors import EnvError
from tutelage.hints import kinds_in
from tutelage.objective import STUDENT, Algorithm, View
from tutelage.objective.penalties import penalised
from tutelage.policies.base import Aligns, AnswersLate, Completion, Policy, Request
from tutelage.policies.hf.turn_divergence import divergences
from tutelage.prompts.prompter import Ids, Reader, Sample
from tutelage.rollout.demonstrations import script
from tutelage.rollout.session import Session, context_of, foresee
from tutelage.seeding import seed_of
from tutelage.types import EXPERT, WRONG_TURN, Episode, Observation, Stop, Taken, Task, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at a task: `copy` numbers it within its group, `attempt` counts retries."""

    task: Task
    copy: int = 0
    attempt: int = 0

    @property
    def key(self) -> str:
        return f"{self.task.id}#{self.copy}.{self.attempt}"


@dataclass(slots=True)
class _Playing:
    """The state of an episode under way."""

    job: Job
    rng_name: str  # every random draw of the episode is seeded from it
    seen: list[Observation] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    actor: str = STUDENT  # who begins the turn under way
    new_ids: tuple[int, ...] = ()  # ids of its prompt that are not in the turns before
    fresh: bool = False  # whether these are its complete prompt
    length: int = 0  # ids of its prompt
    readers: dict[str, Reader] = field(default_factory=dict)  # by view
    begun: Completion | None = None  # the student's part of a turn that another view finishes
    opening: list[Completion] = field(default_factory=list)  # the expert's turns, known beforehand
    openers: list[str] = field(default_factory=list)  # the name each of them is recorded under

    @property
    def turn_name(self) -> Hashable:
        """What the random draws of the turn under way are seeded from: its number; for an agent,
        what it asks and how often it has asked that, since calls beside each other have no order."""
        if self.seen[-1].call is None:
            return len(self.turns)
        asked = self.seen[-1].state
        return asked, sum(turn.observation.state == asked for turn in self.turns)


def play(
    session: Session,
    tasks: Sequence[Task],
    algorithm: Algorithm,
    *,
    seed: int,
    step: int = 0,
    group_size: int = 1,
    recorded: Mapping[str, Sequence[Turn]] = MappingProxyType({}),
    before: int = 0,
) -> list[Episode]:
    """`group_size` episodes of every task, in the order of tasks and copies; broken attempts come
    after the episode that replaced them, or alone where retries ran out.

    recorded  task id -> turns to use instead of those of the environment's expert
    before    number of tasks that the step has played already, of which ranks had their shares

    Raises EnvError for two tasks of one id, and where the expert's turns do not end a task.
    """
    repeated = [name for name, count in Counter(task.id for task in tasks).items() if count > 1]
    if repeated:
        raise EnvError(
            f"two tasks have the id {repeated[0]!r:.80}, so their results would be mixed up; let "
            "the suite's `tasks` give every task an id of its own"
        )
    algorithm.check_views()
    session.ready(tasks, algorithm, step)
    rollout = _Rollout(session, algorithm, seed, step, recorded)
    ranks, place = session.ranks, {task.id: k for k, task in enumerate(tasks)}
    owners = ranks.owners(place, before)
    own_tasks = [task for task in tasks if owners[task.id] == ranks.rank]
    jobs = [Job(task=task, copy=copy) for task in own_tasks for copy in range(group_size)]
    episodes = [e for part in ranks.gather(rollout.run(jobs)) for e in part]
    return sorted(episodes, key=lambda e: place[e.task.id])


class _Rollout:
    """One call of `play`."""

    def __init__(
        self,
        session: Session,
        algorithm: Algorithm,
        seed: int,
        step: int,
        recorded: Mapping[str, Sequence[Turn]],
    ) -> None:
        self.session, self.algorithm, self.seed, self.step = session, algorithm, seed, step
        self.acting = algorithm.acting
        self.recorded = recorded
        self.views = algorithm.all_views()
        self.chances = {name: chance(step) for name, chance in algorithm.actors.items()}
        self.live: dict[str, _Playing] = {}
        self.finished: list[tuple[Job, Episode]] = []
        self.jobs: list[Job] = []

    def run(self, jobs: list[Job]) -> list[Episode]:
        order = {(job.task.id, job.copy): i for i, job in enumerate(jobs)}
        self.jobs = list(jobs)
        names = {view.policy for view in self.views.values()} & set(self.session.policies)
        policies = [self.session.policies[name] for name in sorted(names)]
        for policy in policies:
            policy.refresh()
        try:
            while self.jobs or self.live:
                self._admit()
                moved = self._environments(block=False)
                for policy in policies:
                    if not isinstance(policy, AnswersLate):
                        moved = self._generated(policy) or moved
                if moved or self._generating(late=False):
                    continue
                # Answers of servers are taken when nothing else can continue, and all of them
                # together: which turns a local policy computes beside each other, and so how their
                # numbers are rounded, must not depend on when a server answers.
                for policy in policies:
                    if isinstance(policy, AnswersLate):
                        moved = self._generated(policy) or moved
                if not moved and not self._generating():
                    self._environments(block=True)
        finally:
            for key in list(self.live):
                self.session.pool.close(key)
        self.finished.sort(key=lambda f: (order[f[0].task.id, f[0].copy], -f[0].attempt))
        return [episode for _, episode in self.finished]

    def _generated(self, policy: Policy) -> bool:
        """Take the turns that a policy has finished; whether there were any."""
        since = time.perf_counter()
        if isinstance(policy, AnswersLate):
            policy.wait()
        completions = policy.poll()
        self.session.clock.add("generate", since)
        for completion in self._taken_over(completions):
            self._acted(completion)
        return bool(completions)

    def _generating(self, *, late: bool = True) -> bool:
        """Whether a turn is under way; with `late` also one that is written elsewhere."""
        begun = [p for p in self.live.values() if p.seen and len(p.turns) < len(p.seen)]
        return any(late or not isinstance(self._writer(p), AnswersLate) for p in begun)

    def _writer(self, p: _Playing) -> Policy:
        """The policy that writes the turn under way."""
        takeover = self.acting.takeover
        return self._policy(takeover.view if p.begun is not None and takeover else p.actor)

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
            self.session.turned(p.turns[-1], observation)
        for turn, reward in observation.paid:
            p.turns[turn] = replace(p.turns[turn], reward=p.turns[turn].reward + reward)
        p.seen.append(observation)
        if observation.done:
            self._finish(key, Stop.DONE)
        elif len(p.turns) == self.session.limits.max_turns:
            self._finish(key, Stop.TURNS)
        else:
            self._begin_turn(key, p)

    def _rewarded(self, turn: Turn, after: Observation) -> Turn:
        penalties = self.session.limits.penalties
        kind = "format" if not turn.valid else "refused" if not after.valid else ""
        return replace(
            turn,
            reward=float(after.reward),
            valid=kind not in penalties,
            penalty=penalties.get(kind, 0.0),
        )

    # -- a turn begins

    def _choose(self, p: _Playing) -> str:
        """The view that begins this turn: the expert to the end of its opening, then each actor
        with its scheduled chance, else the student."""
        if self._is_expert_turn(p):
            return p.openers[len(p.turns)] if len(p.turns) < len(p.openers) else EXPERT
        draw = random.Random(seed_of("actor", p.rng_name, p.turn_name)).random()
        for name, chance in self.chances.items():
            draw -= chance
            if draw < 0:
                return name
        return STUDENT

    def _is_expert_turn(self, p: _Playing) -> bool:
        return self.acting.expert or len(p.turns) < len(p.opening)

    def _view(self, name: str) -> View:
        # expert turns are recorded as the student would see them, unless a view is their actor
        return View() if name in (EXPERT, WRONG_TURN) else self.views[name]

    def _read(self, p: _Playing, name: str) -> tuple[Ids, Ids]:
        """The prompt of a view now, and the part of it that is new since the last turn."""
        if name not in p.readers:
            prompter = self.session.prompter(self._view(name), p.job.task)
            p.readers[name] = Reader(prompter=prompter)
        return p.readers[name].prompt(p.turns, p.seen[-1])

    def _begin_turn(self, key: str, p: _Playing) -> None:
        if not p.turns:
            p.opening, p.openers = self._opening(p)
        p.actor, since = self._choose(p), time.perf_counter()
        prompt, p.new_ids = self._read(p, p.actor)
        self.session.clock.add("prompts", since)
        p.fresh, p.length = p.readers[p.actor].fresh, len(prompt)
        room = self._room(p.actor, prompt)
        takeover = self.acting.takeover
        if takeover is not None and p.actor == STUDENT:
            # a view that may finish the turn needs the same room in its own context
            room = min(room, self._room(takeover.view, self._read(p, takeover.view)[0]))
        if room < self.session.limits.max_new_tokens:
            self._finish(key, Stop.TOKENS)
        elif self._is_expert_turn(p):
            self._demonstrate(p)
        else:
            self._submit(p, p.actor, prompt, seed=seed_of("turn", p.rng_name, p.turn_name))

    def _policy(self, name: str) -> Policy:
        return self.session.policies[self._view(name).policy]

    def _room(self, name: str, prompt: Ids) -> int:
        """How many tokens a view may write after its prompt."""
        policy = self._policy(name)
        length = policy.prompt_length(prompt) if isinstance(policy, Aligns) else len(prompt)
        return min(self.session.limits.max_new_tokens, policy.context_length - length)

    def _submit(self, p: _Playing, name: str, prompt: Ids, *, seed: int, used: int = 0) -> None:
        limits = self.session.limits
        self._policy(name).submit(
            Request(
                key=p.job.key,
                prompt=prompt,
                seed=seed,
                max_new=limits.max_new_tokens - used,
                temperature=limits.temperature,
                family=p.job.task.family,
                top_logprobs=self._view(name).top_logprobs,
            )
        )

    # -- the expert's turns

    def _opener(self, p: _Playing) -> str:
        """The expert; or a view whose hint it follows, with that view's share of the episodes."""
        draw = random.Random(seed_of("planned", p.rng_name)).random()
        shares = self.acting.hinted_share
        if p.job.task.family in self.acting.hinted_only:
            draw *= sum(shares.values())  # always below the sum, so never the expert
        for name, share in shares.items():
            draw -= share
            if draw < 0:
                return name
        return EXPERT

    def _opening(self, p: _Playing) -> tuple[list[Completion], list[str]]:
        """The expert's turns: all of them, or those before the student takes over, and the name
        that each is recorded under."""
        acting, task, opener = self.acting, p.job.task, self._opener(p)
        if not acting.uses_expert:
            return [], []
        turns = [
            (opener, t.tokens, t.logps, t.top_logprobs) for t in self.recorded.get(task.id, ())
        ]
        if not turns:
            view = self.algorithm.views.get(opener)
            follows: ScriptKind = "plan" if view and "plan" in kinds_in(view.hint) else "trace"
            chat = self.session.policies["self"].chat
            since = time.perf_counter()
            texts = script(
                self.session.suite,
                task,
                with_thoughts=acting.with_thoughts,
                follows=follows,
                with_errors=acting.with_errors and view is not None,
                write=self.session.context.written,
            )
            self.session.clock.add("environment", since)
            since = time.perf_counter()
            tools = context_of(self.session.context, self.session.suite, task).tools
            for text, imitated in texts:
                ids = chat.reply_with(tools, text) if tools else chat.reply(text)
                turns.append((opener if imitated else WRONG_TURN, ids, (0.0,) * len(ids), ()))
            self.session.clock.add("prompts", since)
        left = 0 if acting.student_turns is None else int(acting.student_turns(self.step))
        before = turns[: max(0, len(turns) - left)]
        completions = [
            Completion(key=p.job.key, tokens=ids, logps=logps, ended=True, top_logprobs=top)
            for _, ids, logps, top in before
        ]
        return completions, [name for name, *_ in before]

    def _demonstrate(self, p: _Playing) -> None:
        if len(p.turns) >= len(p.opening):
            raise EnvError(
                f"the expert's {len(p.opening)} actions did not end task {p.job.task.id}; "
                "its `demonstrate` must solve the task"
            )
        self._acted(p.opening[len(p.turns)])

    # -- another view finishes a turn

    def _taken_over(self, completions: Sequence[Completion]) -> Sequence[Completion]:
        """The completions that are whole turns. A student's turn that diverges from the view that
        may take over is cut, and that view is asked to continue it."""
        takeover = self.acting.takeover
        written = [c for c in completions if self._by_student_alone(self.live[c.key])]
        if takeover is None or not written:
            return completions
        since = time.perf_counter()
        pairs = [(self._sample(c, STUDENT), self._sample(c, takeover.view)) for c in written]
        policies = self._policy(STUDENT), self._policy(takeover.view)
        keys = [c.key for c in written]
        per_turn = divergences(*policies, pairs, self.session.limits.temperature, keys)
        self.session.clock.add("teacher", since)
        cuts = {c.key: takeover.at(d) for c, d in zip(written, per_turn, strict=True)}
        for c in written:
            at = cuts[c.key]
            if at is not None:
                self._continue_turn(self.live[c.key], c, at, takeover.view)
        return [c for c in completions if cuts.get(c.key) is None]

    def _sample(self, completion: Completion, name: str) -> Sample:
        prompt, _ = self._read(self.live[completion.key], name)
        family = self.live[completion.key].job.task.family
        return Sample(prompt=prompt, tokens=completion.tokens, family=family)

    def _by_student_alone(self, p: _Playing) -> bool:
        """Whether only the student has written the turn under way."""
        return p.actor == STUDENT and p.begun is None

    def _continue_turn(self, p: _Playing, completion: Completion, at: int, name: str) -> None:
        """Let another view write the turn from its token `at` on."""
        p.begun = replace(
            completion, tokens=completion.tokens[:at], logps=completion.logps[:at], ended=False
        )
        prompt = (*self._read(p, name)[0], *p.begun.tokens)
        seed = seed_of("taken", p.rng_name, p.turn_name)
        self._submit(p, name, prompt, seed=seed, used=at)

    # -- a turn is complete

    def _acted(self, completion: Completion) -> None:
        p = self.live[completion.key]
        prompter, taken = p.readers[p.actor].prompter, None
        tokens, logps, top = completion.tokens, completion.logps, completion.top_logprobs
        if p.begun is not None and self.acting.takeover is not None:
            taken = Taken(at=len(p.begun.tokens), by=self.acting.takeover.view)
            tokens, logps = (*p.begun.tokens, *tokens), (*p.begun.logps, *logps)
            top = (*((),) * taken.at, *top) if top else ()
            p.begun = None
        own = not self._is_expert_turn(p) and self._view(p.actor).policy == "self"
        version = self.session.version if own else None
        since = time.perf_counter()
        text = prompter.chat.text(tokens)
        parsed = self.session.context.parse(text)
        self.session.clock.add("prompts", since)
        p.turns.append(
            Turn(
                observation=p.seen[-1],
                prompt=p.new_ids,
                text=text,
                tokens=tokens,
                logps=logps,
                action=parsed.action,
                actor=p.actor,
                taken=taken,
                valid=parsed.valid,
                fresh=p.fresh,
                version=version,
                top_logprobs=top,
            )
        )
        since = time.perf_counter()
        pool = self.session.pool
        if isinstance(pool, AnswersCalls):
            sizes = p.length, len(tokens)
            named = self.step if version is None else version
            reply = Reply(text=text, ended=completion.ended, tokens=sizes, version=named)
            pool.answer(completion.key, reply)
        else:
            pool.act(completion.key, parsed.action)
        self.session.clock.add("environment", since)

    def _finish(self, key: str, stop: Stop, error: str = "") -> Job:
        p = self.live.pop(key)
        self.session.pool.close(key)
        wrote = {t.actor for t in p.turns} | {t.taken.by for t in p.turns if t.taken}
        if self.acting.takeover is not None:
            # it scored every turn, whether or not it took one over
            wrote.add(self.acting.takeover.view)
        for policy in {self.views[name].policy for name in wrote if name in self.views}:
            self.session.policies[policy].release(key)
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
            counts=_counts(p),
        )
        self.finished.append((p.job, penalised(episode, self.algorithm.penalties)))
        self.session.ended(key, self.finished[-1][1])
        foresee(self.session, self.algorithm, episode)
        if not stop.broken:
            done = sum(not e.stop.broken for _, e in self.finished)
            self.session.tick(done, done + len(self.live) + len(self.jobs))
        return p.job


def _counts(p: _Playing) -> dict[str, int]:
    """What an agent of its own did: rows of its conversation, and what its endpoint counted."""
    rows = p.readers[p.actor].rows if p.actor in p.readers else None
    if rows is None:
        return {}
    found = {"rows": rows.started, "ambiguous": rows.ambiguous, **dict(p.seen[-1].counts)}
    return {name: count for name, count in found.items() if count}
