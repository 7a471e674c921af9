"""The command line. Heavy imports wait until a command needs them, so that help comes at once."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tutelage.cpu import products, wait_passively
from tutelage.errors import TutelageError

INTERRUPTED, WRONG, FAILED = 130, 2, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Every failure that a user can mend is one sentence."""
    wait_passively()
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["demo"]:  # it has options of its own
        command, arguments = _demo, argparse.Namespace(rest=given[1:])
    else:
        arguments = _parsed(given)
        command = arguments.run
    try:
        code = command(arguments)
        sys.stdout.flush()
        return code
    except TutelageError as error:
        return _say(str(error), WRONG)
    except KeyboardInterrupt:
        return _say("stopped", INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output has gone; Python would complain once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _say(text: str, code: int) -> int:
    print(f"tutelage: {text}", file=sys.stderr)
    return code


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    """The arguments, with settings before and after options: argparse takes them in one place."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(given)
    settings = getattr(arguments, "overrides", getattr(arguments, "options", None))
    wrong = [text for text in rest if text.startswith("-") or "=" not in text]
    if settings is None:
        wrong = rest
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if settings is not None:
        settings.extend(rest)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tutelage",
        description="Train small language-model agents over many turns, by distillation from a "
        "teacher and by reward.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    train = command("train", _train, "Train as a TOML file says.")
    _source(train)
    train.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    train.add_argument("--dry-run", action="store_true", help="check everything, show the plan")

    test = command("eval", _eval, "Measure how often policies succeed, with intervals.")
    _source(test)
    test.add_argument("--policy", action="append", default=[], metavar="NAME",
                      help="student (default) or one of [policies]; again to compare")  # fmt: skip
    test.add_argument("--tasks", type=int, help="how many tasks (default: eval.tasks)")
    test.add_argument("--split", help="of which split (default: eval.split)")
    _checkpoint(test)
    test.add_argument("--json", action="store_true", help="one line of JSON for each policy")

    gather = command("collect", _collect, "Record episodes to imitate (rollout.replay).")
    _gathering(gather)

    export = command("export", _export, "Write a run's student as a model's folder.")
    export.add_argument("folder", type=Path, help="the folder of a run")
    export.add_argument("out", type=Path, help="the new folder, of whole weights")
    _checkpoint(export)

    commands.add_parser("demo", help="See a small student learn, in a few minutes.", add_help=False)
    command("envs", _envs, "List the built-in environments and their options.")
    named = command(
        "algorithms", _algorithms, "List the algorithms, or show one with its settings."
    )
    named.add_argument("name", nargs="?", help="an algorithm")

    doctor = command("doctor", _doctor, "Say what is installed, what is missing, how to get it.")
    doctor.add_argument("file", type=Path, nargs="?", help="look only at what this run needs")
    doctor.add_argument("overrides", nargs="*", metavar="key=value", help="settings instead of it")
    doctor.add_argument("--torch", action="store_true", help="ask torch too, which takes seconds")

    _serving(command("serve", _serve, "Serve a model over HTTP, as a teacher for other machines."))

    _timing(command("bench", _bench, "Say how fast a run goes here, and what would help."))

    _checking(command("check-env", _check_env, "Hold an environment to the contract."))
    return parser


def _gathering(gather: argparse.ArgumentParser) -> None:
    _source(gather)
    gather.add_argument("--policy", default="expert", metavar="NAME",
                        help="expert (the default), student or one of [policies]")  # fmt: skip
    gather.add_argument("--episodes", type=int, default=100, help="how many to play (100)")
    gather.add_argument("--out", type=Path, default=Path("episodes.jsonl"), help="the new file")
    gather.add_argument("--thoughts", action="store_true", help="with the expert's thoughts")
    gather.add_argument("--all", action="store_true", help="write lost episodes too")
    _checkpoint(gather)


def _serving(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("model", help='a folder, a hub id, a run\'s folder, or "builtin:NAME"')
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    serve.add_argument("--name", help="what the model is called (default: as it was given)")
    serve.add_argument("--device", default="auto", help='"cpu", "cuda", "auto" (the default)')
    serve.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    serve.add_argument("--key", default="", metavar="VARIABLE",
                       help="the environment variable that holds a key to ask for")  # fmt: skip
    serve.add_argument("--reload", action="store_true",
                       help="let clients load weights from folders of this machine")  # fmt: skip


def _timing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", help="a TOML file, or a run's folder")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings instead of it")
    parser.add_argument("--seconds", type=float, default=100.0,
                        help="to take, about, once models are loaded (100)")  # fmt: skip


def _checking(check: argparse.ArgumentParser) -> None:
    check.add_argument("suite", help='"package.module:Class", or the name of a built-in one')
    check.add_argument("options", nargs="*", metavar="key=value", help="options of the suite")
    check.add_argument("--split", action="append", default=[], help="default: all that it has")
    check.add_argument("--tasks", type=int, default=5, help="tasks of each split to play (5)")
    check.add_argument("--seconds", type=float, help="that each call of it may take (60)")


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a TOML file, or the folder of a run")
    parser.add_argument("overrides", nargs="*", metavar="key=value",
                        help="settings instead of the file's, such as update.lr=1e-5")  # fmt: skip


def _checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="", metavar="NAME",
                        help="a run's checkpoint, such as step-000100 (default: last)")  # fmt: skip


# -- commands


def _train(arguments: argparse.Namespace) -> int:
    from tutelage.config.toml_file import load

    config = load(arguments.file, arguments.overrides)
    if arguments.dry_run:
        from rich.console import Console

        from tutelage.cli import dry_run

        dry_run.show(dry_run.make(config), Console())
        return 0
    from rich.console import Console

    from tutelage.cli.progress import watch_for
    from tutelage.runs import train

    try:
        train.train(config, resume=arguments.resume, watch=watch_for(Console()))
    except KeyboardInterrupt:
        from tutelage.runs.folder import standing

        return _say(f"stopped; {standing(Path(config.run.folder))}", INTERRUPTED)
    print(f"done: {config.run.folder}")
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from tutelage.cli import listing
    from tutelage.config.toml_file import load
    from tutelage.runs import offline

    extra = [f"eval.tasks={arguments.tasks}"] if arguments.tasks is not None else []
    extra += [f"eval.split={json.dumps(arguments.split)}"] if arguments.split else []
    config = load(arguments.file, [*arguments.overrides, *extra])
    names = list(dict.fromkeys(arguments.policy)) or [offline.STUDENT]
    student = offline.trained(arguments.file, arguments.checkpoint)
    found = offline.evaluations(config, names, student=student, tick=_tick)
    if arguments.json:
        step = int(student.rpartition("-")[2]) if student else 0
        for name, made in found.items():
            print(json.dumps(made.line(step, name)))
    else:
        listing.evaluations(found, Console())
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    from tutelage.cli.progress import percent
    from tutelage.config.toml_file import load
    from tutelage.errors import ConfigError
    from tutelage.runs import offline

    if arguments.episodes < 1:
        raise ConfigError(f"--episodes must be at least 1, got {arguments.episodes}")
    made = offline.collect(
        load(arguments.file, arguments.overrides), arguments.policy, arguments.out,
        episodes=arguments.episodes, everything=arguments.all, thoughts=arguments.thoughts,
        student=offline.trained(arguments.file, arguments.checkpoint), tick=_tick,
    )  # fmt: skip
    print(f"{percent(made.won, made.played)} won; {made.written} written to {arguments.out}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from tutelage.runs import offline

    offline.export(arguments.folder, arguments.checkpoint, arguments.out)
    print(f"written to {arguments.out}")
    return 0


def _tick(done: int, total: int) -> None:
    """Progress for people only: nothing of it reaches a pipe."""
    if sys.stderr.isatty():
        end = "\r" if done < total else "\r\033[K"
        sys.stderr.write(f"playing {done}/{total}{end}")
        sys.stderr.flush()


def _demo(arguments: argparse.Namespace) -> int:
    from importlib import import_module

    return int(import_module("tutelage.cli.demo").main(arguments.rest) or 0)


def _envs(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import listing

    listing.environments(Console())
    return 0


def _algorithms(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import listing

    if arguments.name:
        listing.algorithm(arguments.name, Console())
    else:
        listing.algorithms(Console())
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import doctor

    if arguments.file is None:
        doctor.show(doctor.everything(torch=arguments.torch), Console())
        return 0
    from tutelage.config.toml_file import load

    parts = doctor.needed(load(arguments.file, arguments.overrides), torch=arguments.torch)
    doctor.show(parts, Console())
    well = doctor.mended(parts)
    print("nothing is missing" if well else "something that this run needs is missing")
    return 0 if well else FAILED


def _serve(arguments: argparse.Namespace) -> int:
    from tutelage.cli import serve
    from tutelage.config.schema import PolicySection

    section = PolicySection(
        model=arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        template_history="append",
    )
    server = serve.server_of(
        section, name=arguments.name or arguments.model, host=arguments.host, port=arguments.port,
        key=arguments.key, reload=arguments.reload,
    )  # fmt: skip
    print(f"serving {server.name} at http://{arguments.host}:{server.port}", flush=True)
    with products("float32"):
        server.serve_forever()
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import bench
    from tutelage.config.toml_file import load
    from tutelage.errors import ConfigError
    from tutelage.runs import offline

    if arguments.seconds <= 0:
        raise ConfigError(f"--seconds must be above 0, got {arguments.seconds:g}")
    file = arguments.file
    config = bench.usual() if file is None else load(file, arguments.overrides)
    student = "" if file is None else offline.trained(file)
    found = bench.measure(config, student=student, seconds=arguments.seconds, tick=_tick)
    bench.show(found, Console())
    return 0


def _check_env(arguments: argparse.Namespace) -> int:
    from tutelage.cli.check_env import SECONDS, Asked, watched
    from tutelage.config.schema import EnvSection
    from tutelage.config.toml_file import override
    from tutelage.errors import ConfigError

    seconds = SECONDS if arguments.seconds is None else arguments.seconds
    if arguments.tasks < 1:
        raise ConfigError(f"--tasks must be at least 1, got {arguments.tasks}")
    if not seconds > 0:
        raise ConfigError(f"--seconds must be above 0, got {seconds:g}")
    env = EnvSection(suite=arguments.suite, options=override({}, arguments.options))
    splits, findings = watched(Asked(env, tuple(arguments.split), arguments.tasks), seconds)
    broken = 0
    for finding in findings:
        print(f"{'broken' if finding.problems else 'kept  '}  {finding.promise}", flush=True)
        for problem in finding.problems:
            print(f"          {problem}", flush=True)
        broken += bool(finding.problems)
    looked = f"({', '.join(splits)}: {arguments.tasks} tasks of each)"
    if broken:
        print(f"{broken} {'promise is' if broken == 1 else 'promises are'} broken {looked}")
    else:
        print(f"every promise is kept {looked}")
    return FAILED if broken else 0


if __name__ == "__main__":
    sys.exit(main())
