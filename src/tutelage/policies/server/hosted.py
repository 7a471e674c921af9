"""Servers that Ray started for a run, as a rank sees them: asked through the actors that hold them.

A server that dies is started again by its actor, at another address and with another key. The first
request that fails finds out: it asks the actor, gives the new server what the old one had, and all
requests that were not answered are sent again. Seeds go with requests, so turns are the same.
"""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from tutelage.config.schema import Config
from tutelage.envs.spread import joined, last_line, patience
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.server.http import Client, RequestOptions, Target

SERVERS: Final = "TUTELAGE_SERVERS"
"""Environment variable: the servers of a rank, as `Place.text` writes them."""
GROUP: Final = "servers"
"""The name of their placement group in the run's namespace."""
SAMPLER: Final = "policy.sampler"
RESTARTS: Final = 3
"""Times that a server is started again; one that dies more often would die again."""
STARTED: Final = 900.0
"""Seconds in which a server must have loaded its model."""
LOOK: Final = 2.0
"""Seconds between two looks at whether its actor still has a node."""
LOGGER: Final = logging.getLogger(__name__)


class NotServed(Exception):
    """Why an actor's server does not answer."""


class Where(NamedTuple):
    """Where a server answers. `start` is another text for each start of its process."""

    url: str
    key: str
    start: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The servers of a rank.

    address, namespace  of the cluster and of the run
    actors              their names, by what they serve: "policy.sampler", "policies.teacher"
    shared              whether all nodes are on one machine, and so share its memory
    """

    address: str
    namespace: str
    actors: Mapping[str, Sequence[str]]
    shared: bool

    def text(self) -> str:
        return json.dumps([self.address, self.namespace, dict(self.actors), self.shared])


def servers_of(config: Config) -> dict[str, int]:
    """How many servers a file asks Ray to start, by what they serve."""
    sampler = config.policy.sampler
    found = {SAMPLER: sampler.servers if sampler is not None else 0}
    found |= {f"policies.{name}": section.servers for name, section in config.policies.items()}
    return {name: count for name, count in found.items() if count}


def place_of(name: str, environ: Mapping[str, str] = os.environ) -> Place:
    """Where this rank's servers are. Raises ConfigError where no cluster holds those of this name."""
    text = environ.get(SERVERS, "")
    if text:
        address, namespace, actors, shared = json.loads(text)
        place = Place(address=address, namespace=namespace, actors=actors, shared=shared)
        if place.actors.get(name):
            return place
    instead = "policy.sampler.url" if name == SAMPLER else f"{name}.model"
    raise ConfigError(
        f"{name}.servers starts servers on a Ray cluster, so it belongs to `tutelage train FILE "
        f"--cluster`; add that, or start `tutelage serve` yourself, set {instead} to its address and "
        "leave servers out"
    )


def refuse_servers(config: Config, *, placed: bool) -> None:
    """Raises ConfigError where a file asks for servers and the run is not placed on a cluster."""
    if not placed:
        for name in servers_of(config):
            place_of(name)


@dataclass(slots=True, kw_only=True)
class Hosted:
    """One server of a rank.

    actor      its name
    name       in messages
    arguments  of `tutelage serve`, but for the address and the key
    """

    place: Place
    actor: str
    name: str
    arguments: Sequence[str]

    def serve(self) -> Where:
        """Where the server answers now; it is started where it does not run.

        Raises PolicyError where it cannot be started, or its node is lost and no other has room.
        """
        ray = joined(self.place.address, self.place.namespace)
        errors = ray.exceptions
        try:
            reference = self._asked(ray)
            self._wait(ray, reference)
            return Where(*ray.get(reference))
        except errors.RayTaskError as error:
            raise PolicyError(
                f"the server of {self.name} on the cluster cannot be started ({error.cause}); see "
                "that its model is on every node, and continue with --resume"
            ) from error
        except (errors.RayError, ValueError) as error:  # no actor of that name
            raise PolicyError(
                f"the server of {self.name} on the cluster is lost ({last_line(error)}); see `ray "
                "status`, and continue with --resume"
            ) from error

    def begin(self) -> None:
        """Let the server start, without waiting for it; `serve` says what goes wrong."""
        ray = joined(self.place.address, self.place.namespace)
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            self._asked(ray)

    def _asked(self, ray: Any) -> Any:
        """The actor's answer to come; it starts its server where that does not run."""
        actor = ray.get_actor(self.actor, namespace=self.place.namespace)
        return actor.serve.remote(list(self.arguments))

    def _wait(self, ray: Any, reference: Any) -> None:
        """Wait for an answer of the actor, which may be on its way to another node."""
        from ray.util import get_placement_group, placement_group_table

        since = homeless = time.monotonic()
        while not ray.wait([reference], timeout=LOOK)[0]:
            now = time.monotonic()
            if placement_group_table(get_placement_group(GROUP))["state"] == "CREATED":
                homeless = now
            else:
                since = now  # nothing is started there meanwhile
            if now - homeless > patience():
                raise PolicyError(
                    f"a node with the server of {self.name} is lost, and within {patience():g} "
                    "seconds no other had room for it; add a node, and continue with --resume"
                )
            if now - since > STARTED + LOOK:
                raise PolicyError(
                    f"the actor with the server of {self.name} has not answered for {STARTED:g} "
                    "seconds; see `ray status`, and continue with --resume"
                )


class Finds(Protocol):
    """Says where a server answers now, after it was started again where it did not run."""

    name: str  # in messages

    def serve(self) -> Where: ...


class HostedClient(Client):
    """Asks a server that Ray started, wherever it is.

    hosted   says where; one that is started again has another `start`
    restore  gives a server that was started again what the one before had; requests that wait are
             sent to it after that
    """

    def __init__(self, hosted: Finds, *, name: str, options: RequestOptions) -> None:
        where = hosted.serve()
        super().__init__(where.url, name=name, key=where.key, options=options)
        self.hosted, self.start, self.losses = hosted, where.start, 0
        self.failed: PolicyError | None = None
        self.restore: Callable[[Client], None] = lambda client: None
        self.looking = threading.Lock()

    def _moved(self, target: Target) -> bool:
        with self.looking:
            if self.target is not target:
                return True  # another request has found it
            if self.failed is None:
                try:
                    return self._found()
                except PolicyError as error:
                    self.failed = error
            # nobody asks for another start where one request has given up
            raise self.failed

    def _found(self) -> bool:
        """Whether there is a new server by now, which has been given what the one before had."""
        failed: PolicyError | None = None
        while (where := self.hosted.serve()).start != self.start:
            self._count(failed)
            self.start = where.start
            few = replace(self.options, retries=1)  # it may die as well
            new = Client(where.url, name=self.name, key=where.key, options=few)
            try:
                self.restore(new)
            except PolicyError as error:
                failed = error  # of its own, or because this one died as well
                continue
            LOGGER.warning(
                "the server of %s was lost and is started again, at %s (%d of at most %d times)",
                self.hosted.name,
                new.url,
                self.losses,
                RESTARTS,
            )
            self.target = new.target
            return True
        if failed is not None:
            raise failed
        return False

    def _count(self, failed: PolicyError | None) -> None:
        self.losses += 1
        if self.losses > RESTARTS:
            raise PolicyError(
                f"the server of {self.hosted.name} was lost {self.losses} times: killed, for lack of "
                "memory perhaps; give it a smaller model or a larger node, and continue with "
                "--resume"
            ) from failed
