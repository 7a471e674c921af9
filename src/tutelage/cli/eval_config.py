"""`tutelage eval` and `tutelage try`: a configuration from MODEL and SUITE, without a training file."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from tutelage.cli.starter import CONTEXTS
from tutelage.config.schema import Config
from tutelage.config.toml_file import Table, override, parse, read_extended
from tutelage.config.trust import check as check_trust
from tutelage.envs.registry import SUITES
from tutelage.envs.supervised import supervised
from tutelage.errors import ConfigError
from tutelage.evaluation.evaluate import default_split
from tutelage.evaluation.panels import NamedPanel
from tutelage.runs import assemble, offline
from tutelage.runs.folder import CONFIG

TASKS = 100
"""Default number of tasks; fewer if the split is smaller."""


def of(
    model: str,
    rest: Sequence[str],
    *,
    tasks: int | None = None,
    split: str | None = None,
    temperature: float | None = None,
    checkpoint: str = "",
    trust: bool = False,
    command: str = "eval",
    panel: NamedPanel | None = None,
    key: str = "",
) -> tuple[Config, str]:
    """The configuration to evaluate, and the folder of the checkpoint with the student ("" for the
    model that the configuration names).

    model    a TOML file, the folder of a run or of a model, a hub id, "builtin:NAME", or the
             address of an OpenAI-compatible server
    rest     optionally a suite, then settings as "section.key=value"
    command  the one that asks, for its error messages
    panel    brings its suite, options, split and tasks
    key      the environment variable with the key of the server
    """
    suite = rest[0] if rest and "=" not in rest[0] else ""
    if panel is not None:
        _check_panel(panel, suite, tasks=tasks, split=split)
        suite, rest = panel.suite, [panel.suite, *rest[bool(suite) :]]
        tasks, split = len(panel.tasks), panel.split
    settings = rest[1:] if suite else rest
    address = model.removeprefix("chat:")
    served = address.startswith(("http://", "https://"))
    if key and not served:
        raise ConfigError(
            f"--key is for the address of a server, and {model} is none; leave it out"
        )
    typed = [f"env.suite={suite}"] if suite else []
    path = Path(model)
    student = ""
    if served and suite:
        table = _table(f"chat:{address}", suite)
        if key:
            _section(table, "policy")["key"] = key
    elif path.is_dir() and (path / CONFIG).exists():
        table = read_extended(path / CONFIG)
        check_trust(path / CONFIG, table, [*settings, *typed], trust=trust)
        student = offline.trained(path, checkpoint)
        if suite:
            _replace_suite(table, suite)
    elif path.suffix == ".toml" or path.is_file():
        table = read_extended(path)
        check_trust(path, table, [*settings, *typed], trust=trust)
        if suite:
            _replace_suite(table, suite)
    elif not suite:
        raise ConfigError(_no_suite(model, path, command))
    else:
        table = _table(model, suite)
    if checkpoint and not student:
        raise ConfigError(f"--checkpoint needs the folder of a run, but {model} is not one")
    override(table, settings)
    _leave_servers_out(table)
    if panel is not None:
        _section(table, "env")["options"] = dict(panel.options)
    chosen: dict[str, JsonValue] = {"tasks": tasks, "split": split, "temperature": temperature}
    given = {key: value for key, value in chosen.items() if value is not None}
    section = table.setdefault("eval", {})
    if isinstance(section, dict):
        section.update(given)
    return _with_defaults(table, name=path.stem or "eval"), student


def _table(model: str, suite: str) -> Table:
    """A configuration for evaluation only; its training sections are never used."""
    return {
        "run": {"steps": 1},
        "env": {"suite": suite},
        "algorithm": {"name": "sft"},
        "update": {"lr": 1e-5},
        "policy": {"model": model, "template_history": "append"},
        "context": dict(CONTEXTS.get((model, suite), {})),
        "eval": {},
    }


def _section(table: Table, name: str) -> dict[str, JsonValue]:
    section = table.setdefault(name, {})
    assert isinstance(section, dict)
    return section


def _leave_servers_out(table: Table) -> None:
    """Nothing is placed on a cluster here: what its servers would hold is loaded in this process."""
    policy, further = table.get("policy"), table.get("policies")
    if isinstance(policy, dict):
        sampler = policy.get("sampler")
        if isinstance(sampler, dict) and sampler.get("servers"):
            del policy["sampler"]
    for section in further.values() if isinstance(further, dict) else ():
        if isinstance(section, dict):
            section.pop("servers", None)


def _check_panel(panel: NamedPanel, suite: str, *, tasks: int | None, split: str | None) -> None:
    """Refuse what a panel decides itself."""
    if suite not in ("", panel.suite):
        raise ConfigError(f"the panel {panel.name} is of {panel.suite}, not of {suite}")
    if tasks is not None or split is not None:
        raise ConfigError(
            f"the panel {panel.name} has its own tasks; leave --tasks and --split out"
        )


def _replace_suite(table: Table, suite: str) -> None:
    """Replace the file's suite, and drop the options, splits and renders of the old one."""
    env = table.get("env")
    if isinstance(env, dict) and env.get("suite") == suite:
        return
    table["env"] = {"suite": suite}
    test = table.get("eval")
    if isinstance(test, dict):
        table["eval"] = {k: v for k, v in test.items() if k not in ("split", "tasks", "hint")}
    context = table.get("context")
    if isinstance(context, dict):
        table["context"] = {k: v for k, v in context.items() if k != "render"}


def _with_defaults(table: Table, *, name: str) -> Config:
    """The configuration, with the suite's own test split and as many tasks as it has."""
    config = parse(table, name=name)
    section = table["eval"]
    assert isinstance(section, dict)
    if "split" in section and "tasks" in section:
        return config
    splits = [str(section["split"])] if "split" in section else []
    with supervised(config.env, *splits) as suite:
        if "split" not in section:
            section["split"] = default_split(suite)
        if "tasks" not in section:
            split = str(section["split"])
            section["tasks"] = min(TASKS, len(assemble.tasks_of(suite, split, 1, where="eval")))
    return parse(table, name=name)


def _no_suite(model: str, path: Path, command: str) -> str:
    if not path.exists() and "/" not in model.rstrip("/") and ":" not in model:
        return (
            f"there is no file {model}; give a TOML file, the folder of a run, or a model and a "
            f"suite: tutelage {command} MODEL SUITE"
        )
    return (
        f"no suite is given for {model}; write `tutelage {command} {model} SUITE`, with one of "
        f'{", ".join(SUITES)}, or your own as "package.module:Class"'
    )
