"""The plain path: models that packed passes do not fit act, score and learn as their own code says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import build, ragged
from support.tiny_models import run, small_chat, words
from torch import Tensor
from torch.testing import assert_close

import tutelage as tl
from tutelage.errors import PolicyError
from tutelage.maths.distributions import Distribution, Pieces, diverge, sampled_logps
from tutelage.maths.divergences import reverse_kl
from tutelage.policies.base import Request
from tutelage.policies.hf import architecture, loading, plain, proof
from tutelage.policies.hf.plain import PlainEngine, size_of
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

FAMILIES = {
    "gemma2": "sliding_attention",  # and soft caps on scores and on logits
    "gemma3_text": "sliding_attention",
    "gpt_oss": "sliding_attention",  # and attention sinks
    "mamba2": "linear_attention",  # recurrent state
    "deepseek_v3": "does not take packed sequences",  # latent keys and values
    "qwen3_next": "linear_attention",
    "bamba": "linear_attention",  # whose positions are wrong in a cached pass, unless given
    "bert": "in packed passes",  # a head with a bias
}
"""Model type, and what of it the plain path's reason names."""


def model(name: str, **more: Any) -> Any:
    return build(
        name, size=small_chat().size, end=small_chat().end, pad=words().pad_token_id, **more
    )


def opened(name: str, **settings: Any) -> HFPolicy:
    return HFPolicy(model(name), small_chat(), **settings)


def samples() -> list[Sample]:
    """Ragged ones, the last two of them turns of one episode."""
    found = [Sample(prompt=x[:-n], tokens=x[-n:]) for x, n in ragged(small_chat().size)]
    last = found[-1]
    more = Sample(prompt=(*last.prompt, *last.tokens, 11, 12, 13), tokens=(14, 15))
    return [*found, more]


def own_rows(of: HFPolicy, sample: Sample, heat: float) -> Tensor:
    """[n, V] log-probabilities at a sample's tokens, by one forward pass of the model."""
    ids = torch.tensor([[*sample.prompt, *sample.tokens]])
    logits = of.model(input_ids=ids, use_cache=False).logits[0, len(sample.prompt) - 1 : -1]
    return (logits[:, : of.chat.size] / heat).log_softmax(-1)


def own_logps(of: HFPolicy, found: list[Sample], heat: float) -> Tensor:
    parts = [own_rows(of, s, heat).gather(-1, torch.tensor(s.tokens)[:, None]) for s in found]
    return torch.cat(parts).squeeze(-1)


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_and_gradients_are_the_models_own(name: str) -> None:
    of, found = opened(name), samples()
    assert of.path.startswith("plain path: ")
    assert FAMILIES[name] in of.path
    weight = torch.linspace(-1, 2, sum(len(s.tokens) for s in found))
    scores = of.score(found, 0.7)
    expected = own_logps(of, found, 0.7)
    assert_close(scores.logp, expected, atol=2e-4, rtol=1e-4)
    (weight * scores.logp).sum().backward()
    ours = {n: p.grad.clone() for n, p in of.model.named_parameters() if p.grad is not None}
    of.model.zero_grad()
    (weight * expected).sum().backward()
    theirs = {n: p.grad for n, p in of.model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    scale = max(float(x.abs().max()) for x in theirs.values())
    for key, grad in theirs.items():
        assert_close(
            ours[key], grad, atol=1e-3 * scale, rtol=1e-3, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_turns_have_the_models_own_probabilities_in_any_order(name: str) -> None:
    of = opened(name)
    first = [
        Request(key=k, prompt=tuple(range(20, 30 + 7 * i)), seed=i, max_new=6, temperature=0.8)
        for i, k in enumerate("abb")
        if k != "b" or i == 1
    ]
    alone = {r.key: run(of, [r])[r.key] for r in first}
    of.refresh()
    together = run(of, first[::-1])
    assert {k: c.tokens for k, c in together.items()} == {k: c.tokens for k, c in alone.items()}
    assert together["a"].logps == alone["a"].logps
    later = [
        Request(key=r.key, prompt=(*r.prompt, *together[r.key].tokens, 40, 41), seed=9, max_new=4)
        for r in first
    ]
    turns = [*((r, 0.8, together[r.key]) for r in first)]
    more = run(of, later)
    turns += [(r, 1.0, more[r.key]) for r in later]
    with torch.no_grad():
        for request, heat, completion in turns:
            sample = Sample(prompt=request.prompt, tokens=completion.tokens)
            own = own_logps(of, [sample], heat)
            assert_close(torch.tensor(completion.logps), own, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gemma2", "bert"])
def test_a_divergence_to_a_teacher_of_another_kind_is_over_the_whole_vocabulary(name: str) -> None:
    student, teacher, found = opened("qwen3_next"), opened(name), samples()
    teacher.freeze()
    ours = diverge(
        reverse_kl,
        student.score(found, 1.0).distribution,
        teacher.score(found, 1.0).distribution,
    )
    expected = torch.cat(
        [reverse_kl(own_rows(student, s, 1.0), own_rows(teacher, s, 1.0)) for s in found]
    )
    assert_close(ours, expected, atol=1e-3, rtol=1e-3)


def test_a_cap_bends_the_gradient_in_pieces_and_in_one() -> None:
    torch.manual_seed(0)
    base = torch.randn(5, 4, dtype=torch.float64) * 3, torch.randn(7, 4, dtype=torch.float64)
    token, gradients = torch.tensor([1, 2, 3, 4, 0]), []
    for way in ("whole", "pieces", "plain"):
        hidden, head = (x.clone().requires_grad_() for x in base)
        of = Distribution(hidden=hidden, head=head, temperature=0.5, cap=2.0)
        if way == "plain":
            rows = (2 * torch.tanh(hidden @ head.T / 2) / 0.5).log_softmax(-1)
            rows.gather(-1, token[:, None]).sum().backward()
        elif way == "whole":
            sampled_logps(of, token).sum().backward()
        else:
            cut = Pieces(of)
            for start in (0, 2):
                part = slice(start, start + 3 if start else 2)
                sampled_logps(cut[part], token[part]).sum().backward()
            for tensor, grad in cut.send():
                tensor.backward(grad)
        gradients.append((hidden.grad, head.grad))
    for got in gradients[:2]:
        assert_close(got, gradients[2])


def test_logits_without_a_formula_are_scored_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that does more after its head than a factor or a cap."""
    of = model("gemma2")
    usual = type(of).forward

    def uneven(self: Any, *args: Any, **more: Any) -> Any:
        result = usual(self, *args, **more)
        factors = torch.linspace(0.5, 1.5, result.logits.shape[-1])
        result.logits = result.logits * factors
        return result

    monkeypatch.setattr(type(of), "forward", uneven)
    policy, found = HFPolicy(of, small_chat()), samples()
    assert policy.readout.output is None
    scores = policy.score(found, 0.7)
    assert_close(scores.logp, own_logps(policy, found, 0.7), atol=2e-4, rtol=1e-4)
    policy.score(found, 1.0).distribution.logps()[:, 3].sum().backward()
    assert float(policy.model.model.layers[0].mlp.up_proj.weight.grad.abs().max()) > 0


def longrope() -> Any:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 1.9, 2.8, 3.7],
        "original_max_position_embeddings": 24,
        "factor": 4.0,
    }
    more = {"rope_parameters": rope, "original_max_position_embeddings": 24, "sliding_window": None}
    return model("phi3", **more)


def test_rotations_that_change_with_length_are_those_of_the_sequence_alone() -> None:
    of = HFPolicy(longrope(), small_chat())
    assert "sequences of more than 24 tokens" in of.path
    short = Sample(prompt=tuple(range(20, 32)), tokens=(40, 41, 42))
    long = Sample(prompt=tuple(range(50, 90)), tokens=(43, 44))
    with torch.no_grad():
        for found in ([short], [long], [short, long], [long, short]):
            assert_close(of.score(found, 1.0).logp, own_logps(of, found, 1.0), atol=1e-4, rtol=1e-4)
        across = Request(key="a", prompt=tuple(range(20, 40)), seed=0, max_new=12)
        turn = run(of, [across])["a"]
        assert len(turn.tokens) > 6
        before = [(*across.prompt, *turn.tokens[:i]) for i in range(len(turn.tokens))]
        rows = [of.model(input_ids=torch.tensor([ids]), use_cache=False).logits for ids in before]
        rows = [x[0, -1, : of.chat.size].log_softmax(-1) for x in rows]
        own = torch.stack([x[t] for x, t in zip(rows, turn.tokens, strict=True)])
        assert_close(torch.tensor(turn.logps), own, atol=1e-4, rtol=1e-4)
        scored = of.score([Sample(prompt=across.prompt, tokens=turn.tokens)], 1.0).logp
        assert_close(scored, own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gemma3_text", "mamba2"])
def test_a_long_prompt_is_fed_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = opened(name)
    asked = Request(key="a", prompt=tuple(range(20, 60)), seed=0, max_new=4)
    whole = run(of, [asked])["a"]
    of.refresh()
    sizes: list[int] = []
    of.model.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    monkeypatch.setattr(plain, "PIECE", 16)
    turn = run(of, [asked])["a"]
    assert sizes[:4] == [16, 16, 8, 1]
    assert turn.tokens == whole.tokens
    assert_close(torch.tensor(turn.logps), torch.tensor(whole.logps), atol=1e-4, rtol=1e-4)


def test_a_model_that_looks_ahead_is_refused() -> None:
    of = model("bert")
    of.config.is_decoder = False
    for module in of.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
        if hasattr(module, "is_decoder"):
            module.is_decoder = False
    with pytest.raises(PolicyError, match="BertLMHeadModel cannot be sampled from"):
        HFPolicy(of, small_chat())


def test_a_cache_that_forgets_is_not_used() -> None:
    """A model whose cached step ignores what came before is sampled without its cache."""
    of = model("gemma2")
    usual = of.forward

    def forgetful(input_ids: Any = None, cache: Any = None, **more: Any) -> Any:
        return usual(input_ids=input_ids, **more)

    of.forward = forgetful
    policy = HFPolicy(of, small_chat())
    assert policy.plain is not None
    assert policy.plain.feeding == "none"
    assert policy.path.endswith("so every token is sampled by a pass over all before")


def test_positions_are_given_to_a_model_that_counts_them_wrongly() -> None:
    of = opened("bamba")
    assert of.plain is not None
    assert (of.plain.feeding, of.plain.given) == ("several", "positions")
    assert "pass over all before" not in of.path


def test_caches_are_kept_within_their_budget_and_shared_by_a_group() -> None:
    of = opened("gemma2", slots=3)
    engine = of.engine
    assert isinstance(engine, PlainEngine)
    prompt = tuple(range(20, 50))
    asked = [Request(key=str(k), prompt=prompt, seed=k, max_new=3) for k in range(5)]
    together = run(of, asked)
    assert len(engine.episodes) == 3
    assert size_of(engine.episodes["4"].state) > 0
    of.refresh()
    engine.budget = 1
    for request in asked:
        assert run(of, [request])[request.key] == together[request.key]
        assert len(engine.episodes) == 1
    of.release("4")
    assert not engine.episodes


def test_a_step_is_learnt_saved_and_loaded(tmp_path: Path) -> None:
    own = model("qwen3_next")
    of = HFPolicy(own, small_chat(), gradient_checkpointing=True)
    before = [p.detach().clone() for p in of.parameters()]
    limits = tl.Limits(max_turns=1, max_new_tokens=16)
    session = tl.Session(tl.suite("doors"), {"self": of}, limits=limits)
    trainer = tl.Trainer(session, tl.algorithms.sft(), lr=1e-3)
    trainer.learn(trainer.play(tl.suite("doors").tasks("train")[:1], group_size=1))
    assert any(not torch.equal(a, b) for a, b in zip(before, of.parameters(), strict=True))
    of.save(tmp_path)
    again = loading.load(str(tmp_path))
    assert again.path == of.path
    with torch.no_grad():
        assert torch.equal(again.score(samples(), 1.0).logp, of.score(samples(), 1.0).logp)
        copied = of.copied()
        assert torch.equal(copied.score(samples(), 1.0).logp, of.score(samples(), 1.0).logp)
        for p in of.parameters():
            p.add_(0.1)
        assert torch.equal(again.score(samples(), 1.0).logp, copied.score(samples(), 1.0).logp)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ZeroDivisionError("by zero\nat once"), "ZeroDivisionError: by zero"),
        (AssertionError(), "AssertionError"),  # without a message
    ],
)
def test_a_forward_pass_that_fails_is_a_sentence(error: Exception, reason: str) -> None:
    of = model("gemma2")

    def fails(**inputs: Any) -> Any:
        raise error

    of.forward = fails
    sentence = rf"forward pass of this Gemma2ForCausalLM .* fails \({reason}\)"
    with pytest.raises(PolicyError, match=sentence):
        HFPolicy(of, small_chat())


def test_windows_are_looked_beyond_by_the_proof() -> None:
    of = model("gemma2")
    assert architecture.window(of.config) == 8
    probe = proof.probe(of.config, size=400, context=256)
    assert min(len(p) for p in probe.prompts) > 2 * 8


@pytest.mark.parametrize("name", ["mamba2", "gemma2"])
def test_adapters_are_trained_on_the_plain_path(name: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base, adapted = tmp_path / "base", tmp_path / "adapted"
    model(name).save_pretrained(base)
    words().save_pretrained(base)
    of = loading.load(str(base), lora=4)
    of.score(samples(), 1.0).logp.sum().backward()
    with torch.no_grad():
        for p in of.parameters():
            assert p.grad is not None
            p.add_(0.05)
        expected = of.score(samples(), 1.0).logp
        adapted.mkdir()
        of.save(adapted)
        merged = loading.load(str(adapted)).score(samples(), 1.0).logp
    assert_close(merged, expected, atol=2e-4, rtol=1e-4)


def tied() -> Any:
    """A sparse indexer of few heads: the scores of many keys are exactly 0, and which of them are
    among the best depends on how many there are."""
    return model("deepseek_v32", index_n_heads=2)


@pytest.mark.parametrize("make", [tied, lambda: model("xlnet")], ids=["deepseek_v32", "xlnet"])
def test_tokens_that_depend_on_later_ones_are_recomputed(make: Any) -> None:
    of = HFPolicy(make(), small_chat())
    assert of.plain is not None
    assert of.plain.recomputed
    assert of.path.endswith("sampled, and scored, by a pass of its own over all before it")
    asked = [
        Request(key=k, prompt=tuple(range(20, 45)), seed=i, max_new=5) for i, k in enumerate("ab")
    ]
    turns = run(of, asked)
    found = [Sample(prompt=r.prompt, tokens=turns[r.key].tokens) for r in asked]
    sampled = torch.tensor([x for r in asked for x in turns[r.key].logps])
    assert_close(of.score(found, 1.0).logp, sampled, atol=1e-5, rtol=1e-5)
    ids = torch.tensor([[*found[0].prompt, *found[0].tokens[:-1]]])
    inputs = of.model.prepare_inputs_for_generation(
        ids, attention_mask=torch.ones_like(ids), is_first_iteration=True
    )
    logits = of.model(**{**inputs, "use_cache": False}).logits[0, -1, : of.chat.size]
    expected = logits.log_softmax(-1)[found[0].tokens[-1]]
    last = of.score([found[0]], 1.0).logp[-1]
    assert_close(last, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        copied = of.copied()
        assert torch.equal(copied.score(found, 1.0).logp, of.score(found, 1.0).logp)


def test_a_sparse_indexer_without_ties_keeps_its_cache() -> None:
    of = opened("deepseek_v32")
    assert of.plain is not None
    assert not of.plain.recomputed
    assert of.plain.feeding != "none"


def test_a_model_that_takes_no_gradient_outside_of_training_mode_is_refused() -> None:
    with pytest.raises(PolicyError, match="ReformerModelWithLMHead cannot be trained: "):
        opened("reformer")


def test_a_model_that_draws_random_numbers_is_refused() -> None:
    of = model("gemma2")
    usual = of.forward

    def noisy(**inputs: Any) -> Any:
        result = usual(**inputs)
        result.logits = result.logits + torch.rand_like(result.logits)
        return result

    of.forward = noisy
    with pytest.raises(
        PolicyError, match=r"cannot be sampled from: .* two passes of it may differ"
    ):
        HFPolicy(of, small_chat())


def test_the_text_part_of_a_model_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    """Its configuration is not among those that transformers' auto classes know."""
    own = model("mllama")
    own.save_pretrained(tmp_path / "first")
    words().save_pretrained(tmp_path / "first")
    of = loading.load(str(tmp_path / "first"))
    of.save(tmp_path / "second")
    again = loading.load(str(tmp_path / "second"))
    with torch.no_grad():
        assert torch.equal(again.score(samples(), 1.0).logp, of.score(samples(), 1.0).logp)
