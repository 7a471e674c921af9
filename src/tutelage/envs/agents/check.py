"""Check what an agent promises: run it on a few tasks with made-up answers, without any model."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tutelage.envs.agents.pool import AgentPool
from tutelage.envs.check import Finding
from tutelage.envs.pool import Failure, Reply
from tutelage.types import Observation, Stop, Task

MOST_CALLS: Final = 50
"""Calls of an agent that are answered; one that asks on is ended, as rollout.max_turns does."""
ENDS_SECONDS: Final = 5.0
"""In which an agent should end when its calls are no longer answered."""
GARBAGE: Final = (
    "",
    " ",
    "no",
    "x" * 100_000,
    "<tool_call>{",
    "<think>",
    "naïve 日本語 🚪",
    '{"answer": null}',
    "%s {0} \\ \"'",
)
"""Answers such as a language model writes sooner or later."""
EXPLAINED: Final = {
    "other_model": 'it asked for another model: name "student", the only one that is served',
    "wrong_key": "it sent another key than the `api_key` that it was given: use that one, and never "
    "one of the environment or of an earlier episode",
    "malformed": "it sent requests that are no chat completion: the answers with status 400 that it "
    "got say what is wrong",
    "refused": "it asked for what is not served: only v1/chat/completions, v1/models and reward are "
    "(an agent of the Responses API must be told to use chat completions)",
    "broken_off": "it broke off requests before they were answered: raise its timeout, since an "
    "answer waits for those of other episodes",
    "late": "it asked on after its episode was over",
}
"""What an endpoint counts, as broken promises."""


@dataclass(slots=True)
class _Played:
    """One run of the agent."""

    calls: list[Observation] = field(default_factory=list)
    end: Observation | Failure | None = None  # None if it was ended after MOST_CALLS

    @property
    def failure(self) -> str:
        return self.end.reason if isinstance(self.end, Failure) else ""


def _play(
    pool: AgentPool, tasks: Sequence[Task], answer: Callable[[int], str]
) -> dict[str, _Played]:
    """Run the agent on tasks, beside each other. `answer` is given the number of the call."""
    runs = {task.id: _Played() for task in tasks}
    for task in tasks:
        pool.open(task.id, task)
    live = set(runs)
    while live:
        for key, seen in pool.poll(block=True):
            run = runs[key]
            over = isinstance(seen, Failure) or seen.done
            if over or len(run.calls) == MOST_CALLS:
                run.end = seen if over else None
                pool.close(key)
                live.discard(key)
                continue
            assert isinstance(seen, Observation)
            run.calls.append(seen)
            pool.answer(key, Reply(text=answer(len(run.calls)), tokens=(1, 1)))
    return runs


def check(make: Callable[[], AgentPool], tasks: Sequence[Task]) -> Iterator[Finding]:
    """Run every check on a pool that `make` gives."""
    pool = make()
    try:
        runs = _play(pool, tasks, lambda number: f"answer {number}")
        yield Finding(name="it asks, ends and says what it earned", problems=tuple(_basics(runs)))
        yield Finding(name="it keeps to its own session", problems=tuple(_refused(pool, runs)))
        again = _play(pool, tasks, lambda number: f"answer {number}")
        yield Finding(
            name="it asks the same when it is answered the same", problems=tuple(_same(runs, again))
        )
        yield Finding(
            name="it survives whatever it is answered", problems=tuple(_garbage(pool, tasks[0]))
        )
        yield Finding(
            name="it ends when its episode is over", problems=tuple(_ends(pool, tasks[0]))
        )
    finally:
        pool.shutdown()


def _basics(runs: dict[str, _Played]) -> Iterator[str]:
    reported = set()
    for name, run in runs.items():
        problem = run.failure
        if isinstance(run.end, Failure) and run.end.stop is Stop.TIMEOUT:
            problem += "; call the endpoint within it, or raise env.deadline"
        if not run.calls and not problem:
            problem = (
                "it ended without a single call, so nothing was sampled and nothing can be learnt: "
                "it must talk to the base_url that it is given"
            )
        if problem and problem not in reported:
            reported.add(problem)
            yield f"task {name}: {problem}"


def _refused(pool: AgentPool, runs: dict[str, _Played]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for run in runs.values():
        if isinstance(run.end, Observation):
            for name, count in run.end.counts:
                counts[name] = counts.get(name, 0) + count
    for name, text in EXPLAINED.items():
        if name in counts:
            yield f"{text} ({counts[name]} requests)"
    if pool.endpoint.strangers:
        yield (
            f"{pool.endpoint.strangers} requests named no session or came with no key of one: use the "
            "base_url and the api_key of this task, and keep neither between tasks"
        )


def _same(runs: dict[str, _Played], again: dict[str, _Played]) -> Iterator[str]:
    for name, run in runs.items():
        first, second = ([o.state for o in r.calls] for r in (run, again[name]))
        if first != second:
            k = next(
                (k for k, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
                min(len(first), len(second)),
            )
            yield (
                f"task {name}: call {k} differs the second time, so no run can be repeated to the "
                "byte: seed its random draws from task.seed, and leave dates, addresses and keys out "
                "of its messages"
            )
            return


def _garbage(pool: AgentPool, task: Task) -> Iterator[str]:
    reported = set()
    for text in GARBAGE:
        failure = _play(pool, [task], lambda number, text=text: text)[task.id].failure  # type: ignore[misc]
        if failure and failure not in reported:
            reported.add(failure)
            yield (
                f"answered {text[:20]!r}, it failed ({failure}): its episode would be left out, and "
                "the model would never learn that this answer earns nothing; return 0 instead"
            )


def _ends(pool: AgentPool, task: Task) -> Iterator[str]:
    before = pool.runner.running()
    pool.open(task.id, task)
    pool.poll(block=True)
    pool.close(task.id)
    until = time.monotonic() + ENDS_SECONDS
    while pool.runner.running() > before and time.monotonic() < until:
        time.sleep(0.02)
    if pool.runner.running() > before:
        yield (
            f"it was still running {ENDS_SECONDS:g} s after its calls were answered with status 410: "
            "let errors of the endpoint end it, and do not repeat such calls without end"
        )
