"""A policy from what is on disk: a folder that was saved, or a hub id, perhaps with adapters."""

from pathlib import Path
from typing import Any, Literal

import torch

from tutelage.errors import PolicyError
from tutelage.policies.hf import memory as savings
from tutelage.policies.hf.lora import Adapters, base_of, merged
from tutelage.policies.hf.policy import Compute, HFPolicy
from tutelage.prompts.chat_template import Chat, History

Quantize = Literal["none", "nf4"]


def _not_loaded(name: str, reason: str) -> str:
    return (
        f"the model {name!r} could not be loaded ({reason}); give a folder written by "
        "save_pretrained, or the id of a model that this machine can download"
    )


def _shape(name: str, layers: int | None) -> Any:
    """The model's configuration, with its first `layers` only."""
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(name)
    if layers is None:
        return shape
    if layers > shape.num_hidden_layers:
        raise PolicyError(
            f"the model {name!r} has {shape.num_hidden_layers} layers, so its first {layers} "
            "cannot be taken; lower layers"
        )
    shape.num_hidden_layers = layers
    if getattr(shape, "layer_types", None):
        shape.layer_types = shape.layer_types[:layers]
    return shape


def _weights(name: str, layers: int | None) -> Any:
    """The model of a folder or a hub id, in float32; one of adapters has them merged."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if base := base_of(name):
        if layers is not None:
            raise PolicyError(
                f"{name} holds adapters, which go with all its layers; write its whole weights "
                "with `tutelage export`, then take the first of those"
            )
        return merged(_weights(base, _shape(name, None).num_hidden_layers), name)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            name, config=_shape(name, layers), dtype=torch.float32, attn_implementation="sdpa",
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PolicyError(_not_loaded(name, reason)) from error
    # transformers would go on with random numbers in their place
    lost = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if lost:
        raise PolicyError(
            _not_loaded(name, f"{len(lost)} of its weights are missing or of another shape")
        )
    return model


def load(
    name: str,
    *,
    dtype: Compute = "float32",
    device: str = "cpu",
    layers: int | None = None,
    rows: int = 64,
    tokens: int = 16_384,
    history: History = "exact",
    options: tuple[tuple[str, object], ...] = (),
    chat_template: str = "",
    lora: int = 0,
    adapters: str = "",
    seed: int = 0,
    quantize: Quantize = "none",
    recompute: bool = False,
    compiled: bool = False,
    fast: bool = True,
    budget: int | None = None,
) -> HFPolicy:
    """A policy from a folder or a hub id, or from its first `layers`. Its weights are kept in
    float32.

    lora      rank of adapters to train instead of its weights: those of the folder `adapters`, or
              new ones, drawn with `seed`
    quantize  how the weights of linear layers are kept, which are frozen then
    """
    from transformers import AutoTokenizer

    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise PolicyError(f"there is no model folder {name!r}; check the path")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise PolicyError(_not_loaded(name, str(error).strip().splitlines()[0])) from error
    model = _weights(name, layers)
    if chat_template:
        tokenizer.chat_template = Path(chat_template).read_text()
    if quantize == "nf4":
        savings.quantize(getattr(model, model.base_model_prefix))
    model = model.to(device)
    added = None
    if lora:
        added = Adapters(model, rank=lora, base=_named(name), seed=seed)
        if adapters:
            added.restore(Path(adapters))
    return HFPolicy(
        model, Chat(tokenizer, history, options), dtype=dtype, rows=rows, tokens=tokens,
        adapters=added, recompute=recompute, compiled=compiled, fast=fast, budget=budget,
    )  # fmt: skip


def _named(name: str) -> str:
    """A model's name that holds in any working folder."""
    return str(Path(name).resolve()) if Path(name).exists() else name
