"""Options of the commands that show, compare, check and list."""

import argparse
from pathlib import Path

from tutelage.cli import shared_options as shared


def compare(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folders", metavar="RUN", type=shared.path, nargs="+", help="runs, or folders with runs"
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
        "--out",
        type=shared.path,
        metavar="FILE",
        help="write it instead: FILE.md, FILE.csv or FILE.tex",
    )
    p.add_argument(
        "--plot",
        type=shared.path,
        metavar="FILE",
        help="draw success by step: FILE.png, .svg or .pdf",
    )
    p.add_argument(
        "--by",
        choices=["steps", "episodes", "tokens", "seconds"],
        default="steps",
        help="with --plot: what success is drawn against (default: steps)",
    )


def power(p: argparse.ArgumentParser) -> None:
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


def runs(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folders",
        metavar="FOLDER",
        type=shared.path,
        nargs="*",
        default=[Path("runs")],
        help="folders with runs (default: runs)",
    )
    p.add_argument("--json", action="store_true", help="print one line of JSON per run instead")


def show(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folder", metavar="RUN", type=shared.path, help="the folder of a run or evaluation"
    )
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


def view(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folders",
        metavar="RUN",
        type=shared.path,
        nargs="+",
        help="runs or evaluations, or folders that contain some",
    )
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    p.add_argument("--port", type=int, default=8765, help="port to listen on (default: 8765)")
    p.add_argument(
        "--html", type=shared.path, metavar="FILE", help="write one self-contained page and exit"
    )
    p.add_argument(
        "--episodes",
        type=int,
        default=200,
        metavar="N",
        help="with --html: number of newest episodes of each run (default: 200)",
    )


def demo(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--folder",
        type=shared.path,
        default=Path("runs/demo"),
        help="output folder (default: runs/demo)",
    )
    p.add_argument("--seed", type=int, default=0, help="seed of all runs (default: 0)")
    p.add_argument(
        "--quick",
        action="store_true",
        help="two training steps only, as a quick check",
    )


def examples(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", metavar="NAME", nargs="?", help="print this example")
    p.add_argument(
        "--copy", type=shared.path, metavar="DIR", help="copy it into this folder instead"
    )


def envs(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", metavar="NAME", nargs="?", help="show this suite and its options")


def algorithms(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "name", metavar="NAME", nargs="?", help="show this algorithm: formula, settings, example"
    )


def check_env(p: argparse.ArgumentParser) -> None:
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


def check_agent(p: argparse.ArgumentParser) -> None:
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


def doctor(p: argparse.ArgumentParser) -> None:
    shared.training_file(
        p, optional="check only what this TOML file or run needs, and how the run learnt"
    )
    p.add_argument(
        "--torch",
        action="store_true",
        help="also import torch and show its devices, which takes seconds",
    )


def completion(p: argparse.ArgumentParser) -> None:
    p.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell to complete in")
