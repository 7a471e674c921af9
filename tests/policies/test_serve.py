"""Our server: what it answers is what the policy says, and what it does not know it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_servers import HASTY, client, serving
from support.tiny_models import policy, run, small_chat

from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.base import Request
from tutelage.policies.server.serve import Server
from tutelage.policies.server.vllm import write
from tutelage.prompts.prompter import Sample

PROMPT = (3, 9, 30, 8, 41)


def asked(server: Server, path: str = "/v1/completions", **body: Any) -> Any:
    answer = client(server.port).ask(path, body).result(60)
    return answer["choices"][0] if "choices" in answer else answer


def refused(server: Server, path: str = "/v1/completions", **body: Any) -> str:
    error = client(server.port).ask(path, body).exception(60)
    assert isinstance(error, PolicyError), error
    return str(error)


def test_it_says_what_it_serves() -> None:
    with serving(policy(), name="small") as server:
        answer = client(server.port).ask("/v1/models").result(60)
        assert [(m["id"], m["max_model_len"]) for m in answer["data"]] == [("small", 512)]
        assert client(server.port).ask("/health").result(60) == {}
        ids = asked(server, "/tokenize", prompt="You are in")["tokens"]
        assert ids == list(small_chat().content("You are in"))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_turns_are_those_of_the_policy(temperature: float) -> None:
    requests = [
        Request(key=str(k), prompt=PROMPT[k:], seed=k, max_new=12, temperature=temperature)
        for k in range(4)
    ]
    alone = run(policy(), requests)
    with serving(policy()) as server:
        of = client(server.port)
        answers = {
            r.key: of.ask(
                "/v1/completions",
                {
                    "prompt": list(r.prompt),
                    "seed": r.seed,
                    "max_tokens": r.max_new,
                    "logprobs": 0,
                    "temperature": temperature,
                    "return_token_ids": True,
                    "return_tokens_as_token_ids": True,
                    "skip_special_tokens": False,
                },
            )
            for r in requests
        }
        for key, answer in answers.items():
            choice, mine = answer.result(60)["choices"][0], alone[key]
            assert choice["token_ids"] == list(mine.tokens)
            assert choice["prompt_token_ids"] == list(requests[int(key)].prompt)
            assert choice["logprobs"]["tokens"] == [f"token_id:{t}" for t in mine.tokens]
            assert choice["logprobs"]["token_logprobs"] == pytest.approx(mine.logps, abs=1e-5)
            assert choice["finish_reason"] == ("stop" if mine.ended else "length")
            assert choice["text"] == small_chat().tokenizer.decode(list(mine.tokens))


def test_prompts_are_scored_as_the_policy_scores_them() -> None:
    of = policy()
    with torch.no_grad():
        scores = of.score([Sample(prompt=PROMPT[:1], tokens=PROMPT[1:])], 1.0)
        rows = scores.distribution.logps()
    with serving(of) as server:
        first, *prompt_scores = asked(server, prompt=list(PROMPT), max_tokens=1, prompt_logprobs=3)[
            "prompt_logprobs"
        ]
    assert first is None
    for row, token, entry in zip(rows, PROMPT[1:], prompt_scores, strict=True):
        best = row.topk(3).indices.tolist()
        assert set(entry) == {str(t) for t in (token, *best)}
        for name, what in entry.items():
            assert what["logprob"] == pytest.approx(float(row[int(name)]), abs=1e-5)
            assert what["rank"] == int((row > row[int(name)]).sum()) + 1
            assert what["decoded_token"] == small_chat().tokenizer.decode([int(name)])


def test_one_token_is_a_prompt_too() -> None:
    with serving(policy()) as server:
        choice = asked(server, prompt=[7], max_tokens=1, prompt_logprobs=0)
        assert choice["prompt_logprobs"] == [None]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": [1], "model": "other"}, "answered 404 (The model `other` does not exist"),
        ({"prompt": [1, 500]}, "Token id 500 is out of vocabulary"),
        ({"prompt": [-1]}, "answered 400 (prompt"),
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": [1] * 512}, "the context is 512 tokens, and 512 of prompt and 16 new"),
        ({"prompt": [1] * 512, "max_tokens": 1}, "the context is 512 tokens"),
        ({"prompt": [1], "max_tokens": 0}, "max_tokens"),
        ({"prompt": [1], "top_p": 0.9}, "top_p"),
        ({"prompt": [1], "n": 2}, "n:"),
        ({"prompt": [1], "stream": True}, "stream"),
        ({"prompt": [1], "best_of": 2}, "best_of: Extra inputs are not permitted"),
        ({"prompt": [1], "temperature": -1}, "temperature"),
        ({"prompt": [1], "stop_token_ids": [*range(17)]}, "16 tokens at most end a turn"),
        ({"prompt": [1], "stop_token_ids": [2**70]}, "stop_token_ids"),
        ({"prompt": [1], "logprobs": 2}, "logprobs: only 0"),
        ({}, "prompt: Field required"),
    ],
)
def test_what_it_does_not_know_it_refuses(body: dict[str, Any], message: str) -> None:
    with serving(policy()) as server:
        assert message in refused(server, **body)
        # and goes on
        assert asked(server, prompt=[1], max_tokens=1)["finish_reason"]


def test_what_is_not_there() -> None:
    with serving(policy()) as server:
        assert "there is no /v1/embeddings" in refused(server, "/v1/embeddings")
        assert "answered 404" in refused(server, "/collective_rpc", method="reload_weights")


def test_a_key_is_asked_for() -> None:
    with serving(policy(), key="s3cret") as server:
        assert "answered 401" in refused(server, prompt=[1])
        answer = client(server.port, key="s3cret").ask("/v1/completions", {"prompt": [1]})
        assert answer.result(60)["choices"]


def test_a_port_that_is_taken() -> None:
    with (
        serving(policy()) as server,
        pytest.raises(ConfigError, match="choose another --host or --port"),
    ):
        Server(policy(), name="x", port=server.port)


def test_many_at_once() -> None:
    """Turns and scores of many clients, mixed: each gets its own."""
    of = policy(slots=4)
    with serving(policy(slots=4)) as server:
        asks = [
            client(server.port, options=HASTY).ask(
                "/v1/completions",
                {
                    "prompt": [k + 1, 5, 9],
                    "seed": k,
                    "max_tokens": 3 + k % 4,
                    "prompt_logprobs": 0,
                    "return_token_ids": True,
                },
            )
            for k in range(24)
        ]
        for k, ask in enumerate(asks):
            choice = ask.result(60)["choices"][0]
            want = run(of, [Request(key="a", prompt=(k + 1, 5, 9), seed=k, max_new=3 + k % 4)])
            assert choice["token_ids"] == list(want["a"].tokens)
            assert [next(iter(e)) for e in choice["prompt_logprobs"][1:]] == ["5", "9"]


def test_other_weights_are_loaded_where_that_is_allowed(tmp_path: Path) -> None:
    other = policy(seed=1)
    write(other, tmp_path)
    # so long that its head would be kept for whoever begins with it too
    prompt = tuple(range(3, 60))
    body = {"prompt": list(prompt), "max_tokens": 6, "seed": 1, "return_token_ids": True}
    want = run(other, [Request(key="a", prompt=prompt, seed=1, max_new=6)])["a"]
    request = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
    with serving(policy(), reload=True) as server:
        assert asked(server, **body)["token_ids"] != list(want.tokens)
        asked(server, "/collective_rpc", **request)
        assert asked(server, **body)["token_ids"] == list(want.tokens)


def test_weights_that_do_not_fit_are_refused_whole(tmp_path: Path) -> None:
    def tell(server: Server, folder: Path, method: str = "reload_weights") -> str:
        kwargs = {"weights_path": str(folder)}
        return refused(server, "/collective_rpc", method=method, kwargs=kwargs)

    write(policy(layers=1), tmp_path / "fewer")
    write(policy(layers=3), tmp_path / "bigger")
    with serving(policy(), reload=True) as server:
        assert "does not hold all weights" in tell(server, tmp_path / "fewer")
        assert "which is not in this model" in tell(server, tmp_path / "bigger")
        assert "there is no folder" in tell(server, tmp_path / "nowhere")
        assert "only reload_weights" in tell(server, tmp_path / "fewer", "shutdown")
        want = run(policy(), [Request(key="a", prompt=PROMPT, seed=1, max_new=6)])["a"]
        choice = asked(server, prompt=list(PROMPT), max_tokens=6, seed=1, return_token_ids=True)
        assert choice["token_ids"] == list(want.tokens)
