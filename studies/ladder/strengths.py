"""Guided-OPD beside OPD from students of three strengths: does help matter more to weaker students?"""

from pathlib import Path

STUDY = Path(__file__).with_name("strengths.toml")
STARTS = ("weak", "middle", "strong")
"""Tables of the study's file: the student imitated 3, 4 and 10 batches of 32 demonstrations."""


def results_of(start: str) -> Path:
    return STUDY.with_name(f"strengths_{start}.json")
