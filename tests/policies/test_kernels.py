"""Liger's kernels are asked for by name, on a card only, without its losses. They are not run."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from runs.test_remote_runs import SHAPE, config, policies_of
from support.tiny_models import policy

from tutelage.config.schema import PolicySection
from tutelage.errors import ConfigError
from tutelage.policies.hf.policy import HFPolicy
from tutelage.runs.models import fuse

LIGER = PolicySection(model="x", kernels="liger")
NAMES = ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch")


def on_a_card() -> HFPolicy:
    of = policy()
    of.device = "cuda:0"  # as far as is asked
    return of


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How a fake of liger-kernel is called; as in the real one, what is left out is on."""
    made: list[dict[str, Any]] = []
    modules: list[Any] = [ModuleType(name) for name in NAMES]
    modules[1]._apply_liger_kernel_to_instance = lambda **given: made.append(given)
    modules[2].MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen3": None, "llama": None}
    for name, module in zip(NAMES, modules, strict=True):
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_its_layers_and_not_its_losses(called: list[dict[str, Any]]) -> None:
    of = on_a_card()
    assert fuse(of, LIGER, where="policy") is of
    (given,) = called
    assert given.pop("model") is of.model
    assert given == {
        "rope": True, "rms_norm": True, "swiglu": True,
        "cross_entropy": False, "fused_linear_cross_entropy": False,
    }  # fmt: skip


def test_it_is_off_by_default(called: list[dict[str, Any]]) -> None:
    fuse(on_a_card(), PolicySection(model="x"), where="policy")
    assert not called


def test_a_processor_has_none(called: list[dict[str, Any]]) -> None:
    with pytest.raises(
        ConfigError, match=r"policies\.a\.kernels .* cards, and policies\.a is on c"
    ):
        fuse(policy(), LIGER, where="policies.a")
    assert not called


def test_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    with pytest.raises(ConfigError, match=r"pip install 'tutelage\[liger\]'"):
        fuse(on_a_card(), LIGER, where="policy")


@pytest.mark.parametrize("built", [True, False])
def test_a_section_that_asks_for_it(built: bool, tmp_path: Path) -> None:
    policy().save(tmp_path / "model")
    source = {"build": SHAPE} if built else {"model": str(tmp_path / "model")}
    section = {**source, "kernels": "liger", "device": "cpu"}
    settings = config(tmp_path / "x", policies={"teacher": section})
    with pytest.raises(ConfigError, match=r"policies\.teacher\.kernels"):
        policies_of(settings)


def test_models_that_it_does_not_know(called: list[dict[str, Any]]) -> None:
    of = on_a_card()
    of.model.config.model_type = "other"
    with pytest.raises(ConfigError, match="none for models of type 'other'"):
        fuse(of, LIGER, where="policy")
    assert not called
