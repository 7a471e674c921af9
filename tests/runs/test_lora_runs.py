"""Runs that train adapters: what they write, that a killed one ends with the same bytes, and what
becomes of their reference and of their student."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from runs.test_resume import config, in_child, kill_at, whole
from safetensors.torch import load_file
from support.tiny_runs import Quiet, contents

from tutelage.cli.main import main
from tutelage.config.schema import Config
from tutelage.errors import ConfigError, RunError
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample
from tutelage.runs import checkpoint, models, train

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model to adapt."""
    folder = tmp_path_factory.mktemp("base")
    whole(folder, config(run__steps=1, eval__every=0))
    return folder / "run"


def settings(base: Path, **changes: object) -> Config:
    """As the other runs, with a reference and a warm start, on adapters of the base."""
    table = config(**changes).model_dump()
    table["policy"] = {"model": str(checkpoint.latest(base)), "lora": 2}
    return Config.model_validate(table)


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    whole(folder, settings(base))
    return folder


def logps(of: HFPolicy) -> torch.Tensor:
    with torch.no_grad():
        return of.score([Sample(prompt=(5, 6, 7), tokens=(8, 9, 2))], 1.0).logp


def test_checkpoints_hold_adapters_and_their_moments_only(finished: Path, base: Path) -> None:
    found = checkpoint.latest(finished / "run")
    assert not (found / "model.safetensors").exists()
    weights = load_file(found / "adapter_model.safetensors")
    moments = load_file(found / "optimizer.safetensors")
    assert len(weights) == 7 * 2
    assert sum("exp_avg_sq" in name for name in moments) == len(weights)
    before = load_file(finished / "run/checkpoints/step-000000/adapter_model.safetensors")
    assert any(not torch.equal(weights[name], before[name]) for name in weights)


def test_a_killed_run_of_adapters_resumes_to_the_same_bytes(
    finished: Path, base: Path, tmp_path: Path
) -> None:
    job = kill_at(-1, lambda: train.train(settings(base), watch=Quiet()))
    (tmp_path / "count").mkdir()
    assert in_child(tmp_path / "count", job) == 0
    assert contents(tmp_path / "count" / "run") == contents(finished / "run")
    operations = int((tmp_path / "count" / "operations").read_text())
    # after the reference was made, so that it is made again
    folder = tmp_path / "killed"
    folder.mkdir()
    job = kill_at(operations * 4 // 5, lambda: train.train(settings(base), watch=Quiet()))
    assert os.WIFSIGNALED(in_child(folder, job))
    assert (folder / "run" / checkpoint.LATEST).read_text().startswith("step")
    whole(folder, settings(base), resume=True)
    assert contents(folder / "run") == contents(finished / "run")


def test_less_memory_may_be_asked_for_when_a_run_is_continued(
    finished: Path, base: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    config = settings(base, run__folder=str(tmp_path / "run"))
    policy = config.policy.model_copy(update={"gradient_checkpointing": True})
    again = config.model_copy(update={"policy": policy})
    train.train(again, resume=True, watch=Quiet())
    policy = config.policy.model_copy(update={"lora": 3})
    with pytest.raises(RunError, match=r"policy\.lora"):
        train.train(config.model_copy(update={"policy": policy}), resume=True, watch=Quiet())


def test_a_students_whole_weights_are_exported(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.quiet()
    out = tmp_path / "model"
    assert main(["export", str(finished / "run"), str(out)]) == 0
    found = checkpoint.latest(finished / "run")
    exported, adapted = (
        load(str(out)),
        models.load_policy(
            checkpoint_settings(found).policy, where="policy", tokens=99, rows=8, folder=str(found)
        ),
    )
    assert exported.adapters is None
    assert adapted.adapters is not None
    assert torch.allclose(logps(exported), logps(adapted), atol=1e-4)
    first = load(str(checkpoint.latest(finished / "run").parent / "step-000000"))
    assert not torch.allclose(logps(first), logps(exported), atol=1e-5)
    assert main(["export", str(finished / "run"), str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    (tmp_path / "file.toml").write_text("")
    assert main(["export", str(tmp_path / "file.toml"), str(tmp_path / "x")]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def checkpoint_settings(found: Path) -> Config:
    from tutelage.config.toml_file import load as read

    return read(found.parents[1])


def test_a_run_may_start_from_adapters_that_another_trained(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "first")
    table = config(run__steps=1, eval__every=0).model_dump()
    table["policy"] = {"model": str(tmp_path / "first"), "lora": 1}
    whole(tmp_path, Config.model_validate(table))
    weights = load_file(checkpoint.latest(tmp_path / "run") / "adapter_model.safetensors")
    assert {min(x.shape) for x in weights.values()} == {1}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"layers": 1, "build": {"hidden": 8, "context": 8}, "lora": 2}, "not for a built one"),
        ({"model": "x", "quantize": "nf4"}, "cannot be trained"),
        ({"model": "x", "quantize": "nf4", "lora": 2, "sampler": {}}, "full weights"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    section: dict[str, object], message: str
) -> None:
    table = config().model_dump()
    table["policy"] = section
    with pytest.raises(ValueError, match=message):
        Config.model_validate(table)


@pytest.mark.parametrize("setting", [{"lora": 2}, {"gradient_checkpointing": True}])
def test_only_the_student_is_trained_in_less_memory(setting: dict[str, object]) -> None:
    table = config().model_dump()
    table["policies"] = {"teacher": {"model": "x", **setting}}
    with pytest.raises((ValueError, ConfigError), match="only the student"):
        Config.model_validate(table)


def test_a_run_with_the_optimiser_in_main_memory_is_the_same_run(tmp_path: Path) -> None:
    runs = []
    for offload in (False, True):
        folder = tmp_path / str(offload)
        folder.mkdir()
        whole(folder, config(update__offload=offload, run__steps=2, eval__every=0))
        runs.append(contents(folder / "run"))
    assert runs[0].pop("config.toml") != runs[1].pop("config.toml")
    assert runs[0] == runs[1]
