"""A model's folder as it lies on the disk: what its files hold is read before they are loaded.

transformers answers many of these faults with an exception about something else, and loads some of
them as another model than the one that was saved.
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from tutelage.config.plain_file import open_plain, read_bytes
from tutelage.errors import PolicyError
from tutelage.policies.hf.architecture import LENGTHS

POINTER = b"version https://git-lfs.github.com/spec/"
LONGEST_POINTER = 1024
"""Bytes of a pointer of Git LFS, by its specification."""
LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header, by its specification."""
MOST, MOST_LAYERS = 2**40, 10_000
"""Upper bounds of the numbers of a config.json."""
TEXTS = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
WRAPPERS: Mapping[str, tuple[str, str]] = {
    "torch.compile": (r"_orig_mod\.", ""),
    "DistributedDataParallel": (r"^module\.", ""),
    "peft": (r"^base_model\.model\.", ""),
    "peft's layers": (r"\.base_layer\.", "."),
}
"""What puts a prefix in front of the names of weights, and how the prefix is removed."""
UNREAD = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".npz")
"""Endings of other files of weights."""
SLACK = 16
"""Times that an embedding may seem larger than all weights."""
DEQUANTIZED = ("fp8", "mxfp4")
"""Kinds of quantised weights that transformers writes out in full, on every device alike."""
NO_LANGUAGE_MODEL = re.compile(r"For(\w*Classification|QuestionAnswering|MaskedLM)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The weights that a folder holds: (dtype, number of values) by name."""

    tensors: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def values(self) -> int:
        return sum(count for _, count in self.tensors.values())

    @property
    def renamed(self) -> dict[str, str]:
        """Patterns of the prefixes that saving a wrapped model left, and what replaces them."""
        patterns = WRAPPERS.values()
        return {p: new for p, new in patterns if any(re.search(p, name) for name in self.tensors)}


def refuse_unusable(folder: Path) -> None:
    """Raise PolicyError for a folder whose files are pointers of Git LFS, or whose config.json has
    numbers for which no memory is large enough. A hub id passes."""
    if not folder.is_dir():
        return
    for path in (*(folder / name for name in TEXTS), *_weights(folder)):
        if _is_pointer(path):
            raise PolicyError(
                f"{path} is a pointer of Git LFS, not the file itself; run `git lfs pull` in its "
                "folder, or download it again"
            )
    try:
        described = json.loads(read_bytes(folder / "config.json"))
        large, length = _too_large(described), _no_length(described)
    except (OSError, ValueError, RecursionError):
        return  # the loader says what is wrong
    if large:
        raise PolicyError(
            f"{folder / 'config.json'}: {large[0]} = {large[1]:,} is not the size of any model; "
            "download it again"
        )
    if length:
        raise PolicyError(
            f"{folder / 'config.json'}: {length[0]} = {length[1]!r:.40} is not the length of a context; "
            "write the model's number of tokens, or download it again"
        )


PIECES = "tokenizer.model"
WORDS = ("look at the open door", "Hello world, what is 12 + 3?")


def check_pieces(folder: Path, tokenizer: Any) -> None:
    """Compare a tokenizer that transformers makes of a sentencepiece model alone with sentencepiece
    itself. Where nothing names its class, transformers takes that of the model's kind, which may cut
    every text in another way.

    Raises PolicyError where they differ, or sentencepiece is missing.
    """
    if (folder / "tokenizer.json").exists() or not (folder / PIECES).is_file():
        return
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise PolicyError(
            f"{folder} has its tokenizer in {PIECES} alone, which needs a package; run `pip install "
            "sentencepiece protobuf`, or add the tokenizer.json of the same model"
        ) from None
    try:
        own = SentencePieceProcessor(model_file=str(folder / PIECES))
    except (OSError, RuntimeError):
        return  # a file of this name in another format, which its loader has read
    for text in WORDS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tokenizer.convert_ids_to_tokens(ids) != own.encode(text, out_type=str):
            raise PolicyError(
                f"{folder / PIECES} is read as a {type(tokenizer).__name__}, which cuts texts "
                "otherwise than sentencepiece does; name its tokenizer_class in "
                "tokenizer_config.json, or add the tokenizer.json of the same model"
            )


def _no_length(table: object) -> tuple[str, object] | None:
    """The first length of a context, in the part for texts too, that is not a number above 0."""
    if not isinstance(table, dict):
        return None
    for name in LENGTHS:
        value = table.get(name)
        if value is not None and (type(value) is not int or value < 1):
            return name, value
    return _no_length(table.get("text_config"))


def _too_large(table: object) -> tuple[str, int] | None:
    """The first number of a configuration, nested ones too, that is no size."""
    if not isinstance(table, dict):
        return None
    for name, value in table.items():
        most = MOST_LAYERS if name in ("num_hidden_layers", "n_layer") else MOST
        if type(value) is int and value > most:
            return str(name), value
        if found := _too_large(value):
            return found
    return None


def stored(folder: Path) -> Stored:
    """What a model's folder holds. Empty for a hub id, and where the headers cannot be read: what
    is wrong with them is reported by the loader.

    Raises PolicyError for missing parts of the weights, and for adapters among the weights that
    would be left out.
    """
    if not folder.is_dir():
        return Stored()
    files = list(_weights(folder))
    if not files and (others := [p.name for p in folder.iterdir() if p.suffix in UNREAD]):
        raise PolicyError(
            f"the model {str(folder)!r} could not be loaded (its weights are in {min(others)}, and "
            "only safetensors are read: pickles can run code, and other formats are for other "
            "programs); convert it with transformers' save_pretrained"
        )
    for path in files:
        if not path.exists():
            raise PolicyError(
                f"{path} is missing, which {INDEX} lists among the parts of the weights; download "
                "it again"
            )
    found: dict[str, tuple[str, int]] = {}
    for path in files:
        found.update(_header(path))
    adapters = [name for name in found if ".lora_A." in name or ".lora_B." in name]
    if adapters:
        raise PolicyError(
            f"{folder} holds weights with adapters in them that are not merged ({adapters[0]}), "
            "which would be left out; save the model after peft's merge_and_unload()"
        )
    return Stored(tensors=found)


def check(config: Any, described: Any, weights: Stored, name: str) -> None:
    """Compare a model's configuration with its weights, before memory is allocated for it.

    config     transformers' configuration of the whole model
    described  the part of it that describes the language model

    Raises PolicyError where they cannot belong together, or where the model is of another kind.
    """
    named = getattr(config, "architectures", None) or []
    if not isinstance(named, list | tuple):
        raise PolicyError(
            f"the config.json of the model {name!r} has architectures = {named!r:.40}; it must be a "
            "list of names, so download the model again"
        )
    kinds = [str(kind) for kind in named]
    if kinds and all(NO_LANGUAGE_MODEL.search(kind) for kind in kinds):
        raise PolicyError(
            f"the model {name!r} is a {kinds[0]}, which writes no text; give the folder of a "
            "causal language model"
        )
    if not weights.tensors:
        return
    names = "num_hidden_layers", "hidden_size", "vocab_size"
    layers, width, entries = (_size(getattr(described, name, 0)) for name in names)
    # some models embed in a smaller width
    if layers > len(weights.tensors) or width * entries > SLACK * weights.values:
        raise PolicyError(
            f"the config.json of the model {name!r} describes {layers:,} layers of width {width:,} "
            f"and {entries:,} entries, but its folder holds {len(weights.tensors):,} weights of "
            f"{weights.values:,} values: they are of different models; download it again"
        )


def _size(value: object) -> int:
    return value if type(value) is int else 0


def check_quantized(config: Any, weights: Stored, name: str) -> bool:
    """Whether the weights are to be written out in full while they are loaded.

    Raises PolicyError for quantised weights that cannot be: training, and scores that do not depend
    on the machine, need plain ones.
    """
    found = getattr(config, "quantization_config", None)
    eights = [key for key, (dtype, _) in weights.tensors.items() if dtype.startswith("F8_E4")]
    scaled = {key.removesuffix("_scale_inv") for key in weights.tensors if "_scale_inv" in key}
    without = [key for key in eights if key not in scaled]
    method = str(found.get("quant_method", "")) if isinstance(found, Mapping) else str(found)
    if without and (found is None or method == "fp8"):
        raise PolicyError(
            f"the model {name!r} holds weights in 8 bits without their scales ({without[0]}), so "
            "their values are not known; give the folder of its full weights"
        )
    if found is None:
        return False
    if method not in DEQUANTIZED:
        kind = method[:40] or "an unnamed method"
        raise PolicyError(
            f"the model {name!r} is stored quantised ({kind}), which cannot be trained or scored "
            'exactly here; give the folder of its full weights, and set quantize = "nf4" in its '
            "section to keep them in 4 bits"
        )
    return True


def end_tokens(model: Any) -> list[int]:
    """The ids that end a turn in transformers' own generate(), from generation_config.json."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = ids if isinstance(ids, list | tuple) else [ids]
    return [token for token in listed if type(token) is int]


def _weights(folder: Path) -> Iterator[Path]:
    """The files of the weights: one, or the parts that an index lists."""
    if (folder / SINGLE).exists() or not (folder / INDEX).is_file():
        if (folder / SINGLE).is_file():
            yield folder / SINGLE
        return
    if _is_pointer(folder / INDEX):
        yield folder / INDEX
        return
    try:
        names = sorted(set(json.loads(read_bytes(folder / INDEX))["weight_map"].values()))
        if not all(type(name) is str and Path(name).name == name for name in names):
            raise ValueError("not the names of files beside it")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PolicyError(
            f"{folder / INDEX} does not list the parts of the weights; download it again"
        ) from error
    yield from (folder / name for name in names)


def _is_pointer(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > LONGEST_POINTER:
            return False
        return read_bytes(path).startswith(POINTER)
    except OSError:
        return False


def _header(path: Path) -> dict[str, tuple[str, int]]:
    """dtype and number of values of each tensor of a safetensors file; none if it is damaged."""
    try:
        with open_plain(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(LONGEST_HEADER, path.stat().st_size):
                return {}
            table = json.loads(file.read(length))
        return {
            name: (str(entry["dtype"]), prod(entry["shape"]))
            for name, entry in table.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        return {}
    except RecursionError:
        return {}
