"""Conversations of other tools: read as they are meant, imitated as they stand, continued."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import tiny, words

from tutelage.cli.main import main
from tutelage.envs.adapters.messages import END, Messages, Spoken, conversation
from tutelage.errors import ConfigError
from tutelage.rollout.record import read

Captured = pytest.CaptureFixture[str]
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "put a hot apple in fridge"},
    {"role": "assistant", "content": "<think>hot first</think>go to microwave 1"},
    {"role": "user", "content": [{"type": "text", "text": "Nothing happens."}]},
    {"role": "assistant", "content": "go to fridge 1", "weight": 0},
    {"role": "user", "content": "The fridge 1 is closed."},
    {"role": "assistant", "content": "open fridge 1"},
]
CALLS: list[dict[str, Any]] = [
    {"role": "user", "content": "time?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}],
    },
    {"role": "tool", "content": "12:00"},
    {"role": "assistant", "content": "noon"},
    {"role": "user", "content": "and then?"},
]
CALL = '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny(context=512).save_pretrained("base")
    words().save_pretrained("base")
    lines = [{"messages": TALK, "family": "apples"}, {"messages": CALLS, "won": False}] * 2
    Path("chat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_messages_are_turns() -> None:
    found = conversation({"messages": TALK, "family": "apples"}, where="a line")
    assert found.turns == (
        Spoken(
            "You help.\n\nput a hot apple in fridge", "<think>hot first</think>go to microwave 1"
        ),
        Spoken("Nothing happens.", "go to fridge 1", False),
        Spoken("The fridge 1 is closed.", "open fridge 1"),
    )
    assert found.about == {"family": "apples"}
    calls = conversation({"messages": CALLS}, where="a line").turns
    assert calls == (Spoken("time?", CALL), Spoken("12:00", "noon"), Spoken("and then?", None))
    twice = [*TALK[1:3], {"role": "assistant", "content": "at once"}]
    (turn,) = conversation({"messages": twice}, where="a line").turns
    assert turn.reply == f"{TALK[2]['content']}\nat once"
    assert turn.seen == TALK[1]["content"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({}, "has no list of messages"),
        ({"messages": []}, "has no messages"),
        ({"messages": ["hi"]}, "has no list of messages"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "begins with the assistant"),
        ({"messages": [{"role": "critic", "content": "hi"}]}, "role 'critic'"),
        ({"messages": [{"role": "user", "content": 3}]}, "no text: int"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "pictures or sound",
        ),
    ],
)
def test_what_is_no_conversation_is_refused(line: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        conversation(line, where="line 3")


def test_the_suite_plays_a_recording(here: Path) -> None:
    suite = Messages(file="chat.jsonl", test=1)
    assert [len(suite.tasks(split)) for split in ("train", "test")] == [3, 1]
    with pytest.raises(ConfigError, match="no split 'dev'"):
        suite.tasks("dev")
    with pytest.raises(ConfigError, match="has 4 conversations"):
        Messages(file="chat.jsonl", test=4).tasks("train")
    task = suite.tasks("train")[0]
    assert (task.id, task.family) == ("chat/0000000", "apples")
    assert suite.answer(task) == "open fridge 1"
    for replies, won in ((["x", "y", "z"], False), ([m["content"] for m in TALK[2::2]], True)):
        env = suite.make()
        seen = [env.reset(task), *map(env.step, replies)]
        assert [o.text for o in seen[1:3]] == ["Nothing happens.", "The fridge 1 is closed."]
        assert (seen[-1].done, seen[-1].won, seen[-1].reward) == (True, won, float(won))
    open_end = suite.make()
    seen = [open_end.reset(suite.tasks("train")[1]), *map(open_end.step, (CALL, "noon", "later"))]
    assert [o.text for o in seen] == ["time?", "12:00", "and then?", END]
    assert seen[-1].won is False


RUN = """
[run]
folder = "{name}"
steps = 1
[env]
suite = "messages"
workers = 0
options.file = "chat.jsonl"
[context]
instructions = false
[rollout]
tasks_per_step = 2
max_turns = 3
max_new_tokens = 24
replay = "episodes.jsonl"
[algorithm]
{algorithm}
[update]
lr = 1e-3
[policy]
model = "base"
[policies.teacher]
model = "base"
[eval]
every = 0
"""


def test_a_student_imitates_and_continues_them(here: Path, capsys: Captured) -> None:
    """The trained tokens are the answers' own, and the prompts are those of the chat template."""
    asked = ["convert", "chat.jsonl", "episodes.jsonl", "--to", "episodes"]
    assert main(asked) == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert main([*asked, "--tokenizer", "base"]) == 0
    lines: list[Any] = list(read(Path("episodes.jsonl")))
    assert [len(line["turns"]) for line in lines] == [3, 2, 3, 2]
    ids: list[int] = []
    for turn in lines[0]["turns"]:
        ids += turn["prompt"] + turn["tokens"]
    one = {"role": "user", "content": "You help.\n\nput a hot apple in fridge"}
    rest = [{**m, "content": _plain(m["content"])} for m in TALK[2:]]
    assert ids == words().apply_chat_template([one, *rest], return_dict=True)["input_ids"]
    assert [turn["actor"] for turn in lines[0]["turns"]] == ["expert", "astray", "expert"]

    Path("sft.toml").write_text(RUN.format(name="sft", algorithm='name = "sft"'))
    assert main(["train", "sft.toml", "--quiet"]) == 0
    (step,) = read(Path("sft/metrics.jsonl"))
    recorded: list[Any] = list(read(Path("sft/episodes.jsonl")))
    assert {line["task"]["id"] for line in recorded} <= {"chat/0000000", "chat/0000002"}
    assert step["tokens"] == sum(len(t["tokens"]) for line in recorded for t in line["turns"])
    assert step["invalid"] == 0

    tcod = 'name = "tcod"\ndirection = "b2f"'
    Path("opd.toml").write_text(RUN.format(name="opd", algorithm=tcod))
    assert main(["train", "opd.toml", "--quiet"]) == 0
    (episode, *_) = recorded = list(read(Path("opd/episodes.jsonl")))
    assert [turn["actor"] for turn in episode["turns"]] == ["expert", "expert", "student"]


def ids_of(line: Any) -> list[Any]:
    """What is trained on (the small tokenizer writes spaces that the text has not)."""
    return [(t["seen"], t["actor"], t["prompt"], t["tokens"]) for t in line["turns"]]


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else content[0]["text"]


def test_parquet_has_messages_and_ids(here: Path, capsys: Captured) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert (
        main(["convert", "chat.jsonl", "e.jsonl", "--to", "episodes", "--tokenizer", "base"]) == 0
    )
    assert main(["convert", "e.jsonl", "e.parquet", "--to", "parquet"]) == 0
    lines: list[Any] = list(read(Path("e.jsonl")))
    rows = pq.read_table("e.parquet").to_pylist()
    assert [row["task"] for row in rows] == [line["task"]["id"] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        assert [t["tokens"] for t in row["turns"]] == [t["tokens"] for t in line["turns"]]
        assert [t["prompt"] for t in row["turns"]] == [t["prompt"] for t in line["turns"]]
        assert row["messages"][1]["content"] == line["turns"][0]["text"]
    back = ["convert", "e.parquet", "back.jsonl", "--to", "episodes", "--tokenizer", "base"]
    assert main(back) == 0
    again: list[Any] = list(read(Path("back.jsonl")))
    assert list(map(ids_of, again)) == list(map(ids_of, lines))
    assert main([*back[:2], "b.jsonl", *back[3:]]) == 2
    assert "exists already" in capsys.readouterr().err
    Path("no.parquet").write_text("nothing")
    assert (
        main(["convert", "no.parquet", "n.jsonl", "--to", "episodes", "--tokenizer", "base"]) == 2
    )
    assert "is no Parquet file" in capsys.readouterr().err


def test_inspect_reads_them_as_its_own(here: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    assert (
        main(["convert", "chat.jsonl", "e.jsonl", "--to", "episodes", "--tokenizer", "base"]) == 0
    )
    assert main(["convert", "e.jsonl", "e.eval", "--to", "inspect"]) == 0
    assert main(["convert", "e.jsonl", "e.json", "--to", "inspect"]) == 0
    lines: list[Any] = list(read(Path("e.jsonl")))
    for name in ("e.eval", "e.json"):
        samples = log.read_eval_log(name).samples
        assert [sample.id for sample in samples] == [line["task"]["id"] for line in lines]
        assert [s.scores["solved"].value for s in samples] == ["C", "I", "C", "I"]
        assert samples[0].messages[1].text == lines[0]["turns"][0]["text"]
    asked = ["convert", "e.eval", "back.jsonl", "--to", "episodes", "--tokenizer", "base"]
    assert main(asked) == 0
    again: list[Any] = list(read(Path("back.jsonl")))
    assert list(map(ids_of, again)) == list(map(ids_of, lines))
    assert [line["won"] for line in again] == [True, False] * 2


def test_what_is_not_installed_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from tutelage.rollout import tables

    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    Path("e.jsonl").write_text("")
    for form in ("parquet", "inspect"):
        assert main(["convert", "e.jsonl", f"e.{form}", "--to", form]) == 2
        assert f"pip install 'tutelage[{form}]'" in capsys.readouterr().err
