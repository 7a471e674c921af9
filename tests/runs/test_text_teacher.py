"""Teachers that are asked in messages, over a real server: episodes to imitate, turns in Guided-OPD,
and what they cost."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.fake_servers import listed, serving
from support.tiny_models import policy
from support.tiny_runs import TEACHER, Quiet, tiny_run

from tutelage.algorithms import ALGORITHMS
from tutelage.config.schema import Config
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.server.account import Account, account_of
from tutelage.runs import offline, train
from tutelage.runs.selftest import refuse_untold

GUIDED = {
    "name": "guided_opd",
    "curriculum": "fixed",
    "start": 0.5,
    "student_turns": "sampled",
    "teacher_turns": "sampled",
}


def config(folder: Path, port: int, algorithm: dict[str, Any], **options: Any) -> Config:
    return tiny_run(
        run={"folder": str(folder)},
        algorithm=algorithm,
        eval={"every": 0},
        policies={
            "teacher": {
                "model": f"chat:http://127.0.0.1:{port}/v1#small",
                "chat": {"options": options},
            }
        },
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_learns_from_turns_that_a_chat_server_takes(tmp_path: Path) -> None:
    options = {"price": [1.0, 2.0], "limit": 1.0, "cache": str(tmp_path / "answers")}
    with serving(policy()) as server:
        train.train(config(tmp_path / "one", server.port, GUIDED, **options), watch=Quiet())
        port = server.port
    steps = lines(tmp_path / "one" / "metrics.jsonl")
    assert all(step["actors"]["teacher"] > 0 for step in steps)
    assert any(step["losses"]["teacher_turns"] != 0 for step in steps)
    assert all(step["losses"]["student_turns"] == 0 for step in steps)
    assert all(step["means"]["covered[teacher]"] == 0 for step in steps)
    cost = steps[-1]["costs"]["teacher"]
    assert cost["requests"] > 0
    assert cost["spent"] == pytest.approx((cost["read"] + 2 * cost["written"]) / 1e6)
    # the same run again is answered from the folder: no server is there any more
    train.train(config(tmp_path / "two", port, GUIDED, **options), watch=Quiet())
    again = lines(tmp_path / "two" / "metrics.jsonl")
    assert again[-1]["costs"]["teacher"]["requests"] == 0
    assert again[-1]["costs"]["teacher"]["spent"] == cost["spent"]
    assert [x["losses"] for x in again] == [x["losses"] for x in steps]


RIGHT = {
    "choices": [{"message": {"content": "<action>3</action>"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 5},
}
"""A chat server's answer that opens the doors of one task."""


def telling(text: str = "<action>3</action>") -> dict[str, Any]:
    """An answer that tells likely tokens, each a character."""
    content = [
        {
            "token": c,
            "bytes": [ord(c)],
            "logprob": math.log(0.6),
            "top_logprobs": [
                {"token": t, "bytes": [ord(t)], "logprob": math.log(x)}
                for t, x in ((c, 0.6), ("#", 0.3))
            ],
        }
        for c in text
    ]
    (choice,) = RIGHT["choices"]
    return {**RIGHT, "choices": [{**choice, "logprobs": {"content": content}}]}


TOPK = {**GUIDED, "teacher_turns": "topk"}


def test_a_run_learns_from_likely_tokens_and_records_them(tmp_path: Path) -> None:
    with listed(telling()) as server:
        for name in ("one", "two"):
            settings = config(tmp_path / name, server.port, TOPK)
            longer = settings.rollout.model_copy(update={"max_new_tokens": 20})
            train.train(settings.model_copy(update={"rollout": longer}), watch=Quiet())
        assert all(body["top_logprobs"] == 20 for _, body, _ in server.asked)
    one, two = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
    steps = lines(tmp_path / "one" / "metrics.jsonl")
    shares = [step["means"]["top_logprobs[teacher_turns]"] for step in steps]
    assert all(0 < share < 1 for share in shares)
    assert all(math.isfinite(step["losses"]["teacher_turns"]) for step in steps)
    turns = [t for e in lines(tmp_path / "one" / "episodes.jsonl") for t in e["turns"]]
    likely = [turn for turn in turns if "top_logprobs" in turn]
    assert {turn["actor"] for turn in likely} == {"teacher"}
    assert all(len(turn["top_logprobs"]) == len(turn["tokens"]) for turn in likely)


def test_a_teacher_that_tells_no_likely_tokens_is_refused(tmp_path: Path) -> None:
    refusal = (400, {}, {"error": {"message": "unknown field logprobs"}})
    for answers, reason in (
        ([RIGHT], "answers have no top_logprobs"),
        ([refusal, refusal, RIGHT], "the server refuses top_logprobs .*unknown field"),
    ):
        with listed(*answers) as server, pytest.raises(PolicyError, match=reason) as error:
            train.train(config(tmp_path / "run", server.port, TOPK), watch=Quiet())
        assert 'teacher_turns = "sampled"' in str(error.value)
        assert not (tmp_path / "run").exists()
    here = tiny_run(
        run={"folder": str(tmp_path / "run")}, algorithm=TOPK, eval={"every": 0}, policies=TEACHER
    )
    with pytest.raises(PolicyError, match="is not asked in messages"):
        train.train(here, watch=Quiet())


def nothing(done: int, total: int) -> None: ...


def test_episodes_of_a_chat_server_are_imitated_in_the_students_tokens(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    with listed(RIGHT) as server:
        settings = config(
            tmp_path / "run", server.port, {"name": "sft"}, price=[1.0, 2.0], reasoning_effort="low"
        )
        found = offline.collect(
            settings, "teacher", path, episodes=9, everything=False, tick=nothing
        )
        bodies = [body for _, body, _ in server.asked]
    assert (found.played, found.won, found.written) == (9, 1, 1)
    assert found.costs["teacher"]["spent"] == pytest.approx(18 * (40 + 2 * 5) / 1e6)
    # options that are none of the account are fields of the requests
    assert all(body["reasoning_effort"] == "low" and "price" not in body for body in bodies)
    (line,) = lines(path)
    assert [turn["actor"] for turn in line["turns"]] == ["teacher"] * 2
    learns = tiny_run(
        run={"folder": str(tmp_path / "sft"), "steps": 3},
        algorithm={"name": "sft"},
        rollout={"replay": str(path), "tasks_per_step": 1, "max_new_tokens": 8},
        eval={"every": 0},
    )
    train.train(learns, watch=Quiet())
    losses = [step["loss"] for step in lines(tmp_path / "sft" / "metrics.jsonl")]
    assert losses[-1] < losses[0]


def test_no_request_is_sent_that_could_exceed_the_limit(tmp_path: Path) -> None:
    options = {"price": [1.0, 2.0], "limit": 0.0004}
    with serving(policy()) as server, pytest.raises(PolicyError, match=r"limit of 0\.0004"):
        train.train(config(tmp_path / "run", server.port, GUIDED, **options), watch=Quiet())


def test_what_is_set_aside_is_never_less_than_what_is_paid() -> None:
    account = Account(name="policies.teacher", price=(10.0, 30.0), limit=0.01)
    body = {"messages": [{"role": "user", "content": "naïve 日本" * 20}]}
    most = account.most(body, 50)
    assert most == pytest.approx((len(("naïve 日本" * 20).encode()) + 16) * 1e-5 + 50 * 3e-5)
    account.reserve("a", body, 50)
    with pytest.raises(PolicyError, match="may cost"):
        account.reserve("b", body, 400)
    account.settle("a", {"usage": {"prompt_tokens": 100, "completion_tokens": 50}})
    assert account.spent == pytest.approx(100e-5 + 150e-5)
    account.settle("a", {"usage": {"prompt_tokens": 100}})  # booked once
    assert (account.requests, account.under_way) == (1, {})
    account.reserve("c", body, 50)
    account.settle("c")  # it failed
    assert account.spent == pytest.approx(250e-5)


def test_answers_and_the_bill_outlive_the_process(tmp_path: Path) -> None:
    one = Account(name="x", price=(1.0, 1.0), cache=tmp_path)
    body = {"messages": [{"role": "user", "content": "hi"}]}
    key = one.key("http://a", body, 3)
    assert key != one.key("http://a", body, 4)
    one.reserve(key, body, 5)
    one.settle(key, {"usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    two = Account(name="x", price=(1.0, 1.0), cache=tmp_path)
    assert two.spent == pytest.approx(15e-6)
    assert two.known(key) == {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    (tmp_path / f"{key}.json").write_text('{"usage": {"pro')
    assert two.known(key) is None
    (tmp_path / "bill.json").write_text("[]")
    with pytest.raises(ConfigError, match="cache"):
        Account(name="x", cache=tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"price": 3}, "price is 3"),
        ({"price": [1.0]}, "price is"),
        ({"price": [1.0, -1.0]}, "price is"),
        ({"price": [1.0, math.inf]}, "price is"),
        ({"limit": 3.0}, "without a price"),
        ({"price": [1.0, 1.0], "limit": "3"}, "limit is '3'"),
        ({"cache": 3}, "cache is 3"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"policies\.teacher\.chat\.options.*{reason}"):
        account_of(options, where="policies.teacher")


@pytest.mark.parametrize(
    ("name", "options", "refused"),
    [
        ("opd", {}, True),
        ("opd", {"vocabulary": "full"}, True),
        ("atod", {}, True),
        ("sdar", {"teacher": "teacher"}, True),
        ("guided_opd", {"total_steps": 9}, True),
        ("guided_opd", {"total_steps": 9, "teacher_turns": "sampled"}, False),
        ("guided_opd", {"total_steps": 9, "teacher_turns": "topk"}, False),
    ],
)
def test_a_method_that_learns_from_scores_alone_is_refused(
    name: str, options: dict[str, Any], refused: bool
) -> None:
    algorithm = ALGORITHMS[name](**options)
    if refused:
        with pytest.raises(PolicyError, match=r"policies\.teacher is asked in messages"):
            refuse_untold("teacher", algorithm)
    else:
        refuse_untold("teacher", algorithm)
