"""Results of evaluations on disk: a summary, a row per task with its transcript, and the episodes.

summary.json    a list with one entry per policy: success, interval, families, outcomes, measures
tasks.jsonl     one line per policy, task and repeat: outcome, score, turns, tokens, every turn's text
episodes.jsonl  the same episodes as a run records them, with token ids and log-probs

While an evaluation is played its episodes are in FOLDER.partial; one that was killed goes on there.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tutelage.config import json_text
from tutelage.config.plain_file import read_bytes, read_text
from tutelage.errors import RunError
from tutelage.evaluation import measures, panels
from tutelage.evaluation.evaluate import Evaluation, Known
from tutelage.rollout import record
from tutelage.rollout.disk import new, reason, remove, write_whole
from tutelage.rollout.record import Line, dump, episode_line
from tutelage.types import Episode

SUMMARY, TASKS, EPISODES, FACTS = "summary.json", "tasks.jsonl", "episodes.jsonl", "eval.json"


def summary(evaluation: Evaluation, name: str, *, step: int, facts: Line) -> Line:
    """All that an evaluation says in numbers: each measure with its n and interval, in all and by
    family, the panel, and what it was played with.

    step   training steps of the policy
    facts  temperature, seed and what else decides the result
    """
    rows = measures.played(evaluation)
    families = measures.by_family(rows)
    return {
        **evaluation.line(step, name),
        "panel_name": panels.name_of(evaluation.panel),
        "repeats": evaluation.repeats,
        "episodes": len(rows),
        **{key: facts[key] for key in ("model", "temperature", "seed") if key in facts},
        "measures": measures.as_json(measures.measured(rows)),
        "measures_by_family": {name: measures.as_json(found) for name, found in families.items()},
    }


def write(
    evaluations: Mapping[str, Evaluation],
    folder: Path,
    *,
    step: int,
    facts: Mapping[str, Line] | None = None,
) -> None:
    """Write evaluations by policy into a new folder. Raises RunError if it cannot be created.

    step   training steps of the student, as in a run's evals.jsonl
    facts  of each policy, what it was played with
    """
    with new(folder) as draft:
        draft.mkdir()
        lines = [
            summary(evaluation, name, step=step, facts=(facts or {}).get(name, {}))
            for name, evaluation in evaluations.items()
        ]
        text = json.dumps(lines, indent=1, ensure_ascii=False) + "\n"
        (draft / SUMMARY).write_text(text, encoding="utf-8")
        rows = (draft / TASKS).open("wb"), (draft / EPISODES).open("wb")
        with rows[0] as tasks, rows[1] as episodes:
            for name, evaluation in evaluations.items():
                for episode, tokens in zip(evaluation.episodes, evaluation.tokens, strict=True):
                    line = {"policy": name, **episode_line(episode, step)}
                    tasks.write(dump(task_row(name, episode, tokens)).encode() + b"\n")
                    episodes.write(dump(line).encode() + b"\n")


class Partial:
    """The episodes of an evaluation under way, in a folder beside the one that it will have.

    facts  decide the result: only an evaluation with the same ones goes on

    Raises RunError where the folder holds another evaluation, or cannot be written.
    """

    def __init__(self, out: Path, facts: Line) -> None:
        self.folder = out.with_name(f"{out.name}.partial")
        self.known: dict[str, dict[str, list[Known]]] = {}
        facts = json.loads(json.dumps(facts))
        path = self.folder / FACTS
        try:
            if path.exists():
                self._compare(json_text.table(read_text(path)), facts)
                self._read()
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
            self.log = record.Log(self.folder / EPISODES)
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise RunError(
                f"{self.folder} cannot be used ({why}); remove it, or choose another --out"
            ) from error

    def _compare(self, before: Line, facts: Line) -> None:
        for name in facts.keys() | before.keys():
            if before.get(name) != facts.get(name):
                raise RunError(
                    f"{self.folder} holds an evaluation with another {name}; repeat its command to "
                    "finish it, remove the folder, or choose another --out"
                )

    def _read(self) -> None:
        path = self.folder / EPISODES
        if not path.exists():
            return
        data = read_bytes(path)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)  # a line that a kill cut short
        for line in record.read(path):
            one = Known(episode=record.episode_of(line), tokens=int(str(line.get("sampled"))))
            tasks = self.known.setdefault(str(line.get("policy")), {})
            copies = tasks.setdefault(one.episode.task.id, [])
            if all(other.episode.copy != one.episode.copy for other in copies):
                copies.append(one)

    def finished(self, name: str, repeats: int) -> dict[str, list[Known]]:
        """The tasks of a policy all of whose repeats are there, in their order."""
        return {
            task: sorted(copies, key=lambda one: one.episode.copy)
            for task, copies in self.known.get(name, {}).items()
            if len(copies) == repeats
        }

    def add(self, name: str, one: Known) -> None:
        """Note a finished episode, so that it outlives this process."""
        line = episode_line(one.episode, 0)
        self.log.write({"policy": name, "sampled": one.tokens, **line})
        self.log.flush()

    def close(self, *, done: bool) -> None:
        """Once all is written elsewhere, nothing is left of it."""
        self.log.close()
        if done:
            remove(self.folder)


def task_row(policy: str, episode: Episode, tokens: int | None = None) -> Line:
    """The outcome of one task, and its transcript."""
    sampled = sum(len(turn.tokens) for turn in episode.turns) if tokens is None else tokens
    return {
        "policy": policy,
        "task": episode.task.id,
        "copy": episode.copy,
        "family": episode.task.family,
        "won": episode.won,
        "score": episode.score,
        "return": episode.total_reward,
        "turns": len(episode.turns),
        "tokens": sampled,
        "invalid": sum(not turn.valid for turn in episode.turns),
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
