"""The study from the command line.

python -m studies.household run       run what is not finished, then write results.json
python -m studies.household status    what is finished, how far the others are
python -m studies.household render    results.json -> docs/studies/household.md and its pictures
python -m studies.household smoke     all of it in a few minutes, killed once on the way
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from studies import command, plan, results
from studies.household import RESULTS, STUDY
from studies.plan import Run, Study
from tutelage.errors import ConfigError

DOCS = Path("docs/studies")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return command.guarded(lambda: int(arguments.command(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.household",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run what is not finished")
    run.set_defaults(command=_run)
    run.add_argument("--jobs", type=int, default=2, help="processes at a time, a thread each (2)")
    status = commands.add_parser("status", help="what is finished")
    status.set_defaults(command=_status)
    for one in (run, status):
        one.add_argument("--group", action="append", default=[], help="only these; again for more")
        one.add_argument("--method", action="append", default=[])
        one.add_argument("--seed", action="append", default=[], type=int)
    render = commands.add_parser("render", help="make the page from the results")
    render.set_defaults(command=_render)
    render.add_argument("--out", type=Path, default=DOCS, help=f"folder of the page ({DOCS})")
    smoke = commands.add_parser("smoke", help="try everything, in minutes")
    smoke.set_defaults(command=_smoke)
    for one in (run, status, render):
        one.add_argument("--study", type=Path, default=STUDY, help="another study.toml")
        one.add_argument("--folder", type=Path, help="of the runs (default: study.folder)")
        one.add_argument("--results", type=Path, default=RESULTS, help="the results' file")
        one.add_argument("--over", default="", help="a table that is put over every run: smoke")
    smoke.add_argument("--folder", type=Path, help="where (default: a temporary folder)")
    return parser


def _study(arguments: argparse.Namespace) -> Study:
    if arguments.over and arguments.results == RESULTS:
        raise ConfigError("--over makes another study; give it its own --results and --folder")
    return plan.load(arguments.study, folder=arguments.folder, over=arguments.over)


def _wanted(study: Study, arguments: argparse.Namespace) -> list[Run]:
    return study.only(groups=arguments.group, methods=arguments.method, seeds=arguments.seed)


def _run(arguments: argparse.Namespace) -> int:
    study = _study(arguments)
    return command.run(study, _wanted(study, arguments), arguments.results, jobs=arguments.jobs)


def _status(arguments: argparse.Namespace) -> int:
    study = _study(arguments)
    return command.status(study, _wanted(study, arguments))


def _render(arguments: argparse.Namespace) -> int:
    from studies.household import render

    page = render.render(_study(arguments), results.read(arguments.results), arguments.out)
    command.say(f"written: {page}")
    return 0


def _smoke(arguments: argparse.Namespace) -> int:
    from studies.household import smoke

    return smoke.main(arguments.folder, say=command.say)


if __name__ == "__main__":
    sys.exit(main())
