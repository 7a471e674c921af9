"""Penalties: amounts subtracted from an episode's return, computed from the finished episode.

An algorithm names them, `Algorithm(penalties={"leakage": leakage()})`; when an episode ends, each is
subtracted from its last turn's reward, so that the recorded reward is the one trained on.
`leakage` and `length` are pi-Distill's (arXiv:2602.04942): a policy that was shown privileged
information must neither reveal it nor write at length to use it. `overlong` is DAPO's
(arXiv:2503.14476).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tutelage.errors import ConfigError
from tutelage.types import Episode

Penalty = Callable[[Episode], float]
"""A finished episode -> the amount subtracted from its return, 0 or more."""

LEAKED = ("secret", "privileged", "hint", "hints", "confidential", "i was told", "i was given")


def leakage(words: Sequence[str] = LEAKED, each: float = 0.1) -> Penalty:
    """`each` for every one of `words` that occurs in the episode's turns.

    The words are secret, privileged, hint, hints, confidential, "i was told" and "i was given":
    whole words, in any case. Each counts once, however often it occurs, so that a turn that repeats
    itself cannot outweigh the reward. arXiv:2602.04942 takes 0.1 for each keyword and names the
    first three.
    """
    _not_negative(each=each)
    if not words or not all(word.strip() for word in words):
        raise ConfigError("a leakage penalty needs words to look for, none of them empty")
    patterns = [re.compile(rf"\b{re.escape(word.strip())}\b", re.IGNORECASE) for word in words]

    def of(episode: Episode) -> float:
        text = "\n".join(turn.text for turn in episode.turns)
        return each * sum(pattern.search(text) is not None for pattern in patterns)

    return of


def length(
    *,
    free: int = 2_000,
    middle: int = 5_000,
    end: int = 8_000,
    half: float = 0.1,
    full: float = 0.2,
    most: float = 0.3,
) -> Penalty:
    """For long turns, in won episodes only: the mean over turns of f(tokens of the turn).

        f(n) = 0                                                              n <= free
               half (1 - cos(pi (n - free) / (middle - free))) / 2            n <= middle
               half + (full - half) (1 - cos(pi (n - middle) / (end - middle))) / 2
               full                                                           n >= end

    The mean is at most `most`. arXiv:2602.04942 gives 2,000 and 5,000 tokens and the amounts; the
    paper does not say how it rises from 0.1 to 0.2 "beyond" them: here by the same curve, to `end`.
    Raises ConfigError for thresholds or amounts that do not rise.
    """
    if not 0 <= free < middle < end:
        raise ConfigError(f"0 <= free < middle < end must hold, got {free}, {middle} and {end}")
    _not_negative(half=half, most=most)
    if full < half:
        raise ConfigError(f"full must be at least half, got {full} and {half}")

    def turn(n: int) -> float:
        if n <= middle:
            return half * _rise((n - free) / (middle - free))
        return half + (full - half) * _rise((n - middle) / (end - middle))

    def of(episode: Episode) -> float:
        if not episode.won or not episode.turns:
            return 0.0
        values = [turn(len(t.tokens)) for t in episode.turns]
        return min(most, sum(values) / len(values))

    return of


def overlong(*, limit: int = 20_480, buffer: int = 4_096, most: float = 1.0) -> Penalty:
    """DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13), by all sampled tokens n of an
    episode:

        f(n) = 0                                         n <= limit - buffer
               most (n - (limit - buffer)) / buffer      n <= limit
               most                                      n > limit
    """
    if not 0 < buffer <= limit:
        raise ConfigError(f"0 < buffer <= limit must hold, got {buffer} and {limit}")
    _not_negative(most=most)

    def of(episode: Episode) -> float:
        over = sum(len(turn.tokens) for turn in episode.turns) - (limit - buffer)
        return most * min(max(over / buffer, 0.0), 1.0)

    return of


def _rise(x: float) -> float:
    """From 0 to 1 on [0, 1], flat at both ends and beyond."""
    return (1 - math.cos(math.pi * min(max(x, 0.0), 1.0))) / 2


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} must be at least 0, got {value}")


def penalised(episode: Episode, penalties: Mapping[str, Penalty]) -> Episode:
    """A finished episode with its algorithm's penalties subtracted from its last turn's reward.

    Raises ConfigError for a penalty that is negative or not finite.
    """
    if episode.stop.broken or not episode.turns:
        return episode
    off = {name: float(of(episode)) for name, of in penalties.items()}
    for name, amount in off.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise ConfigError(
                f"the penalty {name!r} is {amount:g} for task {episode.task.id}; it must "
                "return the amount to subtract from the reward, 0 or more"
            )
    *turns, last = episode.turns
    last = replace(last, penalty=last.penalty + sum(off.values()))
    return replace(episode, turns=(*turns, last), penalties=off)
