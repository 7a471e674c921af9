"""vOPD: its formula as loops; the expected gradient of reverse KL, with less noise than OPD."""

import pytest
import torch
from algorithms.test_formulas import mean, tokens
from support.enumeration import V, expected, logits, near, reverse, scores
from support.fake_steps import World, total, world
from support.turn_formulas import written
from torch import Tensor
from torch.testing import assert_close

from tutelage.algorithms.opd import opd
from tutelage.algorithms.vopd import vopd
from tutelage.errors import ConfigError
from tutelage.objective import Algorithm, Step, bind
from tutelage.objective.scores import Scores


@pytest.fixture(params=[0, 1, 2], ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    return world(request.param)


def test_the_gap_less_its_expectation(of: World) -> None:
    want = mean([-(t.gap + t.reverse_kl) * t.ratio for t in tokens(of)])
    assert total(vopd(), of) == pytest.approx(want, rel=1e-4, abs=1e-6)


def test_top_k_pools_the_rest(of: World) -> None:
    def pooled(logps: list[float], best: list[int]) -> list[float]:
        rest = [x for v, x in enumerate(logps) if v not in best]
        return [*(logps[v] for v in best), torch.tensor(rest).logsumexp(0).item()]

    want = []
    for t in tokens(of):
        best = sorted(range(len(t.student)), key=lambda v: -t.student[v])[:2]
        p, q = torch.tensor(pooled(t.student, best)), torch.tensor(pooled(t.teacher, best))
        want.append(-(t.gap + (p.exp() * (p - q)).sum().item()) * t.ratio)
    assert total(vopd(baseline="topk", k=2), of) == pytest.approx(mean(want), rel=1e-4, abs=1e-6)


def gradients(algorithm: Algorithm, x: Tensor, q: Tensor) -> Tensor:
    """The gradient [V, V] that each word would give if it were sampled, times V."""
    step = written([[[(-1.0, -1.0)] * V]])
    batch = step.batch
    batch.token.copy_(torch.arange(V))
    batch.logp.copy_(x.detach().log_softmax(-1))
    bound = algorithm.terms[0].bind(
        Step(batch, {"student": scores(x.detach()), "teacher": scores(q)}, 0)
    )
    loss = bound({"student": scores(x)}, torch.arange(V))
    return torch.stack([torch.autograd.grad(one, x, retain_graph=True)[0] for one in loss])


@pytest.mark.parametrize("algorithm", [vopd(), vopd(baseline="topk", k=2)], ids=["full", "topk"])
@pytest.mark.parametrize("seed", range(5))
def test_no_bias_and_less_noise(algorithm: Algorithm, seed: int) -> None:
    x = logits(seed)
    q = near(x, seed + 100, 0.7)
    assert_close(expected(algorithm.terms[0], x, q), reverse(x, q), rtol=1e-5, atol=1e-6)
    p = x.detach().softmax(-1)

    def noise(of: Algorithm) -> float:
        each = gradients(of, x, q).double()
        return (p @ (each - p @ each).square().sum(-1)).item()

    assert noise(algorithm) < noise(opd())


def test_a_teacher_that_scores_only_sampled_tokens_is_refused(of: World) -> None:
    step = of.step()
    alone = {**step.scores, "teacher": Scores(logp=step.scores["teacher"].logp)}
    with pytest.raises(ConfigError, match="choose its sampled-token form, or a local teacher"):
        bind(vopd(), Step(step.batch, alone, 0))
