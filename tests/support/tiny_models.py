"""Small models, tokenizers and chat templates that tests of policies share."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import Dtype, HFPolicy
from tutelage.policies.hf.tiny import build_model, train_tokenizer
from tutelage.prompts.chat_template import Chat, History

TEXTS = (
    "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a fridge 1.",
    "Your task is to: put a hot apple in fridge.",
    "You arrive at fridge 1. The fridge 1 is closed.",
    "<think>the apple must be hot first</think><action>go to microwave 1</action>",
    "Nothing happens.",
) * 3

TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
ASK = "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = "{%- for m in messages %}" + TURN + "{%- endfor %}" + ASK
DEFAULT_SYSTEM = (
    "{%- if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{%- endif %}" + CHATML
)
FORGETS_THOUGHTS = (
    # what Qwen3 does: thoughts of earlier turns are cut out, and thinking can be switched off
    "{%- set ns = namespace(last=0) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set words = m.content %}"
    "{%- if m.role == 'assistant' and loop.index0 < ns.last and '</think>' in words %}"
    "{%- set words = words.split('</think>')[-1] %}{%- endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + words + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{%- endif %}{% endif %}"
)
NO_END = (
    "{%- for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
NO_SYSTEM = (
    "{%- if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{%- endif %}" + CHATML
)
TWICE = "{{ 'About ' + messages[0].content + '\n' }}" + CHATML
COUNTS = (
    "{%- for m in messages %}" + TURN + "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{ '<|im_start|>assistant ' + (messages | length | string) + '\n' }}{% endif %}"
)


def byte_tokenizer(template: str, merges: Sequence[tuple[str, str]] = ()) -> Any:
    """A token for every byte, as Qwen's tokenizers have without their merges: what a template
    renders as one string can be compared with what was put together piece by piece. With `merges`,
    a token for each of these pairs too."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet, *(a + b for a, b in merges)]
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(names)}, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    core.add_tokens([AddedToken(t, special=False) for t in ("<think>", "</think>")])
    result = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    result.chat_template = template
    return result


def chat(template: str, *, history: History = "exact", **options: object) -> Chat:
    return Chat(byte_tokenizer(template), history, tuple(options.items()))


@cache
def words() -> Any:
    """The project's own kind of tokenizer."""
    return train_tokenizer(TEXTS, entries=420)


@cache
def small_chat() -> Chat:
    return Chat(words())


def tiny(seed: int = 0, *, layers: int = 2, hidden: int = 32, context: int = 512) -> Any:
    """An untrained model; its embeddings are scaled up, so that it prefers some tokens."""
    talk = small_chat()
    result = build_model(
        entries=talk.size,
        layers=layers,
        hidden=hidden,
        heads=4,
        kv_heads=2,
        ffn=64,
        context=context,
        seed=seed,
        end=talk.end,
        pad=words().pad_token_id,
    )
    with torch.no_grad():
        result.get_input_embeddings().weight.mul_(12.0)
    return result.eval()


def policy(
    seed: int = 0,
    *,
    slots: int = 64,
    tokens: int = 16_384,
    dtype: Dtype = "float32",
    layers: int = 2,
    context: int = 512,
    padded: bool = False,
    reference_path: bool = False,
) -> HFPolicy:
    model = tiny(seed, layers=layers, context=context)
    return HFPolicy(
        model,
        small_chat(),
        slots=slots,
        tokens=tokens,
        dtype=dtype,
        padded=padded,
        reference_path=reference_path,
    )


def own_logits(of: HFPolicy, ids: Sequence[int]) -> Tensor:
    """[T, V] from the model as transformers wrote it: one plain forward pass over everything."""
    with torch.no_grad():
        result: Tensor = of.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return result[:, : of.chat.size]


def run(of: HFPolicy, requests: Sequence[Request]) -> dict[str, Completion]:
    """Submit all, poll until all are there."""
    for request in requests:
        of.submit(request)
    done: dict[str, Completion] = {}
    while len(done) < len(requests):
        for completion in of.poll():
            assert completion.key not in done
            done[completion.key] = completion
    return done
