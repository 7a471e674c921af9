"""Absurd settings: each is refused in one sentence that names it, within a second, before a run
begins."""

import time
from pathlib import Path

import pytest
from support.tiny_runs import tiny_file, tiny_table

from tutelage.config import toml_file
from tutelage.config.schema import MOST
from tutelage.errors import ConfigError, PolicyError, did_you_mean
from tutelage.hints.bank import load as load_bank
from tutelage.runs import models
from tutelage.runs.assemble import assemble

HUGE = "1" + "0" * 30
LIST = "[" * 100_000
TEN_MB = "a" * 10_000_000

REFUSED: list[tuple[str, str]] = [
    # numbers that cannot be
    (f"run.steps={HUGE}", "run.steps must be at most 1000000000, got 1000000"),
    ("run.steps=0", "run.steps must be at least 1"),
    ("run.steps=-1", "run.steps must be at least 1"),
    ("run.steps=1e3", "run.steps must be an integer, got 1000.0"),
    ("run.steps=true", "run.steps must be an integer, got true"),
    ("run.steps=[]", "run.steps must be an integer"),
    ("run.steps=2026-01-01", "run.steps must be an integer"),
    ("run.steps=nan", "run.steps must be an integer"),
    ("run.steps=\uff12", 'run.steps must be an integer, got "\uff12"'),
    ("run.steps=\u0663", "run.steps must be an integer"),
    ("run.steps=" + "9" * 5000, "run.steps is an integer of more than 4300 digits"),
    (f"run.checkpoint_every={HUGE}", "run.checkpoint_every must be at most 1000000000"),
    (f"run.seed={HUGE}", "run.seed must be less than 9223372036854775808"),
    ("update.lr=1e38", "update.lr must be at most 1, got 1e+38"),
    ("update.lr=inf", "update.lr must be a finite number"),
    ("update.lr=nan", "update.lr must be a finite number"),
    ("update.lr=-0.0", "update.lr must be greater than 0"),
    ("update.lr=-1e-3", "update.lr must be greater than 0"),
    ("update.lr=true", "update.lr must be a number"),
    ("update.lr={}", "update.lr must be a number or a table such as {linear"),
    ("update.lr={linear=[]}", "update.lr must be [start, end]"),
    ("update.lr={cosine=[nan, 0.1]}", "update.lr must be a finite number"),
    ("update.lr={linear=[1e-3, 0, 0.5]}", "update.lr needs a start above 0"),
    ("update.lr={linear=[0, 1e-3]}", "update.lr needs a start above 0"),
    ("update.betas=[]", "update.betas must be a list of two numbers"),
    ("update.betas=[0.9]", "update.betas must be a list of two numbers"),
    ("update.betas=[0.9, 1]", "update.betas must be less than 1"),
    ("update.betas=[nan, 0.9]", "update.betas must be less than 1"),
    ("update.weight_decay=1e300", "update.weight_decay must be at most 1000000000"),
    ("update.grad_clip=0", "update.grad_clip must be greater than 0"),
    (f"update.max_tokens_per_pass={HUGE}", "update.max_tokens_per_pass must be at most"),
    ("update.minibatches=1000000000", "update.minibatches must be at most 65536"),
    ("update.epochs=1000000000", "update.epochs must be at most 1024"),
    ("rollout.group_size=100000000", "rollout.group_size must be at most 65536"),
    ("rollout.tasks_per_step=1000000000", "tasks_per_step * group_size = 1000000000"),
    ("rollout.concurrency=1000000000", "rollout.concurrency must be at most 65536"),
    (f"rollout.max_turns={HUGE}", "rollout.max_turns must be at most 1000000000"),
    (f"rollout.max_new_tokens={HUGE}", "rollout.max_new_tokens must be at most"),
    ("rollout.temperature=0", "rollout.temperature must be greater than 0"),
    ("rollout.temperature=inf", "rollout.temperature must be a finite number"),
    ("rollout.temperature=1e300", "rollout.temperature must be at most 100"),
    ("rollout.invalid_penalty=inf", "rollout.invalid_penalty must be a finite number"),
    ("rollout.invalid_penalty={}", "rollout.invalid_penalty must"),
    ("env.workers=1000000000", "env.workers must be at most 1024"),
    ("env.deadline=1e300", "env.deadline must be at most 1000000000"),
    ("env.deadline=nan", "env.deadline must be a finite number"),
    ("env.options.rooms=1000000000", "rooms must be from 1 to 10, got 1000000000"),
    ("env.options.rooms=true", "rooms"),
    ("env.options.rooms=2.5", "rooms"),
    ('env.options.rooms="many"', "rooms"),
    ("context.history=-1", "context.history must be at least 0"),
    (f"context.history={HUGE}", "context.history must be at most"),
    ("policy.layers=1000000000", "policy.layers must be at most 10000"),
    ("policy.build.hidden=1000000000000", "policy.build.hidden must be at most 65536"),
    ("policy.build.hidden=33", "hidden must be a multiple of 32"),
    (f"policy.build.context={HUGE}", "policy.build.context must be at most"),
    ("policy.tokenizer=1000000000000", "policy.tokenizer must be at most 16777216"),
    ("policy.tokenizer=1", "policy.tokenizer must be at least 512"),
    ("policy.lora=1000000000", "policy.lora must be at most 65536"),
    ("eval.tasks=1000000000", "eval.tasks = 1000000000, but the seen split has"),
    ("eval.temperature=-1", "eval.temperature must be at least 0"),
    ("algorithm.entropy=1" + "0" * 400, "algorithm.entropy must be a number"),
    ("algorithm.entropy=nan", "algorithm.entropy must be a finite number, got nan"),
    ("algorithm.entropy=inf", "algorithm.entropy must be a finite number, got inf"),
    ("algorithm.entropy=true", "algorithm.entropy must be a number"),
    # devices
    ("policy.device=meta", "policy.device = 'meta' cannot be used here (it holds no values)"),
    ("policy.device=hpu", "policy.device = 'hpu' cannot be used here"),
    ("policy.device=mps", "policy.device = 'mps' cannot be used here"),
    ("policy.device=cuda:9999999999", "policy.device = 'cuda:9999999999' cannot be used here"),
    ("policy.device=", "policy.device = '' cannot be used here"),
    # texts that are no names and no paths
    ('run.folder="a\\u0000b"', "run.folder contains a NUL character"),
    ("run.folder=a\udcff", "run.folder contains '\\udcff' (character 2), which is no UTF-8"),
    ("run.folder=" + "a" * 5000, "run.folder has 5,000 characters"),
    ("run.folder=b/" + "a" * 300, "run.folder has a part of more than 255 bytes"),
    ("env.suite=" + TEN_MB, "env.suite has 10,000,000 characters"),
    ('env.suite="a\\u0000:B"', "env.suite contains a NUL character"),
    ("env.suite=", "env.suite: there is no suite ''"),
    ("env.options.rooms=\udcff", "env.options.rooms contains '\\udcff'"),
    ('env.split="a\\u0000"', "env.split contains a NUL character"),
    ("algorithm.name=" + "grp" * 90, "algorithm.name"),
    ('rollout.replay="a\\u0000b"', "rollout.replay contains a NUL character"),
    ('hints.bank="a\\u0000b"', "hints.bank contains a NUL character"),
    ('policy.chat.template="a\\u0000"', "policy.chat.template contains a NUL character"),
    # shapes
    ("rollout=3", "rollout must be a table of settings"),
    ("env.options=[]", "env.options must be a table"),
    ("policies=[1]", "policies must be a table"),
    ("policies.teacher=3", "policies.teacher must be a table of settings"),
    (f"env.options.x={LIST}", "env.options.x nests tables or lists deeper than 32"),
    ("env.options." + ".".join("a" * 2000) + "=1", "nests deeper than 32"),
    ("env.options.x={" + ".".join("a" * 90_000) + "=1}", "env.options.x nests tables or lists"),
    ("update." + "l" * 100_000 + "=1", "is not a setting"),
]


def begin(setting: str) -> None:
    """What happens with a setting before a run loads anything."""
    table = tiny_table(eval={"every": int("eval" in setting)})
    config = toml_file.parse(toml_file.override(table, [setting]))
    models.device_of(config.policy, where="policy")
    assemble(config)


def refusal(setting: str) -> str:
    """What a run says to a setting, and that it says so at once."""
    began = time.process_time()
    with pytest.raises((ConfigError, PolicyError)) as refused:
        begin(setting)
    assert time.process_time() - began < 1
    return str(refused.value)


@pytest.mark.parametrize(("setting", "sentence"), REFUSED, ids=lambda text: ascii(text[:40]))
def test_it_is_refused_in_one_sentence(setting: str, sentence: str) -> None:
    text = refusal(setting)
    assert sentence in text
    assert "\n" not in text
    assert len(text) < 1000


FILES = {
    "lists in lists": (f"x = {LIST}", "nests tables or lists deeper than 32"),
    "tables in tables": (f"[{'.'.join('a' * 100_000)}]\n", "nests tables or lists deeper than 32"),
    "quoted tables in tables": (
        "[" + ".".join(['"a"'] * 50_000) + "]\n",
        "nests tables or lists deeper than 32",
    ),
    "keys in keys": (f"{'.'.join('a' * 100_000)} = 1\n", "nests tables or lists deeper than 32"),
    "a long integer": (f"x = {'1' * 5000}\n", "has an integer of more than 4300 digits"),
    "10 MB": (f"x = '{TEN_MB}'\n", "more than 4,194,304, so it is no configuration"),
    "a NUL": ("x = \0\n", "is not valid TOML"),
    "half a character": ('x = "\\ud800"\n', "is not valid TOML"),
    "nothing": ("", "is missing"),
    "a long unknown key": (f"{'k' * 300_000} = 1\n", "is not a setting"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_none_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    content, sentence = FILES[case]
    path = tmp_path / "run.toml"
    path.write_text(content)
    began = time.process_time()
    with pytest.raises(ConfigError) as refused:
        toml_file.load(path)
    assert time.process_time() - began < 2
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_home_folders_of_nobody_are_paths_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match=r"policy.model: there is no folder ~nobody-there/x"):
        models.locate("~nobody-there/x", where="policy")
    with pytest.raises(ConfigError, match=r"hints.bank: there is no bank of skills"):
        load_bank("~nobody-there/x")


def test_a_bank_that_nests_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "go.txt").write_text("go")
    (tmp_path / "bank.toml").write_text(f"x = {LIST}")
    with pytest.raises(ConfigError, match=r"bank.toml nests tables or lists deeper than 32"):
        load_bank(str(tmp_path))


def test_the_largest_sensible_values_are_taken() -> None:
    settings = [f"run.steps={MOST}", "update.lr=1", "rollout.concurrency=65536", "run.seed=-1"]
    config = toml_file.parse(toml_file.override(tiny_table(), settings))
    assert config.run.steps == MOST
    name = "x = '" + ".".join("a" * 40) + "'"
    assert toml_file.table_of(name, "a file") == {"x": ".".join("a" * 40)}
    assert toml_file.table_of(tiny_file(), "a file")
    assert not did_you_mean("a" * 10_000_000, ["a"])
