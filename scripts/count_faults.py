"""Count the cases of docs/reliability.md from its tables: `python scripts/count_faults.py`."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
HEADER = ("fault", "expected", "now", "cases")
LIMITS = "Not as expected"
"""The section that lists what is not as expected, one item each."""
CASES = re.compile(r"(?P<count>\d+)(?: x (?P<each>\d+))?(?P<chains> chains)?|-")
SENTENCE = re.compile(r"\b(refused|sentences?|reason|4xx|named|names|detected)\b")
"""Of a row whose cases are answered in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """A fault and its cases; `chains` are chains of kills rather than single faults."""

    section: str
    fault: str
    expected: str
    now: str
    cases: int
    chains: bool

    @property
    def answered(self) -> bool:
        """Whether an error in words is what was expected."""
        return SENTENCE.search(f"{self.expected} {self.now}") is not None


def rows(text: str) -> Iterator[Row]:
    """The rows of every table with the columns of HEADER. Raises ValueError for a row without a
    count."""
    section, counted = "", False
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip()
        cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        if not line.startswith("|"):
            counted = False
        elif cells == HEADER:
            counted = True
        elif counted and not set(line) <= set("|- "):
            if len(cells) != len(HEADER) or not (found := CASES.fullmatch(cells[-1])):
                raise ValueError(
                    f"a row of {section!r} ends with {cells[-1]!r}; give the number of cases, such "
                    "as 12, 6 x 512 or 4 chains, or - where none is counted"
                )
            cases = int(found["count"] or 0) * int(found["each"] or 1)
            yield Row(section, cells[0], cells[1], cells[2], cases, bool(found["chains"]))


def limits(text: str) -> list[str]:
    """What is not as expected."""
    _, _, rest = text.partition(f"\n## {LIMITS}\n")
    return [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("- ")]


def summary(text: str) -> str:
    """The counts as a paragraph and a table by section."""
    found = list(rows(text))
    single = [row for row in found if not row.chains]
    total, chains = sum(r.cases for r in single), sum(r.cases for r in found if r.chains)
    answered = sum(r.cases for r in single if r.answered)
    lines = [
        f"{total:,} cases in {len(found)} kinds of faults, and {chains} chains of kills. "
        f"{answered:,} of the cases are answered in words (refused, or counted with their "
        f"reason); in the other {total - answered:,} the right result comes out in spite of the "
        f"fault. {len(limits(text))} kinds are not as expected; the last section lists them.",
        "",
        "| section | kinds | cases | chains of kills |",
        "|---|---|---|---|",
    ]
    for section in dict.fromkeys(row.section for row in found):
        own = [row for row in found if row.section == section]
        cases = sum(row.cases for row in own if not row.chains)
        killed = sum(row.cases for row in own if row.chains)
        lines.append(f"| {section} | {len(own)} | {cases:,} | {killed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(summary(PAGE.read_text(encoding="utf-8")))
