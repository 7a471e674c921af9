"""Mixtures of experts, and models that are never trained: in 16 bits before they are moved to a device,
in 4 bits, on a pretended GPU."""

import copy
import json
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from policies.test_plain_path import model, samples
from support.pretend_cuda import CudaTensor, pretend_cuda
from support.tiny_models import run, small_chat, words
from support.tiny_runs import tiny_file
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.cli.main import main
from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf import loading, memory
from tutelage.policies.hf.policy import HFPolicy

needs_bitsandbytes = pytest.mark.skipif(not find_spec("bitsandbytes"), reason="needs bitsandbytes")


def wide_mixture() -> Any:
    """With rows of whole blocks of 4 bits."""
    return model(
        "qwen3_moe",
        hidden_size=64,
        moe_intermediate_size=64,
        intermediate_size=128,
        head_dim=64,
    )


def saved(of: Any, folder: Path) -> str:
    of.save_pretrained(folder)
    words().save_pretrained(folder)
    return str(folder)


def test_a_mixtures_experts_are_halved_with_its_linear_layers() -> None:
    of = model("qwen3_moe")
    whole, half = HFPolicy(of, small_chat(), dtype="bfloat16"), copy.deepcopy(of)
    with torch.no_grad():
        before = whole.score(samples(), 1.0).logp
        frozen = HFPolicy(half.requires_grad_(False), small_chat(), dtype="bfloat16")
        after = frozen.score(samples(), 1.0).logp
        assert_close(after, before, atol=0.2, rtol=0.02)  # 8 bits of mantissa
    experts = [p for name, p in half.named_parameters() if "experts" in name]
    assert experts
    assert {p.dtype for p in experts} == {torch.bfloat16}


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen3_moe", "gemma2", "deepseek_v32", "falcon_mamba", "llama4"]
)
def test_a_model_that_is_never_trained_is_rounded_before_it_is_tried(
    name: str, tmp_path: Path
) -> None:
    """deepseek_v32 casts an input to the dtype in which it finds a weight, falcon_mamba reads weights of
    layers that it does not call, llama4 has no part without the LM head."""
    saved(model(name), tmp_path)
    whole = loading.load(str(tmp_path), dtype="bfloat16")
    whole.freeze()
    early = loading.load(str(tmp_path), dtype="bfloat16", frozen=True)
    early.freeze()
    assert early.path == whole.path
    dtypes = [{n: p.dtype for n, p in x.model.named_parameters()} for x in (whole, early)]
    assert dtypes[0] == dtypes[1]
    assert torch.bfloat16 in dtypes[0].values()
    assert not any(m._forward_pre_hooks for m in early.base.modules())
    with torch.no_grad():
        assert torch.equal(early.score(samples(), 1.0).logp, whole.score(samples(), 1.0).logp)


def test_a_model_that_does_not_run_in_bfloat16_is_refused() -> None:
    assert HFPolicy(model("dbrx"), small_chat()).dtype == "float32"
    with pytest.raises(PolicyError, match=r"DbrxForCausalLM in bfloat16 fails \(Runtime"):
        HFPolicy(model("dbrx"), small_chat(), dtype="bfloat16")


def test_rounded_weights_compute_in_float32_while_they_are_tried() -> None:
    of = model("qwen3_moe").requires_grad_(False)
    ids = torch.tensor([[11, 12, 13, 14, 15]])
    memory.cast_frozen_to_bfloat16(of)
    with memory.in_float32(of.model), pytest.raises(TypeError, match="no_such"):
        of.model.layers[0].mlp.experts(torch.zeros(1, 32), no_such=1)
    with memory.in_float32(of.model):
        found = of(input_ids=ids).logits
    low = {n for n, p in of.named_parameters() if p.dtype == torch.bfloat16}
    for parameter in of.parameters():
        parameter.data = parameter.data.float()
    assert_close(found, of(input_ids=ids).logits, atol=1e-6, rtol=1e-6)
    assert any("experts" in name for name in low)
    assert any("q_proj" in name for name in low)


@needs_bitsandbytes
def test_experts_in_4_bits_are_those_that_their_numbers_stand_for(tmp_path: Path) -> None:
    folder = saved(wide_mixture(), tmp_path)
    packed = loading.load(folder, quantize="nf4", frozen=True)
    packed.freeze()
    assert packed.path == "fast path"
    plain = wide_mixture()
    with torch.no_grad():
        for name, module in packed.model.named_modules():
            if name.endswith("experts"):
                for part in ("gate_up_proj", "down_proj"):
                    own, unpacked = plain.get_parameter(f"{name}.{part}"), getattr(module, part)
                    apart = float((unpacked - own).abs().max())
                    assert 0 < apart < 0.2 * float(own.abs().max())
                    own.copy_(unpacked)
            elif type(module).__name__ == "Linear4bit":
                weights = module(torch.eye(module.in_features)).T.float()
                plain.get_submodule(name).weight.copy_(weights)
        expected = HFPolicy(plain, small_chat()).score(samples(), 1.0).logp
        assert_close(packed.score(samples(), 1.0).logp, expected, atol=1e-3, rtol=1e-3)
        low = loading.load(folder, quantize="nf4", frozen=True, dtype="bfloat16")
        low.freeze()
        apart = (low.score(samples(), 1.0).logp - expected).abs()
        assert 0 < float(apart.mean()) < 0.1
    experts = sum(p.numel() for n, p in plain.named_parameters() if "experts" in n)
    in_bytes = sum(p.numel() for n, p in packed.model.named_parameters() if "experts" in n)
    assert in_bytes == experts / 2
    requests = [
        Request(key=str(k), prompt=tuple(range(20, 26 + 5 * k)), seed=k, max_new=4, temperature=0.8)
        for k in range(3)
    ]
    one, other = (run(x, requests) for x in (packed, HFPolicy(plain, small_chat())))
    assert {k: turn.tokens for k, turn in one.items()} == {k: t.tokens for k, t in other.items()}


@needs_bitsandbytes
def test_a_mixture_in_4_bits_takes_whole_blocks_and_no_adapters(tmp_path: Path) -> None:
    of = model("qwen3_moe", hidden_size=64, head_dim=64)
    narrow = saved(of, tmp_path / "narrow")
    with pytest.raises(PolicyError, match=r"the rows of .*, a mixture's experts, have 32"):
        loading.load(narrow, quantize="nf4")
    wide = saved(wide_mixture(), tmp_path / "wide")
    with pytest.raises(PolicyError, match="leave quantize or lora out"):
        loading.load(wide, quantize="nf4", lora=4)


class OnCuda(TorchDispatchMode):
    """The most bytes that tensors of the pretended GPU had at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakSet[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, CudaTensor):
                storage = value.host.untyped_storage()
                if storage not in self.seen:
                    self.seen.add(storage)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._freed, storage.nbytes())
        return result

    def _freed(self, size: int) -> None:
        self.now -= size


def test_a_gpu_never_holds_a_frozen_model_in_float32(tmp_path: Path) -> None:
    """The weights of a teacher of 30 billion parameters are 122 GB in float32 and 63 in bfloat16."""
    of = model("qwen3_moe", moe_intermediate_size=1024, num_hidden_layers=8)
    whole = 4 * sum(p.numel() for p in of.parameters())
    folder = saved(of, tmp_path)
    peaks, scores = [], []
    for frozen in (False, True):
        with pretend_cuda(), OnCuda() as counted:
            loaded = loading.load(folder, dtype="bfloat16", device="cuda", frozen=frozen)
            loaded.freeze()
            with torch.no_grad():
                scores.append(loaded.score(samples(), 1.0).logp.cpu())
        peaks.append(counted.peak)
    assert peaks[0] > whole
    # one layer's experts are in float32 while the model is tried; the rest are activations
    assert peaks[1] < (0.5 + 1 / 8 + 0.2) * whole
    assert torch.equal(*scores)


@needs_bitsandbytes
def test_a_mixture_in_4_bits_teaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes turns and scores the student's, over the whole vocabulary."""
    monkeypatch.chdir(tmp_path)
    section = {"model": saved(wide_mixture(), tmp_path / "teacher"), "quantize": "nf4"}
    file = tiny_file(
        algorithm={"name": "guided_opd", "end": 0.5},
        policy={"tokenizer": "teacher"},
        policies={"teacher": {**section, "dtype": "bfloat16"}},
    )
    (tmp_path / "run.toml").write_text(file)
    assert main(["train", "run.toml"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
    assert all(json.loads(line)["grad_norm"] > 0 for line in lines)


def test_a_mixture_decodes_without_recordings() -> None:
    """In which products of groups that read the sizes of groups on the CPU cannot be."""
    with pretend_cuda():
        mixture = HFPolicy(model("qwen3_moe").to("cuda"), small_chat(), dtype="bfloat16")
        dense = HFPolicy(model("qwen3").to("cuda"), small_chat(), dtype="bfloat16")
    assert mixture.engine.recordings is None  # type: ignore[attr-defined]
    assert dense.engine.recordings is not None  # type: ignore[attr-defined]
