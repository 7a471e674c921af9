"""From a configuration to the parts of a run: the one place where they are put together.

`assemble` checks and makes everything that needs no weights; `Parts.open` then loads the policies
and starts the environments' workers. train, eval, collect, bench, demo and --dry-run begin here.
"""

import contextlib
import math
import pickle
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, cast

import torch

from tutelage import cpu
from tutelage.config.schema import Config, ContextSection, EnvSection, EvalSection, SamplerSection
from tutelage.envs.base import Converses, Suite
from tutelage.envs.guard import Broken, attempt
from tutelage.envs.pool import LocalPool, Pool, ProcessPool
from tutelage.envs.registry import PYTHON, SHIPPED, suite_of, workers_of
from tutelage.envs.spread import SpreadPool, placed
from tutelage.envs.supervised import SupervisedSuite, Supervisor
from tutelage.errors import ConfigError, PolicyError, lacks_memory
from tutelage.evaluation.evaluate import Panel, panel
from tutelage.hints import Hints, check, kinds_in
from tutelage.hints.bank import built_in as bank_names
from tutelage.hints.bank import load as load_bank
from tutelage.objective import View
from tutelage.policies.base import OpenedPolicy
from tutelage.policies.by_family import by_family, parted, refuse_missing
from tutelage.prompts.context import Context
from tutelage.rollout import hint_preparation
from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.rollout.session import Limits, Session, context_for
from tutelage.runs import models
from tutelage.runs.phases import (
    Phase,
    compares_groups,
    engines_of,
    hints_wanted,
    phases_of,
    policies_wanted,
    refuse_ahead,
)
from tutelage.training.alternatives import ALTERNATIVES
from tutelage.training.train_step import Update
from tutelage.types import Task

Tick = Callable[[int, int], None]
"""Called with the episodes that are done, and all that are played now."""


class Opened(NamedTuple):
    """Parts at work: a session, and its policies with all that an engine of this project has."""

    session: Session
    policies: dict[str, OpenedPolicy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a configuration describes, before any weights are loaded."""

    config: Config
    suite: Suite
    context: Context
    hints: Hints
    phases: Sequence[Phase] = ()  # none where nothing is trained
    policies: frozenset[str] = frozenset()  # that the phases' views name, besides the student
    tasks: Sequence[Task] = ()  # of the training split
    panel: Panel | None = None  # the tasks of every evaluation
    notices: tuple[str, ...] = ()  # what was fitted to the algorithm and the suite

    @property
    def makes_reference(self) -> bool:
        """Whether a copy of the student before the main algorithm is a policy of its own."""
        return "reference" in self.policies - set(self.config.policies)

    @contextlib.contextmanager
    def open(
        self,
        *,
        student: str = "",
        others: Collection[str] | None = None,
        own_tokens: bool = False,
        tick: Tick,
        ranks: Ranks = ALONE,
        divides: bool = False,
    ) -> Iterator[Opened]:
        """Load the policies and start the workers, which end with the context.

        student  a checkpoint's folder to load the student from, instead of [policy]
        others   policies besides the student; those of the phases if left out
        ranks    the processes of the run, which share its samplers
        own_tokens  the turns of others are in their own tokens, not in the student's
        divides  load models into main memory: they will be divided over the ranks' devices
        """
        names = self.policies if others is None else others
        with _in_memory():
            policies = models.policies_of(
                self.config,
                names,
                self.suite,
                self.context,
                student=student,
                engines=engines_of(self.config, self.phases) if self.phases else 1,
                ranks=ranks,
                own_tokens=own_tokens,
                divides=divides,
            )
            if others is None:
                policies = by_family(policies)
        pool = pool_of(self.config.env, self.suite)
        try:
            session = Session(
                self.suite,
                dict(policies),
                pool=pool,
                context=self.context,
                limits=limits_of(self.config),
                tick=tick,
                hints=self.hints,
            )
            yield Opened(session, policies)
        finally:
            pool.shutdown()
            self.rest()

    def rest(self) -> None:
        """End the process in which a user's environment was tried out."""
        if isinstance(self.suite, SupervisedSuite):
            self.suite.supervisor.rest()


@contextlib.contextmanager
def _in_memory() -> Iterator[None]:
    """Raises PolicyError where a model is larger than what can be allocated."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        raise PolicyError(
            "the models do not fit into this machine's memory; choose smaller ones (policy.model, "
            "policy.layers, policy.build.hidden), or `tutelage train --dry-run` to see what they "
            "need"
        ) from error


def assemble(config: Config, *, learns: bool = True, evaluates: bool = True) -> Parts:
    """Check a configuration and make what needs no weights.

    learns     with the algorithm's phases, and the tasks that it trains on
    evaluates  with the panel of evaluations, whose tasks are reset once to pin what they show

    Raises ConfigError for what cannot be run.
    """
    supervisor = supervisor_of(config, learns=learns, evaluates=evaluates)
    if supervisor is None:
        return _parts(config, suite_in(config), learns=learns, evaluates=evaluates)
    try:
        suite = SupervisedSuite(suite_in(config), supervisor)
        return _parts(config, suite, learns=learns, evaluates=evaluates)
    except BaseException:
        supervisor.rest()
        raise


def _parts(config: Config, suite: Suite, *, learns: bool, evaluates: bool) -> Parts:
    config, notices = fitted(config, suite)
    phases = phases_of(config) if learns else []
    policies = policies_wanted(phases, config.policies) if learns else set()
    context = context_of(config.context, suite)
    tasks: Sequence[Task] = ()
    if learns:
        tasks = tasks_of(suite, config.env.split, config.rollout.tasks_per_step, where="env")
        for name, table in parted(policies).items():
            refuse_missing(name, table, {task.family for task in islice(tasks, SEEN_FAMILIES)})
    panel = panel_of(config.eval, suite) if evaluates else None
    hints = hints_of(config, suite, phases)
    if learns and config.rollout.ahead:
        refuse_ahead(config, phases, hints)
    return Parts(
        config=config,
        suite=suite,
        context=context,
        hints=hints,
        phases=phases,
        policies=frozenset(policies),
        tasks=tasks,
        panel=panel,
        notices=tuple(notices),
    )


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Equal runs give equal bytes on a CPU; GPUs make no such promise."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
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
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]


# -- one part each


SPLITS_SENTENCE = re.compile(
    r"tasks\(.*?\) raised ValueError: (.*\bsplits?\b.*?)\.?(?: \(\S+:\d+\))?"
)


def tasks_of(suite: Suite, split: str, need: int, *, where: str) -> Sequence[Task]:
    """The tasks of a split, at least `need` of them."""
    try:
        tasks = attempt(f"tasks({split!r})", partial(suite.tasks, split))
    except Broken as error:
        # a suite that speaks of its splits says all; of another failure its kind and place matter
        match = SPLITS_SENTENCE.fullmatch(str(error))
        why = match[1] if match else error
        raise ConfigError(f"{where}.split = {split!r} cannot be used: {why}") from error
    if len(tasks) < need:
        asked = "rollout.tasks_per_step" if where == "env" else f"{where}.tasks"
        raise ConfigError(
            f"{asked} = {need}, but the {split} split has {len(tasks)} tasks; ask for fewer"
        )
    return tasks


SEEN_FAMILIES = 2000
"""Tasks whose families are looked at before a run; a later one without a policy ends it."""
GROUP = 8
"""Episodes of a task where a group-relative algorithm needs several and no number is set."""


def fitted(config: Config, suite: Suite) -> tuple[Config, list[str]]:
    """The configuration with numbers that were not set fitted to the algorithm and the suite, and
    a sentence for each that is not the schema's default.

    A number that was set is never changed: where it does not fit, the run is refused.
    """
    notices: list[str] = []
    rollout, evaluation = config.rollout, config.eval
    if "group_size" not in rollout.model_fields_set and compares_groups(config):
        rollout = rollout.model_copy(update={"group_size": GROUP})
        notices.append(
            f"rollout.group_size = {GROUP}, since {config.algorithm.name} compares the episodes of "
            "a task with each other"
        )
    if "tasks_per_step" not in rollout.model_fields_set:
        count = len(tasks_of(suite, config.env.split, 1, where="env"))
        if count < rollout.tasks_per_step:
            rollout = rollout.model_copy(update={"tasks_per_step": count})
            notices.append(
                f"rollout.tasks_per_step = {count}: all tasks of the split {config.env.split!r}"
            )
    if config.eval.every and "tasks" not in evaluation.model_fields_set:
        count = len(tasks_of(suite, evaluation.split, 1, where="eval"))
        if count < evaluation.tasks:
            evaluation = evaluation.model_copy(update={"tasks": count})
            notices.append(f"eval.tasks = {count}: all tasks of the split {evaluation.split!r}")
    config = config.model_copy(update={"rollout": rollout, "eval": evaluation})
    return config, [*notices, *_large(config, workers_of(config.env, suite))]


WORKER: Final = 11_000_000
"""Bytes of its own that a worker process takes at least, before it makes an environment."""
MANY_TURNS: Final = 1_000_000
"""Turns of one step from which on it is told how large that is."""


def _large(config: Config, workers: int) -> Iterator[str]:
    """A sentence for each number that is larger than anybody means.

    Raises ConfigError where the worker processes alone do not fit into memory.
    """
    rollout, room = config.rollout, cpu.memory()
    if room and workers * WORKER > room:
        raise ConfigError(
            f"env.workers = {workers} worker processes take {workers * WORKER / 1e9:,.1f} GB of "
            f"memory or more, and this machine has {room / 1e9:,.1f} GB; lower env.workers"
        )
    if workers > rollout.slots and isinstance(config.env.workers, int):
        yield (
            f"{workers - rollout.slots} of the env.workers = {workers} stay idle, since "
            f"rollout.concurrency = {rollout.slots} episodes are played at a time"
        )
    turns = rollout.tasks_per_step * rollout.group_size * rollout.max_turns
    if turns > MANY_TURNS:
        yield (
            f"a step plays up to {turns:,} turns (rollout.tasks_per_step * rollout.group_size * "
            "rollout.max_turns), and nothing is learned or written before it ends"
        )


def suite_in(config: Config) -> Suite:
    """The suite of a configuration; its answers are calls of functions if that is set."""
    return suite_of(config.env, calls=config.context.calls)


def panel_of(section: EvalSection, suite: Suite) -> Panel:
    """The tasks of every evaluation, pinned by what they show."""
    tasks_of(suite, section.split, section.tasks, where="eval")
    return attempt(
        "the reset of an evaluation task", partial(panel, suite, section.split, section.tasks)
    )


def supervisor_of(config: Config, *, learns: bool, evaluates: bool) -> Supervisor | None:
    """The process in which a user's environment is tried out before a run, proven to come back from
    importing the suite and listing its tasks; None where the trainer plays it itself."""
    env = config.env
    if env.workers == 0 or env.suite in SHIPPED or env.suite.startswith(PYTHON):
        return None
    splits = dict.fromkeys([env.split] * learns + [config.eval.split] * evaluates)
    supervisor = Supervisor(env, *splits, calls=config.context.calls)
    supervisor.prove()
    return supervisor


def pool_of(env: EnvSection, suite: Suite) -> Pool:
    workers = workers_of(env, suite)
    if isinstance(suite, Converses):
        return cast(Pool, suite.agents(workers=workers, seconds=env.deadline))
    if workers == 0:
        return LocalPool(suite)
    try:
        pickle.dumps(suite)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"env.suite: {env.suite} cannot be sent to a worker process ({error}); make its "
            "attributes plain data, or set env.workers = 0"
        ) from error
    place = placed()
    if place is not None:
        return SpreadPool(suite, place, seconds=env.deadline)
    return ProcessPool(
        suite, workers=workers, reset_seconds=env.deadline, step_seconds=env.deadline
    )


def context_of(section: ContextSection, suite: Suite) -> Context:
    return context_for(
        suite,
        kind="transcript" if section.history == "all" else "window",
        window=0 if section.history == "all" else section.history,
        render=section.render,
        instructions=bool(section.instructions),
    )


def limits_of(config: Config) -> Limits:
    r = config.rollout
    return Limits(
        max_turns=r.max_turns,
        max_new_tokens=r.max_new_tokens,
        concurrency=r.slots,
        temperature=r.temperature,
        invalid_penalty=r.invalid_penalty,
    )


def update_of(config: Config, device: str) -> Update:
    """How a student on a device learns."""
    u, sampler = config.update, config.policy.sampler
    # with episodes that are played ahead, the weights that sampled are others than those that learn
    # even where no other engine samples
    corrected = sampler is not None or config.rollout.ahead > 0
    section = sampler or SamplerSection()
    return Update(
        device=device,
        max_tokens_per_pass=u.max_tokens_per_pass,
        minibatches=u.minibatches,
        epochs=u.epochs,
        grad_clip=u.grad_clip,
        temperature=config.rollout.temperature,
        mismatch=math.inf if config.rollout.ahead else section.max_mismatch,
        truncate=section.truncate if corrected else None,
        alternatives=ALTERNATIVES if config.run.columns == "alternatives" else 0,
    )


def hints_of(config: Config, suite: Suite, phases: Sequence[Phase]) -> Hints:
    """The sources of a run's hints. Refuses those that the suite can never give."""
    section, wanted = config.hints, hints_wanted(config, phases)
    skills = any("skills" in kinds_in(hint) for hint in wanted)
    bank = None
    if skills and (section.bank or config.env.suite in bank_names()):
        bank = load_bank(section.bank or config.env.suite)
    hints = Hints(bank=bank)
    for hint in wanted:
        check(suite, hint, hints)
    return hints


def rehearsal_of(parts: Parts, session: Session) -> Session:
    """A session to try a run out on. Refuses hints that do not fit, before anything is trained."""
    config, tasks = parts.config, hint_preparation.sample(parts.tasks)
    hints = hints_wanted(config, parts.phases)
    trial = hint_preparation.rehearsal(session, parts.tasks[0], hints, seed=config.run.seed)
    for phase in parts.phases:
        hint_preparation.prove(session, phase.algorithm.all_views(), tasks)
    if config.eval.hint and parts.panel is not None:
        hinted = {"the evaluation": View(hint=config.eval.hint)}
        hint_preparation.prove(session, hinted, hint_preparation.sample(parts.panel.tasks))
    return trial
