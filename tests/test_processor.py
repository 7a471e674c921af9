"""Threads, how they wait, and how float32 matrices are multiplied."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from policies.tiny import policy

from understudy import processor
from understudy.config import RunSection
from understudy.policies.base import Sample
from understudy.processor import products, threads
from understudy.run import deterministic


@pytest.mark.parametrize(("chosen", "sleeps"), [("", True), ("ACTIVE", False)])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    chosen: str, sleeps: bool
) -> None:
    """What OpenMP itself says that it does since torch loaded it. Told nothing, it calls itself
    passive too, and spins for a while all the same."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP", "KMP"))}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": chosen} if chosen else {})
    command = [sys.executable, "-m", "understudy", "doctor", "--torch"]
    said = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=True
    ).stderr
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this OpenMP does not say how it waits")
    assert ("GOMP_SPINCOUNT = '0'" in said) == sleeps


@pytest.mark.parametrize(
    ("wanted", "quota", "told", "want"),
    [
        (0, "max 100000", "", 6),
        (0, "no such file", "", 6),
        (0, "250000 100000", "", 2),
        (0, "50000 100000", "", 1),
        (0, "900000 100000", "", 6),
        (0, "250000 100000", "6", 6),
        (3, "50000 100000", "", 3),
    ],
)
def test_no_more_threads_than_a_quota_lets_run(
    wanted: int, quota: str, told: str, want: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(processor, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads(wanted) == want


def test_a_run_sets_how_matrices_are_multiplied_and_puts_it_back() -> None:
    of = torch.backends.mkldnn.matmul
    before = of.fp32_precision, torch.get_num_threads()
    with deterministic(RunSection(steps=1, matmul="bfloat16", threads=2)):
        assert (of.fp32_precision, torch.get_num_threads()) == ("bf16", 2)
        with products("float32"):
            assert of.fp32_precision == "ieee"
        assert of.fp32_precision == "bf16"
    assert (of.fp32_precision, torch.get_num_threads()) == before
    with deterministic(RunSection(steps=1)):
        assert of.fp32_precision == "ieee"


def test_rounded_products_are_the_float32_ones_but_for_rounding() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(64, 96), torch.randn(96, 48)
    exact = a @ b
    with products("bfloat16"):
        rounded = a @ b
    # both factors are rounded to 8 bits: 2^-9 each, of terms that add up
    assert (exact - rounded).abs().max() <= 2**-8 * (a.abs() @ b.abs()).max()
    samples = [Sample(prompt=(3, 9, 30), tokens=(8, 41, 7))]
    want = policy().score(samples, 1.0).logp
    with products("bfloat16"):
        made = policy().score(samples, 1.0).logp
    torch.testing.assert_close(made, want, atol=0.05, rtol=0)
