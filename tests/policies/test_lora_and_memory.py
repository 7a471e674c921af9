"""What saves memory changes no number, or by as much as is said: each beside its slow twin."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from policies.test_hf import conversations, flat, gradients
from support.tiny_models import policy, run, small_chat, tiny
from torch import Tensor, nn
from torch.testing import assert_close

from tutelage.cli import model_sizes
from tutelage.config.schema import PolicySection
from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf import lora as adapters
from tutelage.policies.hf import memory as layers
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.lora import ALPHA, Adapters
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import build_model

RANK = 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base") / "model"
    policy().save(folder)
    return str(folder)


def logps(of: HFPolicy, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return of.score(flat(conversations(seed)), 0.8).logp


def trained(of: HFPolicy, steps: int = 2) -> HFPolicy:
    """After a few optimiser steps on random turns."""
    optimizer = torch.optim.AdamW(of.parameters(), lr=0.03)
    for k in range(steps):
        optimizer.zero_grad()
        of.score(flat(conversations(20 + k, count=2)), 1.0).logp.sum().backward()
        optimizer.step()
    return of


# -- adapters


def test_new_adapters_change_nothing_and_are_all_that_is_trained(saved: str) -> None:
    pytest.importorskip("peft")
    of = load(saved, lora=RANK)
    assert torch.equal(logps(of), logps(load(saved)))
    names = [name for name, p in of.model.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 7 * 2  # A and B of seven products in two layers
    assert all("lora_" in name for name in names)
    assert sum(p.numel() for p in of.parameters()) < sum(p.numel() for p in of.model.parameters())
    once, again, other = (load(saved, lora=RANK, seed=k).adapters for k in (1, 1, 2))
    assert once is not None
    assert again is not None
    assert other is not None
    for name, x in once.tensors().items():
        assert torch.equal(x, again.tensors()[name])
        assert torch.equal(x, other.tensors()[name]) == ("lora_B" in name)


def test_sizes_on_paper_are_those_of_the_models(saved: str) -> None:
    pytest.importorskip("peft")
    of, shape = load(saved, lora=RANK), model_sizes.read(Path(saved))
    assert shape is not None
    assert of.adapters is not None
    assert shape.adapters(RANK) == sum(x.numel() for x in of.adapters.tensors().values())
    products = [p for n, p in load(saved).model.named_parameters() if "_proj" in n]
    assert shape.linear() == sum(p.numel() for p in products)
    for lora in (RANK, 0):
        section = PolicySection(model=saved, lora=lora, dtype="bfloat16")
        low = load(saved, lora=lora, dtype="bfloat16")
        run(low, [Request(key="a", prompt=(10, 11), seed=0, max_new=2)])
        assert low.acting_copy is not None
        every = {id(p): p for m in (low.model, low.acting_copy.base) for p in m.parameters()}
        stored = sum(p.numel() * p.element_size() for p in every.values())
        assert shape.weights(section, frozen=False) == stored
        assert shape.trained(section) == sum(p.numel() for p in low.parameters())


def test_adapted_weights_are_the_sum_of_the_formula(saved: str) -> None:
    """W + (ALPHA / rank) B A, put into a plain model by hand: scores, and gradients of A and B."""
    pytest.importorskip("peft")
    of = trained(load(saved, lora=RANK))
    assert of.adapters is not None
    plain, product = tiny(), {}
    for name, x in of.adapters.tensors().items():
        place = name.removeprefix("base_model.model.").split(".lora_")[0]
        product.setdefault(place, {})["A" if "lora_A" in name else "B"] = x
    with torch.no_grad():
        for place, pair in product.items():
            plain.get_submodule(place).weight.add_(ALPHA / RANK * pair["B"] @ pair["A"])
    twin = HFPolicy(plain, small_chat())
    assert not torch.allclose(logps(of), logps(load(saved)), atol=0.05)
    assert_close(logps(of), logps(twin), atol=1e-4, rtol=1e-4)
    samples = flat(conversations(3, count=2))
    mine = gradients(of, of.score(samples, 1.0).logp.sum())
    dense = gradients(twin, twin.score(samples, 1.0).logp.sum())
    for place, pair in product.items():
        whole = dense[f"{place}.weight"]
        want = {"A": ALPHA / RANK * pair["B"].T @ whole, "B": ALPHA / RANK * whole @ pair["A"].T}
        for letter, g in want.items():
            adapter = mine[f"{place}.lora_{letter}.default.weight"]
            assert_close(adapter, g, atol=2e-3 * float(g.abs().max()), rtol=1e-2)


def test_a_folder_of_adapters_holds_nothing_else_and_comes_back(saved: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    of = trained(load(saved, lora=RANK))
    of.save(tmp_path / "one")
    of.save(tmp_path / "two")
    assert not (tmp_path / "one" / "model.safetensors").exists()
    assert {p.name for p in (tmp_path / "one").iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "config.json",
        "tokenizer.json",
    }
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    settings = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert settings["target_modules"] == sorted(settings["target_modules"])
    assert Path(settings["base_model_name_or_path"]).is_absolute()
    again = load(saved, lora=RANK, adapters=str(tmp_path / "one"), seed=9)
    assert torch.equal(logps(again), logps(of))
    whole = load(str(tmp_path / "one"))  # merged
    assert whole.adapters is None
    assert_close(logps(whole), logps(of), atol=1e-4, rtol=1e-4)
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}
    whole.save(tmp_path / "whole")
    assert torch.equal(logps(load(str(tmp_path / "whole"))), logps(whole))
    # adapters on top of what others made
    assert torch.equal(logps(load(str(tmp_path / "one"), lora=1)), logps(whole))


def test_adapters_that_do_not_fit_are_answered_with_a_sentence(saved: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    load(saved, lora=RANK).save(tmp_path)
    with pytest.raises(PolicyError, match=r"another model or rank.*set lora to the rank"):
        load(saved, lora=RANK + 1, adapters=str(tmp_path))
    with pytest.raises(PolicyError, match="tutelage export"):
        load(str(tmp_path), layers=1)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"?")
    with pytest.raises(PolicyError, match="could not be loaded"):
        load(saved, lora=RANK, adapters=str(tmp_path))
    with pytest.raises(PolicyError, match="could not be loaded"):
        load(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(PolicyError, match="does not name the model"):
        load(str(tmp_path))


@pytest.mark.parametrize("rank", [0, RANK])
def test_a_copy_stays_as_it_was_and_shares_what_is_never_trained(saved: str, rank: int) -> None:
    if rank:
        pytest.importorskip("peft")
    of = trained(load(saved, lora=rank))
    copy, before = of.copied(), logps(of)
    assert not any(p.requires_grad for p in copy.model.parameters())
    assert any(p.requires_grad for p in of.model.parameters())
    trained(of)
    assert torch.equal(logps(copy), before)
    assert not torch.equal(logps(of), before)
    own = {p.data_ptr() for p in of.model.parameters() if p.requires_grad}
    for p, q in zip(of.model.parameters(), copy.model.parameters(), strict=True):
        assert (p.data_ptr() == q.data_ptr()) == (p.data_ptr() not in own)
    assert copy.engine is not of.engine
    request = Request(key="a", prompt=tuple(range(10, 40)), seed=0, max_new=5)
    assert run(copy, [request])["a"] != run(of, [request])["a"]
    # the policy as it was teaches beside the one that learns: its head is not copied again
    with torch.no_grad():
        scores = copy.score(flat(conversations(1)), 1.0)
    assert scores.distribution.head.data_ptr() == copy.head.data_ptr()


def test_what_is_not_installed_is_named(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra, settings in (
        (adapters, r"\[lora\]", {"lora": 4}),
        (layers, r"\[lora\]", {"lora": 4, "quantize": "nf4"}),
    ):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        with pytest.raises(PolicyError, match=f"not installed; install it with.*{extra}"):
            load(saved, **settings)  # type: ignore[arg-type]


# -- 4 bits


def wide() -> HFPolicy:
    """Large enough for blocks of weights."""
    chat = small_chat()
    return HFPolicy(
        build_model(
            entries=chat.size,
            layers=2,
            hidden=64,
            heads=4,
            kv_heads=2,
            ffn=128,
            context=512,
            seed=0,
            end=chat.end,
            pad=0,
        ),
        chat,
    )


def test_a_model_too_narrow_for_4_bits_is_refused(saved: str) -> None:
    pytest.importorskip("bitsandbytes")
    with pytest.raises(PolicyError, match="keeps weights in blocks of 64"):
        load(saved, quantize="nf4")


def test_weights_in_4_bits_are_those_that_their_numbers_stand_for(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    saved = str(tmp_path / "wide")
    wide().save(Path(saved))
    of, exact = load(saved, lora=RANK, quantize="nf4"), load(saved)
    packed = {
        n: m
        for n, m in of.model.named_modules()
        if type(m).__name__ == "Linear4bit" and type(m).__module__.startswith("bitsandbytes")
    }
    assert len(packed) == 2 * 7
    plain = wide().model
    with torch.no_grad():
        for name, module in packed.items():
            # asked of the layer: how it packs them differs from processor to processor
            weights = module(torch.eye(module.in_features)).T.float()
            place = plain.get_submodule(name.removesuffix(".base_layer"))
            assert 0 < float((weights - place.weight).abs().max()) < float(place.weight.abs().max())
            place.weight.copy_(weights)
    assert_close(logps(of), logps(HFPolicy(plain, small_chat())), atol=2e-2, rtol=1e-2)
    assert float((logps(of) - logps(exact)).abs().mean()) < 1.0
    size = sum(m.weight.numel() * m.weight.element_size() for m in packed.values())
    whole = sum(p.numel() for n, p in exact.model.named_parameters() if "_proj" in n)
    assert size == whole / 2
    unadapted = logps(of)
    twin = HFPolicy(plain, small_chat(), adapters=Adapters(plain, rank=RANK, base="", seed=0))
    for mine, its in zip(of.parameters(), twin.parameters(), strict=True):
        with torch.no_grad():  # B begins as zeros, which let nothing through
            its.copy_(mine.copy_(0.1 * torch.randn(mine.shape)))
    samples = flat(conversations(3))
    theirs = gradients(twin, twin.score(samples, 1.0).logp.sum())
    weights = gradients(of, of.score(samples, 1.0).logp.sum())  # after passes without a gradient
    assert {n for n in weights if "lora_" in n} == set(theirs)
    for name, g in theirs.items():
        assert_close(weights[name], g, atol=3e-2 * float(g.abs().max()), rtol=1e-2)
    before = logps(of)
    copy = of.copied()
    assert {n for n, p in of.model.named_parameters() if p.requires_grad} == {
        n for n, _ in of.model.named_parameters() if "lora_" in n
    }
    trained(of)
    assert not torch.equal(logps(of), before)
    assert torch.equal(logps(copy), before)
    low = load(saved, quantize="nf4", dtype="bfloat16")
    low.freeze()
    assert {m.compute_dtype for m in low.model.modules() if type(m).__name__ == "Linear4bit"} == {
        torch.bfloat16
    }
    assert float((logps(low) - unadapted).abs().mean()) < 0.1


# -- layers computed again


class SavedForBackward:
    """Bytes that autograd keeps for the backward pass."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> "SavedForBackward":
        def keep(x: Tensor) -> Tensor:
            self.bytes += x.numel() * x.element_size()
            return x

        self.hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [0, RANK])
def test_layers_computed_again_give_the_same_gradient_bit_for_bit(
    saved: str, dtype: str, lora: int
) -> None:
    if lora:
        pytest.importorskip("peft")
    samples, grads, sizes = flat(conversations(6, count=2)), [], []
    for again in (False, True):
        of = load(saved, dtype=dtype, lora=lora, gradient_checkpointing=again)  # type: ignore[arg-type]
        with SavedForBackward() as counted:
            loss = of.score(samples, 0.7).logp.sum()
        sizes.append(counted.bytes)
        grads.append(gradients(of, loss))
        assert torch.equal(logps(of), logps(of))
    assert grads[0].keys() == grads[1].keys()
    for name, g in grads[0].items():
        assert torch.equal(g, grads[1][name]), name
    assert sizes[1] < sizes[0] / 3


def test_layers_computed_again_sample_and_copy_as_before(saved: str) -> None:
    plain, of = load(saved), load(saved, gradient_checkpointing=True)
    requests = [Request(key="a", prompt=tuple(range(10, 40)), seed=0, max_new=9)]
    assert run(of, requests) == run(plain, requests)
    copy = of.copied()
    trained(of)
    assert torch.equal(logps(copy), logps(plain))
    assert not torch.equal(logps(of), logps(plain))


def test_a_model_whose_layers_are_not_in_a_list_is_refused() -> None:
    with pytest.raises(PolicyError, match="gradient_checkpointing = false"):
        layers.checkpoint_layers(nn.Linear(2, 2), tiny().config)


# -- low precision


def test_frozen_weights_in_half_the_bytes_say_the_same(saved: str) -> None:
    of, low = load(saved, dtype="bfloat16"), load(saved, dtype="bfloat16")
    low.freeze()
    assert torch.equal(logps(of), logps(low))
    kinds = {n: p.dtype for n, p in low.model.named_parameters()}
    assert {kinds[n] for n in kinds if "_proj" in n} == {torch.bfloat16}
    assert {kinds[n] for n in kinds if "_proj" not in n} == {torch.float32}
    assert {p.dtype for p in of.model.parameters()} == {torch.float32}
    exact = load(saved)
    exact.freeze()
    assert {p.dtype for p in exact.model.parameters()} == {torch.float32}


def test_steps_too_small_for_low_precision_are_not_lost(saved: str) -> None:
    """In bfloat16 weights, 1 + 1e-4 is 1: many small steps would go nowhere."""
    of = load(saved, dtype="bfloat16")
    weight = of.model.model.layers[0].input_layernorm.weight
    optimizer = torch.optim.AdamW(of.parameters(), lr=1e-5, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        of.score(flat(conversations(1, count=1)), 1.0).logp.sum().backward()
        optimizer.step()
    assert torch.equal(weight.detach().bfloat16(), torch.ones_like(weight).bfloat16())
    assert (weight != 1).all()
    assert {x.dtype for s in optimizer.state.values() for x in s.values()} == {torch.float32}


def test_the_heads_product_and_softmax_are_in_float32(saved: str) -> None:
    of = load(saved, dtype="bfloat16")
    scores = of.score(flat(conversations(1, count=1)), 1.0)
    assert scores.distribution.hidden.dtype == torch.float32
    assert scores.distribution.head.dtype == torch.float32
    assert scores.logp.dtype == torch.float32


# -- compiled


@pytest.mark.nightly
def test_compiled_passes_score_the_same_and_sampling_is_not_compiled(
    saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    inner: Callable[..., Callable[..., object]] = partial(torch.compile, backend="eager")

    def watched(model: nn.Module, **settings: object) -> Callable[..., object]:
        compiled = inner(model, **settings)

        def call(**inputs: object) -> object:
            calls.append(1)
            return compiled(**inputs)

        return call

    monkeypatch.setattr(torch, "compile", watched)
    of, plain = load(saved, compiled=True), load(saved)
    samples = flat(conversations(2, count=2))
    grads = gradients(of, of.score(samples, 0.7).logp.sum())
    assert calls
    want = gradients(plain, plain.score(samples, 0.7).logp.sum())
    assert grads.keys() == want.keys()
    for name, g in want.items():
        assert_close(grads[name], g, atol=1e-5 * float(g.abs().max()), rtol=1e-4)
    assert_close(logps(of), logps(plain), atol=1e-5, rtol=1e-5)
    calls.clear()
    requests = [Request(key="a", prompt=tuple(range(10, 40)), seed=0, max_new=4)]
    assert run(of, requests) == run(plain, requests)
    assert not calls


def test_seeds_of_adapters_leave_other_random_numbers_alone(saved: str) -> None:
    pytest.importorskip("peft")
    model, before = tiny(), torch.get_rng_state()
    Adapters(model, rank=1, base="nowhere", seed=random.Random(0).randrange(9))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small Qwen3-MoE, whose experts are tensors of three dimensions."""
    from support.architectures import build

    folder = tmp_path_factory.mktemp("mixture")
    talk = small_chat()
    pad = talk.tokenizer.pad_token_id
    build("qwen3_moe", size=talk.size, end=talk.end, pad=pad).save_pretrained(folder)
    talk.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [0, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mixtures_weights_are_planned_as_they_are_held(
    lora: int, dtype: Any, mixture: Path
) -> None:
    if lora:
        pytest.importorskip("peft")
    section = PolicySection(model=str(mixture), lora=lora, dtype=dtype)
    shape = model_sizes.read(mixture)
    assert shape is not None
    student = load(str(mixture), lora=lora, dtype=dtype)
    trained_ = [p for p in student.model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained_) == shape.trained(section)
    if not lora:
        student.freeze()
    held = sum(p.numel() * p.element_size() for p in student.model.parameters())
    copied = 2 * shape.adapters(lora) if lora and dtype == "bfloat16" else 0
    assert shape.weights(section, frozen=not lora) == held + copied


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_adapters_of_experts_are_merged_too(mixture: Path, tmp_path: Path) -> None:
    """What a server of vLLM gets, against peft's own merging of a saved folder."""
    pytest.importorskip("peft")
    of = trained(load(str(mixture), lora=RANK))
    assert of.adapters is not None
    assert any("experts" in name for name in of.adapters.tensors())
    of.save(tmp_path)
    whole = load(str(tmp_path))
    expected, found = whole.model.state_dict(), dict(adapters.weights(of.model))
    assert set(found) == set(expected)
    base = load(str(mixture)).model.state_dict()
    assert any(not torch.equal(expected[n], base[n]) for n in expected if "experts" in n)
    for name, value in expected.items():
        assert_close(found[name], value, atol=1e-5, rtol=1e-5)
