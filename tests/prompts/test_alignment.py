"""Turns in two tokenizers: chunks are the same text, single tokens the same token, and tokenizers
that agree are read as they were sampled."""

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_models import CHATML, TEXTS, byte_tokenizer, words

from tutelage.errors import PolicyError
from tutelage.policies.hf.tiny import train_tokenizer
from tutelage.prompts.alignment import Pair, common, placed
from tutelage.prompts.chat_template import Chat

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("o", "p"), ("op", "e"), ("ope", "n"), ("Ġ", "a")]
THOUGHTFUL = CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>' }}{% endif")


@cache
def bytes_chat(merges: int = 0, template: str = CHATML) -> Chat:
    return Chat(byte_tokenizer(template, MERGES[:merges]))


@cache
def words_chat() -> Chat:
    return Chat(words())


@cache
def other_words() -> Chat:
    """The project's own kind of tokenizer, trained on other texts: other tokens, other ids."""
    return Chat(train_tokenizer([*TEXTS[2:4], "open the door with a key"] * 3, entries=300))


PAIRS = [
    (bytes_chat(7), bytes_chat()),
    (bytes_chat(), bytes_chat(7)),
    (words_chat(), bytes_chat(7)),
    (bytes_chat(7), words_chat()),
    (words_chat(), other_words()),
    (bytes_chat(7), bytes_chat(3, THOUGHTFUL)),
    (bytes_chat(7, THOUGHTFUL), words_chat()),
]
EVERY = pytest.mark.parametrize(
    "pair", [Pair(a, b, name="policies.teacher") for a, b in PAIRS], ids=lambda p: "pair"
)
SENTENCES = (
    "open the door",
    "<think>the apple must be hot first</think><action>go to microwave 1</action>",
    "naïve — 日本 \U0001f600",
    " the  the\n\nthe ",
    "click[b01]",
    "",
)


def text_of(chat: Chat, tokens: tuple[int, ...]) -> str:
    """Without spaces, which tokenizers add and drop."""
    return "".join(chat.tokenizer.decode(list(tokens), skip_special_tokens=True).split())


def check(pair: Pair, tokens: tuple[int, ...]) -> None:
    reading = pair.read(tokens)
    assert len(reading.chunk) == len(reading.single) == len(tokens)
    assert len(reading.of) == len(reading.ids)
    for number in {c for c in reading.chunk if c >= 0}:
        ours = tuple(t for t, c in zip(tokens, reading.chunk, strict=True) if c == number)
        others = tuple(t for t, c in zip(reading.ids, reading.of, strict=True) if c == number)
        assert ours
        assert others
        if ours != (pair.student.end,):
            texts = text_of(pair.student, ours), text_of(pair.teacher, others)
            assert texts[0] == texts[1] or "\ufffd" in texts[0] + texts[1]
    for k, other in enumerate(reading.single):
        if other >= 0:
            assert pair.same[tokens[k]] == reading.ids[other]
            assert reading.chunk[k] == reading.of[other] >= 0


@EVERY
@pytest.mark.parametrize("text", SENTENCES)
def test_every_byte_of_a_plain_turn_is_covered(pair: Pair, text: str) -> None:
    tokens = pair.student.reply(text)
    check(pair, tokens)
    reading = pair.read(tokens)
    assert reading.chunk[-1] >= 0  # the ends of a turn are each other's
    assert reading.ids[-1] == pair.teacher.end
    lost = tuple(t for t, c in zip(tokens, reading.chunk, strict=True) if c < 0)
    # spaces that the teacher's tokenizer drops, and a thought that one of the prompts has opened
    assert text_of(pair.student, lost) in ("", "<think>")


@EVERY
@given(seed=st.integers(0, 10**6), size=st.integers(0, 30))
def test_whatever_is_sampled_is_read(pair: Pair, seed: int, size: int) -> None:
    rng = random.Random(seed)
    check(pair, tuple(rng.randrange(pair.student.size) for _ in range(size)))


@pytest.mark.parametrize("chat", [bytes_chat(7), words_chat(), bytes_chat(3, THOUGHTFUL)])
@given(seed=st.integers(0, 10**6), size=st.integers(0, 30))
def test_a_tokenizer_agrees_with_itself_on_every_token(chat: Chat, seed: int, size: int) -> None:
    """Also on ids that its own encoder would never write, and on broken characters."""
    pair = itself(chat)
    rng = random.Random(seed)
    tokens = tuple(rng.randrange(chat.size) for _ in range(size))
    reading = pair.read(tokens)
    if all(pair.same[t] == t for t in tokens):
        assert reading.ids == tokens
        assert reading.single == tuple(range(size))


@cache
def itself(chat: Chat) -> Pair:
    return Pair(chat, chat, name="policies.teacher")


def test_alike_is_every_id() -> None:
    assert itself(words_chat()).alike
    assert itself(bytes_chat(7)).alike
    assert not Pair(bytes_chat(7), bytes_chat(6), name="x").alike


def test_words_of_one_are_letters_of_the_other() -> None:
    pair = Pair(bytes_chat(7), bytes_chat(), name="policies.teacher")
    reading = pair.read(pair.student.reply("open the sea"))
    assert reading.chunk == (0, 1, 2, 3, 4, 5, 6)  # open| the| |s|e|a|end
    assert reading.of == (0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5, 6)
    assert [s >= 0 for s in reading.single] == [False, False, True, True, True, True, True]


def test_a_character_that_is_cut_is_in_no_chunk() -> None:
    pair = Pair(words_chat(), bytes_chat(7), name="policies.teacher")
    whole = pair.student.reply("go 日 1")
    first = next(k for k, t in enumerate(whole) if pair.ours.pieces[t].byte)
    reading = pair.read(whole[: first + 1])  # without its end, and without two bytes of three
    assert reading.chunk[first] == -1
    assert all(c >= 0 for c in reading.chunk[: first - 1])


def test_special_tokens_in_a_turn_say_nothing() -> None:
    pair = Pair(bytes_chat(7), words_chat(), name="policies.teacher")
    start = pair.student.tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokens = (*pair.student.reply("open")[:-1], start, *pair.student.reply("door"))
    reading = pair.read(tokens)
    assert reading.chunk[1] == -1
    assert reading.chunk[-1] >= 0


def test_boundaries_in_common() -> None:
    assert common([0, 5, 5, 6], [0, 5, 6]) == [(0, 0), (1, 1), (3, 2)]
    assert common([0, None, 4], [0, 2, 4]) == [(0, 0), (2, 2)]
    assert placed([b"ab", b"xx", b"cd"], b"abycd").at == [0, 2, 3, 5]


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        backend_tokenizer = None

    with pytest.raises(PolicyError, match=r"no fast one"):
        Pair(words_chat(), Chat(Slow()), name="policies.teacher")
