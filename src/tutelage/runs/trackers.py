"""Trackers of experiments, each behind the same four calls: TensorBoard, Weights & Biases, MLflow and
trackio.
"""

import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tutelage.errors import NAME
from tutelage.rollout.formats import messages
from tutelage.rollout.record import Line

PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}
"""The package that each sink needs; the extra has the sink's name."""

Numbers = Mapping[str, float]
State = dict[str, Any]
"""What a sink notes for itself, such as the id that a tracker gave the run."""


class Sink(Protocol):
    """One tracker at work. Any exception of it is a failure, after which it is opened again."""

    def numbers(self, step: int, values: Numbers) -> None:
        """Numbers of the step that is the `step`-th of the run, the warm start's included."""
        ...

    def talk(self, step: int, line: Line) -> None:
        """A recorded episode."""
        ...

    def flush(self) -> None:
        """Return when what was given is on its way."""
        ...

    def close(self) -> None: ...


def flat(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a line, those of inner tables under their path.

    >>> flat({"phase": "train", "loss": None, "losses": {"kl": 0.5}, "won": 3, "outcomes": [1, 0]})
    {'losses/kl': 0.5, 'won': 3.0}
    """
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found[prefix + name] = float(value)
    return found


class _WithoutThread:
    """Standard output without what the thread that made this prints: a tracker's greetings would
    stand among a run's lines of JSON."""

    def __init__(self) -> None:
        self.real, self.thread = sys.stdout, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self.thread else self.real.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(_WithoutThread()):
        yield


class _TensorBoard:
    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], state: State) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))
        if not state:
            self.writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```")
        state["folder"] = "tensorboard"

    def numbers(self, step: int, values: Numbers) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def talk(self, step: int, line: Line) -> None: ...

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """WANDB_MODE, WANDB_PROJECT and the other variables of wandb say where it goes."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], state: State) -> None:
        import wandb

        state.setdefault("id", os.urandom(4).hex())
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or NAME,
            name=name,
            id=state["id"],
            resume="allow",
            dir=str(folder),
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(silent=True),
        )
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def numbers(self, step: int, values: Numbers) -> None:
        self.run.log({"step": step, **values})

    def talk(self, step: int, line: Line) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None:
        self.run.finish()


class _Mlflow:
    """MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where it goes; a folder in the run's if
    they do not."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], state: State) -> None:
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if not where:
            # this project's choice of a folder is no wish for a database
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            where = (folder / "mlruns").resolve().as_uri()
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=where)
        if "id" not in state:
            wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME") or NAME
            there = self.client.get_experiment_by_name(wanted)
            experiment = there.experiment_id if there else self.client.create_experiment(wanted)
            run = self.client.create_run(experiment, run_name=name)
            state["id"] = run.info.run_id
            for key, value in _leaves(config):
                self.client.log_param(state["id"], key, str(value)[:500])
        self.id = str(state["id"])

    def numbers(self, step: int, values: Numbers) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [
            Metric(re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII), value, now, step)
            for name, value in values.items()
        ]
        self.client.log_batch(self.id, metrics=rows)

    def talk(self, step: int, line: Line) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None:
        self.client.set_terminated(self.id)


class _Trackio:
    """TRACKIO_PROJECT and TRACKIO_SPACE_ID say where it goes. Conversations are sent as traces."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], state: State) -> None:
        import trackio

        state.setdefault("id", f"{name}-{os.urandom(3).hex()}")
        with _quiet():
            self.run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT") or NAME,
                name=str(state["id"]),
                space_id=os.environ.get("TRACKIO_SPACE_ID") or None,
                config=dict(config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.trace = trackio.Trace

    def numbers(self, step: int, values: Numbers) -> None:
        self.run.log(dict(values), step=step)

    def talk(self, step: int, line: Line) -> None:
        conversation: Mapping[str, Any] = messages(line)
        about = {key: conversation[key] for key in ("task", "family", "won", "return")}
        self.run.log(
            {"episode": self.trace(messages=conversation["messages"], metadata=about)}, step=step
        )

    def flush(self) -> None: ...

    def close(self) -> None:
        with _quiet():
            self.run.finish()


KINDS: dict[str, Callable[[Path, str, Mapping[str, Any], State], Sink]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
    "trackio": _Trackio,
}


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
