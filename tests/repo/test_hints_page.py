"""The page on hints names everything that a hint can be."""

from pathlib import Path

import pytest

from tutelage.config.schema import EvalSection, HintsSection
from tutelage.config.toml_file import write_value
from tutelage.hints import KINDS
from tutelage.hints.bank import built_in
from tutelage.hints.retrieval import RETRIEVALS
from tutelage.objective.penalties import LEAKED, leakage

PAGE = (Path(__file__).parents[2] / "docs/hints.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*KINDS, *RETRIEVALS, *built_in()])
def test_every_kind_retrieval_and_bank_has_its_row(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_every_setting_is_there_with_its_default() -> None:
    for name, field in HintsSection.model_fields.items():
        assert f"| `hints.{name}` | `{write_value(field.default)}` |" in PAGE
    assert EvalSection.model_fields["hint"].default == ""
    assert '| `eval.hint` | `""` |' in PAGE


def test_the_words_that_leak_are_listed() -> None:
    assert all(word in (leakage.__doc__ or "") for word in LEAKED)
