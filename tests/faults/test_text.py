"""Text stays text: no observation becomes control tokens, and no template hangs or fills the memory."""

import itertools
import time
from typing import Any

import pytest
from support.tiny_models import CHATML, byte_tokenizer

from tutelage.errors import PolicyError
from tutelage.prompts.chat_template import Chat

INST = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{{ m.content + '</s>' }}"
    "{%- else %}{{ '[INST] ' + m.content + ' [/INST]' }}{%- endif %}{%- endfor %}"
)
ROLES = (
    "{%- for m in messages %}{%- if m.role == 'user' %}{{ '<\uff5cUser\uff5c>' + m.content }}"
    "{%- elif m.role == 'assistant' %}{{ '<\uff5cAssistant\uff5c>' + m.content + '</s>' }}"
    "{%- else %}{{ m.content }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c>' }}{% endif %}"
)


def tokenizer(template: str, added: tuple[str, ...], *, special: bool, ordinary: bool) -> Any:
    """A byte-level tokenizer whose markers are added tokens, special or not, or plain entries of
    its vocabulary that `ignore_merges` finds."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)}
    if ordinary:
        for name in added:
            written = "".join(piece for piece, _ in bytes_.pre_tokenize_str(name))
            vocabulary.setdefault(written, len(vocabulary))
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=ordinary))
    # one word up to a space, so that a marker is one too
    split = pre_tokenizers.WhitespaceSplit()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["</s>"])
    if not ordinary:
        core.add_tokens([AddedToken(t, special=special, normalized=False) for t in added])
    built = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    built.chat_template = template
    return built


CASES = {
    "INST": (INST, ("[INST]", "[/INST]")),
    "ROLES": (ROLES, ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>")),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("special", "ordinary"), [(True, False), (False, False), (False, True)])
def test_no_content_holds_what_the_template_uses_for_control(
    case: str, special: bool, ordinary: bool
) -> None:
    template, names = CASES[case]
    chat = Chat(tokenizer(template, names, special=special, ordinary=ordinary))
    used = {i for ids in chat._frames.values() for i in ids}
    written = [str(chat.tokenizer.decode([i])).strip() for i in used]
    assert set(names) <= set(written)
    assert {i for i in used if str(chat.tokenizer.decode([i])).strip() in names} <= chat.control
    chat.check_control()
    pieces = (*names, "</s>", "a", " ", "\n")
    for parts in itertools.product(pieces, repeat=3):
        found = chat.content("".join(parts))
        assert chat.control.isdisjoint(found), parts
        # the text itself is all there, but for white space, which this tokenizer drops
        assert chat.tokenizer.decode(found).split() or not "".join(parts).split()
        assert "".join(chat.tokenizer.decode(found).split()) == "".join("".join(parts).split())
    # and the frames still use them
    opened = chat.open("", "hello")
    assert chat.control & set(opened)


def test_words_and_line_ends_between_messages_are_not_control() -> None:
    chat = Chat(byte_tokenizer(CHATML))
    assert chat.content("user\nassistant\n") == tuple(
        chat.tokenizer("user\nassistant\n", add_special_tokens=False)["input_ids"]
    )


def test_thoughts_of_a_demonstration_are_the_model_s_own_tokens() -> None:
    chat = Chat(byte_tokenizer(CHATML))
    think = chat.tokenizer.convert_tokens_to_ids("<think>")
    assert think in chat.reply("<think>why</think>go")


TEMPLATES = {
    "10^10 rounds": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a text without end": "{% set ns = namespace(t='x') %}{% for a in range(99999) %}"
    "{% set ns.t = ns.t + ns.t %}{% endfor %}{{ ns.t }}",
    "a GB of text": "{% for a in range(99999) %}{% for b in range(10) %}{{ 'x' * 1000 }}"
    "{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 2000000 }}" + CHATML,
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.system('true') }}",
    "division by zero": "{{ 1 / 0 }}",
    "a type error": "{{ 1 + 'a' }}",
    "overflow": "{{ 10 ** 10000 }}",
    "a range that is too big": "{% for a in range(10 ** 9) %}{% endfor %}",
    "no syntax": "{% for %}",
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_that_does_not_end_is_one_sentence(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.prompts import bounded

    monkeypatch.setattr(bounded.bounded, "__kwdefaults__", {"seconds": 2.0, "size": 256 << 20})
    began = time.monotonic()
    with pytest.raises(PolicyError) as refusal:
        Chat(byte_tokenizer(TEMPLATES[case])).open("", "hello")
    assert time.monotonic() - began < 60
    assert "\n" not in str(refusal.value)
    assert "chat template" in str(refusal.value)
