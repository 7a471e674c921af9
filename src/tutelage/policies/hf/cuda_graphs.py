"""Passes of fixed shapes as CUDA graphs: kernels are recorded once and launched together.

At one token per slot, or the few new tokens of a turn, a small model's kernels are shorter than the
time a CPU needs to launch them one by one.
"""

import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch

from tutelage.policies.hf.fused import used_always

WARMUP_RUNS = 3
"""Runs before a recording, in which libraries choose kernels and allocate their workspace."""
Shape = tuple[str, int, int]
"""What a pass does, and its two sizes."""
Step = Callable[[], None]


class Recorder(Protocol):
    """Runs a step and returns a function that repeats it: the same operations on the same memory,
    with its current contents. The step's first runs must have no lasting effect."""

    def __call__(self, step: Step) -> Step: ...


class CudaRecorder:
    """Records CUDA graphs that share one memory pool: they never run at the same time.

    The stream is this recorder's own. torch records every graph on one shared stream by default,
    and libraries such as cuBLAS keep their workspace by stream, so that student and teacher would
    share it. The pool is taken from the newest graph that still exists, because torch ends a pool
    with its last graph and asserts that it is not used again.
    """

    def __init__(self, device: str) -> None:
        self.stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.last: Callable[[], Any] = lambda: None  # the newest graph, while it exists

    def __call__(self, step: Step) -> Step:
        # allocations and the choice of kernels must happen before the recording, on its stream
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            for _ in range(WARMUP_RUNS):
                step()
        current.wait_stream(self.stream)
        last, graph = self.last(), torch.cuda.CUDAGraph()
        pool = None if last is None else last.pool()
        with torch.cuda.graph(graph, pool=pool, stream=self.stream):
            step()
        self.last = weakref.ref(graph)
        return graph.replay


class Recordings:
    """One recording for each shape, made at its first use."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.replays: dict[Shape, Step] = {}

    def get(self, shape: Shape, step: Step) -> Step:
        if shape not in self.replays:
            with used_always():
                self.replays[shape] = self.recorder(step)
        return self.replays[shape]

    def forget(self) -> None:
        """Drop all recordings: the tensors have moved."""
        self.replays.clear()


def rounded(count: int, most: int) -> int:
    """Up to the next of 64, 96, 128, 192, 256, 384 and so on, so that few shapes occur.

    >>> [rounded(n, 1000) for n in (1, 65, 97, 300, 900)]
    [64, 96, 128, 384, 1000]
    """
    size = 64
    while size < count:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, most)
