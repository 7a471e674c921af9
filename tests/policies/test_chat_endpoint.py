"""Messages instead of ids: what a chat server is sent, and what ours makes of it."""

import pytest
from support.fake_servers import HASTY, client, listed, serving
from support.tiny_models import policy, small_chat

from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.server.account import Account
from tutelage.policies.server.chat import ChatPolicy, TextChat, messages

TALK = (
    "You help.",
    "one\nroom",
    "go to fridge 1",
    "Nothing happens.",
    "take \U0001f600 apple",
    "end",
)


def request(prompt: tuple[int, ...], *, key: str = "a") -> Request:
    return Request(key=key, prompt=prompt, seed=3, max_new=5, temperature=0.0)


def prompt_of(chat: TextChat, *, ended: bool = True) -> tuple[int, ...]:
    system, first, one, second, two, third = TALK
    ids = chat.open(system, first)
    for reply, seen in ((one, second), (two, third)):
        ids += chat.reply(reply) if ended else chat.content(reply)
        ids += chat.follow(seen, ended=ended)
    return ids


@pytest.mark.parametrize("ended", [True, False])
def test_a_prompt_is_the_messages_it_was_built_from(ended: bool) -> None:
    roles = ["system", *["user", "assistant"] * 2, "user"]
    found = messages(prompt_of(TextChat(), ended=ended))
    assert found == [{"role": r, "content": t} for r, t in zip(roles, TALK, strict=True)]


def test_our_server_reads_messages_as_training_lays_them_out() -> None:
    """One token is asked for after the same conversation, in messages and in ids."""
    own, chat = policy(), small_chat()
    system, first, one, second, two, third = (text.replace("\U0001f600", "") for text in TALK)
    ids = chat.open(system, first)
    for reply, seen in ((one, second), (two, third)):
        ids += chat.reply(reply) + chat.follow(seen, ended=True)
    talk = [{"role": "system", "content": system}, {"role": "user", "content": first}]
    for reply, seen in ((one, second), (two, third)):
        talk += [{"role": "assistant", "content": reply}, {"role": "user", "content": seen}]
    with serving(own) as server:
        asked = {"temperature": 1.0, "seed": 5, "max_tokens": 12}
        to = client(server.port)
        by_message = to.ask("/v1/chat/completions", {"messages": talk, **asked}).result()
        by_id = to.ask(
            "/v1/completions", {"prompt": list(ids), "return_token_ids": True, **asked}
        ).result()
    assert by_message["usage"] == by_id["usage"]
    assert by_message["usage"]["prompt_tokens"] == len(ids)
    text = chat.text(tuple(by_id["choices"][0]["token_ids"]))
    assert by_message["choices"][0]["message"] == {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        ([], "messages"),
        ([{"role": "assistant", "content": "a"}], "must take turns"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "take turns"),
        ([{"role": "system", "content": "a"}], "must take turns"),
        ([{"role": "tool", "content": "a"}], "messages"),
    ],
)
def test_our_server_refuses_other_conversations(talk: object, reason: str) -> None:
    with serving(policy()) as server:
        answer = client(server.port).ask("/v1/chat/completions", {"messages": talk})
        with pytest.raises(PolicyError, match=reason):
            answer.result()


OK = {
    "choices": [{"message": {"content": "\ud83d x"}, "finish_reason": "length"}],
    "usage": {"completion_tokens": 3},
}


def test_a_turn_that_was_cut_has_no_end() -> None:
    with listed(OK) as server:
        actor = ChatPolicy(client(server.port), model="m")
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        (found,) = actor.poll()
    assert (actor.chat.text(found.tokens), found.ended) == ("? x", False)
    assert found.tokens[-1] != actor.chat.end
    assert (actor.tokens_of("a"), actor.tokens_of("a")) == (3, 0)


@pytest.mark.parametrize(
    "answer", [{}, {"choices": []}, {"choices": [{"message": {"content": 3}}], "usage": {}}, [1]]
)
def test_other_answers_are_refused(answer: object) -> None:
    with listed(answer) as server:
        actor = ChatPolicy(client(server.port), model="m")
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        with pytest.raises(PolicyError, match="does not answer as OpenAI's chat completions"):
            actor.poll()


@pytest.mark.parametrize("count", [None, -1, 1.5, "3", True, 10**40, [3]])
@pytest.mark.parametrize("name", ["completion_tokens", "prompt_tokens"])
def test_a_usage_that_is_none_is_named(name: str, count: object) -> None:
    """A negative number would lower what was spent, and a missing one would not be counted."""
    usage = {"completion_tokens": 3, "prompt_tokens": 5, name: count}
    with listed({**OK, "usage": usage}) as server:
        account = Account(name="policies.teacher", price=(1.0, 1.0), limit=9.0)
        actor = ChatPolicy(client(server.port), model="m", account=account)
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        with pytest.raises(PolicyError, match=rf"for usage\.{name}, where its number of tokens"):
            actor.poll()


@pytest.mark.parametrize("usage", [None, [], "many", {}])
def test_answers_without_their_usage_are_named(usage: object) -> None:
    with listed({**OK, "usage": usage}) as server:
        actor = ChatPolicy(client(server.port), model="m")
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        with pytest.raises(PolicyError, match=r"has None for usage\.completion_tokens"):
            actor.poll()


@pytest.mark.parametrize("count", [None, "5", -5])
def test_what_is_read_is_not_asked_for_where_it_costs_nothing(count: object) -> None:
    with listed({**OK, "usage": {"completion_tokens": 3, "prompt_tokens": count}}) as server:
        actor = ChatPolicy(client(server.port), model="m")
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        assert len(actor.poll()) == 1
        assert actor.account.numbers()["read"] == 0


def test_an_error_that_is_sent_as_an_answer_is_shown() -> None:
    with listed({"error": {"message": "the provider is overloaded.", "code": 502}}) as server:
        actor = ChatPolicy(client(server.port), model="m")
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        with pytest.raises(
            PolicyError, match=r"do \(the provider is overloaded\); fix the address"
        ):
            actor.poll()


@pytest.mark.parametrize("content", ["", None, "   "])
def test_an_empty_answer_is_an_answer(content: object) -> None:
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    with listed({"choices": [choice], "usage": {"completion_tokens": 0}}) as server:
        actor = ChatPolicy(client(server.port), model="m")
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        (found,) = actor.poll()
    assert (actor.chat.text(found.tokens), found.ended) == (content or "", True)
    assert found.tokens


def test_a_temperature_that_is_refused_is_no_result() -> None:
    refusal = (400, {}, {"error": {"message": "temperature does not support 0 with this model"}})
    with listed(refusal) as server:
        actor = ChatPolicy(client(server.port, options=HASTY), model="m")
        actor.submit(request(actor.chat.open("", "hi")))
        actor.wait()
        with pytest.raises(PolicyError, match="temperature does not support 0"):
            actor.poll()
        assert len(server.asked) == 1


def test_it_names_its_model_or_asks_for_one() -> None:
    for names in ([], ["a", "b"]):
        models = {"data": [{"id": name} for name in names]}
        refusal = pytest.raises(PolicyError, match=f"lists {len(names)} models")
        with listed(models) as server, refusal:
            ChatPolicy(client(server.port)).connect()
    with listed({"data": [{"id": "a"}]}) as server:
        actor = ChatPolicy(client(server.port), prefix="")
        actor.connect()
        assert (actor.model, server.asked[0][0]) == ("a", "/models")


def test_it_cannot_be_scored() -> None:
    with listed(OK) as server, pytest.raises(PolicyError, match="cannot be scored"):
        ChatPolicy(client(server.port), model="m").score([], 1.0)
