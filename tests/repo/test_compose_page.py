"""docs/compose.md: its table of words is the functions', and its examples run."""

import tomllib
from pathlib import Path

from support.fake_steps import parts, world

from tutelage.algorithms import expressions
from tutelage.config.schema import AlgorithmSection
from tutelage.runs.phases import algorithm_of

ROOT = Path(__file__).parents[2]


def test_the_documentation_lists_every_word() -> None:
    text = (ROOT / "docs" / "compose.md").read_text(encoding="utf-8")
    _, mark, rest = text.partition("<!-- words -->\n")
    assert mark
    assert rest.strip() == expressions.table().strip(), "stale: run `python scripts/write_words.py`"


def test_the_examples_in_the_documentation_are_true() -> None:
    text = (ROOT / "docs" / "compose.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```toml\n")[1:]]
    assert blocks
    for block in blocks:
        section = tomllib.loads(block)["algorithm"]
        made = algorithm_of(AlgorithmSection.model_validate(section), 100, where="algorithm")
        assert parts(made, world(0))
