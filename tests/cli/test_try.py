"""`tutelage try` plays the episode that an evaluation plays, and shows how each answer is read."""

import json
from pathlib import Path

import pytest
from support.tiny_runs import tiny_file

from tutelage.cli.main import main
from tutelage.prompts import answer_format
from tutelage.rollout.record import read
from tutelage.viewer.text import visible

SHORT = "rollout.max_turns=1"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "my.toml"
    path.write_text(tiny_file())
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["try", *words]) == code
    out, err = capsys.readouterr()
    if code:
        assert err.count("\n") == 1
        assert "Traceback" not in err
    return err if code else out


def test_a_built_model_that_knows_no_tags(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, str(file), SHORT)
    prompt, _, episode = out.partition("--- the episode")
    assert "--- the first prompt" in prompt
    assert "exactly one action" in prompt
    assert "<action>" in prompt
    assert episode.count("unreadable: there is no <action> </action> in it") == 1
    assert episode.count("cut at rollout.max_new_tokens = 4") == 1
    assert "ended by turns" in episode
    assert "invalid turns: 1 of 1" in episode
    assert shown(capsys, str(file), SHORT) == out


def test_the_episode_is_that_of_an_evaluation(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(file), "--tasks", "1", "--temperature", "1", "--out", "out"]) == 0
    capsys.readouterr()
    (path,) = Path("out").rglob("episodes.jsonl")
    (line,) = read(path)
    out = shown(capsys, str(file), "--temperature", "1")
    task, turns = line["task"], line["turns"]
    assert isinstance(task, dict)
    assert isinstance(turns, list)
    assert out.startswith(task["id"])
    for turn in turns:
        assert visible(turn["text"]) in out


def test_the_expert_wins(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, str(file), "--expert", "rollout.max_turns=9", "rollout.max_new_tokens=8")
    assert "won" in out
    assert "invalid turns: 0 of " in out
    assert "action: " in out
    assert "unreadable" not in out


def test_a_run_and_another_task(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(file), "--quiet"]) == 0
    capsys.readouterr()
    row = json.loads(Path("run/episodes.jsonl").read_text().splitlines()[0])
    name = row["task"]["id"]
    out = shown(capsys, "run", "--split", "train", "--task", name, SHORT)
    assert out.startswith(name)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["my.toml", "--task", "doors/nowhere"], "the unseen split has no task 'doors/nowhere'"),
        (["my.toml", "--split", "nowhere"], "eval.split = 'nowhere'"),
        (["builtin:household-teacher"], "write `tutelage try builtin:household-teacher SUITE`"),
        (["nothing"], "tutelage try MODEL SUITE"),
        (["my.toml", "--temperature", "-1"], "eval.temperature"),
    ],
)
def test_mistakes_are_sentences(
    file: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert sentence in shown(capsys, *words, code=2)


def test_a_prompt_without_room_is_explained(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, str(file), "rollout.max_new_tokens=150")
    assert "leaves no room for rollout.max_new_tokens = 150 in the model's context of 160" in out


@pytest.mark.parametrize(
    ("text", "tags", "problem"),
    [
        ("<action>go</action>", (), ""),
        ("<search>x</search>", ("search",), ""),
        ("go", (), "there is no <action> </action> in it"),
        ("go", ("search", "answer"), "there is no <search> </search> or <answer> </answer> in it"),
        ("<action>a</action><action>b</action>", (), "it has 2 actions instead of one"),
        ("<action> </action>", (), "its action is empty"),
        ("<action>a<think>b</think></action>", (), "its thought is inside the action"),
    ],
)
def test_why_an_answer_is_unreadable(text: str, tags: tuple[str, ...], problem: str) -> None:
    assert answer_format.problem(text, tags) == problem
    assert answer_format.parse(text, tags).valid is not bool(problem)
