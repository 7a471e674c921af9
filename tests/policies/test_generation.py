"""Generation over a kept cache, against the model's own forward pass over every whole prefix."""

import pytest
import torch
from support.scripted_turns import Fed, assert_same, play, reference, request, talks
from support.tiny_models import policy, run

from tutelage.errors import PolicyError
from tutelage.policies.base import Request


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_ragged_conversations_equal_the_models_own_forward_pass(rows: int) -> None:
    """More episodes than rows, so that rows are given away and episodes computed again."""
    of = policy(layers=2, slots=rows, context=768)
    episodes = talks(seed=rows, count=9)
    turns = play(of, episodes)
    assert len(turns) == sum(len(t.says) for t in episodes)
    for asked, completion in turns:
        assert_same(completion, reference(of, asked))


def test_the_number_of_rows_changes_no_token() -> None:
    seen = []
    for rows in (1, 2, 5, 64):
        turns = play(policy(slots=rows, context=768), talks(seed=7, count=8))
        seen.append(sorted((r.key, r.prompt, c.tokens) for r, c in turns))
    assert seen[0] == seen[1] == seen[2] == seen[3]


def test_only_what_is_new_is_computed() -> None:
    of = policy()
    fed = Fed(of)
    first = tuple(range(10, 60))
    reply = run(of, [request(first)])["a"].tokens
    assert fed.shapes == [(1, 50), *[(1, 1)] * (len(reply) - 1)]
    fed.shapes.clear()
    run(of, [request((*first, *reply, 70, 71, 72))])
    # the last token sampled was never fed, and three are new
    assert fed.shapes[0] == (1, 4)


def test_a_prompt_that_branches_off_is_computed_from_the_branch() -> None:
    of = policy()
    fed = Fed(of)
    run(of, [request(tuple(range(10, 60)))])
    fed.shapes.clear()
    branch = request((*range(10, 40), 99, 98))
    assert_same(run(of, [branch])["a"], reference(of, branch))
    assert fed.shapes[0] == (1, 2)
    # and one that is a head of what is there feeds its last token for its logits
    fed.shapes.clear()
    shorter = request(tuple(range(10, 30)))
    assert_same(run(of, [shorter])["a"], reference(of, shorter))
    assert fed.shapes[0] == (1, 1)


def test_a_window_context_keeps_the_head_that_its_prompts_share() -> None:
    """Each turn is a fresh prompt under the same opening, of which nothing is computed twice."""
    of = policy()
    fed = Fed(of)
    opening = tuple(range(10, 50))
    for turn in range(4):
        prompt = (*opening, *range(100 + 20 * turn, 115 + 20 * turn))
        fed.shapes.clear()
        asked = request(prompt, max_new=5)
        assert_same(run(of, [asked])["a"], reference(of, asked))
        assert fed.shapes[0] == (1, 15 if turn else 55)


def test_an_episode_whose_row_was_given_away_is_computed_again() -> None:
    of = policy(slots=1)
    fed = Fed(of)
    first = tuple(range(10, 40))
    reply = run(of, [request(first)])["a"].tokens
    run(of, [request(tuple(range(50, 60)), key="b")])
    fed.shapes.clear()
    again = request((*first, *reply, 77))
    assert_same(run(of, [again])["a"], reference(of, again))
    assert fed.shapes[0] == (1, len(again.prompt))


def test_the_longest_idle_row_is_given_away_and_a_released_one_first() -> None:
    of = policy(slots=2)
    run(of, [request((11, 12), key="old")])
    run(of, [request((13, 14), key="new")])
    run(of, [request((15, 16), key="third")])
    assert {row.key for row in of.engine.slots} == {"new", "third"}
    of.release("third")
    run(of, [request((17, 18), key="fourth")])
    assert {row.key for row in of.engine.slots} == {"new", "fourth"}


def test_an_episode_that_waits_keeps_its_own_row_when_others_come() -> None:
    """Though there were three rows when the other was let in, and two are left of them."""
    of = policy(slots=3, context=768)
    fed = Fed(of)
    reply = run(of, [request(tuple(range(10, 40)))])["a"].tokens
    run(of, [request((48, 49), key="c")])  # another row, and not the longest idle
    fed.shapes.clear()
    of.engine.budget = 2 * of.engine.kv_shape.slot_bytes(640)
    long = request((*range(10, 40), *reply, 60), max_new=590)
    of.submit(request((50, 51), key="b"))
    of.submit(long)
    of.poll()
    assert fed.shapes[0] == (1, 4)  # two of each, on one axis


def test_new_weights_are_used_once_the_policy_is_refreshed() -> None:
    of = policy()
    first = tuple(range(10, 40))
    reply = run(of, [request(first)])["a"].tokens
    with torch.no_grad():
        for p in of.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    of.refresh()
    after = request((*first, *reply, 60))
    assert_same(run(of, [after])["a"], reference(of, after))


def test_a_refreshed_policy_owes_nothing() -> None:
    of = policy(slots=1)
    of.submit(request((10, 11), max_new=50))
    of.submit(request((12, 13), key="b"))
    of.poll()
    of.refresh()
    assert of.poll() == []
    last = request((14, 15), key="c")
    assert_same(run(of, [last])["c"], reference(of, last))


def test_a_turn_ends_at_its_end_token_or_where_it_is_cut() -> None:
    of = policy()
    requests = [
        Request(key=str(k), prompt=(20 + k, 30), seed=k, max_new=1 + k % 40, temperature=3.0)
        for k in range(120)
    ]
    completions = run(of, requests)
    for r in requests:
        c = completions[r.key]
        assert of.chat.end not in c.tokens[:-1]
        assert c.ended == (c.tokens[-1] == of.chat.end)
        assert c.ended or len(c.tokens) == r.max_new
        assert len(c.logps) == len(c.tokens)
    assert {c.ended for c in completions.values()} == {True, False}


def test_the_cache_grows_across_its_steps_without_losing_anything() -> None:
    of = policy(context=512)
    prompt = tuple(10 + k % 300 for k in range(250))
    for length in (60, 64, 65, 190, 250):
        r = request(prompt[:length], max_new=9)
        assert_same(run(of, [r])["a"], reference(of, r))
    full = request(tuple(10 + k % 300 for k in range(500)), max_new=12)
    assert_same(run(of, [full])["a"], reference(of, full))


def test_a_request_beyond_the_context_is_refused() -> None:
    of = policy(context=64)
    with pytest.raises(PolicyError, match=r"prompt of 60 tokens and 5 new ones.*context of 64"):
        of.submit(request(tuple(range(60)), max_new=5))
    fits = request(tuple(range(10, 70)), max_new=4)
    assert_same(run(of, [fits])["a"], reference(of, fits))


def test_nothing_to_do() -> None:
    of = policy()
    assert of.poll() == []
    of.release("nobody")
    of.refresh()
    assert of.poll() == []
