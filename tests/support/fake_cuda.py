"""The part of torch.cuda that recording touches, on a processor, with the rules that torch has for
it: a pool ends with the last of its graphs, and a graph cannot begin in one that has ended."""

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import torch


class Stream:
    def __init__(self, device: str) -> None:
        self.device, self.waits = device, list[Stream]()

    def wait_stream(self, other: "Stream") -> None:
        self.waits.append(other)


class Graph:
    def __init__(self, cuda: "Cuda") -> None:
        self.cuda, self.id = cuda, 0

    def begin(self, pool: int | None) -> None:
        assert pool is None or self.cuda.used[pool] > 0, "use_count > 0"
        self.id = next(self.cuda.ids) if pool is None else pool
        self.cuda.used[self.id] += 1
        weakref.finalize(self, self.cuda.used.subtract, [self.id])

    def pool(self) -> int:
        return self.id

    def replay(self) -> None:
        self.cuda.replayed.append(self.id)


class Cuda:
    """What has been done on it: `ran` holds the stream of each step, and its graph's pool."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ids, self.used = count(1), Counter[int]()
        self.now = self.usual = Stream("cuda:0")
        self.pool = 0
        self.ran: list[tuple[Stream, int]] = []
        self.replayed: list[int] = []
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "current_stream", lambda device: self.now)
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(self))
        patch.setattr(torch.cuda, "graph", self.graph)

    def step(self) -> None:
        self.ran.append((self.now, self.pool))

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.now, before = stream, self.now
        yield
        self.now = before

    @contextlib.contextmanager
    def graph(self, graph: Graph, pool: Any = None, stream: Any = None) -> Iterator[None]:
        with self.stream(stream or self.usual):
            graph.begin(pool)
            self.pool = graph.id
            yield
            self.pool = 0
