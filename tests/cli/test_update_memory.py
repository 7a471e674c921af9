"""Memory of an update on paper against a count of live tensors, with the shapes of real models."""

from dataclasses import replace

import pytest
from support.live_bytes import counted
from support.real_model import installed

from tutelage.cli import update_memory
from tutelage.cli.model_sizes import KNOWN, Shape
from tutelage.config.schema import PolicySection

SMOLLM2 = Shape(
    vocab=49_152,
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    ffn=1536,
    context=8192,
    tied=True,
)
GPU, CPU, WIDE = "bfloat16 on a GPU", "float32 on a CPU", "float32 on a GPU"


@pytest.fixture
def own_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are counted on the CPU, which compiles nothing."""
    monkeypatch.setattr(update_memory, "MIN_ELEMENTS", 1 << 60)


@pytest.mark.parametrize(
    ("shape", "where", "tokens", "lora", "recompute"),
    [
        (KNOWN["Qwen3-0.6B"], GPU, 16_384, 0, False),
        (KNOWN["Qwen3-1.7B"], GPU, 8192, 0, True),
        (KNOWN["Qwen3-4B"], GPU, 16_384, 16, True),
        (KNOWN["Qwen2.5-3B"], GPU, 16_384, 0, True),
        (KNOWN["Qwen2.5-7B"], GPU, 8192, 16, False),
        (KNOWN["Qwen3-0.6B"], WIDE, 8192, 0, False),
        (KNOWN["Qwen3-0.6B"], CPU, 1024, 0, False),
        (SMOLLM2, CPU, 2048, 16, False),
        (SMOLLM2, CPU, 2048, 0, True),
    ],
)
def test_an_update_takes_what_is_predicted(
    shape: Shape, where: str, tokens: int, lora: int, recompute: bool, own_kernels: None
) -> None:
    """Within a tenth, gradients included."""
    predicted, found = both(replace(shape, layers=2), where, tokens, lora, recompute)
    assert predicted == pytest.approx(found, rel=0.1)


def test_a_layer_adds_what_is_predicted(own_kernels: None) -> None:
    few, many = (both(replace(KNOWN["Qwen3-1.7B"], layers=layers), GPU, 8192) for layers in (2, 8))
    assert many[0] - few[0] == pytest.approx(many[1] - few[1], rel=0.02)


def test_a_pass_that_is_too_short_for_fused_kernels_may_take_more() -> None:
    """A pass of up to 4,096 tokens has a few less, and tensors of Qwen3-1.7B then no 2^23 elements."""
    shape, section = KNOWN["Qwen3-1.7B"], PolicySection(model="any", dtype="bfloat16", lora=16)
    of = [update_memory.layer(shape, section, gpu=True, tokens=n) for n in (4096, 4095)]
    assert of[1] - of[0] == (6 + 4) * 2048  # casts of norms, and queries in float32
    passes = [update_memory.beside(shape, section, n, gpu=True) for n in (4096, 4095)]
    assert passes[0] == passes[1]
    assert update_memory.beside(shape, section, 8192, gpu=True) > 1.5 * passes[0]


def test_a_card_took_what_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training Qwen3-1.7B on an H100 in passes of 8,192 tokens, weights and moments included:
    64.07 GB with the model's own elementwise kernels, 52.34 GB with fused ones (torch 2.11)."""
    shape, section = KNOWN["Qwen3-1.7B"], PolicySection(model="any", dtype="bfloat16")
    state = 16 * shape.parameters()
    fused = state + update_memory.beside(shape, section, 8192, gpu=True)
    monkeypatch.setattr(update_memory, "MIN_ELEMENTS", 1 << 60)
    own = state + update_memory.beside(shape, section, 8192, gpu=True)
    assert own == pytest.approx(64.07e9, rel=0.02)
    assert fused == pytest.approx(52.34e9, rel=0.02)


def both(
    shape: Shape, where: str, tokens: int, lora: int = 0, recompute: bool = False
) -> tuple[int, int]:
    """Bytes beside the weights, predicted and counted."""
    if lora and not installed("peft"):
        pytest.skip("needs peft")
    section = PolicySection(
        model="any",
        dtype="bfloat16" if where == GPU else "float32",
        lora=lora,
        gradient_checkpointing=recompute,
    )
    found = counted(
        shape,
        tokens=tokens,
        row=tokens // 4,
        gpu=where != CPU,
        lora=lora,
        dtype=section.dtype,
        gradient_checkpointing=recompute,
    )
    predicted = update_memory.beside(shape, section, tokens, gpu=where != CPU)
    return predicted + 4 * shape.trained(section), found
