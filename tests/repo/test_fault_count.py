"""The count of docs/reliability.md is that of its tables."""

import pytest

from scripts import count_faults

TEXT = """
| fault | expected | now | cases |
|---|---|---|---|
| before any section | refused | as expected | 3 |

## Kills

| fault | expected | now | cases |
|---|---|---|---|
| SIGKILL | the same bytes | as expected | 4 chains |
| a mark `a \\| b` | plain text | as expected | 6 x 5 |
| nothing counted | one sentence | as expected | - |

| setting | meaning |
|---|---|
| lr | 7 |

## Not as expected

- one
  which goes on
- two
"""


def test_cases_chains_and_limits_are_counted() -> None:
    rows = list(count_faults.rows(TEXT))
    assert [(r.section, r.cases, r.chains) for r in rows] == [
        ("", 3, False),
        ("Kills", 4, True),
        ("Kills", 30, False),
        ("Kills", 0, False),
    ]
    assert [r.answered for r in rows] == [True, False, False, True]
    assert len(count_faults.limits(TEXT)) == 2
    shown = count_faults.summary(TEXT)
    assert shown.startswith("33 cases in 4 kinds of faults, and 4 chains of kills. 3 of the cases")
    assert "| Kills | 3 | 30 | 4 |" in shown


@pytest.mark.parametrize("cell", ["many", "3 of 4", "", "-1"])
def test_a_row_without_a_count_is_refused(cell: str) -> None:
    text = TEXT.replace("6 x 5", cell)
    with pytest.raises(ValueError, match="give the number of cases"):
        list(count_faults.rows(text))


def test_every_section_of_the_page_is_counted() -> None:
    text = count_faults.PAGE.read_text(encoding="utf-8")
    sections = {row.section for row in count_faults.rows(text)}
    named = {line[3:].strip() for line in text.splitlines() if line.startswith("## ")}
    assert sections == named - {count_faults.LIMITS}
