"""The phases of a run: settings that do not go together are refused with what to change."""

import pytest

from tutelage.config.toml_file import parse
from tutelage.errors import ConfigError
from tutelage.runs.phases import phases_of


def test_recorded_episodes_follow_no_hint_of_a_mixture() -> None:
    config = parse(
        {
            "env": {"suite": "household"},
            "rollout": {"replay": "episodes.jsonl"},
            "algorithm": {"name": "sft", "mixture": {"plan": 0.5}},
            "policy": {"layers": 1, "build": {"hidden": 16, "context": 128}},
        }
    )
    with pytest.raises(ConfigError, match=r"remove mixture, or leave rollout\.replay out"):
        phases_of(config)
