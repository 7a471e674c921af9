"""A model that does not fit into memory is no model whose code is wrong."""

import pytest
import torch
from policies.test_plain_path import model
from support.tiny_models import small_chat

from tutelage.errors import PolicyError, lacks_memory
from tutelage.policies.hf.policy import HFPolicy


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("it has 3 heads"), False),
    ],
    ids=repr,
)
def test_what_says_that_memory_ran_out(error: Exception, lacks: bool) -> None:
    assert lacks_memory(error) == lacks
    broken = RuntimeError("operation failed due to a previous error during capture")
    broken.__context__ = error
    assert lacks_memory(broken) == lacks


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_lack_of_memory_while_a_model_is_tried_is_raised(at: int) -> None:
    """In its own pass, in packed ones and in those after it."""
    of, calls = model("qwen3"), 0

    def full(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    of.model.layers[0].register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        HFPolicy(of, small_chat())


def test_other_errors_of_a_models_code_are_a_sentence() -> None:
    of = model("qwen3")

    def broken(*args: object) -> None:
        raise RuntimeError("no such kernel")

    of.model.layers[0].register_forward_pre_hook(broken)
    with pytest.raises(PolicyError, match="no such kernel"):
        HFPolicy(of, small_chat())
