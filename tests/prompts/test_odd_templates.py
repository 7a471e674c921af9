"""Templates and tokenizers as people bring them: reported elsewhere, and right here."""

import json
from pathlib import Path

import pytest
from support.tiny_models import CHATML, byte_tokenizer

from tutelage.errors import PolicyError
from tutelage.prompts import answer_format
from tutelage.prompts.chat_template import Chat, read_template

THINKS = CHATML.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
DATED = "{{ '<|im_start|>' + strftime_now('%d %b %Y') + '\n' }}" + CHATML
CALLS = (
    "strftime_now('%d %b %Y')",
    'strftime_now ( "%d %b %Y" )',
    "strftime_now(format='%d %b %Y')",
    "(strftime_now if strftime_now is defined else '')('%d' + ' %b' + ' %Y')",
    "strftime_now('%-d %B %Y')[:6] + ' ' + strftime_now('%Y')",
)
"""Ways to write today's date."""
RANDOM = "{{ [1, 2, 3, 4, 5, 6, 7, 8, 9] | random }}{{ range(100000) | random }}" + CHATML
SYSTEM_LAST = (
    "{%- set rules = '' %}{%- if messages[0].role == 'system' %}"
    "{%- set rules = messages[0].content + '\n\n' %}{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}"
    "{{ '<|im_start|>' + (rules if loop.last else '') + m.content + '|' }}"
    "{%- else %}{{ m.content + '<|im_end|>' }}{%- endif %}{%- endfor %}"
)


def test_a_thought_that_the_prompt_opens_is_a_thought() -> None:
    assert THINKS != CHATML
    chat = Chat(byte_tokenizer(THINKS), "append")
    chat.check()
    answer = "1 or <action>2</action>?</think><action>3</action>"
    ids = (*chat.content(answer), chat.end)
    parsed = answer_format.parse(chat.text(ids))
    assert (parsed.action, parsed.thought) == ("3", "1 or <action>2</action>?")
    shown = chat.reply("<think>why</think><action>3</action>")
    assert chat.tokenizer.decode(shown).startswith("why</think>")
    assert answer_format.parse(chat.text(shown)).thought == "why"
    plain = Chat(byte_tokenizer(CHATML))
    assert answer_format.parse(plain.text((*plain.content(answer), plain.end))).thought == ""


OPENERS = {
    "<thought>": "</thought>",
    "<Thinking>": "</Thinking>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("special", [False, True])
def test_a_thought_may_have_marks_of_another_name(opener: str, special: bool) -> None:
    from tokenizers import AddedToken

    closing = OPENERS[opener]
    asks = f"<|im_start|>assistant\n{opener}\n"
    tokenizer = byte_tokenizer(CHATML.replace("<|im_start|>assistant\n", asks))
    if special:
        names = [AddedToken(t, special=True, normalized=False) for t in (opener, closing)]
        tokenizer.add_tokens(names)
    chat = Chat(tokenizer, "append")
    chat.check()
    answer = f"1 or <action>2</action>?{closing}<action>3</action>"
    parsed = answer_format.parse(chat.text((*chat.frame(answer), chat.end)))
    assert (parsed.action, parsed.thought, parsed.valid) == ("3", "1 or <action>2</action>?", True)
    shown = chat.reply("<think>why</think><action>3</action>")
    assert chat.tokenizer.decode(shown).startswith(f"why{closing}<action>3")
    assert special == (chat.tokenizer.convert_tokens_to_ids(closing) in shown)
    assert chat.text(shown) == "<think>why</think><action>3</action>"
    assert "<think>" not in chat.tokenizer.decode(chat.open("", "a"))


def test_white_space_before_the_end_of_a_turn_is_demonstrated_and_not_asked_for() -> None:
    """Llama 2 writes ' </s>' after an answer."""
    spaced = byte_tokenizer(CHATML.replace("m.content + '<|im_end|>", "m.content + ' <|im_end|>"))
    chat = Chat(spaced)
    chat.check()
    talk = [("user", "one"), ("assistant", "two"), ("user", "three")]
    written = chat._render(talk, True)
    ids = (*chat.open("", "one"), *chat.reply("two"), *chat.follow("three", ended=True))
    assert spaced.decode(ids) == written
    assert chat.end == spaced.convert_tokens_to_ids("<|im_end|>")
    assert chat.text((*chat.content("two"), chat.end)) == "two"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that transformers gives to templates stands in 2031."""
    import datetime

    import transformers.utils.chat_template_utils as clock

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Later":
            return cls(2031, 1, 1)

    monkeypatch.setattr(clock, "datetime", Later)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.usefixtures("later")
def test_a_prompt_is_the_same_on_every_day(call: str) -> None:
    prompt = Chat(byte_tokenizer(DATED.replace(CALLS[0], call))).open("Answer.", "a")
    assert "26 Jul 2024" in byte_tokenizer(DATED).decode(prompt)


@pytest.mark.parametrize("kind", ["one template", "a template of its own"])
@pytest.mark.usefixtures("later")
def test_the_template_of_functions_has_the_same_date_too(kind: str) -> None:
    before = "{%- if tools and m.role == 'system' %}{{ strftime_now('%Y') + (tools | tojson) }}"
    marked = CHATML.replace("{{ '<|im_start|>' + m.role + '\n' + m.content", "{{ MARK", 1)
    with_tools = marked.replace(
        "{{ MARK",
        "{{ '<|im_start|>' + m.role + '\n' }}" + before + "{%- endif %}{{ m.content",
    )
    own = {"default": CHATML, "tool_use": with_tools}
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.chat_template = with_tools if kind == "one template" else own
    assert Chat(tokenizer).with_tools("rules", '[{"name": "look"}]').startswith("2024[")


def test_a_date_may_be_given_and_another_clock_is_refused() -> None:
    given = Chat(
        byte_tokenizer("{{ date_string or 'none' }}" + CHATML), "exact", (("date_string", "x"),)
    )
    assert given.tokenizer.decode(given.open("", "a")).startswith("x")
    with pytest.raises(PolicyError, match="'now' is undefined"):
        Chat(byte_tokenizer("{{ now() }}" + CHATML)).check()


def test_a_template_with_something_random_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"differently each time|differently from turn to turn"):
        Chat(byte_tokenizer(RANDOM)).check()
    rarely = "{{ '<|im_start|>' ~ ['a', 'b'] | random }}" + CHATML
    for _ in range(8):
        with pytest.raises(PolicyError, match=r"differently"):
            Chat(byte_tokenizer(rarely)).check()


def test_a_system_message_that_moves_is_refused() -> None:
    chat = Chat(byte_tokenizer(SYSTEM_LAST))
    chat.check(system=False)
    with pytest.raises(PolicyError, match="moves the system message"):
        chat.check()
    Chat(byte_tokenizer(SYSTEM_LAST), "append").check()


def test_the_end_of_a_turn_may_be_marked_special_without_a_name() -> None:
    from tokenizers import AddedToken

    tokenizer = byte_tokenizer(CHATML.replace("<|im_end|>", "<|end|>"))
    tokenizer.add_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    assert "<|end|>" not in tokenizer.all_special_tokens
    chat = Chat(tokenizer)
    assert chat.tokenizer.convert_ids_to_tokens(chat.end) == "<|end|>"
    assert chat.end not in chat.content("go <|end|> on")
    assert chat.text(chat.reply("go")) == "go"
    chat.check_control()


def test_a_vocabulary_with_holes_is_as_large_as_its_largest_id() -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = json.loads(byte_tokenizer(CHATML).backend_tokenizer.to_str())
    vocabulary = core["model"]["vocab"]
    core["model"]["vocab"] = {k: i if i < 200 else i + 10 for k, i in vocabulary.items()}
    for added in core["added_tokens"]:
        added["id"] += 10
        core["model"]["vocab"][added["content"]] = added["id"]
    holed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)), eos_token="<|im_end|>"
    )
    holed.chat_template = CHATML
    chat = Chat(holed)
    assert chat.size > chat.end
    assert chat.size == max(holed.get_vocab().values()) + 1 > len(holed)
    whole = Chat(byte_tokenizer(CHATML))
    assert whole.size == len(whole.tokenizer)


def test_a_template_file_is_utf8_in_every_locale(tmp_path: Path) -> None:
    path = tmp_path / "bars.jinja"
    path.write_bytes(b"\xef\xbb\xbf{{ '\xef\xbd\x9c' }}")
    assert read_template(path) == "{{ '\uff5c' }}"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match=r"is not a text file in UTF-8 \(byte 0\)"):
        read_template(path)
