"""A step of fixed shapes as a CUDA graph: its kernels are recorded once and started together.

At one token a row a small model's kernels are shorter than the time a processor needs to start
them one by one.
"""

import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch

WARM = 3
"""Runs before a recording, in which libraries choose and allocate what they work with."""
Shape = tuple[int, int]
Step = Callable[[], None]


class Recorder(Protocol):
    """Runs a step and returns what runs it again: the same operations on the same memory, with
    whatever numbers are there by then. The step's first runs must change nothing that matters."""

    def __call__(self, step: Step) -> Step: ...


class CudaRecorder:
    """Recordings that share one pool of memory: they never run at the same time.

    The stream is this recorder's own. Libraries keep their working memory by stream, and that of
    two engines must not be the same.
    """

    def __init__(self, device: str) -> None:
        self.stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.last: Callable[[], Any] = lambda: None  # the newest graph, as long as it is there

    def __call__(self, step: Step) -> Step:
        # allocations and choices of kernels must lie behind the step before it is recorded, on the
        # stream that records it, and not on the one that everything else waits for
        now = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            for _ in range(WARM):
                step()
        now.wait_stream(self.stream)
        # torch asserts that a pool it is given has a graph, and a pool ends with its last one
        other, graph = self.last(), torch.cuda.CUDAGraph()
        pool = None if other is None else other.pool()
        with torch.cuda.graph(graph, pool=pool, stream=self.stream):
            step()
        self.last = weakref.ref(graph)
        return graph.replay


class Recordings:
    """One recording for each shape, made when it is first needed."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.made: dict[Shape, Step] = {}

    def get(self, shape: Shape, step: Step) -> Step:
        if shape not in self.made:
            self.made[shape] = self.recorder(step)
        return self.made[shape]

    def forget(self) -> None:
        """Tensors have moved."""
        self.made.clear()


def rounded(count: int, most: int) -> int:
    """Up to the next of 64, 96, 128, 192, 256, 384 and so on, so that few shapes occur.

    >>> [rounded(n, 1000) for n in (1, 65, 97, 300, 900)]
    [64, 96, 128, 384, 1000]
    """
    size = 64
    while size < count:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, most)
