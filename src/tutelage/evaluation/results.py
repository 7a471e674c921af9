"""Results of evaluations on disk: a summary, a row per task with its transcript, and the episodes.

summary.json    a list with one entry per policy: success, interval, families, outcomes
tasks.jsonl     one line per policy and task: outcome, score, and the text of every turn
episodes.jsonl  the same episodes as a run records them, with token ids and log-probs
"""

import json
from collections.abc import Mapping
from pathlib import Path

from tutelage.errors import RunError
from tutelage.evaluation.evaluate import Evaluation
from tutelage.rollout.record import Line, Log, episode_line
from tutelage.types import Episode

SUMMARY, TASKS, EPISODES = "summary.json", "tasks.jsonl", "episodes.jsonl"


def write(evaluations: Mapping[str, Evaluation], folder: Path, *, step: int) -> None:
    """Write evaluations by policy into a new folder. Raises RunError if it cannot be created.

    step  training steps of the student, as in a run's evals.jsonl
    """
    try:
        folder.mkdir(parents=True)
        summary = [evaluation.line(step, name) for name, evaluation in evaluations.items()]
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise RunError(f"{folder} exists already; choose another folder, or remove it") from None
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written ({error.strerror}); choose another folder"
        ) from error
    tasks, episodes = Log(folder / TASKS), Log(folder / EPISODES)
    for name, evaluation in evaluations.items():
        for episode in evaluation.episodes:
            tasks.write(task_row(name, episode))
            episodes.write({"policy": name, **episode_line(episode, step)})
    tasks.close()
    episodes.close()


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
