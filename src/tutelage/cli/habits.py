"""What people type who know other tools, answered with what to type here.

A spelling that can only mean one thing is read as that; anything else is answered with one
sentence.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tutelage.errors import NAME, did_you_mean

COMMANDS: Final = {
    "resume": f"`{NAME} train RUN --resume` continues a run",
    "continue": f"`{NAME} train RUN --resume` continues a run",
    "sweep": f"start a run for each, such as `{NAME} train FILE run.seed=1 run.folder=runs/NAME-1`, "
    f"and `{NAME} compare runs` puts seeds together",
    "ls": f"`{NAME} runs` lists runs",
    "list": f"`{NAME} runs` lists runs; examples, envs and algorithms have commands of those names",
    "status": f"`{NAME} runs` lists runs with their state",
    "config": f"`{NAME} init` writes a training file, and `{NAME} train FILE --dry-run` checks it",
    "new": f"`{NAME} init` writes a training file",
    "rl": f"`{NAME} train FILE` trains, with the method that [algorithm] names",
    "run": f"`{NAME} train FILE` trains, and `{NAME} runs` lists runs",
    "fit": f"`{NAME} train FILE` trains",
    "finetune": f"`{NAME} train FILE` trains",
    "test": f"`{NAME} eval RUN` evaluates, and `{NAME} check-env` tests an environment",
    "benchmark": f"`{NAME} eval` measures success, and `{NAME} bench` the time of a step",
    "play": f"`{NAME} try MODEL SUITE` plays an episode",
    "rollout": f"`{NAME} try` plays an episode, and `{NAME} collect` records many",
    "generate": f"`{NAME} collect` records episodes",
    "chat": f"`{NAME} try MODEL SUITE` plays an episode",
    "merge": f"`{NAME} export RUN OUT` writes the model, with its adapters merged",
    "save": f"`{NAME} export RUN OUT` writes the model",
    "push": f"`{NAME} export RUN OUT --push OWNER/NAME` uploads the model",
    "plot": f"`{NAME} compare RUNS --plot FILE` draws curves, and `{NAME} view` shows them",
    "report": f"`{NAME} compare RUNS --out FILE` writes a table, and `{NAME} view RUN --html FILE` a page",
    "dashboard": f"`{NAME} view` shows runs in a browser",
    "ui": f"`{NAME} view` shows runs in a browser",
    "tensorboard": f"`{NAME} train FILE --sink tensorboard` writes its files",
    "info": f"`{NAME} doctor` shows what is installed",
    "env": f"`{NAME} doctor` shows what is installed, and `{NAME} envs` lists environments",
}
"""Commands of other tools -> what to type here."""

OPTIONS: Final = {
    "config": f"name the file without an option: `{NAME} train FILE`",
    "config_file": f"name the file without an option: `{NAME} train FILE`",
    "config_path": f"name the file without an option: `{NAME} train FILE`",
    "report_to": "--sink NAME sends a run's numbers to a tracker",
    "logger": "--sink NAME sends a run's numbers to a tracker",
    "wandb": "--sink wandb sends a run's numbers there",
    "tensorboard": "--sink tensorboard writes its files",
    "mlflow": "--sink mlflow sends a run's numbers there",
    "resume_from": "--resume continues from the last checkpoint",
    "verbose": "a run prints a line for every step, and --json one for every event",
    "gpus": "torchrun starts a process for each GPU: docs/scaling.md",
    "num_gpus": "torchrun starts a process for each GPU: docs/scaling.md",
    "num_processes": "torchrun starts several processes: docs/scaling.md",
    "nproc_per_node": "torchrun starts several processes: docs/scaling.md",
}
"""Options of other tools -> what to type here."""


def translated(given: Sequence[str], commands: Sequence[str]) -> list[str]:
    """The arguments with spellings that can only mean one thing replaced: `help COMMAND`, `version`,
    and settings before the file that they belong to."""
    if given[:1] == ["version"]:
        return ["--version"]
    if given[:1] == ["help"]:
        return [*(word for word in given[1:2] if word in commands), "--help"]
    if len(given) > 2 and _is_setting(given[1]):
        for k, word in enumerate(given[2:], 2):
            if word.endswith(".toml") and not _is_setting(word):
                return [given[0], word, *given[1:k], *given[k + 1 :]]
    return list(given)


def _is_setting(word: str) -> bool:
    return "=" in word and not word.startswith("-") and not Path(word).exists()


def command(name: str, commands: Sequence[str]) -> str:
    """The sentence about a command that does not exist."""
    if name.lower() in COMMANDS:
        return f"there is no command {name!r}; {COMMANDS[name.lower()]}"
    near = did_you_mean(name, commands) or ";"
    return f"there is no command {name!r}{near} `{NAME} --help` lists them"


def option(word: str, options: Sequence[str], places: Sequence[str]) -> str:
    """The sentence about an option that does not exist; empty where nothing can be said.

    options  those of the command, such as "--resume"
    places   names of its arguments without dashes, such as "file" and "overrides"
    """
    if not word.startswith("--") or len(word) == 2:
        return ""
    written, _, value = word[2:].partition("=")
    plain = written.lower().replace("-", "_")
    what = f"there is no option --{written}"
    if plain in OPTIONS:
        return f"{what}; {OPTIONS[plain]}"
    if plain in places:
        return f"{what}; it is written without one: `{NAME} COMMAND {plain.upper()}`"
    if "overrides" in places and (key := _key(plain)):
        shown = value if value and key == plain else "VALUE"
        return (
            f"{what}; settings are written after the file, without dashes and with an equals "
            f"sign: {key}={shown}"
        )
    if "overrides" in places and (instead := _note(plain)):
        return f"{what}{instead}"
    near = did_you_mean(f"--{written}", options)
    return f"{what}{near}" if near else ""


def _note(name: str) -> str:
    from tutelage.config.mistakes import note

    return note(name)


def _key(name: str) -> str:
    """The setting that a name means, here or in other tools; empty where there is none."""
    from tutelage.config.mistakes import elsewhere
    from tutelage.config.schema import leaves

    free = name.startswith(("algorithm.", "warm_start.", "env.options.", "policies."))
    if free or name in [leaf.key for leaf in leaves()]:
        return name
    return elsewhere(name.rpartition(".")[2])
