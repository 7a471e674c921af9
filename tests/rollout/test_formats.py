"""Episodes are written as ATIF that the format's own models take, and come back equal."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.large_run import lines
from tutelage.cli.main import main
from tutelage.errors import RunError
from tutelage.rollout.formats import atif, from_atif, messages
from tutelage.rollout.record import episode_of

models = pytest.importorskip("atif")
FOREIGN: dict[str, Any] = {
    "schema_version": "ATIF-v1.6",
    "session_id": "abc",
    "agent": {"name": "other", "version": "2"},
    "steps": [
        {"step_id": 1, "source": "system", "message": "be brief"},
        {"step_id": 2, "source": "user", "message": [{"type": "text", "text": "hello"}]},
        {"step_id": 3, "source": "agent", "message": "old", "is_copied_context": True},
        {
            "step_id": 4,
            "source": "agent",
            "message": "I look.",
            "tool_calls": [{"tool_call_id": "1", "function_name": "look", "arguments": {"at": 3}}],
            "observation": {"results": [{"source_call_id": "1", "content": "a door"}]},
            "metrics": {
                "prompt_token_ids": [1, 2],
                "completion_token_ids": [3, 4],
                "logprobs": [-0.5, -0.25],
            },
        },
        {
            "step_id": 5,
            "source": "agent",
            "message": "I go.",
            "metrics": {"prompt_token_ids": [1, 2, 3, 4, 5], "completion_token_ids": [6]},
        },
    ],
    "final_metrics": {"extra": {"won": True}},
}


def recorded() -> list[dict[str, Any]]:
    found = list(lines(12, per_step=8, turns=6))
    turns = found[1]["turns"]
    assert isinstance(turns, list)
    found[1]["turns"] = [{**turn, "fresh": True} for turn in turns]
    found[2]["score"] = 0.25
    found[3] |= {"penalties": {"length": 0.5}, "error": "it broke", "stop": "error"}
    third = found[4]["turns"]
    assert isinstance(third, list)
    found[4]["turns"] = [{**third[0], "taken": [3, "teacher"]}, *third[1:]]
    likely = [[[k, -0.5]] for k in third[0]["tokens"]]
    found[6]["turns"] = [{**third[0], "top_logprobs": likely}, *third[1:]]
    found[7]["turns"] = [{**third[0], "version": 3}, *third[1:]]
    found.append({**found[5], "turns": []})
    return found


@pytest.mark.parametrize("line", recorded(), ids=lambda line: str(line["copy"]))
def test_an_episode_comes_back_equal(line: dict[str, Any]) -> None:
    trajectory = json.loads(json.dumps(atif(line, version="1", model="m")))
    models.Trajectory.model_validate(trajectory)
    assert from_atif(trajectory) == line
    assert episode_of(from_atif(trajectory)) == episode_of(line)


def test_each_prompt_is_whole() -> None:
    line = recorded()[0]
    steps = atif(line, version="1")["steps"]
    assert isinstance(steps, list)
    so_far: list[int] = []
    for step, turn in zip(steps[1:], line["turns"], strict=True):
        so_far += turn["prompt"]
        assert step["metrics"]["prompt_token_ids"] == so_far
        so_far += turn["tokens"]
        assert step["metrics"]["prompt_tokens"] + step["metrics"]["completion_tokens"] == len(
            so_far
        )


def test_another_tool_s_trajectory_is_read() -> None:
    models.Trajectory.model_validate(FOREIGN)
    line = from_atif(FOREIGN)
    episode = episode_of(line)
    assert episode.task.id == "abc"
    assert episode.won
    first, second = episode.turns
    assert first.observation.text == "be brief\nhello"
    assert (first.prompt, first.tokens, first.logps) == ((1, 2), (3, 4), (-0.5, -0.25))
    assert "look" in first.action
    assert second.observation.text == "a door"
    assert (second.prompt, second.fresh, second.action) == ((5,), False, "I go.")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({**FOREIGN, "schema_version": "ATIF-v2.0"}, "no version of ATIF"),
        (
            {**FOREIGN, "steps": [{"step_id": 1, "source": "user", "message": {"text": "hi"}}]},
            "a text or a list of parts, not dict",
        ),
        ({"steps": []}, "KeyError: 'schema_version'"),
        ({**FOREIGN, "steps": [{"source": "agent"}]}, "KeyError: 'message'"),
        ({**FOREIGN, "steps": 3}, "TypeError"),
    ],
)
def test_what_is_no_trajectory_is_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        from_atif(wrong)


def test_a_conversation_is_what_was_said() -> None:
    line = recorded()[0]
    line["turns"][1]["actor"] = "astray"
    talk = messages(line)["messages"]
    assert isinstance(talk, list)
    texts = [text for turn in line["turns"] for text in (turn["seen"], turn["text"])]
    assert [message["content"] for message in talk] == texts
    assert [m["role"] for m in talk] == ["user", "assistant"] * len(line["turns"])
    assert [k for k, m in enumerate(talk) if m.get("weight") == 0] == [3]


def test_a_file_is_converted_there_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    found = recorded()
    episodes = folder / "episodes.jsonl"
    episodes.write_text("".join(json.dumps(line) + "\n" for line in found))
    there, back, talk = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    assert main(["convert", str(folder), str(there), "--to", "atif"]) == 0
    assert main(["convert", str(there), str(back), "--to", "episodes"]) == 0
    assert [json.loads(line) for line in back.read_text().splitlines()] == found
    assert main(["convert", str(episodes), str(talk), "--to", "messages", "--won"]) == 0
    assert len(talk.read_text().splitlines()) == sum(line["won"] for line in found)
    capsys.readouterr()
    assert main(["convert", str(folder), str(there), "--to", "atif"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", str(talk), str(tmp_path / "d"), "--to", "atif"]) == 2
    assert "a line is no episode" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]
