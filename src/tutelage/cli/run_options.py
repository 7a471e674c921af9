"""Options of the commands that make runs, play, and hand models on."""

import argparse
from pathlib import Path

from tutelage.cli import shared_options as shared


def init(p: argparse.ArgumentParser) -> None:
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
        type=shared.path,
        nargs="?",
        help="the new file (default: named after the suite)",
    )
    p.add_argument(
        "--model", default="", help='the student: a folder, a hub id, a run, or "builtin:NAME"'
    )
    p.add_argument("--algorithm", default="grpo", help="see `tutelage algorithms` (default: grpo)")


def train(p: argparse.ArgumentParser) -> None:
    shared.training_file(p)
    p.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    p.add_argument(
        "--dry-run", action="store_true", help="check everything and show the plan; train nothing"
    )
    p.add_argument(
        "--gpu",
        type=shared.gigabytes,
        default=0.0,
        metavar="GB",
        help="with --dry-run: plan for one GPU of so many GB instead of this machine",
    )
    p.add_argument(
        shared.SHARDED,
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
        type=shared.ranks,
        default=0,
        metavar="N",
        help="with --cluster: processes that share the run (default: one for each GPU, else 1)",
    )
    p.add_argument("--quiet", action="store_true", help="print notes only")
    p.add_argument("--json", action="store_true", help="print a line of JSON for every event")
    shared.sink(p)


def eval_(p: argparse.ArgumentParser) -> None:
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
    shared.trust(p)
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
    shared.checkpoint(p)
    p.add_argument(
        "--out",
        type=shared.path,
        metavar="FOLDER",
        help="a new folder for the results, a row per task, and the transcripts; a killed "
        "evaluation goes on when its command is repeated",
    )
    p.add_argument("--json", action="store_true", help="print one line of JSON per policy instead")


def try_(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "model",
        metavar="MODEL",
        type=shared.filled,
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
    shared.trust(p)
    p.add_argument("--task", default="", metavar="ID", help="the task (default: the split's first)")
    p.add_argument("--split", help="the split (default: eval.split, or the suite's test split)")
    p.add_argument(
        "--temperature", type=float, metavar="T", help="sampling temperature; 0 is greedy"
    )
    p.add_argument("--expert", action="store_true", help="let the suite's expert play")
    shared.checkpoint(p)


def collect(p: argparse.ArgumentParser) -> None:
    shared.training_file(p)
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
        type=shared.path,
        default=Path("episodes.jsonl"),
        metavar="FILE",
        help="the new file (default: episodes.jsonl)",
    )
    p.add_argument("--thoughts", action="store_true", help="include the expert's thoughts")
    p.add_argument("--all", action="store_true", help="write lost episodes too")
    shared.checkpoint(p)


def export(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="RUN", type=shared.path, help="the folder of a run")
    p.add_argument("out", metavar="OUT", type=shared.path, help="the new folder for the model")
    shared.checkpoint(p)
    p.add_argument(
        "--adapters",
        action="store_true",
        help="write low-rank adapters as they are, instead of merged into the weights",
    )
    p.add_argument(
        "--eval",
        type=shared.path,
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


def send(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="RUN", type=shared.path, help="the folder of a run")
    shared.sink(p)


def convert(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "source",
        metavar="SOURCE",
        type=shared.path,
        help="the folder of a run, or a file of episodes",
    )
    p.add_argument(
        "out", metavar="OUT", type=shared.path, help="the new file, a line for each episode"
    )
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


def bench(p: argparse.ArgumentParser) -> None:
    shared.training_file(
        p, optional="a TOML file, or the folder of a run (default: the demo's OPD run)"
    )
    p.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long to measure, after the models are loaded (default: 60)",
    )


def plan(p: argparse.ArgumentParser) -> None:
    shared.training_file(p)
    p.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long to measure, after the models are loaded (default: 60)",
    )
    p.add_argument(
        "--gpu",
        type=shared.gigabytes,
        default=0.0,
        metavar="GB",
        help="plan the memory of a GPU of so many GB instead of this machine",
    )
    p.add_argument(
        "--link",
        type=shared.gigabytes,
        default=0.0,
        metavar="GB/S",
        help="between cards of a machine (default: 20; 1 between processes on a CPU)",
    )
    p.add_argument(
        "--network",
        type=shared.gigabytes,
        default=0.0,
        metavar="GB/S",
        help="of a machine to the others (default: 12.5)",
    )
    p.add_argument("--json", action="store_true", help="print one object of JSON instead")


def serve(p: argparse.ArgumentParser) -> None:
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
