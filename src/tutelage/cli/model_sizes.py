"""Sizes of models from their configuration alone: parameters and bytes, without weights."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tutelage.config import json_text
from tutelage.config.plain_file import read_text
from tutelage.config.schema import BuildSection, PolicySection
from tutelage.errors import ConfigError

BYTES = {"float32": 4, "bfloat16": 2}
NF4 = 4.127 / 8
"""Bytes of a 4-bit weight with its share of the scales (arXiv:2305.14314, section 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder-only transformer of the Llama and Qwen family, from its config.json."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int  # of one expert in a mixture of experts
    context: int
    tied: bool
    experts: int = 0
    active: int = 0  # experts per token
    qkv_bias: bool = False  # Qwen2
    qk_norm: bool = False  # Qwen3

    def parameters(self, *, experts: int | None = None) -> int:
        """All parameters, or those with only `experts` experts counted per layer."""
        h, d = self.hidden, self.head_dim
        attention = 2 * h * self.heads * d + 2 * h * self.kv_heads * d
        attention += (self.heads + 2 * self.kv_heads) * d if self.qkv_bias else 0
        attention += 2 * d if self.qk_norm else 0
        one = 3 * h * self.ffn
        used = self.experts if experts is None else experts
        mlp = used * one + self.experts * h if self.experts else one
        embeddings = self.vocab * h * (1 if self.tied else 2)
        return embeddings + self.layers * (attention + mlp + 2 * h) + h

    def linear(self) -> int:
        """Parameters of linear layers, without the LM head. Experts and their router are none."""
        norms = self.layers * (2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0))
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        router = self.layers * self.experts * self.hidden
        return self.parameters() - embeddings - norms - self.hidden - router - self.in_experts()

    def in_experts(self) -> int:
        """Parameters of a mixture's experts."""
        return self.layers * self.experts * 3 * self.hidden * self.ffn

    def adapters(self, rank: int) -> int:
        """Parameters of low-rank adapters on every linear layer, and on experts: peft adds them to
        the tensor of all gates and inputs, with twice the rank, to that of the outputs, and to the
        router."""
        h, d = self.hidden, self.head_dim
        attention = 2 * (h + self.heads * d) + 2 * (h + self.kv_heads * d)
        if self.experts:
            one = 2 * (h + 2 * self.ffn) + (h + self.ffn)
            mlp = self.experts * one + (h + self.experts)
        else:
            mlp = 3 * (h + self.ffn)
        return self.layers * rank * (attention + mlp)

    def cache(self, tokens: int, size: int) -> int:
        """Bytes of the keys and values of `tokens` tokens, `size` bytes per number."""
        return 2 * self.layers * self.kv_heads * self.head_dim * tokens * size

    def weights(self, section: PolicySection, *, frozen: bool) -> int:
        """Bytes of the weights during a run. With bfloat16, trained weights are held twice: in
        float32, and in 2 bytes for matrix products. Of experts in 4 bits, one layer's are unpacked
        at a time."""
        acts = 0
        if section.dtype == "bfloat16" and not frozen:
            acts = 2 * (self.adapters(section.lora) if section.lora else self.linear())
        frozen = frozen or section.lora > 0
        each = 4.0
        if section.quantize == "nf4":
            each = NF4
        elif frozen and section.dtype == "bfloat16":
            each = 2.0
        small = self.linear() + self.in_experts()
        total = 4 * (self.parameters() - small) + int(each * small)
        if section.quantize == "nf4":
            total += BYTES[section.dtype] * self.in_experts() // self.layers
        return total + acts + 4 * (self.adapters(section.lora) if section.lora else 0)

    def trained(self, section: PolicySection) -> int:
        """Parameters that are trained."""
        return self.adapters(section.lora) if section.lora else self.parameters()


def _qwen3(hidden: int, layers: int, heads: int, ffn: int, *, tied: bool) -> Shape:
    return Shape(
        vocab=151_936,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        ffn=ffn,
        context=40_960,
        tied=tied,
        qk_norm=True,
    )


def _qwen25(
    vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, *, tied: bool
) -> Shape:
    return Shape(
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=128,
        ffn=ffn,
        context=32_768,
        tied=tied,
        qkv_bias=True,
    )


KNOWN = {
    "Qwen3-0.6B": _qwen3(1024, 28, 16, 3072, tied=True),
    "Qwen3-1.7B": _qwen3(2048, 28, 16, 6144, tied=True),
    "Qwen3-4B": _qwen3(2560, 36, 32, 9728, tied=True),
    "Qwen3-8B": _qwen3(4096, 36, 32, 12_288, tied=False),
    "Qwen3-14B": _qwen3(5120, 40, 40, 17_408, tied=False),
    "Qwen3-30B-A3B": Shape(
        vocab=151_936,
        hidden=2048,
        layers=48,
        heads=32,
        kv_heads=4,
        head_dim=128,
        ffn=768,
        context=40_960,
        tied=False,
        experts=128,
        active=8,
        qk_norm=True,
    ),
    "Qwen2.5-1.5B": _qwen25(151_936, 1536, 28, 12, 2, 8960, tied=True),
    "Qwen2.5-3B": _qwen25(151_936, 2048, 36, 16, 2, 11_008, tied=True),
    "Qwen2.5-7B": _qwen25(152_064, 3584, 28, 28, 4, 18_944, tied=False),
}
"""Shapes of models on the hub, so that a dry run needs no download."""


def named(model: str) -> Shape | None:
    """The shape of a hub id if it is known, Base and Instruct versions included; else None."""
    bare = re.sub(r"-(Base|Instruct|Instruct-2507|Thinking-2507)$", "", model.rpartition("/")[2])
    return KNOWN.get(bare)


def built(section: BuildSection, layers: int, entries: int) -> Shape:
    return Shape(
        vocab=entries,
        hidden=section.hidden,
        layers=layers,
        heads=section.heads,
        kv_heads=section.kv_heads,
        head_dim=section.hidden // section.heads,
        ffn=section.ffn,
        context=section.context,
        tied=True,
        qk_norm=True,
    )


def read(folder: Path) -> Shape | None:
    """The shape of a model in a folder; None for other architectures."""
    path = folder / "config.json"
    try:
        raw = json_text.table(read_text(path))
        return _shape_of(raw)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} does not describe a model ({error} is missing)") from error


def _shape_of(raw: Mapping[str, int]) -> Shape | None:
    kind = str(raw.get("model_type"))
    if kind not in ("qwen2", "qwen3", "qwen3_moe", "llama"):
        return None
    heads, mixture = raw["num_attention_heads"], kind == "qwen3_moe"
    return Shape(
        vocab=raw["vocab_size"],
        hidden=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        kv_heads=raw.get("num_key_value_heads", heads),
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        ffn=raw["moe_intermediate_size" if mixture else "intermediate_size"],
        context=raw["max_position_embeddings"],
        tied=bool(raw.get("tie_word_embeddings", False)),
        experts=(raw.get("num_experts") or raw["num_local_experts"]) if mixture else 0,
        active=raw["num_experts_per_tok"] if mixture else 0,
        qkv_bias=kind == "qwen2",
        qk_norm=kind.startswith("qwen3"),
    )
