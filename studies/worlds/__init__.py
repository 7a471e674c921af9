"""Learning curves of five suites besides household, after a warm start by imitation."""

from pathlib import Path

HERE = Path(__file__).parent
WORLDS = ("webshop", "search_qa", "tau_bench", "travelplanner", "scienceworld")


def study_file(world: str) -> Path:
    return HERE / f"{world}.toml"


def results_file(world: str) -> Path:
    return HERE / f"{world}.json"
