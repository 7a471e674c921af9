"""Divergences of turns, by engines that hold what came before them."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.tiny_models import policy, run, small_chat
from torch import Tensor

from tutelage.policies.base import Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.turn_divergence import divergences
from tutelage.prompts.prompter import Sample

TURNS = 12


def counted(of: HFPolicy) -> list[int]:
    """Tokens of every pass of its engine from here on."""
    seen: list[int] = []
    forward: Callable[..., Tensor] = of.engine.forward  # type: ignore[attr-defined]

    def watched(**inputs: Any) -> Tensor:
        seen.append(inputs["input_ids"].numel())
        return forward(**inputs)

    of.engine.forward = watched  # type: ignore[attr-defined]
    return seen


@pytest.mark.parametrize(("rows", "takes"), [(8, False), (8, True), (1, False)])
def test_turns_are_scored_by_what_is_new_in_them(rows: int, takes: bool) -> None:
    """Two episodes of twelve turns; the teacher's prompt begins with words of its own, and with
    `takes` it ends every third turn. One row is too few to keep anything: only then is it fed
    prompts again."""
    rng, chat = random.Random(0), small_chat()
    mine, theirs = policy(0, slots=8), policy(1, slots=rows)
    own, read = counted(mine), counted(theirs)
    prompts = {"a": tuple(range(20, 40)), "b": tuple(range(60, 75))}
    extra = (50, 51, 52)
    scored = {"mine": 0, "theirs": 0}
    for turn in range(TURNS):
        asked = [
            Request(key=k, prompt=p, seed=turn, max_new=rng.randint(2, 6))
            for k, p in prompts.items()
        ]
        completions = run(mine, asked)
        turns = [
            (
                Sample(prompt=prompts[k], tokens=completions[k].tokens),
                Sample(prompt=(*extra, *prompts[k]), tokens=completions[k].tokens),
            )
            for k in prompts
        ]
        before = sum(own), sum(read)
        got = divergences(mine, theirs, turns, 0.8, list(prompts))
        scored["mine"] += sum(own) - before[0]
        scored["theirs"] += sum(read) - before[1]
        want = divergences(mine, theirs, turns, 0.8)
        for one, other in zip(got, want, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
        for k in prompts:
            tokens = completions[k].tokens
            if takes and turn % 3 == 0:
                rest = Request(
                    key=k, prompt=(*extra, *prompts[k], *tokens[:1]), seed=turn, max_new=3
                )
                before_rest = sum(read)
                tokens = (*tokens[:1], *run(theirs, [rest])[k].tokens)
                assert sum(read) - before_rest <= 1 + 3  # the cut's token, and what it wrote
            prompts[k] = (*prompts[k], *tokens, *(rng.randrange(10, chat.size) for _ in range(5)))
    whole = sum(len(p) for p in prompts.values())
    assert scored["mine"] < whole
    if rows > 1:
        assert scored["theirs"] <= whole + 2 * len(extra)
    else:
        assert scored["theirs"] > 3 * whole


def test_turns_under_way_go_on_as_if_nothing_had_been_scored() -> None:
    """Two episodes are idle when a turn begins; one that is scored beside it needs longer rows, of
    which the budget has fewer, so that the turn's own row moves."""
    alone, beside = policy(0, slots=4), policy(0, slots=4)
    asked = Request(key="a", prompt=tuple(range(20, 32)), seed=5, max_new=20)
    want = run(alone, [asked])["a"]
    beside.engine.budget = int(3.5 * beside.engine.kv_shape.slot_bytes(256))  # type: ignore[attr-defined]
    for k in range(2):
        run(beside, [Request(key=f"old {k}", prompt=(k, 40, 50), seed=k, max_new=2)])
    beside.submit(asked)
    completions = beside.poll()
    assert not completions
    given = Sample(prompt=tuple(range(10, 280)), tokens=tuple(range(30, 60)))
    divergences(beside, policy(1), [(given, given)], 1.0, ["new"])
    assert len(beside.engine.slots) == 2  # type: ignore[attr-defined]
    while not completions:
        completions = beside.poll()
    assert completions[0].tokens == want.tokens
    assert torch.allclose(torch.tensor(completions[0].logps), torch.tensor(want.logps), atol=1e-4)
