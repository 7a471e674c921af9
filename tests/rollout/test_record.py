"""A run on disk: what is read is what was written, to the last bit, and what a crash leaves."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import RunError
from tutelage.rollout.record import Log, cut, dump, episode_line, episode_of, read
from tutelage.types import Episode, Observation, Stop, Taken, Task, Turn

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)
LIKELY = st.dictionaries(st.integers(0, 2**20), st.floats(-1e4, 0.0), max_size=3).map(
    lambda row: tuple(row.items())
)
REAL = st.floats(-1e300, 1e300)  # whose sums are finite too


def taken(tokens: int) -> st.SearchStrategy[Taken]:
    return st.builds(Taken, at=st.integers(0, tokens - 1), by=TEXT)


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    tokens = draw(st.lists(st.integers(0, 2**20), max_size=5).map(tuple))
    return Turn(
        observation=Observation(text=draw(TEXT)),
        prompt=draw(st.lists(st.integers(0, 2**20), max_size=5).map(tuple)),
        text=draw(TEXT),
        tokens=tokens,
        logps=tuple(draw(REAL) for _ in tokens),
        action=draw(TEXT),
        actor=draw(st.sampled_from(["student", "teacher"])),
        taken=draw(st.none() | taken(len(tokens))) if tokens else None,
        reward=draw(REAL),
        penalty=draw(REAL),
        valid=draw(st.booleans()),
        fresh=draw(st.booleans()),
        version=draw(st.none() | st.integers(0, 9)),
        top_logprobs=tuple(draw(LIKELY) for _ in tokens) if draw(st.booleans()) else (),
    )


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    return Episode(
        task=Task(
            id=draw(TEXT),
            family=draw(TEXT),
            seed=draw(st.integers()),
            data=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        ),
        group=draw(TEXT),
        turns=tuple(draw(st.lists(turns(), max_size=4))),
        stop=draw(st.sampled_from(Stop)),
        won=draw(st.booleans()),
        score=draw(st.none() | REAL),
        copy=draw(st.integers(0, 99)),
        error=draw(TEXT),
    )


@given(episode=episodes())
def test_an_episode_comes_back_bit_for_bit(episode: Episode) -> None:
    line = dump(episode_line(episode, 7))
    assert "\n" not in line
    again = json.loads(line)
    assert episode_of(again) == episode
    assert again["step"] == 7
    # written again it is the same line, and what is recorded of a return is the return
    assert dump(episode_line(episode_of(again), 7)) == line
    assert again["return"] == episode.total_reward


def test_what_an_environment_can_say_again_is_not_recorded() -> None:
    seen = Observation(text="hall", state=("a", 1), actions=("go", "look"))
    turn = Turn(observation=seen, prompt=(), text="", tokens=(), logps=())
    line = episode_of(episode_line_of(turn))
    assert line.turns[0].observation == Observation(text="hall")


def episode_line_of(turn: Turn) -> dict[str, object]:
    episode = Episode(task=Task(id="t"), group="t", turns=(turn,))
    line: dict[str, object] = json.loads(dump(episode_line(episode, 0)))
    return line


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_not_written(bad: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump({"x": bad})
    log = Log(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write({"x": 1, "y": [bad]})
    log.write({"x": 1})
    log.close()
    assert list(read(tmp_path / "log.jsonl")) == [{"x": 1}]


def test_lines_are_appended_and_their_length_is_known(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path)
    log.write({"text": "naïve 🚪"})
    first = log.sync()
    assert path.stat().st_size == first
    log.write({"n": 2})
    log.close()
    again = Log(path)
    again.write({"n": 3})
    whole = again.sync()
    again.close()
    assert list(read(path)) == [{"text": "naïve 🚪"}, {"n": 2}, {"n": 3}]
    assert path.stat().st_size == whole > first


def test_a_file_can_be_cut_back_to_a_length(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path)
    log.write({"n": 1})
    length = log.sync()
    log.write({"n": 2})
    log.close()
    before = path.read_bytes()
    cut(path, len(before))
    assert path.read_bytes() == before
    cut(path, length)
    assert list(read(path)) == [{"n": 1}]
    cut(path, 0)
    assert path.read_bytes() == b""
    cut(tmp_path / "never written", 0)
    assert not (tmp_path / "never written").exists()


def test_a_file_shorter_than_its_checkpoint_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(RunError, match=r"shorter than its checkpoint says \(3 < 9 bytes\)"):
        cut(path, 9)
    assert path.read_bytes() == b"{}\n"


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"shorter than its checkpoint says \(0 < 9 bytes\)"):
        cut(tmp_path / "log.jsonl", 9)


def test_a_last_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    whole = b'{"n":1}\n{"n":2}\n{"text":"na\xc3\xafve"}\n'
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        want = [{"n": 1}, {"n": 2}, {"text": "naïve"}][: whole[:length].count(b"\n")]
        assert list(read(path)) == want


@pytest.mark.parametrize("line", [b"{", b"nonsense", b"\xff\xfe", b""])
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n":1}\n' + line + b"\n")
    with pytest.raises(RunError, match=r"log.jsonl, line 2 is not JSON"):
        list(read(path))


@pytest.mark.parametrize(
    "damage",
    [
        {"task": 3},
        {"turns": None},
        {"turns": [1]},
        {"stop": "tired"},
        {"copy": "x"},
        {"score": "high"},
        {"task": {"name": "t"}},
        {"turns": [{"seen": "x"}]},
    ],
)
def test_a_line_that_is_no_episode_says_so(damage: dict[str, object]) -> None:
    line = dict(episode_line(Episode(task=Task(id="t"), group="t", turns=()), 0))
    with pytest.raises(RunError, match=r"cannot be read \(\w+: .*episodes.jsonl"):
        episode_of({**line, **damage})
    with pytest.raises(RunError, match="cannot be read"):
        episode_of({k: v for k, v in line.items() if k != next(iter(damage))})


@pytest.mark.parametrize(
    "likely",
    [
        *(3, [3], [[3]], [[[1, -0.5]], []], [[[1, 0.5]]], [[[-1, -0.5]]]),
        *([[[1, -0.5], [1, -2]]], [[[1, math.nan]]]),
    ],
)
def test_likely_tokens_that_are_none_are_refused(likely: object) -> None:
    turn = Turn(observation=Observation(text=""), prompt=(1,), text="a", tokens=(1,), logps=(0.0,))
    line = episode_line_of(turn)
    line["turns"][0]["top_logprobs"] = likely  # type: ignore[index]
    with pytest.raises(RunError, match="cannot be read"):
        episode_of(line)
    line["turns"][0]["top_logprobs"] = [[[1, -0.5], [7, -2.0]]]  # type: ignore[index]
    assert episode_of(line).turns[0].top_logprobs == (((1, -0.5), (7, -2.0)),)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device of a full disk")
def test_a_full_disk_is_answered_with_what_to_do() -> None:
    log = Log(Path("/dev/full"))
    log.write({"n": 1})
    with pytest.raises(RunError, match=r"/dev/full could not be written \(No space left.*--resume"):
        log.sync()
    with pytest.raises(RunError, match="could not be written"):
        log.write({"text": "x" * 100_000})
    with pytest.raises(RunError, match="could not be written"):
        log.close()
