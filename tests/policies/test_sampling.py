"""Sampling by the inverse of the cumulative distribution: its edges, and its frequencies."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_models import own_logits, policy, run

from tutelage.policies.base import Request
from tutelage.policies.hf.sampling import draw, uniforms

LARGEST = 1 - 2**-53  # what random.random() can give at most
# the 99.9th percentiles of chi-square: a fair sampler fails such a test once in a thousand seeds,
# and the seeds here are fixed
CHI_SQUARE = {5: 20.52, 6: 22.46, 7: 24.32}


def drawn(
    logits: torch.Tensor, heat: list[float], uniform: list[float]
) -> tuple[list[int], list[float]]:
    tokens, logps = draw(logits, torch.tensor(heat), torch.tensor(uniform, dtype=torch.float64))
    return tokens.tolist(), logps.tolist()


def one(logits: list[float], heat: float, uniform: float) -> tuple[int, float]:
    tokens, logps = drawn(torch.tensor([logits]), [heat], [uniform])
    return tokens[0], logps[0]


@pytest.mark.parametrize("heat", [0.3, 1.0, 2.0])
def test_each_token_has_its_own_stretch_of_the_unit_interval(heat: float) -> None:
    weights = [0.1, 0.4, 0.2, 0.3]
    logits = [heat * math.log(w) for w in weights]
    edges = [0.0, 0.1, 0.5, 0.7, 1.0]
    for k in range(4):
        inside = [edges[k] + 1e-6, (edges[k] + edges[k + 1]) / 2, edges[k + 1] - 1e-6]
        for uniform in inside:
            token, logp = one(logits, heat, uniform)
            assert token == k
            assert logp == pytest.approx(math.log(weights[k]), abs=1e-6)


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=30), st.floats(0, LARGEST))
def test_any_number_draws_a_token_and_its_log_probability(
    logits: list[float], uniform: float
) -> None:
    token, logp = one(logits, 1.0, uniform)
    rows = torch.tensor(logits).log_softmax(-1)
    assert logp == pytest.approx(float(rows[token]), abs=1e-5)
    below, to = (float(rows.double().exp()[:k].sum()) for k in (token, token + 1))
    assert below - 1e-6 <= uniform <= to + 1e-6


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.5, 0.9, LARGEST])
def test_a_token_of_probability_zero_is_never_drawn(uniform: float) -> None:
    nothing = -math.inf
    for logits, possible in (
        ([nothing, 0.0, nothing, 0.0, nothing], {1, 3}),
        ([nothing, nothing, 1.0], {2}),
        ([1.0, nothing, nothing], {0}),
        ([-1000.0, 0.0, -1000.0], {1}),
    ):
        assert one(logits, 1.0, uniform)[0] in possible


def test_the_ends_of_the_interval_are_the_first_and_last_token() -> None:
    flat = [0.0] * 1000
    assert one(flat, 1.0, 0.0)[0] == 0
    assert one(flat, 1.0, LARGEST)[0] == 999
    assert one(flat, 1.0, 0.5 + 1e-6)[0] == 500


def test_at_temperature_zero_the_likeliest_token_is_taken_and_logged_at_one() -> None:
    logits = [0.3, 2.0, -1.0, 1.9]
    for uniform in (0.0, 0.5, LARGEST):
        token, logp = one(logits, 0.0, uniform)
        assert token == 1
        assert logp == pytest.approx(float(torch.tensor(logits).log_softmax(-1)[1]), abs=1e-6)


def test_rows_are_drawn_apart() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    tokens, logps = drawn(logits, [1.0, 0.0, 10.0], [0.75, 0.99, 0.01])
    assert tokens == [1, 0, 0]
    assert logps[0] == pytest.approx(math.log(0.5))
    assert logps[2] == pytest.approx(math.log(1 / (1 + math.exp(0.5))), abs=1e-6)


def chi_square(counts: list[int], chances: list[float]) -> float:
    n = sum(counts)
    return sum((c - n * p) ** 2 / (n * p) for c, p in zip(counts, chances, strict=True))


@pytest.mark.parametrize("heat", [0.5, 1.0, 1.7])
def test_frequencies_are_those_of_the_distribution(heat: float) -> None:
    logits = torch.randn(8, generator=torch.Generator().manual_seed(3))
    rng, n = random.Random(0), 20_000
    tokens, _ = drawn(logits.expand(n, 8), [heat] * n, [rng.random() for _ in range(n)])
    counts = [tokens.count(k) for k in range(8)]
    chances = (logits / heat).softmax(-1).tolist()
    assert chi_square(counts, chances) < CHI_SQUARE[7]


def test_a_model_samples_its_own_distribution() -> None:
    """From seed to token, through cache and head: the six likeliest tokens and the rest."""
    of, prompt, n = policy(), tuple(range(10, 25)), 1200
    requests = [
        Request(key=str(k), prompt=prompt, seed=1000 + k, max_new=1, temperature=1.3)
        for k in range(n)
    ]
    tokens = [c.tokens[0] for c in run(of, requests).values()]
    chances = (own_logits(of, prompt)[-1] / 1.3).softmax(-1)
    top = chances.topk(6)
    counts = [tokens.count(k) for k in top.indices.tolist()]
    expected = top.values.tolist()
    assert chi_square([*counts, n - sum(counts)], [*expected, 1 - sum(expected)]) < CHI_SQUARE[6]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), st.integers(1, 40))
def test_numbers_drawn_at_once_are_those_drawn_one_by_one(seeds: list[int], count: int) -> None:
    lots = [random.Random(seed) for seed in seeds]
    assert uniforms(seeds, count).tolist() == [[r.random() for _ in range(count)] for r in lots]
