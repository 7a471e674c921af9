"""Tables that stay readable in a narrow console."""

from itertools import zip_longest
from typing import Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

NARROWEST: Final = 12
"""Columns of the console that a column of a table has at least, if its longest word has."""


def print_table(console: Console, table: Table) -> None:
    """Print a table; where its columns do not fit side by side, every row as lines of a name and a
    value. Rich would leave columns out without saying so."""
    needed = 0
    for column in table.columns:
        cells = [column.header, *column.cells]
        sizes = [Measurement.get(console, console.options, cell) for cell in cells]
        # a word may be folded, a cell that is not wrapped may not
        short = min(NARROWEST, max(size.minimum for size in sizes))
        column.min_width = max(size.maximum for size in sizes) if column.no_wrap else short
        needed += column.min_width
    between = 2 if table.box is None else 3
    if needed + between * len(table.columns) <= console.width + (
        between if table.box is None else 0
    ):
        console.print(table)
        return
    if table.title:
        console.print(table.title)
    for k, row in enumerate(zip_longest(*(column.cells for column in table.columns), fillvalue="")):
        lines = Table(box=None, pad_edge=False, show_header=False)
        lines.add_column(style="bold", overflow="fold")
        lines.add_column(overflow="fold")
        for column, cell in zip(table.columns, row, strict=True):
            lines.add_row(column.header, cell)
        if k:
            console.print(Text())
        console.print(lines)
    if table.caption:
        console.print(table.caption)
