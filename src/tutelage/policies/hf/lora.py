"""Low-rank adapters (LoRA, arXiv:2106.09685) through peft.

Every linear layer but the LM head computes W x + (ALPHA / rank) B A x, with W frozen and B = 0 at
first. A folder with adapters holds them and the name of their base model, not its weights.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.config.plain_file import read_text
from tutelage.errors import PolicyError, first_line, install

ALPHA = 32
"""Divided by the rank, so that one learning rate suits all ranks about equally well (Schulman et
al. 2025, "LoRA Without Regret", thinkingmachines.ai)."""
FUSED = {"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"}
"""Model types whose kernels read the weights of `out_proj` past its module, and with it past any
adapter: peft refuses adapters there."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def require() -> None:
    """Raise PolicyError where peft is not installed."""
    if find_spec("peft") is None:
        raise PolicyError(
            "low-rank adapters need peft, which is not installed; install it with "
            f"`{install('lora')}`, or set lora = 0"
        )


def _peft() -> Any:
    require()
    import peft

    return peft


class Adapters:
    """Adds adapters to a model in place and freezes its weights. The model computes the same as
    before until they are trained. Needs the extra `lora`."""

    def __init__(self, model: Any, *, rank: int, base: str, seed: int) -> None:
        peft = _peft()
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=ALPHA,
            target_modules="all-linear",
            exclude_modules=["out_proj"] if model.config.model_type in FUSED else None,
            task_type="CAUSAL_LM",
        )
        # peft recognises layers of 4 bits only in a model with this attribute
        model.is_loaded_in_4bit = any(hasattr(m, "compute_dtype") for m in model.modules())
        with torch.random.fork_rng(devices=[]), _without_peft_warnings():
            torch.manual_seed(seed)
            self._wrapped = peft.get_peft_model(model, config)
        self._wrapped.peft_config["default"].base_model_name_or_path = base
        self._wrapped.eval()

    def tensors(self) -> dict[str, Tensor]:
        """A and B of every layer, under peft's names."""
        return _tensors(self._wrapped)

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Like peft's save_pretrained, with sorted lists: equal adapters are equal bytes.

        dtype  of the tensors in the file; their own if None
        """
        from safetensors.torch import save_file

        config = self._wrapped.peft_config["default"].to_dict()
        config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
        config["inference_mode"] = True
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=2, sort_keys=True, default=str)
        (folder / CONFIG).write_text(text + "\n")
        found = self.tensors().items()
        tensors = {name: x.detach().to("cpu", dtype).contiguous() for name, x in found}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    def restore(self, folder: Path) -> None:
        """Load the adapters of a folder. Raises PolicyError where they do not fit."""
        restore(self._wrapped, folder)


def weights(
    model: Any, whole: Callable[[str, Tensor], Tensor] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by the names of its base, with adapters merged into them:
    W + (ALPHA / rank) B A. One merged weight is in memory at a time.

    whole  gives a weight that is elsewhere, from its name and what the model has in its place
    """
    for name, value in model.state_dict().items():
        path, _, last = name.rpartition(".")
        if ".lora_" in name:
            continue
        delta = None
        # around experts lies one wrapper for each of their tensors
        while path.endswith(".base_layer"):
            path = path.removesuffix(".base_layer")
            layer = model.get_submodule(path)
            if getattr(layer, "parameter_name", "weight") == last:
                delta = layer.get_delta_weight("default")
        if whole is not None:
            value = whole(name, value)
        yield f"{path}.{last}", value if delta is None else value + delta.to(value)


@contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """peft itself reads a name that transformers has renamed, and looks for the doubled rank of
    experts in their modules, not in their tensors; a user can change nothing there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", ".*_pattern keys did not match", RuntimeWarning)
        yield


def _tensors(wrapped: Any) -> dict[str, Tensor]:
    # by default peft compares vocabularies with the base model's, which it may have to download
    state = _peft().get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return {str(name): x for name, x in state.items()}


def restore(wrapped: Any, folder: Path) -> None:
    """Load a folder's adapters into a model that has adapters of the same shapes."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors, current = load_file(folder / WEIGHTS), _tensors(wrapped)
        if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in current.items()}:
            raise ValueError("they are of another model or rank")
    except (OSError, ValueError, SafetensorError) as error:
        raise PolicyError(
            f"the adapters in {folder} could not be loaded ({first_line(error)}); give "
            "another checkpoint, or set lora to the rank they were trained with"
        ) from error
    _peft().set_peft_model_state_dict(wrapped, tensors)


def base_of(folder: str) -> str:
    """The base model of the adapters in a folder; empty for a folder without adapters."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return ""
    try:
        found = json.loads(read_text(path))
        base = found["base_model_name_or_path"]
        if not isinstance(base, str) or not base:
            raise ValueError("no name")
        if str(found["peft_type"]).upper() != "LORA" or found.get("auto_mapping"):
            raise PolicyError(
                f"{path} describes adapters that are not plain LoRA, which are not read; give a "
                "folder with LoRA adapters"
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PolicyError(
            f"{path} does not name the model that the adapters belong to; give another folder"
        ) from error
    return base


def merged(model: Any, folder: str) -> Any:
    """The model with a folder's adapters merged into its weights: W + (ALPHA / rank) B A."""
    peft = _peft()
    try:
        # other formats of weights can run code when they are read
        with _without_peft_warnings():
            wrapped = peft.PeftModel.from_pretrained(model, folder, use_safetensors=True)
    except Exception as error:  # an untrusted folder: its faults may raise any exception
        reason = first_line(error)
        raise PolicyError(
            f"the adapters in {folder} could not be loaded ({reason}); give "
            "the folder of another checkpoint"
        ) from error
    return wrapped.merge_and_unload()
