"""The table of commands with their options, and how arguments are read."""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tutelage import __version__
from tutelage.cli import habits
from tutelage.cli import run_options as run
from tutelage.cli import tool_options as tool
from tutelage.cli.shared_options import SHARDED
from tutelage.errors import NAME, ConfigError


class Command(NamedTuple):
    """A command: its line in the help, and the function that adds its options. `commands.NAME` runs
    it, with an underscore at the end of a name that is a keyword of Python."""

    summary: str
    options: Callable[[argparse.ArgumentParser], None]


COMMANDS = {
    "init": Command("Write a training file for a suite or for your own environment.", run.init),
    "train": Command("Train from a TOML file.", run.train),
    "eval": Command("Measure the success rate of a model, with confidence intervals.", run.eval_),
    "try": Command("Play one episode and show every turn as the model sees it.", run.try_),
    "collect": Command("Record episodes to imitate (setting rollout.replay).", run.collect),
    "export": Command("Write the trained model of a run as a Hugging Face folder.", run.export),
    "convert": Command("Convert episodes to and from the formats of other tools.", run.convert),
    "send": Command("Send a run's numbers to TensorBoard, W&B, MLflow or trackio.", run.send),
    "compare": Command("Compare runs on the same tasks, with confidence intervals.", tool.compare),
    "power": Command(
        "Compute the difference that a number of tasks and seeds can detect.", tool.power
    ),
    "runs": Command("List runs with their state, progress and last evaluation.", tool.runs),
    "show": Command("Print episodes of a run on the terminal.", tool.show),
    "view": Command("Show runs in a browser: curves, episodes, coloured tokens.", tool.view),
    "demo": Command("Train a small agent with a teacher, in a few minutes on a CPU.", tool.demo),
    "examples": Command("List the example files, print one, or copy one.", tool.examples),
    "envs": Command("List the suites of environments, or show one with its options.", tool.envs),
    "algorithms": Command("List the algorithms, or show one with its settings.", tool.algorithms),
    "check-env": Command("Test an environment against the interface.", tool.check_env),
    "check-agent": Command("Test an agent of your own against what it promises.", tool.check_agent),
    "bench": Command("Measure how long a training step takes here, and its bottleneck.", run.bench),
    "plan": Command("Say what a file takes on one card and on many: memory, time, cost.", run.plan),
    "serve": Command("Serve a model over HTTP, as a teacher for other machines.", run.serve),
    "doctor": Command(
        "Show what is installed, what is missing and how to install it.", tool.doctor
    ),
    "completion": Command("Print a script that completes commands in your shell.", tool.completion),
}


def parsed(given: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments. Settings may come before and after options, which argparse does not
    allow; nor does it let a file or a setting follow an option whose value may be left out. Raises
    ConfigError for an option of another tool, with what to write here."""
    every = parser()
    bare = [k for k, x in enumerate(given) if x == SHARDED and given[k + 1 : k + 2] != ["always"]]
    given = [f"{x}=update" if k in bare else x for k, x in enumerate(given)]
    given = [x for k, x in enumerate(given) if not (x == "update" and k - 1 in bare)]
    arguments, rest = every.parse_known_args(given)
    settings = getattr(arguments, "overrides", getattr(arguments, "options", None))
    wrong = [text for text in rest if text.startswith("-") or "=" not in text]
    if settings is None:
        wrong = rest
    for text in wrong:
        if sentence := habits.option(text, *_names(arguments.command)):
            raise ConfigError(sentence)
    if wrong:
        every.error(f"unrecognized arguments: {' '.join(wrong)}")
    if settings is not None:
        settings.extend(rest)
    return arguments


def _names(command: str) -> tuple[list[str], list[str]]:
    """The long options of a command, and the names of its other arguments."""
    one = argparse.ArgumentParser(add_help=False)
    COMMANDS[command].options(one)
    every = one._actions
    long = [text for action in every for text in action.option_strings if text[1] == "-"]
    return long, [action.dest for action in every if not action.option_strings]


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    every = argparse.ArgumentParser(
        prog=NAME,
        description="Train small language-model agents over many turns, by distillation from a "
        "teacher and by reinforcement learning.",
    )
    every.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = every.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.summary, description=command.summary)
        command.options(one)
    return every
