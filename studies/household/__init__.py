"""The methods of this library on one household panel: one budget, one warm start, several seeds."""

from pathlib import Path

STUDY = Path(__file__).with_name("study.toml")
RESULTS = Path(__file__).with_name("results.json")
