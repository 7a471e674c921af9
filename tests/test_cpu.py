"""Threads, waiting policy, and float32 matrix products on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.tiny_models import policy

from tutelage import cpu
from tutelage.cpu import Matmul, products, threads
from tutelage.errors import ConfigError
from tutelage.prompts.prompter import Sample
from tutelage.runs.assemble import deterministic


@pytest.mark.parametrize(("chosen", "sleeps"), [("", True), ("ACTIVE", False)])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    chosen: str, sleeps: bool
) -> None:
    """What OpenMP itself says that it does since torch loaded it. Told nothing, it calls itself
    passive too, and spins for a while all the same."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP", "KMP"))}
    environment |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": chosen} if chosen else {})
    command = [sys.executable, "-m", "tutelage", "doctor", "--torch"]
    text = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=True
    ).stderr
    if "GOMP_SPINCOUNT" not in text:
        pytest.skip("this OpenMP does not say how it waits")
    assert ("GOMP_SPINCOUNT = '0'" in text) == sleeps


@pytest.mark.parametrize(
    ("quota", "chosen", "want"),
    [
        ("max 100000", "", 6),
        ("no such file", "", 6),
        ("250000 100000", "", 2),
        ("50000 100000", "", 1),
        ("900000 100000", "", 6),
        ("250000 100000", "6", 6),
    ],
)
def test_no_more_threads_than_a_quota_lets_run(
    quota: str, chosen: str, want: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(cpu, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    assert threads() == want


def test_a_run_sets_how_matrices_are_multiplied_and_puts_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = torch.backends.mkldnn.matmul
    before = of.fp32_precision, torch.get_num_threads()
    monkeypatch.setattr(cpu, "threads", lambda: 2)
    monkeypatch.setenv("TUTELAGE_MATMUL", "bfloat16")
    with deterministic():
        assert (of.fp32_precision, torch.get_num_threads()) == ("bf16", 2)
        assert cpu.onednn()
        with products("blas"):
            assert of.fp32_precision == "ieee"
            assert not cpu.onednn()
        assert of.fp32_precision == "bf16"
    assert (of.fp32_precision, torch.get_num_threads()) == before
    monkeypatch.setenv("TUTELAGE_MATMUL", "blas")
    filling = torch.utils.deterministic
    assert filling.fill_uninitialized_memory  # type: ignore[attr-defined]
    with deterministic():
        assert of.fp32_precision == "ieee"
        # on a GPU nothing is changed
        assert filling.fill_uninitialized_memory == torch.cuda.is_available()  # type: ignore[attr-defined]
    assert filling.fill_uninitialized_memory  # type: ignore[attr-defined]
    monkeypatch.setenv("TUTELAGE_MATMUL", "bf16")
    with (
        pytest.raises(ConfigError, match="TUTELAGE_MATMUL is 'bf16', but must be one of"),
        deterministic(),
    ):
        pass
    assert (of.fp32_precision, torch.get_num_threads()) == before


@pytest.mark.parametrize("rounds", [False, True])
def test_float32_takes_onednn_only_where_that_does_not_round(
    rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiply = torch.Tensor.__matmul__

    def asked(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """A processor with units for bfloat16, or without them."""
        if cpu.onednn() and rounds and len(a) > 64:  # small products may stay as they are
            a, b = a.bfloat16().float(), b.bfloat16().float()
        elif cpu.onednn():  # the processor of this machine may have such units itself
            return multiply(a.double(), b.double()).float()
        return multiply(a, b)

    cpu.exact.cache_clear()
    monkeypatch.setattr(torch.Tensor, "__matmul__", asked)
    try:
        assert cpu.exact() is (not rounds and torch.backends.mkldnn.is_available())
        with products("float32"):
            assert cpu.onednn() is cpu.exact()
        assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    finally:
        cpu.exact.cache_clear()


def test_without_onednn_products_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.exact.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    try:
        assert not cpu.exact()
    finally:
        cpu.exact.cache_clear()


@pytest.mark.parametrize("kind", ["float32", "blas"])
def test_products_in_float32_are_not_rounded(kind: Matmul) -> None:
    torch.manual_seed(0)
    for rows in (1, 8, 33, 700):
        a, b = torch.randn(rows, 96), torch.randn(96, 48)
        with products(kind):
            result = a @ b
        want = a.double() @ b.double()
        # 96 terms with an error of 2^-24 each
        assert (result - want).abs().max() <= 96 * 2**-24 * (a.abs() @ b.abs()).max()


@pytest.mark.parametrize("own", ["", "7"])
def test_few_shapes_of_products_are_kept_unless_the_user_chose(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    for name in names:
        monkeypatch.setenv(name, own) if own else monkeypatch.delenv(name, raising=False)
    with products("bfloat16"):
        assert [os.environ[name] for name in names] == [own or "64"] * 2


GROWTH = """
import gc, random, re, torch
from tutelage.cpu import products
torch.set_num_threads(1)
rng, weights = random.Random(0), [torch.randn(256, n) for n in (256, 512)]
def held():
    gc.collect()
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\\s+(\\d+)", status.read())[1]) / 1e3
with products("bfloat16"):
    for k in range(700):
        rows = torch.randn(rng.randrange(200, 900), 256)
        for w in weights:
            rows @ w
        if k == 100:
            before = held()
print(held() - before)
"""


ONE_PRODUCT = """
import torch
from tutelage.cpu import products
with products("bfloat16"):
    torch.ones(300, 256) @ torch.ones(256, 256)
"""


def multiplied(**more: str) -> str:
    """What a product with leave to round prints. With ONEDNN_VERBOSE, oneDNN names each product
    that it computes; torch hands it none on processors without AVX-512."""
    return subprocess.run(
        [sys.executable, "-c", ONE_PRODUCT],
        env={**os.environ, **more},
        text=True,
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux")
def test_memory_does_not_grow_with_the_number_of_shapes() -> None:
    """Each kept shape of products is some 100 kB to a megabyte."""

    def grown(**more: str) -> float:
        result = subprocess.run(
            [sys.executable, "-c", GROWTH],
            env={**os.environ, **more},
            text=True,
            capture_output=True,
            check=True,
        )
        return float(result.stdout)

    few = grown(ONEDNN_PRIMITIVE_CACHE_CAPACITY="64", LRU_CACHE_CAPACITY="64")
    assert few < 40
    if "onednn_verbose" in multiplied(ONEDNN_VERBOSE="1"):
        many = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024", "LRU_CACHE_CAPACITY": "1024"}
        assert grown(**many) > 3 * few


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
        result = policy().score(samples, 1.0).logp
    torch.testing.assert_close(result, want, atol=0.05, rtol=0)
