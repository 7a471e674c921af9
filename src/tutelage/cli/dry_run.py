"""`train --dry-run`: what a run would do and need, computed without weights or downloads."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tutelage import cpu
from tutelage.cli import dry_checks, model_sizes, update_memory
from tutelage.config.expressions import takes_schedule
from tutelage.config.paths import expanded
from tutelage.config.schema import AlgorithmSection, Config, PolicySection
from tutelage.config.signature import annotations, schedule
from tutelage.envs import guard
from tutelage.envs.addresses import address
from tutelage.envs.base import Demonstrates, Suite
from tutelage.errors import ConfigError
from tutelage.objective import (
    Distill,
    DistillSampled,
    Entropy,
    Reinforce,
    Signal,
    Term,
)
from tutelage.policies import registry
from tutelage.policies.hf import architecture
from tutelage.policies.hf.kv_cache import GB, budget
from tutelage.prompts.context import Context
from tutelage.rollout.replay import Replay
from tutelage.runs import checkpoint, models
from tutelage.runs.assemble import assemble, tasks_of
from tutelage.runs.folder import CONFIG
from tutelage.runs.phases import Phase, acting, algorithm_function
from tutelage.schedules import Schedule
from tutelage.training.optimizer import learning_rate
from tutelage.types import Observation

CHARACTERS = 4
"""Characters of English per token of a large vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A policy's size. Bytes are estimates; None where its shape is not known."""

    name: str
    source: str
    shape: model_sizes.Shape | None
    weights: int | None
    moments: int = 0  # Adam's two, for the student only
    update: int = 0  # gradients, activations and the loss, likewise
    cache: int | None = None
    saved: int = 0  # bytes of a checkpoint: the trained weights and their moments
    misfit: str = ""  # why the model cannot take the fast path, as far as its configuration tells

    @property
    def training(self) -> int | None:
        """Bytes that only a student takes; None where the shape is not known."""
        return None if self.weights is None else self.moments + self.update


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the models are: whether on a GPU, and the bytes of its memory (0 if unknown)."""

    gpu: bool
    memory: int

    @classmethod
    def this(cls) -> "Machine":
        room, _ = memory()
        return cls(gpu=torch.cuda.is_available(), memory=room)

    @property
    def words(self) -> str:
        return f"{_size(self.memory)} of {'GPU memory' if self.gpu else 'memory'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
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


def memory_of(models: Iterable[Model]) -> int:
    found = list(models)
    always = sum((m.weights or 0) + m.moments for m in found)
    return always + max(sum(m.cache or 0 for m in found), sum(m.update for m in found))


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
    need = _Need(
        machine=machine,
        used=used,
        acting=acting(config, phases),
        episode=_episode_tokens(parts.suite, parts.context, config),
        rows=_rows(phases),
    )
    episode, found = need.episode, _models(config, need)
    length = found[0].shape.context if found[0].shape else None
    cautions = dry_checks.check(
        config, phases, parts.suite, parts.context, parts.tasks, used, length
    )
    parts.rest()
    return Plan(
        machine=machine,
        models=found,
        facts=tuple(_facts(config, phases, len(parts.tasks), found, episode)),
        terms=tuple((p.name, t.name, describe(t)) for p in phases for t in p.algorithm.terms),
        schedules=tuple(_schedules(config, phases)),
        warnings=(*parts.notices, *_warnings(config, need, found), *cautions),
    )


# -- sizes


def _shape(name: str, config: Config) -> tuple[str, model_sizes.Shape | None]:
    where = "policy" if name == "student" else f"policies.{name}"
    section: PolicySection = config.policy if name == "student" else config.policies[name]
    if section.url:
        shown = address(section.url, where=f"{where}.model").shown
        return f"{section.served_name or 'a model'} at {shown}", None
    if not registry.named(section).ours:
        registry.engine_of(section, where=where)  # refuses one that is not there
        return f"{section.model} of an engine of yours", None
    models.device_of(section, where=where)
    if section.build is not None:
        entries = _entries(section, config, where)
        return "built", model_sizes.built(section.build, section.layers or models.LAYERS, entries)
    place = models.locate(section.model, where=where)
    local = Path(place)
    shape = model_sizes.read(local) if local.is_dir() else model_sizes.named(section.model)
    if shape and section.layers:
        if section.layers > shape.layers:
            raise ConfigError(
                f"{where}.layers = {section.layers}: {section.model} has {shape.layers} layers"
            )
        shape = replace(shape, layers=section.layers)
    return section.model, shape


def _entries(section: PolicySection, config: Config, where: str) -> int:
    """Entries of a built model's vocabulary, as far as known without loading a tokenizer."""
    tokenizer = section.tokenizer
    if isinstance(tokenizer, int):
        return section.entries
    if tokenizer in config.policies:
        shape = _shape(tokenizer, config)[1]
        return shape.vocab if shape else section.entries
    if tokenizer:
        models.locate(tokenizer, where=where)
    return section.entries


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """What decides the memory of a run besides its settings."""

    machine: Machine
    used: Collection[str]  # policies besides the student
    acting: Collection[str]
    episode: int  # tokens
    rows: int  # see `update_memory.beside`


def _rows(phases: Iterable[Phase]) -> int:
    """Tensors over the vocabulary that a loss holds for a divergence to a teacher, or an entropy."""
    terms = [term for phase in phases for term in phase.algorithm.terms]
    return 2 if any(isinstance(term, Distill | Entropy) for term in terms) else 0


def _models(config: Config, need: _Need) -> tuple[Model, ...]:
    """The models of a run, the student first."""
    found = []
    for name in ("student", *sorted(need.used)):
        copied = name == "reference" and name not in config.policies
        owner = "student" if name == "student" or copied else name
        section = config.policy if owner == "student" else config.policies[owner]
        source, shape = _shape(owner, config)
        source = "a copy of the student" if copied else source
        if shape is None:
            misfit = _misfit(section)
            found.append(Model(name=name, source=source, shape=None, weights=None, misfit=misfit))
        else:
            found.append(_model(name, source, shape, section, config, need))
    return tuple(found)


def _model(
    name: str,
    source: str,
    shape: model_sizes.Shape,
    section: PolicySection,
    config: Config,
    need: _Need,
) -> Model:
    trains, gpu = name == "student", _on_gpu(section, need.machine)
    acts = ("self" if trains else name) in need.acting
    weights = shape.weights(section, frozen=not trains)
    if acts and gpu and section.dtype == "bfloat16":
        weights += 2 * shape.vocab * shape.hidden  # the LM head that samples
    update = 0
    if trains:
        update = 4 * shape.trained(section) + update_memory.beside(
            shape, section, _pass_tokens(config, shape, need), gpu=gpu, rows=need.rows
        )
    return Model(
        name=name,
        source=source,
        shape=shape,
        weights=weights,
        moments=8 * shape.trained(section) if trains and not config.update.offload else 0,
        update=update,
        cache=_cache(config, section, shape, need) if acts else 0,
        saved=12 * shape.trained(section),
    )


def _misfit(section: PolicySection) -> str:
    """Why a model takes the plain path, if it is in a folder whose configuration says so."""
    folder = expanded(section.model)
    if section.build is not None or section.url or not (folder / "config.json").is_file():
        return ""
    from transformers import AutoConfig

    try:
        described = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # said when the model is loaded
        return ""
    return architecture.misfit(described)


def _pass_tokens(config: Config, shape: model_sizes.Shape, need: _Need) -> int:
    """Tokens of the largest pass; a sequence is never divided."""
    return max(config.update.max_tokens_per_pass, min(need.episode, shape.context))


def _on_gpu(section: PolicySection, machine: Machine) -> bool:
    if section.device == "auto":
        return machine.gpu
    return models.device_of(section, where="policy").startswith("cuda")


def _cache(config: Config, section: PolicySection, shape: model_sizes.Shape, need: _Need) -> int:
    """Largest KV cache in bytes, within its engine's budget, but at least one sequence."""
    r = config.rollout
    rows = min(r.concurrency, r.tasks_per_step * r.group_size)
    row = shape.cache(min(need.episode, shape.context), model_sizes.BYTES[section.dtype])
    room = budget(
        "cuda" if _on_gpu(section, need.machine) else "cpu",
        wanted=models.kv_cache_gb(),
        engines=len(need.acting),
        total=need.machine.memory,
    )
    return max(row, min(rows * row, room))


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
    task, env = suite.tasks(config.env.split)[0], suite.make()
    seen, actions = [env.reset(task)], list[str]()
    script = suite.demonstrate(task) if isinstance(suite, Demonstrates) else []
    for action in script[: config.rollout.max_turns]:
        seen.append(env.step(action))
        actions.append(action)
    guard.close(env)
    return seen, actions


def _words(context: Context, seen: list[Observation], actions: list[str]) -> int:
    return len(context.user(seen, actions)) // CHARACTERS


# -- what happens


def _facts(
    config: Config, phases: list[Phase], tasks: int, found: tuple[Model, ...], episode: int
) -> Iterable[tuple[str, str]]:
    r, every, student = config.rollout, config.run, found[0]
    episodes = r.tasks_per_step * r.group_size
    steps = sum(phase.steps for phase in phases)
    evaluations = (
        len({0, every.steps, *range(0, every.steps, config.eval.every)}) if config.eval.every else 0
    )
    yield "folder", every.folder
    yield "environment", f"{config.env.suite}, {tasks} tasks in {config.env.split!r}"
    yield "steps", " + ".join(f"{phase.steps} ({phase.name})" for phase in phases)
    yield (
        "episodes",
        f"{episodes} per step ({r.tasks_per_step} tasks x {r.group_size}), "
        f"{episodes * steps:,} in all",
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
    disk = f", {_size(student.saved)} each" if student.saved else ""
    yield "checkpoints", f"{saved}, {min(saved, checkpoint.KEEP)} kept{disk}"


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


def _warnings(config: Config, need: _Need, found: tuple[Model, ...]) -> Iterable[str]:
    for name in sorted(set(config.policies) - set(need.used)):
        if config.policy.tokenizer != name:
            yield f"[policies.{name}] is not used by the algorithm"
    for model in found:
        if model.weights is None:
            yield f"the size of {model.name} ({model.source}) is unknown, so its memory is not included"
        elif model.shape and model.shape.experts:
            share = model.shape.parameters(experts=model.shape.active) / GB
            yield f"{model.name} is a mixture of experts: {share:.1f} billion of its parameters are active"
    wanted, room = memory_of(found), need.machine.memory
    if room and wanted > room:
        yield (
            f"the models need about {_size(wanted)}, more than {need.machine.words}: "
            f"{_what_fits(config, need)}"
        )
    if (Path(config.run.folder) / CONFIG).exists():
        yield f"{config.run.folder} already holds a run: continue it with --resume"


SAVES: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("update.max_tokens_per_pass = 4096", "update", {"max_tokens_per_pass": 4096}),
    ("policy.gradient_checkpointing = true", "policy", {"gradient_checkpointing": True}),
    ("update.offload = true", "update", {"offload": True}),
    ("policy.lora = 16", "policy", {"lora": 16}),
    ('policy.quantize = "nf4"', "policy", {"quantize": "nf4"}),
)
"""Settings that save memory: how they are written, their section, and the change."""
MIXES = ((0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2), (3,), (0, 3), (0, 1, 3), (3, 4), (0, 1, 3, 4))
"""Which of them are tried together, those that change less first."""


def _what_fits(config: Config, need: _Need) -> str:
    """The first settings with which everything fits, as advice."""
    fits = []
    for served in (False, True):
        for mix in ((), *MIXES) if served else MIXES:
            found = _with(config, need, mix, served=served)
            if found and memory_of(found) <= need.machine.memory:
                words = [SAVES[k][0] for k in mix]
                if served:
                    words.append("the other models on a server or another device")
                fits.append(f"{' and '.join(words)} ({_size(memory_of(found))})")
        if fits:
            break
    if fits:
        return f"it fits with {', or with '.join(fits[:3])}"
    return (
        "no setting makes it fit: choose smaller models, lower update.max_tokens_per_pass, or use "
        "a larger machine"
    )


def _with(
    config: Config, need: _Need, mix: Sequence[int], *, served: bool
) -> tuple[Model, ...] | None:
    """The models with some of SAVES, without those beside the student if they are served; None where
    a change is none, or is not allowed."""
    if served and not set(need.used) - {"reference"}:
        return None
    for k in mix:
        _, where, change = SAVES[k]
        section = getattr(config, where)
        values = {**section.model_dump(exclude_unset=True), **change}
        if all(_saves_nothing(getattr(section, key), value) for key, value in change.items()):
            return None
        try:
            changed = type(section).model_validate(values)
        except ValueError:  # 4 bits beside a sampler, adapters in a model that is built
            return None
        config = config.model_copy(update={where: changed})
    if served:
        need = replace(need, used=set(need.used) & {"reference"} - set(config.policies))
    return _models(config, need)


def _saves_nothing(now: object, then: object) -> bool:
    """Whether a setting is what it would be changed to, or a number that is smaller already."""
    if isinstance(now, int) and isinstance(then, int) and now:
        return now <= then
    return now == then


def memory() -> tuple[int, str]:
    """Bytes that models can use here (0 if unknown), and the kind of memory."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], "GPU memory"
    return cpu.memory(), "memory"


# -- printing


def _size(count: float) -> str:
    """Bytes in readable form.

    >>> _size(2.4e9), _size(350_000)
    ('2.4 GB', '0.35 MB')
    """
    if count >= GB:
        return f"{count / GB:.1f} GB"
    return f"{count / 1e6:.3g} MB"


def _count(parameters: int) -> str:
    """A number of parameters in readable form.

    >>> _count(596_049_920), _count(656_128)
    ('596 million', '0.656 million')
    """
    if parameters >= 1e9:
        return f"{parameters / 1e9:.3g} billion"
    return f"{parameters / 1e6:.3g} million"


def show(plan: Plan, console: Console) -> None:
    table = Table(title="Models", title_justify="left")
    for column in ("", "from"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "weights", "training", "KV cache"):
        table.add_column(column, justify="right", no_wrap=True)
    for m in plan.models:
        numbers = [_count(m.shape.parameters())] if m.shape else ["unknown"]
        numbers += [_size(x) if x else "" for x in (m.weights, m.training, m.cache)]
        table.add_row(escape(m.name), escape(m.source), *numbers)
    what = (
        "training needs gradients, Adam's moments, activations and the loss; keys and values are "
        "given back before the update"
    )
    table.caption = f"about {_size(plan.memory)} at most, of {plan.machine.words}: {what}"
    console.print(table)
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
    console.print(along)
    for text in plan.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}")
