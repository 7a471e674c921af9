"""A run's folder in Python: its numbers, episodes, evaluations and checkpoints."""

import os
from pathlib import Path

from tutelage.config.schema import Config
from tutelage.config.toml_file import load
from tutelage.errors import RunError
from tutelage.rollout import record
from tutelage.rollout.record import Line
from tutelage.runs import offline
from tutelage.runs.export import export
from tutelage.runs.folder import CONFIG
from tutelage.types import Episode


class Run:
    """A finished, stopped or running run, read from its folder.

    Raises RunError for a folder that holds none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = _path(folder)
        if not (self.folder / CONFIG).exists():
            raise RunError(
                f"{self.folder} is not a run's folder: it has no {CONFIG}; give the folder that "
                "run.folder names"
            )

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.metrics())} steps)"

    @property
    def config(self) -> Config:
        """Every setting, as the run was started with."""
        return load(self.folder, trust=True)  # read, and not run

    def metrics(self) -> list[Line]:
        """One line of numbers for every finished step, the warm start's first."""
        return list(self._lines("metrics.jsonl"))

    def episodes(self) -> list[Episode]:
        """Every episode that was played to learn from, in the order of steps."""
        return [record.episode_of(line) for line in self._lines("episodes.jsonl")]

    def evaluations(self) -> list[Line]:
        """One line of results for every evaluation: success, its interval, every task's outcome."""
        return list(self._lines("evals.jsonl"))

    def checkpoint(self, name: str = "") -> Path:
        """The folder of a checkpoint such as "step-000100"; of the newest if no name is given.

        Raises ConfigError where there is none.
        """
        if not isinstance(name, str):
            raise RunError(
                f"a checkpoint is named by a text such as 'step-000100', and not by {name!r:.40}"
            )
        return Path(offline.trained(self.folder, name))

    def export(self, path: str | Path, *, checkpoint: str = "") -> Path:
        """Write the student as a folder that transformers reads, adapters merged into its weights.

        Raises RunError rather than overwrite a folder.
        """
        target = _path(path)
        export(self.folder, checkpoint, target)
        return target

    def _lines(self, name: str) -> list[dict[str, object]]:
        path = self.folder / name
        return list(record.read(path)) if path.exists() else []


def _path(folder: object) -> Path:
    if not isinstance(folder, str | os.PathLike):
        raise RunError(f"a folder is named by a text or a Path, and not by {type(folder).__name__}")
    return Path(folder)
