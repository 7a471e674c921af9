"""Learning on the plain path: a step's loss and gradient are those of a loop over the model itself."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.architectures import build
from support.tiny_models import small_chat, words
from torch import Tensor
from torch.testing import assert_close

import tutelage as tl
from tutelage.objective import Algorithm
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample
from tutelage.types import Episode

KINDS = {
    "gpt_oss": {},  # a sliding window with attention sinks
    "gemma2": {},  # soft caps on scores and on logits
    "mamba2": {},  # recurrent state
    "deepseek_v3": {},  # latent keys and values
    "bart": {},  # a decoder of an encoder-decoder
    "deepseek_v32": {"index_n_heads": 2},  # ties in its choice of keys: recomputed
}


class Recorder(torch.optim.SGD):
    """Keeps the gradients that it is given, and moves nothing."""

    seen: dict[int, Tensor]

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        parameters = self.param_groups[0]["params"]
        self.seen = {id(p): p.grad.clone() for p in parameters if p.grad is not None}


def opened(name: str, seed: int, **more: Any) -> HFPolicy:
    chat, pad = small_chat(), words().pad_token_id
    return HFPolicy(build(name, size=chat.size, end=chat.end, pad=pad, seed=seed, **more), chat)


def own_logits(of: HFPolicy, sample: Sample) -> Tensor:
    """[n, V] by the model's own forward pass, or one for each token where it is recomputed."""
    ids, begin = torch.tensor([[*sample.prompt, *sample.tokens]]), len(sample.prompt)
    if of.plain is not None and of.plain.recomputed:
        passes = [of.model(input_ids=ids[:, :t]).logits[0, -1] for t in range(begin, ids.shape[1])]
        return torch.stack(passes)[:, : of.chat.size]
    logits: Tensor = of.model(input_ids=ids, use_cache=False).logits
    return logits[0, begin - 1 : -1, : of.chat.size]


def chosen(logits: Tensor, sample: Sample) -> Tensor:
    return logits.log_softmax(-1).gather(-1, torch.tensor(sample.tokens)[:, None]).squeeze(-1)


def turns(episode: Episode) -> Iterator[Sample]:
    """The turns of a transcript, each after all that was before it."""
    ids: tuple[int, ...] = ()
    for turn in episode.turns:
        ids += turn.prompt
        yield Sample(prompt=ids, tokens=turn.tokens)
        ids += turn.tokens


def played(session: tl.Session, algorithm: Algorithm) -> tuple[tl.Trainer, list[Episode]]:
    """Two episodes of one task, the second of them with a reward."""
    trainer = tl.Trainer(session, algorithm, lr=0.0, grad_clip=1e9)
    trainer.optimizer = Recorder(list(trainer.student.parameters()), lr=0.0)
    found = trainer.play(session.suite.tasks("train")[:1], group_size=2)
    last = replace(found[1].turns[-1], reward=1.0)
    return trainer, [found[0], replace(found[1], turns=(*found[1].turns[:-1], last))]


@pytest.mark.parametrize("name", KINDS)
def test_a_step_is_that_of_a_loop_over_the_model(name: str) -> None:
    student, teacher = opened(name, 0, **KINDS[name]), opened(name, 1, **KINDS[name])
    assert student.plain is not None
    assert student.plain.recomputed is bool(KINDS[name])
    limits = tl.Limits(max_turns=1 if KINDS[name] else 2, max_new_tokens=3)
    session = tl.Session(tl.suite("doors"), {"self": student, "teacher": teacher}, limits=limits)
    trainer, episodes = played(session, tl.algorithms.grpo(std=False))
    samples = [(e, s) for e in episodes for s in turns(e)]
    count = sum(len(s.tokens) for _, s in samples)
    assert count >= 4

    sampled = torch.tensor([x for e in episodes for turn in e.turns for x in turn.logps])
    with torch.no_grad():
        scored = student.score([s for _, s in samples], 1.0).logp
        own = torch.cat([chosen(own_logits(student, s), s) for _, s in samples])
    assert_close(sampled, scored, atol=1e-5, rtol=1e-5)
    assert_close(scored, own, atol=1e-5, rtol=1e-5)

    returns = [e.total_reward for e in episodes]
    loss = torch.zeros(())
    for episode, sample in samples:
        advantage = episode.total_reward - sum(returns) / 2
        logps = chosen(own_logits(student, sample), sample)
        loss = loss - (advantage * (logps - logps.detach()).exp()).sum() / count
    compare(trainer, episodes, loss)

    trainer, _ = played(session, tl.algorithms.opd(vocabulary="full"))
    loss = torch.zeros(())
    for _, sample in samples:
        with torch.no_grad():
            q = own_logits(teacher, sample).log_softmax(-1)
        p = own_logits(student, sample).log_softmax(-1)
        loss = loss + (p.exp() * (p - q)).sum() / count
    compare(trainer, episodes, loss)


def compare(trainer: tl.Trainer, episodes: list[Episode], loss: Tensor) -> None:
    """A step's loss and gradients with those of the loop."""
    report = trainer.learn(episodes)
    assert sum(report.losses.values()) == pytest.approx(loss.item(), abs=1e-5, rel=1e-5)
    parameters = list(trainer.student.parameters())
    own = torch.autograd.grad(loss, parameters, allow_unused=True)
    scale = max(float(g.abs().max()) for g in own if g is not None)
    assert isinstance(trainer.optimizer, Recorder)
    for p, gradient in zip(parameters, own, strict=True):
        ours = trainer.optimizer.seen.get(id(p))
        assert (ours is None) == (gradient is None)
        if ours is not None and gradient is not None:
            assert_close(ours / scale, gradient / scale, atol=1e-5, rtol=1e-5)
