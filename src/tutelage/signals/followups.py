"""Per-token factors and weights of the methods that followed SDAR, from a teacher's log-probs.

A factor multiplies an advantage and keeps its sign: `group_relative() * belief_weight()`. Factors
that depend on the sign take that advantage as an argument, `group_relative()` by default. Turns
without tokens are left out of every statistic.
"""

from typing import Literal

import torch
from torch import Tensor

from tutelage.maths import token_credit as maths
from tutelage.maths.segments import future_sum, segment_mean, segment_std, segment_sum
from tutelage.maths.surrogates import ratio
from tutelage.objective import STUDENT, Signal, Step
from tutelage.signals.advantages import gap, group_relative
from tutelage.signals.turns import turns_with_tokens


def support(
    advantage: Signal | None = None,
    *,
    bound: float = 0.2,
    teacher: str = "teacher",
    student: str = STUDENT,
) -> Signal:
    """StepOPSD's factor (arXiv:2605.27140): clip(2 sigmoid(sign(A) gap), 1 - bound, 1 + bound)."""
    a, distance = advantage or group_relative(), gap(teacher, student)

    def of(s: Step) -> Tensor:
        return (2 * torch.sigmoid(a(s).sign() * distance(s))).clamp(1 - bound, 1 + bound)

    return a.derived(of, f"support[{a.name}]", distance, tokenwise=True)


def equal_turns(x: Signal, *, limit: float = 2.0) -> Signal:
    """A signal with each turn scaled so that its mean |x| is its episode's mean over turns
    (StepOPSD, arXiv:2605.27140), by at most `limit`, at least 1 / limit."""

    def of(s: Step) -> Tensor:
        turn, episode, _ = turns_with_tokens(s.batch)
        return maths.equal_turns(x(s), turn, episode, len(s.batch.group), limit=limit)

    return x.derived(of, f"equal_turns[{x.name}]")


def belief_weight(
    advantage: Signal | None = None,
    *,
    gamma: float = 0.95,
    band: float = 0.2,
    teacher: str = "teacher",
    student: str = STUDENT,
) -> Signal:
    """AgentOPSD's turn factor (arXiv:2608.05987): clip(1 + band z_k, 1 - band, 1 + band), z_k the
    standardised sign(A) (B_k - B_{k-1}) within the episode.

    B_k is the belief in success after turn k: from the group's success rate, in log-odds, each
    turn adds the gap summed over its tokens, and what earlier turns added fades by `gamma`.
    """
    a, distance = advantage or group_relative(), gap(teacher, student)

    def of(s: Step) -> Tensor:
        b = s.batch
        turn, episode, _ = turns_with_tokens(b)
        evidence = segment_sum(distance(s), turn, len(episode))
        rate = segment_mean(b.won.float(), b.group, len(b.group))[b.group]
        after, before = maths.beliefs(evidence, rate, episode, gamma=gamma)
        sign = segment_mean(a(s), turn, len(episode)).sign()
        z = maths.standardised(sign * (after - before), episode, len(b.group))
        return (1 + band * z).clamp(1 - band, 1 + band)[turn]

    return a.derived(of, f"belief_weight[{a.name}]", distance)


def residual_weight(
    advantage: Signal | None = None,
    *,
    full: str = "full",
    ablated: str = "ablated",
    strength: float = 0.5,
    share: float = 0.2,
) -> Signal:
    """OCSD's factor (arXiv:2608.04788): 1 + strength sign(A) tanh(e / 2), e = log full - log
    ablated, on the `share` of an episode's turns whose tokens were sampled with the least
    probability on average (rounded up); 1 elsewhere."""
    if not 0 <= strength <= 1 or not 0 <= share <= 1:
        raise ValueError(
            f"strength and share lie between 0 and 1, so that advantages keep their sign: got "
            f"{strength} and {share}"
        )
    a, residual = advantage or group_relative(), gap(full, ablated)

    def of(s: Step) -> Tensor:
        turn, episode, _ = turns_with_tokens(s.batch)
        unsure = segment_mean(-s.batch.logp, turn, len(episode))
        chosen = maths.most(unsure, episode, len(s.batch.group), share)[turn]
        scale = strength * chosen * a(s).sign()
        e = torch.where(scale != 0, residual(s.within(scale != 0)), 0.0)
        return 1 + scale * torch.tanh(e / 2)

    return a.derived(of, f"residual_weight[{a.name}]", residual, tokenwise=True)


def relative_support(
    *, teacher: str = "teacher", scale: Literal["batch", "episode"] = "batch"
) -> Signal:
    """ADRS' score (arXiv:2608.03223): log teacher less its mean within the turn, over its deviation
    in the step or in the episode. Sums to zero in every turn."""

    def of(s: Step) -> Tensor:
        b, logp = s.batch, s.scores[teacher].logp
        centred = logp - segment_mean(logp, b.turn, len(b.episode))[b.turn]
        if scale == "batch":
            return centred / (centred.std() + 1e-8 if len(centred) > 1 else 1.0)
        return centred / (segment_std(centred, b.owner, len(b.group))[b.owner] + 1e-8)

    return Signal(of, f"relative_support[{teacher}]", views=(teacher,))


def reliability(
    *,
    teacher: str = "teacher",
    units: Literal["episode", "state"] = "episode",
    sharpness: float = 2.0,
    gamma: float = 0.95,
) -> Signal:
    """ADRS' gate (arXiv:2608.03223): sigmoid(sharpness d), d positive where the teacher was more
    confident of what earned more, one number a group; 1/2 in groups of one.

    Units are whole episodes and their returns, or turns in one state and their discounted returns
    to come; confidence is sigmoid(mean log teacher - its mean over the step).
    """

    def of(s: Step) -> Tensor:
        b, logp = s.batch, s.scores[teacher].logp
        if units == "episode":
            some = torch.unique(b.owner)  # the episodes that have tokens
            mean = segment_mean(logp, b.owner, len(b.group))[some]
            level, outcome, group = mean.mean(), b.outcome[some], b.group[some]
            place = b.group[b.owner]
        else:
            some = torch.unique(b.turn)
            mean = segment_mean(logp, b.turn, len(b.episode))[some]
            outcome = future_sum(b.reward, b.episode, gamma)[some]
            level, group, place = logp.mean(), b.state[some], b.state[b.turn]
        size = int(place.max()) + 1
        d = maths.covariance(torch.sigmoid(mean - level), outcome, group, size)
        return torch.sigmoid(sharpness * d)[place]

    return Signal(of, f"reliability[{teacher}]", views=(teacher,))


def whitened(x: Signal) -> Signal:
    """A signal with mean 0 and deviation 1 over the tokens of each group."""

    def of(s: Step) -> Tensor:
        group = s.batch.group[s.batch.owner]
        return maths.standardised(x(s), group, int(group.max()) + 1)

    return x.derived(of, f"whitened[{x.name}]")


def persistent_weight(
    *,
    beta: float = 5.0,
    decay: float = 0.8,
    width: int = 8,
    calm: float = 0.05,
    wild: float = 0.5,
    fall: float = 0.3,
    teacher: str = "teacher",
    student: str = STUDENT,
) -> Signal:
    """PCSD's weight (arXiv:2608.01837): sigmoid(beta smoothed gap) times a trend factor, open
    where the teacher's support continues; see `maths.token_credit.persistence`. Computed before the step."""
    if not (width >= 1 and calm < wild and 0 < decay <= 1):
        raise ValueError(
            f"a persistent gate needs width >= 1, calm < wild and 0 < decay <= 1, got {width}, "
            f"{calm}, {wild} and {decay}"
        )
    distance = gap(teacher, student)

    def of(s: Step) -> Tensor:
        smooth, trend = maths.persistence(
            distance(s), s.batch.turn, decay=decay, width=width, calm=calm, wild=wild, fall=fall
        )
        return torch.sigmoid(beta * smooth) * trend

    return distance.derived(of, f"persistent_weight[{teacher}]")


def influence_weight(
    advantage: Signal | None = None,
    *,
    beta: float = 5.0,
    split: float = 0.5,
    teacher: str = "teacher",
    student: str = STUDENT,
) -> Signal:
    """ICSD's weight (arXiv:2608.14945): SDAR's gate g = sigmoid(beta gap), moved within each turn
    to the tokens where following the teacher raises the policy's objective.

    c = alpha g F(u) with u = A ratio gap, F the distribution function fitted to the turn's u and
    alpha such that the turn's sum of weights stays; c = g where A < 0 and gap < 0. Computed before
    the step.
    """
    if not 0 < split < 1:
        raise ValueError(f"split lies strictly between 0 and 1, got {split}")
    a, distance = advantage or group_relative(), gap(teacher, student)

    def of(s: Step) -> Tensor:
        b, value, towards = s.batch, a(s).double(), distance(s).double()
        influence = value * ratio(s.scores[student].logp, b.logp) * towards
        high = maths.rank(influence, b.turn, len(b.episode), split=split)
        unclear = (value < 0) & (towards < 0)
        gate = torch.sigmoid(beta * towards)
        return maths.reallocated(gate, high, unclear, b.turn, len(b.episode))

    return a.derived(of, f"influence_weight[{a.name}]", distance)
