"""Seconds of a training step on any number of ranks, simulated from what a short probe measured.

A step is drawn: groups of the probe's episodes, with replacement, dealt to ranks as a run deals
them. Each rank plays its episodes in its slots. All ranks wait for the slowest before episodes are
exchanged, after scoring, and before each optimiser step, as they do in a run.
"""

import heapq
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from tutelage.cli.bench import Probe, Size

PHASES = (
    *("generate", "environment", "prompts", "teacher", "update", "optimizer"),
    *("exchange", "waiting", "rest"),
)
SCORED = 16
"""Bytes of a scored token as ranks send them: its index and its log-probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Bandwidth between cards, in bytes a second.

    inside   between two cards of a machine
    between  of one machine's connection to the others, which its cards share
    cards    of a machine
    latency  seconds of one message
    """

    inside: float
    between: float
    cards: int = 8
    latency: float = 5e-5

    def bandwidth(self, ranks: int) -> float:
        """Of a ring over so many ranks, which passes each machine's connection once."""
        return self.inside if ranks <= self.cards else min(self.inside, self.between)

    def all_reduce(self, ranks: int, size: float, messages: int = 1) -> float:
        """Seconds to sum `size` bytes of each rank, in a ring: 2 (n - 1) / n of them are sent."""
        if ranks == 1:
            return 0.0
        sent = 2 * (ranks - 1) / ranks * size
        return sent / self.bandwidth(ranks) + messages * 2 * (ranks - 1) * self.latency

    def all_gather(self, ranks: int, size: float) -> float:
        """Seconds until every rank has `size` bytes, of which each had its share."""
        if ranks == 1:
            return 0.0
        sent = (ranks - 1) / ranks * size
        return sent / self.bandwidth(ranks) + (ranks - 1) * self.latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a probe measured, in seconds.

    round, token  of generation: of a decode round of all slots, and of each sampled token in it
    turn          of the environment
    prompt, layout, teacher, update
                  of a token read: its prompts while playing, laying out the step, scoring, training
    optimizer     of an optimiser step
    rest          of an episode, in no phase
    sent, unpack  of an episode that ranks exchange: its bytes, and the seconds to read them
    groups        the measured groups, at full length
    """

    round: float
    token: float
    turn: float
    prompt: float
    layout: float
    teacher: float
    update: float
    optimizer: float
    rest: float
    sent: float
    unpack: float
    groups: tuple[tuple[Size, ...], ...]


def rates(probes: Sequence[Probe], slots: int) -> Rates:
    """Rates from probes of one or more sizes, played in so many slots.

    Two sizes tell a decode round from its tokens. With one, generation counts by tokens alone.
    """
    last = probes[-1]
    points = [
        (rounds(every, slots), sum(size.sampled for size in every), p.seconds.get("generate", 0.0))
        for p in probes
        if (every := [size for group in p.played for size in group])
    ]
    sizes = {tokens for _, tokens, _ in points}
    a, b = fitted(points) if len(sizes) > 1 else fitted([(0.0, k, t) for _, k, t in points])
    played = [size for group in last.played for size in group]
    turns, read = sum(size.turns for size in played), sum(size.read for size in played)
    seconds = last.seconds
    optimizer = min(p.optimizer for p in probes)
    return Rates(
        round=a,
        token=b,
        turn=seconds.get("environment", 0.0) / turns,
        prompt=(seconds.get("prompts", 0.0) - last.laid_out) / read,
        layout=last.laid_out / read,
        teacher=seconds.get("teacher", 0.0) / read,
        update=max(0.0, seconds.get("update", 0.0) - last.optimizer * last.steps) / read,
        optimizer=optimizer,
        rest=last.rest / len(played),
        sent=last.sent / len(played) * _factor(last),
        unpack=last.unpacking / len(played) * _factor(last),
        groups=last.groups,
    )


def _factor(probe: Probe) -> float:
    """How much longer full episodes are than those that were played."""
    whole, played = (
        sum(size.read for group in groups for size in group)
        for groups in (probe.groups, probe.played)
    )
    return whole / played


def fitted(points: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """a, b >= 0 with the least squares of t - a r - b k over points (r, k, t).

    >>> fitted([(1.0, 1.0, 5.0), (1.0, 3.0, 9.0)])
    (3.0, 2.0)
    """
    rr = rk = kk = rt = kt = 0.0
    for r, k, t in points:
        rr, rk, kk, rt, kt = rr + r * r, rk + r * k, kk + k * k, rt + r * t, kt + k * t
    det = rr * kk - rk * rk
    if det > 1e-9 * max(rr, kk) ** 2:
        a, b = (rt * kk - kt * rk) / det, (kt * rr - rt * rk) / det
        if a >= 0 and b >= 0:
            return a, b
        if b < 0:
            return rt / rr, 0.0
    return 0.0, (kt / kk if kk else 0.0)


def rounds(episodes: Iterable[Size], slots: int) -> float:
    """Decode rounds until episodes are played in `slots`, each taken as soon as one is free.

    >>> three = [Size(turns=1, sampled=k, read=k) for k in (4, 2, 3)]
    >>> rounds(three, 2), rounds(three, 3)
    (5, 4)
    """
    ends: list[float] = []
    for each in episodes:
        if len(ends) < slots:
            heapq.heappush(ends, each.sampled)
        else:
            heapq.heapreplace(ends, ends[0] + each.sampled)
    return max(ends, default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A step of a run on some cards.

    groups       of the whole step
    slots        episodes that a rank plays at the same time
    minibatches  of a pass over the step's episodes
    trained      parameters that are trained, whose gradients of 4 bytes are summed
    views        that are scored before the update
    """

    ranks: int
    groups: int
    slots: int
    minibatches: int
    epochs: int
    trained: int
    views: int
    divided: "Layers | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Layers that are divided over ranks.

    count   parameters in them
    trained  of them: none beside adapters
    size    bytes of one as it is gathered for a pass
    whole   bytes of one as it is gathered after an update
    tokens  of a pass
    views   that each have a pass
    """

    count: int
    trained: int
    size: int
    whole: int
    tokens: int
    views: int

    def seconds(self, links: Links, ranks: int, read: float) -> float:
        """Of an update of so many tokens of one rank: a layer is gathered before its forward and
        its backward pass, and its gradients are summed in float32 to the ranks of their rows."""
        passes = self.views * math.ceil(read / self.tokens)
        gathered = 2 * links.all_gather(ranks, self.size * self.count)
        return passes * (gathered + links.all_gather(ranks, 4.0 * self.trained))


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of a step by phase: of the mean rank, with its time of waiting for slower ones."""

    phases: dict[str, float]
    least: float
    most: float
    episodes: float

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())

    @property
    def bottleneck(self) -> str:
        return max(self.phases, key=lambda name: self.phases[name])


def simulate(of: Rates, work: Work, links: Links, *, seed: int = 0, draws: int = 8) -> Times:
    """Means over `draws` simulated steps, and the shortest and longest of them."""
    random_, found, totals, played = random.Random(seed), list[dict[str, float]](), [], []
    for _ in range(draws):
        owned: list[list[Size]] = [[] for _ in range(work.ranks)]
        for k in range(work.groups):
            group = random_.choice(of.groups)
            owned[k % work.ranks] += random_.choices(group, k=len(group))
        phases = _step(of, work, links, owned, random_)
        found.append(phases)
        totals.append(sum(phases.values()))
        played.append(sum(map(len, owned)))
    return Times(
        phases={name: mean(each[name] for each in found) for name in PHASES},
        least=min(totals),
        most=max(totals),
        episodes=mean(played),
    )


def _step(
    of: Rates, work: Work, links: Links, owned: Sequence[Sequence[Size]], draw: random.Random
) -> dict[str, float]:
    n = work.ranks
    every = [(rank, size) for rank, sizes in enumerate(owned) for size in sizes]
    count, read = len(every), sum(size.read for _, size in every)
    shares = {
        "generate": [
            of.round * rounds(s, work.slots) + of.token * sum(x.sampled for x in s) for s in owned
        ],
        "environment": [of.turn * sum(x.turns for x in s) for s in owned],
        "prompts": [of.prompt * sum(x.read for x in s) for s in owned],
        "rest": [of.rest * len(s) for s in owned],
        "teacher": [of.teacher * sum(x.read for x in s) for s in owned],
    }
    out = {name: mean(shares[name]) if name in shares else 0.0 for name in PHASES}
    playing = [sum(shares[name][rank] for name in PHASES[:3]) for rank in range(n)]
    out["waiting"] += max(playing) - mean(playing)
    out["waiting"] += max(shares["teacher"]) - out["teacher"]
    out["prompts"] += of.layout * read  # each rank lays out the whole step
    if n > 1:
        sampled = sum(size.sampled for _, size in every)
        out["exchange"] += links.all_gather(n, of.sent * count) + of.unpack * count
        out["exchange"] += work.views * links.all_gather(n, SCORED * sampled)
        if work.divided:
            out["exchange"] += links.all_gather(n, work.divided.whole * work.divided.count)
    summed = work.trained - (work.divided.trained if work.divided else 0)
    for _ in range(work.epochs):
        order = list(every)
        draw.shuffle(order)
        for start in range(min(work.minibatches, count)):
            own = [0.0] * n
            for rank, size in order[start :: work.minibatches]:
                own[rank] += size.read
            each = of.update / work.epochs
            out["update"] += each * mean(own)
            out["waiting"] += each * (max(own) - mean(own))
            out["optimizer"] += of.optimizer
            out["exchange"] += links.all_reduce(n, 4.0 * summed, messages=1 + summed // (1 << 24))
            if work.divided and n > 1:
                out["exchange"] += work.divided.seconds(links, n, max(own))
    return out
