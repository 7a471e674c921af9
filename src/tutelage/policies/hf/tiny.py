"""Small models that are built here: a Qwen3 architecture and a tokenizer trained on the suite."""

import json
from collections.abc import Iterable
from typing import Any

import torch

from tutelage.prompts.answer_format import TAGS

ROLES = ("<|system|>", "<|user|>", "<|agent|>")
END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'assistant' -%}<|agent|>{{ m.content }}<|end|>"
    "{%- else -%}<|{{ 'system' if m.role == 'system' else 'user' }}|>{{ m.content }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|agent|>{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], *, entries: int = 2048) -> Any:
    """A byte-fallback BPE over words, with the roles and tags as single tokens.

    Words common in `texts` become one token each; anything else falls back to bytes, so that every
    string can be encoded. Runs of spaces become one, and spaces beside square brackets are dropped:
    the argument in click[b01] is the same tokens as the word elsewhere, which a small model has to
    copy.
    """
    from tokenizers import AddedToken, Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = [f"<0x{i:02X}>" for i in range(256)]
    special = [PAD, UNKNOWN, END, *ROLES]
    core = _pipeline(Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True)))
    trainer = trainers.BpeTrainer(
        vocab_size=entries, special_tokens=[*special, *alphabet], show_progress=False
    )
    core.train_from_iterator((_without_tags(text) for text in texts), trainer)
    learned = json.loads(core.to_str())["model"]
    # the trainer marks the bytes as special tokens, which decoding drops: build the tokenizer
    # again with the bytes as ordinary entries
    core = _pipeline(
        Tokenizer(
            models.BPE(
                vocab=learned["vocab"],
                merges=[tuple(pair) for pair in learned["merges"]],
                unk_token=UNKNOWN,
                byte_fallback=True,
            )
        )
    )
    core.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    core.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=list(ROLES),
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _without_tags(text: str) -> str:
    """Tags are separate tokens; a word next to one must be learned as a word."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text


def _pipeline(core: Any) -> Any:
    """Words split at spaces, each with its space in front; line breaks are words."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    core.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[ \\t]+"), " "),
            normalizers.Replace(Regex(" ?\\n ?"), " \n "),
            normalizers.Replace(Regex(" ?\\[ ?"), " [ "),
            normalizers.Replace(Regex(" ?\\] ?"), " ] "),
            normalizers.Strip(),
        ]
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Metaspace(prepend_scheme="always"),
            decoders.Fuse(),
            decoders.Replace(" [ ", "["),
            decoders.Replace(" ]", "]"),
        ]
    )
    return core


def build_model(
    *,
    entries: int,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    context: int,
    seed: int,
    end: int,
    pad: int,
) -> Any:
    """A randomly initialised Qwen3 causal model, tied embeddings, float32."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=entries,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate_size=ffn,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=end,
        pad_token_id=pad,
        bos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        attention_dropout=0.0,
        use_cache=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)
