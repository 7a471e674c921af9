"""The study from the command line.

python -m studies.household run       run what is not finished, then write results.json
python -m studies.household status    what is finished, how far the others are
python -m studies.household render    results.json -> docs/studies/household.md and its pictures
python -m studies.household smoke     all of it in a few minutes, killed once on the way
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from studies.household import plan, results, runner
from studies.household.plan import Study
from understudy.errors import ConfigError, UnderstudyError

DOCS = Path("docs/studies")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(arguments.command(arguments))
    except UnderstudyError as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("study: stopped; the same command goes on", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


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
        one.add_argument("--study", type=Path, default=plan.FILE, help="another study.toml")
        one.add_argument("--folder", type=Path, help="of the runs (default: study.folder)")
        one.add_argument("--results", type=Path, default=results.FILE, help="the results' file")
        one.add_argument("--over", default="", help="a table that is put over every run: smoke")
    smoke.add_argument("--folder", type=Path, help="where (default: a temporary folder)")
    return parser


def _study(arguments: argparse.Namespace) -> Study:
    if arguments.over and arguments.results == results.FILE:
        raise ConfigError("--over makes another study; give it its own --results and --folder")
    return plan.load(arguments.study, folder=arguments.folder, over=arguments.over)


def _run(arguments: argparse.Namespace) -> int:
    study = _study(arguments)
    runs = study.only(groups=arguments.group, methods=arguments.method, seeds=arguments.seed)
    journal = runner.journal_of(study)
    problems = {run.name: run.problem for run in runs if run.problem}
    for name, problem in problems.items():
        _say(f"{name}: cannot be run: {problem}")

    def settled(job: runner.Job) -> None:
        if job.after is not None:  # a method's run, not what comes before them
            collect(study, journal, arguments.results)

    failed = runner.execute(
        runner.jobs_of(study, runs), journal, width=arguments.jobs, say=_say, settled=settled
    )
    found = collect(study, journal, arguments.results)
    _say(
        f"{len(found.runs)} of {len(study.runs)} runs are in {arguments.results}; "
        f"{len(failed)} failed, {len(problems)} cannot be run"
    )
    return 1 if failed or problems else 0


def collect(study: Study, journal: runner.Journal, path: Path) -> results.Results:
    """Bring the results' file up to date."""
    before = results.read(path) if path.exists() else None
    found = results.collect(study, journal, before)
    results.save(found, path)
    return found


def _say(text: str) -> None:
    print(text, flush=True)


def _status(arguments: argparse.Namespace) -> int:
    study = _study(arguments)
    failures = runner.journal_of(study).failures()
    wanted = study.only(groups=arguments.group, methods=arguments.method, seeds=arguments.seed)
    seeds = {run.seed for run in wanted}
    for run in [*(s for s in study.starts if s.seed in seeds), *wanted]:
        _say(f"{run.group:10} {run.name:24} {standing(run, failures)}")
    return 0


def standing(run: plan.Run, failures: dict[str, str]) -> str:
    """Where a run stands, in words."""
    if run.problem:
        return f"cannot be run: {run.problem}"
    if run.finished:
        return f"finished, {run.steps} steps"
    at = f"{run.done} of {run.steps} steps"
    if runner.busy(run):
        return f"{at}, running"
    return f"{at}, failed: {failures[run.name]}" if run.name in failures else at


def _render(arguments: argparse.Namespace) -> int:
    from studies.household import render

    page = render.render(_study(arguments), results.read(arguments.results), arguments.out)
    _say(f"written: {page}")
    return 0


def _smoke(arguments: argparse.Namespace) -> int:
    from studies.household import smoke

    return smoke.main(arguments.folder, say=_say)


if __name__ == "__main__":
    sys.exit(main())
