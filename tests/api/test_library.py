"""`tl.load`, `tl.train`, `tl.evaluate` and `tl.Run`: a whole run in Python, and its mistakes."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tiny_runs import Quiet, tiny_file, tiny_table

import tutelage as tl
from tutelage.config.schema import RunSection, UpdateSection
from tutelage.envs.doors import Doors
from tutelage.errors import ConfigError, RunError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tl.Run:
    folder = tmp_path_factory.mktemp("library") / "run"
    table = tiny_table(
        run={"folder": str(folder)}, rollout={"group_size": 2}, eval={"every": 2, "tasks": 3}
    )
    return tl.train(table, watch=Quiet())


def test_a_table_in_python_is_the_same_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(tiny_file())
    change: dict[str, Any] = {"update.lr": 0.5, "policy.build.hidden": 32}
    assert tl.load(tiny_table(), change) == tl.load(tmp_path / "my.toml", change)
    assert tl.load(tiny_table(), change).update.lr == 0.5
    with pytest.raises(ConfigError, match=r"update\.lr"):
        tl.load(tiny_table(), {"update.lr": -1})


def test_a_run_is_trained_and_read_back(run: tl.Run) -> None:
    assert [line["step"] for line in run.metrics()] == [0, 1]
    episodes = run.episodes()
    assert len(episodes) == 8  # 2 steps of 2 tasks, 2 of each
    assert all(isinstance(e, tl.Episode) and e.task.id.startswith("doors/") for e in episodes)
    assert [line["step"] for line in run.evaluations()] == [0, 2]
    assert run.checkpoint().name == "step-000002"
    assert run.config.rollout.tasks_per_step == 2
    assert repr(run) == f"Run({str(run.folder)!r}, 2 steps)"
    assert tl.Run(run.folder).metrics() == run.metrics()


def test_a_run_is_continued(run: tl.Run, tmp_path: Path) -> None:
    longer = tl.load(run.folder, {"run.steps": 3, "run.folder": str(tmp_path / "more")})
    first = tl.train(longer, watch=Quiet())
    assert len(first.metrics()) == 3
    assert len(tl.train(longer, watch=Quiet(), resume=True).metrics()) == 3
    with pytest.raises(RunError, match="--resume"):
        tl.train(longer, watch=Quiet())


def test_a_run_its_folder_and_its_export_are_evaluated_alike(run: tl.Run, tmp_path: Path) -> None:
    found = tl.evaluate(run, tasks=4)
    assert len(found.episodes) == 4
    again = tl.evaluate(run.folder, tasks=4)
    exported = run.export(tmp_path / "model")
    limits = tl.Limits(max_turns=3, max_new_tokens=4)
    alone = tl.evaluate(exported, Doors(), tasks=4, limits=limits)
    for other in (again, alone):
        assert [t.tokens for e in other.episodes for t in e.turns] == [
            t.tokens for e in found.episodes for t in e.turns
        ]
    with pytest.raises(RunError, match="exists already"):
        run.export(tmp_path / "model")


def test_tasks_that_were_not_trained_on_are_evaluated_on(run: tl.Run) -> None:
    class Two(Doors):
        def tasks(self, split: str) -> list[tl.Task]:
            return super().tasks("train") if split in ("train", "unseen") else []

    found = tl.evaluate(run.export(run.folder.parent / "two"), Two(), tasks=1)
    assert found.panel.split == "unseen"


def test_a_run_is_evaluated_at_a_temperature(run: tl.Run) -> None:
    greedy, sampled = (tl.evaluate(run, tasks=8, temperature=t) for t in (0.0, 9.0))
    tokens = [
        [t.tokens for e in found.episodes for t in e.turns]
        for found in (tl.evaluate(run, tasks=8), greedy, sampled)
    ]
    assert tokens[0] == tokens[1] != tokens[2]
    with pytest.raises(ConfigError, match=r"temperature is -1\.0; give a number from 0 on"):
        tl.evaluate(run, temperature=-1.0)


def test_a_run_has_a_seed_and_limits_of_its_own(run: tl.Run) -> None:
    with pytest.raises(
        ConfigError, match=r"has a seed of its own; leave seed out, or .*seed=\.\.\."
    ):
        tl.evaluate(run, seed=1)
    with pytest.raises(ConfigError, match=r"has limits of its own; leave limits out, or"):
        tl.evaluate(run.config, limits=tl.Limits())
    where = str(run.checkpoint())  # as the sentence says
    assert tl.evaluate(where, Doors(), tasks=1, seed=1, limits=tl.Limits(max_turns=1)).episodes


def test_a_trainer_and_a_configuration_have_the_same_defaults() -> None:
    shared = {}
    for name, parameter in inspect.signature(tl.Trainer).parameters.items():
        for section in (UpdateSection(), RunSection()):
            if name in type(section).model_fields and parameter.default is not parameter.empty:
                shared[name] = getattr(section, name)
                assert parameter.default == shared[name], name
    assert {"betas", "weight_decay", "grad_clip", "max_tokens_per_pass", "seed"} <= set(shared)


def test_mistakes_are_sentences(run: tl.Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run's folder"):
        tl.Run(tmp_path)
    with pytest.raises(ConfigError, match="leave suite out"):
        tl.evaluate(run, Doors())
    with pytest.raises(ConfigError, match="has no checkpoint 'step-000007'"):
        run.checkpoint("step-000007")
    policy = tl.HFPolicy.load(str(run.checkpoint()), device="cpu")
    with pytest.raises(ConfigError, match="is evaluated on a suite"):
        tl.evaluate(policy)


def test_a_run_on_a_class_is_continued_elsewhere_as_its_message_says(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    table = {
        "run": {"steps": 1, "folder": str(folder)},
        "env": {"suite": Doors},
        "rollout": {"tasks_per_step": 1, "group_size": 2, "max_turns": 2, "max_new_tokens": 2},
        "algorithm": {"name": "grpo"},
        "policy": {"build": {"hidden": 16, "context": 512}, "layers": 1},
        "eval": {"every": 0},
    }
    tl.train(table, watch=Quiet())
    shown = subprocess.run(
        [sys.executable, "-m", "tutelage", "eval", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'tutelage.load(FOLDER, {"env.suite": YOUR_CLASS})' in shown.stderr
    code = (
        "import tutelage as tl\nfrom tutelage.envs.doors import Doors\n"
        "if __name__ == '__main__':\n"
        f"    config = tl.load({str(folder)!r}, {{'env.suite': Doors, 'run.steps': 2}})\n"
        "    print(len(tl.train(config, resume=True).metrics()))\n"
    )
    again = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert again.stdout.splitlines()[-1] == "2", again.stderr
