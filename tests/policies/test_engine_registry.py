"""Policy engines by name and by path: which one a section means, and runs with one of a third party."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.fake_policy import DIGITS, Table
from support.table_engine import WEIGHTS
from support.tiny_runs import Quiet, tiny_table

from tutelage.cli import doctor, dry_run
from tutelage.cli.library import evaluate
from tutelage.config.schema import Config, PolicySection, SamplerSection
from tutelage.config.toml_file import parse
from tutelage.envs.doors import RULE
from tutelage.errors import ConfigError
from tutelage.policies import registry
from tutelage.policies.registry import named
from tutelage.runs import models
from tutelage.runs.run import Run
from tutelage.runs.train import train

TABLE = "support.table_engine:Engine"


def config(folder: Path, *, model: str, teacher: str = "", **algorithm: object) -> Config:
    table = tiny_table(
        run={"folder": str(folder), "checkpoint_every": 1},
        rollout={"tasks_per_step": 3, "group_size": 4, "max_turns": 2, "max_new_tokens": 6},
        algorithm=algorithm or {"name": "grpo"},
        update={"lr": 0.1},
        policies={"teacher": {"model": teacher}} if teacher else {},
        eval={"every": 0},
    )
    return parse({**table, "policy": {"model": model}})


# -- which engine a section means


@pytest.mark.parametrize(
    ("section", "engine", "model"),
    [
        ({"model": "Qwen/Qwen3-0.6B"}, "hf", "Qwen/Qwen3-0.6B"),
        ({"model": "builtin:household-teacher"}, "hf", "builtin:household-teacher"),
        ({"model": "builtin:teacher"}, "hf", "builtin:teacher"),
        ({"model": "wheel:small_model"}, "hf", "wheel:small_model"),
        ({"model": "runs/x"}, "hf", "runs/x"),
        ({"build": {"hidden": 16, "context": 64}}, "tiny", ""),
        ({"model": "http://host:8000#student"}, "server", "http://host:8000#student"),
        ({"model": "my.engine:Open"}, "my.engine:Open", ""),
        ({"model": "my.engine:Open#a/b:c#d"}, "my.engine:Open", "a/b:c#d"),
    ],
)
def test_a_section_names_its_engine(section: dict[str, object], engine: str, model: str) -> None:
    found = named(PolicySection.model_validate(section))
    assert found == (engine, model)
    assert found.ours == (engine in ("hf", "tiny", "server"))


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step:Three").mkdir()
    monkeypatch.chdir(tmp_path)
    assert named(PolicySection(model="step:Three")).engine == "hf"
    assert named(PolicySection(model="step:Four")).engine == "step:Four"


def test_our_engines_are_found_by_their_entry_points() -> None:
    for section, function in (
        (PolicySection(model="a/b"), models.hf),
        (PolicySection.model_validate({"build": {"hidden": 16, "context": 64}}), models.tiny),
        (PolicySection(model="http://host:1"), models.server),
    ):
        assert registry.engine_of(section, where="policy") is function


def test_a_package_of_a_third_party_brings_an_engine(tmp_path: Path) -> None:
    """As pip leaves it, in a Python of its own: packages are looked for once in a process."""
    (tmp_path / "acme.py").write_text("def table(opening): ...\n")
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tutelage.policies]\ntable = acme:table\n")
    code = (
        "from tutelage.config.schema import PolicySection\n"
        "from tutelage.policies.registry import engine_of, named\n"
        "section = PolicySection(model='table:of/letters:1')\n"
        "print(*named(section), engine_of(section, where='policy').__module__)\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": f"{source}:{tmp_path}"},
    )
    assert ran.stdout.split() == ["table", "of/letters:1", "acme"], ran.stderr


# -- a run with one


def test_an_engine_of_a_third_party_is_trained(tmp_path: Path) -> None:
    """Played, tested, updated, saved, continued and evaluated by its path alone."""
    folder = tmp_path / "run"
    train(config(folder, model=TABLE), watch=Quiet())
    begun, ended = (
        load_file(folder / "checkpoints" / name / WEIGHTS)["logits"]
        for name in ("step-000001", "step-000002")
    )
    assert not begun.equal(ended)
    longer = config(folder, model=TABLE).model_copy(
        update={"run": config(folder, model=TABLE).run.model_copy(update={"steps": 3})}
    )
    train(longer, resume=True, watch=Quiet())
    once = tmp_path / "once"
    straight = longer.model_copy(
        update={"run": longer.run.model_copy(update={"folder": str(once)})}
    )
    train(straight, watch=Quiet())
    last = [load_file(f / "checkpoints" / "step-000003" / WEIGHTS) for f in (folder, once)]
    assert last[0]["logits"].equal(last[1]["logits"])
    assert len(evaluate(Run(folder), split="seen", tasks=3).won) == 3


def test_an_engine_of_a_third_party_teaches(tmp_path: Path) -> None:
    """A teacher that knows the digits makes the student's gap shrink; both by their paths."""
    folder = tmp_path / "run"
    train(
        config(folder, model=TABLE, teacher="support.table_engine:Frozen#6", name="opd"),
        watch=Quiet(),
    )
    before, after = Table(), Table()
    after.load_state_dict(load_file(folder / "checkpoints" / "step-000002" / WEIGHTS))
    for letter, digit in RULE.items():
        right = DIGITS.index(digit)
        assert after.chances(letter)[right] > before.chances(letter)[right] + 0.01


def test_a_reference_is_a_copy_of_the_engines_student(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = config(folder, model=TABLE, name="grpo", kl=0.1)
    train(settings, watch=Quiet())
    lines = Run(folder).metrics()
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("support.table_engine:Nothing", ["policy.model", "has no class 'Nothing'"]),
        ("no_such_module:Engine", ["policy.model", "no_such_module could not be imported"]),
        ("support.table_engine:nothing#x", ["is no policy", "submit", "context_length", "dtype"]),
        ("support.table_engine:fails#x", ["policy.model", "there is no table at x"]),
        ("support.table_engine:Half", ["dtype 'float16'", "float32, bfloat16"]),
        ("support.table_engine:Frozen", ["policy.model", "Frozen cannot be trained", "save"]),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, model: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        train(config(tmp_path / "run", model=model), watch=Quiet())
    for part in parts:
        assert part in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_vllm_does_not_sample_for_an_engine(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", model=TABLE)
    sampled = settings.policy.model_copy(update={"sampler": SamplerSection()})
    with pytest.raises(ConfigError, match=r"policy\.sampler"):
        train(settings.model_copy(update={"policy": sampled}), watch=Quiet())


def test_a_dry_run_and_the_doctor_leave_an_engines_model_to_it(tmp_path: Path) -> None:
    settings = config(
        tmp_path / "run", model=TABLE, teacher="support.table_engine:Frozen#6", name="opd"
    )
    plan = dry_run.make(settings)
    assert [model.source for model in plan.models] == [
        f"{TABLE} of an engine of yours",
        "support.table_engine:Frozen#6 of an engine of yours",
    ]
    lines = [line for part in doctor.needed(settings) for line in part.lines]
    assert {line.state for line in lines if line.name.startswith("polic")} == {"note"}
    with pytest.raises(ConfigError, match="has no class 'Absent'"):
        dry_run.make(config(tmp_path / "run", model="support.table_engine:Absent"))


def test_the_engine_of_the_documentation_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "add_engine.md").read_text()
    (code,) = re.findall(r"```python\n(# my_engine\.py\n.*?)```", page, re.DOTALL)
    (tmp_path / "my_engine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "run"
    train(config(folder, model=TABLE, teacher="my_engine:Always#1", name="opd"), watch=Quiet())
    after = Table()
    after.load_state_dict(load_file(folder / "checkpoints" / "step-000002" / WEIGHTS))
    assert min(float(after.chances(letter)[DIGITS.index("1")]) for letter in RULE) > 0.26
