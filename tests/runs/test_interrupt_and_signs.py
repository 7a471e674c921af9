"""Ctrl-C costs no finished step, and a run that cannot learn says so."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from runs.test_resume import config, in_child, whole
from support.tiny_runs import Quiet, contents

from tutelage.runs import checkpoint, train
from tutelage.runs.interrupt import delayed


@pytest.fixture(autouse=True)
def ctrl_c_arrives() -> Iterator[None]:
    """Shells start programs in the background with Ctrl-C ignored, also this test suite."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Stops(Quiet):
    """Presses Ctrl-C while the n-th step's episodes are played."""

    def __init__(self, step: int) -> None:
        self.left = step

    def stepped(self, line: object, seconds: object) -> None:
        self.left -= 1

    def playing(self, done: int, total: int) -> None:
        if self.left == 0:
            self.left = -1
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    # what is imported here need not be imported again in every child
    train.train(config(run__folder=str(tmp_path_factory.mktemp("first") / "run")), watch=Quiet())
    whole(folder)
    return contents(folder / "run")


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_ctrl_c_keeps_every_finished_step_and_changes_nothing(
    steps: int, tmp_path: Path, reference: dict[str, bytes]
) -> None:
    """3 steps of warm start and 4 of training: stopped in either, and continued."""
    stopped = in_child(tmp_path, lambda: train.train(config(), watch=Stops(steps)))
    assert os.waitstatus_to_exitcode(stopped) == 130
    folder = tmp_path / "run"
    state = checkpoint.read_state(checkpoint.latest(folder))
    assert (state.phase, state.step) == (
        ("warm_start", steps) if steps < 3 else ("train", steps - 3)
    )
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == steps
    assert len((folder / "timings.jsonl").read_text().splitlines()) == steps
    whole(tmp_path, resume=True)
    assert contents(folder) == reference


def test_ctrl_c_waits_for_the_block_and_a_second_one_does_not() -> None:
    lines: list[str] = []
    reached = False
    with pytest.raises(KeyboardInterrupt), delayed(lambda: lines.append("waiting")):  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached
    assert lines == ["waiting"]
    with pytest.raises(KeyboardInterrupt), delayed():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one was held back")


class Notes(Quiet):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def warned(self, sentence: object) -> None:
        self.notes.append(str(sentence))


def notes(folder: Path, **changes: object) -> list[str]:
    table: Mapping[str, object] = {"run__folder": str(folder / "run"), "run__steps": 2, **changes}
    settings = config(**table).model_copy(update={"warm_start": None})
    watch = Notes()
    train.train(settings, watch=watch)
    return watch.notes


def test_a_model_that_writes_nonsense_is_told_about(tmp_path: Path) -> None:
    """Random weights: 4 tokens a turn never hold an action, so nothing is won and nothing differs."""
    found = notes(tmp_path, algorithm__kl=0.0, algorithm__entropy=0.0)
    first, last = "in the first step", "in all 2 steps"
    for when in (first, last):
        for word in (
            "are invalid",
            "were cut at rollout.max_new_tokens = 4",
            "equal returns in every group",
            "the gradient is 0",
        ):
            assert any(word in note and when in note for note in found), (word, when, found)
    assert all("\n" not in note for note in found)


def test_an_expert_that_says_more_than_a_turn_may_hold(tmp_path: Path) -> None:
    settings = config(run__folder=str(tmp_path / "run"), run__steps=1, rollout__max_new_tokens=2)
    watch = Notes()
    train.train(settings, watch=watch)
    (note,) = [note for note in watch.notes if "replies of the expert" in note]
    lengths = [
        len(turn["tokens"])
        for turn in json.loads((tmp_path / "run/episodes.jsonl").read_text().splitlines()[0])[
            "turns"
        ]
    ]
    assert f"set it to at least {max(lengths)}" in note


def test_a_run_that_learns_is_left_alone(tmp_path: Path) -> None:
    """Imitation of the expert, with room for its replies: nothing to say."""
    settings = config(run__folder=str(tmp_path / "run"), rollout__max_new_tokens=12)
    section = type(settings.algorithm).model_validate({"name": "sft"})
    settings = settings.model_copy(update={"warm_start": None, "algorithm": section})
    watch = Notes()
    train.train(settings, watch=watch)
    assert watch.notes == []
