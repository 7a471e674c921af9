"""Tables as texts: what pandas' `DataFrame.to_string(index=False)` makes of them.

Searches answer with such tables, so agents see exactly what TravelPlanner shows. Every column,
its name included, is flush right; names of columns of numbers have a blank in front.
"""

import re
from collections.abc import Sequence

from tutelage_worlds.travelplanner.tables import HEADERS, Row, Value

_NUMBERED = re.compile(r"\d+ *\S")
_ESCAPES = str.maketrans({"\t": "\\t", "\r": "\\r", "\n": "\\n"})


def table(rows: Sequence[Row]) -> str:
    """Rows of one kind, at least one of them."""
    columns = [_column(values) for values in zip(*rows, strict=True)]
    heads = [
        f" {name}" if isinstance(rows[0][k], int | float) else name
        for k, name in enumerate(HEADERS[type(rows[0])])
    ]
    widths = [
        max(len(head), *map(len, column)) for head, column in zip(heads, columns, strict=True)
    ]
    lines = [heads, *zip(*columns, strict=True)]
    return "\n".join(
        " ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def _column(values: Sequence[Value]) -> list[str]:
    if any(isinstance(value, float) for value in values):
        cells = [f"{value:.6f}" for value in values]
        while all(cell.endswith("0") and cell[-2] != "." for cell in cells):
            cells = [cell[:-1] for cell in cells]
        return cells
    return [str(value).translate(_ESCAPES) for value in values]


def split(text: str, kind: type[Row]) -> list[tuple[str, ...]]:
    """The cells of a table of a kind, as texts; nothing where the text is no such table.

    Columns end where their names end. Blanks may be missing before the first name, and rows may
    have their numbers in front, as restaurants in TravelPlanner's reference information do.
    """
    head, *lines = text.split("\n")
    head = head.rjust(max(map(len, lines), default=0))
    ends, at = [], 0
    for name in HEADERS[kind]:
        at = head.find(name, at)
        if at < 0:
            return []
        at += len(name)
        ends.append(at)
    start = 0
    if all(_NUMBERED.match(line[: ends[0]]) for line in lines):
        start = max(len(line) - len(line.lstrip("0123456789")) for line in lines)
    starts = [start, *ends[:-1]]
    return [tuple(line[a:b].strip() for a, b in zip(starts, ends, strict=True)) for line in lines]
