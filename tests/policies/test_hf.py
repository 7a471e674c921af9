"""Scores of a transformers model: packed or not, padded or not, they are the model's own, and so
are their gradients."""

import math
import random
from typing import Any

import pytest
import torch
from support.tiny_models import own_logits, policy, run, small_chat, tiny, words
from torch import Tensor
from torch.testing import assert_close

from tutelage import cpu
from tutelage.cpu import products
from tutelage.errors import PolicyError
from tutelage.maths.distributions import diverge
from tutelage.maths.divergences import reverse_kl
from tutelage.objective.lazy_scores import with_frozen_head
from tutelage.policies.base import Request
from tutelage.policies.hf import architecture
from tutelage.policies.hf import policy as hf_policy
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.packing import pack
from tutelage.prompts.prompter import Sample

HEATS = [1.0, 0.4]


def conversations(seed: int, count: int = 5) -> list[list[Sample]]:
    """Ragged append-only episodes, every third a window's: prompts that stand alone."""
    rng = random.Random(seed)
    samples = []
    for k in range(count):
        ids: tuple[int, ...] = ()
        turns = []
        for _ in range(rng.randint(1, 4)):
            new = tuple(rng.randrange(10, 400) for _ in range(rng.randint(1, 30)))
            prompt = new if k % 3 == 2 else (*ids, *new)
            tokens = tuple(rng.randrange(10, 400) for _ in range(rng.randint(1, 6)))
            tokens = (*tokens, small_chat().end)
            turns.append(Sample(prompt=prompt, tokens=tokens))
            ids = (*prompt, *tokens)
        samples.append(turns)
    return samples


def flat(episodes: list[list[Sample]]) -> list[Sample]:
    return [s for turns in episodes for s in turns]


def own_logps(of: HFPolicy, samples: list[Sample], heat: float) -> Tensor:
    """A forward pass of the model per turn, and nothing of ours."""
    out = []
    for s in samples:
        rows = own_logits(of, [*s.prompt, *s.tokens])[len(s.prompt) - 1 : -1]
        rows = (rows / heat).log_softmax(-1)
        out.append(rows[torch.arange(len(s.tokens)), torch.tensor(s.tokens)])
    return torch.cat(out)


@pytest.mark.parametrize("heat", HEATS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("tokens", [1, 200, 16_384])
def test_scores_are_the_models_own_whatever_shares_a_pass(
    tokens: int, heat: float, padded: bool
) -> None:
    of = policy(tokens=tokens, padded=padded)
    samples = flat(conversations(0))
    assert len(pack(samples)) < len(samples)
    with torch.no_grad():
        scores = of.score(samples, heat)
        assert_close(scores.logp, own_logps(of, samples, heat), atol=2e-5, rtol=1e-5)
        rows = scores.distribution.logps()
    assert rows.shape == (len(scores.logp), of.chat.size)
    token = torch.tensor([t for s in samples for t in s.tokens])
    assert_close(rows.gather(-1, token[:, None]).squeeze(-1), scores.logp, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_the_order_of_samples_is_the_order_of_scores(padded: bool) -> None:
    of = policy(padded=padded)
    episodes = conversations(1)
    with torch.no_grad():
        apart = {id(turns): of.score(turns, 1.0).logp for turns in episodes}
        for order in (episodes, episodes[::-1]):
            together = of.score(flat(order), 1.0).logp
            assert_close(together, torch.cat([apart[id(t)] for t in order]), atol=2e-5, rtol=1e-5)


def gradients(of: HFPolicy, loss: Tensor) -> dict[str, Tensor]:
    of.model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in of.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("tokens", [1, 100, 16_384])
def test_the_gradient_of_packed_turns_is_that_of_turns_apart(tokens: int, padded: bool) -> None:
    """The reference is the model's own forward pass, a turn at a time."""
    of = policy(tokens=tokens, padded=padded)
    samples = flat(conversations(2))
    weight = torch.linspace(-1, 2, sum(len(s.tokens) for s in samples))
    packed = gradients(of, (weight * of.score(samples, 0.7).logp).sum())
    total, start = torch.zeros(()), 0
    for s in samples:
        ids = torch.tensor([[*s.prompt, *s.tokens]])
        logits = of.model(input_ids=ids, use_cache=False).logits[0, len(s.prompt) - 1 : -1]
        rows = (logits / 0.7).log_softmax(-1)
        mine = rows[torch.arange(len(s.tokens)), torch.tensor(s.tokens)]
        total = total + (weight[start : start + len(mine)] * mine).sum()
        start += len(mine)
    apart = gradients(of, total)
    assert set(packed) == set(apart) == {n for n, _ in of.model.named_parameters()}
    for name, g in apart.items():
        assert_close(packed[name], g, atol=1e-4 * float(g.abs().max()), rtol=1e-3)


def test_a_divergence_over_the_vocabulary_reaches_every_parameter() -> None:
    of, teacher = policy(), policy(seed=1, layers=1)
    samples = flat(conversations(3, count=2))
    with torch.no_grad():
        goal = teacher.score(samples, 1.0).distribution
    grads = gradients(of, diverge(reverse_kl, of.score(samples, 1.0).distribution, goal).sum())
    assert all(float(g.abs().sum()) > 0 for g in grads.values())
    assert set(grads) == {n for n, _ in of.model.named_parameters()}


@pytest.mark.parametrize("small", [0, 1 << 40])
def test_a_pass_of_small_products_stays_with_the_blas(
    small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_policy, "MIN_ONEDNN_MULTIPLICATIONS", small)
    of, seen = policy(), list[bool]()
    first = of.base.layers[0].mlp
    first.register_forward_hook(lambda *inputs: seen.append(cpu.onednn()))
    with products("bfloat16"), torch.no_grad():
        of.score(flat(conversations(4, count=1)), 1.0)
        run(of, [Request(key="a", prompt=(30, 31, 32), seed=0, max_new=2)])
        assert cpu.onednn()
    assert set(seen) == {small == 0}


def test_the_loss_reads_the_places_before_sampled_tokens_and_no_others() -> None:
    """No prompt and no observation is predicted; the end-of-turn token is."""
    of = policy()
    turns = conversations(4, count=1)[0]
    caught: list[Tensor] = []
    inner = of._forward

    def watched(**inputs: Any) -> Tensor:
        hidden = inner(**inputs)
        hidden.retain_grad()
        caught.append(hidden)
        return hidden

    of._forward = watched  # type: ignore[method-assign]
    scores = of.score(turns, 1.0)
    (scores.logp.sum() + scores.distribution.hidden.square().sum()).backward()
    (hidden,) = caught
    assert hidden.grad is not None
    read = {int(t) for t in hidden.grad[0].abs().sum(-1).nonzero()}
    want = {
        len(s.prompt) + k - 1 for s in turns for k in range(len(s.tokens))
    }  # the place that predicts the end-of-turn token among them
    assert read == want
    assert len(want) < hidden.shape[1]


def test_lower_precision_is_near_and_keeps_weights_in_float32() -> None:
    of, low = policy(), policy(dtype="bfloat16")
    samples = flat(conversations(5))
    with torch.no_grad():
        exact, near = of.score(samples, 1.0).logp, low.score(samples, 1.0).logp
    assert near.dtype == torch.float32
    assert float((exact - near).abs().mean()) < 0.05
    assert not torch.equal(exact, near)
    assert all(p.dtype == torch.float32 for p in low.model.parameters())
    grads = gradients(low, low.score(samples, 1.0).logp.sum())
    assert all(g.dtype == torch.float32 for g in grads.values())


def test_what_lower_precision_samples_it_scores_alike() -> None:
    low = policy(dtype="bfloat16")
    prompt = tuple(range(10, 90))
    completion = run(low, [Request(key="a", prompt=prompt, seed=0, max_new=20)])["a"]
    with torch.no_grad():
        again = low.score([Sample(prompt=prompt, tokens=completion.tokens)], 1.0).logp
    assert_close(torch.tensor(completion.logps), again, atol=0.1, rtol=0)


def test_what_acts_in_two_bytes_follows_the_weights_and_changes_no_number() -> None:
    low, plain = policy(dtype="bfloat16"), policy(dtype="bfloat16")
    plain.frozen = True  # autocast makes the two bytes in every pass
    prompt = tuple(range(10, 90))
    asked = [Request(key=k, prompt=(*prompt, n), seed=n, max_new=12) for n, k in enumerate("abc")]
    for step in range(3):
        turns, want = run(low, asked), run(plain, asked)
        assert {k: (c.tokens, c.logps) for k, c in turns.items()} == {
            k: (c.tokens, c.logps) for k, c in want.items()
        }
        assert plain.acting_copy is None
        assert low.acting_copy is not None
        with torch.no_grad():
            for mine, theirs in zip(low.parameters(), plain.parameters(), strict=True):
                assert mine.dtype == torch.float32
                mine.add_(0.01 * (step + 1) * torch.randn_like(mine))
                theirs.copy_(mine)
        low.refresh()
        plain.refresh()
    low.freeze()
    assert run(low, asked).keys() == turns.keys()
    assert low.acting_copy is None


def test_entries_that_no_text_means_are_neither_sampled_nor_scored() -> None:
    """Embeddings are often padded to a round number; those rows are nobody's words."""
    model = tiny()
    size = small_chat().size
    model.resize_token_embeddings(size + 64)
    with torch.no_grad():
        model.get_output_embeddings().weight[size:] = 50.0
    of = HFPolicy(model, small_chat())
    sample = Sample(prompt=tuple(range(10, 20)), tokens=(11, 12))
    with torch.no_grad():
        scores = of.score([sample], 1.0)
        rows = scores.distribution.logps()
    assert rows.shape == (2, size)
    assert_close(rows.exp().sum(-1), torch.ones(2), atol=1e-5, rtol=0)
    assert_close(scores.logp, own_logps(of, [sample], 1.0), atol=2e-5, rtol=1e-5)


def test_a_tokenizer_with_more_entries_than_the_model_is_refused() -> None:
    model = tiny()
    model.resize_token_embeddings(small_chat().size - 1)
    with pytest.raises(PolicyError, match="do not belong together"):
        HFPolicy(model, small_chat())


def test_a_view_of_the_weights_being_trained_teaches_what_it_was_scored_as() -> None:
    of = policy()
    samples = flat(conversations(6, count=1))
    with torch.no_grad():
        before = with_frozen_head(of.score(samples, 1.0), []).distribution
        rows = before.logps()
        of.head.add_(1.0)
        for p in of.model.parameters():
            p.mul_(1.1)
    assert torch.equal(before.logps(), rows)
    frozen = policy()
    frozen.model.requires_grad_(False)
    with torch.no_grad():
        taught = frozen.score(samples, 1.0).distribution
    assert taught.head.data_ptr() == frozen.head.data_ptr()  # a teacher's head is not copied


def test_only_what_may_be_trained_is_handed_to_the_optimizer() -> None:
    of = policy()
    everything = len(list(of.parameters()))
    assert everything == len(list(of.model.parameters()))
    of.model.get_input_embeddings().weight.requires_grad_(False)
    assert len(list(of.parameters())) == everything - 1


def shape(**more: object) -> dict[str, object]:
    return {
        "vocab_size": len(words()),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "bos_token_id": None,
        **more,
    }


def build(name: str, **more: object) -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(**shape(**more))
    torch.manual_seed(0)
    head = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    model = getattr(transformers, f"{name}{head}")(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(4)
    return model


KV = {"num_key_value_heads": 2}


def test_capped_attention_takes_the_plain_path_where_the_fast_kernel_leaves_the_cap_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As transformers 5.17 does: two computations without the cap would be equal."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    usual = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def without_cap(*args: Any, **options: Any) -> Any:
        options.pop("softcap", None)
        return usual(*args, **options)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", without_cap)
    monkeypatch.setattr(architecture, "misfit", lambda config: "")  # found by the proof alone
    of = HFPolicy(
        build(
            "Gemma2",
            head_dim=8,
            layer_types=["full_attention"] * 2,
            **KV,
            final_logit_softcapping=None,
            attn_logit_softcapping=0.5,
        ),
        small_chat(),
    )
    assert of.path.startswith("plain path: in packed passes its ")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Llama", KV),
        ("Qwen2", KV),
        ("Qwen3", {**KV, "head_dim": 16}),
        ("SmolLM3", KV),
        ("Mistral", {**KV, "sliding_window": None}),
        ("GPT2", {"n_positions": 128}),
        ("GPTNeoX", {}),
        ("Granite", {**KV, "logits_scaling": 4.0}),
        ("Cohere", KV),
    ],
)
def test_other_architectures_score_and_sample_as_they_are(
    name: str, more: dict[str, object]
) -> None:
    from support.tiny_models import run

    from tutelage.policies.base import Request

    of = HFPolicy(build(name, **more), small_chat())
    assert of.path == "fast path"
    samples = flat(conversations(7, count=3))
    samples = [s for s in samples if len(s.prompt) + len(s.tokens) <= 128]
    with torch.no_grad():
        logps = of.score(samples, 1.0).logp
    assert_close(logps, own_logps(of, samples, 1.0), atol=1e-4, rtol=1e-4)
    prompt = tuple(range(10, 40))
    completion = run(of, [Request(key="a", prompt=prompt, seed=0, max_new=9)])["a"]
    longer = Request(key="a", prompt=(*prompt, *completion.tokens, 50, 51), seed=1, max_new=9)
    for request, c in ((None, completion), (longer, run(of, [longer])["a"])):
        s = Sample(prompt=request.prompt if request else prompt, tokens=c.tokens)
        assert list(c.logps) == pytest.approx(own_logps(of, [s], 1.0).tolist(), abs=1e-4)


def test_a_model_left_in_training_mode_has_its_dropout_switched_off() -> None:
    of = HFPolicy(build("GPT2", n_positions=128, resid_pdrop=0.5).train(), small_chat())
    sample = Sample(prompt=tuple(range(10, 20)), tokens=(11, 12))
    with torch.no_grad():
        assert torch.equal(of.score([sample], 1.0).logp, of.score([sample], 1.0).logp)


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = tiny()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = math.nan
    with pytest.raises(PolicyError, match="not finite"):
        HFPolicy(model, small_chat())
