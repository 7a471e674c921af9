"""What is fuzzed: each target takes any bytes and checks what must hold for them.

A target raises AssertionError, or an exception that is not a sentence of the project's, for bytes
that should be kept in `corpus/NAME`.
"""

import contextlib
import json
import math
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.tiny_models import small_chat

from tutelage.config import toml_file
from tutelage.envs.guard import one_line
from tutelage.envs.observations import observation, shortened
from tutelage.envs.wire import Garbled, pack_observation, pair, unpack_observation
from tutelage.errors import TutelageError
from tutelage.policies.base import Request
from tutelage.policies.server import http, vllm_api
from tutelage.prompts import answer_format
from tutelage.rollout import record
from tutelage.types import Observation

SENTENCES = (TutelageError,)
CHAT = small_chat()


def text_of(data: bytes) -> str:
    """Text with anything in it, halves of surrogate pairs too."""
    return data.decode("utf-8", "surrogateescape")


def anything(data: bytes) -> Any:
    """A value of JSON, or none where the bytes are not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def answer(data: bytes) -> None:
    """A completion is read, whatever it is."""
    text = data.decode("utf-8", "replace")
    for tags in ((), ("search", "answer")):
        parsed = answer_format.parse(text, tags)
        assert parsed.valid == (answer_format.problem(text, tags) == "")
        assert len(parsed.action) <= answer_format.LONGEST_ACTION
        if parsed.valid:
            assert parsed.action == parsed.action.strip() != ""


def settings(data: bytes) -> None:
    """A training file is a configuration, or a sentence says what is wrong in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.toml"
        path.write_bytes(data)
        try:
            config = toml_file.parse(toml_file.read_table(path))
        except SENTENCES:
            return
    assert toml_file.parse(tomllib.loads(toml_file.write(config))) == config


def override(data: bytes) -> None:
    """A setting on the command line changes the configuration, or a sentence says why not."""
    base: Any = {"env": {"suite": "doors"}, "policy": {"model": "m"}, "algorithm": {"name": "sft"}}
    table = json.loads(json.dumps(base))
    with contextlib.suppress(*SENTENCES):
        toml_file.parse(toml_file.override(table, [data.decode("utf-8", "replace")]))


def content(data: bytes) -> None:
    """Text of an environment never becomes a token of control, and comes back as it was."""
    text = data.decode("utf-8", "replace")
    assert not set(CHAT.content(text)) & CHAT.control


def reply(data: bytes) -> None:
    """A server's answer is numbers, or a sentence says what is wrong in it."""
    value = anything(data)
    line = http._error_text(data)
    assert "\n" not in line
    assert len(line) < 300
    assert 0 <= http._seconds(data.decode("latin-1")) <= http.MAX_PAUSE
    request = Request(key="a", prompt=(1, 2, 3), seed=0, max_new=4, temperature=1.0)
    for read in (
        lambda: vllm_api.read_completion(value, request, [5]),
        lambda: vllm_api.read_scores(value, (1, 2, 3)),
    ):
        try:
            found = read()
        except (vllm_api.InvalidAnswer, LookupError, TypeError, AttributeError):
            continue  # `RemotePolicy` makes one sentence of each of them
        logps = getattr(found, "logps", None)
        assert logps is None or all(math.isfinite(x) and x <= 1e-3 for x in logps)


def frames(data: bytes) -> None:
    """What an environment writes into its connection is a message of ours, or it is noticed."""
    ours, theirs = pair()
    try:
        theirs.sendall(data[:60_000])
        theirs.close()
        for _ in range(3):
            ours.arrived()
    except (Garbled, EOFError):
        pass
    finally:
        ours.close()


def observed(data: bytes) -> None:
    """What an environment returns is an observation that can be sent and logged, or is refused."""
    value = anything(data)
    fields = value if isinstance(value, dict) else {"text": value}
    names = Observation.__slots__ if hasattr(Observation, "__slots__") else ("text",)
    known = {str(k): _hashable(v) for k, v in fields.items() if str(k) in names}
    try:
        seen = shortened(observation(Observation(**{"text": "", **known})))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    packed = json.loads(json.dumps(pack_observation(seen)))
    assert unpack_observation(packed) == seen
    json.dumps([seen.text, seen.reward, seen.score], allow_nan=False, ensure_ascii=False).encode()


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def episode(data: bytes) -> None:
    """A recorded episode is read, or a sentence says that it cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episodes.jsonl"
        path.write_bytes(data)
        try:
            for line in record.read(path):
                record.episode_of(line)
        except SENTENCES:
            pass


def reason(data: bytes) -> None:
    """The message of an exception is one line that can be printed and written."""
    line = one_line(text_of(data))
    assert line.isprintable()
    line.encode()
    assert len(line) < 560


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        answer,
        settings,
        override,
        content,
        reply,
        frames,
        observed,
        episode,
        reason,
    )
}
