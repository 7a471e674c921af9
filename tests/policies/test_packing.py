"""Rows of append-only episodes, drawn by hand; and nothing lost on the way to a batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.policies.packing import PackedSequence, batches, pack
from tutelage.prompts.prompter import Sample


def test_a_two_turn_episode_is_one_row() -> None:
    ids = [1, 2, 3, 10, 11, 4, 5, 12]
    samples = [
        Sample(prompt=(1, 2, 3), tokens=(10, 11)),
        Sample(prompt=(1, 2, 3, 10, 11, 4, 5), tokens=(12,)),
    ]
    assert pack(samples) == [PackedSequence(ids=ids, positions=[3, 4, 7], flat=[0, 1, 2])]


def test_a_turn_that_does_not_continue_the_last_starts_a_row() -> None:
    samples = [
        Sample(prompt=(1, 2), tokens=(10,)),
        Sample(prompt=(1, 2, 99, 4), tokens=(11, 12)),  # branched: 10 is not in its past
        Sample(prompt=(1, 2, 99, 4, 11, 12), tokens=(13,)),  # continues the branch, adds nothing
        Sample(prompt=(1, 2), tokens=(14,)),  # shorter than the row
    ]
    assert pack(samples) == [
        PackedSequence(ids=[1, 2, 10], positions=[2], flat=[0]),
        PackedSequence(ids=[1, 2, 99, 4, 11, 12, 13], positions=[4, 5, 6], flat=[1, 2, 3]),
        PackedSequence(ids=[1, 2, 14], positions=[2], flat=[4]),
    ]


def test_a_turn_without_tokens_still_holds_its_place() -> None:
    samples = [
        Sample(prompt=(1,), tokens=()),
        Sample(prompt=(1, 2), tokens=(10,)),
    ]
    assert pack(samples) == [PackedSequence(ids=[1, 2, 10], positions=[2], flat=[0])]


def test_a_sample_without_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a prompt"):
        pack([Sample(prompt=(), tokens=(1,))])


IDS = st.lists(st.integers(1, 3), min_size=1, max_size=5).map(tuple)


@given(st.lists(st.tuples(IDS, IDS, st.booleans()), min_size=1, max_size=8), st.integers(1, 40))
def test_every_token_is_in_one_row_after_its_own_prompt(
    drawn: list[tuple[tuple[int, ...], tuple[int, ...], bool]], budget: int
) -> None:
    samples: list[Sample] = []
    past: tuple[int, ...] = ()
    for new, tokens, goes_on in drawn:
        past = (*past, *new) if goes_on else new
        samples.append(Sample(prompt=past, tokens=tokens))
        past = (*past, *tokens)
    rows = pack(samples)
    flat = [(s.prompt + s.tokens[:k], token) for s in samples for k, token in enumerate(s.tokens)]
    seen = {}
    for row in rows:
        for at, out in zip(row.positions, row.flat, strict=True):
            assert out not in seen
            seen[out] = tuple(row.ids[:at]), row.ids[at]
    assert [seen[n] for n in range(len(flat))] == flat
    passes = batches(rows, budget)
    assert [row for batch in passes for row in batch] == rows
    for batch in passes:
        assert len(batch) == 1 or sum(len(r.ids) for r in batch) <= budget
    passes = batches(rows, budget, padded=True)
    assert sorted(id(row) for batch in passes for row in batch) == sorted(id(row) for row in rows)
    for batch in passes:
        assert len(batch) == 1 or len(batch) * max(len(r.ids) for r in batch) <= budget


def test_batches_fill_their_budget() -> None:
    rows = [PackedSequence(ids=[0] * n) for n in (9, 2, 3, 2, 30, 3)]
    assert [[len(r.ids) for r in b] for b in batches(rows, 12)] == [[9, 2], [3, 2], [30], [3]]
    assert [[len(r.ids) for r in b] for b in batches(rows, 12, padded=True)] == [
        [2, 2, 3, 3],
        [9],
        [30],
    ]
    assert batches([], 10) == batches([], 10, padded=True) == []
