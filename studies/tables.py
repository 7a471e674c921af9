"""Numbers and tables of a study's page, in Markdown."""

from collections.abc import Sequence

from tutelage.evaluation.statistics import Estimate


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows])


def percent(x: float) -> str:
    return f"{100 * x:.1f} %"


def ends(found: Estimate) -> str:
    return f"{100 * found.low:.1f} to {100 * found.high:.1f} %"


def signed(found: Estimate) -> str:
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def count(n: float) -> str:
    """A number of tokens, short.

    >>> count(0), count(950), count(123_456), count(2_345_678)
    ('0', '950', '123 k', '2.35 M')
    """
    if n < 1000:
        return f"{n:.0f}"
    return f"{n / 1e3:.0f} k" if n < 1e6 else f"{n / 1e6:.2f} M"
