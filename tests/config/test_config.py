"""Configurations: reading, overriding, checking and writing them, and what is built from them."""

import io
import math
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tutelage import cpu
from tutelage.cli import dry_run, model_sizes
from tutelage.config.expressions import in_words
from tutelage.config.reference import markdown
from tutelage.config.renamed import ALIASES, NOT_SETTINGS, RENAMED
from tutelage.config.schema import Config, LearningRate, SamplerSection, leaves
from tutelage.config.signature import call
from tutelage.config.toml_file import (
    differences,
    load,
    override,
    parse,
    resolved,
    write,
    write_value,
)
from tutelage.envs.base import Suite
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.envs.pool import LocalPool, ProcessPool
from tutelage.envs.registry import suite_of
from tutelage.errors import ConfigError, TutelageError
from tutelage.policies.hf.tiny import build_model, train_tokenizer
from tutelage.rollout.session import Limits
from tutelage.runs import assemble, models
from tutelage.runs.phases import phases_of, policies_wanted, steps_matter
from tutelage.schedules import Schedule
from tutelage.training.optimizer import learning_rate

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
LEAST = """
[run]
steps = 10
[env]
suite = "doors"
[rollout]
tasks_per_step = 4
group_size = 2
[algorithm]
name = "grpo"
[update]
lr = 1e-3
[policy]
layers = 1
build = {hidden = 16, context = 128}
[eval]
tasks = 4
"""


def least(*changes: str) -> Config:
    return parse(override(tomllib.loads(LEAST), changes))


def mistake(text: str, tmp_path: Path, *changes: str) -> str:
    """What is said about a file: always one sentence."""
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "my.toml", changes)
    output = str(error.value)
    assert ("\n" in output) == ("settings are wrong" in output)
    assert "pydantic" not in output
    assert "Input" not in output
    return output


# -- reading


def test_the_least_file_is_completed_and_named_after_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(LEAST)
    config = load(tmp_path / "mine.toml")
    assert config.run.folder == "runs/mine"
    assert config.run.steps == 10
    assert config.rollout.max_turns == Limits().max_turns


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    config = least(
        'env.options={a=[1, 2.5, "x"], b={c=true}}',
        'policies={"my teacher"={model="a/b", chat={options={think=false}}}}',
        'warm_start={name="sft", steps=3, lr=0.1}',
        "algorithm.kl={linear=[0.1, 0.0, 5]}",
    )
    (tmp_path / "config.toml").write_text(write(config))
    assert load(tmp_path) == config
    assert write(load(tmp_path)) == write(config)
    # every setting is written, so that a default that changes later changes no old run
    written = tomllib.loads((tmp_path / "config.toml").read_text())
    assert set(written["rollout"]) == set(type(config.rollout).model_fields)


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("aé .\"'", max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(value=VALUES)
def test_any_value_survives_toml(value: object) -> None:
    read = tomllib.loads(f"x = {write_value(value)}")["x"]  # type: ignore[arg-type]
    assert read == value
    assert repr(read) == repr(value)  # 1 is not 1.0, and -0.0 is not 0.0


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("update.lr=1e-5", "update.lr", 1e-5),
        ("rollout.tasks_per_step=7", "rollout.tasks_per_step", 7),
        ("env.suite=household", "env.suite", "household"),
        ("run.folder=runs/a b", "run.folder", "runs/a b"),
        ('run.folder="x=y"', "run.folder", "x=y"),
        ("context.instructions=false", "context.instructions", False),
        ("policies.teacher.model=a/b", "policies.teacher.model", "a/b"),
        ("update.betas=[0.5, 0.9]", "update.betas", [0.5, 0.9]),
    ],
)
def test_overrides_are_toml_values_or_bare_words(
    tmp_path: Path, change: str, key: str, value: object
) -> None:
    (tmp_path / "my.toml").write_text(LEAST)
    found: object = resolved(load(tmp_path / "my.toml", [change]))
    for part in key.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert found == value


def test_a_whole_section_is_replaced_by_a_table(tmp_path: Path) -> None:
    text = LEAST.replace('name = "grpo"', 'name = "grpo"\nkl = 0.5')
    (tmp_path / "my.toml").write_text(text)
    config = load(tmp_path / "my.toml", ['algorithm={name="sft"}'])
    assert config.algorithm.arguments() == {}


def test_differences_are_full_names() -> None:
    a, b = least(), least("update.lr=2e-3", "algorithm.kl=0.1", 'policies.x.model="a/b"')
    assert differences(a, a) == []
    assert differences(a, b) == ["algorithm.kl", "policies", "update.lr"]


# -- mistakes


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            "rollout.task=3",
            ["rollout.task is not", "did you mean rollout.tasks_per_step?", "group_size"],
        ),
        ("rolout.tasks=3", ["rolout is not", "did you mean rollout?"]),
        (
            "rollout.tasks_per_step=0",
            ["rollout.tasks_per_step", "at least 1", "got 0"],
        ),
        ("rollout.tasks_per_step=2.5", ["rollout.tasks_per_step", "integer", "got 2.5"]),
        ("rollout.tasks_per_step=many", ["rollout.tasks_per_step", "integer", 'got "many"']),
        ("rollout.tasks_per_step=true", ["rollout.tasks_per_step", "integer", "got true"]),
        ("update.lr=nan", ["update.lr", "finite"]),
        ("update.lr=1e38", ["update.lr must be at most 1, got"]),
        ("update.lr=fast", ["update.lr must be a number or a table such as {linear", '"fast"']),
        ("update.lr={cosine=[1e-3]}", ["update.lr", "[start, end]"]),
        ("update.lr={cosine=[0.0, 1e-3]}", ["update.lr", "above 0"]),
        ("update.lr={cosine=[1e-3, 0.0, 1.5]}", ["update.lr", "integer number of steps"]),
        ("update.lr={cos=[1e-3, 0.0]}", ["update.lr must be a number or a table such as {linear"]),
        ("run.steps=1e30", ["run.steps must be an integer, got 1e+30"]),
        ("run.steps=10000000000000", ["run.steps must be at most 1000000000"]),
        ("policy.build.hidden=1000000000000", ["policy.build.hidden must be at most 65536"]),
        ('run.folder="a\\u0000b"', ["run.folder contains a NUL character"]),
        ("rollout.invalid_penalty={any=0.1}", ["rollout.invalid_penalty must be", "{format"]),
        ("rollout.learning_rate=1e-3", ["rollout.learning_rate is not", "mean update.lr?"]),
        ("training.batch_size=3", ["training.batch_size is not", "rollout.tasks_per_step?"]),
        ("update.num_generations=3", ["update.num_generations is not", "rollout.group_size?"]),
        ("eval.max_tokens=3", ["eval.max_tokens is not", "rollout.max_new_tokens?"]),
        ("run.weight_decay=0.1", ["run.weight_decay is not", "mean update.weight_decay?"]),
        ("update.lr=-1", ["update.lr", "greater than 0"]),
        ("rollout.temperature=0", ["rollout.temperature", "greater than 0"]),
        ("update.betas=[0.9]", ["update.betas"]),
        ("update.betas=[0.9, 1.0]", ["update.betas must be less than 1, got [0.9, 1.0]"]),
        ("env.workers=-1", ["env.workers must be at least 0, got -1"]),
        ("env.workers=some", ['env.workers must be "auto" or an integer, got "some"']),
        ("env.deadline=-1", ["env.deadline", "greater than 0"]),
        ("env=3", ["env", "table", "got 3"]),
        ("policy.model=a/b", ["policy", "exactly one of model and build"]),
        ("policy.build.hidden=40", ["policy.build hidden must be a multiple of 32"]),
        ("policy.build.hidden=15", ["policy.build", "even number"]),
        ("policy.build.deep=3", ["policy.build.deep", "hidden"]),
        ("policies.t.modell=a/b", ["policies.t.modell", "did you mean policies.t.model?"]),
        ("policies.t={}", ["policies.t", "exactly one"]),
        ('policies.t={model="a/b",tokenizer="x"}', ["policies.t", "tokenizer"]),
        ("policies.student.model=a/b", ["policies.student", "student"]),
        ("warm_start.name=sft", ["warm_start.steps is missing"]),
        ("run.steps.x=3", ["run.steps", "value"]),
        ("lr", ["'lr'", "section.key=value"]),
        ("=3", ["section.key=value"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_right(
    tmp_path: Path, change: str, parts: list[str]
) -> None:
    output = mistake(LEAST, tmp_path, change)
    for part in parts:
        assert part in output, output


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["3 settings are wrong:", "\n- the section [env] is missing; it has suite"]),
        (LEAST.replace('suite = "doors"', ""), ["env.suite is missing"]),
        (LEAST.replace('suite = "doors"', 'siute = "doors"'), ["did you mean env.suite?"]),
        ("[run", ["my.toml", "not valid TOML", "expected"]),
    ],
)
def test_a_wrong_file_is_a_sentence(tmp_path: Path, text: str, parts: list[str]) -> None:
    output = mistake(text, tmp_path)
    for part in parts:
        assert part in output, output


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(LEAST)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"no file .*god\.toml; did you mean good\.toml"):
        load(tmp_path / "god.toml")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "bytes.toml")
    with pytest.raises(ConfigError, match=r"no file .*config\.toml"):
        load(tmp_path)


# -- an algorithm's signature is its schema


def example(
    *,
    total_steps: int,
    weight: float | Schedule = 0.5,
    kind: Literal["a", "b"] = "a",
    count: int | None = None,
    on: bool = True,
    shares: tuple[float, ...] = (),
    name: str = "",
) -> dict[str, object]:
    return {
        "total_steps": total_steps,
        "weight": weight,
        "kind": kind,
        "count": count,
        "on": on,
        "shares": shares,
        "name": name,
    }


def test_arguments_are_fitted_to_annotations() -> None:
    given_ = {"weight": 1, "kind": "b", "count": 3, "on": False, "shares": [1.0, 2.0]}
    result = call(example, given_, where="algorithm", filled={"total_steps": 9})
    assert result == {**given_, "shares": (1.0, 2.0), "total_steps": 9, "name": ""}
    for text in ("linear(1, 0, 4)", "linear(1, 0, total_steps - 5)", "2 * linear(0.5, 0, 4)"):
        weight = call(example, {"weight": text}, where="a", filled={"total_steps": 9})["weight"]
        assert callable(weight)
        assert [weight(s) for s in (0, 1, 4)] == [1.0, 0.75, 0.0]


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("wight", 1.0, ["algorithm.wight", "did you mean weight?", "kind, count"]),
        ("total_steps", 5, ["algorithm.total_steps is not a setting"]),
        ("kind", "c", ["algorithm.kind", '"a" or "b"', 'got "c"']),
        ("weight", "x", ["algorithm.weight, character 1", "there is no function 'x'"]),
        ("weight", {"linear": [1.0, 0.0, 4]}, ["a number or a schedule such as", "{linear ="]),
        ("weight", True, ["algorithm.weight", "got true"]),
        ("count", 1.5, ["algorithm.count", "an integer", "got 1.5"]),
        ("on", 1, ["algorithm.on", "true or false"]),
        ("shares", 3, ["algorithm.shares", "a list"]),
        ("weight", "linear(1, 0)", ["algorithm.weight", "steps is missing", "start, end, steps"]),
        ("weight", "linear(1, 0, 2.5)", ["steps must be an integer"]),
        ("weight", "linear(1, 0, 0)", ["algorithm.weight", "steps > 0"]),
        ("weight", "1e308 * 10", ["algorithm.weight", "no finite number; use smaller ones"]),
        ("weight", "linear(1e308, -1e308, 4)", ["algorithm.weight", "no finite number at some"]),
        ("weight", "10 * linear(0, 1e308, 99999)", ["algorithm.weight", "no finite number at"]),
        ("weight", "exponential(1e-300, 1e300, 3)", ["algorithm.weight", "no finite number at"]),
        ("weight", "liner(1, 0, 3)", ["did you mean linear?"]),
        ("weight", "exponential(0, 1, 3)", ["positive start"]),
    ],
)
def test_a_wrong_argument_is_named(key: str, value: object, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        call(example, {key: value}, where="algorithm", filled={"total_steps": 1})  # type: ignore[dict-item]
    for part in parts:
        assert part in str(error.value)


def test_a_missing_argument_is_named() -> None:
    def needs(*, coef: float) -> float:
        return coef

    with pytest.raises(ConfigError, match=r"algorithm\.coef is missing"):
        call(needs, {}, where="algorithm")


def test_what_the_function_refuses_is_a_sentence_too() -> None:
    with pytest.raises(ConfigError, match=r"\[algorithm\] does not fit grpo.*dual clip"):
        phases_of(least("algorithm.dual_clip=0.5"))


def test_annotations_in_words() -> None:
    assert in_words(Literal["a", "b"]) == '"a" or "b"'
    assert in_words(float | Schedule).startswith("a number or a schedule")
    assert in_words(list[int]) == "a list"
    assert in_words(str | Path | None) == "a string or Path"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (["algorithm.name=gropo"], ["algorithm.name", "'gropo'", "did you mean grpo?"]),
        (["algorithm={name='opd'}"], ["[policies.teacher]"]),
        (["algorithm={name='opd', teacher='tutor'}", "policies.tutr.model=a/b"], ["mean tutr?"]),
        (["rollout.replay=x.jsonl"], ["rollout.replay", "sft"]),
        (["warm_start={name='grpo', kl=0.1, steps=1, lr=0.1}"], ["warm_start", "reference"]),
    ],
)
def test_stages_that_do_not_fit_together_are_refused(changes: list[str], parts: list[str]) -> None:
    config = least(*changes)
    with pytest.raises(ConfigError) as error:
        policies_wanted(phases_of(config), config.policies)
    for part in parts:
        assert part in str(error.value)


def test_a_reference_needs_no_section() -> None:
    phases = phases_of(least("algorithm.kl=0.1"))
    assert policies_wanted(phases, {}) == {"reference"}


# -- environments


class Unpicklable(Doors):
    def __init__(self) -> None:
        object.__setattr__(self, "rooms", 1)
        object.__setattr__(self, "hook", lambda: None)


class Picky(Doors):
    def __init__(self, size: int = 1) -> None:
        if size > 3:
            raise ValueError("size must be at most 3")
        object.__setattr__(self, "rooms", size)


NOTHING = 3


def test_suites_are_found_by_name_and_by_path() -> None:
    assert isinstance(suite_of(least("env.suite=doors", "env.options={rooms=3}").env), Doors)
    suite: Suite = suite_of(least("env.suite=tutelage.envs.doors:Doors").env)
    assert isinstance(suite.make(), DoorsEnv)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (["env.suite=door"], ["env.suite", "did you mean doors?"]),
        (["env.suite=no.such:Thing"], ["no.such", "could not be imported"]),
        (["env.suite=tutelage.envs.doors:Dors"], ["has no class 'Dors'"]),
        (["env.suite=test_config:NOTHING"], ["has no class"]),
        (["env.suite=tutelage.types:Task", "env.options={id='x'}"], ["is not a suite"]),
        (["env.options={room=3}"], ["env.options.room", "did you mean rooms?"]),
        (["env.options={rooms='x'}"], ["env.options.rooms", "an integer"]),
        (["env.suite=test_config:Picky", "env.options={size=9}"], ["at most 3"]),
    ],
)
def test_wrong_suites_are_sentences(changes: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        suite_of(least(*changes).env)
    for part in parts:
        assert part in str(error.value)


def test_wrong_splits_counts_and_renders_are_sentences() -> None:
    suite = Doors()
    with pytest.raises(ConfigError, match=r"env.split = 'trian'.*train, seen"):
        assemble.tasks_of(suite, "trian", 1, where="env")
    with pytest.raises(ConfigError, match=r"eval.tasks = 10, but the seen split has 9"):
        assemble.tasks_of(suite, "seen", 10, where="eval")
    with pytest.raises(ConfigError, match=r"context.render = 'action'.*did you mean actions"):
        assemble.context_of(least("context.render=action").context, suite)


def test_foreign_suites_get_a_process_of_their_own() -> None:
    config = least("env.suite=test_config:Picky")
    pool = assemble.pool_of(config.env, suite_of(config.env))
    assert isinstance(pool, ProcessPool)
    pool.shutdown()
    assert isinstance(assemble.pool_of(least().env, Doors()), LocalPool)
    assert isinstance(assemble.pool_of(least("env.workers=0").env, Picky()), LocalPool)
    with pytest.raises(ConfigError, match=r"env\.workers = 0"):
        assemble.pool_of(config.env, Unpicklable())


def test_instructions_can_be_left_out() -> None:
    assert assemble.context_of(least().context, Doors()).instructions
    off = least("context.instructions=false").context
    assert assemble.context_of(off, Doors()).instructions == ""


# -- models


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("builtin:nobody", ["built-in model 'nobody'"]),
        ("./nowhere", ["no folder ./nowhere"]),
        ("nowhere", ["no folder nowhere"]),
        ("a/b/c", ["no folder a/b/c"]),
    ],
)
def test_models_that_are_not_there(model: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        models.locate(model, where="policies.teacher")
    assert "policies.teacher.model" in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        models.locate(str(tmp_path), where="policy")
    assert models.locate("Qwen/Qwen3-4B", where="policy") == "Qwen/Qwen3-4B"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta-physics"])
def test_devices_that_are_not_there_are_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.device"):
        models.device_of(least(f"policy.device={device}").policy, where="policy")


# -- how many settings there are


def test_the_settings_of_a_run_and_of_a_model_are_few() -> None:
    keys = [leaf.key for leaf in leaves()]
    assert len(keys) == len(set(keys))
    # every section takes part, and so does every key that a resolved file can hold
    assert {key.split(".")[0] for key in keys} == set(Config.model_fields) - {"policies"}
    model = [key for key in keys if key.startswith("policy.")]
    assert len(model) <= 23
    assert len(keys) - len(model) <= 40
    everything = least(
        "warm_start={name='sft', steps=1, lr=0.1}",
        "policy.sampler={}",
        "policy.key=X",
        "policy.sampler.url=http://x",
    )
    written = set(flat(resolved(everything))) | {"policy.build.hidden", "policy.build.context"}
    assert written == set(keys)


def flat(table: object, prefix: str = "") -> Iterator[str]:
    """Full names of a resolved table's settings."""
    names = {leaf.key for leaf in leaves()}
    assert isinstance(table, dict)
    for name, value in table.items():
        if prefix + name in names:
            yield prefix + name
        else:
            yield from flat(value, f"{prefix}{name}.")


def test_every_setting_says_what_it_means() -> None:
    page = markdown()
    for leaf in leaves():
        assert leaf.field.description, leaf.key
        key = leaf.key.partition(".")[2]
        assert f"\n| `{key}` | " in page, leaf.key
    assert "| `steps` | an integer of at least 1 | `100` | Training steps" in page
    assert "| `suite` | a string | none: must be given |" in page
    for section in Config.model_fields:
        assert (f"## [{section}]\n" in page) == (section != "policies")


# -- old names and other tools' names


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_name_answers_with_the_new_one(old: str, tmp_path: Path) -> None:
    keys = {leaf.key for leaf in leaves()}
    new, note = RENAMED[old]
    assert old not in keys
    assert new in keys or (not new and note)
    text = mistake(LEAST, tmp_path, f"{old}=3")
    assert text.startswith(f"{old} is now {new}" if new else f"{old} is not a setting any more: ")
    assert note in text
    if old.count(".") == 1 and old.startswith("policy."):
        other = old.replace("policy.", "policies.teacher.", 1)
        output = mistake(LEAST, tmp_path, "policies.teacher.model=a/b", f"{other}=3")
        assert output.startswith(f"{other} is ")
        assert "is now policy." not in output


def test_an_algorithms_own_arguments_are_no_old_names() -> None:
    assert least("algorithm.turns=3", "algorithm.url=3").algorithm.arguments() == {
        "turns": 3,
        "url": 3,
    }


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_other_tools_names_lead_to_ours(alias: str, tmp_path: Path) -> None:
    keys = {leaf.key for leaf in leaves()}
    target = ALIASES[alias]
    assert target in keys or target.startswith("algorithm.")
    assert f"did you mean {target}?" in mistake(LEAST, tmp_path, f"context.{alias}=3")


@pytest.mark.parametrize("name", sorted(NOT_SETTINGS))
def test_other_tools_names_without_a_setting_say_what_there_is(name: str, tmp_path: Path) -> None:
    message = mistake(LEAST, tmp_path, f"rollout.{name}=3")
    assert message == f"rollout.{name} is not a setting: {NOT_SETTINGS[name]}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.rollout.n=8", "actor_rollout_ref.rollout.n is not a setting; did you"),
        (
            "data.train_batch_size=4",
            "data.train_batch_size is not a setting; did you mean rollout.",
        ),
        ("trainer.n_gpus_per_node=8", "trainer.n_gpus_per_node is not a setting: torchrun starts"),
        ("polcy.model=x", "polcy is not a setting; did you mean policy?"),
        ("algorithm.kl_coef=0.1", "algorithm.kl_coef is not a setting of grpo; did you mean kl?"),
        ("algorithm.beta=0.1", "algorithm.beta is not a setting of grpo; did you mean kl?"),
        ("algorithm.epsilon=0.1", "algorithm.epsilon is not a setting of grpo; did you mean clip?"),
        ("lr=0.1", "lr is not a setting; did you mean update.lr?"),
        ("+run.steps=3", "every setting exists already, so write run.steps=3 without a sign"),
    ],
)
def test_sections_and_arguments_of_other_tools(override: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(LEAST)
    with pytest.raises(ConfigError, match=re.escape(message)):
        phases_of(load(path, [override]))


def test_a_file_of_another_language_or_none_says_what_to_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(LEAST)
    (tmp_path / "my.yaml").write_text("run:\n  steps: 3\n")
    (tmp_path / "runs/old").mkdir(parents=True)
    (tmp_path / "runs/old/config.toml").write_text(LEAST)
    (tmp_path / "runs/old/.lock").write_text("a run of tutelage\n")
    for name, message in {
        "my.yaml": "settings are written in TOML: `tutelage init`",
        "my": "did you mean my.toml?",
        "runs": "runs holds no run; name one of runs/old",
        ".": ". holds no run; name one of my.toml",
        "old": "did you mean runs/old?",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(message)):
            load(Path(name))


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = LEAST.replace('suite = "doors"', "").replace("lr = 1e-3", "lr = -1\nbetas = 3")
    message = mistake(text + "[extra]\nlearning_rate = 3\n", tmp_path, "run.eval_every=3")
    first, *lines = message.split("\n- ")
    assert first == "5 settings are wrong:"
    assert [line.split()[0] for line in lines] == [
        "run.eval_every",
        "extra.learning_rate",
        "update.lr",
        "update.betas",
        "env.suite",
    ]


# -- files that extend others


def test_a_file_extends_another_over_several_levels(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases/least.toml").write_text(LEAST)
    (tmp_path / "bases/more.toml").write_text(
        'extends = "least.toml"\n[rollout]\nmax_turns = 7\n[env]\noptions = {rooms = 3}\n'
        "[algorithm]\nkl = 0.5\n[update]\nlr = {cosine = [1e-3, 0.0]}\n"
        '[policies.teacher]\nmodel = "a/b"\ndtype = "bfloat16"\n'
    )
    (tmp_path / "mine.toml").write_text(
        'extends = "bases/more.toml"\n[rollout]\ngroup_size = 3\n[update]\n'
        "lr = {linear = [1e-4, 0.0]}\n[policies.teacher]\nmodel = 'c/d'\n"
        "[env]\noptions = {seed = 1}\n"
    )
    config = load(tmp_path / "mine.toml", ["rollout.max_new_tokens=5"])
    rollout = config.rollout
    assert (rollout.tasks_per_step, rollout.group_size, rollout.max_turns) == (4, 3, 7)
    assert rollout.max_new_tokens == 5
    assert config.env.options == {"rooms": 3, "seed": 1}
    assert config.update.lr == {"linear": [1e-4, 0.0]}
    assert config.algorithm.arguments() == {"kl": 0.5}
    teacher = config.policies["teacher"]
    assert (teacher.model, teacher.dtype) == ("c/d", "bfloat16")
    assert config.run.folder == "runs/mine"
    assert "extends" not in write(config)


def test_an_algorithm_with_another_name_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(LEAST + "[algorithm.options]\n")
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\n[algorithm]\nname = "sft"\n')
    config = load(tmp_path / "mine.toml")
    assert (config.algorithm.name, config.algorithm.arguments()) == ("sft", {})


def test_extends_that_leads_nowhere_is_a_sentence(tmp_path: Path) -> None:
    for name, base in (("a", "b.toml"), ("b", "a.toml"), ("c", "d.toml"), ("self", "self.toml")):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{base}"\n' + LEAST)
    (tmp_path / "number.toml").write_text("extends = 3\n" + LEAST)
    with pytest.raises(ConfigError, match=r"extends itself \(a\.toml -> b\.toml -> a\.toml\)"):
        load(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match=r"self\.toml extends itself"):
        load(tmp_path / "self.toml")
    with pytest.raises(ConfigError, match=r"c\.toml extends d\.toml: there is no file .*d\.toml"):
        load(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match=r"extends must be the name of a file.*got 3"):
        load(tmp_path / "number.toml")


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert load(tmp_path / "my.toml").run.steps == 10


# -- defaults that run


def test_three_settings_are_enough() -> None:
    config = parse(
        {"env": {"suite": "doors"}, "policy": {"model": "a/b"}, "algorithm": {"name": "grpo"}}
    )
    fitted, notices = assemble.fitted(config, Doors())
    assert fitted.rollout.group_size == 8
    assert (fitted.rollout.tasks_per_step, fitted.eval.tasks) == (9, 9)
    assert len(notices) == 3
    assert assemble.phases_of(fitted)[0].steps == 100
    # what fits is not touched, and what was set is refused where it does not
    assert assemble.fitted(fitted, Doors()) == (fitted, [])
    alone = least("rollout.group_size=1", "eval.tasks=10")
    assert assemble.fitted(alone, Doors()) == (alone, [])
    with pytest.raises(ConfigError, match=r"rollout\.group_size"):
        assemble.phases_of(alone)


def test_the_engine_has_the_schemas_defaults() -> None:
    assert assemble.limits_of(least()) == Limits()
    assert assemble.update_of(least(), "cuda:1").device == "cuda:1"
    assert assemble.update_of(least(), "cpu").mismatch == SamplerSection().max_mismatch


# -- schedules


def test_the_learning_rate_rises_and_falls() -> None:
    def rates(lr: LearningRate, warmup: int) -> list[float]:
        return [learning_rate(lr, warmup, step, 8) for step in range(8)]

    linear: LearningRate = {"linear": [2.0, 0.0]}
    assert rates(2.0, 0) == [2.0] * 8
    assert rates(2.0, 4) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rates(linear, 0) == [2.0 * (1 - k / 8) for k in range(8)]
    assert rates(linear, 4) == [0.5, 1.0, 1.5, 2.0, 2.0, 1.5, 1.0, 0.5]
    assert rates({"linear": [2.0, 1.0, 4]}, 2) == [1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 1.0]
    cosine = [1 + math.cos(math.pi * k / 8) for k in range(8)]
    assert rates({"cosine": [2.0, 0.0]}, 0) == pytest.approx(cosine)
    assert all(rate > 0 for rate in rates({"cosine": [2.0, 0.0]}, 2))
    assert rates(2.0, 20) == [2.0 * (k + 1) / 20 for k in range(8)]


def test_steps_matter_where_something_is_planned_over_them() -> None:
    assert not steps_matter(least())
    assert steps_matter(least("update.lr={linear=[1e-3, 0.0]}"))
    assert not steps_matter(least("update.lr={linear=[1e-3, 0.0, 5]}"))
    guided = least('algorithm={name="guided_opd"}', "policies.teacher.model=a/b")
    assert steps_matter(guided)


# -- plans


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a model's, with a tokenizer, for plans: no weights are read."""
    folder = tmp_path_factory.mktemp("teacher")
    shape = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "ffn": 96, "context": 256}
    model = build_model(entries=500, **shape, seed=0, end=1, pad=0)  # type: ignore[arg-type]
    model.config.save_pretrained(folder)
    train_tokenizer(["Which door is it? left right"], entries=500).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_can_be_planned(
    path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(path)
    if ":" in config.env.suite:  # its module lies beside it
        monkeypatch.chdir(path.parent)
        monkeypatch.delitem(sys.modules, config.env.suite.partition(":")[0], raising=False)
    missing = [
        f"policies.{name}.model={teacher}"
        for name, section in config.policies.items()
        if section.model.startswith("builtin:")
        and not (models.ASSETS / section.model.removeprefix("builtin:")).is_dir()
    ]
    files = config.env.options.get("data")
    if isinstance(files, str) and not Path(files).exists():  # somebody else's, to be fetched
        with pytest.raises(TutelageError, match="git clone"):
            dry_run.make(load(path, missing))
        return
    result = dry_run.make(load(path, missing))
    assert result.models[0].name == "student"
    remote = {name for name, section in config.policies.items() if section.url}
    assert all(model.shape for model in result.models if model.name not in remote)
    console = Console(record=True, width=100, file=io.StringIO())
    dry_run.show(result, console)
    shown = console.export_text()
    for name in [m.name for m in result.models] + [term[1] for term in result.terms]:
        assert name in shown
    assert "…" not in shown


def test_examples_cover_every_setting_that_papers_state() -> None:
    names = {path.stem for path in EXAMPLES}
    assert {"household_guided_opd", "household_opd", "household_grpo", "household_sft"} <= names
    for size in ("0.6b", "1.7b", "4b"):
        config = load(next(p for p in EXAMPLES if p.stem == f"alfworld_guided_opd_qwen3_{size}"))
        assert (config.run.steps, config.rollout.tasks_per_step, config.rollout.group_size) == (
            250,
            16,
            1,
        )
        assert (config.rollout.max_turns, config.rollout.max_new_tokens, config.update.lr) == (
            30,
            512,
            1e-6,
        )
        assert (config.rollout.temperature, config.eval.temperature) == (1.0, 0.4)
        assert config.context.history == 2
        (phase,) = phases_of(config)
        chance = phase.algorithm.actors["teacher"]
        # section 3.3 of the paper: beta(0), beta(50), beta(100), beta(150), beta(200)
        assert [round(chance(t), 3) for t in (0, 50, 100, 150, 200)] == [1, 0.854, 0.5, 0.146, 0]


def test_a_plan_adds_up(teacher: Path) -> None:
    result = dry_run.make(
        least(
            "run.steps=100",
            "eval.every=30",
            "run.checkpoint_every=40",
            'algorithm={name="guided_opd"}',
            f"policies.teacher.model={teacher}",
            "policy.tokenizer=teacher",
            'warm_start={name="sft", steps=7, lr=0.1}',
            "rollout.group_size=3",
            "rollout.max_turns=5",
            "rollout.max_new_tokens=6",
            "policy.build.context=256",
        )
    )
    facts = dict(result.facts)
    assert facts["episodes"] == "12 per step (4 tasks x 3), 1,263 in all"  # 100 x 12 + 7 x 9
    assert "at most 360 a step" in facts["sampled tokens"]
    assert facts["evaluations"].startswith("5 of 4 tasks")  # 0, 30, 60, 90, 100
    assert facts["checkpoints"].startswith("4, 2 kept")  # 0, 40, 80, 100
    student, other = result.models
    assert student.shape is not None
    assert student.shape.vocab == 500
    assert other.training == 0
    assert student.weights == 4 * student.shape.parameters()
    schedules = dict(result.schedules)
    assert schedules["train: probability that teacher acts"][0] == 1.0
    assert schedules["train: probability that teacher acts"][-1] == 0.0


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["policies.spare.model=a/b"], "[policies.spare] is not used"),
        (["algorithm={name='opd'}", "policies.teacher.model=some/thing"], "size of teacher"),
        (["algorithm={name='opd'}", "policies.teacher.model=Qwen/Qwen3-30B-A3B"], "mixture"),
        (["policy={model='Qwen/Qwen3-14B'}"], "the models need about"),
    ],
)
def test_a_plan_warns(changes: list[str], part: str) -> None:
    short = "rollout.max_new_tokens=8"
    warnings = dry_run.make(least(*changes, short)).warnings
    assert any(part in text for text in warnings), warnings
    quiet = dry_run.make(least(short)).warnings
    assert not any(part in text for text in quiet)


def test_a_plan_refuses_what_a_run_would() -> None:
    for change in ("rollout.tasks_per_step=99", "eval.split=nowhere", "policy.device=cuda:99"):
        with pytest.raises(TutelageError):
            dry_run.make(least(change))


def test_parameters_are_counted_as_transformers_builds_them(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    published = {  # the authors' model cards, in billions
        "Qwen/Qwen3-0.6B": 0.6,
        "Qwen/Qwen3-1.7B": 1.72,
        "Qwen/Qwen3-4B": 4.0,
        "Qwen/Qwen3-8B": 8.2,
        "Qwen/Qwen3-14B": 14.8,
        "Qwen/Qwen3-30B-A3B": 30.5,
        "Qwen/Qwen2.5-3B-Instruct": 3.09,
        "Qwen/Qwen2.5-7B-Instruct": 7.61,
    }
    for name, billions in published.items():
        shape = model_sizes.named(name)
        assert shape is not None
        assert shape.parameters() / 1e9 == pytest.approx(billions, rel=0.01)
    active = model_sizes.KNOWN["Qwen3-30B-A3B"].parameters(experts=8)
    assert active / 1e9 == pytest.approx(3.3, rel=0.02)
    assert model_sizes.named("someone/Else-3B") is None
    common = {
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    for kind in ("qwen2", "qwen3", "llama"):
        for tied in (True, False):
            config = AutoConfig.for_model(kind, **common, tie_word_embeddings=tied)
            folder = tmp_path / f"{kind}{tied}"
            config.save_pretrained(folder)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
            shape = model_sizes.read(folder)
            assert shape is not None
            assert shape.parameters() == sum(p.numel() for p in model.parameters()), kind
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2/config.json").write_text('{"model_type": "gpt2"}')
    assert model_sizes.read(tmp_path / "gpt2") is None
    for broken in ("{", "[]", '{"model_type": "qwen3"}'):
        (tmp_path / "gpt2/config.json").write_text(broken)
        with pytest.raises(ConfigError, match=r"config\.json"):
            model_sizes.read(tmp_path / "gpt2")
    mixture = AutoConfig.for_model(
        "qwen3_moe",
        **common,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        head_dim=8,
        tie_word_embeddings=False,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(mixture)
    mixture.save_pretrained(tmp_path / "mixture")
    shape = model_sizes.read(tmp_path / "mixture")
    assert shape is not None
    assert (shape.experts, shape.active) == (4, 2)
    assert shape.parameters() == sum(p.numel() for p in model.parameters())


def test_numbers_larger_than_anybody_means_are_said_or_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "memory", lambda: 2_000_000_000)
    few = least("rollout.group_size=1", "eval.tasks=9", "rollout.concurrency=8")

    def notices(*settings: str) -> list[str]:
        return assemble.fitted(least(*settings), Doors())[1]

    same = "rollout.group_size=1", "eval.tasks=9", "rollout.concurrency=8"
    assert assemble.fitted(few, Doors()) == (few, [])
    (idle,) = notices(*same, "env.workers=12")
    assert idle.startswith("4 of the env.workers = 12 stay idle")
    (long,) = notices(*same, "rollout.max_turns=2000000")
    assert re.match(r"a step plays up to \d+,000,000 turns", long)
    with pytest.raises(ConfigError, match=r"1024 worker processes take 11\.3 GB .* has 2\.0 GB"):
        notices(*same, "env.workers=1024")
