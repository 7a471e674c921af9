"""Write the table of words in docs/compose.md again, from the functions themselves."""

from pathlib import Path

from tutelage.algorithms.words import table

MARK = "<!-- words -->\n"


def main() -> None:
    page = Path(__file__).parents[1] / "docs" / "compose.md"
    head, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise SystemExit(f"{page} has no line {MARK.strip()}, after which the table is written")
    page.write_text(f"{head}{MARK}\n{table()}", encoding="utf-8")


if __name__ == "__main__":
    main()
