"""Linear layers of one input as one product."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from tutelage.policies.hf import joined
from tutelage.policies.hf.memory import ActingCopy

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
KINDS = ["Llama", "Qwen2", "Qwen3", "Gemma2", "Olmo2", "Granite"]
IDS = (torch.arange(24) * 7 % 59 + 1)[None]


def model_of(kind: str) -> Any:
    """Of random weights and biases, frozen."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.add_(0.3 * torch.randn_like(p))
    return model


@torch.no_grad()
def hidden(model: Any) -> Tensor:
    """As a pass that samples computes it."""
    with joined.used():
        states: Tensor = model.model(input_ids=IDS, use_cache=False).last_hidden_state
    return states


def products(model: Any) -> int:
    """Linear products of a forward pass."""
    count, linear = 0, nn.functional.linear

    def counted(*args: Any) -> Tensor:
        nonlocal count
        count += 1
        return linear(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "linear", counted)
        hidden(model)
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_a_joined_model_gives_the_same_numbers(kind: str) -> None:
    model = model_of(kind)
    names, wanted = list(model.state_dict()), hidden(model)
    held = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()
    }
    assert products(model) == 2 * 7
    joined.join(model.model)
    assert products(model) == 2 * 4
    assert_close(hidden(model), wanted, atol=1e-5, rtol=1e-5)
    assert list(model.state_dict()) == names
    after = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()
    }
    assert sum(after.values()) == sum(held.values())  # nothing is held twice


def test_whoever_writes_to_a_parameter_writes_to_the_joined_weight() -> None:
    model, other = model_of("Qwen2"), model_of("Qwen2")
    joined.join(model.model)
    for of in (model, other):
        for layer in of.model.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.k_proj.weight.flip(0))
            layer.self_attn.v_proj.bias.add_(1)
            layer.mlp.up_proj.weight.mul_(0.5)
    assert_close(hidden(model), hidden(other), atol=1e-5, rtol=1e-5)
    assert products(model) == 2 * 4


def test_parts_are_of_the_input_that_each_is_given() -> None:
    """In any order, of any inputs, with a part that nobody asks for."""
    torch.manual_seed(0)
    one, two = torch.randn(5, 8), torch.randn(3, 8)
    block = nn.Module()
    for name in ("q_proj", "k_proj", "v_proj"):
        block.register_module(name, nn.Linear(8, 4 if name == "q_proj" else 2))
    block.requires_grad_(False)
    own = copy.deepcopy(block)
    joined.join(block)
    asked = [("q_proj", one), ("k_proj", two), ("q_proj", one), ("v_proj", one), ("v_proj", one)]
    with torch.no_grad(), joined.used():
        for name, x in asked:
            assert_close(getattr(block, name)(x), getattr(own, name)(x))


def test_nothing_is_held_after_a_pass() -> None:
    model = model_of("Qwen3")
    joined.join(model.model)
    hidden(model)
    for layer in model.model.layers:
        assert layer.self_attn.q_proj.product.x is None
        assert layer.mlp.up_proj.product.parts == {}


@pytest.mark.parametrize("shared", [True, False])
def test_a_deep_copy_has_its_own_weights_or_those_that_it_shares(shared: bool) -> None:
    model = model_of("Llama")
    joined.join(model.model)
    memo = {id(p): p for p in model.parameters()} if shared else {}
    other = copy.deepcopy(model, memo)
    wanted = hidden(model)
    assert_close(hidden(other), wanted, atol=1e-5, rtol=1e-5)
    model.model.layers[0].self_attn.k_proj.weight.zero_()
    changed = float((hidden(other) - wanted).abs().max()) > 0.01
    assert changed == shared


def test_layers_that_are_trained_or_not_alike_stay_as_they_are() -> None:
    trained = model_of("Llama").requires_grad_(True)
    joined.join(trained.model)
    assert products(trained) == 2 * 7
    of = model_of("Llama")
    for layer in of.model.layers:
        layer.self_attn.k_proj.weight.data = layer.self_attn.k_proj.weight.data.bfloat16()
        layer.mlp.up_proj = nn.Sequential(layer.mlp.up_proj)  # as an adapter wraps it
    joined.join(of.model)
    assert not any("forward" in vars(module) for module in of.modules())


def test_a_pass_that_scores_is_left_alone() -> None:
    """To the bit, and with its gradient."""
    model, x = model_of("Qwen2"), torch.randn(1, 24, 32)
    found = []
    for _ in range(2):
        given = x.clone().requires_grad_(True)
        states = model.model(inputs_embeds=given, use_cache=False).last_hidden_state
        states.sum().backward()
        found.append((states.detach(), given.grad))
        joined.join(model.model)
    for one, other in zip(*found, strict=True):
        assert other is not None
        assert one is not None
        assert torch.equal(one, other)


def test_a_joined_model_is_written_whole(tmp_path: Path) -> None:
    model = model_of("Qwen2")
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    joined.join(model.model)
    save_file(model.model.state_dict(), tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], value) for name, value in before.items())


def test_an_acting_copy_is_joined_and_follows_the_trained_weights() -> None:
    model = model_of("Qwen2").requires_grad_(True)
    acting = ActingCopy(model.model)
    joined.join(acting.base)

    class Acting:
        model = acting.base

    def states(of: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return hidden(of).float()

    assert_close(states(Acting), states(model), atol=0.1, rtol=0.05)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    moved = states(model)
    apart = (states(Acting) - moved).norm() / moved.norm()
    acting.refresh()
    near = (states(Acting) - moved).norm() / moved.norm()
    assert near < 0.02 < apart
