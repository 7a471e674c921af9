"""Text stays text: no observation becomes control tokens, and no template hangs or fills the memory."""

import itertools
import json
import time
from pathlib import Path
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
    "a power": "{{ 10 ** 10 ** 9 }}",
    "a power of a power in a condition": "{% if 9 ** 9 ** 9 %}{% endif %}" + CHATML,
    "a text of 10 GB": "{{ 'x' * 10000000000 }}",
    "a text of 10 GB in parts": "{{ 'x' * (100000 * 100000) }}",
    "a list of 10 GB": "{% set a = [0] * 10 ** 10 %}" + CHATML,
    "a text filled up": "{{ 'x' | center(10000000000) }}",
    "a method that fills up": "{{ 'x'.ljust(10000000000) }}",
    "a wide format": "{{ '%9999999999d' % 1 }}",
    "another wide format": "{{ '{:>9999999999}'.format('x') }}",
    "a format with braces": "{{ '{0.__class__}'.format('x') }}" * 2,
    "squares without end": "{% set ns = namespace(n=9) %}{% for a in range(99999) %}"
    "{% set ns.n = ns.n * ns.n %}{% endfor %}" + CHATML,
    "macros in macros": "{% macro f(n) %}{% for a in range(9) %}{{ f(n + 1) }}{% endfor %}"
    "{% endmacro %}{{ f(0) }}",
    "a caller that calls": "{% macro f() %}{{ caller() }}{{ f() }}{% endmacro %}"
    "{% call f() %}x{% endcall %}",
    "a loop that recurses": "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "a list that grows": "{% set ns = namespace(a=[1]) %}{% for a in range(99999) %}"
    "{% set ns.a = ns.a + ns.a %}{% endfor %}" + CHATML,
    "sorted products": "{% for a in range(99999) %}{{ range(99999) | sort | list | length }}"
    "{% endfor %}",
    "extends": "{% extends '/etc/passwd' %}",
    "messages that are changed": "{% set _ = messages.append(messages) %}" + CHATML,
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_that_does_not_end_is_one_sentence(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.prompts import bounded

    monkeypatch.setattr(bounded.bounded, "__kwdefaults__", {"seconds": 2.0, "size": 256 << 20})
    began = time.process_time()
    with pytest.raises(PolicyError) as refusal:
        Chat(byte_tokenizer(TEMPLATES[case])).open("", "hello")
    assert time.process_time() - began < 60
    assert "\n" not in str(refusal.value)
    assert "chat template" in str(refusal.value)


def test_a_call_that_drops_what_ends_it_is_ended_all_the_same() -> None:
    """An exception from outside may arrive where it is dropped: in a finaliser, or in a callback of
    the garbage collector, which in a large process is often at work."""
    from tutelage.prompts.bounded import TooMuch, bounded

    dropped: list[BaseException] = []

    def stubborn() -> None:
        while True:
            try:
                while True:
                    time.sleep(0.001)
            except BaseException as error:
                dropped.append(error)
                if len(dropped) > 3:
                    raise

    with pytest.raises(TooMuch, match="was not done after 0 s"):
        bounded(stubborn, seconds=0.0)
    assert len(dropped) == 4
    assert bounded(lambda: "text", seconds=10.0) == "text"
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 / 0, seconds=10.0)


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_a_template_of_functions_that_does_not_end_is_not_replaced_by_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In words of our own is what a template gets that knows no functions."""
    from tutelage.prompts import bounded

    monkeypatch.setattr(bounded.bounded, "__kwdefaults__", {"seconds": 1.0, "size": 256 << 20})
    tools = '[{"type": "function", "function": {"name": "look", "parameters": {}}}]'
    one = "{%- if tools %}" + ENDLESS + "{%- endif %}" + CHATML
    for template in (one, {"default": CHATML, "tool_use": ENDLESS}):
        tokenizer_ = byte_tokenizer(CHATML)
        tokenizer_.chat_template = template
        chat = Chat(tokenizer_)
        assert chat.open("", "hello")
        with pytest.raises(PolicyError, match="given up on"):
            chat.with_tools("rules", tools)
        with pytest.raises(PolicyError, match="given up on"):
            chat.open_with(tools, "rules", "hello")


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "additional"])
def test_a_template_is_bounded_wherever_it_stands(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    from tutelage.prompts import bounded

    monkeypatch.setattr(bounded.bounded, "__kwdefaults__", {"seconds": 1.0, "size": 256 << 20})
    byte_tokenizer(CHATML).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    if where == "tokenizer_config.json":
        path = tmp_path / where
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": ENDLESS}))
    elif where == "additional":
        (tmp_path / "chat_template.jinja").write_text(CHATML)
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(ENDLESS)
    else:
        (tmp_path / where).write_text(ENDLESS)
    chat = Chat(AutoTokenizer.from_pretrained(tmp_path))
    with pytest.raises(PolicyError, match="given up on"):
        chat.with_tools("rules", '[{"name": "look"}]') if where == "additional" else chat.check()
