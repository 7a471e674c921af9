"""`tutelage plan`: what a file would take on one card and on many, from its shapes and a short probe.

Memory is that of `train --dry-run`, rates are those of `tutelage bench`. Nothing is written.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tutelage.cli import bench, dry_run
from tutelage.cli.planned_memory import divided, divided_memory, in_bytes
from tutelage.cli.step_simulation import Layers, Links, Rates, Times, Work, rates, simulate
from tutelage.config.schema import Config
from tutelage.policies.hf.kv_cache import GB
from tutelage.runs.assemble import Tick
from tutelage.runs.phases import Phase, phases_of

CARDS = (1, 2, 8, 64, 512)
"""Numbers of cards that are simulated."""
INSIDE, BETWEEN, GLOO = 20.0, 12.5, 1.0
"""GB a second where none are given: a PCIe 4 slot, a network of 100 Gbit/s, and gloo between two
processes of one machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A number of cards at work on a step.

    grown       the step has as many times the groups as there are cards, instead of the file's
    efficiency  episodes a second and card, relative to one card
    hours       of all steps of the main algorithm, times the cards
    divided_seconds, divided_memory
                of a step where --sharded divides the student's layers; None where it cannot
    always_divided_memory
                the same where no card ever has the whole layers, and servers play
    """

    cards: int
    grown: bool
    groups: int
    memory: int
    times: Times
    efficiency: float
    hours: float
    divided_seconds: float | None = None
    divided_memory: int | None = None
    always_divided_memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    dry: dry_run.Plan
    report: bench.Report
    rates: Rates
    steps: int
    layouts: tuple[Layout, ...]
    assumptions: tuple[str, ...]

    @property
    def one(self) -> Layout:
        return self.layouts[0]


def make(
    config: Config,
    *,
    student: str = "",
    seconds: float,
    gpu: float = 0.0,
    inside: float = 0.0,
    between: float = 0.0,
    tick: Tick,
) -> Plan:
    """Check a file, measure a part of its step, and simulate steps on more cards.

    student          the folder of a checkpoint to measure instead of the file's model
    seconds          of the probe, without loading models
    gpu              GB of memory of a card; 0 takes this machine's
    inside, between  GB a second between cards of a machine, and of a machine's network

    Raises ConfigError for what a run would refuse.
    """
    dry = dry_run.make(config, gpu=gpu)
    report = bench.measure(config, student=student, seconds=seconds, tick=tick)
    config = dry.config
    slots, phase = config.rollout.slots, phases_of(config)[-1]
    found = rates(report.probes, slots)
    cards = torch.cuda.is_available()
    links = Links(
        inside=GB * (inside or (INSIDE if cards else GLOO)), between=GB * (between or BETWEEN)
    )
    shape = dry.models[0].shape
    trained = shape.trained(config.policy) if shape else 0
    groups = report.step // max(1, config.rollout.group_size)
    if phase.algorithm.acting.expert:
        groups = report.step
    layouts: list[Layout] = []
    for count in CARDS:
        for grown in (False, True):
            if (grown and count == 1) or (not grown and count > groups):
                continue
            size = groups * count if grown else groups
            work = Work(
                ranks=count,
                groups=size,
                slots=slots,
                minibatches=config.update.minibatches,
                epochs=config.update.epochs,
                trained=trained,
                views=len(phase.algorithm.all_views()),
            )
            draws = 32 if size < 1000 else 3
            times = simulate(found, work, links, draws=draws)
            layers = _layers(config, dry, phase) if count > 1 else None
            slower = memory = least = None
            if layers is not None and shape is not None:
                split = simulate(found, replace(work, divided=layers), links, draws=draws)
                slower = split.seconds
                memory = divided_memory(dry.models, shape, config.policy, count)
                least = divided_memory(dry.models, shape, config.policy, count, always=True)
            one = layouts[0].times if layouts else times
            speed = times.episodes / times.seconds / (one.episodes / one.seconds)
            layouts.append(
                Layout(
                    cards=count,
                    grown=grown,
                    groups=size,
                    memory=dry.memory,
                    times=times,
                    efficiency=speed / count,
                    hours=count * times.seconds * phase.steps / 3600,
                    divided_seconds=slower,
                    divided_memory=memory,
                    always_divided_memory=least,
                )
            )
    return Plan(
        dry=dry,
        report=report,
        rates=found,
        steps=phase.steps,
        layouts=tuple(layouts),
        assumptions=(
            *_assumptions(config, report, found, links, cards=cards),
            *([] if phase.algorithm.acting.expert else [overlapped(layouts[0].times)]),
        ),
    )


def overlapped(one: Times) -> str:
    """What playing one step ahead would bring to a step in one process, at best."""
    playing = one.phases.get("generate", 0.0) + one.phases.get("environment", 0.0)
    longer = max(playing, one.seconds - playing)
    return (
        f"episodes are played in turn with learning: {playing:.3g} of the {one.seconds:.3g} seconds "
        "of a step in one process; one step ahead (ahead = 1 in rollout.concurrency) it takes "
        f"{longer:.3g} at best, where both have cores or cards of their own"
    )


def _layers(config: Config, dry: dry_run.Plan, phase: Phase) -> Layers | None:
    """The student's layers as --sharded divides them; None where it cannot."""
    student, section = dry.models[0], config.policy
    if student.shape is None or student.misfit or section.compile or section.quantize != "none":
        return None
    count, size = divided(student.shape, section)
    return Layers(
        count=count,
        trained=0 if section.lora else count,
        size=2 if section.dtype == "bfloat16" else 4,
        whole=size,
        tokens=config.update.max_tokens_per_pass,
        views=len(phase.algorithm.trained()),
    )


def _assumptions(
    config: Config, report: bench.Report, found: Rates, links: Links, *, cards: bool
) -> Iterable[str]:
    yield (
        "every card is like the one that was measured"
        if cards
        else f"a card is a process with {torch.get_num_threads()} threads of this machine, and "
        "every process has cores and memory bandwidth of its own"
    )
    yield (
        "every rank holds the whole model, but for --sharded, plays whole groups in "
        f"{config.rollout.slots} slots, and lays out the whole step"
    )
    yield (
        f"{links.inside / GB:g} GB/s between cards of a machine (--link), which has {links.cards}; "
        f"{links.between / GB:g} GB/s between machines (--network); {links.latency * 1e6:g} us a "
        "message; gradients in float32, summed in a ring that nothing overlaps"
    )
    yield (
        f"episodes are as long as the {report.played} that were measured, with the weights as they "
        "are now; a run of longer or shorter episodes later takes more or less"
    )
    if report.cut:
        yield f"the measured episodes were {report.cut}; a longer --seconds measures longer ones"
    if not any(probe.steps for probe in report.probes):
        yield (
            "no token of the measured episodes counted, as where the returns of every group are "
            "equal, so the update takes no time here; a step that learns takes more"
        )
    if len({sum(map(len, probe.groups)) for probe in report.probes}) == 1:
        yield (
            "the probe had time for one number of groups only, so generation counts by tokens: a "
            "card that decodes more slots in the same time is faster than this says; a longer "
            "--seconds measures it"
        )
    if (most := CARDS[-1] * report.step // config.rollout.group_size) > report.tasks:
        yield (
            f"there are tasks for every step; the split {config.env.split!r} has {report.tasks}, and "
            f"the largest step wants {most:,}"
        )
    if config.rollout.slots < report.step:
        yield "a slot plays its next episode as soon as one ends"
    yield "a step has one batch of tasks; evaluations, checkpoints and a warm start are not counted"


# -- printing


def as_json(plan: Plan, out: IO[str]) -> None:
    """One object: memory by model, rates, layouts, warnings and assumptions."""
    layouts: list[Mapping[str, Any]] = [
        {
            **{k: v for k, v in asdict(each).items() if k != "times"},
            "seconds": each.times.seconds,
            "range": [each.times.least, each.times.most],
            "phases": each.times.phases,
            "bottleneck": each.times.bottleneck,
        }
        for each in plan.layouts
    ]
    models = [
        {
            "name": m.name,
            "source": m.source,
            "weights": m.weights,
            "training": m.training,
            "cache": m.cache,
        }
        for m in plan.dry.models
    ]
    measured = {k: v for k, v in asdict(plan.rates).items() if k != "groups"}
    found = {
        "memory": plan.dry.memory,
        "room": plan.dry.machine.memory,
        "models": models,
        "measured_episodes": plan.report.played,
        "rates": measured,
        "steps": plan.steps,
        "layouts": layouts,
        "warnings": plan.dry.warnings,
        "assumptions": plan.assumptions,
    }
    out.write(json.dumps(found) + "\n")


def show(plan: Plan, console: Console) -> None:
    def say(text: str) -> None:
        console.print(escape(text), highlight=False)

    one, dry = plan.one, plan.dry
    unknown = [m.name for m in dry.models if m.weights is None]
    more = f", without {', '.join(unknown)}, whose size is unknown" if unknown else ""
    say(f"Memory of a card: about {in_bytes(dry.memory)} at most, of {dry.machine.words}{more}.")
    say(
        f"A step of {plan.report.step} episodes takes about {one.times.seconds:.3g} s on one card "
        f"({one.times.least:.3g} to {one.times.most:.3g}; measured on {plan.report.played} "
        f"episodes); {plan.steps} steps {_hours(one.hours)}."
    )
    say(f"Bottleneck: {one.times.bottleneck} ({_share(one.times, one.times.bottleneck)}).\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase")
    seconds = [each for each in plan.layouts if each.cards <= 2]
    for each in seconds:
        table.add_column(_name(each), justify="right")
    for name in one.times.phases:
        if any(each.times.phases[name] for each in seconds):
            table.add_row(name, *(f"{each.times.phases[name]:.3g} s" for each in seconds))
    console.print(table)
    say(f"\n{_second(plan)}\n")
    many = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("cards", "groups", "s a step", "speed-up", "efficiency", "card-hours"):
        many.add_column(column, justify="right")
    many.add_column("bottleneck")
    for each in plan.layouts:
        many.add_row(
            str(each.cards),
            f"{each.groups:,}",
            f"{each.times.seconds:.3g}",
            f"{each.efficiency * each.cards:.3g}",
            f"{100 * each.efficiency:.0f} %",
            f"{each.hours:,.3g}",
            f"{each.times.bottleneck} ({_share(each.times, each.times.bottleneck)})",
        )
    console.print(many)
    if any(each.divided_memory for each in plan.layouts):
        split = Table(box=None, pad_edge=False, header_style="bold")
        columns = (
            "cards",
            "groups",
            "memory of a card",
            "--sharded",
            "always",
            "s a step",
            "--sharded",
        )
        for column in columns:
            split.add_column(column, justify="right")
        for each in plan.layouts:
            if each.divided_memory is not None:
                split.add_row(
                    str(each.cards),
                    f"{each.groups:,}",
                    in_bytes(each.memory),
                    in_bytes(each.divided_memory),
                    in_bytes(each.always_divided_memory or 0),
                    f"{each.times.seconds:.3g}",
                    f"{each.divided_seconds:.3g}",
                )
        say("\nThe student's layers divided over the cards (--sharded, and --sharded always):")
        console.print(split)
    say("\nSimulated, where:")
    for text in plan.assumptions:
        say(f"* {text}")
    for text in dry.warnings:
        console.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False)


def _name(layout: Layout) -> str:
    if layout.cards == 1:
        return "1 card"
    return f"{layout.cards} cards" + (f", {layout.groups} groups" if layout.grown else "")


def _share(times: Times, phase: str) -> str:
    return f"{100 * times.phases[phase] / times.seconds:.0f} %"


def _hours(hours: float) -> str:
    return f"{hours:.2g} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"


def _second(plan: Plan) -> str:
    """What a second card brings, in a sentence."""
    same = next((each for each in plan.layouts if each.cards == 2 and not each.grown), None)
    twice = next(each for each in plan.layouts if each.cards == 2 and each.grown)
    grown = (
        f"a step of twice the groups takes {twice.times.seconds:.3g} s "
        f"({2 * twice.efficiency:.2f} times the episodes a second)"
    )
    if same is None:
        return f"A second card: this step has one group, which one rank plays; {grown}."
    return (
        f"A second card: the same step takes {same.times.seconds:.3g} s instead of "
        f"{plan.one.times.seconds:.3g} ({2 * same.efficiency:.2f} times as fast); {grown}. "
        "Each card still holds the whole model, unless --sharded divides its layers."
    )
