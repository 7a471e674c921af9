"""A pool whose environments are agents: what one asks is an observation, and the answer an action."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from tutelage.envs.agents import tools
from tutelage.envs.agents.endpoint import AgentSession, Endpoint, digest
from tutelage.envs.agents.runner import (
    Command,
    Outcome,
    Runner,
    Solve,
    Start,
    Threads,
    Workers,
    fits_workers,
    solver,
)
from tutelage.envs.observations import LONGEST
from tutelage.envs.pool import START_SECONDS, Answer, Failure, Reply
from tutelage.types import Message, Observation, Stop, Task

LOGGER: Final = logging.getLogger(__name__)
OVER: Final = "this episode is over, so nothing more is answered; let the agent end"


@dataclass(slots=True)
class _Agent:
    """An agent under way."""

    number: str  # which of all agents it is: keys are used again
    since: float  # when it was last told something
    limit: float  # seconds in which it must ask again or end
    outcome: Outcome | None = None
    seen: tuple[Message, ...] = ()  # the messages of its last call and the answer
    broken: bool = False  # whether its last answer was a call of a function that cannot be read


class AgentPool:
    """Runs agents beside each other and serves them; see `envs.pool.Pool`.

    run      the agent: "module:name", a function, or a command
    workers  processes for agents that are functions; 0 for threads of this one
    seconds  that an agent may take between two calls
    quiet    seconds to wait for further calls beside one that came

    `poll` gives the calls of all agents that are owed one together, in the order in which they were
    asked for, so that what is computed beside what does not depend on which agent was faster.
    """

    def __init__(
        self,
        run: str | Sequence[str] | Solve,
        *,
        workers: int = 0,
        seconds: float = 60.0,
        host: str = "127.0.0.1",
        quiet: float = 0.01,
    ) -> None:
        self.seconds = seconds
        found = solver(run)  # what cannot be run is refused here, before anything is played
        self.endpoint = Endpoint(host, quiet=quiet)
        self.runner: Runner
        if workers and not isinstance(found, Command) and fits_workers(run):
            self.runner = Workers(run, self._ended, count=workers)
        else:
            self.runner = Threads(found, self._ended)
        self.in_workers = isinstance(self.runner, Workers)
        self.agents: dict[str, _Agent] = {}
        self.numbers = count()
        self.owed: list[str] = []

    def open(self, key: str, task: Task) -> None:
        limit = self.seconds + (START_SECONDS if self.in_workers else 0.0)
        number = str(next(self.numbers))
        with self.endpoint.changed:
            url, secret = self.endpoint.open(key)
            self.agents[key] = _Agent(number, time.monotonic(), limit)
            self.owed.append(key)
        self.runner.start(Start(key=number, url=url, secret=secret, task=task))

    def act(self, key: str, action: str) -> None:
        self.answer(key, Reply(text=action))

    def answer(self, key: str, reply: Reply) -> None:
        """Answer an agent's call."""
        with self.endpoint.changed:
            agent, session = self.agents[key], self.endpoint.sessions[key]
            if session.now is not None:
                read = tools.read(reply.text, tools.names_of(session.now.call.tools))
                agent.broken = bool(read.problem)
                self.endpoint.answer(key, reply)
                agent.seen = (*agent.seen, Message("assistant", reply.text))
            agent.since, agent.limit = time.monotonic(), self.seconds
            self.owed.append(key)

    def _ended(self, number: str, outcome: Outcome) -> None:
        with self.endpoint.changed:
            for agent in self.agents.values():
                if agent.number == number:
                    agent.outcome = outcome
            self.endpoint.changed.notify_all()

    def poll(self, *, block: bool) -> list[Answer]:
        """All answers that are owed, once all of them are there."""
        with self.endpoint.changed:
            while True:
                waits = [self._wait(key) for key in self.owed]
                if all(wait <= 0 for wait in waits):
                    break
                self.endpoint.changed.wait(min(wait for wait in waits if wait > 0))
            owed, self.owed = self.owed, []
            return [(key, self._taken(key)) for key in owed]

    def _wait(self, key: str) -> float:
        """Seconds until an agent has an answer, if nothing happens; 0 where it has one."""
        agent, session = self.agents[key], self.endpoint.sessions[key]
        if agent.outcome is not None:
            return 0.0
        left = max(0.0, agent.since + agent.limit - time.monotonic())
        ready = session.ready()
        return left if ready is None else ready

    def _taken(self, key: str) -> Observation | Failure:
        agent, session = self.agents[key], self.endpoint.sessions[key]
        if agent.outcome is not None:
            return _end(agent.outcome, session, valid=not agent.broken)
        if session.ready() is None:
            reason = f"the agent neither asked nor ended within its deadline of {agent.limit:g} s"
            return Failure(stop=Stop.TIMEOUT, reason=reason)
        call = session.take()
        earned, paid = session.settle()
        text = shown(agent.seen, call.messages)
        agent.seen = call.messages
        return Observation(
            text=text[:LONGEST],
            reward=earned,
            state=digest(call),
            valid=not agent.broken,
            call=call,
            paid=paid,
        )

    def close(self, key: str) -> None:
        with self.endpoint.changed:
            self.endpoint.close(key, OVER)
            agent = self.agents.pop(key, None)
            self.owed = [k for k in self.owed if k != key]
        if agent is not None and agent.outcome is None:
            self.runner.stop(agent.number)

    def shutdown(self) -> None:
        self.runner.shutdown()
        self.endpoint.stop()
        if self.endpoint.strangers:
            LOGGER.warning(
                "%d requests named no session that was open, or came without its key; agents should "
                "use the address and the key that they are given for this task",
                self.endpoint.strangers,
            )


def _end(outcome: Outcome, session: AgentSession, *, valid: bool) -> Observation | Failure:
    """What an episode ends with."""
    if outcome.error:
        return Failure(stop=Stop.ERROR, reason=outcome.error)
    if outcome.reward is None and not session.was_paid:
        reason = (
            "the agent returned None and posted no reward; return the reward as a number, or post "
            "it to /reward of its session"
        )
        return Failure(stop=Stop.ERROR, reason=reason)
    earned, paid = session.settle()
    reward = earned + (outcome.reward or 0.0)
    won = outcome.won if outcome.won is not None else reward > 0
    return Observation(
        text="",
        reward=reward,
        done=True,
        won=won,
        score=outcome.score,
        valid=valid,
        paid=paid,
        counts=_sorted(session.counts),
    )


def _sorted(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items()))


def shown(before: Sequence[Message], messages: Sequence[Message]) -> str:
    """The new messages of a call, for people."""
    same = 0
    for a, b in zip(before, messages, strict=False):
        if (a.role, a.content.strip()) != (b.role, b.content.strip()):
            break
        same += 1
    new = [*messages[same:]]
    if len(new) == 1 and new[0].role == "user":
        return new[0].content
    return "\n\n".join(f"[{m.role}]\n{m.content}" for m in new)
