"""`tutelage init`: a runnable, commented training file for a suite or a class of the user's own.

The numbers in the file come from the suite: its splits and, if it has an expert, the length of its
demonstrations. The file is checked as `--dry-run` does before it is written.
"""

import inspect
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from tutelage.cli import dry_run
from tutelage.config.schema import Config, EnvSection
from tutelage.config.toml_file import parse, write_value
from tutelage.envs.base import Demonstrates, Suite
from tutelage.envs.check import splits_of
from tutelage.envs.guard import attempt
from tutelage.envs.supervised import supervised
from tutelage.errors import ConfigError, RunError
from tutelage.evaluation.evaluate import default_split
from tutelage.hints.bank import built_in as bank_names
from tutelage.hints.kinds import given_by, kinds_in
from tutelage.runs.assemble import tasks_of
from tutelage.runs.phases import algorithm_function, phases_of

MODEL, LARGER = "HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct"
"""The default student, and a teacher with the same tokenizer."""
BUILTIN = "builtin:household-teacher"
"""A model that ships with the package, for the household suite only."""
OPTIONS: Mapping[str, dict[str, JsonValue]] = {
    "household": {"size": "small", "search": "methodical"},
    "webshop": {"products": 100},
    "tau_bench": {"size": "small"},
    "travelplanner": {"size": "small"},
    "search_qa": {"size": "small"},
    "bfcl": {"docs": "short"},
}
"""Options that make a suite suitable for a small model."""
CONTEXTS: Mapping[tuple[str, str], dict[str, JsonValue]] = {
    (BUILTIN, "household"): {"render": "marked", "instructions": False}
}
"""The [context] settings that a small model was trained with, by model and suite."""
SAMPLE = 20
"""Number of demonstrations that are measured."""
CHARACTERS = 3
"""Fewest characters of English per token: too many tokens are better than truncated replies."""


class Setting(NamedTuple):
    """A line of the file."""

    value: JsonValue
    comment: str = ""


File = dict[str, dict[str, Setting]]


def write(suite: str, file: Path | None, *, model: str, algorithm: str) -> Path:
    """Write the file and return its path.

    Raises ConfigError for a suite, a model or an algorithm that cannot be used together, and
    RunError rather than overwrite a file.
    """
    path = file or Path(f"{suite.rpartition(':')[2].lower()}.toml")
    if path.exists():
        raise RunError(f"{path} exists already; name another file: tutelage init {suite} FILE")
    sections = _file(suite, model, algorithm)
    dry_run.make(_parsed(sections, path.stem))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(sections, f"tutelage init {suite}"), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}); name another file") from error
    return path


def _parsed(sections: File, name: str) -> Config:
    table: dict[str, JsonValue] = {}
    for section, settings in sections.items():
        at = table
        for part in section.split("."):
            below = at.setdefault(part, {})
            assert isinstance(below, dict)
            at = below
        at.update({key: setting.value for key, setting in settings.items()})
    return parse(table, name=name)


def _file(suite: str, model: str, algorithm: str) -> File:
    """Every section with its settings, in the order in which they are written."""
    function = algorithm_function(algorithm, where="algorithm")
    empty = inspect.Parameter.empty
    needed = [n for n, p in inspect.signature(function).parameters.items() if p.default is empty]
    if needed := [name for name in needed if name != "total_steps"]:
        raise ConfigError(
            f"{algorithm} has no default for {', '.join(needed)}; start from its example instead: "
            "`tutelage examples` lists them"
        )
    options = OPTIONS.get(suite, {})
    with supervised(EnvSection(suite=suite, options=options)) as loaded:
        there = splits_of(loaded)
        split = "train" if "train" in there else there[0]
        tasks = tasks_of(loaded, split, 1, where="env")
        test = default_split(loaded)
        tested = min(50, len(tasks_of(loaded, test, 1, where="eval")))
        demonstrates = isinstance(loaded, Demonstrates)
        turns, tokens = _lengths(loaded, split) if isinstance(loaded, Demonstrates) else (10, 64)
        hint = _hint(suite, loaded, function)
    file: File = {
        "run": {
            "steps": Setting(50, "training steps, after the warm start"),
        },
        "env": {
            "suite": Setting(suite),
            **({"options": Setting(dict(options))} if options else {}),
            "split": Setting(split, f"{len(tasks):,} tasks"),
        },
        "rollout": {
            "tasks_per_step": Setting(min(8, len(tasks)), "different tasks per step"),
            "group_size": Setting(4, "episodes per task, compared with each other"),
            "max_turns": Setting(turns),
            "max_new_tokens": Setting(tokens, "most tokens of one reply"),
        },
    }
    student = model or (BUILTIN if suite == "household" else MODEL)
    if context := CONTEXTS.get((student, suite)):
        file["context"] = {key: Setting(value) for key, value in context.items()}
        first = next(iter(context))
        file["context"][first] = Setting(
            context[first], "the prompts that this model was trained on"
        )
    if demonstrates and algorithm != "sft":
        file["warm_start"] = {
            "name": Setting("sft", "first imitates the suite's demonstrations"),
            "steps": Setting(20),
            "lr": Setting(1e-4),
        }
    file["algorithm"] = {"name": Setting(algorithm, f"`tutelage algorithms {algorithm}`")}
    if hint:
        file["algorithm"]["hint"] = Setting(hint, "what the teacher is shown: docs/hints.md")
    file["update"] = {"lr": Setting(1e-4)}
    teachers = _teachers(file, suite)
    file["policy"] = _student(suite, model, teachers=bool(teachers))
    for name in teachers:
        file[f"policies.{name}"] = {
            "model": Setting(_teacher(suite, model), "a larger model with the same tokenizer")
        }
    file["eval"] = {"split": Setting(test), "tasks": Setting(tested)}
    return file


def _hint(name: str, suite: Suite, function: Callable[..., object]) -> str:
    """A hint that the suite gives, where it does not give the algorithm's usual one."""
    parameter = inspect.signature(function).parameters.get("hint")
    usual = parameter.default if parameter is not None else None
    kinds = [*given_by(suite), *(["skills"] if name in bank_names() else [])]
    if not isinstance(usual, str) or not kinds or kinds_in(usual) <= set(kinds):
        return ""
    return kinds[0]


def _lengths(suite: Suite, split: str) -> tuple[int, int]:
    """Turns and tokens per reply that fit the longest of the first demonstrations, with a margin."""
    assert isinstance(suite, Demonstrates)
    tasks = suite.tasks(split)
    scripts = [
        attempt("demonstrate", partial(suite.demonstrate, tasks[i]))
        for i in range(min(SAMPLE, len(tasks)))
    ]
    turns = max(map(len, scripts))
    longest = max(map(len, itertools.chain.from_iterable(scripts)), default=0)
    # a reply is an action between tags, and may have a thought before it
    return turns + turns // 2 + 1, max(32, 16 * (longest // CHARACTERS // 16 + 2))


def _teachers(file: File, suite: str) -> list[str]:
    """The policies that the algorithm needs besides the student."""
    config = _parsed({**file, "policy": {"model": Setting(BUILTIN)}}, "init")
    views = [v for p in phases_of(config) for v in p.algorithm.views.values()]
    return sorted({view.policy for view in views} - {"self", "reference"})


def _student(suite: str, model: str, *, teachers: bool) -> dict[str, Setting]:
    if not model and suite == "household":
        if teachers:
            layers = Setting(2, "the first layers only: a smaller student")
            return {"model": Setting(BUILTIN), "layers": layers}
        return {"model": Setting(BUILTIN, "ships with the package: 0.6 million parameters")}
    name = Setting(model or MODEL, "" if model else "135 million parameters, downloaded once")
    if model.startswith("builtin:") or find_spec("peft") is None:
        return {"model": name}
    return {"model": name, "lora": Setting(16, "rank of the adapters; 0 trains all weights")}


def _teacher(suite: str, model: str) -> str:
    if model:
        return model
    return BUILTIN if suite == "household" else LARGER


def _text(sections: File, command: str) -> str:
    """The text of the file, with comments aligned within a section."""
    lines = [f"# Written by `{command}`. Every setting has a default; see docs/configuration.md."]
    for section, settings in sections.items():
        lines += ["", f"[{section}]"]
        texts = {key: f"{key} = {write_value(s.value)}" for key, s in settings.items()}
        wide = max((len(texts[key]) for key, s in settings.items() if s.comment), default=0)
        for key, setting in settings.items():
            comment = f"  # {setting.comment}" if setting.comment else ""
            lines.append(f"{texts[key]:<{wide}}{comment}".rstrip())
    return "\n".join(lines) + "\n"
