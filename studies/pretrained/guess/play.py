"""What the student's guesses were like while it was trained: from the episodes of finished runs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from studies import tables
from studies.plan import Run
from studies.pretrained.guess.suite import SPAN
from studies.pretrained.world import GUESS, measured
from studies.runner import put
from tutelage.rollout import record

FOUND = Path(__file__).with_name("play.json")
EPISODES = "episodes.jsonl"
FEW = 4
"""Steps at the beginning, and at the end, of which guesses are counted together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """The student's turns in the first or last steps of a run.

    part       first or last
    turns      how many there are
    contradict of them, guesses that an earlier answer rules out, or outside of the range
    halve      of them, guesses in the middle of what is left, as the expert's
    begin      turns that are an episode's first
    middle     of these, guesses in the middle of the range
    """

    method: str
    seed: int
    part: str
    turns: int
    contradict: int
    halve: int
    begin: int
    middle: int


def of_runs(runs: Iterable[Run]) -> list[Play]:
    """Of all finished runs."""
    found = []
    for run in runs:
        if run.finished:
            lines = list(record.read(run.folder / EPISODES))
            for part, steps in (("first", range(FEW)), ("last", range(run.steps - FEW, run.steps))):
                own = [line for line in lines if line["phase"] == "train" and line["step"] in steps]
                counts = [sum(column) for column in zip(*map(count, own), strict=True)]
                names = [each.name for each in fields(Play)][3:]
                rest = dict(zip(names, counts, strict=True))
                found.append(Play(method=run.method, seed=run.seed, part=part, **rest))
    return found


def count(episode: record.Line) -> tuple[int, int, int, int, int]:
    """Turns, contradict, halve, begin and middle of one episode's line, as `Play` has them.

    >>> turn = lambda action, actor="student": {"action": action, "actor": actor}
    >>> count({"task": {"data": {"low": "11", "secret": "25"}},
    ...        "turns": [turn("18"), turn("22", "teacher"), turn("20"), turn("24")]})
    (3, 1, 2, 1, 1)
    """
    task = json.loads(json.dumps(episode["task"]))["data"]
    low, secret = int(task["low"]), int(task["secret"])
    high = low + SPAN - 1
    turns = contradict = halve = begin = middle = 0
    for place, turn in enumerate(json.loads(json.dumps(episode["turns"]))):
        guess = int(turn["action"]) if str(turn["action"]).isdecimal() else None
        if turn["actor"] == "student":
            best = guess == (low + high) // 2
            turns += 1
            contradict += guess is not None and not low <= guess <= high
            halve += best
            begin += place == 0
            middle += place == 0 and best
        if guess is not None:
            low = max(low, guess + 1) if guess < secret else low
            high = min(high, guess - 1) if guess > secret else high
    return turns, contradict, halve, begin, middle


def save(found: Sequence[Play], path: Path = FOUND) -> None:
    """Put what was counted into the file, over that of the same method, seed and part."""
    known = {(p.method, p.seed, p.part): p for p in (*read(path), *found)}
    put(path, "[\n" + ",\n".join(json.dumps(asdict(known[k])) for k in sorted(known)) + "\n]\n")


def read(path: Path = FOUND) -> list[Play]:
    """What `save` wrote; nothing where there is no file."""
    if not path.exists():
        return []
    return [Play(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def table(found: Sequence[Play], titles: dict[str, str]) -> str:
    """A row for each method and part, over its seeds."""
    rows = []
    for method, title in titles.items():
        for part in ("first", "last"):
            own = [p for p in found if (p.method, p.part) == (method, part)]
            turns = sum(p.turns for p in own)
            if not turns:
                continue
            begin = sum(p.begin for p in own)
            rows.append(
                [
                    f"{title} ({', '.join(str(p.seed) for p in own)})" if part == "first" else "",
                    f"{part} {FEW} steps",
                    str(turns),
                    tables.percent(sum(p.contradict for p in own) / turns),
                    tables.percent(sum(p.halve for p in own) / turns),
                    tables.percent(sum(p.middle for p in own) / begin) if begin else "",
                ]
            )
    head = ["method (seeds)", "", "student's turns", "contradict an answer", "halve what is left"]
    return tables.table([*head, "first guess in the middle"], rows)


def of_study() -> str:
    """The table of the study's methods."""
    study, _ = measured(GUESS)
    return table(read(), {name: study.titles[name] for name in GUESS.methods()})
