"""Whole runs of composed algorithms and of views with hindsight: killed, and with long texts."""

import json
from pathlib import Path

import pytest
import transformers.models.auto.modeling_auto
import transformers.models.qwen3.modeling_qwen3  # noqa: F401 - once, not in every child
from runs.test_resume import config, in_child, kill_at, whole
from support.tiny_runs import Quiet, contents

from tutelage.config.schema import Config
from tutelage.config.toml_file import parse, resolved
from tutelage.errors import RunError
from tutelage.runs import train

ALGORITHM = {
    "name": "compose",
    "views": {"teacher": {"hint": "plan", "hindsight": "next_observations(1)"}},
    "terms": {
        "reinforce": {
            "advantage": "group_relative() + linear(1, 0, total_steps) * t_dur() * gap()"
        },
        "pull": {
            "kind": "distill_sampled",
            "estimate": "log_ratio",
            "gate": "gap_gate()",
            "weight": 0.01,
        },
    },
}


def composed(context: int = 512, algorithm: dict[str, object] | None = None) -> Config:
    table = json.loads(json.dumps(resolved(config())))
    table["algorithm"] = algorithm or ALGORITHM
    table["policy"]["build"]["context"] = context
    return parse(table)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run that never stopped, and its operations on files."""
    folder = tmp_path_factory.mktemp("whole")
    job = kill_at(10**9, lambda: train.train(composed(), resume=False, watch=Quiet()))
    assert in_child(folder, job) == 0
    return folder, int((folder / "operations").read_text())


def test_a_composed_run_that_is_killed_goes_on_to_the_same_bytes(
    finished: tuple[Path, int], tmp_path: Path
) -> None:
    folder, operations = finished
    job = kill_at(round(0.7 * operations), lambda: train.train(composed(), watch=Quiet()))
    assert in_child(tmp_path, job) != 0
    whole(tmp_path, composed(), resume=True)
    assert contents(tmp_path / "run") == contents(folder / "run")


def test_what_was_measured_has_the_columns_of_its_words(finished: tuple[Path, int]) -> None:
    lines = (finished[0] / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert set(last["losses"]) == {"reinforce", "pull"}
    assert {"t_dur", "gap[teacher|student]", "gate[pull]"} <= set(last["means"])


def unfit(folder: Path, context: int) -> tuple[int, int]:
    """Episodes left out of a run of OCSD, and all of them."""
    settings = composed(context, {"name": "ocsd", "kl": 0.0})
    whole(folder, settings)
    lines = [json.loads(x) for x in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if line["phase"] == "train"]
    return sum(r["unfit"] for r in rows), sum(r["episodes"] for r in rows)


def test_hindsight_that_does_not_fit_leaves_its_episode_out_and_is_counted(tmp_path: Path) -> None:
    for context in (512, 128):
        (tmp_path / str(context)).mkdir()
    assert unfit(tmp_path / "512", 512)[0] == 0
    with pytest.raises(RunError, match="no episode of step 0 fits"):
        train.train(
            composed(64, {"name": "ocsd", "kl": 0.0}).model_copy(
                update={"run": config().run.model_copy(update={"folder": str(tmp_path / "64")})}
            ),
            watch=Quiet(),
        )
