"""`train --dry-run`: what a run would do and need, computed without weights or downloads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tutelage.cli import dry_checks
from tutelage.cli.fitting import USABLE, what_fits
from tutelage.cli.planned_memory import (
    Machine,
    Model,
    Need,
    in_bytes,
    in_parameters,
    memory_of,
    models_of,
    rows_of,
    to_load,
)
from tutelage.cli.tables import print_table
from tutelage.config.expressions import takes_schedule
from tutelage.config.schema import AlgorithmSection, Config
from tutelage.config.signature import annotations, schedule
from tutelage.envs import guard
from tutelage.envs.base import Demonstrates, Suite
from tutelage.objective import (
    Distill,
    DistillRecorded,
    DistillSampled,
    Entropy,
    Reinforce,
    Signal,
    Term,
)
from tutelage.policies.hf.kv_cache import GB
from tutelage.prompts.context import Context
from tutelage.rollout.replay import Replay
from tutelage.rollout.task_sampling import step_size
from tutelage.runs import checkpoint
from tutelage.runs.assemble import Parts, assemble, tasks_of
from tutelage.runs.folder import CONFIG
from tutelage.runs.phases import Phase, acting, algorithm_function
from tutelage.schedules import Schedule
from tutelage.training.optimizer import learning_rate
from tutelage.types import Observation

CHARACTERS = 4
"""Characters of English per token of a large vocabulary."""
ROUGHLY = 1.25
"""Times that an estimated length must exceed a context before it is said to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    config: Config  # with the numbers that the run chooses
    machine: Machine
    models: tuple[Model, ...]
    facts: tuple[tuple[str, str], ...]
    terms: tuple[tuple[str, str, str], ...]  # phase, name, what it is
    schedules: tuple[tuple[str, tuple[float, ...]], ...]  # at 0, 25, 50, 75 and 100 %
    warnings: tuple[str, ...]

    @property
    def memory(self) -> int:
        """Most bytes at one time. Keys and values are given back before an update begins."""
        return memory_of(self.models)


def make(config: Config, *, gpu: float = 0.0) -> Plan:
    """Check everything that can be checked without weights, and estimate the run's size.

    gpu  GB of a GPU to plan for; 0 plans for this machine

    Raises ConfigError for what a run would refuse.
    """
    parts = assemble(config, evaluates=False)
    config = parts.config
    if config.eval.every:
        tasks_of(parts.suite, config.eval.split, config.eval.tasks, where="eval")
    phases, used = list(parts.phases), set(parts.policies)
    if config.rollout.replay:
        Replay(Path(config.rollout.replay))
    machine = Machine(gpu=True, memory=int(gpu * GB)) if gpu else Machine.this()
    need = Need(
        machine=machine,
        used=used,
        acting=acting(config, phases),
        episode=_episode_tokens(parts.suite, parts.context, config),
        rows=rows_of(phases),
    )
    episode, found = need.episode, models_of(config, need)
    length = found[0].shape.context if found[0].shape else None
    cautions = dry_checks.check(
        config, phases, parts.suite, parts.context, parts.tasks, used, length
    )
    parts.rest()
    return Plan(
        config=config,
        machine=machine,
        models=found,
        facts=tuple(_facts(parts, phases, found, episode)),
        terms=tuple((p.name, t.name, describe(t)) for p in phases for t in p.algorithm.terms),
        schedules=tuple(_schedules(config, phases)),
        warnings=(*parts.notices, *_warnings(config, need, found), *cautions),
    )


# -- the length of an episode


def _episode_tokens(suite: Suite, context: Context, config: Config) -> int:
    """Tokens of a long episode, estimated from the texts of the first task: the complete
    conversation of a transcript, or the longest single prompt of a window."""
    seen, actions = guard.attempt("playing the first task", partial(_first_task, suite, config))
    system = len(context.system()) // CHARACTERS
    words = [_words(context, seen[: k + 1], actions[:k]) for k in range(len(seen))]
    if context.kind == "window":
        return system + max(words) + config.rollout.max_new_tokens
    each = sum(words[1:]) // max(1, len(words) - 1) if len(words) > 1 else words[0]
    return system + words[0] + config.rollout.max_turns * (each + config.rollout.max_new_tokens)


def _first_task(suite: Suite, config: Config) -> tuple[list[Observation], list[str]]:
    """What is seen in the first task, and the expert's actions."""
    task = suite.tasks(config.env.split)[0]
    script = suite.demonstrate(task) if isinstance(suite, Demonstrates) else []
    with guard.open_env(suite) as env:
        seen, actions = [env.reset(task)], list[str]()
        for action in script[: config.rollout.max_turns]:
            seen.append(env.step(action))
            actions.append(action)
    return seen, actions


def _words(context: Context, seen: list[Observation], actions: list[str]) -> int:
    return len(context.user(seen, actions)) // CHARACTERS


# -- what happens


def _facts(
    parts: Parts, phases: list[Phase], found: tuple[Model, ...], episode: int
) -> Iterable[tuple[str, str]]:
    config, tasks = parts.config, len(parts.tasks)
    r, every, student = config.rollout, config.run, found[0]
    sizes = [
        step_size(p.algorithm, tasks, count=r.tasks_per_step, group_size=r.group_size)
        for p in phases
    ]
    count, copies = sizes[-1]
    episodes = count * copies
    played = sum(n * each * phase.steps for (n, each), phase in zip(sizes, phases, strict=True))
    evaluations = (
        len({0, every.steps, *range(0, every.steps, config.eval.every)}) if config.eval.every else 0
    )
    yield "folder", every.folder
    yield "environment", f"{config.env.suite}, {tasks} tasks in {config.env.split!r}"
    yield "steps", " + ".join(f"{phase.steps} ({phase.name})" for phase in phases)
    yield (
        "episodes",
        f"{episodes} per step ({count} tasks x {copies}), {played:,} in all",
    )
    for model in found:
        if model.misfit:
            yield (
                f"how {model.name} is computed",
                f"plain path: {model.misfit}; turns are sampled one at a time, which is slower",
            )
    if batches := phases[-1].algorithm.acting.max_batches:
        more = f"up to {batches} batches of tasks a step until " if batches > 1 else ""
        yield "dynamic sampling", f"{more}{r.tasks_per_step} groups have returns that differ"
    at_most = max(1, batches) * episodes * r.max_turns * r.max_new_tokens
    yield (
        "sampled tokens",
        f"at most {at_most:,} a step ({r.max_turns} turns of {r.max_new_tokens})",
    )
    yield "episode", f"about {episode:,} tokens if it uses every turn and token"
    per_task = "0" if not evaluations else f"{evaluations} of {config.eval.tasks} tasks"
    yield (
        "evaluations",
        f"{per_task} ({config.eval.split}, temperature {config.eval.temperature:g})",
    )
    saved = len({0, every.steps, *range(0, every.steps, every.checkpoint_every)})
    saved += sum(phase.steps // every.checkpoint_every for phase in phases[:-1])
    disk = f", {in_bytes(student.saved)} each" if student.saved else ""
    remain = min(saved, checkpoint.KEEP + parts.makes_reference)
    yield "checkpoints", f"{saved}, {remain} kept{disk}"


def describe(term: Term) -> str:
    """A term of the loss in words."""
    if isinstance(term, Reinforce):
        if term.advantage.is_one:
            return "likelihood of the tokens"
        return f"policy gradient on {term.advantage.name}"
    if isinstance(term, Distill):
        what = f"{_name(term.divergence)} to {term.teacher} over the vocabulary"
    elif isinstance(term, DistillSampled):
        what = f"{_name(term.estimate)} to {term.teacher} on sampled tokens"
    elif isinstance(term, DistillRecorded):
        what = "forward_kl to likely tokens that were recorded, or likelihood of the tokens"
    elif isinstance(term, Entropy):
        what = "an entropy bonus"
    else:
        return type(term).__name__
    if isinstance(term, Distill | DistillSampled) and term.gate is not None:
        what += ", gated"
    return what if term.weight.name == "1" else f"{what}, times {term.weight.name}"


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _schedules(config: Config, phases: list[Phase]) -> Iterable[tuple[str, tuple[float, ...]]]:
    for phase in phases:
        for actor, chance in phase.algorithm.actors.items():
            yield f"{phase.name}: probability that {actor} acts", _along(chance, phase.steps)
    yield from _settings(config, phases)
    yield from _within(config, phases)
    for phase in phases:
        steps, warmup = phase.steps, config.update.warmup
        rates = tuple(
            learning_rate(phase.lr, warmup, min(steps * k // 4, steps - 1), steps) for k in range(5)
        )
        yield f"{phase.name}: learning rate", rates


def _settings(config: Config, phases: list[Phase]) -> Iterable[tuple[str, tuple[float, ...]]]:
    """Schedules that the file gives as an algorithm's settings."""
    for where, section, phase in _sections(config, phases):
        hints = annotations(algorithm_function(section.name, where=where))
        for key, value in section.arguments().items():
            if isinstance(value, str) and takes_schedule(hints.get(key)):
                yield (
                    f"{where}.{key}",
                    _along(
                        schedule(value, f"{where}.{key}", {"total_steps": phase.steps}), phase.steps
                    ),
                )


def _within(config: Config, phases: list[Phase]) -> Iterable[tuple[str, tuple[float, ...]]]:
    """Schedules in an algorithm's terms that are not among its settings."""
    options = {values for _, values in _settings(config, phases)}
    for phase in phases:
        for term in phase.algorithm.terms:
            for part, value in _signals(term):
                for each in value.schedules:
                    values = _along(each, phase.steps)
                    if values not in options:
                        options.add(values)
                        yield f"{phase.name}: {term.name}.{part}, {_name(each)}", values


def _signals(term: Term) -> Iterable[tuple[str, Signal]]:
    if is_dataclass(term):
        parts = ((field.name, getattr(term, field.name)) for field in fields(term))
        yield from ((name, value) for name, value in parts if isinstance(value, Signal))


def _sections(config: Config, phases: list[Phase]) -> Iterable[tuple[str, AlgorithmSection, Phase]]:
    yield "algorithm", config.algorithm, phases[-1]
    if config.warm_start is not None:
        yield "warm_start", config.warm_start, phases[0]


def _along(value: Schedule, steps: int) -> tuple[float, ...]:
    return tuple(value(steps * k // 4) for k in range(5))


# -- what may go wrong


def _warnings(config: Config, need: Need, found: tuple[Model, ...]) -> Iterable[str]:
    for name in sorted(set(config.policies) - set(need.used)):
        if config.policy.tokenizer != name:
            yield f"[policies.{name}] is not used by the algorithm"
    for model in found:
        if model.weights is None:
            yield f"the size of {model.name} ({model.source}) is unknown, so its memory is not included"
        elif model.shape and model.shape.experts:
            share = model.shape.parameters(experts=model.shape.active) / GB
            yield f"{model.name} is a mixture of experts: {share:.1f} billion of its parameters are active"
        acts = model.name == "student" or model.cache
        if model.shape and acts and need.episode > ROUGHLY * model.shape.context:
            yield (
                f"an episode that uses every turn and token has about {need.episode:,} tokens, and the "
                f"context of {model.name} has {model.shape.context:,}: longer ones end there; choose a "
                "model with a longer context, lower rollout.max_turns or rollout.max_new_tokens, or "
                "set context.history to a few turns"
            )
    wanted, room = memory_of(found), need.machine.memory
    if room and wanted > USABLE * room:
        how = "more than" if wanted > room else "which leaves too little of"
        yield (
            f"the models need about {in_bytes(wanted)}, {how} {need.machine.words}: "
            f"{what_fits(config, need)}"
        )
    if (Path(config.run.folder) / CONFIG).exists():
        yield f"{config.run.folder} already holds a run: continue it with --resume"


# -- printing


def show(plan: Plan, console: Console) -> None:
    table = Table(title="Models", title_justify="left")
    for column in ("", "from"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "weights", "training", "KV cache"):
        table.add_column(column, justify="right", no_wrap=True)
    for m in plan.models:
        numbers = [in_parameters(m.shape.parameters())] if m.shape else ["unknown"]
        numbers += [in_bytes(x) if x else "" for x in (m.weights, m.training, m.cache)]
        table.add_row(escape(m.name), escape(m.source), *numbers)
    what = (
        "training needs gradients, Adam's moments, activations and the loss; keys and values are "
        "given back before the update"
    )
    if plan.machine.gpu:
        what += f"; loading takes {in_bytes(to_load(plan.models))} of main memory"
    table.caption = f"about {in_bytes(plan.memory)} at most, of {plan.machine.words}: {what}"
    print_table(console, table)
    run = Table(title="The run", title_justify="left", show_header=False)
    for name, text in plan.facts:
        run.add_row(name, escape(text))
    for phase, name, text in plan.terms:
        run.add_row(f"loss ({phase})", escape(f"{name}: {text}"))
    console.print(run)
    along = Table(title="Schedules", title_justify="left")
    for column in ("", "0 %", "25 %", "50 %", "75 %", "100 %"):
        along.add_column(column, justify="right" if column else "left")
    for name, values in plan.schedules:
        along.add_row(escape(name), *(f"{value:.4g}" for value in values))
    print_table(console, along)
    for text in plan.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}")
