"""AdamW, with its moments where the weights are or in main memory, and its learning rate."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from tutelage.config.schema import LearningRate


class OffloadedAdamW(torch.optim.AdamW):
    """AdamW whose step is taken in main memory, on a copy of the weights that stays there.

    The device keeps weights and gradients, 8 of the 16 bytes a parameter; a step sends the
    gradients over and the weights back. Its results are those of AdamW on a CPU.
    """

    def __init__(self, parameters: Iterable[Tensor], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self._groups = [list(group["params"]) for group in self.param_groups]
        self._at_home = torch.optim.AdamW(
            [{"params": [_home(p) for p in group]} for group in self._groups], **settings
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("an optimiser in main memory takes no closure: call step() without")
        pairs = list(self._pairs())
        for away, home in pairs:
            home.grad = None if away.grad is None else away.grad.to("cpu")
        for group, at_home in zip(self.param_groups, self._at_home.param_groups, strict=True):
            at_home["lr"] = group["lr"]
        self._at_home.step()
        for away, home in pairs:
            if home.grad is not None:
                away.copy_(home)
                home.grad = None

    def _pairs(self) -> Iterable[tuple[Tensor, Tensor]]:
        for group, at_home in zip(self._groups, self._at_home.param_groups, strict=True):
            yield from zip(group, at_home["params"], strict=True)

    def state_dict(self) -> dict[str, Any]:
        """As AdamW's, from main memory."""
        return self._at_home.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._at_home.load_state_dict(state_dict)


def _home(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", copy=True)


def adamw(
    parameters: Iterable[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    offload: bool,
) -> torch.optim.Optimizer:
    """AdamW on float32 weights; `offload` keeps its moments in main memory.

    On a GPU a step is one kernel. torch's other form there takes 4 bytes a parameter more, for the
    square roots of all second moments at once.
    """
    weights = list(parameters)
    if offload:
        return OffloadedAdamW(weights, lr=lr, betas=betas, weight_decay=weight_decay)
    fused = bool(weights) and all(p.is_cuda for p in weights)
    return torch.optim.AdamW(
        weights, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused or None
    )


def learning_rate(lr: LearningRate, warmup: int, step: int, steps: int) -> float:
    """The rate of a step: up to the first value over `warmup` steps, then a constant or a schedule,
    which ends at `steps` unless it names its own number of steps."""
    (shape, values), *_ = lr.items() if isinstance(lr, dict) else [("constant", [lr, lr])]
    start, end = values[:2]
    if step < warmup:
        return start * (step + 1) / warmup
    over = values[2] if len(values) == 3 else max(1, steps - warmup)
    done = min(1.0, (step - warmup) / over)
    left = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": (1.0 + math.cos(math.pi * done)) / 2,
    }[shape]
    return end + (start - end) * left


@contextlib.contextmanager
def leaving_no_gradient(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """After an error, drop what was accumulated: whoever goes on would add it to the next step's."""
    try:
        yield
    except BaseException:
        optimizer.zero_grad(set_to_none=True)
        raise
