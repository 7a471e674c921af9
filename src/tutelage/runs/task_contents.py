"""Noticing tasks that hold something else than before under the same ids: a resumed run would train on
others. What a suite tells without making an environment is compared; what its environments show is
compared of the evaluation's tasks alone, by the panel's fingerprint."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tutelage.envs.base import Describes, Identifies, Suite
from tutelage.envs.guard import attempt
from tutelage.envs.tasks import checked
from tutelage.errors import RunError
from tutelage.runs import meta, task_order
from tutelage.runs.assemble import Parts
from tutelage.types import Task

FACT = "contents"
"""Their name in meta.json."""
HASHED = 500
"""Tasks whose data are hashed, which are all tasks of most suites: a user's suite is asked for them
one by one."""
DESCRIBED = 4
"""Tasks whose descriptions are hashed: some worlds build a game to describe it."""
OTHERS = "others"

Contents = Mapping[str, str]
"""SHA-256 sums, shortened: of the suite's "identity", of single tasks by position, of descriptions
("described"), and of up to `HASHED` tasks together ("others"). Empty if they cannot be compared."""


def contents_of(suite: Suite, tasks: Sequence[Task]) -> Contents:
    """What a suite tells about itself and its tasks. Raises EnvError where it cannot."""
    count, found = len(tasks), dict[str, str]()
    if isinstance(suite, Identifies):
        found["identity"] = _sum(attempt("identity", suite.identity))
    compared = task_order.places(count)
    for k in compared:
        found[str(k)] = _sum(_data(tasks, k))
    if isinstance(suite, Describes):
        texts = [
            attempt("describe", partial(suite.describe, tasks[k])) for k in compared[:DESCRIBED]
        ]
        found["described"] = _sum([str(text) for text in texts])
    if count > len(compared):
        some = sorted(random.Random(count).sample(range(count), min(HASHED, count)))
        found[OTHERS] = _sum([_data(tasks, k) for k in some])
    return found


def _data(tasks: Sequence[Task], k: int) -> list[object]:
    task = attempt(f"task {k}", lambda: checked(tasks[k], f"task {k}"))
    return [task.id, task.family, task.seed, dict(task.data)]


def _sum(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def difference(before: Mapping[str, object], now: Contents, tasks: Sequence[Task]) -> str:
    """What differs of all that both have, in words; empty where nothing does."""
    for name, found in now.items():
        if before.get(name, found) == found:
            continue
        if name == "identity":
            return "`identity` of the suite returns something else"
        if name == "described":
            return "`describe` of the suite returns something else"
        if name == OTHERS:
            return "tasks have other data"
        return f"task {name} ({tasks[int(name)].id:.80}) has other data"
    return ""


@dataclass(slots=True, kw_only=True)
class Listing:
    """The tasks that a run trains on, as they are listed when it begins or goes on."""

    suite: Suite
    name: str  # of the suite in the configuration
    split: str
    tasks: Sequence[Task]
    order: task_order.Order
    contents: Contents

    @property
    def facts(self) -> Mapping[str, object]:
        """What meta.json records to compare with."""
        return {task_order.FACT: self.order, FACT: self.contents}

    def refuse_other(self, path: Path) -> None:
        """Raises RunError where the run at `path` began with other tasks, or with others under the
        same ids; runs of older versions have no record of them."""
        task_order.refuse_other(path, self.order, self.split)
        before = meta.recorded(path).get(FACT)
        if isinstance(before, dict) and (differs := difference(before, self.contents, self.tasks)):
            raise RunError(
                f"the tasks of {self.split!r} are not those that {path} began with ({differs}), so "
                "the run cannot be continued to the same result; put the data back, or start a new "
                f'run in another run.folder, which policy.model = "{path}" lets begin with these '
                "weights"
            )

    def note_unsteady(self) -> str:
        """List the tasks once more. Raises EnvError where that gives other ones, and returns a
        sentence where the same hold something else: later changes cannot be noticed then."""
        again = task_order.refuse_unsteady(self.order, self.suite, self.name, self.split)
        if again is None:
            return ""
        differs = difference(self.contents, contents_of(self.suite, again), again)
        if not differs:
            return ""
        self.contents = {}
        return (
            f"tasks({self.split!r}) lists the same tasks with other contents at each call "
            f"({differs}), so a run that is resumed cannot notice changed data; let the suite return "
            "the same at each call"
        )


def listing_of(parts: Parts, *, replayed: bool) -> Listing:
    """The tasks of a run; episodes that are `replayed` bring theirs, whose contents are not asked for."""
    return Listing(
        suite=parts.suite,
        name=parts.config.env.suite,
        split=parts.config.env.split,
        tasks=parts.tasks,
        order=task_order.order_of(parts.tasks),
        contents={} if replayed else contents_of(parts.suite, parts.tasks),
    )
