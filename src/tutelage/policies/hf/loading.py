"""Load a policy from a saved folder or a hub id, with adapters if it has them."""

from pathlib import Path
from typing import Any, Literal

import torch

from tutelage.errors import PolicyError, first_line
from tutelage.policies.base import Dtype
from tutelage.policies.hf import folder, memory
from tutelage.policies.hf.architecture import text_config
from tutelage.policies.hf.lora import Adapters, base_of, merged
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.packing import DEFAULT_PASS_TOKENS
from tutelage.prompts.chat_template import Chat, History, read_template

Quantize = Literal["none", "nf4"]


def _not_loaded(name: str, reason: str) -> str:
    return (
        f"the model {name!r} could not be loaded ({reason}); give a folder written by "
        "save_pretrained, or the id of a model that this machine can download"
    )


def _config(name: str, layers: int | None) -> Any:
    """The model's transformers configuration, cut to its first `layers`."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        described = text_config(config)
    except Exception as error:  # an untrusted folder: its faults may raise any exception
        raise PolicyError(_not_loaded(name, first_line(error)[:300])) from error
    if layers is None or layers == described.num_hidden_layers:
        return config
    if layers > described.num_hidden_layers:
        raise PolicyError(
            f"the model {name!r} has {described.num_hidden_layers} layers, so its first {layers} "
            "cannot be taken; lower layers"
        )
    described.num_hidden_layers = layers
    if "layer_types" in vars(described) and described.layer_types:
        described.layer_types = described.layer_types[:layers]
    return config


def _class_for(config: Any) -> Any:
    """The class that reads a configuration's model: one of transformers' own. AutoModelForCausalLM
    does not know the configuration of the text part of some models that it loads (Emu3, Llama 3.2
    with pictures), with which they are saved."""
    import transformers

    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        for name in getattr(config, "architectures", None) or ():
            found = getattr(transformers, name, None) if name.endswith("ForCausalLM") else None
            if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
                return found
    return transformers.AutoModelForCausalLM


def _model(name: str, layers: int | None) -> Any:
    """The model of a folder or a hub id, in float32; adapters are merged into their base."""
    if base := base_of(name):
        if layers is not None:
            raise PolicyError(
                f"{name} holds adapters for all layers of its model; write its merged weights "
                "with `tutelage export`, then take the first layers of those"
            )
        depth = getattr(text_config(_config(name, None)), "num_hidden_layers", None)
        return merged(_model(base, depth), name)
    folder.refuse_unusable(Path(name))
    weights = folder.stored(Path(name))
    config = _config(name, layers)
    folder.check(config, text_config(config), weights, name)
    if folder.check_quantized(config, weights, name):
        config.quantization_config = {**config.quantization_config, "dequantize": True}
    try:
        model, report = _class_for(config).from_pretrained(
            name,
            config=config,
            key_mapping=weights.renamed or None,
            dtype=torch.float32,
            attn_implementation="eager",  # which every model knows; the policy chooses another
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            use_safetensors=True,  # other formats of weights can run code when they are read
        )
    except Exception as error:  # as above
        raise PolicyError(_not_loaded(name, first_line(error)[:300])) from error
    _in_full(model)
    _own_memory(model)
    # transformers would continue with random numbers in their place
    missing = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if missing:
        raise PolicyError(
            _not_loaded(name, f"{len(missing)} of its weights are missing or of another shape")
        )
    return model


def _in_full(model: Any) -> None:
    """Forget that weights were stored quantised: they are plain now, in float32, and so are those
    that a run saves."""
    if getattr(model.config, "quantization_config", None) is None:
        return
    del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    model.to(torch.float32)


def _own_memory(model: Any) -> None:
    """Move weights out of the mapping of their file.

    In it they lie at whatever address the file's header leaves them, and matrix products round by
    alignment: a checkpoint's weights would give other bytes than the same weights in the folder
    that the run was started from, or than those that training has just updated.
    """
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()


def load(
    name: str,
    *,
    dtype: Dtype = "float32",
    device: str = "cpu",
    layers: int | None = None,
    slots: int = 64,
    tokens: int = DEFAULT_PASS_TOKENS,
    history: History = "exact",
    options: tuple[tuple[str, object], ...] = (),
    chat_template: str = "",
    lora: int = 0,
    adapters: str = "",
    seed: int = 0,
    quantize: Quantize = "none",
    frozen: bool = False,
    gradient_checkpointing: bool = False,
    compiled: bool = False,
    reference_path: bool = False,
    budget: int | None = None,
) -> HFPolicy:
    """A policy from a folder or a hub id, or from its first `layers`, with float32 weights.

    lora      rank of adapters to train instead of the weights: those of the folder `adapters`, or
              new ones, initialised with `seed`
    quantize  storage of the weights of linear layers and experts; with "nf4" they are frozen
    frozen    it is never trained: what bfloat16 rounds, it rounds before the model is moved to its
              device, which then never holds 4 bytes a weight

    Raises PolicyError where the model, its tokenizer or the adapters cannot be loaded. The other
    arguments are those of `HFPolicy`.

    `layers` takes the first ones, so that a small student starts from its teacher (DistilBERT,
    arXiv:1910.01108; "shrink and fine-tune", arXiv:2010.13002): of the pairs tried with the demo's
    teacher of four layers, 0 and 1 solved 68 of 100 tasks after 60 steps of imitation, 0 and 3 22,
    0 and 2 13, 1 and 3 none.
    """
    from transformers import AutoTokenizer

    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise PolicyError(_missing(Path(name)))
    folder.refuse_unusable(Path(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # as above
        raise PolicyError(_not_loaded(name, first_line(error)[:300])) from error
    folder.check_pieces(Path(name), tokenizer)
    if chat_template:
        tokenizer.chat_template = read_template(Path(chat_template))
    chat = _usable(Chat(tokenizer, history, options), name)
    model = _model(name, layers)
    if quantize == "nf4":
        if lora and memory.is_mixture(model):
            raise PolicyError(
                f"{name} is a mixture of experts, which take no adapters once quantize packs them; "
                "leave quantize or lora out"
            )
        memory.quantize(model, device)
    elif frozen and not lora:
        model.requires_grad_(False)
        if dtype == "bfloat16":
            memory.cast_frozen_to_bfloat16(model)
    model = model.to(device)
    trained = None
    if lora:
        trained = Adapters(model, rank=lora, base=_absolute(name), seed=seed)
        if adapters:
            trained.restore(Path(adapters))
    return HFPolicy(
        model,
        chat,
        dtype=dtype,
        slots=slots,
        tokens=tokens,
        adapters=trained,
        gradient_checkpointing=gradient_checkpointing,
        compiled=compiled,
        reference_path=reference_path,
        budget=budget,
    )


def _usable(chat: Chat, name: str) -> Chat:
    """The chat, whose template and tokenizer are tried before the weights are read."""
    try:
        _ = chat.end, chat.control
    except PolicyError:
        raise
    except Exception as error:  # as above
        raise PolicyError(_not_loaded(name, f"its tokenizer: {first_line(error)[:300]}")) from error
    return chat


def _absolute(name: str) -> str:
    """A model's name that is valid from any working directory."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _missing(path: Path) -> str:
    """What to say of a folder that is not there."""
    if path.parent.name == "checkpoints" and (path.parent.parent / "config.toml").is_file():
        return (
            f"the run {path.parent.parent} goes on, and has replaced its checkpoint {path.name} meanwhile; "
            "do it again, or wait for its end"
        )
    return f"there is no model folder {str(path)!r}; check the path"
