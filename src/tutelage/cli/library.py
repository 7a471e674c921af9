"""The functions of `import tutelage`: load, train, evaluate, suite, connect and check_env."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage.config import mistakes, python_values, toml_file
from tutelage.config.schema import Config
from tutelage.envs import check, registry
from tutelage.envs.base import Suite
from tutelage.envs.check import Finding
from tutelage.envs.guard import attempt
from tutelage.errors import ConfigError, kind
from tutelage.evaluation import evaluate as evaluation
from tutelage.evaluation.evaluate import Evaluation
from tutelage.policies.base import Policy
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.policy import RemotePolicy
from tutelage.prompts.chat_template import Chat
from tutelage.rollout.session import Limits, Session
from tutelage.runs import models, offline
from tutelage.runs.folder import CONFIG
from tutelage.runs.launch import joined
from tutelage.runs.notebook import Notebook, in_notebook
from tutelage.runs.run import Run
from tutelage.runs.train import train as run_config
from tutelage.runs.watch import Watch

Source = str | Path | Mapping[str, Any]
WATCHES = ("started", "tested", "playing", "stepped", "evaluated", "warned", "closed")
"""Methods of `Watch`."""
PANEL = 100
"""Default number of tasks of an evaluation."""


def load(
    source: Source, overrides: Sequence[str] | Mapping[str, Any] = (), *, trust: bool = False
) -> Config:
    """A configuration from a TOML file, a run's folder, or a table in Python.

    overrides  settings that replace the source's: {"update.lr": 1e-4}, or ["update.lr=1e-4"]
    trust      run code that a file names even if another user wrote the file

    env.suite may be an object or a class, which then runs in this process (env.workers asks for
    worker processes). Raises ConfigError for what cannot be used.
    """
    if isinstance(overrides, Mapping) and "env.suite" in overrides:
        overrides = {**overrides, "env.suite": _named(overrides["env.suite"])}
    texts = python_values.settings(overrides)
    if isinstance(source, str | os.PathLike):
        return toml_file.load(Path(source), texts, trust=trust)
    if not isinstance(source, Mapping):
        raise ConfigError(
            f"a configuration is a TOML file, a run's folder or a dict, and not "
            f"{type(source).__name__}; give one of them"
        )
    table = dict(source)
    env = table.get("env")
    if isinstance(env, Mapping) and "suite" in env:
        table["env"] = {**env, "suite": _named(env["suite"])}
    return toml_file.parse(toml_file.override(python_values.table(table), texts))


def _named(suite: object) -> object:
    """A suite's name; what cannot be one is left to be refused."""
    plain = suite is None or isinstance(suite, str | int | float | Mapping | list | tuple)
    return suite if plain else registry.register(suite)


def train(config: Config | Source, *, watch: Watch | None = None, resume: bool = False) -> Run:
    """Train as a configuration says, and return the run with its folder.

    watch   receives progress; by default a notebook shows a progress bar and curves, a terminal a
            live display, and anything else one line per step
    resume  continue from the last checkpoint

    Ctrl-C writes a checkpoint; in a notebook the run so far is returned. Raises ConfigError or
    PolicyError for a configuration that cannot run, and RunError for later failures.
    """
    config = config if isinstance(config, Config) else load(config)
    if not isinstance(resume, bool):
        raise ConfigError(f"resume is {resume!r:.40}; give True or False")
    missing = [name for name in WATCHES if not callable(getattr(watch, name, None))]
    if watch is not None and missing:
        raise ConfigError(
            f"watch is {type(watch).__name__}, which has no method {missing[0]}; give an object with "
            f"{', '.join(WATCHES)}, or leave it out"
        )
    try:
        with joined() as ranks:
            run_config(config, resume=resume, watch=watch or _watch(), ranks=ranks)
    except KeyboardInterrupt:
        if not in_notebook() or not (Path(config.run.folder) / CONFIG).exists():
            raise
    return Run(config.run.folder)


def _watch() -> Watch:
    if in_notebook():
        return Notebook()
    from rich.console import Console

    from tutelage.cli.progress import watch_for

    return watch_for(Console())


def evaluate(
    what: Run | Config | Policy | str | Path,
    suite: object = None,
    *,
    split: str = "",
    tasks: int | None = None,
    hint: str = "",
    temperature: float | None = None,
    seed: int | None = None,
    limits: Limits | None = None,
) -> Evaluation:
    """Evaluate a policy on a fixed panel of tasks.

    what         a run or its folder (its newest checkpoint), a configuration (its student), a
                 policy, or a model's folder or hub id
    suite        for a policy or a model: the suite's name, class or object
    split        of the tasks; the run's own, else the first of seen, test, dev, valid, unseen,
                 validation, train that there is
    tasks        their number; the run's own, else 100 or as many as there are
    hint         privileged information in the prompt, such as "plan"
    temperature  of sampling, 0 is greedy; the run's own eval.temperature, else 0
    seed         of the sampled tokens, for a policy or a model; 0 if it is left out
    limits       of turns and tokens, for a policy or a model; Limits() if they are left out

    Raises ConfigError if there is nothing to evaluate on, or for a run or a configuration with a
    suite, a seed or limits, which are its own.
    """
    if tasks is not None:
        python_values.whole("tasks", tasks, least=1)
    if temperature is not None:
        python_values.number("temperature", temperature)
    for name, value, wanted, form in (
        ("split", split, str, "the name of a split"),
        ("hint", hint, str, "the name of a hint"),
        ("seed", seed, int | None, "a whole number"),
        ("limits", limits, Limits | None, "tutelage.Limits(...)"),
    ):
        kind(name, value, wanted, form)
    if isinstance(what, str | Path) and suite is None:
        path = Path(what)
        what = Run(path) if path.is_dir() else load(path)
    if isinstance(what, Run | Config):
        if suite is not None:
            raise ConfigError("a run or a configuration names its suite itself; leave suite out")
        for name, own, given in (("seed", "a seed", seed), ("limits", "limits", limits)):
            if given is not None:
                raise ConfigError(
                    f"a run or a configuration has {own} of its own; leave {name} out, or evaluate "
                    f"a model's folder on a suite: tl.evaluate(run.checkpoint(), suite, {name}=...)"
                )
        return _of_config(what, split=split, tasks=tasks, hint=hint, temperature=temperature)
    if suite is None:
        raise ConfigError("a policy is evaluated on a suite; give one, such as tl.suite('doors')")
    chosen = _suite(suite, {})
    policy = HFPolicy.load(str(what)) if isinstance(what, str | Path) else what
    split = split or _split(chosen)
    there = attempt(f"tasks({split!r})", partial(chosen.tasks, split))
    panel = evaluation.panel(chosen, split, tasks or min(PANEL, len(there)))
    session = Session(chosen, {"self": policy}, limits=limits or Limits())
    return evaluation.evaluate(
        session, panel, hint=hint, seed=seed or 0, temperature=temperature or 0.0
    )


def _of_config(
    what: Run | Config, *, split: str, tasks: int | None, hint: str, temperature: float | None
) -> Evaluation:
    config = load(what.folder) if isinstance(what, Run) else what
    student = offline.trained(what.folder) if isinstance(what, Run) else ""
    changes: dict[str, object] = {"hint": hint}
    changes |= {"split": split} if split else {}
    changes |= {"tasks": tasks} if tasks else {}
    changes |= {"temperature": temperature} if temperature is not None else {}
    table = {**config.eval.model_dump(), **changes}
    try:
        section = type(config.eval).model_validate(table)
    except ValidationError as error:
        raise ConfigError("; ".join(mistakes.sentences(error, table))) from None
    config = config.model_copy(update={"eval": section})
    found = offline.evaluations(
        config, [offline.STUDENT], student=student, tick=lambda done, total: None
    )
    return found[evaluation.named(offline.STUDENT, hint)]


def _split(suite: Suite) -> str:
    splits = check.splits_of(suite)
    familiar = (split for split in ("seen", "test", "dev", "valid") if split in splits)
    return next(familiar, evaluation.default_split(suite))


def suite(what: object, /, **options: Any) -> Suite:
    """A suite by name, or from a class or an object of your own; `options` are its arguments.

    A class with `reset(task)` and `step(action)` alone becomes a suite whose tasks are seeds.
    Raises ConfigError if it is not a suite.
    """
    return _suite(what, options)


def _suite(what: object, options: Mapping[str, Any]) -> Suite:
    if isinstance(what, str):
        return registry.as_suite(registry.suite_class(what), options, name=what)
    return registry.as_suite(what, options)


def check_env(suite: object, *, splits: Iterable[str] = (), tasks: int = 5) -> list[Finding]:
    """Check a suite against the environment contract: one finding per check, with its problems."""
    python_values.whole("tasks", tasks, least=1)
    names = [splits] if isinstance(splits, str) else splits
    if not isinstance(names, Iterable):
        raise ConfigError(f"splits is {type(splits).__name__}; give a list of names of splits")
    chosen = _suite(suite, {})
    return list(check.check(chosen, list(names) or check.splits_of(chosen), tasks=tasks))


def connect(
    url: str, tokenizer: HFPolicy | str | Path, *, model: str = "", key: str = "", context: int = 0
) -> RemotePolicy:
    """A model on a server (vLLM, or `tutelage serve`) as a policy: it can act, and score tokens.

    tokenizer  a policy with the same tokenizer, or the tokenizer's folder or hub id
    model      its name on the server; the first that the server lists if empty
    key        the environment variable that holds the server's key
    context    its context in tokens; 0 takes the server's value

    Raises PolicyError if the server cannot be reached or has another tokenizer.
    """
    python_values.whole("context", context, least=0)
    if not isinstance(tokenizer, HFPolicy | str | Path):
        raise ConfigError(
            f"tokenizer is {type(tokenizer).__name__}; give a policy, or the folder or hub id of a "
            "tokenizer"
        )
    for name, value in (("url", url), ("model", model), ("key", key)):
        if not isinstance(value, str):
            raise ConfigError(f"{name} is {type(value).__name__}; give a text")
    if isinstance(tokenizer, HFPolicy):
        chat = tokenizer.chat
    else:
        from transformers import AutoTokenizer

        chat = Chat(
            AutoTokenizer.from_pretrained(
                models.locate(str(tokenizer), where="tokenizer"), trust_remote_code=False
            )
        )
    client = models.client_of(key, url, where="connect", seed=0)
    policy = RemotePolicy(client, chat, model=model, context=context)
    policy.connect()
    return policy
