"""The runs of real weights from the command line.

tutelage train studies/pretrained/cpu/sft.toml  a run on a CPU, resumable with --resume; the others after it
python -m studies.pretrained save             keep the evaluations of the runs that are there
python -m studies.pretrained plot             draw the page's curves
python -m studies.pretrained guess            a game of short turns on a CPU: what is not finished
python -m studies.pretrained whole            all layers on a GPU: SFT, GRPO, OPD and Guided-OPD
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studies import command
from studies.pretrained import page, whole
from studies.pretrained.guess import page as guessing

FOLDER = Path("runs/study/pretrained")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies.pretrained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["save", "plot", "whole", "guess"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="that holds the runs")
    parser.add_argument("--seconds", type=float, default=1e9, help="of `whole`; then it stops")
    parser.add_argument("--only", nargs="+", choices=whole.AFTER, default=list(whole.AFTER))
    parser.add_argument("--jobs", type=int, default=2, help="of `guess`: processes at a time")
    parser.add_argument("--method", action="append", default=[], help="of `guess`: only these")
    parser.add_argument(
        "--seed", action="append", default=[], type=int, help="of `guess`: only these"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings for `whole`")
    given = parser.parse_intermixed_args(argv)
    if given.command == "whole":
        where = whole.FOLDER if given.folder == FOLDER else given.folder
        return command.guarded(lambda: whole.run(given.seconds, given.overrides, where, given.only))
    if given.command == "guess":
        return command.guarded(lambda: guessing.run(given.method, given.seed, given.jobs))
    return command.guarded(lambda: _work(given.command, given.folder))


def _work(wanted: str, folder: Path) -> int:
    if wanted == "plot":
        command.say(str(page.draw()))
        command.say(str(guessing.draw()))
        return 0
    there = [name for name in page.TITLES if page.has_evaluations(folder / name)]
    if not there:
        command.say(
            f"there are no runs in {folder}; `tutelage train studies/pretrained/cpu/sft.toml`"
        )
        return 1
    for name in there:
        page.save(page.of_run(name, folder / name))
    command.say(page.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
