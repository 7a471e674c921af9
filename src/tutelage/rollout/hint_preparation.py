"""Hints while a run goes: skills are chosen, the student writes, and every view's text is measured.

Everything is decided before tasks are played and depends on the run's seed, the tasks, the weights
and what was earned before: a resumed run makes the same hints.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tutelage.envs import guard
from tutelage.envs.base import Describes, Plans
from tutelage.errors import ConfigError
from tutelage.hints import check, kinds_in, self_written
from tutelage.hints.bank import Skill
from tutelage.objective import Algorithm, View
from tutelage.policies.base import Completion, Request
from tutelage.rollout.record import Line
from tutelage.rollout.session import Session
from tutelage.seeding import seed_of
from tutelage.types import Episode, Observation, Task

SAMPLE = 64
"""Tasks whose hints are made before a run starts, to see that they fit."""


@dataclass(kw_only=True)
class Hinter:
    """What a session calls before it plays (`Session.ready`)."""

    session: Session
    seed: int
    note: Callable[[Line], None] = lambda line: None  # keeps what was written
    lines: list[Line] = field(default_factory=list)  # written in the step under way

    def __call__(self, tasks: Sequence[Task], algorithm: Algorithm, step: int) -> None:
        """Make ready for all views of an algorithm. Steps below 0 only look: nothing is learnt
        about skills from an evaluation."""
        hints = hinted(algorithm.all_views())
        stored = self.session.hints
        if step >= 0 and stored.bank and any(stored.uses_ucb(hint) for hint in hints.values()):
            stored.bandit.begin(tasks, [skill.name for skill in stored.bank.skills])
        if any("written" in kinds_in(hint) for hint in hints.values()):
            for line in write(self.session, tasks, seed=self.seed):
                self.note(line)
                if step >= 0:  # a count that went on past a checkpoint would be lost with a crash
                    self.lines.append(line)

    def report(self, algorithm: Algorithm, tasks: Iterable[Task]) -> Line:
        """Of a step, for the log: tokens that each hinted view carried, hints that were written,
        skills that were chosen."""
        lines, self.lines = self.lines, []
        chosen = list(self.session.hints.bandit.now.values())
        return {
            "hints": carried(self.session, algorithm.all_views(), list(tasks)),
            "written": {
                "hints": len(lines),
                "tokens": sum(int(str(line["tokens"])) for line in lines),
                "empty": sum(not line["text"] for line in lines),
            },
            "skills": {name: chosen.count(name) for name in sorted(set(chosen))},
        }

    def settle(self, episodes: Sequence[Episode]) -> None:
        """End a step: what the environment paid for a task's episodes is what its skill earned."""
        earned: dict[str, list[float]] = {}
        families = {e.task.id: e.task.family for e in episodes}
        for episode in episodes:
            if not episode.stop.broken:
                paid = sum(turn.reward for turn in episode.turns)
                earned.setdefault(episode.task.id, []).append(paid)
        self.session.hints.bandit.settle(
            {task: (families[task], sum(x) / len(x)) for task, x in earned.items()}
        )


def hinted(views: Mapping[str, View]) -> dict[str, str]:
    """The views that are shown a hint, and which."""
    return {name: view.hint for name, view in views.items() if view.hint}


def write(session: Session, tasks: Sequence[Task], *, seed: int) -> list[Line]:
    """Let the student write hints for the tasks that have none yet; a line for each.

    A task without a plan has an empty hint, and the student is not asked. Raises ConfigError where
    a request does not fit into its context.
    """
    hints, suite, student = session.hints, session.suite, session.policies["self"]
    check(suite, "written", hints)
    assert isinstance(suite, Plans)
    new = {task.id: task for task in tasks if task.id not in hints.written}
    since, pending = time.perf_counter(), 0
    student.refresh()
    completions: dict[str, Completion] = {}
    owners = session.ranks.owners(new)
    for task in new.values():
        if owners[task.id] != session.ranks.rank:
            continue
        plan = suite.plan(task)
        if not plan:
            continue
        words = self_written.request(
            plan, suite.describe(task) if isinstance(suite, Describes) else ""
        )
        prompt = student.chat.open(session.context.system(), words)
        if len(prompt) + hints.written_tokens > student.context_length:
            raise ConfigError(
                f"the student cannot write a hint for task {task.id}: the request has "
                f"{len(prompt)} tokens, which with {hints.written_tokens} tokens of the hint "
                f"exceeds its context of {student.context_length}; choose a longer context, or "
                "another hint"
            )
        draw = seed_of("written", seed, task.id)
        student.submit(
            Request(
                key=task.id,
                prompt=prompt,
                seed=draw,
                max_new=hints.written_tokens,
                temperature=hints.written_temperature,
            )
        )
        pending += 1
    while len(completions) < pending:
        for completion in student.poll():
            completions[completion.key] = completion
            student.release(completion.key)  # others wait for its row
    for part in session.ranks.gather(completions):
        completions.update(part)
    session.clock.add("generate", since)
    return [_remember(session, task, completions.get(key)) for key, task in new.items()]


def _remember(session: Session, task: Task, written: Completion | None) -> Line:
    """Keep the hint that was written for a task; empty where nothing was asked for."""
    chat, text = session.policies["self"].chat, ""
    if written is not None:
        text = self_written.advice(
            chat.text(written.tokens),
            ended=written.ended,
            most=session.hints.written_tokens,
            tokens=lambda words: len(chat.content(words)),
        )
    session.hints.written[task.id] = text
    return {"task": task.id, "text": text, "tokens": len(written.tokens) if written else 0}


def carried(
    session: Session, views: Mapping[str, View], tasks: Sequence[Task]
) -> dict[str, dict[str, float]]:
    """Tokens of each hinted view's hint over the tasks: their mean, the most, and how many tasks
    had none."""
    out = {}
    for name in hinted(views):
        counts = []
        for task in {task.id: task for task in tasks}.values():
            prompter = session.prompter(views[name], task)
            counts.append(len(prompter.chat.content(prompter.hint)))
        out[name] = {
            "mean": sum(counts) / max(1, len(counts)),
            "max": float(max(counts, default=0)),
            "empty": float(sum(n == 0 for n in counts)),
        }
    return out


# -- before a run starts


def sample(tasks: Sequence[Task]) -> list[Task]:
    """Some tasks of a split, always the same."""
    chosen = random.Random("sample").sample(range(len(tasks)), min(SAMPLE, len(tasks)))
    return [tasks[i] for i in sorted(chosen)]


def rehearsal(session: Session, task: Task, hints: Iterable[str], *, seed: int) -> Session:
    """The session with hints of its own, on which a run is tried out without leaving a trace."""
    own = replace(session.hints, written=dict(session.hints.written), cached={})
    trial = replace(session, hints=own, ready=lambda tasks, algorithm, step: None)
    if any("written" in kinds_in(hint) for hint in hints):
        write(trial, [task], seed=seed)
    return trial


def prove(session: Session, views: Mapping[str, View], tasks: Sequence[Task]) -> None:
    """See on tasks that every hinted view's first prompt and its answer fit into the context, and
    that a hint says something for at least one of them. Nothing is truncated to make it fit.

    Raises ConfigError.
    """
    seen: dict[str, Observation] = {}
    if hinted(views):
        with guard.open_env(session.suite) as env:
            for task in tasks:
                seen[task.id] = guard.attempt("reset", partial(env.reset, task))
    for name, hint in hinted(views).items():
        there = views[name].policy in session.policies
        view = replace(views[name], policy=views[name].policy if there else "self")
        room, need = session.policies[view.policy].context_length, session.limits.max_new_tokens
        # the student has not written yet: what it may write, beside a hint that only opens it
        unwritten = session.hints.written_tokens if "written" in kinds_in(hint) else 0
        empty = True
        for task in tasks:
            for trial in _cases(session, task, hint):
                prompter = trial.prompter(view, task)
                empty = empty and not prompter.hint
                first = prompter.piece([seen[task.id]], [], False)
                length = len(first) + unwritten
                if length + need > room:
                    raise ConfigError(
                        f"with its privileged text ({hint}), {name}'s first prompt of task "
                        f"{task.id} has {length} tokens, which with rollout.max_new_tokens = {need} "
                        f"exceeds the context of {room}; choose a longer context, shorter skills "
                        "or another hint"
                    )
        if empty:
            raise ConfigError(
                f"the hint {hint!r} of {name} is empty for all {len(tasks)} tasks that were tried, "
                f"so {name} would know no more than the student; fix what the environment tells, "
                "or leave the hint out"
            )


def _cases(session: Session, task: Task, hint: str) -> Iterable[Session]:
    """Every text that a task's hint may come to have, as far as it is known before the run."""
    known = isinstance(session.suite, Plans) and bool(session.suite.plan(task))
    hints = replace(session.hints, written={task.id: "-" if known else ""}, cached={})
    bank = hints.bank
    skills: Sequence[Skill] = bank.skills if bank and hints.uses_ucb(hint) else ()
    for skill in skills:
        bandit = replace(hints.bandit, now={task.id: skill.name})
        yield replace(session, hints=replace(hints, bandit=bandit))
    if not skills:
        yield replace(session, hints=hints)
