"""From a configuration to what it describes: the environment's side and the algorithms.

Nothing here loads weights; `models` does.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from tutelage.rollout import hint_preparation
from tutelage.prompts import answer_format
from tutelage.algorithms import ALGORITHMS
from tutelage.config.signature import call
from tutelage.config.schema import (
    AlgorithmSection,
    Config,
    ContextSection,
    EnvSection,
    EvalSection,
    LearningRate,
    SamplerSection,
)
from tutelage.prompts.context import GENERIC, Context
from tutelage.envs.base import Instructs, Renders, Suite, Tagged
from tutelage.envs.guard import Broken, attempt
from tutelage.envs.pool import LocalPool, Pool, ProcessPool
from tutelage.envs.registry import SHIPPED
from tutelage.errors import ConfigError, did_you_mean
from tutelage.evaluation.evaluate import Panel, panel
from tutelage.hints import Hints, check, kinds_in
from tutelage.hints.bank import built_in as bank_names
from tutelage.hints.bank import load as load_bank
from tutelage.objective import ONE
from tutelage.objective import Algorithm
from tutelage.objective import Reinforce
from tutelage.objective import View
from tutelage.rollout.session import Limits, Session
from tutelage.seeding import seed_of
from tutelage.envs.registry import imported
from tutelage.envs.registry import suite_class as suite_class
from tutelage.envs.registry import suite_of as suite_of
from tutelage.training.train_step import Update
from tutelage.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a run: the warm start, or the main algorithm."""

    name: str  # "warm_start" or "train"
    algorithm: Algorithm
    steps: int
    lr: LearningRate
    seed: int  # of everything random in it


def tasks_of(suite: Suite, split: str, need: int, *, where: str) -> Sequence[Task]:
    """The tasks of a split, at least `need` of them."""
    try:
        tasks = attempt(f"tasks({split!r})", partial(suite.tasks, split))
    except Broken as error:
        raise ConfigError(f"{where}.split = {split!r} cannot be used: {error}") from error
    if len(tasks) < need:
        asked = "rollout.tasks_per_step" if where == "env" else f"{where}.tasks"
        raise ConfigError(
            f"{asked} = {need}, but the {split} split has {len(tasks)} tasks; ask for fewer"
        )
    return tasks


GROUP = 8
"""Episodes of a task where a group-relative algorithm needs several and no number is set."""


def fitted(config: Config, suite: Suite) -> tuple[Config, list[str]]:
    """The configuration with numbers that were not set fitted to the algorithm and the suite, and
    a sentence for each that is not the schema's default.

    A number that was set is never changed: where it does not fit, the run is refused.
    """
    notices: list[str] = []
    rollout, evaluation = config.rollout, config.eval
    if "group_size" not in rollout.model_fields_set and _compares(_phases(config)):
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
    return config.model_copy(update={"rollout": rollout, "eval": evaluation}), notices


def panel_of(section: EvalSection, suite: Suite) -> Panel:
    """The tasks of every evaluation, pinned by what they show."""
    tasks_of(suite, section.split, section.tasks, where="eval")
    return attempt(
        "the reset of an evaluation task", partial(panel, suite, section.split, section.tasks)
    )


SERVER_WORKERS = 8
"""Workers of a suite that asks a server: episodes wait for its answers beside each other."""


def workers_of(env: EnvSection, suite: Suite) -> int:
    """Worker processes of a suite where the configuration leaves it open."""
    if isinstance(env.workers, int):
        return env.workers
    tables = [env.options, *(v for v in env.options.values() if isinstance(v, dict))]
    if env.suite not in SHIPPED:
        return 1
    if any(table.get("url") for table in tables):
        return SERVER_WORKERS
    return int(getattr(suite, "needs_worker", False))


def pool_of(env: EnvSection, suite: Suite) -> Pool:
    workers = workers_of(env, suite)
    if workers == 0:
        return LocalPool(suite)
    try:
        pickle.dumps(suite)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"env.suite: {env.suite} cannot be sent to a worker process ({error}); make its "
            "attributes plain data, or set env.workers = 0"
        ) from error
    return ProcessPool(
        suite, workers=workers, reset_seconds=env.deadline, step_seconds=env.deadline
    )


def context_of(section: ContextSection, suite: Suite) -> Context:
    own = suite.renders() if isinstance(suite, Renders) else {}
    renders = {**GENERIC, **own}
    if section.render not in renders:
        raise ConfigError(
            f"context.render = {section.render!r} does not exist"
            f"{did_you_mean(section.render, renders)}; there are {', '.join(renders)}"
        )
    tags = tuple(suite.action_tags()) if isinstance(suite, Tagged) else ()
    told: list[str] = []
    if section.instructions:
        rules = [suite.instructions().strip()] if isinstance(suite, Instructs) else []
        told = [*rules, answer_format.instruction(tags)]
    return Context(
        kind="transcript" if section.history == "all" else "window",
        window=0 if section.history == "all" else section.history,
        render=renders[section.render],
        instructions="\n\n".join(told),
        tags=tags,
    )


def limits_of(config: Config) -> Limits:
    r = config.rollout
    return Limits(
        max_turns=r.max_turns,
        max_new_tokens=r.max_new_tokens,
        concurrency=r.concurrency,
        temperature=r.temperature,
        invalid_penalty=r.invalid_penalty,
    )


def update_of(config: Config, device: str) -> Update:
    """How a student on a device learns."""
    u, sampler = config.update, config.policy.sampler
    return Update(
        device=device,
        max_tokens_per_pass=u.max_tokens_per_pass,
        minibatches=u.minibatches,
        epochs=u.epochs,
        grad_clip=u.grad_clip,
        temperature=config.rollout.temperature,
        mismatch=(sampler or SamplerSection()).max_mismatch,
        truncate=None if sampler is None else sampler.truncate,
    )


def algorithm_of(section: AlgorithmSection, steps: int, *, where: str) -> Algorithm:
    """Call the algorithm's function with the section's other keys as arguments."""
    function = algorithm_function(section.name, where=where)
    made = call(function, section.arguments(), where=where, filled={"total_steps": steps})
    if not isinstance(made, Algorithm):
        raise ConfigError(
            f"{where}.name: {section.name} returned {type(made).__name__}, not an Algorithm"
        )
    made.check_views()
    return made


def algorithm_function(name: str, *, where: str) -> Callable[..., Algorithm]:
    """The function behind an algorithm's name, or behind "package.module:function"."""
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"{where}.name: there is no algorithm {name!r}{did_you_mean(name, ALGORITHMS)}; there "
            f'are {", ".join(ALGORITHMS)}, and your own as "package.module:function"'
        )
    found = imported(module, attribute, where=f"{where}.name")
    if not callable(found):
        raise ConfigError(f"{where}.name: {module} has no function {attribute!r}")
    return cast(Callable[..., Algorithm], found)


def phases_of(config: Config) -> list[Phase]:
    """What a run does, in order. A replayed file is imitated, or gone on from.

    Raises ConfigError for phases that cannot be run with the other settings.
    """
    phases = _phases(config)
    if config.rollout.group_size == 1:
        _check_alone(phases)
    if config.rollout.replay and any(p.algorithm.acting.hinted_share for p in phases):
        raise ConfigError(
            "rollout.replay names episodes to imitate, and a phase imitates the environment's plan "
            'instead; set told = "same", or leave rollout.replay out'
        )
    if config.rollout.replay and not any(
        p.algorithm.acting.uses_expert for p in phases
    ):
        raise ConfigError(
            "rollout.replay names episodes to imitate, but no phase imitates; set [algorithm] or "
            '[warm_start] name = "sft", or leave rollout.replay out'
        )
    return phases


def _phases(config: Config) -> list[Phase]:
    main = algorithm_of(config.algorithm, config.run.steps, where="algorithm")
    seed = config.run.seed
    phases = [
        Phase(name="train", algorithm=main, steps=config.run.steps, lr=config.update.lr, seed=seed)
    ]
    if config.warm_start is not None:
        warm = config.warm_start
        first = Phase(
            name="warm_start",
            algorithm=algorithm_of(warm, warm.steps, where="warm_start"),
            steps=warm.steps,
            lr=warm.lr,
            seed=seed_of("warm_start", seed),
        )
        phases.insert(0, first)
    return phases


def _compares(phases: Sequence[Phase]) -> bool:
    """Whether a phase would learn nothing from groups of one episode."""
    try:
        _check_alone(phases)
    except ConfigError:
        return True
    return False


def _check_alone(phases: Sequence[Phase]) -> None:
    """Refuse to compare the episodes of a group with each other where a group holds one."""
    for phase in phases:
        if phase.algorithm.acting.max_batches:
            raise ConfigError(
                "rollout.group_size = 1, but the algorithm learns only from groups whose returns "
                "differ, and those of one episode cannot; set rollout.group_size to at least 2"
            )
        for term in phase.algorithm.terms:
            signal = term.advantage if isinstance(term, Reinforce) else getattr(term, "weight", ONE)
            if signal.compares_group:
                raise ConfigError(
                    f"rollout.group_size = 1, but {signal.name} compares the episodes of a group, "
                    f"and an episode alone teaches nothing; set rollout.group_size to at least 2"
                )


def hints_of(config: Config, suite: Suite, phases: Sequence[Phase]) -> Hints:
    """What the hints of a run are made from. Refuses those that the suite can never give."""
    section, wanted = config.hints, hints_wanted(config, phases)
    skills = any("skills" in kinds_in(hint) for hint in wanted)
    bank = None
    if skills and (section.bank or config.env.suite in bank_names()):
        bank = load_bank(section.bank or config.env.suite)
    made = Hints(bank=bank)
    for hint in wanted:
        check(suite, hint, made)
    return made


def hints_wanted(config: Config, phases: Sequence[Phase]) -> list[str]:
    """The hints that a run's views and evaluations name."""
    named = {view.hint for p in phases for view in p.algorithm.all_views().values()}
    return sorted({*named, config.eval.hint} - {""})


def rehearsal_of(
    config: Config, session: Session, phases: Sequence[Phase], tasks: Sequence[Task],
    tested: Panel | None,
) -> Session:  # fmt: skip
    """A session to try a run out on. Refuses hints that do not fit, before anything is trained."""
    hints = hints_wanted(config, phases)
    trial = hint_preparation.rehearsal(session, tasks[0], hints, seed=config.run.seed)
    for phase in phases:
        hint_preparation.prove(session, phase.algorithm.all_views(), hint_preparation.sample(tasks))
    if config.eval.hint and tested is not None:
        shown = {"the evaluation": View(hint=config.eval.hint)}
        hint_preparation.prove(session, shown, hint_preparation.sample(tested.tasks))
    return trial


def acting(config: Config, phases: Sequence[Phase]) -> set[str]:
    """The policies that sample turns in this process and on its memory: "self" is the student."""
    views = [(p.algorithm.all_views(), p.algorithm.all_actors()) for p in phases]
    named = {there.get(name, View()).policy for there, actors in views for name in actors}
    made = {name for name in named - {"self"} if not _away(config, name)}
    return made | (set() if config.policy.sampler is not None else {"self"})


def _away(config: Config, name: str) -> bool:
    return name in config.policies and bool(config.policies[name].url)


def policies_wanted(phases: Sequence[Phase], named: Mapping[str, object]) -> set[str]:
    """The policies that views name, besides the student; each must exist or be made.

    `reference` needs no section: it is a copy of the student before the main algorithm.
    """
    wanted = {v.policy for p in phases for v in p.algorithm.views.values()} - {"self"}
    for name in sorted(wanted - set(named) - {"reference"}):
        there = ", ".join(sorted(named)) or "none"
        raise ConfigError(
            f"the algorithm wants a policy {name!r}, but there is no section [policies.{name}] "
            f"(there are: {there}); add it with a `model`{did_you_mean(name, named)}"
        )
    if "reference" in {v.policy for v in phases[0].algorithm.views.values()} and len(phases) > 1:
        raise ConfigError(
            "warm_start: its algorithm wants a reference, but that is made after the warm start; "
            "leave its kl at 0"
        )
    return wanted
