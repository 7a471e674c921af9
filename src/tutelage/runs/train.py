"""Train as a configuration says: play, update, evaluate, save, and resume.

One training step, from the command to the surrogate, is this walk of seven functions:

1. `cli.commands`         `train` reads the file and calls
2. `runs.train`           `train`, which assembles the parts; its last loop takes the steps
3. `runs.train`           `_Loop.step`: play, learn, log
4. `training.train_step`  `train_step`: episodes -> one update of the weights
5. `objective.bind`       `bind`: the algorithm's terms on this step's tokens
6. `objective.terms`      `Reinforce.bind`: one term, an advantage and a surrogate
7. `maths.surrogates`     `ppo_clip`: the clipped surrogate of each token

A run that was killed at any point and continued writes the same bytes as an uninterrupted one.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tutelage.config.schema import Config
from tutelage.errors import Diverged, RunError, lacks_memory
from tutelage.evaluation.evaluate import evaluate, named
from tutelage.policies.base import Divided, OpenedPolicy, Sharding, Shards, Trainable
from tutelage.policies.by_family import taught_lines
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.registry import open_policy
from tutelage.policies.server.vllm import new_sampler_notes
from tutelage.policies.translated import account_lines, new_notes
from tutelage.rollout import record
from tutelage.rollout.hint_preparation import Hinter
from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.rollout.record import episode_line
from tutelage.rollout.replay import Replay
from tutelage.rollout.session import Session, foresee
from tutelage.rollout.task_sampling import learnt
from tutelage.runs import checkpoint, diagnosis, learning, meta, models, task_contents, together
from tutelage.runs import folder as run_folder
from tutelage.runs.ahead import Ahead, Played, refuse_ranks
from tutelage.runs.assemble import Parts, assemble, deterministic, rehearsal_of, update_of
from tutelage.runs.checkpoint import State
from tutelage.runs.folder import RunFolder
from tutelage.runs.interrupt import Terminated, delayed, held
from tutelage.runs.metrics import column_lines, in_phase, metrics
from tutelage.runs.phases import Phase, plays_ahead, steps_matter
from tutelage.runs.playing import cut_so_far, episodes_of
from tutelage.runs.selftest import Wiring, run_all
from tutelage.runs.watch import Unwatched, Watch
from tutelage.training.optimizer import adamw, learning_rate
from tutelage.training.train_step import train_step
from tutelage.training.usable import usable_episodes
from tutelage.types import Episode


def train(
    config: Config,
    *,
    resume: bool = False,
    watch: Watch,
    ranks: Ranks = ALONE,
    sharded: Sharding = "no",
) -> Path:
    """Run a configuration to its end in its folder, which is returned. Raises ConfigError and
    PolicyError for a configuration that cannot be run, RunError for later failures. After a
    KeyboardInterrupt the last finished step is a checkpoint; where the weights are `sharded`, the step
    is finished first, since all ranks have parts of it.

    ranks    the processes that share the run; each calls this with the same configuration
    sharded  divide the student's layers over the ranks: "update" in updates alone, "always" so that
             no rank ever holds the whole weights on its device, while servers sample
    """
    refuse_reimport()
    watch = watch if ranks.rank == 0 else Unwatched()
    together.refuse_unlike_settings(ranks, config, resume=resume, sharded=sharded)
    parts = assemble(config, evaluates=bool(config.eval.every))
    config = parts.config
    together.refuse_idle_ranks(ranks, parts)
    refuse_ranks(config, ranks)
    always = sharded == "always"
    if always:
        together.refuse_always(parts)
    for notice in parts.notices:
        watch.warned(notice)
    replay = Replay(Path(config.rollout.replay)) if config.rollout.replay else None
    with contextlib.ExitStack() as closing:
        closing.enter_context(deterministic())
        find = partial(run_folder.find, config, steps_matter=steps_matter(config), resume=resume)
        first = find() if ranks.rank == 0 else None
        folder = run_folder.found(first, Path(config.run.folder), ranks)
        closing.callback(folder.close)
        listing = task_contents.listing_of(parts, replayed=replay is not None)
        panel = parts.panel.fingerprint if parts.panel else ""
        if folder.state is not None:
            listing.refuse_other(folder.path)
            for sentence in (meta.moved(folder.path), meta.another_panel(folder.path, panel)):
                if sentence:
                    watch.warned(sentence)
        student = str(folder.newest or "")
        session, policies = closing.enter_context(
            parts.open(student=student, tick=watch.playing, ranks=ranks, divides=always)
        )
        player: Ahead | None = None
        if config.rollout.ahead:
            player = closing.enter_context(Ahead(config, student))
        closing.callback(watch.closed)
        facts = {name: policy.chat.fingerprint() for name, policy in policies.items()}
        together.refuse_unlike_models(ranks, facts, models.student_of(policies))
        if always:
            together.divide_all(policies, config)
        wiring = Wiring(
            phases=parts.phases,
            session=rehearsal_of(parts, session),
            policies=policies,
            task=parts.tasks[0],
            split=config.env.split,
            replayed=replay is not None,
            ranks=ranks if always else ALONE,
        )
        watch.tested(run_all(wiring))
        parts.rest()
        if replay is None and (sentence := listing.note_unsteady()):
            watch.warned(sentence)
        if player is not None:
            player.begun()
        for sentence in diagnosis.before(parts, session, policies):
            watch.warned(sentence)
        if folder.writes:
            pinned = {"tokenizers": facts, meta.PANEL: panel, **listing.facts}
            run_folder.claim(folder, config, pinned)
        if sharded == "update":
            together.divide(models.student_of(policies), offload=config.update.offload)
        session = replace(session, ranks=ranks)
        hinter = _hinter(config, folder, session)
        loop = _Loop(
            parts=parts,
            folder=folder,
            session=replace(session, ready=hinter),
            policies=policies,
            student=models.student_of(policies),
            replay=replay,
            watch=watch,
            hinter=hinter,
            player=player,
        )
        with _enough_memory(), loop.saving_on_interrupt():
            try:
                for phase, step in loop.steps():
                    loop.stop_together()
                    loop.step(phase, step)
                    loop.stop_together()
            except Diverged:
                if folder.writes:
                    run_folder.note_divergence(folder)
                raise
    return Path(config.run.folder)


def refuse_reimport() -> None:
    """A worker process imports the script that started it. Raises SystemExit in such a worker,
    where that script starts a run outside of `if __name__ == "__main__":`."""
    import multiprocessing

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(
            "tutelage: a worker process imports this script, which would start its run once more; "
            'put the training code under `if __name__ == "__main__":`'
        )


def _hinter(config: Config, folder: RunFolder, session: Session) -> Hinter:
    """Makes the run's hints, and knows those that it made before it stopped."""
    if folder.state is not None:
        session.hints.bandit.restore(folder.state.skills)
        read = list(record.read(folder.path / run_folder.HINTS)) if folder.writes else []
        lines = session.ranks.first(read)
        session.hints.written = {str(line["task"]): str(line["text"]) for line in lines}
    return Hinter(session=session, seed=config.run.seed, note=folder.log(run_folder.HINTS).write)


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if lacks_memory(error):
            raise RunError(
                "there is not enough memory; continue with --resume and "
                "policy.gradient_checkpointing=true or on a larger machine, or lower "
                "update.max_tokens_per_pass or rollout.concurrency and start again (`tutelage train "
                "--dry-run` shows what is needed)"
            ) from error
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finished:
    """The last complete step: the content of its checkpoint besides weights."""

    state: State
    optimizer: torch.optim.Optimizer


@dataclass(kw_only=True)
class _Loop:
    parts: Parts
    folder: RunFolder
    session: Session
    policies: dict[str, OpenedPolicy]
    student: Trainable
    replay: Replay | None
    watch: Watch
    hinter: Hinter
    player: Ahead | None = None  # plays one step ahead
    optimizer: torch.optim.Optimizer = field(init=False)  # of the phase
    signs: diagnosis.Signs = field(init=False)  # that the phase cannot learn
    columns: Mapping[str, Tensor] = field(init=False)  # signals of the last step
    causes: diagnosis.Causes = field(default_factory=diagnosis.Causes)  # of broken episodes
    finished: _Finished | None = None  # None while weights change
    pressed: Callable[[], bool] = lambda: False  # whether Ctrl-C waits for the end of a step

    @property
    def config(self) -> Config:
        return self.parts.config

    @property
    def ranks(self) -> Ranks:
        return self.session.ranks

    @property
    def divided(self) -> Divided | None:
        """The student's weights where they are divided over ranks."""
        return self.student.sharded if isinstance(self.student, Shards) else None

    def steps(self) -> Iterator[tuple[Phase, int]]:
        """The remaining steps. A phase begins before its first step; evaluations and checkpoints
        that are due after a step are done before the next one."""
        state, phases = self.folder.state, self.parts.phases
        names = [phase.name for phase in phases]
        for phase in phases[names.index(state.phase) if state else 0 :]:
            first = self._begin(phase, state if state and state.phase == phase.name else None)
            for step in range(first, phase.steps):
                yield phase, step
                self._after(phase, step, first)
            if phase.steps > first + 1:
                self._warn(self.signs.sentences(after="last"))
        if not self.folder.writes:
            return
        # a run that was killed after its last checkpoint and before it dropped an old one
        last = checkpoint.latest(self.folder.path).name
        wanted = {last, checkpoint.START if self.parts.makes_reference else ""}
        checkpoint.drop_interrupted(self.folder.path)
        checkpoint.prune(self.folder.path, wanted)

    def _begin(self, phase: Phase, state: State | None) -> int:
        """Create or restore the state of a phase besides weights. Returns its first step."""
        update = self.config.update
        self.optimizer = adamw(
            self.student.parameters(),
            lr=0.0,  # set at every step
            betas=update.betas,
            weight_decay=update.weight_decay,
            # divided weights are in main memory themselves
            offload=update.offload and self.divided is None,
        )
        first = 0
        if state is not None:
            first = state.step
            assert self.folder.newest is not None
            moments = self.folder.newest / checkpoint.OPTIMIZER
            checkpoint.restore_optimizer(self.optimizer, moments, self.divided)
            if first and (player := self._player(phase)):
                acting = self.folder.newest / checkpoint.ACTING
                player.restore(acting, self.student, first - 1)
        self.watch.started(self.config, phase.name, first)
        if phase.name == "train":
            self._begin_training(phase, new=state is None)
        if state is not None:
            self._complete(phase, first)
        self.signs = diagnosis.Signs(self.config, phase, self.session.context)
        return first

    def _after(self, phase: Phase, step: int, first: int) -> None:
        """Evaluations and checkpoints that are due after a step."""
        if step == first:
            self._warn(self.signs.sentences(after="first", columns=self.columns))
        done = step + 1
        if self._evaluates(phase, done):
            self._evaluate(done)
        if self._saves(phase, done):
            self._save(phase, done)

    def _complete(self, phase: Phase, done: int) -> None:
        """What was due after the last step before Ctrl-C: evaluation, checkpoint."""
        writes, first = self.folder.writes, self.ranks.first  # rank 0 looks, for all of them
        if not first(writes and checkpoint.was_interrupted(self.folder.path)):
            return
        if self._evaluates(phase, done) and not first(writes and self._evaluated(done)):
            self._evaluate(done)
        if self._saves(phase, done) and writes:
            checkpoint.confirm(self.folder.path, self._state(phase, done, self.folder.lengths()))

    def _warn(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            self.watch.warned(sentence)

    def _begin_training(self, phase: Phase, *, new: bool) -> None:
        """Before the main algorithm's first step: evaluation, checkpoint, and its reference."""
        if new:
            if self.config.eval.every:
                self._evaluate(0)
            self._save(phase, 0)
        if self.parts.makes_reference:
            self.policies["reference"] = self._reference(new)
            self.session = replace(self.session, policies=dict(self.policies))
            self.hinter.session = self.session

    def _reference(self, new: bool) -> OpenedPolicy:
        """The student as it was before the main algorithm's first step, frozen."""
        always = self.divided is not None and self.divided.always
        if new and not always:
            return self.student.copied()
        start = self.folder.path / checkpoint.FOLDER / checkpoint.START
        if always:
            self.ranks.gather(None)  # until rank 0 has written it
            return together.divided_reference(self.parts, start)
        if isinstance(self.student, HFPolicy) and self.student.adapters is not None:
            copied = self.student.copied()
            assert copied.adapters is not None
            copied.adapters.restore(start)
            return copied
        parts = self.parts
        reference = open_policy(
            models.opening_of(self.config, "self", parts.suite, parts.context, folder=str(start))
        )
        if isinstance(reference, Trainable):
            reference.freeze()
        return reference

    # -- one step

    def step(self, phase: Phase, step: int) -> None:
        """Play episodes, learn from them, and log both."""
        since = time.perf_counter()
        clock, algorithm = self.session.clock, phase.algorithm
        clock.restart()
        rate = learning_rate(phase.lr, self.config.update.warmup, step, phase.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        player = self._player(phase)
        played = self._played(phase, step) if player is None else self._taken(player, phase, step)
        episodes, cut = played.episodes, played.cut
        with delayed(self._stopping):
            self.finished = None
            if player is not None:
                player.hand_over(self.student, step)
                if step + 1 < phase.steps:
                    player.begin(phase.name, step + 1)
            for episode in episodes:
                self.folder.log("episodes.jsonl").write(
                    in_phase(phase, episode_line(episode, step))
                )
            laid_out = time.perf_counter()
            usable = usable_episodes(
                algorithm, episodes, self.session.policies, self.session.prompter, step=step
            )
            clock.add("prompts", laid_out)
            used = learnt(algorithm, usable, self.config.rollout.tasks_per_step)
            report = train_step(
                algorithm,
                used,
                self.policies,
                self.optimizer,
                self.session.prompter,
                update_of(self.config, self.student.device),
                step=step,
                seed=phase.seed,
                clock=clock,
                ranks=self.ranks,
                owners=self.ranks.owners(e.group for e in episodes),
            )
            hints = self.hinter.report(algorithm, [e.task for e in usable])
            self.hinter.settle(episodes)
            numbers = metrics(phase, step, episodes, usable, report, rate, cut)
            costs = {**account_lines(self.policies), **played.costs}
            taught = taught_lines(self.policies, episodes)
            more = {**({"costs": costs} if costs else {}), **({"taught": taught} if taught else {})}
            line = in_phase(phase, {**numbers, **hints, **more})
            self.folder.log("metrics.jsonl").write(line)
            if self.config.run.columns:
                for columns in column_lines(phase, step, used, report):
                    self.folder.log("columns.jsonl").write(columns)
            seconds = {**clock.seconds, "all": time.perf_counter() - since}
            beside = {"ahead": played.seconds} if player is not None else {}
            timing = in_phase(phase, {"step": step, "seconds": seconds, **beside})
            self.folder.log("timings.jsonl").write(timing)
            state = self._state(phase, step + 1, self.folder.flush())
            self.finished = _Finished(state=state, optimizer=self.optimizer)
        self.signs.add(line, episodes)
        self.columns = report.columns
        self.watch.stepped(line, seconds)
        self._warn([*self.causes.new(episodes), *new_notes(self.policies)])
        self._warn(new_sampler_notes(self.policies["self"]))

    def _stopping(self) -> None:
        self.watch.warned("stopping after this step; Ctrl-C once more stops now and loses it")

    def _played(self, phase: Phase, step: int) -> Played:
        session, cut = self.session, cut_so_far(self.session.pool)
        tasks, replay = self.parts.tasks, self.replay
        episodes = episodes_of(session, self.config.rollout, tasks, phase, step, replay)
        return Played(episodes=episodes, cut=cut_so_far(session.pool) - cut)

    def _player(self, phase: Phase) -> Ahead | None:
        """The process that plays a phase's episodes one step ahead, if they are played so."""
        return self.player if plays_ahead(self.config, phase) else None

    def _taken(self, player: Ahead, phase: Phase, step: int) -> Played:
        """A step that was played ahead; one that nothing was learnt beside is begun here: the first
        of the phase, or of a run that is continued."""
        since = time.perf_counter()
        if not player.busy:
            if step == 0:
                player.hand_over(self.student, 0)
            player.begin(phase.name, step)
        played = player.take(self.watch.playing)
        self.session.clock.add("wait", since)
        for episode in played.episodes:
            foresee(self.session, phase.algorithm, episode)
        return played

    # -- evaluations and checkpoints

    def _evaluates(self, phase: Phase, done: int) -> bool:
        """Whether an evaluation is due after so many steps of a phase."""
        every = self.config.eval.every
        return phase.name == "train" and every > 0 and (done == phase.steps or done % every == 0)

    def _saves(self, phase: Phase, done: int) -> bool:
        """Whether a checkpoint is due. A finished warm start is saved as step 0 of what follows."""
        last = done == phase.steps and phase.name == "train"
        return last or done % self.config.run.checkpoint_every == 0

    def _evaluated(self, step: int) -> bool:
        """Whether the results after a step are all in the log."""
        lines = list(record.read(self.folder.path / "evals.jsonl"))
        wanted = len({"", self.config.eval.hint})
        return sum(line["step"] == step for line in lines) >= wanted

    def _evaluate(self, step: int) -> None:
        if self.parts.panel is None:
            return
        if self.player is not None and self.config.policy.sampler is not None:
            self.player.wait()  # the servers can hold one set of weights
        section = self.config.eval
        results, broken = [], list[Episode]()
        for hint in dict.fromkeys(("", section.hint)):
            result = evaluate(
                self.session,
                self.parts.panel,
                hint=hint,
                seed=self.config.run.seed,
                temperature=section.temperature,
            )
            results.append(result.line(step, named("student", hint)))
            broken += [episode for episode in result.episodes if episode.stop.broken]
        with delayed():
            for line in results:
                self.folder.log("evals.jsonl").write(line)
            lengths = self.folder.flush()
            # the evaluation before step 0 is no part of the warm start: it is made again
            if self.finished is not None and self.finished.state.phase == "train":
                state = replace(self.finished.state, logs=lengths)
                self.finished = replace(self.finished, state=state)
        for line in results:
            self.watch.evaluated(line)
        self._warn(self.causes.new(broken))
        if step == 0:  # before any distillation from a teacher with the hint
            self._warn(learning.hint_gaps(results, step=0))

    def _state(self, phase: Phase, done: int, logs: Mapping[str, int]) -> State:
        skills = self.session.hints.bandit.state()
        return State(phase=phase.name, step=done, logs=logs, skills=skills)

    def _save(self, phase: Phase, done: int) -> None:
        if self.divided is None and not self.folder.writes:
            return
        state = self._state(phase, done, self.folder.lengths())
        checkpoint.save(
            self.folder.path,
            state,
            self.student,
            self.optimizer,
            ranks=self.ranks,
            pinned=checkpoint.START if self.parts.makes_reference else "",
            acting=self._acting(state),
        )

    def _acting(self, state: State) -> Sequence[Tensor]:
        """The weights that the next step is played with, where those are not the student's."""
        phase = next(phase for phase in self.parts.phases if phase.name == state.phase)
        player = self._player(phase)
        return player.weights if player is not None and state.step else ()

    @contextlib.contextmanager
    def saving_on_interrupt(self) -> Iterator[None]:
        with contextlib.ExitStack() as holding:
            if self.divided is not None:
                self.pressed = holding.enter_context(held(self._stopping_together))
            try:
                yield
            except KeyboardInterrupt as asked:
                if isinstance(asked, Terminated):  # torchrun may repeat it
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                # divided weights were saved by all ranks together, or Ctrl-C came twice
                if self.divided is None:
                    self._save_interrupted()
                raise
            except OSError:  # such as that of an output that nobody reads any more
                if self.divided is None:
                    with contextlib.suppress(OSError, RunError):
                        self._save_interrupted()
                raise

    def _stopping_together(self) -> None:
        self.watch.warned(
            "stopping after this step, with a checkpoint; if it is ended before, by Ctrl-C once more "
            f"or by torchrun, which waits 30 seconds, {run_folder.standing(self.folder.path)}"
        )

    def stop_together(self) -> None:
        """Where weights are divided over ranks and Ctrl-C was pressed, write a checkpoint, to which
        each sends its moments, and end. Raises KeyboardInterrupt on rank 0; the others end with it."""
        if self.divided is None or not self.ranks.first(self.pressed()):
            return
        self._save_interrupted()
        if self.ranks.rank == 0:
            raise KeyboardInterrupt
        self.ranks.gather(None)  # until rank 0 is gone

    def _save_interrupted(self) -> None:
        """A checkpoint of the last complete step, so that Ctrl-C loses none. The next one replaces
        it, so a continued run has the same checkpoints as an uninterrupted one. All ranks call it
        where weights are divided over them, else rank 0 alone."""
        writes = self.folder.writes
        if self.finished is None or (self.divided is None and not writes):
            return  # nothing is done, or a second Ctrl-C came while weights changed
        state = self.finished.state
        saved = writes and self._is_saved(state)
        if self.ranks.first(saved) if self.divided is not None else saved:
            return
        self.folder.lengths()
        checkpoint.save(
            self.folder.path,
            state,
            self.student,
            self.finished.optimizer,
            ranks=self.ranks,
            interrupted=True,
            acting=self._acting(state),
        )

    def _is_saved(self, state: State) -> bool:
        """Whether the newest checkpoint is of this state, or of a later phase's beginning."""
        if not (self.folder.path / checkpoint.LATEST).exists():
            return False
        newest = checkpoint.read_state(checkpoint.latest(self.folder.path))
        # a finished warm start is saved as step 0 of what follows
        later = newest.phase == "train" and state.phase == "warm_start"
        return later or (newest.phase, newest.step) == (state.phase, state.step)
