"""A policy on a server does what the same policy here does, and says plainly where it cannot."""

import copy
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.fake_servers import HASTY, client, listed, remote, serving
from support.tiny_models import policy, run, small_chat
from torch.testing import assert_close

from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.base import Request
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import POLL_WAIT, RemotePolicy
from tutelage.policies.server.serve_worker import Worker
from tutelage.policies.server.vllm_api import PATH, completion_request, read_completion
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample

END = small_chat().end
MODELS = {"data": [{"id": "small", "max_model_len": 512}]}
TURNS = [
    Sample(prompt=(3, 9, 30), tokens=(41, 7, END)),
    Sample(prompt=(3, 9, 30, 41, 7, END, 50, 51), tokens=(60, END)),  # goes on from the last
    Sample(prompt=(4, 9), tokens=(5,)),
    Sample(prompt=(4, 8), tokens=()),
    Sample(prompt=(9, 9, 9, 9), tokens=(1, 2, 3, 4)),
]


def answer(ids: list[int], logp: float = -1.0) -> dict[str, Any]:
    entries = [None, *({str(t): {"logprob": logp, "decoded_token": None}} for t in ids[1:])]
    return {"choices": [{"prompt_logprobs": entries}]}


# -- as if it were here


def test_scores_are_those_of_the_same_policy_here() -> None:
    of = policy()
    with torch.no_grad():
        here = of.score(TURNS, 1.0).logp
    with serving(policy()) as server:
        there = remote(server.port, small_chat()).score(TURNS, 1.0).logp
    assert there.shape == here.shape == (10,)
    assert (there - here).abs().max() < 1e-5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_turns_are_those_of_the_same_policy_here(temperature: float) -> None:
    requests = [
        Request(key=str(k), prompt=(k + 3, 9), seed=k, max_new=9, temperature=temperature)
        for k in range(8)
    ]
    here = run(policy(), requests)
    with serving(policy()) as server:
        there = run(remote(server.port, small_chat()), requests)  # type: ignore[arg-type]
    for key, completion in here.items():
        assert (there[key].tokens, there[key].ended) == (completion.tokens, completion.ended)
        assert there[key].logps == pytest.approx(completion.logps, abs=1e-5)


def test_a_row_is_asked_for_once_and_perhaps_early() -> None:
    bodies = [[3, 9, 30, 41, 7, END, 50, 51, 60, END], [4, 9, 5], [9, 9, 9, 9, 1, 2, 3, 4]]
    with listed(*(answer(ids, -k) for k, ids in enumerate(bodies))) as server:
        of = RemotePolicy(
            client(server.port, options=replace(HASTY, concurrent=1)), small_chat(), context=500
        )
        of.prefetch_scores(TURNS[:2])
        of.prefetch_scores(TURNS[:2])
        of.prefetch_scores(TURNS[2:3])
        wait(of.prefetched.values())
        logp = of.score(TURNS, 1.0).logp
        assert logp.tolist() == [0.0] * 5 + [-1.0] + [-2.0] * 4
        assert [body["prompt"] for _, body, _ in server.asked] == bodies
        assert not of.prefetched


def test_equal_rows_are_asked_for_once() -> None:
    one, other = Sample(prompt=(4, 9), tokens=(5,)), Sample(prompt=(8, 8), tokens=(1, 2))
    bodies = [[4, 9, 5], [8, 8, 1, 2]]
    with listed(*(answer(ids, -k) for k, ids in enumerate(bodies))) as server:
        of = RemotePolicy(
            client(server.port, options=replace(HASTY, concurrent=1)), small_chat(), context=500
        )
        of.prefetch_scores([one])
        wait(of.prefetched.values())  # what was begun early serves all of them
        logp = of.score([one, other, one, one, other], 1.0).logp
        assert logp.tolist() == [0.0, -1.0, -1.0, 0.0, 0.0, -1.0, -1.0]
        assert [body["prompt"] for _, body, _ in server.asked] == bodies


def test_a_turn_does_not_wait_for_scores_that_are_begun_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score = Worker._score
    gate = threading.Semaphore(2)  # so many scores are computed before the turn has been sampled

    def late(self: Worker, ids: tuple[int, ...], top: int) -> Any:
        assert gate.acquire(timeout=60)
        return score(self, ids, top)

    rows = [Sample(prompt=(k, 9), tokens=(5, 6)) for k in range(6)]
    with serving(policy()) as server:
        of = remote(server.port, small_chat(), options=replace(HASTY, concurrent=1))
        monkeypatch.setattr(Worker, "_score", late)
        of.prefetch_scores(rows)
        of.submit(Request(key="a", prompt=(3, 9), seed=0, max_new=2))
        while not (completions := of.poll()):
            pass
        assert [completion.key for completion in completions] == ["a"]
        assert sum(begun.done() for begun in of.prefetched.values()) <= 2
        gate.release(len(rows))
        with torch.no_grad():
            assert_close(of.score(rows, 1.0).logp, policy().score(rows, 1.0).logp)


def test_a_poll_waits_only_where_nobody_else_has_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def counted(turns: Any, timeout: float, return_when: str) -> Any:
        waits.append(timeout)
        return wait(turns, timeout=timeout, return_when=return_when)

    monkeypatch.setattr("tutelage.policies.server.policy.wait", counted)
    with listed("stall") as server:
        of = RemotePolicy(client(server.port), small_chat(), context=500)
        of.submit(Request(key="a", prompt=(1,), seed=0, max_new=3))
        for _ in range(21):
            time.sleep(0.001)  # somebody decodes
            assert of.poll() == []
        assert waits == []
        # nobody decodes; on a busy machine two polls may be further apart, so ask until one waits
        deadline = time.monotonic() + 60
        while not waits and time.monotonic() < deadline:
            of.poll()
        assert waits == [POLL_WAIT]


def test_what_is_expected_in_vain_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.policies.server.policy.MAX_PREFETCH", 2)
    with listed("stall") as server:
        of = RemotePolicy(client(server.port), small_chat(), context=500)
        for k in range(5):
            of.prefetch_scores([Sample(prompt=(k,), tokens=(1,))])
        assert [ids for ids, _ in of.prefetched] == [(3, 1), (4, 1)]


def test_refresh_forgets_turns_nobody_waits_for() -> None:
    with listed("stall") as server:
        of = RemotePolicy(client(server.port), small_chat(), context=500)
        of.submit(Request(key="a", prompt=(1,), seed=0, max_new=3))
        of.refresh()
        assert not of.turns
        assert of.poll() == []
        of.release("a")


# -- the first look


def test_it_takes_the_first_model_and_its_context() -> None:
    with serving(policy()) as server:
        of = remote(server.port, small_chat())
        # a token less: a prompt cannot be scored without one being sampled
        assert (of.model, of.context_length) == ("small", 511)
        longest = Sample(prompt=(1,), tokens=(2,) * 510)
        assert len(of.score([longest], 1.0).logp) == 510
        assert remote(server.port, small_chat(), context=99).context_length == 99


def test_an_unsteady_server_is_refused() -> None:
    with listed(MODELS) as server:
        of = RemotePolicy(client(server.port), small_chat(), context=511)
        ids = list(of.probe())
    for apart, fine in ((0.05, True), (0.3, False)):
        with listed(MODELS, answer(ids, -1.0), answer(ids, -1.0 - apart)) as server:
            if fine:
                remote(server.port, small_chat())
                continue
            with pytest.raises(PolicyError, match="scores the same tokens differently each time"):
                remote(server.port, small_chat())


def test_the_whole_vocabulary_is_looked_at() -> None:
    of = RemotePolicy(Client("http://x", name="policies.teacher"), small_chat(), context=511)
    ids = of.probe()
    assert ids[0] == 0
    assert small_chat().size - 1 in ids
    assert END in ids
    assert len(set(ids)) > 40


def test_another_tokenizer_is_refused() -> None:
    other = copy.deepcopy(small_chat().tokenizer)
    with serving(policy()) as server:
        other.add_tokens(["a new word"])
        with pytest.raises(PolicyError, match="out of vocabulary"):
            remote(server.port, Chat(other))

    with serving(policy()) as server:
        of = RemotePolicy(client(server.port), small_chat())
        mine = of.token_text
        of.token_text = lambda token: mine(token or 300)  # type: ignore[method-assign]
        with pytest.raises(PolicyError, match=r"token 0 is .* set policies.teacher.tokenizer"):
            of.connect()


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ({"data": []}, {}, "lists no model under /v1/models"),
        ([], {}, "lists no model under /v1/models"),
        (404, {}, "answered 404"),
        (401, {}, "policies.teacher.key"),
        (b"<html>", {}, "sent something that is not JSON"),
        (MODELS, {"model": "big"}, "has no model 'big', only small"),
        ({"data": [{"id": "x"}]}, {}, "max_model_len"),
    ],
)
def test_a_server_that_is_none_of_ours(models: Any, settings: Any, message: str) -> None:
    with listed(models) as server, pytest.raises(PolicyError) as error:
        remote(server.port, small_chat(), **settings)
    assert message in str(error.value)


# -- what it cannot


def test_there_is_no_whole_distribution() -> None:
    with serving(policy()) as server:
        scores = remote(server.port, small_chat()).score(TURNS, 1.0)
        with pytest.raises(ConfigError, match="choose its sampled-token form, or a local teacher"):
            _ = scores.distribution


def test_only_temperature_1_is_told() -> None:
    of = RemotePolicy(Client("http://x", name="policies.teacher"), small_chat(), context=500)
    with pytest.raises(PolicyError, match=r"not at 0\.7; set rollout\.temperature = 1\.0"):
        of.score(TURNS, 0.7)
    with pytest.raises(PolicyError, match=r"not at 0\.7"):
        of.submit(Request(key="a", prompt=(1,), seed=0, max_new=3, temperature=0.7))
    with listed("stall") as server:
        hot = RemotePolicy(
            client(server.port), small_chat(), context=500, returns_temperature_scaled=True
        )
        hot.submit(Request(key="a", prompt=(1,), seed=0, max_new=3, temperature=0.7))


def test_a_prompt_that_is_too_long() -> None:
    of = RemotePolicy(Client("http://x", name="policies.teacher"), small_chat(), context=9)
    with pytest.raises(PolicyError, match="4 new ones exceed the 9 of"):
        of.submit(Request(key="a", prompt=(1,) * 6, seed=0, max_new=4))


BAD_SCORES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda a: {}, "has no choices"),
    (lambda a: {"choices": [{}]}, "it can act but not be scored"),
    (lambda a: {"choices": [{"prompt_logprobs": a[:-1]}]}, "3 tokens were sent and 2 scored"),
    (lambda a: {"choices": [{"prompt_logprobs": [a[0], a[2], a[1]]}]}, "others were scored"),
    (lambda a: {"choices": [{"prompt_logprobs": [a[0], a[1], None]}]}, "has no log-probability"),
    (lambda a: {"choices": [{"prompt_logprobs": [None, a[1], {"5": {}}]}]}, "None stands where"),
    (lambda a: {"choices": [{"prompt_logprobs": [None, a[1], {"5": {"logprob": 2.0}}]}]}, "2.0 st"),
    (lambda a: [1], "has no choices"),
    (
        lambda a: {"choices": [{"prompt_logprobs": a}] * 2},
        "one choice was asked for, and its answer",
    ),
    (lambda a: {"choices": [{"prompt_logprobs": "abc"}]}, "does not answer as asked"),
    (lambda a: {"choices": [{"prompt_logprobs": 3}]}, "does not answer as asked"),
    (lambda a: {"choices": [{"prompt_logprobs": [None, "x", "9"]}]}, "does not answer as asked"),
    *[
        (
            lambda a, x=x: {"choices": [{"prompt_logprobs": [None, a[1], {"5": {"logprob": x}}]}]},  # type: ignore[misc]
            "stands where a log-probability should",
        )
        for x in (math.nan, math.inf, -math.inf, "-1.0", [-1.0], True, False, -(10**40), 1)
    ],
]


@pytest.mark.parametrize(("break_", "message"), BAD_SCORES)
def test_scores_that_are_not_what_was_asked_for(break_: Any, message: str) -> None:
    good = answer([4, 9, 5])["choices"][0]["prompt_logprobs"]
    with listed(break_(good)) as server:
        of = RemotePolicy(client(server.port), small_chat(), context=500)
        with pytest.raises(
            PolicyError,
            match=r"does not answer as asked.* fix the address in policies\.teacher\.model",
        ) as error:
            of.score([Sample(prompt=(4,), tokens=(9, 5))], 1.0)
    assert message in str(error.value)


def choice(tokens: list[int], logps: list[float], **more: Any) -> dict[str, Any]:
    return {"choices": [{"token_ids": tokens, "logprobs": {"token_logprobs": logps}, **more}]}


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        (choice([5, 6], [-1.0]), "sampled 2 tokens and gave 1 log-probabilities"),
        (choice([5, 6, 7, 8, 9], [-1.0] * 5), "4 tokens at most were asked for"),
        (choice([5, END, 7], [-1.0] * 3), "4 tokens at most were asked for"),
        (choice([], []), "sampled 0"),
        (choice([5, 6], [-1.0] * 2), "without the end-of-turn token"),
        (choice([5, END], [-1.0, math.inf]), "stands where a log-probability should"),
        *[
            (choice([5, END], [-1.0, x]), "stands where a log-probability should")
            for x in (math.nan, -math.inf, "-1", None, True, 2.0, [-1.0])
        ],
        *[
            (choice([5, token], [-1.0] * 2), "token ids are not whole numbers from 0 on")
            for token in (-1, 1.5, "7", None, True, math.nan)
        ],
        (choice([5, END], 3), "does not answer as asked"),  # type: ignore[arg-type]
        (choice(3, [-1.0]), "token ids are not whole numbers"),  # type: ignore[arg-type]
        ({"choices": choice([5, END], [-1.0] * 2)["choices"] * 2}, "one choice was asked for"),
        ({"choices": {}}, "has no choices"),
        (choice([5000, END], [-1.0] * 2), "sampled token 5000, which is not among the"),
        ({"choices": [{"logprobs": {"tokens": ["the"], "token_logprobs": [0.0]}}]}, "as text"),
    ],
)
def test_turns_that_are_not_what_was_asked_for(completion: Any, message: str) -> None:
    with listed(completion) as server:
        of = RemotePolicy(client(server.port), small_chat(), context=500)
        of.submit(Request(key="a", prompt=(4,), seed=0, max_new=4))
        with pytest.raises(PolicyError) as error:
            list(iter(of.poll, [1]))
    assert message in str(error.value)


# -- what is said on the wire


def test_vllm_is_told_to_sample_plainly() -> None:
    request = Request(key="a", prompt=(4, 5), seed=2**63 + 5, max_new=4, temperature=0.5)
    assert PATH == "/v1/completions"
    body = completion_request("m", request, [END])
    assert body["seed"] == 5  # signed numbers of 64 bits
    plain = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    assert plain.items() <= body.items()
    assert (body["ignore_eos"], body["stop_token_ids"]) == (True, [END])


def test_tokens_by_their_names_serve_where_ids_are_not_told() -> None:
    logprobs = {"tokens": ["token_id:5", f"token_id:{END}"], "token_logprobs": [-1.0, -2.0]}
    request = Request(key="a", prompt=(4,), seed=0, max_new=4)
    completion = read_completion({"choices": [{"logprobs": logprobs}]}, request, [END])
    assert (completion.tokens, completion.logps, completion.ended) == ((5, END), (-1.0, -2.0), True)
