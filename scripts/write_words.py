"""Write the table of words in docs/compose.md again, from the functions themselves."""

import argparse
from pathlib import Path

from tutelage.algorithms.expressions import table

MARK = "<!-- words -->\n"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "compose.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that is rewritten")
    page: Path = parser.parse_args().page
    before, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{page} has no line {MARK.strip()}, after which the table is written")
    page.write_text(f"{before}{MARK}\n{table()}", encoding="utf-8")


if __name__ == "__main__":
    main()
