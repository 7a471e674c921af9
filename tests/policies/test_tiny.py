"""The project's own tokenizer and models: every string can be encoded, and comes back."""

import re

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.tiny_models import TEXTS, small_chat, words

from tutelage.policies.hf.tiny import END, ROLES, UNKNOWN, build_model, train_tokenizer
from tutelage.prompts.answer_format import TAGS, parse, write

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=60)
HOUSEHOLD = st.lists(
    st.sampled_from(
        [
            "go",
            "to",
            "fridge",
            "1",
            "12",
            "You",
            "arrive",
            "at",
            "cabinet",
            "apple",
            ".",
            ",",
            "\n",
            " ",
            "a",
            "is",
            "closed.",
            "microwave",
            "Nothing happens.",
            "the",
            ":",
            "zzz",
        ]
    ),
    max_size=20,
).map(" ".join)


def encode(text: str) -> tuple[int, ...]:
    return small_chat().content(text)


def decode(ids: tuple[int, ...]) -> str:
    return small_chat().text(ids)


def words_of(text: str) -> list[str]:
    """Blanks beside square brackets do not count."""
    return re.sub(r"[ \t]*([\[\]])[ \t]*", r"\1", text).split()


@given(text=TEXT | HOUSEHOLD)
@example(text="0[")
@example(text="]0 [1] [ 2")
def test_every_text_comes_back_with_its_blanks_run_together(text: str) -> None:
    bare = text
    for tag in TAGS:
        bare = bare.replace(tag, "")
    back = decode(encode(bare))
    # the mark that stands for a blank inside the tokenizer is a blank
    assert words_of(back) == words_of(bare.replace("\u2581", " "))
    assert words().convert_tokens_to_ids(UNKNOWN) not in encode(bare)


@given(text=TEXT | HOUSEHOLD)
def test_what_was_decoded_encodes_to_the_same_ids(text: str) -> None:
    ids = encode(text)
    assert encode(decode(ids)) == ids


@given(action=HOUSEHOLD, thought=HOUSEHOLD)
def test_an_action_survives_being_written_encoded_and_read(action: str, thought: str) -> None:
    answer = parse(decode(encode(write(action, thought))))
    assert answer.action.split() == action.split()
    assert answer.valid == bool(action.strip())


def test_common_words_and_tags_are_one_token_each() -> None:
    assert len(encode("fridge")) == 1
    for tag in TAGS:
        assert len(encode(tag)) == 1
    assert len(encode("go to fridge 1")) == 4


def test_tags_are_ordinary_tokens_and_roles_are_special() -> None:
    ids = encode(write("go"))
    assert words().decode(list(ids), skip_special_tokens=True).count("action") == 2
    special = {words().convert_tokens_to_ids(t) for t in (END, *ROLES)}
    assert words().decode(sorted(special), skip_special_tokens=True) == ""


def test_an_argument_in_brackets_is_the_tokens_of_its_words_elsewhere() -> None:
    for text in ("go[fridge 1]", "look[go to fridge 1]", write("go[fridge 1]", "fridge 1")):
        assert words().decode(list(encode(text))).count("[fridge 1]") == text.count("[fridge 1]")
        inside = text.partition("[")[2].partition("]")[0]
        whole, part = encode(text), encode(inside)
        assert any(whole[k : k + len(part)] == part for k in range(len(whole)))


def test_training_a_tokenizer_twice_gives_the_same_one() -> None:
    again = train_tokenizer(TEXTS, entries=420)
    assert again.get_vocab() == words().get_vocab()
    assert len(again) <= 420 + len(TAGS)


def test_a_tokenizer_survives_its_folder(tmp_path: object) -> None:
    from transformers import AutoTokenizer

    words().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == words().get_vocab()
    assert again.chat_template == words().chat_template
    for text in ("go to fridge 1", "é 🙂 <|end|>", write("look", "why")):
        assert again(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ] == list(encode(text))


def test_a_built_model_depends_on_its_seed_and_on_nothing_else() -> None:
    shape = {
        "entries": 50,
        "layers": 1,
        "hidden": 16,
        "heads": 2,
        "kv_heads": 1,
        "ffn": 16,
        "context": 32,
        "end": 2,
        "pad": 0,
    }
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build_model(**shape, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = build_model(**shape, seed=1), build_model(**shape, seed=2)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert first.lm_head.weight is first.get_input_embeddings().weight
    assert all(p.dtype == torch.float32 for p in first.parameters())
