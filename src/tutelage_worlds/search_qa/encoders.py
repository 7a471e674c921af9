"""Encoders for dense retrieval: texts -> unit vectors [texts, dimensions] in float32.

An encoder is named by a string:

hashed               words, their beginnings and ends hashed to 512 dimensions: no model and no
                     meaning, for tests and for trying things out
FOLDER               a model for sentences in transformers' format, such as e5-base-v2, whose
                     vectors are means over tokens; "query: " and "passage: " stand before texts of
                     E5 (arXiv:2212.03533), whose folder has e5 in its name, as in Search-R1
package.module:NAME  a function of your own, called with the texts and whether they are queries
"""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from tutelage.envs.guard import Broken, attempt
from tutelage.envs.named_code import named
from tutelage.errors import ConfigError
from tutelage_worlds.read_once import read_once
from tutelage_worlds.search_qa.rows import DataError
from tutelage_worlds.webshop.analysis import terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Encoder = Callable[[Sequence[str], bool], "NDArray[np.float32]"]
"""(texts, whether they are queries) to vectors."""
DIMENSIONS: Final = 512
TOKENS: Final = 256
"""Tokens of a text that a model reads at most."""


@read_once(4)
def encoder(name: str) -> Encoder:
    """The encoder of a name. Raises ConfigError for one that is not there."""
    if name == "hashed":
        return hashed
    if not name:
        raise ConfigError(
            "dense retrieval needs an encoder: set env.options.encoder to the folder of a model, "
            'to "package.module:function" or to "hashed"'
        )
    if Path(name).expanduser().is_dir():
        return _model(Path(name).expanduser())
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"env.options.encoder = {name!r} is neither a folder nor a function; give one as "
            '"package.module:function"'
        )
    found = named(
        module, attribute, where="env.options.encoder", what="an encoder", declared=lambda x: False
    )
    return _checked(cast(Encoder, found), name)


def hashed(texts: Sequence[str], queries: bool) -> "NDArray[np.float32]":
    """Sums of signed unit vectors, one for each word, its first and its last three letters."""
    import numpy as np

    vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        for word in terms(text):
            for part in (word, f"{word[:3]}+", f"+{word[-3:]}"):
                code = zlib.crc32(part.encode("utf-8", "replace"))
                weight = 1.0 if part is word else 0.3
                vector[code % DIMENSIONS] += weight if code & 0x10000000 else -weight
    return _unit(vectors)


def _unit(vectors: Any) -> "NDArray[np.float32]":
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def _checked(function: Callable[..., Any], name: str) -> Encoder:
    def encode(texts: Sequence[str], queries: bool) -> "NDArray[np.float32]":
        import numpy as np

        def called() -> Any:
            return np.asarray(function(list(texts), queries), np.float64)

        vectors = attempt(f"the encoder {name}", called)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise DataError(
                f"the encoder {name} returned an array of shape {vectors.shape} for {len(texts)} "
                "texts; it must return a finite vector for each"
            )
        return _unit(vectors)

    return encode


def _model(folder: Path) -> Encoder:
    """Mean pooling over the last hidden states of a transformer, on the CPU, 32 texts at a time."""

    def loaded() -> Encoder:
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if tokenizer.pad_token is None:
            raise ConfigError(
                f"env.options.encoder: the tokenizer in {folder} has no pad_token, so texts of "
                "several lengths cannot be read at once; name one in its tokenizer_config.json"
            )
        model = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
        prefixes = ("passage: ", "query: ") if "e5" in folder.name.lower() else ("", "")
        encode = _pooled(tokenizer, model, prefixes)
        encode(["a text"], False)  # a model of another kind wants other inputs
        return encode

    try:
        return attempt("opening it", loaded)
    except Broken as error:
        raise ConfigError(
            f"env.options.encoder: {folder} holds no model that can be used ({error})"
        ) from None


def _pooled(tokenizer: Any, model: Any, prefixes: tuple[str, str]) -> Encoder:
    longest = min(
        TOKENS,
        tokenizer.model_max_length,
        getattr(model.config, "max_position_embeddings", None) or TOKENS,
    )

    def encode(texts: Sequence[str], queries: bool) -> "NDArray[np.float32]":
        import numpy as np
        import torch

        parts = []
        for start in range(0, len(texts), 32):
            batch = [prefixes[queries] + text for text in texts[start : start + 32]]
            inputs = tokenizer(
                batch, max_length=longest, padding=True, truncation=True, return_tensors="pt"
            )
            mask = inputs["attention_mask"][..., None]
            if not mask.any():  # texts without a token have no direction
                parts.append(np.zeros((len(batch), model.config.hidden_size), np.float32))
                continue
            with torch.inference_mode():
                hidden = model(**inputs).last_hidden_state.masked_fill(mask == 0, 0)
            parts.append((hidden.sum(1) / mask.sum(1).clamp(min=1)).float().numpy())
        return _unit(np.concatenate(parts))

    return encode
