"""What the command line prints: algorithms, environments and evaluations as tables."""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tutelage.algorithms import ALGORITHMS
from tutelage.algorithms.parameters import meanings
from tutelage.cli.progress import percent, rate
from tutelage.config.expressions import in_words
from tutelage.config.signature import annotations
from tutelage.config.toml_file import write_value
from tutelage.envs.registry import ADAPTERS, SUITES
from tutelage.evaluation.evaluate import Evaluation
from tutelage.evaluation.statistics import mean, paired
from tutelage.runs.assemble import algorithm_function, suite_class


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
    """What a method does, without its name and paper, which have columns of their own."""
    first = _first(doc)
    head, colon, tail = first.partition(": ")
    said = tail if colon and len(head) < 60 else re.sub(r"\s*\(arXiv:[^)]*\)", "", first)
    return said[:1].upper() + said[1:]


def algorithms(console: Console) -> None:
    """A row for each: its name, its paper and what it does."""
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
    """One algorithm: idea and formula, its settings, where to read on, a file to run."""
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
    """A docstring within a width: sentences flow, formulas keep their lines where they fit.

    >>> print(fill("One sentence that\\nis long.\\n\\n    L = a + b", 16))
    One sentence
    that is long.
    <BLANKLINE>
        L = a + b
    """
    made = []
    for part in text.split("\n\n"):
        lines = part.splitlines()
        if not any(line.startswith(" ") or " = " in line for line in lines):
            lines = [" ".join(lines)]
        for line in lines:
            indent = " " * (len(line) - len(line.lstrip()))
            more = indent + "    " if len(lines) > 1 or indent else ""
            made += textwrap.wrap(
                line, width, subsequent_indent=more, break_long_words=False, break_on_hyphens=False
            )
        made.append("")
    return "\n".join(made).strip("\n")


def settings(function: Callable[..., object]) -> Table:
    """An algorithm's settings with their defaults and what they mean."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("default")
    table.add_column("meaning")
    hints, meant = annotations(function), meanings(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "total_steps":
            default = parameter.default
            shown = "required" if default is parameter.empty else _toml(default)
            choices = _choices(hints.get(name, object))
            text = "; ".join(part for part in (choices, meant[name]) if part)
            table.add_row(name, escape(shown), escape(text))
    return table


def _choices(hint: object) -> str:
    """What a setting of few values may be; for all others the default shows the kind."""
    text = in_words(hint)
    return text if text.startswith('"') else ""


def _elsewhere(name: str) -> Iterator[tuple[str, str]]:
    """The page and the example of a method, where the repository is at hand."""
    root = Path(__file__).parents[3]
    pages = [f"docs/methods/{name}.md", f"docs/{name}.md"]
    files = [f"examples/household_{name}.toml"]
    yield from (("More", path) for path in pages if (root / path).is_file())
    yield from (("Example", f"tutelage train {path}") for path in files if (root / path).is_file())


def arguments(function: Callable[..., object]) -> Table:
    table = Table("setting", "default", "values")
    hints = annotations(function)
    for name, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        shown = "required" if default is parameter.empty else _toml(default)
        table.add_row(name, escape(shown), escape(in_words(hints.get(name, object))))
    return table


def _toml(value: object) -> str:
    """A default as it would be written in a file."""
    if value is None:
        return "none"
    return write_value(value) if isinstance(value, bool | int | float | str) else str(value)


def environments(console: Console) -> None:
    table = Table("suite", "what it is", "options", show_lines=True)
    for name in SUITES:
        kind = suite_class(name)
        options = arguments(kind)
        listed = [
            f"{column} = {default}"
            for column, default in zip(
                options.columns[0].cells, options.columns[1].cells, strict=True
            )
        ]
        table.add_row(name, escape(_first(inspect.getdoc(kind) or "")), "\n".join(listed))
    console.print(table)
    console.print(f"Other libraries' (docs/environments/your_own.md): {', '.join(ADAPTERS)}")
    console.print('Your own: env.suite = "package.module:Class"; tutelage check-env tests it')


def evaluations(found: Mapping[str, Evaluation], console: Console) -> None:
    """Success and score by policy and task family, each with its interval; the suite's own
    numbers; differences in success on the same tasks."""
    first = next(iter(found.values()))
    split, print_ = first.panel.split, first.panel.fingerprint
    table = Table(title=f"{len(first.episodes)} tasks of {split!r}, panel {print_}")
    for column in ("", *found):
        table.add_column(column)
    families = first.families()
    table.add_row("success", *(percent(sum(e.won), len(e.won)) for e in found.values()))
    for family in families if len(families) > 1 else ():
        cells = [e.families()[family] for e in found.values()]
        table.add_row(f"  {family}", *(percent(int(c[0]), int(c[1])) for c in cells))
    for name, shown in _numbers(list(found.values())):
        table.add_row(name, *shown)
    lines = [e.line(0, "") for e in found.values()]
    for name in ("turns", "invalid", "broken"):
        table.add_row(name, *(f"{float(str(line[name])):.3g}" for line in lines))
    console.print(table)
    names = list(found)
    for name in names[1:]:
        difference, low, high = paired(found[names[0]].won, found[name].won)
        verdict = "" if low > 0 or high < 0 else ": not distinguishable"
        console.print(
            f"{name} against {names[0]}: {100 * difference:+.1f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f}) on the same tasks{verdict}",
            soft_wrap=True,
        )


def _numbers(found: Sequence[Evaluation]) -> Iterator[tuple[str, list[str]]]:
    """Rows of scores, where they say more than success does, and of what the suite says."""
    if any(e.scores and e.scores != e.won for e in found):
        yield "score", [rate(*mean(e.scores)) if e.scores else "" for e in found]
        parts = [e.score_families() for e in found]
        families = list(dict.fromkeys(name for part in parts for name in part))
        for family in families if len(families) > 1 else ():
            cells = [rate(*part[family]) if family in part else "" for part in parts]
            yield f"  {family}", cells
    for name in dict.fromkeys(name for e in found for name in e.summary):
        cells = [f"{e.summary[name]:.3g}" if name in e.summary else "" for e in found]
        yield name.replace("_", " "), cells
