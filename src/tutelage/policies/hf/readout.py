"""How a model turns its last hidden states into logits: a linear head, and what follows it.

A soft cap, a factor or a bias is part of a model's distribution. Scoring keeps hidden states and
multiplies them by the head a chunk of tokens at a time, so what stands around the head has to be
known: it is found by letting the model compute it for chosen numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.policies.hf.architecture import text_config

LARGEST = 100.0
"""Of the chosen numbers: far beyond where a soft cap begins to bend."""
TOLERANCE = 1e-5
"""Relative error up to which a formula is that of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """logits = f(scale (W h + bias)), with f(x) = cap tanh(x / cap) or x.

    output  the module of W [V, H] and its bias; None where the logits are no such formula, and are
            computed by the model as a whole
    """

    output: Any = None
    scale: float = 1.0
    cap: float = 0.0

    @property
    def bias(self) -> Tensor | None:
        return getattr(self.output, "bias", None)

    @property
    def plain(self) -> bool:
        """Whether logits are W h alone."""
        linear = self.output is not None and self.bias is None
        return linear and self.scale == 1 and not self.cap

    def head(self, size: int, like: Tensor) -> Tensor:
        """W [size, H] with the bias as a last column, to be multiplied with `rows`; [size, 0] where
        those are the logits."""
        if self.output is None:
            return like.new_zeros(size, 0)
        weight: Tensor = self.output.weight
        weight = weight if len(weight) == size else weight[:size]
        if self.bias is None:
            return weight
        return torch.cat([weight, self.bias[:size, None].to(weight.dtype)], 1)

    def rows(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., H] scaled, and with a last column for the bias."""
        if self.scale != 1:
            hidden = hidden * self.scale
        if self.output is None or self.bias is None:
            return hidden
        one = torch.full_like(hidden[..., :1], self.scale)
        return torch.cat([hidden, one], -1)


@contextmanager
def caught(output: Any) -> Iterator[list[Tensor]]:
    """What the head is given inside the context. It is passed on for the first position only: the
    rest of its product would not be read."""
    states: list[Tensor] = []

    def catch(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states.append(inputs[0])
        return (inputs[0][:, :1], *inputs[1:])

    hook = output.register_forward_pre_hook(catch)
    try:
        yield states
    finally:
        hook.remove()


@torch.no_grad()
def find(model: Any, ids: Tensor) -> Readout:
    """The formula by which a model computes the logits of ids [1, T]."""
    output = model.get_output_embeddings()
    weight = getattr(output, "weight", None)
    if weight is None or weight.dim() != 2 or not weight.is_floating_point():
        return Readout()
    if any(name not in ("weight", "bias") for name, _ in output.named_parameters()):
        return Readout()  # it trains more than a linear head
    found: list[tuple[Tensor, Tensor]] = []
    hook = output.register_forward_hook(lambda _, inputs, z: found.append((inputs[0], z)))
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        hook.remove()
    readout = Readout(output=output)
    if len(found) != 1 or found[0][0].shape != (*ids.shape, weight.shape[1]):
        return Readout()
    hidden, product = found[0]
    ours = hidden @ weight.T if readout.bias is None else hidden @ weight.T + readout.bias
    if ours.shape != product.shape or not _same(ours, product, 10 * TOLERANCE):
        return Readout()
    count = product.numel()
    chosen = torch.linspace(-LARGEST, LARGEST, count, device=ids.device).view_as(product)
    hook = output.register_forward_hook(lambda *_: chosen.to(product.dtype))
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    if logits.shape != product.shape:
        return Readout()
    for scale, cap in _formulas(model.config, chosen, logits.float()):
        ours = chosen * scale
        if _same(cap * torch.tanh(ours / cap) if cap else ours, logits.float(), TOLERANCE):
            return Readout(output=output, scale=scale, cap=cap)
    return Readout()


def _formulas(config: Any, x: Tensor, y: Tensor) -> Iterator[tuple[float, float]]:
    """Factors and caps to try, most likely ones first: the configuration's own numbers. Any other
    might be a parameter, which is trained."""
    yield 1.0, 0.0
    numbers = {
        name: float(value)
        for name, value in vars(text_config(config)).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and value
    }
    small = x.abs() < LARGEST / 50  # a cap bends little there
    slope = float((x * y)[small].sum() / (x * x)[small].sum())
    slopes = [
        1.0,
        *(s for v in numbers.values() for s in (v, 1 / v) if abs(s - slope) < 1e-3),
    ]
    caps = [0.0, *(v for name, v in numbers.items() if "cap" in name)]
    yield from ((scale, cap) for cap in caps for scale in slopes)


def _same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool(((a - b).abs() <= tolerance * b.abs().max()).all())
