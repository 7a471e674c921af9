"""Messages between the trainer and its workers: frames of JSON with a length and a checksum.

An environment shares its process with our end of the connection and may write into it, read from it
or close it. A frame that was not written by `Wire.send` is recognised, so that it costs one episode
and never reaches the trainer as an answer. Observations and tasks travel as plain JSON; states and
tasks of other types are pickled inside of it.
"""

import base64
import json
import pickle
import socket
import struct
import zlib
from collections.abc import Hashable, Iterable, Mapping
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Final

from tutelage.types import Observation, Task

HEADER: Final = struct.Struct(">4sII")  # mark, length, checksum
MARK: Final = b"tl1\n"
LONGEST_FRAME: Final = 64 << 20
"""Longest message in bytes."""
LONGEST_STATE: Final = 1 << 20
"""Longest state in characters of JSON; it is a key, kept for every turn."""
SEND_SECONDS: Final = 20.0
"""Time for the other side to take a message."""
PART: Final = 1 << 20
MOST_ITEMS: Final = 100_000
"""Items of a list that a method of a suite returns, which may be a generator without end."""


class Garbled(Exception):
    """What came is no frame: somebody else wrote into the connection, or read from it."""


class Wire:
    """One end of a connection."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self.buffer = end, bytearray()

    def fileno(self) -> int:
        return self.end.fileno()

    def send(self, message: object) -> None:
        """Raises OSError where the other side is gone or does not read, and ValueError for a
        message that is too long or not of JSON's types."""
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > LONGEST_FRAME:
            raise ValueError(f"it takes {len(body):,} bytes, more than {LONGEST_FRAME:,}")
        self.end.sendall(HEADER.pack(MARK, len(body), zlib.crc32(body)) + body)

    def arrived(self) -> list[Any]:
        """Wait for bytes and return the messages that are complete, which may be none.

        Raises EOFError or OSError where the other side is gone, and Garbled.
        """
        part = self.end.recv(PART)
        if not part:
            raise EOFError
        self.buffer += part
        messages = []
        while len(self.buffer) >= HEADER.size:
            mark, length, checksum = HEADER.unpack_from(self.buffer)
            if mark != MARK or length > LONGEST_FRAME:
                raise Garbled
            end = HEADER.size + length
            if len(self.buffer) < end:
                break
            body = bytes(self.buffer[HEADER.size : end])
            del self.buffer[:end]
            if zlib.crc32(body) != checksum:
                raise Garbled
            try:
                messages.append(json.loads(body))
            except (ValueError, RecursionError):  # the checksum of nothing is 0
                raise Garbled from None
        return messages

    def readable(self) -> bool:
        """Whether bytes have come, or the other side is gone."""
        return bool(wait([self.end], timeout=0))

    def close(self) -> None:
        self.end.close()


def pair() -> tuple[Wire, socket.socket]:
    """The trainer's end and the socket of the worker's."""
    trainer, worker = socket.socketpair()
    trainer.settimeout(SEND_SECONDS)
    return Wire(trainer), worker


# -- what is sent


def pack_observation(seen: Observation) -> list[object]:
    """Raises ValueError or whatever pickling the state raises."""
    state = pack_state(seen.state)
    if len(json.dumps(state)) > LONGEST_STATE:
        raise ValueError(
            f"the state of an observation takes more than {LONGEST_STATE:,} characters; use a short "
            "key, such as a hash of it"
        )
    flags = seen.done, seen.won, seen.valid
    texts = seen.actions, seen.focus, seen.results
    return [seen.text, seen.reward, seen.score, *flags, state, *texts]


def unpack_observation(packed: list[Any]) -> Observation:
    """Raises whatever unpickling the state raises."""
    text, reward, score, done, won, valid, state, actions, focus, results = packed
    return Observation(
        text=text,
        reward=reward,
        score=score,
        done=done,
        won=won,
        valid=valid,
        state=unpack_state(state),
        actions=tuple(actions),
        focus=tuple(focus),
        results=tuple(results),
    )


def pack_state(state: Hashable) -> object:
    """A state as JSON: plain values as they are, tuples by their members, bytes in base64, and any
    other type pickled."""
    if state is None or type(state) in (str, int, float, bool):
        return state
    if type(state) is tuple:
        return {"t": [pack_state(each) for each in state]}
    if type(state) is bytes:
        return {"b": base64.b64encode(state).decode()}
    return {"p": pickled(state)}


def unpack_state(packed: Any) -> Hashable:
    if not isinstance(packed, dict):
        return packed  # type: ignore[no-any-return]
    if "t" in packed:
        return tuple(unpack_state(each) for each in packed["t"])
    if "b" in packed:
        return base64.b64decode(packed["b"])
    return unpickled(packed["p"])  # type: ignore[no-any-return]


def plain(value: object) -> object:
    """What a method of a suite returned, as JSON's types: texts, numbers, and lists and tables of
    them. Raises ValueError for a list without end, and TypeError for anything else."""
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): plain(below) for key, below in value.items()}
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return plain(value.item())  # a number of numpy or torch
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise TypeError(f"it returned a {type(value).__name__}, which is no text, number or list")
    items = [plain(each) for each in islice(value, MOST_ITEMS + 1)]
    if len(items) > MOST_ITEMS:
        raise ValueError(f"it returned more than {MOST_ITEMS:,} items")
    return items


def pack_task(task: Task) -> object:
    plain = (
        type(task) is Task
        and (type(task.id), type(task.family), type(task.seed)) == (str, str, int)
        and type(task.data) is dict
        and _strings(task.data)
    )
    return [task.id, task.family, task.seed, task.data] if plain else {"p": pickled(task)}


def unpack_task(packed: Any) -> Task:
    if isinstance(packed, dict):
        return unpickled(packed["p"])  # type: ignore[no-any-return]
    name, family, seed, data = packed
    return Task(id=name, family=family, seed=seed, data=data)


def _strings(table: Mapping[object, object]) -> bool:
    return all(type(key) is str and type(value) is str for key, value in table.items())


def pickled(value: object) -> str:
    """A value as text, for `unpickled` on the other side."""
    return base64.b64encode(pickle.dumps(value)).decode()


def pickle_file(path: str) -> Any:
    """A value that was pickled into a file, for what is too long for a message."""
    with open(path, "rb") as file:
        return pickle.load(file)


def unpickled(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))
