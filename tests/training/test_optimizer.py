"""The optimiser in main memory takes the steps of the one that is not."""

import pytest
import torch
from torch import Tensor

from tutelage.runs.checkpoint import optimizer_tensors, restore_optimizer
from tutelage.training.optimizer import OffloadedAdamW, adamw

SETTINGS = {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.01}


def weights(seed: int) -> list[Tensor]:
    gen = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (2, 2, 2), (1,)]
    return [torch.randn(*shape, generator=gen).requires_grad_() for shape in shapes]


def stepped(parameters: list[Tensor], optimizer: torch.optim.Optimizer, first: int = 0) -> None:
    """Random gradients, a rate that changes, and now and then a weight without a gradient."""
    for step in range(first, first + 4):
        gen = torch.Generator().manual_seed(step)
        for k, p in enumerate(parameters):
            p.grad = torch.randn(p.shape, generator=gen)
            if k == step % 3:
                p.grad = None
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (step + 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("seed", range(3))
def test_steps_in_main_memory_are_the_same_bit_for_bit(seed: int) -> None:
    here, there = weights(seed), weights(seed)
    one, other = adamw(here, **SETTINGS, offload=False), adamw(there, **SETTINGS, offload=True)
    assert type(one) is torch.optim.AdamW
    assert isinstance(other, OffloadedAdamW)
    stepped(here, one)
    stepped(there, other)
    for a, b, c in zip(here, there, weights(seed), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    mine, its = optimizer_tensors(one), optimizer_tensors(other)
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in mine)
    assert {x.device.type for x in its.values()} == {"cpu"}


def test_no_moment_and_no_gradient_stays_where_the_weights_are() -> None:
    there = weights(0)
    other = adamw(there, **SETTINGS, offload=True)
    stepped(there, other)
    assert not other.state  # of torch's own, on the weights' device
    assert all(p.grad is None for p in there)
    addresses = {x.data_ptr() for x in optimizer_tensors(other).values()}
    assert not addresses & {p.data_ptr() for p in there}


def test_norms_are_clipped_on_the_gradients_that_are_used() -> None:
    here, there = weights(0), weights(0)
    for parameters, offload in ((here, False), (there, True)):
        optimizer = adamw(parameters, **SETTINGS, offload=offload)
        for p in parameters:
            p.grad = torch.full_like(p, 100.0)
        listed = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(listed, 1.0)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("offload", [False, True])
def test_a_restored_optimiser_goes_on_as_if_never_stopped(
    offload: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("state") / "optimizer.safetensors"
    whole = weights(1)
    optimizer = adamw(whole, **SETTINGS, offload=offload)
    stepped(whole, optimizer)
    save_file(optimizer_tensors(optimizer), path)
    resumed = [p.detach().clone().requires_grad_() for p in whole]
    stepped(whole, optimizer, first=4)
    again = adamw(resumed, **SETTINGS, offload=offload)
    restore_optimizer(again, path)
    stepped(resumed, again, first=4)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
