"""The page of real weights: what is kept of a run, also of one that is not finished."""

import time
from pathlib import Path

import pytest

from studies import plan
from studies.pretrained import page, whole
from studies.pretrained.guess.suite import SPAN, Guess
from studies.pretrained.world import WORLDS
from tutelage.config.toml_file import load
from tutelage.rollout import record


def test_a_run_that_is_not_finished_has_its_evaluations_so_far(tmp_path: Path) -> None:
    def lines(name: str, rows: list[dict[str, object]]) -> None:
        (tmp_path / name).write_text("".join(record.dump(row) + "\n" for row in rows))

    lines("metrics.jsonl", [{"step": k, "episodes": 8, "loss": 1.0 / (k + 1)} for k in range(3)])
    lines("timings.jsonl", [{"step": k, "seconds": {"all": 10.0}} for k in range(3)])
    lines(
        "evals.jsonl",
        [
            {"step": k, "won": k, "n": 4, "low": 0.0, "high": 1.0, "turns": 2.0, "invalid": 0.5}
            for k in (0, 2)
        ],
    )
    first, second = page.of_run("cpu/grpo", tmp_path)
    assert (first.episodes, first.loss, first.seconds) == (0, None, 0.0)
    assert (second.episodes, second.loss, second.seconds, second.won) == (16, 0.5, 20.0, 2)
    path = tmp_path / "results.json"
    page.save([first, second], path)
    page.save([second], path)
    assert page.read(path) == [second], "a run takes the place of what was known of it"


def test_a_run_without_evaluations_has_the_one_after_its_last_step(tmp_path: Path) -> None:
    folder, after = tmp_path / "teacher", tmp_path / "teacher-eval"
    folder.mkdir()
    assert not page.has_evaluations(folder)
    after.mkdir()
    rows = [{"step": k, "episodes": 16, "loss": 0.5 - k / 10} for k in range(2)]
    (folder / "metrics.jsonl").write_text("".join(record.dump(row) + "\n" for row in rows))
    (folder / "timings.jsonl").write_text('{"step": 0, "seconds": {"all": 4.0}}\n' * 2)
    (folder / "evals.jsonl").write_text("")  # as a run leaves it that evaluates nothing
    found = {"step": 0, "won": 3, "n": 4, "low": 0.3, "high": 1.0, "turns": 9.0, "invalid": 0.1}
    (after / "summary.json").write_text(f"[{record.dump(found)}]")
    assert page.has_evaluations(folder)
    (only,) = page.of_run("cpu/teacher", folder)
    assert (only.step, only.episodes, only.loss, only.seconds, only.won) == (2, 32, 0.4, 8.0, 3)


@pytest.mark.parametrize("name", page.TITLES)
def test_the_files_of_the_runs_are_configurations(name: str) -> None:
    config = load(page.HERE / f"{name}.toml")
    assert config.run.folder == f"runs/study/pretrained/{name}"


def test_the_student_is_the_first_checkpoint_that_solves_enough(tmp_path: Path) -> None:
    """It is linked without the optimiser's state, and stays when the run deletes the checkpoint."""
    sft, student, seen = tmp_path / "sft", tmp_path / "student", list[float]()
    sft.mkdir()
    lines = [
        {"step": step, "won": won, "n": 10} for step, won in ((0, 5), (8, 1), (16, 4), (24, 9))
    ]
    (sft / "evals.jsonl").write_text("".join(record.dump(line) + "\n" for line in lines[:3]))
    whole.take_student(sft, student, seen)
    assert not student.exists(), "its checkpoint is not written yet"
    for step in (8, 16, 24):
        folder = sft / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
            (folder / name).write_text(f"{step}")
    (sft / "evals.jsonl").write_text("".join(record.dump(line) + "\n" for line in lines))
    whole.take_student(sft, student, seen)
    assert whole.newest(sft).name == "step-000024"
    (sft / "checkpoints" / "step-000016" / "model.safetensors").unlink()
    assert {f.name: f.read_text() for f in student.iterdir()} == {"model.safetensors": "16"}


def test_the_newest_checkpoint_has_the_most_steps(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "state.json").touch()
    assert whole.newest(tmp_path).name == "step-1000000"


def test_no_run_begins_after_the_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole.learn_from(tmp_path / "student", ["grpo", "opd"], time.monotonic(), (), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "no time is left for grpo, opd" in capsys.readouterr().out


def test_four_guesses_are_enough_for_who_halves_and_no_range_is_in_both_splits() -> None:
    suite = Guess()
    ranges = {}
    for split in ("train", "test"):
        tasks = suite.tasks(split)
        ranges[split] = {task.data["low"] for task in tasks}
        for task in tasks:
            suite.reset(task)
            *wrong, right = [suite.step(guess) for guess in suite.demonstrate(task)]
            assert len(wrong) <= 3
            assert all(each.valid and not each.done for each in wrong)
            assert (right.won, right.reward) == (True, 1.0)
    assert not ranges["train"] & ranges["test"]


def test_each_stretch_of_its_tasks_has_all_places_of_the_secret() -> None:
    panel = Guess().tasks("test")[:200]
    places = [int(t.data["secret"]) - int(t.data["low"]) for t in panel]
    assert set(places) == set(range(SPAN))
    assert max(map(places.count, places)) <= 200 / SPAN + 3


def test_an_answer_that_is_no_number_is_refused() -> None:
    suite = Guess()
    suite.reset(suite.tasks("test")[0])
    assert not suite.step("twelve").valid
    assert suite.step("12").valid


@pytest.mark.parametrize("name", WORLDS)
def test_the_studies_of_real_weights_can_be_run(name: str) -> None:
    study = plan.load(WORLDS[name].study)
    assert [run.problem for run in study.runs if run.problem] == []
