"""The loop: play, learn, evaluate, save; and the same again after a crash, byte for byte."""

import contextlib
import inspect
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from tutelage.runs import assemble
from tutelage.runs import checkpoint
from tutelage.runs import models
from tutelage import cpu
from tutelage.rollout import record
from tutelage.runs import folder as run_folder
from tutelage.runs.assemble import Phase
from tutelage.runs.checkpoint import State
from tutelage.config.schema import Config, LearningRate
from tutelage.errors import RunError
from tutelage.evaluation.evaluate import Panel, evaluate, named
from tutelage.rollout.hint_preparation import Hinter
from tutelage.runs.metrics import metrics
from tutelage.runs.models import Model
from tutelage.objective import View
from tutelage.training.optimizer import adamw
from tutelage.policies.hf.policy import HFPolicy
from tutelage.rollout.record import Line, episode_line
from tutelage.rollout.replay import Replay
from tutelage.rollout.session import Clock, Session
from tutelage.rollout.play import play
from tutelage.runs.folder import RunFolder
from tutelage.rollout.task_sampling import gather, learnt
from tutelage.runs.selftest import Wiring, run_all
from tutelage.training.train_step import Report, train_step
from tutelage.training.layout import read
from tutelage.types import Episode, Task


class Watch(Protocol):
    """Who is told how a run goes. Lines are what was logged, seconds are by phase of the step."""

    def started(self, config: Config, phase: str, step: int) -> None: ...
    def tested(self, names: Sequence[str]) -> None: ...
    def playing(self, done: int, total: int) -> None: ...
    def stepped(self, line: Line, seconds: Mapping[str, float]) -> None: ...
    def evaluated(self, line: Line) -> None: ...
    def closed(self) -> None: ...


def train(config: Config, *, resume: bool = False, watch: Watch) -> Path:
    """Run a configuration to its end in its folder, which is returned.

    Raises ConfigError and PolicyError for what cannot be run, RunError for what went wrong later.
    """
    suite = assemble.suite_of(config.env)
    config, notices = assemble.fitted(config, suite)
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)
    phases = assemble.phases_of(config)
    wanted = assemble.policies_wanted(phases, config.policies)
    context = assemble.context_of(config.context, suite)
    tasks = assemble.tasks_of(suite, config.env.split, config.rollout.tasks_per_step, where="env")
    tested = None
    if config.eval.every:
        tested = assemble.panel_of(config.eval, suite)
    replay = Replay(Path(config.rollout.replay)) if config.rollout.replay else None
    with contextlib.ExitStack() as closing:
        closing.enter_context(deterministic())
        folder = run_folder.claim(config, steps_matter=steps_matter(config), resume=resume)
        closing.callback(folder.close)
        student = str(checkpoint.latest(folder.path)) if folder.state else ""
        policies = models.policies_of(
            config, wanted, suite, context, student=student,
            engines=max(1, len(assemble.acting(config, phases))),
        )  # fmt: skip
        pool = assemble.pool_of(config.env, suite)
        closing.callback(pool.shutdown)
        closing.callback(watch.closed)
        facts = {name: policy.chat.fingerprint() for name, policy in policies.items()}
        pinned = {"tokenizers": facts, "panel": tested.fingerprint if tested else ""}
        session = Session(
            suite=suite, pool=pool, policies=dict(policies), context=context,
            limits=assemble.limits_of(config), tick=watch.playing,
            hints=assemble.hints_of(config, suite, phases),
        )  # fmt: skip
        trial = assemble.rehearsal_of(config, session, phases, tasks, tested)
        wiring = Wiring(
            phases=phases, session=trial, policies=policies, task=tasks[0], split=config.env.split,
            replayed=replay is not None,
        )  # fmt: skip
        watch.tested(run_all(wiring))
        run_folder.begin(folder, config, pinned)
        loop = _Loop(
            config=config, folder=folder, session=session, policies=policies,
            student=models.student_of(policies), tasks=tasks, tested=tested, replay=replay,
            watch=watch, hinter=_hinter(config, folder, session),
            makes_reference="reference" in wanted - set(config.policies),
        )  # fmt: skip
        with _enough_memory():
            loop.run(phases)
    return Path(config.run.folder)


def _hinter(config: Config, folder: RunFolder, session: Session) -> Hinter:
    """What makes the run's hints, with those that it made before it stopped."""
    if folder.state is not None:
        session.hints.bandit.restore(folder.state.skills)
        lines = record.read(folder.path / run_folder.HINTS)
        session.hints.written = {str(line["task"]): str(line["text"]) for line in lines}
    made = Hinter(session=session, seed=config.run.seed, note=folder.log(run_folder.HINTS).write)
    session.ready = made
    return made


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # torch's processor allocator has no exception of its own
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise RunError(
                "there is not enough memory; continue with --resume and "
                "policy.gradient_checkpointing=true or on a larger machine, or lower "
                "update.max_tokens_per_pass or rollout.concurrency and start anew (`tutelage train "
                "--dry-run` shows what is needed)"
            ) from error
        raise


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Equal runs give equal bytes on a processor; graphics cards make no such promise."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    threads = cpu.threads()
    if threads != before[0]:
        torch.set_num_threads(threads)
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        # filling fresh memory only helps to find bugs, and costs time
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with cpu.products(cpu.matmul()):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def steps_matter(config: Config) -> bool:
    """Whether what happens in a step depends on how many there will be."""
    function = assemble.algorithm_function(config.algorithm.name, where="algorithm")
    takes = inspect.signature(function).parameters
    falls = isinstance(config.update.lr, dict) and any(len(v) == 2 for v in config.update.lr.values())
    return "total_steps" in takes or falls


def learning_rate(lr: LearningRate, warmup: int, step: int, steps: int) -> float:
    """The rate of a step: up to the first value over `warmup` steps, then a constant or a schedule,
    which ends at `steps` unless it names its own number of steps."""
    (shape, values), *_ = lr.items() if isinstance(lr, dict) else [("constant", [lr, lr])]
    start, end = values[:2]
    if step < warmup:
        return start * (step + 1) / warmup
    over = values[2] if len(values) == 3 else max(1, steps - warmup)
    done = min(1.0, (step - warmup) / over)
    left = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": (1.0 + math.cos(math.pi * done)) / 2,
    }[shape]
    return end + (start - end) * left


@dataclass(kw_only=True)
class _Loop:
    config: Config
    folder: RunFolder
    session: Session
    policies: dict[str, Model]
    student: HFPolicy
    tasks: Sequence[Task]
    tested: Panel | None
    replay: Replay | None
    watch: Watch
    hinter: Hinter
    makes_reference: bool

    def run(self, phases: Sequence[Phase]) -> None:
        state = self.folder.state
        names = [phase.name for phase in phases]
        for phase in phases[names.index(state.phase) if state else 0 :]:
            self._phase(phase, state if state and state.phase == phase.name else None)
        # a run that was killed after its last checkpoint and before it dropped an old one
        last = checkpoint.latest(self.folder.path).name
        checkpoint.prune(self.folder.path, {last, checkpoint.START if self.makes_reference else ""})

    def _phase(self, phase: Phase, state: State | None) -> None:
        u = self.config.update
        optimizer = adamw(
            self.student.parameters(), lr=0.0, betas=u.betas, weight_decay=u.weight_decay,
            offload=u.offload,
        )  # fmt: skip
        first = 0
        if state is not None:
            first = state.step
            found = checkpoint.latest(self.folder.path)
            checkpoint.restore_optimizer(optimizer, found / "optimizer.safetensors")
        self.watch.started(self.config, phase.name, first)
        if phase.name == "train":
            self._begin(phase, optimizer, new=state is None)
        every = self.config.run
        for step in range(first, phase.steps):
            self._step(phase, step, optimizer)
            done = step + 1
            last = done == phase.steps
            if (
                phase.name == "train"
                and self.config.eval.every
                and (last or done % self.config.eval.every == 0)
            ):
                self._evaluate(done)
            # a finished warm start is saved as step 0 of what follows
            if done % every.checkpoint_every == 0 or (last and phase.name == "train"):
                self._save(phase, done, optimizer)

    def _begin(self, phase: Phase, optimizer: torch.optim.Optimizer, *, new: bool) -> None:
        """Before the main algorithm's first step: a result, a checkpoint, its reference."""
        if new:
            if self.config.eval.every:
                self._evaluate(0)
            self._save(phase, 0, optimizer)
        if self.makes_reference:
            self.policies["reference"] = self._reference(new)
            self.session.policies = dict(self.policies)

    def _reference(self, new: bool) -> HFPolicy:
        start = self.folder.path / checkpoint.FOLDER / checkpoint.START
        if new or self.student.adapters is not None:
            made = self.student.copied()
            if made.adapters is not None and not new:
                made.adapters.restore(start)
            return made
        section, tokens = self.config.policy, self.config.update.max_tokens_per_pass
        made = models.load_policy(
            section, where="policy", tokens=tokens, rows=self.config.rollout.concurrency,
            folder=str(start),
        )  # fmt: skip
        made.freeze()
        return made

    # -- one step

    def _step(self, phase: Phase, step: int, optimizer: torch.optim.Optimizer) -> None:
        since = time.perf_counter()
        clock = self.session.clock = Clock()
        rate = learning_rate(phase.lr, self.config.update.warmup, step, phase.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        episodes = self._episodes(phase, step)
        for episode in episodes:
            self.folder.log("episodes.jsonl").write(_named(phase, episode_line(episode, step)))
        usable = self._usable(phase, episodes, step)
        used = learnt(phase.algorithm, usable, self.config.rollout.tasks_per_step)
        report = train_step(
            phase.algorithm, used, self.policies, optimizer, self.session.prompter,
            assemble.update_of(self.config, self.student.device), step=step, seed=phase.seed,
            clock=clock,
        )  # fmt: skip
        told = self.hinter.report(phase.algorithm, [e.task for e in usable])
        self.hinter.settle(episodes)
        line = _named(phase, {**metrics(phase, step, episodes, usable, report, rate), **told})
        self.folder.log("metrics.jsonl").write(line)
        if self.config.run.columns:
            self._columns(phase, step, used, report)
        seconds = {**clock.seconds, "all": time.perf_counter() - since}
        self.folder.log("timings.jsonl").write(_named(phase, {"step": step, "seconds": seconds}))
        self.watch.stepped(line, seconds)

    def _episodes(self, phase: Phase, step: int) -> list[Episode]:
        r = self.config.rollout
        if self.replay is not None and phase.algorithm.acting.expert:
            made = self.replay.choose(
                r.tasks_per_step * r.group_size, lambda task: self.session.prompter(View(), task),
                self.session.suite, seed=phase.seed, step=step,
            )  # fmt: skip
            self.session.ready([e.task for e in made], phase.algorithm, step)
            return made
        if self.replay is not None and phase.algorithm.acting.student_turns is not None:
            begun = self.replay.choose(
                r.tasks_per_step, lambda task: self.session.prompter(View(), task), self.session.suite,
                seed=phase.seed, step=step, once=True,
            )  # fmt: skip
            return play(
                self.session, [e.task for e in begun], phase.algorithm, seed=phase.seed, step=step,
                group_size=r.group_size, recorded={e.task.id: e.turns for e in begun},
            )  # fmt: skip
        return gather(
            self.session, self.tasks, phase.algorithm, count=r.tasks_per_step, group_size=r.group_size,
            seed=phase.seed, step=step,
        )  # fmt: skip

    def _usable(self, phase: Phase, episodes: Sequence[Episode], step: int) -> list[Episode]:
        """What can be learnt from: what did not break, in which something was said, and which
        every view can read."""
        whole = [e for e in episodes if not e.stop.broken]
        if not whole:
            first = episodes[0]
            raise RunError(
                f"all {len(episodes)} episodes of step {step} broke; the first, of task "
                f"{first.task.id}, with: {first.error}; mend the environment (`tutelage "
                "check-env` helps), then continue with --resume"
            )
        usable, before = [e for e in whole if e.turns], len(whole) + 1
        while len(usable) < before:  # what is left out changes what others are told of it
            before = len(usable)
            usable = [e for e in usable if self._fits(phase, e, usable)]
        if not usable:
            raise RunError(
                f"no episode of step {step} fits the models' contexts; lower rollout.max_turns or "
                "rollout.max_new_tokens, or choose a shorter context.render"
            )
        return usable

    def _fits(self, phase: Phase, episode: Episode, usable: Sequence[Episode]) -> bool:
        """Whether the episode is within every view's context, its privileged text included."""
        lengths = [len(t.prompt) + len(t.tokens) for t in episode.turns]
        shown = max(lengths) if episode.turns[0].fresh else sum(lengths)
        group = [e for e in usable if e.group == episode.group]
        views = list(phase.algorithm.all_views().values())
        alike = not any(view.hint or view.hindsight for view in views)
        for view in views:
            if not alike:  # who acted was told other things than who reads
                prompter = self.session.prompter(view, episode.task)
                turns = read(view, prompter, episode, group)
                shown = max(len(turn.prompt) + len(turn.tokens) for turn in turns)
            if shown > self.policies[view.policy].context_length:
                return False
        return True

    def _columns(self, phase: Phase, step: int, used: Sequence[Episode], report: Report) -> None:
        """A line an episode: each signal's value at each of its tokens, in 6 digits."""
        start = 0
        for episode in used:
            end = start + sum(len(turn.tokens) for turn in episode.turns)
            line = {
                "step": step,
                "task": episode.task.id,
                "copy": episode.copy,
                "columns": {
                    name: [_short(x) for x in column[start:end].tolist()]
                    for name, column in report.columns.items()
                },
            }
            self.folder.log("columns.jsonl").write(_named(phase, line))
            start = end

    # -- results and checkpoints

    def _evaluate(self, step: int) -> None:
        if self.tested is None:
            return
        section = self.config.eval
        for hint in dict.fromkeys(("", section.hint)):
            made = evaluate(
                self.session, self.tested, hint=hint, seed=self.config.run.seed,
                temperature=section.temperature,
            )  # fmt: skip
            line = made.line(step, named("student", hint))
            self.folder.log("evals.jsonl").write(line)
            self.watch.evaluated(line)

    def _save(self, phase: Phase, done: int, optimizer: torch.optim.Optimizer) -> None:
        state = State(
            phase=phase.name, step=done, logs=self.folder.lengths(),
            skills=self.session.hints.bandit.state(),
        )  # fmt: skip
        checkpoint.save(
            self.folder.path, state, self.student, optimizer,
            pinned=checkpoint.START if self.makes_reference else "",
        )  # fmt: skip


def _named(phase: Phase, line: Line) -> Line:
    return {"phase": phase.name, **line}


def _short(x: float) -> float | None:
    return float(f"{x:.6g}") if math.isfinite(x) else None
