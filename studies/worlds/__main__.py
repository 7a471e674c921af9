"""Learning curves of five suites: a warm start by imitation, and methods that continue from it.

python -m studies.worlds run [WORLD ...]     run what is not finished, then write WORLD.json
python -m studies.worlds status [WORLD ...]  what is finished, how far the others are
python -m studies.worlds render              all WORLD.json -> docs/environments/learning.md
python -m studies.worlds smoke [WORLD ...]   a few steps of every world's examples, household's
                                             too, in minutes

Each world is a study like that of the household tasks (studies/plan.py says how its file is read),
with a page of its own kind.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from studies import command, plan
from studies.worlds import HERE, WORLDS, results_file, study_file

DOCS = Path("docs/environments")
EXAMPLES = HERE.parents[1] / "examples"
SMOKED = ("household", *WORLDS, "bfcl", "textworldexpress")
"""Worlds with examples to try; the household's learning curves are a study of their own."""
SHORT = (
    "run.steps=3",
    "eval.every=3",
    "run.checkpoint_every=3",
    "rollout.tasks_per_step=2",
    "eval.tasks=8",
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies.worlds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["run", "status", "render", "smoke"])
    parser.add_argument("worlds", nargs="*", metavar="WORLD", help=f"of {', '.join(SMOKED)}")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, a thread each")
    parser.add_argument("--seed", action="append", default=[], type=int, help="only these")
    parser.add_argument("--out", type=Path, default=DOCS, help=f"folder of the page ({DOCS})")
    given = parser.parse_args(argv)
    known = SMOKED if given.command == "smoke" else WORLDS
    if unknown := set(given.worlds) - set(known):
        parser.error(f"there is no world {min(unknown)!r}; there are {', '.join(known)}")
    return command.guarded(lambda: _done(given, given.worlds or known))


def _done(given: argparse.Namespace, worlds: Sequence[str]) -> int:
    if given.command == "render":
        from studies.worlds import page

        command.say(f"written: {page.render(given.out)}")
        return 0
    if given.command == "smoke":
        return max(smoke(world) for world in worlds)
    codes = []
    for world in worlds:
        study = plan.load(study_file(world))
        runs = study.only(seeds=given.seed)
        if given.command == "status":
            command.say(world)
            codes.append(command.status(study, runs))
        else:
            codes.append(command.run(study, runs, results_file(world), jobs=given.jobs))
    return max(codes)


def smoke(world: str) -> int:
    """Train for a few steps as the world's examples say; the worst exit code."""
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind, more in {
            "sft": (),
            "grpo": ("warm_start.steps=3", "rollout.group_size=2"),
        }.items():
            file = EXAMPLES / f"{world}_{kind}.toml"
            settings = [*SHORT, *more, f"run.folder={folder}/{kind}"]
            train = [sys.executable, "-m", "tutelage", "train", str(file), *settings]
            code = subprocess.run(train, check=False).returncode
            command.say(f"{world} {kind}: {'trained' if code == 0 else f'exit {code}'}")
            worst = max(worst, abs(code))
    return worst


if __name__ == "__main__":
    sys.exit(main())
