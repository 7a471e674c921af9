"""The page on memory names every setting that saves some, with its default, and the page on models
those of sampling."""

from pathlib import Path

import pytest

from tutelage.config.schema import PolicySection, UpdateSection
from tutelage.config.toml_file import write_value

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "memory.md").read_text(encoding="utf-8")
MODELS = (DOCS / "policies.md").read_text(encoding="utf-8")
NAMED = ["lora", "quantize", "gradient_checkpointing", "dtype", "compile", "kernels"]


@pytest.mark.parametrize("name", NAMED)
def test_every_setting_of_a_policy_is_there_with_its_default(name: str) -> None:
    default = write_value(PolicySection.model_fields[name].default)
    assert f"| `policy.{name}` | `{default}` |" in PAGE


@pytest.mark.parametrize("name", ["rows", "cache", "fast"])
def test_every_setting_of_sampling_is_there_with_its_default(name: str) -> None:
    default = write_value(PolicySection.model_fields[name].default)
    assert f"| `policy.{name}` | `{default}` |" in MODELS


@pytest.mark.parametrize("name", ["offload", "tokens"])
def test_every_setting_of_the_update_is_there_with_its_default(name: str) -> None:
    assert (
        f"| `update.{name}` | `{write_value(UpdateSection.model_fields[name].default)}` |" in PAGE
    )
