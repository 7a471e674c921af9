"""Results of evaluations on disk: a summary, a row per task with its transcript, and the episodes.

summary.json    a list with one entry per policy: success, interval, families, outcomes
tasks.jsonl     one line per policy and task: outcome, score, and the text of every turn
episodes.jsonl  the same episodes as a run records them, with token ids and log-probs
"""

import json
from collections.abc import Mapping
from pathlib import Path

from tutelage.evaluation.evaluate import Evaluation
from tutelage.rollout.disk import new
from tutelage.rollout.record import Line, dump, episode_line
from tutelage.types import Episode

SUMMARY, TASKS, EPISODES = "summary.json", "tasks.jsonl", "episodes.jsonl"


def write(evaluations: Mapping[str, Evaluation], folder: Path, *, step: int) -> None:
    """Write evaluations by policy into a new folder. Raises RunError if it cannot be created.

    step  training steps of the student, as in a run's evals.jsonl
    """
    with new(folder) as draft:
        draft.mkdir()
        summary = [evaluation.line(step, name) for name, evaluation in evaluations.items()]
        text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        (draft / SUMMARY).write_text(text, encoding="utf-8")
        rows = (draft / TASKS).open("wb"), (draft / EPISODES).open("wb")
        with rows[0] as tasks, rows[1] as episodes:
            for name, evaluation in evaluations.items():
                for episode in evaluation.episodes:
                    line = {"policy": name, **episode_line(episode, step)}
                    tasks.write(dump(task_row(name, episode)).encode() + b"\n")
                    episodes.write(dump(line).encode() + b"\n")


def task_row(policy: str, episode: Episode) -> Line:
    """The outcome of one task, and its transcript."""
    return {
        "policy": policy,
        "task": episode.task.id,
        "family": episode.task.family,
        "won": episode.won,
        "score": episode.score,
        "return": episode.total_reward,
        "stop": episode.stop.value,
        "error": episode.error,
        "transcript": [
            {
                "observation": turn.observation.text,
                "reply": turn.text,
                "action": turn.action,
                "valid": turn.valid,
                "reward": turn.reward,
            }
            for turn in episode.turns
        ],
    }
