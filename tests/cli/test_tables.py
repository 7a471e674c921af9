"""Tables in a narrow console: every value is there, whatever the width."""

import io
import itertools

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage.cli.tables import print_table

HEADERS = ("run", "method", "tasks solved")
ROWS = [
    ("runs/a-first-one", "grpo", "7 % (0 to 49 %), n = 4"),
    ("runs/b", "sdar", "9 % (3 to 8 %)"),
]


def printed(width: int, *, box: bool = False) -> str:
    table = Table(title="Runs") if box else Table(box=None, pad_edge=False)
    for name in HEADERS:
        table.add_column(name, overflow="fold", no_wrap=name == "tasks solved")
    for row in ROWS:
        table.add_row(*row[:2], Text(row[2]))
    out = io.StringIO()
    print_table(Console(file=out, width=width), table)
    return out.getvalue()


@pytest.mark.parametrize(("width", "box"), [*itertools.product([20, 30, 40, 50, 80, 200], [0, 1])])
def test_no_value_is_left_out(width: int, box: int) -> None:
    text = printed(width, box=bool(box))
    assert max(map(len, text.splitlines())) <= width
    dense = "".join(c for c in text if not c.isspace() and c not in "│┃")
    for row in ROWS:
        for value in row[1:]:
            assert value.replace(" ", "")[:6] in dense
    assert "runs/b" in dense


def test_a_wide_console_has_a_line_for_each_row() -> None:
    assert [line.split()[:2] for line in printed(80).splitlines()][1:] == [
        ["runs/a-first-one", "grpo"],
        ["runs/b", "sdar"],
    ]
    assert printed(30).split("\n\n")[1].split()[:4] == ["run", "runs/b", "method", "sdar"]
