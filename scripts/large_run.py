"""Write a run folder as large as one likes, to see how quick the viewer and the index are.

python scripts/large_run.py FOLDER [--episodes 100000] [--bytes 2e9] [--columns]

Everything is drawn by a seed; no model is run. Lines have the form that a training run writes.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

FAMILIES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
)
THINGS = [
    "apple",
    "bowl",
    "candle",
    "cloth",
    "egg",
    "kettle",
    "knife",
    "mug",
    "newspaper",
    "pan",
    "pencil",
    "pillow",
    "plate",
    "soapbar",
    "spoon",
    "statue",
    "tomato",
    "vase",
]
PLACES = [
    "armchair",
    "bathtubbasin",
    "cabinet",
    "countertop",
    "desk",
    "drawer",
    "fridge",
    "microwave",
    "safe",
    "shelf",
    "sidetable",
    "sinkbasin",
    "sofa",
    "toilet",
]
GROUP = 8
POOL = 5000
"""Different turns, of which episodes are put together."""
CONFIG = """\
[run]
folder = {folder}
seed = 0
steps = {steps}

[env]
suite = "household"
split = "train"

[algorithm]
name = "grpo"

[policy]
model = "builtin:household-teacher"
"""


def turn(draw: random.Random) -> dict[str, object]:
    """A turn of an episode."""
    thing, place = draw.choice(THINGS), f"{draw.choice(PLACES)} {draw.randint(1, 9)}"
    seen = ", ".join(f"a {draw.choice(THINGS)} {draw.randint(1, 4)}" for _ in range(6))
    valid = draw.random() < 0.9
    action = f"go to {place}" if valid else f"think about {place}"
    tokens = [draw.randint(5, 700) for _ in range(12)]
    return {
        "seen": f"You arrive at {place}. On it, you see {seen}.",
        "actor": "teacher" if draw.random() < 0.2 else "student",
        "taken": None,
        "text": f"<think> {thing} may be at {place} ?</think><action> {action}</action>",
        "action": action,
        "valid": valid,
        "reward": 0.0,
        "penalty": 0.0,
        "fresh": False,
        "prompt": [draw.randint(5, 700) for _ in range(30)],
        "tokens": tokens,
        "logps": [-round(draw.random(), 6) for _ in tokens],
    }


def episode(
    draw: random.Random, pool: list[dict[str, object]], step: int, task: int, copy: int, turns: int
) -> dict[str, object]:
    """A line of episodes.jsonl, its turns drawn from a pool."""
    won = draw.random() < 0.4
    played = draw.choices(pool, k=turns)
    first = f"You are in the middle of a room. Your task is to: find some {draw.choice(THINGS)}."
    played[0] = {**played[0], "seen": first}
    played[-1] = {**played[-1], "reward": float(won)}
    name = f"household/small/train/{task:07d}"
    return {
        "phase": "train",
        "step": step,
        "task": {
            "id": name,
            "family": FAMILIES[task % len(FAMILIES)],
            "seed": task,
            "data": {"split": "train", "size": "small"},
        },
        "group": name,
        "copy": copy,
        "stop": "done" if won else "turns",
        "won": won,
        "score": None,
        "return": float(won),
        "error": "",
        "penalties": {},
        "turns": played,
    }


def columns(draw: random.Random, line: dict[str, object]) -> dict[str, object]:
    """The line of columns.jsonl that goes with an episode."""
    turns, task = line["turns"], line["task"]
    assert isinstance(turns, list)
    assert isinstance(task, dict)
    n = sum(len(turn["tokens"]) for turn in turns)
    return {
        "phase": "train",
        "step": line["step"],
        "task": task["id"],
        "copy": line["copy"],
        "columns": {
            "token_mean": [round(1 / n, 6)] * n,
            "gap[teacher|student]": [round(draw.gauss(-0.3, 1.0), 5) for _ in range(n)],
        },
    }


def metric(step: int, won: int, n: int, turns: int) -> dict[str, object]:
    return {
        "phase": "train",
        "step": step,
        "episodes": n,
        "broken": 0,
        "won": won,
        "return": won / n,
        "turns": turns,
        "tokens": 12 * turns,
        "invalid": 0.1,
        "loss": 1 / (step + 1),
    }


def lines(
    count: int, *, per_step: int = 128, turns: int = 24, seed: int = 0
) -> Iterator[dict[str, object]]:
    """Episodes in the order of steps."""
    draw = random.Random(seed)
    pool = [turn(draw) for _ in range(POOL)]
    for k in range(count):
        step = k // per_step
        task = step * (per_step // GROUP) + k % per_step // GROUP
        yield episode(draw, pool, step, task % 4000, k % GROUP, draw.randint(turns // 2, turns))


def write(
    folder: Path, count: int, *, per_step: int = 128, turns: int = 24, with_columns: bool = False
) -> None:
    """Write a run folder with so many episodes."""
    folder.mkdir(parents=True)
    config = CONFIG.format(folder=json.dumps(str(folder)), steps=-(-count // per_step))
    (folder / "config.toml").write_text(config)
    (folder / "meta.json").write_text(json.dumps({"seed": 0, "started": "2026-01-01T00:00:00"}))
    draw, step, won, n, played = random.Random(1), 0, 0, 0, 0
    with (
        (folder / "episodes.jsonl").open("w") as episodes,
        (folder / "columns.jsonl").open("w") as signals,
        (folder / "metrics.jsonl").open("w") as metrics,
    ):
        for line in lines(count, per_step=per_step, turns=turns):
            if line["step"] != step:
                metrics.write(json.dumps(metric(step, won, n, played)) + "\n")
                step, won, n, played = int(str(line["step"])), 0, 0, 0
            episodes.write(json.dumps(line, separators=(",", ":")) + "\n")
            if with_columns:
                signals.write(json.dumps(columns(draw, line), separators=(",", ":")) + "\n")
            turns_of = line["turns"]
            assert isinstance(turns_of, list)
            won, n, played = won + bool(line["won"]), n + 1, played + len(turns_of)
        metrics.write(json.dumps(metric(step, won, n, played)) + "\n")
    if not with_columns:
        (folder / "columns.jsonl").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--bytes", type=float, default=2e9, help="about so large (default: 2e9)")
    parser.add_argument("--columns", action="store_true", help="write columns.jsonl too")
    asked = parser.parse_args()
    sample = [json.dumps(line, separators=(",", ":")) for line in lines(20)]
    per_turn = sum(map(len, sample)) / len(sample) / 18  # 18: the mean of 12 to 24 turns
    turns = max(2, round(asked.bytes / asked.episodes / per_turn / 0.75))
    write(asked.folder, asked.episodes, turns=turns, with_columns=asked.columns)
    size = sum(path.stat().st_size for path in asked.folder.iterdir())
    print(f"{asked.folder}: {asked.episodes} episodes, {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
