"""Elementwise parts of layers, exchanged for formulas that a GPU compiles to few kernels."""

import copy
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage.policies.hf import architecture, fused, joined, memory

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
KINDS = ["Llama", "Qwen2", "Qwen3", "Mistral", "Olmo2", "Gemma2", "Granite", "Glm4", "Cohere"]
TYPES = {torch.float32: None, torch.bfloat16: torch.bfloat16}


def model_of(kind: str) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def layers_of(model: Any) -> nn.ModuleList:
    return memory.layers_of(model.model, architecture.text_config(model.config))


def hidden(model: Any, dtype: torch.dtype, ids: Tensor | None = None) -> Tensor:
    ids = (torch.arange(24) * 7 % 59 + 1)[None] if ids is None else ids
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        states: Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state
    return states


@pytest.fixture(autouse=True)
def always() -> Iterator[None]:
    """Compiled functions of these tests alone, for small tensors too."""
    fused._functions.clear()
    with fused.used_always():
        yield
    fused._functions.clear()


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formulas as they are written: whether they are right, not whether they are fast."""
    monkeypatch.setattr(fused, "compiled", lambda function: function)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_fused_layers_give_the_same_bits(kind: str, dtype: torch.dtype, uncompiled: None) -> None:
    model = model_of(kind)
    with torch.no_grad():
        wanted = hidden(model, dtype)
        exchanged = fused.fuse([*layers_of(model), model.model.norm], low=TYPES[dtype])
        assert exchanged
        exact = kind not in ("Gemma2", "Cohere")  # whose norms are of another formula
        assert ("forward" in vars(model.model.norm)) == exact
        assert torch.equal(hidden(model, dtype), wanted)
        fused.undo(exchanged)
        assert not any("forward" in vars(module) for module in model.modules())
        assert torch.equal(hidden(model, dtype), wanted)


def test_every_elementwise_part_of_a_common_layer_is_exchanged(uncompiled: None) -> None:
    exchanged = fused.fuse(layers_of(model_of("Qwen3")), low=torch.bfloat16)
    names = [type(module).__name__ for module in exchanged]
    assert {name: names.count(name) for name in names} == {
        "Qwen3RMSNorm": 8,
        "Qwen3Attention": 2,
        "Qwen3MLP": 2,
    }


def test_a_norm_before_linear_layers_writes_what_they_read(uncompiled: None) -> None:
    model = model_of("Llama")
    layer = layers_of(model)[0]
    fused.fuse(layers_of(model), low=torch.bfloat16)
    assert layer.input_layernorm(torch.randn(1, 3, 32)).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["Olmo2", "Gemma2"])
def test_a_norm_whose_sum_goes_on_stays_in_float32(kind: str, uncompiled: None) -> None:
    model = model_of(kind)
    layer = layers_of(model)[0]
    fused.fuse(layers_of(model), low=torch.bfloat16)
    assert layer.post_attention_layernorm(torch.randn(1, 3, 32)).dtype == torch.float32


def test_another_formula_is_not_exchanged(uncompiled: None) -> None:
    """Gemma's norm multiplies by 1 + w."""
    model = model_of("Gemma2")
    exchanged = fused.fuse(layers_of(model), low=None)
    assert not any("Norm" in type(module).__name__ for module in exchanged)


def test_a_copy_computes_with_its_own_weights(uncompiled: None) -> None:
    model = model_of("Qwen3")
    fused.fuse(layers_of(model), low=None)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        wanted = hidden(twin, torch.float32)
        for p in model.parameters():
            p.zero_()
        assert torch.equal(hidden(twin, torch.float32), wanted)
        assert float(hidden(model, torch.float32).abs().max()) == 0


def test_small_tensors_are_left_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a pass is recorded: a call costs more than it saves."""
    calls: list[int] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            calls.append(1)
            return function(*args)

        return called

    monkeypatch.setattr(fused, "compiled", watched)
    model = model_of("Qwen3")
    fused.fuse(layers_of(model), low=None)
    parts = 2 * (4 + 1 + 1)  # of two layers: norms, rotary positions, the MLP
    with torch.no_grad():
        hidden(model, torch.float32)
        assert len(calls) == parts
        token = fused._always.set(False)
        hidden(model, torch.float32)
        assert len(calls) == parts
        monkeypatch.setattr(fused, "MIN_ELEMENTS", 24 * 48)  # what the MLP's product has
        hidden(model, torch.float32)
        assert len(calls) == parts + 2
        fused._always.reset(token)


def test_two_models_share_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    count: list[Any] = []
    monkeypatch.setattr(fused, "compiled", lambda function: count.append(1) or function)
    for _ in range(2):
        fused.fuse(layers_of(model_of("Qwen3")), low=None)
    assert len(count) == 4  # norms of two widths, rotary positions, the MLP


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_gradients_are_the_same(dtype: torch.dtype, uncompiled: None) -> None:
    """Under autocast but for a rounding: what three linear layers send back to a norm is added up
    in their dtype, not in float32."""
    models = [model_of("Qwen3") for _ in range(2)]
    fused.fuse(layers_of(models[0]), low=TYPES[dtype])
    assert apart(*(gradient(m, dtype) for m in models)) < (1e-6 if dtype == torch.float32 else 0.01)


def gradient(model: Any, dtype: torch.dtype) -> Tensor:
    hidden(model, dtype).float().square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).float().norm() / other.float().norm())


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_compiled_they_give_the_same_numbers_and_gradients(dtype: torch.dtype) -> None:
    """By torch's compiler for CPUs, for one token and for many, with and without gradients."""
    models = [model_of("Qwen3") for _ in range(2)]
    fused.fuse([*layers_of(models[0]), models[0].model.norm], low=TYPES[dtype])
    close = 1e-4 if dtype == torch.float32 else 0.05
    with torch.no_grad():
        assert apart(*(hidden(m, dtype) for m in models)) < close
        one = torch.tensor([[5]])
        assert apart(*(hidden(m, dtype, one) for m in models)) < close
    assert apart(*(gradient(m, dtype) for m in models)) < close
    # parts of a joined product, which do not lie in one piece
    with torch.no_grad(), joined.used():
        models[0].requires_grad_(False)
        joined.join(models[0].model)
        assert apart(*(hidden(m, dtype) for m in models)) < close
        assert apart(*(hidden(m, dtype, one) for m in models)) < close
