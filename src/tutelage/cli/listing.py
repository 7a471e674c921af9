"""Tables that the command line prints: algorithms, suites and evaluations."""

import inspect
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tutelage.algorithms import ALGORITHMS
from tutelage.algorithms.parameters import meanings
from tutelage.cli import examples
from tutelage.cli.progress import rate
from tutelage.config.expressions import in_words
from tutelage.config.signature import annotations
from tutelage.config.toml_file import write_value
from tutelage.envs.registry import ADAPTERS, SUITES, suite_class
from tutelage.evaluation.evaluate import Evaluation
from tutelage.evaluation.measures import Measure, by_family, measured, played
from tutelage.evaluation.panels import described, shipped
from tutelage.evaluation.statistics import difference, paired
from tutelage.runs.phases import algorithm_function


def _module_doc(function: Callable[..., object]) -> str:
    return inspect.cleandoc(sys.modules[function.__module__].__doc__ or "")


def _first(text: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(text.split("\n\n")[0].split())


def _paper(doc: str) -> str:
    """The first arXiv number of a text."""
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", doc)
    return found.group(1) if found else ""


def _line(doc: str) -> str:
    """The description of a method, without its name and paper, which have their own columns."""
    first = _first(doc)
    name, colon, tail = first.partition(": ")
    text = tail if colon and len(name) < 60 else re.sub(r"\s*\(arXiv:[^)]*\)", "", first)
    return text[:1].upper() + text[1:]


def algorithms(console: Console) -> None:
    """Print a row for each algorithm: name, paper and description."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("arXiv", no_wrap=True)
    table.add_column("what it does")
    for name, function in ALGORITHMS.items():
        doc = _module_doc(function)
        table.add_row(name, _paper(doc), escape(_line(doc)))
    console.print(table)
    console.print(
        "\ntutelage algorithms NAME: its formula, its settings and an example", highlight=False
    )


def algorithm(name: str, console: Console) -> None:
    """Print one algorithm: idea and formula, settings, documentation page, and an example."""
    function = algorithm_function(name, where="algorithm")
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(escape(fill(_module_doc(function), console.width)))
    say("\n[bold]In a run's file[/bold]\n")
    say(escape(f'[algorithm]\nname = "{name}"'))
    table = settings(function)
    if table.row_count:
        console.print("\n[bold]Settings[/bold]\n")
        console.print(table)
    else:
        say("\nIt takes no settings.")
    for what, path in _elsewhere(name):
        say(f"\n[bold]{what}[/bold]\n\n{escape(path)}")


def fill(text: str, width: int) -> str:
    """Wrap a docstring: sentences are refilled, formulas keep their lines if they fit.

    >>> print(fill("One sentence that\\nis long.\\n\\n    L = a + b", 16))
    One sentence
    that is long.
    <BLANKLINE>
        L = a + b
    """
    filled: list[str] = []
    for part in text.split("\n\n"):
        lines = part.splitlines()
        if not any(line.startswith(" ") or " = " in line for line in lines):
            lines = [" ".join(lines)]
        for line in lines:
            indent = " " * (len(line) - len(line.lstrip()))
            more = indent + "    " if len(lines) > 1 or indent else ""
            filled += textwrap.wrap(
                line, width, subsequent_indent=more, break_long_words=False, break_on_hyphens=False
            )
        filled.append("")
    return "\n".join(filled).strip("\n")


def settings(function: Callable[..., object]) -> Table:
    """A table of an algorithm's settings, defaults and meanings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("default")
    table.add_column("meaning")
    hints, meant = annotations(function), meanings(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "total_steps":
            default = parameter.default
            value = "required" if default is parameter.empty else _toml(default)
            choices = _choices(hints.get(name, object))
            explained = meant[name].replace("`", "")
            text = "; ".join(part for part in (choices, explained) if part)
            table.add_row(name, escape(value), escape(text))
    return table


def _choices(hint: object) -> str:
    """The choices of a setting with few values; for others the default shows the type."""
    text = in_words(hint)
    return text if text.startswith('"') else ""


def _elsewhere(name: str) -> Iterator[tuple[str, str]]:
    """The documentation page of a method, in a source tree, and its example."""
    root = Path(__file__).parents[3]
    pages = [f"docs/methods/{name}.md", f"docs/{name}.md"]
    yield from (("More", path) for path in pages if (root / path).is_file())
    example = f"household_{name}"
    if example in examples.paths():
        commands = (f"tutelage examples {example} --copy .", f"tutelage train {example}.toml")
        yield "Example", "\n".join(commands)


def _toml(value: object) -> str:
    """A default as it is written in a file."""
    if value is None:
        return "none"
    if isinstance(value, dict) and not value:
        return "{}"
    return write_value(value) if isinstance(value, bool | int | float | str) else str(value)


def suites(console: Console) -> None:
    """Print a row for each suite: name and description."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("suite", no_wrap=True)
    table.add_column("what it is")
    for name in SUITES:
        table.add_row(name, escape(_first(inspect.getdoc(suite_class(name)) or "")))
    console.print(table)
    say = partial(console.print, highlight=False, soft_wrap=True)
    say("\ntutelage envs NAME: its options, their defaults and meanings")
    say(f"Environments of other libraries: {', '.join(ADAPTERS)}")
    say('Your own: env.suite = "package.module:Class"; `tutelage check-env` tests it')


def suite(name: str, console: Console) -> None:
    """Print one suite: description, options, and how to use it."""
    kind = suite_class(name)
    doc = inspect.getdoc(kind) or f"{name} has no docstring."
    say = partial(console.print, highlight=False, soft_wrap=True)
    say(escape(fill(_first(doc), console.width)))
    say("\n[bold]In a run's file[/bold]\n")
    say(escape(f'[env]\nsuite = "{name}"'))
    table = _options(kind, doc)
    if table.row_count:
        say("\n[bold]Options[/bold], in env.options\n")
        console.print(table)
    else:
        say("\nIt takes no options.")
    on = [panel for panel in shipped().values() if panel.suite == name]
    if on:
        say("\n[bold]Panels[/bold], for tutelage eval --panel NAME\n")
        for panel in on:
            say(f"{panel.name} ({panel.fingerprint})", markup=False)
    say(f"\ntutelage init {name}: writes a file to start from", markup=False)


_ENTRY = re.compile(r"(\w+(?:, \w+)*)(?: {2,}(\S.*)|$)")
"""The first line of an entry "name, name  what they mean" in a docstring's list."""


def option_meanings(doc: str) -> dict[str, str]:
    """The descriptions of options in a suite's docstring, by name: entries of a list, or sentences
    with the name in backticks.

    >>> option_meanings("A shop.\\n\\ngoals, seed  how many,\\n             and which")
    {'goals': 'how many, and which', 'seed': 'how many, and which'}
    >>> option_meanings("`size` is how big; `a` and `b` are counts.")
    {'size': 'how big', 'a': 'counts', 'b': 'counts'}
    """
    meanings: dict[str, str] = {}
    names: list[str] = []
    prose: list[str] = []
    for line in doc.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
            if entry[2]:
                meanings |= dict.fromkeys(names, entry[2])
        elif names and line.startswith("  "):
            more = f"{meanings.get(names[0], '')} {line.strip()}".strip()
            meanings |= dict.fromkeys(names, more)
        else:
            names = []
            prose.append(line)
    for clause in re.split(
        r";\s|\.\s|\.$|:\s(?=`)|, and (?=`\w+` (?:is|are|says) )", " ".join(" ".join(prose).split())
    ):
        found = re.findall(r"`(\w+)`", clause)
        begins = re.match(r"(?:`\w+`(?:, | and )?)+ (?:is|are|says) ", clause)
        text = clause[begins.end() :] if begins else clause
        for name in found:
            meanings.setdefault(name, text.replace("`", ""))
    return meanings


def _options(kind: Callable[..., object], doc: str) -> Table:
    """A table of a suite's options, defaults and meanings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("meaning")
    hints, meanings = annotations(kind), option_meanings(doc)
    factories = {
        field.name: field.default_factory
        for field in (fields(kind) if is_dataclass(kind) else ())
        if field.default_factory is not MISSING
    }
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = factories[name]() if name in factories else parameter.default
        value = "required" if default is parameter.empty else _toml(default)
        text = meanings.get(name) or in_words(hints.get(name, object))
        table.add_row(name, escape(value), escape(text))
    return table


def evaluations(found: Mapping[str, Evaluation], console: Console) -> None:
    """Print success, score, turns, tokens and invalid turns by policy and task family, each with its
    interval, the suite's own numbers, and differences in success on the same tasks."""
    first = next(iter(found.values()))
    panel = first.panel
    title = f"{len(panel.tasks)} tasks of {panel.split!r}, {described(panel)}"
    console.print(title, soft_wrap=True, highlight=False)
    table = Table()
    for column in ("", *found):
        table.add_column(column)
    rows = [played(evaluation) for evaluation in found.values()]
    whole, families = [measured(each) for each in rows], [by_family(each) for each in rows]
    names = list(families[0])
    for measure, label in LABELS.items():
        if not any(measure in each for each in whole) or _is_success(measure, whole):
            continue
        table.add_row(label, *(_cell(measure, each.get(measure)) for each in whole))
        for family in names if measure in ("success", "score") else ():
            cells = [_cell(measure, each.get(family, {}).get(measure)) for each in families]
            table.add_row(f"  {family}", *cells)
    for name, cells in _numbers(list(found.values())):
        table.add_row(name, *cells)
    broken = [sum(e.stop.broken for e in each.episodes) for each in found.values()]
    table.add_row("broken episodes", *map(str, broken))
    console.print(table)
    names = list(found)
    for name in names[1:]:
        gap, low, high = _difference(found[names[0]], found[name])
        verdict = "" if low > 0 or high < 0 else ": not distinguishable"
        console.print(
            f"{name} against {names[0]}: {100 * gap:+.1f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f}) on the same tasks{verdict}",
            soft_wrap=True,
        )


LABELS = {
    "success": "success",
    "score": "score",
    "turns": "turns per episode",
    "tokens": "tokens per episode",
    "invalid": "invalid turns",
}


def _is_success(measure: str, whole: Sequence[Mapping[str, Measure]]) -> bool:
    """Whether it is the score, and nothing but success in other words."""
    return measure == "score" and all(
        "score" not in each or each["score"].mean == each["success"].mean for each in whole
    )


def _cell(measure: str, found: Measure | None) -> str:
    """A measure with its interval, and a share of tasks with their number.

    >>> _cell("turns", Measure(mean=5.25, low=4.5, high=6.0, n=8))
    '5.25 (4.50 to 6.00)'
    >>> _cell("success", Measure(mean=0.25, low=0.09, high=0.53, n=12))
    '3/12 = 25 % (9 to 53 %)'
    """
    if found is None:
        return ""
    if measure in ("turns", "tokens"):
        digits = 2 if found.mean < 100 else 0
        high = f"{found.high:.{digits}f}" if math.isfinite(found.high) else "unknown"
        return f"{found.mean:.{digits}f} ({found.low:.{digits}f} to {high})"
    count = f"{found.mean * found.n:g}/{found.n} = " if measure == "success" else ""
    return f"{count}{rate(found.mean, found.low, found.high)}"


def _difference(a: Evaluation, b: Evaluation) -> tuple[float, float, float]:
    if a.repeats == b.repeats == 1:
        return paired(a.won, b.won)
    found = difference([a.outcomes], [b.outcomes])
    return found.mean, found.low, found.high


def _numbers(found: Sequence[Evaluation]) -> Iterator[tuple[str, list[str]]]:
    """Rows of the suite's own numbers."""
    for name in dict.fromkeys(name for e in found for name in e.summary):
        cells = [f"{e.summary[name]:.3g}" if name in e.summary else "" for e in found]
        yield name.replace("_", " "), cells
