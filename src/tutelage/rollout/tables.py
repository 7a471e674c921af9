"""Recorded episodes as Parquet, and as a log of Inspect (UK AISI's evaluations): written and read."""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from tutelage.errors import RunError, first_line, install
from tutelage.rollout.formats import messages
from tutelage.types import WRONG_TURN

ROWS = 500
"""Episodes that are in memory at a time."""


def _need(package: str, extra: str, what: str) -> None:
    if find_spec(package) is None:
        raise RunError(
            f"{what} needs the package {package}, which is not installed; install it with "
            f"`{install(extra)}`"
        )


def row(line: Mapping[str, Any]) -> dict[str, Any]:
    """An episode as a row: the conversation, the result, and each turn's ids and log-probs."""
    talk: Mapping[str, Any] = messages(line)
    turns = line["turns"]
    return {
        "messages": [
            {"role": m["role"], "content": m["content"], "weight": float(m.get("weight", 1))}
            for m in talk["messages"]
        ],
        "task": talk["task"],
        "family": talk["family"],
        "step": line["step"],
        "copy": line["copy"],
        "won": line["won"],
        "return": float(line["return"]),
        "score": line["score"],
        "stop": line["stop"],
        "turns": [
            {
                "actor": t["actor"],
                "action": t["action"],
                "valid": t["valid"],
                "reward": float(t["reward"]),
                "fresh": t["fresh"],
                "prompt": list(t["prompt"]),
                "tokens": list(t["tokens"]),
                "logps": list(t["logps"]),
            }
            for t in turns
        ],
    }


def _schema() -> Any:
    import pyarrow as pa

    text, number, ids = pa.string(), pa.float64(), pa.list_(pa.int32())
    turn = pa.struct(
        [
            ("actor", text),
            ("action", text),
            ("valid", pa.bool_()),
            ("reward", number),
            ("fresh", pa.bool_()),
            ("prompt", ids),
            ("tokens", ids),
            ("logps", pa.list_(number)),
        ]
    )
    message = pa.struct([("role", text), ("content", text), ("weight", number)])
    return pa.schema(
        [
            ("messages", pa.list_(message)),
            ("task", text),
            ("family", text),
            ("step", pa.int64()),
            ("copy", pa.int64()),
            ("won", pa.bool_()),
            ("return", number),
            ("score", number),
            ("stop", text),
            ("turns", pa.list_(turn)),
        ]
    )


def write_parquet(lines: Iterable[Mapping[str, Any]], path: Path, *, source: str = "") -> int:
    """Write episodes as rows; their number. Raises RunError where pyarrow is not installed."""
    _need("pyarrow", "parquet", "Parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count, left = _schema(), 0, iter(lines)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while rows := [row(line) for line in islice(left, ROWS)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The conversations of a file with a column `messages`, in any tool's form.

    Raises RunError where there is none.
    """
    _need("pyarrow", "parquet", "Parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path} is no Parquet file ({first_line(error)})") from error
    if "messages" not in names:
        raise RunError(f"{path} has no column messages, but {', '.join(names[:8])}")
    wanted = [n for n in ("messages", "task", "family", "won", "return") if n in names]
    for batch in file.iter_batches(ROWS, columns=wanted):
        for found in batch.to_pylist():
            # what one message has and another lacks is null in a table
            talk = [{k: v for k, v in m.items() if v is not None} for m in found["messages"]]
            yield {**{k: v for k, v in found.items() if v is not None}, "messages": talk}


def write_inspect(lines: Iterable[Mapping[str, Any]], path: Path, *, source: str = "") -> int:
    """Write episodes as the samples of one log of Inspect; their number. A path that ends in .json
    is written as JSON, any other in Inspect's own form.

    Raises RunError where inspect-ai is not installed.
    """
    _need("inspect_ai", "inspect", "a log of Inspect")
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalSample,
        EvalSpec,
        write_eval_log,
    )
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    samples, epochs = [], dict[str, int]()
    for line in lines:
        talk: list[Any] = []
        for turn in line["turns"]:
            talk.append(ChatMessageUser(content=turn["seen"]))
            about = {"actor": turn["actor"], "action": turn["action"], "valid": turn["valid"]}
            talk.append(ChatMessageAssistant(content=turn["text"], metadata=about))
        name = str(line["task"]["id"])
        epochs[name] = epochs.get(name, 0) + 1
        scores = {"solved": Score(value="C" if line["won"] else "I")}
        if line["score"] is not None:
            scores["score"] = Score(value=float(line["score"]))
        last_text = line["turns"][-1]["text"] if line["turns"] else ""
        samples.append(
            EvalSample(
                id=name,
                epoch=epochs[name],
                input=line["turns"][0]["seen"] if line["turns"] else "",
                target="",
                messages=talk,
                output=ModelOutput.from_content("tutelage", last_text),
                scores=scores,
                metadata={k: line[k] for k in ("step", "copy", "stop", "return")},
            )
        )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    spec = EvalSpec(
        created=now,
        task=source or "tutelage",
        dataset=EvalDataset(name=source, samples=len(epochs), sample_ids=list(epochs)),
        model="tutelage/student",
        config=EvalConfig(epochs=max(epochs.values(), default=1)),
    )
    log = EvalLog(status="success", eval=spec, samples=samples)
    write_eval_log(log, str(path), format="json" if path.suffix == ".json" else "eval")
    return len(samples)


def read_inspect(path: Path) -> Iterator[dict[str, Any]]:
    """The conversations of a log of Inspect; a sample is won where every score is "C" or 1.

    Raises RunError for a file that is none.
    """
    _need("inspect_ai", "inspect", "a log of Inspect")
    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path))
    except Exception as error:  # a file of anybody's
        why = first_line(error)
        raise RunError(f"{path} is no log of Inspect ({why[:200]})") from error
    for sample in log.samples or ():
        talk = []
        for message in sample.messages:
            entry: dict[str, Any] = {"role": message.role, "content": message.text}
            calls = getattr(message, "tool_calls", None) or ()
            if calls:
                entry["tool_calls"] = [
                    {"function": {"name": c.function, "arguments": c.arguments}} for c in calls
                ]
            if ((message.metadata or {}).get("actor")) == WRONG_TURN:
                entry["weight"] = 0
            talk.append(entry)
        values = [score.value for score in (sample.scores or {}).values()]
        right = bool(values) and all(value in ("C", 1, 1.0, True) for value in values)
        yield {"messages": talk, "task": str(sample.id), "won": right}
