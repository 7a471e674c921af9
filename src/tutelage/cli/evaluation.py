"""`tutelage eval`: play a panel, show how far it is, keep what is played, and print the result."""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console

from tutelage.cli import eval_config, listing
from tutelage.cli.progress import results_only
from tutelage.config.schema import Config
from tutelage.config.toml_file import write as as_toml
from tutelage.errors import ConfigError
from tutelage.evaluation.evaluate import Known
from tutelage.evaluation.panels import NamedPanel
from tutelage.evaluation.results import Partial, summary, write
from tutelage.evaluation.statistics import wilson
from tutelage.policies.registry import named
from tutelage.rollout.record import Line
from tutelage.runs import offline
from tutelage.types import EXPERT, Episode, Stop

PIPE_SECONDS = 60.0
"""Between two lines of progress where nobody sees a terminal."""


class Progress:
    """How far an evaluation is, on stderr: a line that changes, or one a minute into a pipe."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.left = self.won = self.ended = 0

    def tick(self, done: int, total: int) -> None:
        self.left = total - done
        if self.ended:
            self.show()

    def one(self, known: Known) -> None:
        self.ended += 1
        self.won += known.episode.won

    def text(self) -> str:
        low, high = wilson(self.won, self.ended)
        seconds = (time.monotonic() - self.start) / self.ended * self.left
        share = self.won / self.ended
        return (
            f"played {self.ended} of {self.ended + self.left}, solved {100 * share:.0f} % "
            f"({100 * low:.0f} to {100 * high:.0f}), about {_span(seconds)} left"
        )

    def show(self) -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if terminal:
            sys.stderr.write(f"\r\033[K{self.text()}")
            sys.stderr.flush()
        elif now - self.last >= PIPE_SECONDS:
            self.last = now
            sys.stderr.write(f"{self.text()}\n")

    def close(self) -> None:
        if self.ended and sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _span(seconds: float) -> str:
    """
    >>> _span(42), _span(200), _span(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def run(arguments: argparse.Namespace, panel: NamedPanel | None, console: Console) -> None:
    """Evaluate as the command line says, and print a table or JSON."""
    with results_only(wanted=arguments.json) as out:
        _run(arguments, panel, console, out)


def _run(
    arguments: argparse.Namespace, panel: NamedPanel | None, console: Console, out: IO[str]
) -> None:
    config, student = eval_config.of(
        arguments.model,
        arguments.overrides,
        tasks=arguments.tasks,
        split=arguments.split,
        temperature=arguments.temperature,
        checkpoint=arguments.checkpoint,
        trust=arguments.trust,
        panel=panel,
        key=arguments.key,
    )
    if panel is not None:
        run_section = config.run.model_copy(update={"seed": panel.seed})
        config = config.model_copy(update={"run": run_section})
    if arguments.repeats > 1 and not config.eval.temperature and not config.policy.chats:
        raise ConfigError(
            f"--repeats {arguments.repeats} at temperature 0 plays the same episodes again; give a "
            "--temperature above 0, or leave --repeats out"
        )
    names = list(dict.fromkeys(arguments.policy)) or [offline.STUDENT]
    facts = _facts(config, names, student, panel, arguments.repeats)
    partial = Partial(arguments.out, facts) if arguments.out is not None else None
    if partial is not None and partial.known:
        count = sum(len(tasks) for tasks in partial.known.values())
        print(f"going on in {partial.folder}: {count} tasks are played", file=sys.stderr)
    progress, done = Progress(), False
    try:
        found = offline.evaluations(
            config,
            names,
            student=student,
            tick=progress.tick,
            on=panel,
            repeats=arguments.repeats,
            keeping=partial,
            ended=progress.one,
        )
        step = int(student.rpartition("-")[2]) if "step-" in Path(student).name else 0
        of_each = {title: _of(config, title, student) for title in found}
        if arguments.out is not None:
            write(found, arguments.out, step=step, facts=of_each)
        done = True
    finally:
        progress.close()
        if partial is not None:
            partial.close(done=done)
    for name, evaluation in found.items():
        if note := cut_short(evaluation.episodes):
            print(f"note: {name}: {note}", file=sys.stderr)
    if arguments.json:
        for name, evaluation in found.items():
            print(json.dumps(summary(evaluation, name, step=step, facts=of_each[name])), file=out)
        return
    listing.evaluations(found, console)
    console.print(
        f"temperature {config.eval.temperature:g}, seed {config.run.seed}, "
        f"{_times(arguments.repeats)} a task; intervals of 95 % over tasks",
        highlight=False,
        soft_wrap=True,
    )
    if arguments.out is not None:
        print(f"results and transcripts: {arguments.out}")


def cut_short(episodes: Sequence[Episode]) -> str:
    """What is to be said of episodes that ended because the context was full; "" where none did."""
    full = [e for e in episodes if e.stop is Stop.TOKENS]
    if not full:
        return ""
    unplayed = sum(not e.turns for e in full)
    before = f", {unplayed} of them before their first turn" if unplayed else ""
    return (
        f"{len(full)} of {len(episodes)} episodes ended because the context was full{before}, and "
        "count as lost; lower rollout.max_new_tokens, set context.history to a few turns, or "
        "choose a model with a longer context"
    )


def _times(repeats: int) -> str:
    return "one episode" if repeats == 1 else f"{repeats} episodes"


def _of(config: Config, title: str, student: str) -> Line:
    """What one policy was played with."""
    name = title.split(" with ")[0]
    section = config.policies.get(name, config.policy)
    model = student if name == offline.STUDENT and student else named(section).model
    return {
        "model": "" if name == EXPERT else model or "a new model",
        "temperature": config.eval.temperature,
        "seed": config.run.seed,
    }


def _facts(
    config: Config, names: list[str], student: str, panel: NamedPanel | None, repeats: int
) -> Mapping[str, object]:
    """What decides the result: an evaluation that was killed goes on where all of it is the same."""
    folder = Path(student or config.policy.model)
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {
        "settings": as_toml(config),
        "policies": names,
        "student": student,
        "weights": [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in weights],
        "panel": panel.name if panel else "",
        "repeats": repeats,
    }
