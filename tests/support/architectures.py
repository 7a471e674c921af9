"""Every causal language model that transformers lists, with random weights and the smallest sizes
that still hold one layer of each kind."""

import random
from collections.abc import Iterator
from typing import Any

import torch

SIZES: dict[str, Any] = {
    # width
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "dim_model"), 32),
    **dict.fromkeys(("embedding_size", "input_hidden_size"), 32),
    **dict.fromkeys(("embedding_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "n_inner", "d_inner", "dim_ff"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "feed_forward_size"), 64),
    **dict.fromkeys(("dff", "dense_intermediate_size", "intermediate_size_mlp"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("block_ff_dim", "expert_ffn_hidden_size", "lru_width"), 32),
    # depth
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers",), 2),
    # heads
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv"), 2),
    **dict.fromkeys(("head_dim", "kv_channels", "v_head_dim", "d_kv"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim",), 8),
    **dict.fromkeys(("qk_nope_head_dim",), 8),
    **dict.fromkeys(("global_head_dim", "swa_head_dim", "swa_v_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("swa_num_attention_heads",), 4),
    # as many as real ones have: with few, the scores of many keys are exactly 0, and ties fall
    # otherwise in sequences of other lengths
    "index_n_heads": 64,
    **dict.fromkeys(("swa_num_key_value_heads", "num_global_key_value_heads"), 2),
    # experts
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("first_k_dense_replace", "n_group", "topk_group", "num_dense_layers"), 1),
    # recurrence
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "mamba_state_dim"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 16),
    **dict.fromkeys(("mamba_d_ssm",), 64),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), 8),
    **dict.fromkeys(("linear_num_key_heads",), 2),
    **dict.fromkeys(("linear_num_heads",), 4),
    **dict.fromkeys(("linear_num_value_heads",), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    # positions
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_seq_len", "context_length"), 256
    ),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size"), 8),
    **dict.fromkeys(("attention_window_size", "index_topk"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank"), 8),
    # pictures and sounds
    **dict.fromkeys(("image_size",), 32),
    **dict.fromkeys(("patch_size",), 8),
}
"""By the names that configurations use."""
DOTS: dict[str, Any] = {
    "num_key_value_heads": 4,
    "head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
    "shared_experts_intermediate_size": 32,
}
QWEN4: dict[str, Any] = {
    "indexer_n_heads": 64,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
    "hc_lowrank": 8,
    "ngram_vocab_size_base": 512,
    "make_ngram_vocab_size_divisible_by": 8,
    "split_ngram_parts": 1,
    "heads_per_ngram": 2,
    "ple_layer_ids": [1],
}
OWN: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 2, "hidden_size": 32, "expand": 2},
    "gemma3_text": {"num_hidden_layers": 6},
    **{
        name: {"is_decoder": True}
        for name in (
            "bert",
            "bert-generation",
            "big_bird",
            "camembert",
            "data2vec-text",
            "electra",
            "ernie",
            "megatron-bert",
            "rembert",
            "roberta",
            "roberta-prelayernorm",
            "roc_bert",
            "roformer",
            "xlm-roberta",
            "xlm-roberta-xl",
        )
    },
    "big_bird": {"is_decoder": True, "attention_type": "original_full"},
    "xlm": {"causal": True},
    "bailing_hybrid": {"num_expert_group": 1, "layer_group_size": 2, "linear_head_dim": 8},
    "bamba": {"attn_layer_indices": [1, 3]},
    "codegen": {"rotary_dim": 4},
    "blt": {
        "encoder_hash_byte_group_vocab": 64,
        "encoder_hash_byte_group_size": [3, 4],
        "local_attention_window_len": 8,
        "patcher_config": {"num_hidden_layers": 1, "vocab_size": 512, "sliding_window": 8},
        "encoder_config": {"num_hidden_layers": 1, "vocab_size": 512, "hidden_size_global": 32},
        "decoder_config": {"num_hidden_layers": 2, "vocab_size": 512, "hidden_size_global": 32},
    },
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "dbrx": {"attn_config": {"rope_theta": 10_000.0, "kv_n_heads": 2, "clip_qkv": 8}},
    "dots3_note_text": DOTS,
    "dots3_note": {
        "text_config": DOTS,
        "vision_config": {"per_layer_config": {}, "adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_groups": 1},
    "gemma3n_text": {"num_hidden_layers": 10, "num_kv_shared_layers": 5},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "kimi_linear": {
        "layer_types": [
            "linear_attention",
            "linear_attention",
            "full_attention",
            "linear_attention",
        ],
        "linear_head_dim": 8,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"num_key_value_heads": 4, "head_dim": 8, "qk_head_dim": 16},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "nemotron_h": {"n_groups": 2},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xlstm": {"head_dim": 8, "num_heads": 4},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "inkling2_text": {"d_rel": 8, "rel_extent": 8, "n_layers_per_attn_res_block": 2},
    "inkling2_loop_text": {
        "d_rel": 8,
        "rel_extent": 8,
        "n_layers_per_attn_res_block": 2,
        "loop_layer_index_start": 2,
        "loop_layer_index_end": 4,
        "loop_num_passes": 2,
        "loop_gate_rank": 8,
    },
    "qwen4_exp_text": QWEN4,
    "qwen4_exp": {"text_config": QWEN4},
    "zaya": {"num_experts_per_tok": 1},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
}
"""What single ones need besides."""
NOT_TEXT = {
    "gemma3n": "its pictures need the timm library; gemma3n_text is its text part",
    "gemma4_assistant": "it drafts from keys and values of another model, and cannot run alone",
    "gemma4_unified_assistant": "it drafts from keys and values of another model, and cannot run alone",
    "musicgen": "its tokens are several sounds at a time, not text",
    "musicgen_melody": "its tokens are several sounds at a time, not text",
}
"""What is listed among causal language models and is none of text by itself."""
VARIANTS = ((), ("bos_token_id",), ("head_dim",), ("num_hidden_layers",), ("num_key_value_heads",))
"""What is left out in turn until a configuration does not contradict itself."""
MOST = 20_000_000
"""Parameters of a model that is tried."""


class NotBuiltError(Exception):
    """No small form of a model was found."""


def listed() -> list[str]:
    """The model types that transformers' AutoModelForCausalLM knows, in alphabetical order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def config(name: str, *, size: int, end: int, pad: int, without: tuple[str, ...] = ()) -> Any:
    """A small configuration of a model type for a vocabulary of `size`. What it sets is left out
    where it is named in `without`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    tokens = {"vocab_size": size, "vocab_size_per_layer_input": size, "unpadded_vocab_size": size}
    tokens |= {"eos_token_id": end, "pad_token_id": pad, "bos_token_id": None}
    return _small(CONFIG_MAPPING[name], OWN.get(name, {}), tokens, without)


def _small(kind: Any, own: dict[str, Any], tokens: dict[str, Any], without: tuple[str, ...]) -> Any:
    usual = kind()
    known = vars(usual)
    more = {key: value for key, value in SIZES.items() if known.get(key, False) is not False}
    if "kv_lora_rank" in known:  # latent attention: as many keys as queries, of two parts each
        more |= {"num_key_value_heads": 4}
        more.pop("head_dim", None)
    more |= {key: value for key, value in tokens.items() if hasattr(usual, key)}
    more |= own
    for key in getattr(kind, "sub_configs", {}):
        if hasattr(usual, key) and hasattr(getattr(usual, key), "to_dict"):
            text = key in ("text_config", "decoder")
            inside = own.get(key, {})
            more[key] = _small(type(getattr(usual, key)), inside, tokens if text else {}, without)
    return kind(**{key: value for key, value in more.items() if key not in without})


def build(name: str, *, size: int, end: int, pad: int, seed: int = 0, **more: Any) -> Any:
    """A model with random weights large enough that every part of it matters."""
    from transformers import AutoModelForCausalLM

    if name in NOT_TEXT:
        raise NotBuiltError(NOT_TEXT[name])
    errors = []
    for without in VARIANTS:
        try:
            of = config(name, size=size, end=end, pad=pad, without=without)
            for key, value in more.items():
                setattr(of, key, value)
            with torch.device("meta"):
                bones = AutoModelForCausalLM.from_config(of)
            count = sum(p.numel() for p in bones.parameters())
            if count > MOST:
                raise NotBuiltError(f"{count / 1e6:.0f} million parameters in the smallest form")
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(of).eval()
            excite(model)
            return model
        except Exception as error:  # a configuration that contradicts itself in any way
            errors.append(error)
    first = str(errors[0]).strip().replace("\n", " ")
    raise NotBuiltError(f"{type(errors[0]).__name__}: {first[:150]}")


@torch.no_grad()
def excite(model: Any) -> None:
    """Weights of a size that makes logits differ by a few nats; those that set how fast a
    recurrent state decays stay as they are."""
    for key, p in model.named_parameters():
        if p.dim() < 2 or any(word in key for word in ("A_log", "dt_", "time_", "conv")):
            continue
        std = 1.0 / p.shape[-1] ** 0.5
        if "embed" in key or "wte" in key:
            std = 0.5
        p.normal_(0, std)
    output = model.get_output_embeddings()
    if output is not None and output.weight.dim() == 2:
        output.weight.normal_(0, 2.0 / output.weight.shape[1] ** 0.5)


def ragged(size: int, *, seed: int = 0, count: int = 4) -> Iterator[tuple[tuple[int, ...], int]]:
    """Sequences of other lengths, and how many of their last tokens are a turn."""
    rng = random.Random(seed)
    for k in range(count):
        yield tuple(rng.randrange(5, size) for _ in range(14 + 9 * k)), 3 + k
