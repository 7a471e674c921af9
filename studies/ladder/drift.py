"""Why OPSD can fall: the same game with a teacher that moves with the student and with one that does not.

In rung (a) the rows with a hint are learnt apart from those without, so the teacher stands still
whatever is set. Here both share their weights, as the two prompts of a language model do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from studies import tables
from studies.ladder import rung_a
from studies.ladder.tabular import DIGITS, Shared
from studies.runner import put
from tutelage.config.schema import AlgorithmSection
from tutelage.envs.doors import Doors
from tutelage.rollout.session import Limits, Session, context_for
from tutelage.rollout.task_sampling import gather
from tutelage.runs.phases import algorithm_of
from tutelage.runs.trainer import Trainer
from tutelage.types import Task

FOUND = Path(__file__).with_name("drift.json")
STEPS = 24
SEEDS = (0, 1, 2)
WRONG = DIGITS[-1]
"""A digit that opens no door: what the plan of a misleading hint always tells."""


class Misled(Doors):
    """Doors whose plan tells the wrong digit at every letter."""

    def plan(self, task: Task) -> Sequence[str]:
        return [WRONG] * self.rooms


SUITES = {"right": Doors(), "wrong": Misled()}
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "none": {"beta": 0.0},
    "0.1, teacher moves with the student": {"beta": 0.1},
    "0.1, teacher frozen at the start": {"beta": 0.1, "teacher": "reference"},
    "0.5, teacher moves with the student": {},
    "0.5, teacher frozen at the start": {"teacher": "reference"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One run: the share of the best return, and the chance of the digit that the hint tells, without
    a hint, averaged over letters, before the first step and after each."""

    hint: str
    setting: str
    seed: int
    reached: float
    hinted: tuple[float, ...]


def run(hint: str, setting: str, seed: int, *, steps: int = STEPS) -> Drift:
    """Train OPSD on doors with a hint that is right or wrong."""
    suite = SUITES[hint]
    given = AlgorithmSection.model_validate({"name": "opsd", **SETTINGS[setting]})
    algorithm = algorithm_of(given, steps, where="opsd")
    policy = Shared(reads=rung_a.READS)
    session = Session(
        suite,
        {"self": policy, "reference": policy.copied()},
        context=context_for(suite, instructions=False),
        limits=Limits(max_turns=2, max_new_tokens=4, concurrency=1000),
    )
    trainer = Trainer(
        session,
        algorithm,
        lr=rung_a.RATE,
        betas=rung_a.BETAS,
        weight_decay=rung_a.DECAY,
        seed=seed,
    )
    tasks, hinted = suite.tasks("train"), [_says_hinted(policy, hint)]
    for step in range(steps):
        episodes = gather(
            session,
            tasks,
            algorithm,
            count=len(tasks),
            group_size=rung_a.COPIES,
            seed=seed,
            step=step,
        )
        trainer.learn(episodes)
        hinted.append(_says_hinted(policy, hint))
    game = rung_a.GAMES["doors"]
    reached = rung_a.measured(session, rung_a.Method(taught=""), game, seed)
    return Drift(
        hint=hint,
        setting=setting,
        seed=seed,
        reached=round(reached, 4),
        hinted=tuple(round(x, 4) for x in hinted),
    )


def _says_hinted(policy: Shared, hint: str) -> float:
    rule = rung_a.GAMES["doors"].rule
    return fmean(policy.chance(a, WRONG if hint == "wrong" else digit) for a, digit in rule.items())


def all_of() -> list[Drift]:
    return [run(hint, name, seed) for hint in SUITES for name in SETTINGS for seed in SEEDS]


def save(found: Sequence[Drift], path: Path = FOUND) -> None:
    lines = [f"  {json.dumps(asdict(each))}" for each in found]
    put(path, "[\n" + ",\n".join(lines) + "\n]\n")


def read(path: Path = FOUND) -> list[Drift]:
    table = json.loads(path.read_text(encoding="utf-8"))
    return [Drift(**{**each, "hinted": tuple(each["hinted"])}) for each in table]


def table(found: Sequence[Drift]) -> str:
    """A row for each hint and setting: means over the seeds."""
    rows = []
    for hint in SUITES:
        for name in SETTINGS:
            own = [d for d in found if (d.hint, d.setting) == (hint, name)]
            half = len(own[0].hinted) // 2
            rows.append(
                [
                    hint if name == next(iter(SETTINGS)) else "",
                    name,
                    tables.percent(fmean(d.reached for d in own)),
                    *(
                        tables.percent(fmean(d.hinted[at] for d in own))
                        for at in (0, half, len(own[0].hinted) - 1)
                    ),
                ]
            )
    last = len(found[0].hinted) - 1
    head = [
        "the hint is",
        "OPSD's KL",
        "of the best return",
        "says the told digit at the start",
        f"after {last // 2} steps",
        f"after {last}",
    ]
    return tables.table(head, rows)
