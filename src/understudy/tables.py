"""What the command line prints: algorithms, environments and evaluations as tables."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from understudy.algorithms import ALGORITHMS
from understudy.arguments import annotations, describe
from understudy.build import SUITES, algorithm_function, suite_class
from understudy.configfile import write_value
from understudy.evaluate import Evaluation, paired
from understudy.progress import percent


def _module_doc(function: Callable[..., object]) -> str:
    return inspect.cleandoc(sys.modules[function.__module__].__doc__ or "")


def _first(text: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(text.split("\n\n")[0].split())


def _paper(doc: str) -> str:
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", doc)
    return f"arxiv.org/abs/{found.group(1)}" if found else ""


def algorithms(console: Console) -> None:
    table = Table("name", "what it is", "paper")
    for name, function in ALGORITHMS.items():
        doc = _module_doc(function)
        table.add_row(name, escape(_first(doc)), _paper(doc))
    console.print(table)
    console.print("understudy algorithms NAME shows an algorithm's settings")


def algorithm(name: str, console: Console) -> None:
    """One algorithm: its text, its arguments with their defaults."""
    function = algorithm_function(name, where="algorithm")
    console.print(escape(_module_doc(function)), highlight=False)
    if function.__doc__:
        console.print("\n" + escape(inspect.cleandoc(function.__doc__)), highlight=False)
    console.print(f'\n[bold]\\[algorithm][/bold]\nname = "{name}"', highlight=False)
    table = arguments(function, without=("total_steps",))
    console.print(table if table.row_count else "It takes no settings.")


def arguments(function: Callable[..., object], *, without: tuple[str, ...] = ()) -> Table:
    table = Table("setting", "default", "values")
    hints = annotations(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in without:
            default = parameter.default
            shown = "required" if default is parameter.empty else _toml(default)
            table.add_row(name, escape(shown), escape(describe(hints.get(name, object))))
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
    console.print('Your own: env.suite = "package.module:Class"; understudy check-env tests it')


def evaluations(found: Mapping[str, Evaluation], console: Console) -> None:
    """Success by policy and task family, each with its interval; differences on the same tasks."""
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
