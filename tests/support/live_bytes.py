"""Counts the bytes of live tensors during a scoring pass and its backward pass, without memory.

Fake tensors have shapes and storages but no data, so that shapes of billions of parameters are
counted in seconds on any machine. What is counted is what the policy's own code allocates, operator
by operator, and frees; memory inside a kernel is not seen.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.cli.model_sizes import Shape
from tutelage.objective.scores import Cut
from tutelage.policies.hf.attention import register
from tutelage.policies.hf.compat import cache_argument
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.readout import Readout
from tutelage.policies.packing import PackedSequence
from tutelage.prompts.prompter import Sample


class Live(TorchDispatchMode):
    """Bytes of the storages that exist: `now`, and the most so far, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.storages = weakref.WeakKeyDictionary[Any, tuple[str, tuple[int, ...], torch.dtype]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.add(value, str(func))
        return result

    def add(self, tensor: torch.Tensor, origin: str = "") -> None:
        storage = tensor.untyped_storage()
        if storage not in self.storages:
            self.storages[storage] = origin, tuple(tensor.shape), tensor.dtype
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.now -= size


def model_of(shape: Shape) -> Any:
    """A transformers model of this shape on the device "meta"."""
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    settings: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
    }
    with torch.device("meta"):
        if shape.qk_norm:
            return Qwen3ForCausalLM(Qwen3Config(**settings))
        if shape.qkv_bias:
            return Qwen2ForCausalLM(Qwen2Config(**settings))
        return LlamaForCausalLM(LlamaConfig(**settings))


def _on_cpu(module: torch.nn.Module) -> None:
    """Fake tensors of the CPU in the place of those of "meta", tied weights tied as before."""
    copies: dict[int, Any] = {}
    for part in module.modules():
        for slots in (part._parameters, part._buffers):
            for name, old in slots.items():
                if old is not None and id(old) not in copies:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    if isinstance(old, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                    copies[id(old)] = new
                if old is not None:
                    slots[name] = copies[id(old)]


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Take the branches that are meant for a GPU. Autocast stays that of the CPU, which casts the
    same operators here."""
    with ExitStack() as stack:
        yes = property(lambda self: True)
        stack.enter_context(patch.object(FakeTensor, "is_cuda", yes, create=True))
        head = property(lambda self: self._bfloat16)
        stack.enter_context(patch.object(HFPolicy, "_bfloat16_head", head))
        stack.enter_context(patch.object(HFPolicy, "_can_share", property(lambda self: False)))
        yield


def _unproved(self: HFPolicy) -> None:
    self.model.set_attn_implementation(register())
    self.cache_argument, self.scoring = cache_argument(self.base), self.base
    self.readout = Readout(output=self.model.get_output_embeddings())


@contextmanager
def _fake(model: Any, shape: Shape, *, gpu: bool, **settings: Any) -> Iterator[HFPolicy]:
    """A policy of fake tensors."""
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        stack.enter_context(patch.object(HFPolicy, "_choose_path", _unproved))
        if gpu:
            stack.enter_context(as_on_a_gpu())
        _on_cpu(model)
        tokenizer = SimpleNamespace(model_max_length=shape.context)
        chat: Any = SimpleNamespace(size=shape.vocab, end=0, ends=(0,), tokenizer=tokenizer)
        chat.ending_with = lambda tokens: chat
        yield HFPolicy(model, chat, **settings)


def _weights(live: Live, model: Any) -> int:
    for tensor in {id(x): x for x in (*model.parameters(), *model.buffers())}.values():
        live.add(tensor, "weights")
    return live.now


def counted_prompts(shape: Shape, *, tokens: int, row: int) -> int:
    """The most bytes beside the weights in a pass over prompts, in rows of `row`, of a frozen policy
    in bfloat16 as on a GPU; without keys and values, which a cache holds."""
    live, model = Live(), model_of(shape)
    with (
        torch.no_grad(),
        _fake(model, shape, gpu=True, tokens=tokens, dtype="bfloat16") as policy,
    ):
        policy.freeze()
        weights = _weights(live, model)
        sequences = [PackedSequence(ids=[0] * row) for _ in range(tokens // row)]
        with live:
            policy._packed_pass(sequences)
    return live.peak - weights


def counted(
    shape: Shape, *, tokens: int, row: int, gpu: bool, lora: int = 0, **settings: Any
) -> int:
    """The most bytes beside the weights in a pass of `tokens` tokens, in rows of `row`: the second
    pass of an update, so that gradients are there."""
    live, model = Live(), model_of(shape)
    adapters = Adapters(model, rank=lora, base="base", seed=0) if lora else None
    with ExitStack() as stack:
        policy = stack.enter_context(
            _fake(model, shape, gpu=gpu, tokens=tokens, adapters=adapters, **settings)
        )
        weights = _weights(live, model)
        samples = [Sample(prompt=(k,), tokens=(0,) * (row - 1)) for k in range(tokens // row)]
        stack.enter_context(live)
        for _ in range(2):
            live.peak = live.now
            cut = Cut({"student": policy.score(samples, 1.0)})
            for _, scores in cut.pieces():
                scores["student"].logp.sum().backward()  # type: ignore[no-untyped-call]
            cut.send()
    return live.peak - weights
