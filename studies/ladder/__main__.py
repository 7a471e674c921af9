"""The ladder from the command line.

python -m studies.ladder smoke     rung (a): every method on two games, four minutes of CPU time
python -m studies.ladder family    rung (b): every method on one family of household tasks
python -m studies.ladder run       rung (c): household tasks, what is not finished
python -m studies.ladder status    what of rung (c) is finished
python -m studies.ladder start     what each hint is worth to a trained start, and where it can take over
python -m studies.ladder drift     OPSD with a teacher that moves and one that does not, on a game
python -m studies.ladder strengths Guided-OPD beside OPD from students of three strengths
python -m studies.ladder teachers  train the teachers that ATOD is given, which are not perfect
python -m studies.ladder takeover  whether the teacher wins after k turns of those students
python -m studies.ladder gates     what SDAR's gate made of right and wrong plans, from the finished runs
python -m studies.ladder plots     draw the page's pictures
"""

import argparse
import sys
from collections.abc import Sequence
from typing import cast

from studies import command, plan
from studies.ladder import drift, family, gates, page, rung_a, start, strengths, takeover, teachers


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m studies.ladder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = [
        "smoke",
        "family",
        "run",
        "status",
        "start",
        "drift",
        "strengths",
        "teachers",
        "takeover",
        "gates",
        "plots",
    ]
    parser.add_argument("command", choices=commands)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, a thread each")
    parser.add_argument("--method", action="append", default=[], help="only these")
    parser.add_argument("--seed", action="append", default=[], type=int, help="only these")
    parser.add_argument(
        "--start", action="append", choices=strengths.STARTS, help="only these, of strengths"
    )
    parser.add_argument(
        "--save", action="store_true", help="keep what the whole of rung (a) reached for the page"
    )
    given = parser.parse_args(argv)
    if given.command == "smoke":
        if unknown := set(given.method) - set(rung_a.METHODS):
            parser.error(f"there is no method {min(unknown)!r}")
        if given.save and (given.method or given.seed):
            parser.error("--save is for all methods and seeds; leave out --method and --seed")
        return command.guarded(lambda: smoke(given.method, given.seed, given.jobs, save=given.save))
    if given.command == "family":
        return command.guarded(lambda: _family(given))
    if given.command == "strengths":
        return command.guarded(
            lambda: max(_strengths(name, given) for name in given.start or strengths.STARTS)
        )
    if given.command == "teachers":
        return command.guarded(_teachers)
    if given.command == "takeover":
        return command.guarded(
            lambda: max(_takeover(name, given) for name in given.start or strengths.STARTS)
        )
    return command.guarded(lambda: _household(given))


def _family(given: argparse.Namespace) -> int:
    study = plan.load(family.STUDY)
    runs = study.only(methods=given.method, seeds=given.seed)
    code = command.run(study, runs, family.RESULTS, jobs=given.jobs)
    command.say(family.table())
    return code


def _strengths(name: str, given: argparse.Namespace) -> int:
    study = plan.load(strengths.STUDY, over=name)
    runs = study.only(methods=given.method, seeds=given.seed)
    return command.run(study, runs, strengths.results_of(name), jobs=given.jobs)


def _teachers() -> int:
    families = plan.load(page.STUDY).base.env.options["families"]
    teachers.train(cast(list[str], families))
    command.say(teachers.sentence())
    return 0


def _takeover(name: str, given: argparse.Namespace) -> int:
    """Measure students of a start, before training and after the methods; what is known is left out."""
    study = plan.load(strengths.STUDY, over=name)
    there = {(c.start, c.method, c.seed) for c in takeover.read()}
    for run in study.only(methods=given.method or ["opd", "guided_opd"], seeds=given.seed):
        for trained in (False, True):
            if run.finished and (name, run.method if trained else "", run.seed) not in there:
                takeover.save([takeover.measure(run, name, trained=trained)])
                there.add((name, run.method if trained else "", run.seed))
    command.say(takeover.table(takeover.read(), study.titles))
    return 0


def smoke(methods: Sequence[str], seeds: Sequence[int], jobs: int, *, save: bool = False) -> int:
    """Climb rung (a) and print its table; 1 if a method did not reach what it must."""
    reached = rung_a.all_of(methods or list(rung_a.METHODS), seeds or rung_a.SEEDS, jobs=jobs)
    command.say(rung_a.table(reached))
    if save:
        page.save(reached)
    failing = rung_a.failing(reached)
    for sentence in failing:
        command.say(sentence)
    command.say(f"{len(reached) - len(failing)} of {len(reached)} runs reached what they must")
    return 1 if failing else 0


def _household(given: argparse.Namespace) -> int:
    study = plan.load(page.STUDY)
    runs = study.only(methods=given.method, seeds=given.seed)
    if given.command == "status":
        return command.status(study, runs)
    if given.command == "start":
        return _start(study, given.seed)
    if given.command == "gates":
        gates.save(gates.of_runs(runs))
        command.say(gates.table(gates.read()))
        return 0
    if given.command == "drift":
        found = drift.all_of()
        drift.save(found)
        command.say(drift.table(found))
        return 0
    if given.command == "plots":
        for path in page.draw():
            command.say(str(path))
        return 0
    return command.run(study, runs, page.RESULTS, jobs=given.jobs)


def _start(study: plan.Study, seeds: Sequence[int]) -> int:
    """Measure the starts of seeds, of all where none is named, and print the tables."""
    for run in study.only(methods=["opd"], seeds=seeds):  # its configuration names the teacher
        start.save([start.measure(run)])
    found = start.read()
    command.say(start.grades_table(found))
    command.say(start.handed_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
