"""Sinks: the real packages are sent every line once, a failing one stops nothing and catches up."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.tiny_runs import tiny_file

from tutelage.cli.main import main
from tutelage.config.toml_file import load
from tutelage.rollout.record import read
from tutelage.runs import sinks
from tutelage.runs.sinks import Sinks, flat

Captured = pytest.CaptureFixture[str]
TEXT = (
    tiny_file(
        run={"steps": 2, "checkpoint_every": 1},
        algorithm={"name": "sft"},
        eval={"every": 1, "tasks": 9},
    )
    + '[warm_start]\nname = "sft"\nsteps = 1\nlr = 1e-3\n'
)
STEPS = 3  # the warm start's one included


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(TEXT)
    return tmp_path


def wanted(folder: Path) -> dict[str, list[float]]:
    """By name, what a sink must have: read off the run's own files."""
    rows: dict[str, list[float]] = {}
    for name, value in (
        *((f"{x['phase']}/grad_norm", x["grad_norm"]) for x in read(folder / "metrics.jsonl")),
        *(("eval/success", x["success"]) for x in read(folder / "evals.jsonl")),
    ):
        rows.setdefault(name, []).append(float(str(value)))
    return rows


def is_there(package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tutelage[...]'")


def test_tensorboard_reads_the_run(here: Path) -> None:
    is_there("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["train", "my.toml", "--quiet", "--sink", "tensorboard"]) == 0
    found = EventAccumulator(str(here / "run" / "tensorboard"))
    found.Reload()
    for name, values in wanted(here / "run").items():
        rows = found.Scalars(name)
        assert [row.value for row in rows] == pytest.approx(values)
        first = 1 if name != "warm_start/grad_norm" else 0
        assert [row.step for row in rows] == list(range(first, first + len(values)))
    assert "seconds/generate" in found.Tags()["scalars"]


def test_mlflow_reads_the_run(here: Path) -> None:
    is_there("mlflow")
    assert main(["train", "my.toml", "--quiet", "--sink", "mlflow"]) == 0
    from mlflow import MlflowClient

    client = MlflowClient((here / "run" / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("tutelage").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["algorithm.name"] == "sft"
    for name, values in wanted(here / "run").items():
        rows = client.get_metric_history(run.info.run_id, name)
        assert [row.value for row in sorted(rows, key=lambda r: r.step)] == values


def blocks(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after 7 bytes of its own, in blocks of
    32 kB, each part with a checksum, its length and whether it is whole, first, middle or last."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_wandb_reads_the_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_there("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["train", "my.toml", "--quiet", "--sink", "wandb"]) == 0
    (file,) = (here / "run" / "wandb").glob("offline-run-*/*.wandb")
    rows: dict[str, list[float]] = {}
    for raw in blocks(file.read_bytes()):
        record = Record()
        record.ParseFromString(raw)
        for item in record.history.item:
            name = "/".join(item.nested_key) or item.key
            rows.setdefault(name, []).append(json.loads(item.value_json))
    for name, values in wanted(here / "run").items():
        assert rows[name] == pytest.approx(values)


def test_trackio_reads_the_run_and_its_conversations(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    is_there("trackio")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    folder = here / "trackio"
    for module in (utils, __import__("trackio.sqlite_storage", fromlist=["x"])):
        monkeypatch.setattr(module, "TRACKIO_DIR", folder, raising=False)
    assert main(["train", "my.toml", "--json", "--sink", "trackio"]) == 0
    assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())
    name = sinks.states(here / "run")["trackio"]["own"]["id"]
    logs = SQLiteStorage.get_logs("tutelage", name)
    for key, values in wanted(here / "run").items():
        assert [row[key] for row in logs if key in row] == pytest.approx(values)
    episodes = list(read(here / "run" / "episodes.jsonl"))
    traces = SQLiteStorage.get_traces("tutelage", name)
    assert len(traces) == len(episodes) == 2 * STEPS
    answers = {trace["messages"][1]["content"] for trace in traces}
    assert answers == {episode["turns"][0]["text"] for episode in episodes}  # type: ignore[index]


# -- failing


class Flaky:
    """A sink that fails as often as it is told to, and remembers what it was sent."""

    failures = 0
    rows: list[tuple[int, Mapping[str, float]]] = []  # noqa: RUF012 - one for all, on purpose
    opened = 0

    def __init__(self, *arguments: object) -> None:
        type(self).opened += 1

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if type(self).failures:
            type(self).failures -= 1
            raise ConnectionError("the tracker is away\nfor today")
        self.rows.append((step, values))

    def talk(self, step: int, line: object) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[Flaky]:
    monkeypatch.setitem(sinks.KINDS, "tensorboard", Flaky)
    monkeypatch.setitem(sinks.PACKAGES, "tensorboard", "json")
    monkeypatch.setattr(Flaky, "failures", 0)
    monkeypatch.setattr(Flaky, "rows", [])
    monkeypatch.setattr(Flaky, "opened", 0)
    return Flaky


def names_of(rows: Sequence[tuple[int, Mapping[str, float]]], prefix: str) -> list[int]:
    return [step for step, values in rows if any(name.startswith(prefix) for name in values)]


def test_a_failing_sink_stops_nothing_and_is_sent_what_it_missed(
    here: Path, flaky: type[Flaky], capsys: Captured
) -> None:
    flaky.failures = 10**6
    assert main(["train", "my.toml", "--sink", "tensorboard"]) == 0
    output = capsys.readouterr().out
    assert "tensorboard lacks lines of the run (the tracker is away)" in output
    assert "tutelage send run --sink tensorboard" in output
    assert len(list(read(here / "run" / "metrics.jsonl"))) == STEPS
    assert flaky.rows == []
    flaky.failures = 0
    # continued without naming the sink: the run remembers it
    assert main(["train", "my.toml", "--quiet", "--resume", "run.steps=3"]) == 0
    assert names_of(flaky.rows, "train/") == [1, 2, 3]
    assert names_of(flaky.rows, "warm_start/") == [0]
    assert names_of(flaky.rows, "eval/") == [1, 2, 3, 4]


def test_what_was_sent_is_not_sent_again(here: Path, flaky: type[Flaky], capsys: Captured) -> None:
    assert main(["train", "my.toml", "--quiet", "--sink", "tensorboard"]) == 0
    sent = len(flaky.rows)
    assert main(["send", "run"]) == 0
    assert "sent to tensorboard" in capsys.readouterr().out
    assert len(flaky.rows) == sent
    # a run that is cut back to a checkpoint writes the same lines anew: they were sent
    metrics = (here / "run" / "metrics.jsonl").read_bytes()
    (here / "run" / "metrics.jsonl").write_bytes(b"".join(metrics.splitlines(True)[:-1]))
    assert main(["send", "run"]) == 0
    (here / "run" / "metrics.jsonl").write_bytes(metrics)
    assert main(["send", "run"]) == 0
    assert len(flaky.rows) == sent


def test_a_run_without_sinks_has_none(here: Path, capsys: Captured) -> None:
    assert main(["train", "my.toml", "--quiet"]) == 0
    assert not (here / "run" / sinks.STATE).exists()
    assert main(["send", "run"]) == 2
    assert "has no sinks yet" in capsys.readouterr().err
    assert main(["send", "my.toml", "--sink", "wandb"]) == 2


def test_the_bytes_of_a_run_are_the_same_with_a_sink(here: Path, flaky: type[Flaky]) -> None:
    assert main(["train", "my.toml", "--quiet", "--sink", "tensorboard"]) == 0
    assert main(["train", "my.toml", "--quiet", "run.folder=other"]) == 0
    for name in ("metrics.jsonl", "episodes.jsonl", "evals.jsonl"):
        assert (here / "run" / name).read_bytes() == (here / "other" / name).read_bytes()


def test_a_slow_sink_holds_up_no_run(
    here: Path, flaky: type[Flaky], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    import threading

    free = threading.Event()
    monkeypatch.setattr(flaky, "flush", lambda self: free.wait(60))
    monkeypatch.setattr(sinks, "PATIENCE", 0.2)
    monkeypatch.setattr(Sinks.close, "__defaults__", (0.2,))
    assert main(["train", "my.toml", "--sink", "tensorboard"]) == 0
    assert "tensorboard lacks lines of the run (it is still sending)" in capsys.readouterr().out
    free.set()


def test_a_sink_that_is_not_installed_is_refused_before_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sinks.PACKAGES, "wandb", "no_such_package")
    assert main(["train", "my.toml", "--sink", "wandb"]) == 2
    assert "pip install 'tutelage[wandb]'" in capsys.readouterr().err
    assert not (here / "run").exists()
    (here / "run").mkdir()
    (here / "run" / sinks.STATE).write_text("[1]")
    with pytest.raises(Exception, match=r"\.sinks\.json cannot be read"):
        Sinks(here / "run", load(here / "my.toml"), [])


def test_only_finite_numbers_are_sent() -> None:
    table: dict[str, Any] = {
        "a": {"b": {"c": 1}},
        "d": float("nan"),
        "e": None,
        "f": True,
        "g": "x",
    }
    assert flat(table) == {"a/b/c": 1.0, "f": 1.0}


def test_lines_that_come_just_before_the_end_are_sent(here: Path, flaky: type[Flaky]) -> None:
    assert main(["train", "my.toml", "--quiet"]) == 0
    folder = here / "run"
    file = folder / "metrics.jsonl"
    *lines, last = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines))

    class Overtaken(sinks._Sender):
        """The run writes its last line and ends right after everything before was sent."""

        def _send(self) -> None:
            super()._send()
            if not self.ending:
                with file.open("a") as out:
                    out.write(last)
                self.ending = True
                self.awake.set()

    sender = Overtaken("tensorboard", folder, {}, sinks.Notes(folder))
    sender.thread.start()
    sender.thread.join(timeout=30)
    assert not sender.thread.is_alive()
    assert names_of(flaky.rows, "train/grad_norm") == [1, 2]
