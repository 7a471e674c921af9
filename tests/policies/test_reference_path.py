"""`policy.fast = false`: the slow twin of all that makes sampling and scoring fast."""

import pytest
import torch
from policies.test_hf import conversations, flat
from support.recorder import tape
from support.scripted_turns import Fed, assert_same, play, reference, request, talks
from support.tiny_models import policy, run
from support.tiny_runs import tiny_run
from torch.testing import assert_close

from tutelage.config.schema import Config
from tutelage.envs.registry import suite_of
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample
from tutelage.runs import assemble, models


@pytest.mark.parametrize("seed", range(4))
def test_slow_turns_are_the_fast_ones(seed: int) -> None:
    """Transcripts and windows, ragged, several turns each, likeliest tokens and drawn ones."""
    slow, fast = policy(reference_path=True, slots=4, context=768), policy(slots=4, context=768)
    plain = dict(play(fast, talks(seed=seed, count=9)))
    turns = play(slow, talks(seed=seed, count=9))
    assert {asked for asked, _ in turns} == set(plain)
    for asked, completion in turns:
        assert_same(completion, plain[asked])
        assert_same(completion, reference(slow, asked))


def test_slow_turns_compute_their_whole_prompts() -> None:
    of = policy(reference_path=True, context=768)
    fed = Fed(of)
    turns = play(of, talks(seed=3, count=7))
    assert sum(b * t for b, t in fed.shapes) == sum(
        len(asked.prompt) + len(completion.tokens) - 1 for asked, completion in turns
    )


def test_slow_episodes_that_begin_alike_share_nothing() -> None:
    of = policy(reference_path=True)
    fed = Fed(of)
    pair = [request(tuple(range(10, 70)), key=key) for key in "ab"]
    completions = run(of, [*pair, request(tuple(range(10, 80)), key="c")])
    assert fed.shapes[0] == (1, 60 + 60 + 70)
    assert_same(completions["a"], reference(of, pair[0]))
    of.submit(request(tuple(range(10, 70)), max_new=20))
    of.poll()
    fed.shapes.clear()
    of.submit(pair[1])
    of.poll()
    assert fed.shapes == [(1, 60)]  # though the same is there, in a turn that is under way


def test_slow_passes_stay_within_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that are not copied count in full."""
    monkeypatch.setattr("tutelage.policies.hf.generation.MAX_PREFILL_TOKENS", 100)
    of = policy(reference_path=True)
    fed = Fed(of)
    run(of, [request((*range(10, 70), 80 + k), key=str(k)) for k in range(3)])
    assert max(t for _, t in fed.shapes) == 61


def test_nothing_slow_is_recorded() -> None:
    of = policy()
    fast, slow = (
        SlotEngine(
            of.engine.forward,
            lambda: of.head.detach(),
            of.model.config,
            ends=of.chat.ends,
            slots=2,
            context=of.context_length,
            dtype=torch.float32,
            device="cpu",
            recorder=tape,
            reference_path=way,
        )
        for way in (False, True)
    )
    assert fast.recordings is not None
    assert slow.recordings is None


def test_slow_scores_are_the_fast_ones() -> None:
    samples = flat(conversations(4))
    slow, fast = policy(reference_path=True, tokens=150), policy(tokens=150)
    assert slow.padded
    assert not fast.padded
    with torch.no_grad():
        scores, plain = slow.score(samples, 0.7), fast.score(samples, 0.7)
    assert_close(scores.logp, plain.logp, atol=2e-5, rtol=1e-5)


def test_a_slow_student_in_two_bytes_acts_with_what_is_trained() -> None:
    slow, fast = policy(reference_path=True, dtype="bfloat16"), policy(dtype="bfloat16")
    asked = [request(tuple(range(10 + k, 60 + k)), key=str(k), max_new=1) for k in range(9)]
    completions, plain = run(slow, asked), run(fast, asked)
    assert slow.acting_copy is None
    assert fast.acting_copy is not None
    assert [completions[r.key].tokens for r in asked] == [plain[r.key].tokens for r in asked]


def built(config: Config) -> HFPolicy:
    suite = suite_of(config.env)
    context = assemble.context_of(config.context, suite)
    policy = models.policies_of(config, [], suite, context)["self"]
    assert isinstance(policy, HFPolicy)
    return policy


@pytest.mark.parametrize("reference_path", [True, False])
def test_the_setting_reaches_the_policy_and_its_copies(
    reference_path: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_REFERENCE_PATH", str(int(reference_path)))
    of = built(tiny_run(env={"suite": "household"}))
    for each in (of, of.copied()):
        assert each.reference_path == reference_path
        assert isinstance(each.engine, SlotEngine)
        assert each.engine.reference_path == reference_path
        sample = Sample(prompt=(1, 2, 3), tokens=(4,))
        with torch.no_grad():
            assert len(each.score([sample], 1.0).logp) == 1
        assert each.padded == reference_path
