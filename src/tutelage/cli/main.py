"""The command line: the table of commands with their options, and the entry point `main`.

Nothing heavy is imported here, so that help and error messages appear at once. `commands` holds
what each command does; it is imported when one runs.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import NamedTuple

from tutelage import __version__
from tutelage.cli.imports import Interrupts, interruptible
from tutelage.cpu import wait_passively
from tutelage.errors import NAME, Elsewhere, TutelageError, did_you_mean

INTERRUPTED, WRONG, FAILED = 130, 2, 1
"""Exit codes."""
REFUSALS = "EACCES EDQUOT EFBIG EIO EMFILE ENAMETOOLONG ENOSPC EPERM EROFS"
DISK = {getattr(errno, name) for name in REFUSALS.split() if hasattr(errno, name)}
"""Errors of the operating system that a user can fix."""
HOMELESS = ("completion",)
"""Commands that need no working folder: a shell may run them wherever it starts."""


class Command(NamedTuple):
    """A command: its line in the help, and the function that adds its options. `commands.NAME` runs
    it, with an underscore at the end of a name that is a keyword of Python."""

    summary: str
    options: Callable[[argparse.ArgumentParser], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 130 interrupted
    (143 by SIGTERM, 129 by SIGHUP).

    Every failure that a user can fix is one sentence on stderr.
    """
    wait_passively()
    _open_streams()
    _set_console()
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        parser().print_help()
        return 0
    if not given[0].startswith("-") and given[0] not in COMMANDS:
        near = did_you_mean(given[0], COMMANDS) or ";"
        return say(f"there is no command {given[0]!r}{near} `{NAME} --help` lists them", WRONG)
    arguments = parsed(given)
    if arguments.command not in HOMELESS and (reason := _lost_folder()):
        return say(reason, WRONG)
    asked = Interrupts()
    try:
        name = arguments.command.replace("-", "_")
        name += "_" * iskeyword(name)
        with interruptible(f"{NAME}: stopped", asked):
            run = getattr(import_module("tutelage.cli.commands"), name)
            code: int = run(arguments)
        sys.stdout.flush()
        return asked.code if code == INTERRUPTED else code
    except Elsewhere:
        return WRONG
    except TutelageError as error:
        return say(str(error), WRONG)
    except KeyboardInterrupt:
        return say("stopped", asked.code)
    except BrokenPipeError:
        leave_output()  # its reader has closed it
        return FAILED
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = str(error.filename)[:200] if error.filename is not None else "the output"
        return say(f"{where} cannot be read or written ({error.strerror})", FAILED)


def _lost_folder() -> str:
    """A sentence where the working folder was deleted, in which torch's libraries cannot be loaded;
    empty if it is there."""
    try:
        os.getcwd()
    except OSError as error:
        return (
            f"the working folder cannot be found ({error.strerror}), it was deleted or moved; change "
            "into one that exists (`cd`), and start the command again"
        )
    return ""


def leave_output() -> None:
    """Write nothing more to stdout, which cannot be written; Python would report it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr (`>&-`) empty ones: the next
    files that it opens would take their numbers, and whatever is printed would go into these."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = ("stdin", "stdout", "stderr").index(name)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _set_console() -> None:
    """Let what is printed never fail for where it goes.

    A pipe on Windows, a container or PYTHONIOENCODING may have an encoding without ticks and
    frames: a question mark is written instead. A job without a terminal may have one of 0 columns,
    in which tables are empty: the usual 80 are taken.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip().lstrip("0"):
            del os.environ[name]


def say(text: str, code: int) -> int:
    """Print a sentence to stderr and return the exit code."""
    print(f"{NAME}: {text}", file=sys.stderr)
    return code


SHARDED = "--sharded"


def parsed(given: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments. Settings may come before and after options, which argparse does not
    allow; nor does it let a file or a setting follow an option whose value may be left out."""
    every = parser()
    bare = [k for k, x in enumerate(given) if x == SHARDED and given[k + 1 : k + 2] != ["always"]]
    given = [f"{x}=update" if k in bare else x for k, x in enumerate(given)]
    given = [x for k, x in enumerate(given) if not (x == "update" and k - 1 in bare)]
    arguments, rest = every.parse_known_args(given)
    settings = getattr(arguments, "overrides", getattr(arguments, "options", None))
    wrong = [text for text in rest if text.startswith("-") or "=" not in text]
    if settings is None:
        wrong = rest
    if wrong:
        every.error(f"unrecognized arguments: {' '.join(wrong)}")
    if settings is not None:
        settings.extend(rest)
    return arguments


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


# -- options of several commands


def _file(p: argparse.ArgumentParser, *, optional: str = "") -> None:
    text = optional or "a TOML file, or the folder of a run"
    if optional:
        p.add_argument("file", metavar="FILE", type=_path, nargs="?", help=text)
    else:
        p.add_argument("file", metavar="FILE", type=_path, help=text)
    p.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings that replace those of the file, such as update.lr=1e-5",
    )
    _trust(p)


def _trust(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--trust",
        action="store_true",
        help="run code that a file or run of another user names",
    )


def _checkpoint(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--checkpoint",
        default="",
        metavar="NAME",
        help="a checkpoint of the run, such as step-000100 (default: the last)",
    )


def _sink(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--sink",
        action="append",
        default=[],
        choices=["tensorboard", "wandb", "mlflow", "trackio"],
        help="also send the run's numbers there; repeat for several",
    )


# -- options of each command


def _init(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "suite",
        metavar="SUITE",
        nargs="?",
        default="household",
        help='a built-in suite, or your own class as "package.module:Class" (default: household)',
    )
    p.add_argument(
        "file",
        metavar="FILE",
        type=_path,
        nargs="?",
        help="the new file (default: named after the suite)",
    )
    p.add_argument(
        "--model", default="", help='the student: a folder, a hub id, a run, or "builtin:NAME"'
    )
    p.add_argument("--algorithm", default="grpo", help="see `tutelage algorithms` (default: grpo)")


def _path(text: str) -> Path:
    return Path(_filled(text))


def _filled(text: str) -> str:
    """A path, or what else is not empty. An empty path, as of a variable of the shell that is not set,
    would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a file or a folder")
    return text


def _gigabytes(text: str) -> float:
    """GB of memory, more than none."""
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB, such as 80")
    return size


def _ranks(text: str) -> int:
    """A number of ranks, at least one."""
    if not text.isdecimal() or not 0 < int(text) < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of ranks, such as 8")
    return int(text)


def _train(p: argparse.ArgumentParser) -> None:
    _file(p)
    p.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    p.add_argument(
        "--dry-run", action="store_true", help="check everything and show the plan; train nothing"
    )
    p.add_argument(
        "--gpu",
        type=_gigabytes,
        default=0.0,
        metavar="GB",
        help="with --dry-run: plan for one GPU of so many GB instead of this machine",
    )
    p.add_argument(
        SHARDED,
        nargs="?",
        const="update",
        default="no",
        choices=("update", "always"),
        metavar="WHEN",
        help="divide the student's layers over the ranks of torchrun (FSDP2): in each `update` (if "
        "WHEN is left out), or `always`, while servers sample",
    )
    p.add_argument(
        "--cluster",
        default="",
        metavar="ADDRESS",
        help="train on a Ray cluster: HOST:PORT, auto (the one this machine belongs to) or local",
    )
    p.add_argument(
        "--ranks",
        type=_ranks,
        default=0,
        metavar="N",
        help="with --cluster: processes that share the run (default: one for each GPU, else 1)",
    )
    p.add_argument("--quiet", action="store_true", help="print notes only")
    p.add_argument("--json", action="store_true", help="print a line of JSON for every event")
    _sink(p)


def _eval(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "model",
        metavar="MODEL",
        help='a folder, a hub id, the folder of a run, "builtin:NAME", a TOML file, or the address '
        "of an OpenAI-compatible server, http://HOST:PORT/v1#NAME",
    )
    p.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="SUITE key=value",
        help="the suite to play (a run and a TOML file have their own), then settings such as "
        "env.options.size=small",
    )
    p.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME",
        help="the policy that plays: student (default), expert, or one of [policies]; repeat to "
        "compare",
    )
    _trust(p)
    p.add_argument("--tasks", type=int, metavar="N", help="number of tasks (default: eval.tasks)")
    p.add_argument("--split", help="the split (default: eval.split, or the suite's test split)")
    p.add_argument(
        "--temperature", type=float, metavar="T", help="sampling temperature; 0 is greedy"
    )
    p.add_argument(
        "--panel",
        metavar="NAME",
        help="a list of tasks that everybody can name, or its file (`tutelage envs SUITE` lists them)",
    )
    p.add_argument(
        "--repeats", type=int, default=1, metavar="N", help="episodes of every task (default: 1)"
    )
    p.add_argument(
        "--key",
        default="",
        metavar="VARIABLE",
        help="the environment variable with the key of the server",
    )
    _checkpoint(p)
    p.add_argument(
        "--out",
        type=_path,
        metavar="FOLDER",
        help="a new folder for the results, a row per task, and the transcripts; a killed "
        "evaluation goes on when its command is repeated",
    )
    p.add_argument("--json", action="store_true", help="print one line of JSON per policy instead")


def _try(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "model",
        metavar="MODEL",
        type=_filled,
        help='a folder, a hub id, the folder of a run, "builtin:NAME", "wheel:NAME", a TOML file, or '
        "the address of an OpenAI-compatible server, http://HOST:PORT/v1#NAME",
    )
    p.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="SUITE key=value",
        help="the suite to play (a run and a TOML file have their own), then settings such as "
        "context.render=actions",
    )
    _trust(p)
    p.add_argument("--task", default="", metavar="ID", help="the task (default: the split's first)")
    p.add_argument("--split", help="the split (default: eval.split, or the suite's test split)")
    p.add_argument(
        "--temperature", type=float, metavar="T", help="sampling temperature; 0 is greedy"
    )
    p.add_argument("--expert", action="store_true", help="let the suite's expert play")
    _checkpoint(p)


def _collect(p: argparse.ArgumentParser) -> None:
    _file(p)
    p.add_argument(
        "--policy",
        default="expert",
        metavar="NAME",
        help="the policy that plays: expert (default), student, or one of [policies]",
    )
    p.add_argument(
        "--episodes", type=int, default=100, metavar="N", help="number of episodes (default: 100)"
    )
    p.add_argument(
        "--out",
        type=_path,
        default=Path("episodes.jsonl"),
        metavar="FILE",
        help="the new file (default: episodes.jsonl)",
    )
    p.add_argument("--thoughts", action="store_true", help="include the expert's thoughts")
    p.add_argument("--all", action="store_true", help="write lost episodes too")
    _checkpoint(p)


def _export(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="RUN", type=_path, help="the folder of a run")
    p.add_argument("out", metavar="OUT", type=_path, help="the new folder for the model")
    _checkpoint(p)
    p.add_argument(
        "--adapters",
        action="store_true",
        help="write low-rank adapters as they are, instead of merged into the weights",
    )
    p.add_argument(
        "--eval",
        type=_path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="results of `tutelage eval --out` for the model card; repeat for several",
    )
    p.add_argument(
        "--gguf",
        default="",
        metavar="TYPE",
        help="also write a GGUF file of this type, such as f16, by llama.cpp's converter",
    )
    p.add_argument(
        "--push", default="", metavar="OWNER/NAME", help="then upload it to a hub; private if new"
    )


def _send(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="RUN", type=_path, help="the folder of a run")
    _sink(p)


def _demo(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--folder", type=_path, default=Path("runs/demo"), help="output folder (default: runs/demo)"
    )
    p.add_argument("--seed", type=int, default=0, help="seed of all runs (default: 0)")
    p.add_argument(
        "--quick",
        action="store_true",
        help="two training steps only, as a quick check",
    )


def _envs(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", metavar="NAME", nargs="?", help="show this suite and its options")


def _algorithms(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "name", metavar="NAME", nargs="?", help="show this algorithm: formula, settings, example"
    )


def _examples(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", metavar="NAME", nargs="?", help="print this example")
    p.add_argument("--copy", type=_path, metavar="DIR", help="copy it into this folder instead")


def _doctor(p: argparse.ArgumentParser) -> None:
    _file(p, optional="check only what this TOML file or run needs, and how the run learnt")
    p.add_argument(
        "--torch",
        action="store_true",
        help="also import torch and show its devices, which takes seconds",
    )


def _serve(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "model", metavar="MODEL", help='a folder, a hub id, the folder of a run, or "builtin:NAME"'
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    p.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    p.add_argument("--name", help="the model's name in requests (default: MODEL)")
    p.add_argument("--device", default="auto", help='"cpu", "cuda" or "auto" (the default)')
    p.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="dtype of activations (default: float32)",
    )
    p.add_argument(
        "--key",
        default="",
        metavar="VARIABLE",
        help="the environment variable with the key that clients must send",
    )
    p.add_argument(
        "--reload",
        action="store_true",
        help="let clients load new weights from folders of this machine",
    )


def _convert(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "source", metavar="SOURCE", type=_path, help="the folder of a run, or a file of episodes"
    )
    p.add_argument("out", metavar="OUT", type=_path, help="the new file, a line for each episode")
    p.add_argument(
        "--to",
        choices=["atif", "messages", "parquet", "inspect", "episodes"],
        required=True,
        help="atif: ATIF v1.8 trajectories; messages: OpenAI's chat messages; parquet: a table of both "
        "messages and ids; inspect: a log of Inspect; episodes: read any of these",
    )
    p.add_argument(
        "--tokenizer",
        default="",
        metavar="MODEL",
        help="with --to episodes: the student's model, in whose ids conversations are written",
    )
    p.add_argument("--won", action="store_true", help="only won episodes")


def _compare(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folders", metavar="RUN", type=_path, nargs="+", help="runs, or folders with runs"
    )
    p.add_argument(
        "--baseline", default="", metavar="METHOD", help="compare with this (default: the first)"
    )
    p.add_argument(
        "--last",
        type=int,
        default=1,
        metavar="N",
        help="take the mean of each run's last N evaluations (default: 1)",
    )
    p.add_argument(
        "--reach",
        type=float,
        metavar="RATE",
        help="compare the cost of reaching this success rate (default: the baseline's)",
    )
    p.add_argument(
        "--format",
        choices=["text", "markdown", "csv", "latex"],
        default="text",
        help="output format (default: text)",
    )
    p.add_argument(
        "--out", type=_path, metavar="FILE", help="write it instead: FILE.md, FILE.csv or FILE.tex"
    )
    p.add_argument(
        "--plot", type=_path, metavar="FILE", help="draw success by step: FILE.png, .svg or .pdf"
    )
    p.add_argument(
        "--by",
        choices=["steps", "episodes", "tokens", "seconds"],
        default="steps",
        help="with --plot: what success is drawn against (default: steps)",
    )


def _power(p: argparse.ArgumentParser) -> None:
    p.add_argument("--tasks", type=int, required=True, metavar="N", help="tasks of the panel")
    p.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs of each method (default: 1)"
    )
    p.add_argument(
        "--rate",
        type=float,
        default=0.5,
        metavar="P",
        help="success rate of both methods, about (default: 0.5, the hardest case)",
    )
    p.add_argument(
        "--alike",
        type=float,
        default=0.0,
        metavar="R",
        help="correlation of two runs' outcomes over tasks (default: 0, the hardest case)",
    )
    p.add_argument(
        "--seed-sd",
        type=float,
        default=0.0,
        metavar="SD",
        help="standard deviation of success from seed to seed (default: 0)",
    )
    p.add_argument(
        "--difference",
        type=float,
        metavar="D",
        help="compute the tasks and seeds for this difference",
    )


def _runs(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folders",
        metavar="FOLDER",
        type=_path,
        nargs="*",
        default=[Path("runs")],
        help="folders with runs (default: runs)",
    )
    p.add_argument("--json", action="store_true", help="print one line of JSON per run instead")


def _show(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="RUN", type=_path, help="the folder of a run or evaluation")
    p.add_argument("--episode", type=int, metavar="N", help="print this episode in full")
    p.add_argument(
        "--colour", default="", metavar="SIGNAL", help="colour its tokens by a recorded signal"
    )
    p.add_argument("--text", default="", metavar="WORDS", help="only episodes that contain these")
    p.add_argument("--won", action="store_true", help="only episodes that were won")
    p.add_argument("--lost", action="store_true", help="only episodes that were lost")
    p.add_argument("--step", type=int, metavar="N", help="only episodes of this step")
    p.add_argument(
        "--limit", type=int, default=20, metavar="N", help="episodes to list (default: 20)"
    )
    p.add_argument("--json", action="store_true", help="print JSON instead")


def _view(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folders",
        metavar="RUN",
        type=_path,
        nargs="+",
        help="runs or evaluations, or folders that contain some",
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    p.add_argument("--port", type=int, default=8765, help="port to listen on (default: 8765)")
    p.add_argument(
        "--html", type=_path, metavar="FILE", help="write one self-contained page and exit"
    )
    p.add_argument(
        "--episodes",
        type=int,
        default=200,
        metavar="N",
        help="with --html: number of newest episodes of each run (default: 200)",
    )


def _bench(p: argparse.ArgumentParser) -> None:
    _file(p, optional="a TOML file, or the folder of a run (default: the demo's OPD run)")
    p.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long to measure, after the models are loaded (default: 60)",
    )


def _plan(p: argparse.ArgumentParser) -> None:
    _file(p)
    p.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long to measure, after the models are loaded (default: 60)",
    )
    p.add_argument(
        "--gpu",
        type=_gigabytes,
        default=0.0,
        metavar="GB",
        help="plan the memory of a GPU of so many GB instead of this machine",
    )
    p.add_argument(
        "--link",
        type=_gigabytes,
        default=0.0,
        metavar="GB/S",
        help="between cards of a machine (default: 20; 1 between processes on a CPU)",
    )
    p.add_argument(
        "--network",
        type=_gigabytes,
        default=0.0,
        metavar="GB/S",
        help="of a machine to the others (default: 12.5)",
    )
    p.add_argument("--json", action="store_true", help="print one object of JSON instead")


def _check_env(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "suite", metavar="SUITE", help='your class as "package.module:Class", or a built-in suite'
    )
    p.add_argument(
        "options", nargs="*", default=[], metavar="key=value", help="options of the suite"
    )
    p.add_argument("--split", action="append", default=[], help="a split to check (default: all)")
    p.add_argument(
        "--tasks", type=int, default=5, metavar="N", help="tasks to play per split (default: 5)"
    )
    p.add_argument(
        "--seconds", type=float, metavar="S", help="time limit of each call (default: 60)"
    )


def _check_agent(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "run", metavar="RUN", help='your agent as "package.module:function", or a command'
    )
    p.add_argument(
        "options",
        nargs="*",
        default=[],
        metavar="key=value",
        help="options of the suite agent, such as tasks=mine:tasks",
    )
    p.add_argument("--split", default="train", help="the split of its tasks (default: train)")
    p.add_argument("--tasks", type=int, default=3, metavar="N", help="tasks to run (default: 3)")
    p.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="time that it may take between two calls (default: 60)",
    )


def _completion(p: argparse.ArgumentParser) -> None:
    p.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell to complete in")


COMMANDS = {
    "init": Command("Write a training file for a suite or for your own environment.", _init),
    "train": Command("Train from a TOML file.", _train),
    "eval": Command("Measure the success rate of a model, with confidence intervals.", _eval),
    "try": Command("Play one episode and show every turn as the model sees it.", _try),
    "collect": Command("Record episodes to imitate (setting rollout.replay).", _collect),
    "export": Command("Write the trained model of a run as a Hugging Face folder.", _export),
    "convert": Command("Convert episodes to and from the formats of other tools.", _convert),
    "send": Command("Send a run's numbers to TensorBoard, W&B, MLflow or trackio.", _send),
    "compare": Command("Compare runs on the same tasks, with confidence intervals.", _compare),
    "power": Command("Compute the difference that a number of tasks and seeds can detect.", _power),
    "runs": Command("List runs with their state, progress and last evaluation.", _runs),
    "show": Command("Print episodes of a run on the terminal.", _show),
    "view": Command("Show runs in a browser: curves, episodes, coloured tokens.", _view),
    "demo": Command("Train a small agent with a teacher, in a few minutes on a CPU.", _demo),
    "examples": Command("List the example files, print one, or copy one.", _examples),
    "envs": Command("List the suites of environments, or show one with its options.", _envs),
    "algorithms": Command("List the algorithms, or show one with its settings.", _algorithms),
    "check-env": Command("Test an environment against the interface.", _check_env),
    "check-agent": Command("Test an agent of your own against what it promises.", _check_agent),
    "bench": Command("Measure how long a training step takes here, and its bottleneck.", _bench),
    "plan": Command("Say what a file takes on one card and on many: memory, time, cost.", _plan),
    "serve": Command("Serve a model over HTTP, as a teacher for other machines.", _serve),
    "doctor": Command("Show what is installed, what is missing and how to install it.", _doctor),
    "completion": Command("Print a script that completes commands in your shell.", _completion),
}


if __name__ == "__main__":
    sys.exit(main())
