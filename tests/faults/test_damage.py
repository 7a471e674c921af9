"""Whatever is damaged, missing, foreign or empty in a run's folder: one sentence names the file, and
the newest checkpoint that is whole."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.fault_runs import config, everything, refused
from support.kill_chains import begin, ended
from support.tiny_runs import Quiet

from tutelage.config.schema import AlgorithmSection
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.errors import Diverged, PolicyError, RunError, TutelageError
from tutelage.objective import Algorithm, Reinforce
from tutelage.policies.hf.policy import HFPolicy
from tutelage.runs import checkpoint, train
from tutelage.runs.export import export
from tutelage.signals import leave_one_out
from tutelage.types import Observation

NEWEST, BEFORE = "step-000004", "step-000002"
Damage = Callable[[Path], None]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """One bit, in the middle of the file: in weights, no reader would notice."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def first_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 0x20
    path.write_bytes(data)


def missing(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def nested(path: Path) -> None:
    path.write_text("[" * 100_000)


def a_list(path: Path) -> None:
    path.write_text("[]")


def of_another_model(path: Path) -> None:
    save_file({n: x[..., :3].clone() if x.dim() else x for n, x in load_file(path).items()}, path)


DAMAGES = (half, empty, flipped, first_byte, missing, a_folder, not_text, garbage, nested, a_list)
CHECKPOINT = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_damaged_checkpoint_is_named_with_the_newest_whole_one(
    name: str, damage: Damage, run: Path
) -> None:
    path = run / "checkpoints" / NEWEST / name
    damage(path)
    message = refused(config(run), run.parent, resume=True)
    assert str(path) in message
    assert BEFORE in message


@pytest.mark.parametrize("name", CHECKPOINT)
def test_the_advice_is_true(name: str, run: Path) -> None:
    """After writing the name into `latest` the run goes on, to the same end."""
    whole = everything(run)
    flipped(run / "checkpoints" / NEWEST / name)
    (run / "latest").write_text(BEFORE + "\n")
    job = lambda: train.train(config(run), resume=True, watch=Quiet())  # noqa: E731
    ended(begin(run.parent, job), run.parent)
    again = everything(run)
    for each in (*(n for n in whole if n.startswith("checkpoints/")), "episodes.jsonl"):
        assert again[each] == whole[each], each


def test_moments_of_another_model_are_refused(run: Path) -> None:
    """Also in a checkpoint of before there were checksums."""
    path = run / "checkpoints" / NEWEST / "optimizer.safetensors"
    of_another_model(path)
    state = json.loads((path.parent / "state.json").read_text())
    del state["files"], state["sha256"]
    (path.parent / "state.json").write_text(json.dumps(state))
    with pytest.raises(RunError, match="belongs to another model"):
        train.train(config(run, run__steps=5), resume=True, watch=Quiet())


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "state.json"])
def test_every_reader_of_a_checkpoint_notices(name: str, run: Path) -> None:
    path = run / "checkpoints" / NEWEST / name
    flipped(path)
    with pytest.raises(TutelageError) as refusal:
        export(run, "", run.parent / "out")
    assert str(path) in str(refusal.value)
    assert not (run.parent / "out").exists()


LATEST: dict[str, Damage] = {
    "empty": empty,
    "not_text": not_text,
    "a_folder": a_folder,
    "garbage": garbage,
    "of no checkpoint": lambda p: p.write_text("step-000099\n") and None,  # type: ignore[func-returns-value]
    "elsewhere": lambda p: p.write_text("../../elsewhere\n") and None,  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("case", LATEST)
def test_a_damaged_latest_is_named_with_the_newest_whole_checkpoint(case: str, run: Path) -> None:
    LATEST[case](run / "latest")
    message = refused(config(run), run.parent, resume=True)
    assert str(run / "latest") in message
    assert NEWEST in message


STATES: dict[str, Callable[[dict[str, object]], object]] = {
    "a phase that no run has": lambda s: s.update(phase="dance"),
    "a step below 0": lambda s: s.update(step=-1),
    "a step that is a text": lambda s: s.update(step="4"),
    "another checkpoint's step": lambda s: s.update(step=2),
    "a log below 0": lambda s: s["logs"].update({"episodes.jsonl": -5}),  # type: ignore[attr-defined]
    "logs that are a list": lambda s: s.update(logs=[]),
    "skills that are a list": lambda s: s.update(skills=[1]),
    "skills that are no numbers": lambda s: s.update(skills={"a": {"b": {"c": "d"}}}),
    "nothing": lambda s: s.clear(),
}


@pytest.mark.parametrize("case", STATES)
@pytest.mark.parametrize("summed", [True, False])
def test_a_state_with_wrong_values_is_refused(case: str, summed: bool, run: Path) -> None:
    """Whether its checksum is wrong, or it has none, as before there were any."""
    path = run / "checkpoints" / NEWEST / "state.json"
    state = json.loads(path.read_text())
    if not summed:
        del state["files"], state["sha256"]
    STATES[case](state)
    path.write_text(json.dumps(state))
    message = refused(config(run), run.parent, resume=True)
    assert str(path) in message
    assert BEFORE in message


@pytest.mark.parametrize("name", ["episodes.jsonl", "metrics.jsonl", "evals.jsonl"])
@pytest.mark.parametrize("damage", [half, empty, missing, a_folder], ids=lambda d: d.__name__)
def test_a_damaged_log_is_named(name: str, damage: Damage, run: Path) -> None:
    damage(run / name)
    message = refused(config(run), run.parent, resume=True)
    assert str(run / name) in message


@pytest.mark.parametrize(
    "name", ["timings.jsonl", "columns.jsonl", "hints.jsonl", "latest", "config.toml", "meta.json"]
)
def test_a_folder_in_a_file_s_place_is_named(name: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    message = refused(config(run), run.parent, resume=True)
    assert str(run / name) in message


@pytest.mark.parametrize("damage", DAMAGES[:-1], ids=lambda d: d.__name__)
def test_a_damaged_config_toml_is_named(damage: Damage, run: Path) -> None:
    damage(run / "config.toml")
    message = refused(config(run), run.parent, resume=True)
    assert str(run) in message


def test_a_file_that_was_added_to_a_checkpoint_is_noticed(run: Path) -> None:
    """It would make the weights those of another model."""
    path = run / "checkpoints" / NEWEST / "adapter_config.json"
    path.write_text('{"base_model_name_or_path": "/somebody/elses", "peft_type": "LORA"}')
    message = refused(config(run), run.parent, resume=True)
    assert str(path) in message


def test_bits_flipped_anywhere_are_noticed(run: Path) -> None:
    draw = random.Random(0)
    paths = [p for p in (run / "checkpoints" / NEWEST).iterdir() if p.suffix != ".jinja"]
    for path in paths:
        before = path.read_bytes()
        for _ in range(5):
            data = bytearray(before)
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
            assert checkpoint.damage(path.parent), path
        path.write_bytes(before)
        assert checkpoint.damage(path.parent) == ""


# -- divergence


@dataclass(frozen=True)
class Lengths(Doors):
    """Doors whose rewards differ between the episodes of a group: by the lengths of the actions."""

    def make(self) -> DoorsEnv:
        return LengthsEnv()


class LengthsEnv(DoorsEnv):
    def step(self, action: str) -> Observation:
        return replace(super().step(action), reward=len(action) / 64)


def exploding() -> Algorithm:
    """RLOO whose gradients are not finite while a file is there."""

    def factor(step: int) -> float:
        return 1e37 if Path(os.environ["EXPLODES"]).exists() else 1.0

    return Algorithm(terms=(Reinforce(advantage=factor * leave_one_out()),))


def test_a_run_that_diverged_goes_on_at_a_lower_rate_from_the_last_good_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "explodes"
    monkeypatch.setenv("EXPLODES", str(flag))
    settings = config(tmp_path / "run", env__suite=f"{__name__}:Lengths", env__workers=0)
    settings = settings.model_copy(
        update={"algorithm": AlgorithmSection(name=f"{__name__}:exploding")}
    )
    lower = settings.model_copy(update={"update": settings.update.model_copy(update={"lr": 1e-4})})

    class Lights(Quiet):
        def stepped(self, line: object, seconds: object) -> None:
            if isinstance(line, dict) and line["phase"] == "train" and line["step"] == 2:
                flag.touch()

    with pytest.raises(Diverged, match="--resume"):
        train.train(settings, watch=Lights())
    assert (tmp_path / "run/latest").read_text().strip() == BEFORE
    # another setting still may not change
    other = lower.model_copy(update={"eval": lower.eval.model_copy(update={"tasks": 1})})
    refused(other, tmp_path, resume=True)
    flag.unlink()
    train.train(lower, resume=True, watch=Quiet())
    assert (tmp_path / "run/latest").read_text().strip() == NEWEST
    meta = json.loads((tmp_path / "run/meta.json").read_text())
    (change,) = meta["changed_after_divergence"]
    assert change == {"from": BEFORE, "before": {"update.lr": 1e-3}}
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [x["lr"] for x in lines if x["phase"] == "train"] == [1e-3, 1e-3, 1e-4, 1e-4]
    # and afterwards it is held to its settings again
    assert "update.lr" in refused(settings, tmp_path, resume=True)


def test_a_checkpoint_that_a_run_has_replaced_meanwhile_is_named(run: Path) -> None:
    with pytest.raises(PolicyError, match=r"goes on, and has replaced its checkpoint step-000001 "):
        HFPolicy.load(str(run / "checkpoints" / "step-000001"))
