"""Whether two whole runs agree: the same episodes and evaluations, and numbers to 1e-6."""

import json
from pathlib import Path
from typing import Any

import pytest


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / "run" / name
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def played(folder: Path) -> list[dict[str, Any]]:
    """Every episode, but for the log-probabilities: how they are rounded depends on what is
    computed beside them."""
    return [
        {**line, "turns": [{**turn, "logps": len(turn["logps"])} for turn in line["turns"]]}
        for line in lines(folder, "episodes.jsonl")
    ]


def agree(folder: Path, other: Path) -> None:
    """Two runs: the same episodes and evaluations, and numbers to 1e-6."""
    assert played(other) == played(folder)
    assert lines(other, "evals.jsonl") == lines(folder, "evals.jsonl")
    pairs = zip(lines(folder, "metrics.jsonl"), lines(other, "metrics.jsonl"), strict=True)
    for one, two in pairs:
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-6)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], abs=1e-6)
        same = ("step", "phase", "episodes", "won", "return", "tokens", "turns", "lr", "stops")
        assert {k: two[k] for k in same} == {k: one[k] for k in same}
    assert len(lines(other, "timings.jsonl")) == len(lines(folder, "timings.jsonl"))
