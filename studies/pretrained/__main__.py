"""The runs of real weights from the command line.

tutelage train studies/pretrained/cpu/sft.toml  a run on a CPU, resumable with --resume; the others after it
python -m studies.pretrained save             keep the evaluations of the runs that are there
python -m studies.pretrained plot             draw the page's curves
python -m studies.pretrained guess            a game of short turns on a CPU: what is not finished
python -m studies.pretrained household        household tasks in small rooms, likewise
python -m studies.pretrained whole            all layers on a GPU: SFT, GRPO, OPD and Guided-OPD
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studies import command, plan
from studies.pretrained import page, whole
from studies.pretrained.guess import play
from studies.pretrained.world import GUESS, WORLDS

FOLDER = Path("runs/study/pretrained")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies.pretrained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["save", "plot", "whole", *WORLDS])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="that holds the runs")
    parser.add_argument("--seconds", type=float, default=1e9, help="of `whole`; then it stops")
    parser.add_argument("--only", nargs="+", choices=whole.AFTER, default=list(whole.AFTER))
    parser.add_argument("--jobs", type=int, default=2, help="of a study: processes at a time")
    parser.add_argument("--method", action="append", default=[], help="of a study: only these")
    parser.add_argument(
        "--seed", action="append", default=[], type=int, help="of a study: only these"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings for `whole`")
    given = parser.parse_intermixed_args(argv)
    if given.command == "whole":
        where = whole.FOLDER if given.folder == FOLDER else given.folder
        return command.guarded(lambda: whole.run(given.seconds, given.overrides, where, given.only))
    if given.command in WORLDS:
        return command.guarded(lambda: _study(given.command, given.method, given.seed, given.jobs))
    return command.guarded(lambda: _work(given.command, given.folder))


def _study(name: str, methods: Sequence[str], seeds: Sequence[int], jobs: int) -> int:
    code = WORLDS[name].run(methods, seeds, jobs)
    if WORLDS[name] is GUESS:
        play.save(play.of_runs(plan.load(GUESS.study).runs))
    return code


def _work(wanted: str, folder: Path) -> int:
    if wanted == "plot":
        command.say(str(page.draw()))
        for world in (each for each in WORLDS.values() if each.results.exists()):
            command.say(str(world.draw()))
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
