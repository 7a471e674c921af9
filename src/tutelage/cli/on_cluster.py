"""`tutelage train --cluster`: the ranks run on a Ray cluster, and their lines appear here."""

import argparse
import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from tutelage.config.schema import Config
from tutelage.errors import ConfigError
from tutelage.runs import cluster
from tutelage.runs.cluster import Hosts, Placed


def train(arguments: argparse.Namespace, config: Config, console: Console) -> int:
    """Place the ranks, start them and follow them to their end. The exit code.

    Raises ConfigError where the cluster cannot run the file, and RunError where it is lost.
    """
    if config.rollout.ahead:
        raise ConfigError(
            "rollout.concurrency has ahead = 1, which plays in a second process of one machine; "
            "leave it out, or --cluster"
        )
    with (
        cluster.connected(arguments.cluster) as ray,
        cluster.placed(ray, ranks=arguments.ranks) as places,
    ):
        workers = places.check(str(arguments.file), arguments.overrides)
        size = len(places.seats)
        with cluster.environments(ray, ranks=size, workers=workers) as hosts:
            if arguments.dry_run:
                from tutelage.cli import dry_run

                dry_run.show(dry_run.make(config, gpu=arguments.gpu), console)
                console.print(table(places, hosts))
                return 0
            places.start(of_ranks(arguments), hosts.variables(size))
            if arguments.json:
                cluster.pass_on("stdout", json.dumps(_line(places, hosts)) + "\n")
            elif not arguments.quiet:
                console.print(table(places, hosts))
            return places.follow(cluster.pass_on)


def of_ranks(arguments: argparse.Namespace) -> list[str]:
    """What each rank is called with. The file is trusted there, since it was read here: a machine
    of the cluster may not know this user's runs."""
    switches = ("resume", "sharded", "quiet", "json")
    chosen = [f"--{name}" for name in switches if getattr(arguments, name)]
    sinks = [f"--sink={name}" for name in arguments.sink]
    return ["train", str(arguments.file), *arguments.overrides, "--trust", *chosen, *sinks]


def table(places: Placed, hosts: Hosts) -> Table:
    """What runs where."""
    shown = Table("what", "node", "process", "GPU", box=None, pad_edge=False)
    for seat in places.seats:
        gpus = ", ".join(seat.gpus) or "none"
        shown.add_row(f"rank {seat.rank}", seat.node, str(seat.pid or "-"), gpus)
    for rank, place in enumerate(hosts.places):
        for share in place.shares:
            workers = f"{share.workers} worker{'s' * (share.workers != 1)}"
            shown.add_row(f"environments of rank {rank}", hosts.nodes[share.bundle], workers, "")
    return shown


def _line(places: Placed, hosts: Hosts) -> dict[str, object]:
    played = [
        {"rank": rank, "node": hosts.nodes[share.bundle], "workers": share.workers}
        for rank, place in enumerate(hosts.places)
        for share in place.shares
    ]
    ranks = [asdict(seat) for seat in places.seats]
    return {"event": "placed", "ranks": ranks, "environments": played}
