"""What a study runs: read from its TOML file, checked, in order, each run known by its content.

[study]            folder, warm_start (which of them everybody starts from), last, baselines, and
                   where wanted environment, a table of variables that all runs are given
[base.SECTION]     settings that all runs share
[warm_starts.NAME] what is put over the base for the shared start
[groups.NAME]      seeds, and what is put over the base for the group's runs
[methods.NAME]     group, title, and what is put over that; algorithm.name is NAME unless given
[automatic]        the same for registered algorithms without an entry; else they are left out
[pictures.NAME]    title and methods of a figure
[notes]            what people add to the page, by claim
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from tutelage.algorithms import ALGORITHMS
from tutelage.config.schema import Config
from tutelage.config.toml_file import merged, parse, read_table
from tutelage.errors import ConfigError, TutelageError, did_you_mean
from tutelage.runs import checkpoint
from tutelage.runs.folder import HARMLESS
from tutelage.runs.models import ASSETS
from tutelage.runs.phases import phases_of, policies_wanted

Table = dict[str, object]
WARM, TEACHER = "warm_start", "teacher"
OPTIONAL = "automatic"
NOT_SETTINGS = {"seeds", "group", "title", "about"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run. What cannot be started has a `problem`, and no configuration."""

    method: str
    group: str
    seed: int
    key: str  # of everything that makes its result, the shared start included
    folder: Path
    steps: int
    config: Config | None
    start: "Run | None" = None
    problem: str = ""

    @property
    def name(self) -> str:
        return f"{self.method}-{self.seed}"

    @property
    def done(self) -> int:
        """Training steps that a checkpoint holds."""
        if not (self.folder / checkpoint.LATEST).exists():
            return 0
        state = checkpoint.read_state(checkpoint.latest(self.folder))
        return state.step if state.phase == "train" else 0

    @property
    def finished(self) -> bool:
        return not self.problem and self.done >= self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study as planned; `runs` are in the order in which they are started."""

    folder: Path
    last: int
    baselines: tuple[str, ...]
    titles: Mapping[str, str]
    groups: Mapping[str, tuple[int, ...]]
    pictures: Mapping[str, tuple[str, tuple[str, ...]]]
    notes: Mapping[str, str]
    starts: tuple[Run, ...]
    runs: tuple[Run, ...]
    base: Config
    environment: Mapping[str, str]  # variables of every run

    def group(self, method: str) -> str:
        """The group of a method."""
        return next(run.group for run in self.runs if run.method == method)

    def only(
        self, *, groups: Sequence[str] = (), methods: Sequence[str] = (), seeds: Sequence[int] = ()
    ) -> list[Run]:
        """The runs of the named groups, methods and seeds; of all where none is named."""
        unknown = [*(set(groups) - set(self.groups)), *(set(methods) - set(self.titles))]
        if unknown:
            there = ", ".join([*self.groups, *self.titles])
            raise ConfigError(f"the study has no {unknown[0]!r}; it has {there}")
        return [
            run
            for run in self.runs
            if (not groups or run.group in groups)
            and (not methods or run.method in methods)
            and (not seeds or run.seed in seeds)
        ]


def load(path: Path, *, folder: Path | None = None, over: str = "") -> Study:
    """The study of a file; `over` names a table of it that is put over every run (`smoke`), and may
    name another `warm_start` to begin from.

    Raises ConfigError for a file that cannot be used, or groups whose runs differ in budget.
    """
    table = cast(Table, read_table(path))
    for name in set(table) - {OPTIONAL}:  # a misspelt one would be left out unseen
        if meant := did_you_mean(name, [OPTIONAL]):
            raise ConfigError(f"the study's table [{name}] means nothing{meant}")
    top = _table(table, "study")
    extra = _table(table, over) if over else {}
    layers = _Layers(
        base=_table(table, "base"),
        over=extra,
        folder=folder or Path(str(top["folder"])),
        environment=cast(dict[str, str], top.get("environment", {})),
    )
    groups = _tables(table, "groups")
    methods = _methods(_tables(table, "methods"), table.get(OPTIONAL))
    if chosen := extra.get("methods"):
        methods = {name: methods[name] for name in cast(list[str], chosen)}
    seeds = {
        name: tuple(cast(list[int], extra.get("seeds", group["seeds"])))
        for name, group in groups.items()
    }
    kind = str(extra.get("warm_start", top["warm_start"]))
    starts = _starts(layers, _tables(table, "warm_starts"), kind, seeds)
    runs = [
        _run(layers, name, method, groups[str(method["group"])], starts[seed])
        for group, numbers in seeds.items()
        for seed in numbers
        for name, method in methods.items()
        if method["group"] == group
    ]
    _equal_budgets(runs)
    return Study(
        folder=layers.folder,
        last=int(str(top["last"])),
        baselines=tuple(cast(list[str], top["baselines"])),
        titles={name: str(method.get("title", name)) for name, method in methods.items()},
        groups=seeds,
        pictures={
            name: (str(picture["title"]), tuple(cast(list[str], picture["methods"])))
            for name, picture in _tables(table, "pictures").items()
        },
        notes={name: str(text) for name, text in _table(table, "notes").items()},
        starts=tuple(starts.values()),
        runs=tuple(runs),
        base=parse(_merged(layers.base, extra, _FIRST)),  # type: ignore[arg-type]
        environment=layers.environment,
    )


_FIRST: Table = {"run": {"seed": 0}, "algorithm": {"name": "sft"}}
"""What makes a whole configuration of the base, for the panel and the teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layers:
    base: Table
    over: Table
    folder: Path
    environment: Mapping[str, str]


def _table(table: Mapping[str, object], name: str) -> Table:
    found = table.get(name)
    if not isinstance(found, dict):
        raise ConfigError(f"the study has no table [{name}]; add it")
    return found


def _tables(table: Mapping[str, object], name: str) -> dict[str, Table]:
    return {key: _table(_table(table, name), key) for key in _table(table, name)}


def _merged(*layers: Mapping[str, object]) -> Table:
    """The settings of layers, later ones over earlier ones."""
    settings = [
        {s: v for s, v in layer.items() if s not in NOT_SETTINGS and isinstance(v, dict)}
        for layer in layers
    ]
    return cast(Table, merged({}, *cast(list[dict[str, JsonValue]], settings)))


def _methods(given: Mapping[str, Table], automatic: object) -> dict[str, Table]:
    """The file's entries and, with [automatic], one for each registered algorithm that none of them
    runs."""
    named = {str(_algorithm(name, method)["name"]) for name, method in given.items()}
    rest = [name for name in ALGORITHMS if name not in named] if automatic is not None else []
    more = {name: cast(Table, automatic) for name in rest}
    return {
        name: {**method, "algorithm": _algorithm(name, method)}
        for name, method in {**given, **more}.items()
    }


def _algorithm(name: str, method: Table) -> Table:
    return {"name": name, **cast(Table, method.get("algorithm", {}))}


def key_of(
    table: Mapping[str, object], start: str = "", *, environment: Mapping[str, str] | None = None
) -> str:
    """The hash of all settings that were given and change a result, of the built-in weights that
    they name, of the environment variables, and of the shared start.

    Defaults are left out, so that a new setting of the library makes no old result stale."""
    sections = {
        section: {k: v for k, v in cast(Table, values).items() if f"{section}.{k}" not in HARMLESS}
        for section, values in table.items()
    }
    named = set(re.findall(r"builtin:([\w-]+)", json.dumps(sections)))
    weights = [_weights(ASSETS / name / "model.safetensors") for name in sorted(named)]
    text = json.dumps([sections, weights, start, environment or {}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@cache
def _weights(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _starts(
    layers: _Layers, kinds: Mapping[str, Table], kind: str, seeds: Mapping[str, Sequence[int]]
) -> dict[int, Run]:
    """The shared start of each seed: a run of its own, without evaluations."""
    if kind not in kinds:
        raise ConfigError(f"study.warm_start = {kind!r} is none of {', '.join(kinds)}")
    starts = {}
    for seed in sorted({seed for numbers in seeds.values() for seed in numbers}):
        unevaluated: Table = {"eval": {"every": 0}}
        table = _merged(layers.base, unevaluated, kinds[kind], {"run": {"seed": seed}})
        key = key_of(table, environment=layers.environment)
        starts[seed] = _checked(
            table,
            method=WARM,
            group=WARM,
            seed=seed,
            key=key,
            folder=layers.folder / f"{WARM}-{seed}-{key}",
        )
    return starts


def _run(layers: _Layers, name: str, method: Table, group: Table, start: Run) -> Run:
    table = _merged(layers.base, group, method, layers.over, {"run": {"seed": start.seed}})
    key = key_of(table, start.key, environment=layers.environment)
    of_the_start = ("layers", "build", "tokenizer")  # the start has them already
    policy = {k: v for k, v in cast(Table, table["policy"]).items() if k not in of_the_start}
    table["policy"] = {**policy, "model": str(start.folder)}
    return _checked(
        table,
        method=name,
        group=str(method["group"]),
        seed=start.seed,
        key=key,
        folder=layers.folder / f"{name}-{start.seed}-{key}",
        start=start,
    )


def _checked(
    table: Table,
    *,
    method: str,
    group: str,
    seed: int,
    key: str,
    folder: Path,
    start: Run | None = None,
) -> Run:
    """A run whose settings and algorithm exist, or one with the sentence that says what does not:
    one bad entry does not stop the others."""
    run = cast(Table, table["run"])
    table = {**table, "run": {**run, "folder": str(folder)}}
    config, problem = None, ""
    try:
        config = parse(table)  # type: ignore[arg-type]
        policies_wanted(phases_of(config), config.policies)
    except TutelageError as error:
        problem = str(error)
    return Run(
        method=method,
        group=group,
        seed=seed,
        key=key,
        folder=folder,
        steps=int(str(run["steps"])),
        config=None if problem else config,
        start=start,
        problem=problem,
    )


def episodes_of(config: Config) -> int:
    """Training episodes of a run: the budget that all runs of a group share."""
    return config.rollout.tasks_per_step * config.rollout.group_size * config.run.steps


def _equal_budgets(runs: Sequence[Run]) -> None:
    budgets: dict[str, tuple[str, int]] = {}
    for run in runs:
        if run.config is None:
            continue
        mine = episodes_of(run.config)
        other, theirs = budgets.setdefault(run.group, (run.method, mine))
        if mine != theirs:
            raise ConfigError(
                f"{run.method} would train on {mine} episodes and {other} on {theirs}; give "
                f"all of the group {run.group} the same rollout.tasks_per_step * rollout.group_size * run.steps"
            )
