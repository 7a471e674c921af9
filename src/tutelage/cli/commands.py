"""The function of each command, by name; each imports what it needs when it runs."""

import argparse
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.cli.arguments import parser
from tutelage.cli.main import DISK, FAILED, INTERRUPTED, leave_output, say
from tutelage.errors import ConfigError

if TYPE_CHECKING:
    from tutelage.config.schema import Config

LONGEST_WAIT = 1_000_000
"""Seconds; no operating system waits for much more at once."""


def init(arguments: argparse.Namespace) -> int:
    from tutelage.cli.starter import write

    path = write(
        arguments.suite, arguments.file, model=arguments.model, algorithm=arguments.algorithm
    )
    print(f"{path} is written. Next:")
    print(f"  tutelage train {path} --dry-run   # checks it and shows the plan")
    print(f"  tutelage train {path}")
    return 0


def train(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.runs.launch import joined

    if arguments.cluster:
        from tutelage.cli import on_cluster

        return on_cluster.train(arguments, _training(arguments), Console())
    config: Config | None = None
    try:
        with joined() as ranks:
            config = _training(arguments)
            if arguments.dry_run:
                from tutelage.cli import dry_run

                if ranks.rank == 0:
                    dry_run.show(dry_run.make(config, gpu=arguments.gpu), Console())
                return 0
            from tutelage.cli.progress import results_only, watch_for
            from tutelage.runs.sinks import Sending
            from tutelage.runs.train import train as run

            with results_only(wanted=arguments.json) as out:
                watch = watch_for(Console(), quiet=arguments.quiet, as_json=arguments.json, out=out)
                sending = Sending(watch, [] if ranks.rank else arguments.sink)
                run(
                    config,
                    resume=arguments.resume,
                    watch=sending,
                    ranks=ranks,
                    sharded=arguments.sharded,
                )
    except KeyboardInterrupt:
        if config is None:
            raise
        from tutelage.runs.folder import standing

        return say(f"stopped; {standing(Path(config.run.folder))}", INTERRUPTED)
    except OSError as error:
        if config is None or error.filename is not None or error.errno not in (*DISK, errno.EPIPE):
            raise
        from tutelage.runs.folder import standing

        leave_output()
        why = f"the output cannot be written ({error.strerror})"
        return say(f"stopped, since {why}; {standing(Path(config.run.folder))}", FAILED)
    if not (arguments.quiet or arguments.json or ranks.rank):
        print(f"done: {config.run.folder}")
    return 0


def _training(arguments: argparse.Namespace) -> "Config":
    """The configuration of a run, which goes on in the folder that was named."""
    from tutelage.config.toml_file import load, run_at
    from tutelage.policies.server.hosted import refuse_servers

    config = load(arguments.file, arguments.overrides, trust=arguments.trust)
    home = run_at(arguments.file)
    if arguments.resume and home is not None and Path(config.run.folder) != home:
        raise ConfigError(
            f"--resume continues the run in {home}, and run.folder = {config.run.folder} names "
            "another folder; leave one of the two out"
        )
    if arguments.ranks and not arguments.cluster:
        raise ConfigError(
            "--ranks places ranks on a cluster, so it belongs to --cluster; add that, or start "
            "`torchrun --nproc-per-node N -m tutelage train FILE` on one machine"
        )
    refuse_servers(config, placed=bool(arguments.cluster))
    if arguments.gpu and not arguments.dry_run:
        raise ConfigError("--gpu plans for another machine, so it belongs to --dry-run; add that")
    if arguments.sharded != "no" and arguments.dry_run:
        raise ConfigError(
            "--dry-run plans for whole weights on every rank; leave --sharded out, or see `tutelage "
            "plan`, which shows the memory of divided ones"
        )
    return config


def eval(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import evaluation
    from tutelage.evaluation import panels

    if arguments.out is not None and arguments.out.exists():
        raise ConfigError(f"{arguments.out} exists already; choose another --out, or remove it")
    if arguments.repeats < 1:
        raise ConfigError(f"--repeats must be at least 1, got {arguments.repeats}")
    panel = panels.find(arguments.panel) if arguments.panel is not None else None
    evaluation.run(arguments, panel, Console())
    return 0


def try_(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import eval_config
    from tutelage.cli.try_out import show

    config, student = eval_config.of(
        arguments.model,
        arguments.overrides,
        tasks=1,
        split=arguments.split,
        temperature=arguments.temperature,
        checkpoint=arguments.checkpoint,
        trust=arguments.trust,
        command="try",
    )
    show(config, Console(), student=student, task=arguments.task, expert=arguments.expert)
    return 0


def collect(arguments: argparse.Namespace) -> int:
    from tutelage.cli.progress import percent
    from tutelage.config.toml_file import load
    from tutelage.runs import offline

    if arguments.episodes < 1:
        raise ConfigError(f"--episodes must be at least 1, got {arguments.episodes}")
    try:
        collected = offline.collect(
            load(arguments.file, arguments.overrides, trust=arguments.trust),
            arguments.policy,
            arguments.out,
            episodes=arguments.episodes,
            everything=arguments.all,
            thoughts=arguments.thoughts,
            student=offline.trained(arguments.file, arguments.checkpoint),
            tick=tick,
        )
    except KeyboardInterrupt:
        left = offline.partial(arguments.out)
        more = f"; the episodes so far are in {left}" if left.exists() else ""
        return say(f"stopped{more}", INTERRUPTED)
    success = percent(collected.won, collected.played)
    print(f"{success} won; {collected.written} episodes written to {arguments.out}")
    for name, cost in collected.costs.items():
        print(
            f"{name}: {cost['requests']:.0f} requests and {cost['cached']:.0f} answers of before, "
            f"{cost['read']:,.0f} tokens read and {cost['written']:,.0f} written, "
            f"{cost['spent']:.4g} spent"
        )
    return 0


def export(arguments: argparse.Namespace) -> int:
    from tutelage.runs.export import export, push

    export(
        arguments.folder,
        arguments.checkpoint,
        arguments.out,
        apart=arguments.adapters,
        evaluations=arguments.eval,
        gguf=arguments.gguf,
    )
    print(f"written to {arguments.out}")
    if arguments.push:
        print(f"pushed to {push(arguments.out, arguments.push)}")
    return 0


def tick(done: int, total: int) -> None:
    """Show progress on a terminal; print nothing into a pipe."""
    if sys.stderr.isatty():
        end = "\r" if done < total else "\r\033[K"
        sys.stderr.write(f"playing {done}/{total}{end}")
        sys.stderr.flush()


def demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli.demo import show

    show(arguments.folder, seed=arguments.seed, quick=arguments.quick, console=Console())
    return 0


def examples(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import examples

    if arguments.name is None:
        if arguments.copy is not None:
            raise ConfigError("--copy needs the name of an example; `tutelage examples` lists them")
        examples.show(Console())
    elif arguments.copy is None:
        print(examples.text(arguments.name), end="")
    else:
        path = examples.copy(arguments.name, arguments.copy)
        print(f"{path} is written. Next:\n  tutelage train {path} --dry-run")
    return 0


def envs(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import listing

    if arguments.name:
        listing.suite(arguments.name, Console())
    else:
        listing.suites(Console())
    return 0


def algorithms(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import listing

    if arguments.name:
        listing.algorithm(arguments.name, Console())
    else:
        listing.algorithms(Console())
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import doctor

    if arguments.file is None:
        doctor.show(doctor.everything(torch=arguments.torch), Console())
        return 0
    from tutelage.config.toml_file import load

    config = load(arguments.file, arguments.overrides, trust=arguments.trust)
    parts = doctor.needed(config, torch=arguments.torch)
    doctor.show(parts, Console())
    if arguments.file.is_dir():
        from tutelage.runs import learning

        print("how it learnt")
        for sentence in learning.of_run(arguments.file):
            print(f"  {sentence}")
        print()
    complete = doctor.complete(parts)
    print("nothing is missing" if complete else "something that this run needs is missing")
    return 0 if complete else FAILED


def serve(arguments: argparse.Namespace) -> int:
    from tutelage.cli.serve import server_of
    from tutelage.config.schema import PolicySection
    from tutelage.cpu import products
    from tutelage.runs.launcher import end_with_launcher

    end_with_launcher()
    section = PolicySection(
        model=arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        template_history="append",
    )
    server = server_of(
        section,
        name=arguments.name or arguments.model,
        host=arguments.host,
        port=arguments.port,
        key=arguments.key,
        reload=arguments.reload,
    )
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    print(f"serving {server.endpoints.name} at http://{host}:{server.port}", flush=True)
    with products("float32"):
        server.serve_forever()
    return 0


def convert(arguments: argparse.Namespace) -> int:
    from tutelage.cli.convert import convert

    count = convert(
        arguments.source,
        arguments.out,
        arguments.to,
        won=arguments.won,
        tokenizer=arguments.tokenizer,
    )
    print(f"{count} episodes written to {arguments.out}")
    return 0


def send(arguments: argparse.Namespace) -> int:
    from tutelage.config.toml_file import load
    from tutelage.runs import sinks

    config = load(arguments.folder, trust=True)  # read, and not run
    left = sinks.send(arguments.folder, arguments.sink, config)
    for sentence in left:
        say(sentence, FAILED)
    if not left:
        print(f"sent to {', '.join(sinks.states(arguments.folder))}")
    return FAILED if left else 0


def compare(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import compare

    if arguments.last < 1:
        raise ConfigError(f"--last must be at least 1, got {arguments.last}")
    if arguments.reach is not None and not 0 <= arguments.reach <= 1:
        raise ConfigError(f"--reach must be from 0 to 1, got {arguments.reach:g}")
    compare.compare(
        arguments.folders,
        Console(),
        baseline=arguments.baseline,
        last=arguments.last,
        mark=arguments.reach,
        form=arguments.format,
        out=arguments.out,
        plot=arguments.plot,
        by=arguments.by,
    )
    return 0


def power(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import compare
    from tutelage.evaluation.comparison import Design

    if arguments.difference is not None and not 0 < arguments.difference < 1:
        raise ConfigError(f"--difference must be between 0 and 1, got {arguments.difference:g}")
    design = Design(
        tasks=arguments.tasks,
        seeds=arguments.seeds,
        rate=arguments.rate,
        alike=arguments.alike,
        seed_sd=arguments.seed_sd,
    )
    compare.power(Console(), design, wished=arguments.difference)
    return 0


def runs(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli.show import list_runs

    list_runs(arguments.folders, Console(), as_json=arguments.json)
    return 0


def show(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli.show import show
    from tutelage.viewer.index import Filter

    if arguments.won and arguments.lost:
        raise ConfigError("--won and --lost leave no episode; give one of them")
    if arguments.limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {arguments.limit}")
    asked = Filter(
        text=arguments.text,
        won=arguments.won if arguments.won or arguments.lost else None,
        low_step=arguments.step,
        high_step=arguments.step,
    )
    show(
        arguments.folder,
        Console(),
        episode=arguments.episode,
        asked=asked,
        limit=arguments.limit,
        colour=arguments.colour,
        as_json=arguments.json,
    )
    return 0


def view(arguments: argparse.Namespace) -> int:
    from tutelage.cli import view

    if arguments.episodes < 0:
        raise ConfigError(f"--episodes must be at least 0, got {arguments.episodes}")
    if arguments.html is not None:
        view.write(arguments.folders, arguments.html, episodes=arguments.episodes)
        return 0
    view.serve(arguments.folders, host=arguments.host, port=arguments.port)
    return 0


def bench(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import bench
    from tutelage.config.toml_file import load
    from tutelage.runs import offline

    _check_seconds(arguments.seconds)
    file = arguments.file
    config = (
        bench.usual() if file is None else load(file, arguments.overrides, trust=arguments.trust)
    )
    student = "" if file is None else offline.trained(file)
    report = bench.measure(config, student=student, seconds=arguments.seconds, tick=tick)
    bench.show(report, Console())
    return 0


def _check_seconds(seconds: float) -> None:
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"--seconds must be above 0, got {seconds:g}")
    if seconds > LONGEST_WAIT:
        raise ConfigError(f"--seconds must be at most {LONGEST_WAIT}, got {seconds:g}")


def plan(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from tutelage.cli import plan
    from tutelage.cli.progress import results_only
    from tutelage.config.toml_file import load
    from tutelage.runs import offline

    _check_seconds(arguments.seconds)
    config = load(arguments.file, arguments.overrides, trust=arguments.trust)
    with results_only(wanted=arguments.json) as out:
        found = plan.make(
            config,
            student=offline.trained(arguments.file),
            seconds=arguments.seconds,
            gpu=arguments.gpu,
            inside=arguments.link,
            between=arguments.network,
            tick=tick,
        )
        if arguments.json:
            plan.as_json(found, out)
        else:
            plan.show(found, Console())
    return 0


def check_env(arguments: argparse.Namespace) -> int:
    from tutelage.cli.check_env import SECONDS, Request, watched
    from tutelage.config.schema import EnvSection
    from tutelage.config.toml_file import override

    seconds = SECONDS if arguments.seconds is None else arguments.seconds
    if arguments.tasks < 1:
        raise ConfigError(f"--tasks must be at least 1, got {arguments.tasks}")
    _check_seconds(seconds)
    env = EnvSection(suite=arguments.suite, options=override({}, arguments.options))
    splits, findings = watched(Request(env, tuple(arguments.split), arguments.tasks), seconds)
    failed = 0
    for finding in findings:
        print(f"{'failed' if finding.problems else 'ok    '}  {finding.name}", flush=True)
        for problem in finding.problems:
            print(f"          {problem}", flush=True)
        failed += bool(finding.problems)
    checked = f"({', '.join(splits)}: {arguments.tasks} tasks of each)"
    if failed:
        print(f"{failed} check{'s' * (failed != 1)} failed {checked}")
    else:
        print(f"all checks passed {checked}")
    return FAILED if failed else 0


def check_agent(arguments: argparse.Namespace) -> int:
    from tutelage.cli.check_agent import findings

    _check_seconds(arguments.seconds)
    failed = 0
    for finding in findings(
        arguments.run,
        arguments.options,
        split=arguments.split,
        count=arguments.tasks,
        seconds=arguments.seconds,
    ):
        print(f"{'failed' if finding.problems else 'ok    '}  {finding.name}", flush=True)
        for problem in finding.problems:
            print(f"          {problem}", flush=True)
        failed += bool(finding.problems)
    broken = f"{failed} promise{'s are' if failed != 1 else ' is'} broken"
    print(broken if failed else "all promises are kept")
    return FAILED if failed else 0


def completion(arguments: argparse.Namespace) -> int:
    from tutelage.cli.completion import script

    print(script(arguments.shell, parser()), end="")
    return 0
