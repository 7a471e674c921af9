"""What a model's configuration tells of how it must be computed, read without its weights."""

from typing import Any

LONGEST = 32_768
"""Context of models that state none (recurrent ones, or attention without positions), unless their
tokenizer states one."""
LENGTHS = ("max_position_embeddings", "max_sequence_length", "max_seq_len", "n_positions", "n_ctx")
UNLIMITED = 1 << 30
"""A tokenizer without a length says a huge number."""


def text_config(config: Any) -> Any:
    """The part of a configuration that describes the text decoder."""
    of_decoder = getattr(config, "get_text_config", None)
    return of_decoder(decoder=True) if of_decoder is not None else config


def context_length(config: Any, tokenizer: Any) -> int:
    """Tokens of the longest sequence: as the configuration says, else as the tokenizer does."""
    described = text_config(config)
    for name in LENGTHS:
        length = getattr(described, name, None)
        if isinstance(length, int) and length > 0:
            return length
    length = getattr(tokenizer, "model_max_length", None)
    return length if isinstance(length, int) and 0 < length < UNLIMITED else LONGEST


def rope_switch(config: Any) -> int:
    """Length up to which a sequence is rotated with other factors than beyond it (longrope: Phi-3,
    arXiv:2402.13753); 0 if no sequence within the context is."""
    described = text_config(config)
    rope = getattr(described, "rope_parameters", None) or {}
    if not isinstance(rope, dict):
        return 0
    found = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    length = getattr(described, "max_position_embeddings", None) or 0
    switches = [
        each.get("original_max_position_embeddings")
        or getattr(described, "original_max_position_embeddings", None)
        or length
        for each in found
        if each.get("rope_type") == "longrope"
    ]
    switch = min(switches, default=0)
    return switch if switch < length else 0


def layer_kinds(config: Any) -> set[str]:
    """Kinds of layers as the configuration names them, such as "sliding_attention"."""
    return set(getattr(text_config(config), "layer_types", None) or ())


def window(config: Any) -> int:
    """Tokens that a layer which does not look at all of them looks at; 0 without one."""
    described = text_config(config)
    for name in (
        "sliding_window",
        "attention_chunk_size",
        "window_size",
        "index_topk",
        "lsh_attn_chunk_length",
    ):
        width = getattr(described, name, None)
        if isinstance(width, int) and width > 0:
            return width
    return 0


def misfit(config: Any) -> str:
    """Why the packed passes and the slots of the fast path cannot compute such a model; empty where
    nothing in the configuration speaks against them."""
    described = text_config(config)
    kinds = layer_kinds(config) - {"full_attention", "attention", "full"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    length = context_length(config, None)
    width = getattr(described, "sliding_window", None) or length
    if not layer_kinds(config) and width < length:
        return f"it attends within a sliding window of {width} tokens"
    if cap := getattr(described, "attn_logit_softcapping", None):
        return f"it caps attention scores at {cap:g}"
    if switch := rope_switch(config):
        return f"its positions are rotated with other factors in sequences of more than {switch} tokens"
    return ""
