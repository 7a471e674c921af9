"""Every algorithm's gradient is the same whether its loss is formed at once or in pieces."""

import pytest
import torch
from objective.test_invariance import MAKE, gradient
from support.fake_steps import V, world
from torch.testing import assert_close

from tutelage.maths import distributions
from tutelage.objective import bind
from tutelage.objective.scores import Cut


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_loss_in_pieces_has_the_gradient_of_the_whole(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = world(2)
    step = of.step()
    everything = torch.arange(len(step.batch.token))
    full = gradient(bind(MAKE[name](), of.step()), of, step, [everything])
    monkeypatch.setattr(distributions, "CHUNK_ELEMENTS", size * V)
    leaf = torch.cat(of.hidden["student"]).clone().requires_grad_()
    objective = bind(MAKE[name](), of.step())
    cut, value, taken = Cut(of.live(step, everything, leaf=leaf)), 0.0, 0
    for part, scores in cut.pieces():
        loss = torch.stack([p.sum() for p in objective(scores, everything[part]).values()]).sum()
        if loss.requires_grad:
            loss.backward()
        value += loss.item()
        taken += 1
    cut.send()
    assert taken == -(-len(everything) // size)
    assert leaf.grad is not None
    assert value == pytest.approx(full[0], rel=1e-5, abs=1e-5)
    assert_close(leaf.grad, full[1], atol=1e-6, rtol=1e-4)
