"""Scripted conversations, and their log-probabilities by the model's own forward pass."""

import random
from dataclasses import dataclass, field

import pytest
import torch

from support.tiny_models import own_logits
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import HFPolicy

V = 400


def reference(of: HFPolicy, request: Request) -> Completion:
    """One token at a time, everything computed again for each."""
    ids, rng = list(request.prompt), random.Random(request.seed)
    tokens: list[int] = []
    logps: list[float] = []
    while len(tokens) < request.max_new and of.chat.end not in tokens:
        logits = own_logits(of, [*ids, *tokens])[-1].double()
        rows = (logits / (request.temperature or 1.0)).log_softmax(-1)
        mass = rows.exp().cumsum(-1)
        uniform = rng.random() * float(mass[-1])
        token = int((mass <= uniform).sum()) if request.temperature else int(rows.argmax())
        tokens.append(token)
        logps.append(float(rows[token]))
    ended = tokens[-1] == of.chat.end
    return Completion(key=request.key, tokens=tuple(tokens), logps=tuple(logps), ended=ended)


def assert_same(actual: Completion, want: Completion) -> None:
    assert actual.key == want.key
    assert actual.tokens == want.tokens
    assert actual.ended == want.ended
    assert actual.logps == pytest.approx(want.logps, abs=2e-5)


@dataclass
class Talk:
    """An episode by script: what is said to it is fixed, what it says is sampled."""

    name: str
    says: list[tuple[int, ...]]
    window: bool
    temperature: float
    ids: tuple[int, ...] = ()
    turn: int = 0
    asked: list[Request] = field(default_factory=list)

    def ask(self, reply: tuple[int, ...]) -> Request:
        """The next request: the transcript so far, or a fresh prompt under the same opening."""
        new = self.says[self.turn]
        self.ids = (*self.says[0][:8], *new) if self.window else (*self.ids, *reply, *new)
        request = Request(
            key=self.name,
            prompt=self.ids,
            seed=31 * len(self.ids) + self.turn,
            max_new=6,
            temperature=self.temperature,
        )
        self.turn += 1
        self.asked.append(request)
        return request


def talks(seed: int, count: int) -> list[Talk]:
    """Ragged: 1 to 5 turns, 1 to 90 ids said in each; transcripts, windows, all temperatures."""
    rng = random.Random(seed)
    results = []
    for k in range(count):
        says = [
            tuple(rng.randrange(10, V) for _ in range(rng.choice((1, 3, 17, 40, 90))))
            for _ in range(rng.randint(1, 5))
        ]
        results.append(
            Talk(f"e{k}", says, window=k % 3 == 2, temperature=(1.0, 0.0, 0.6, 2.0)[k % 4])
        )
    return results


def play(of: HFPolicy, episodes: list[Talk]) -> list[tuple[Request, Completion]]:
    by_name = {t.name: t for t in episodes}
    for talk in episodes:
        of.submit(talk.ask(()))
    open_, result = set(by_name), []
    while open_:
        for completion in of.poll():
            talk = by_name[completion.key]
            result.append((talk.asked[-1], completion))
            if talk.turn < len(talk.says):
                of.submit(talk.ask(completion.tokens))
            else:
                of.release(talk.name)
                open_.remove(talk.name)
    return result


class Fed:
    """What the engine hands to the model: how many ids in each pass."""

    def __init__(self, of: HFPolicy) -> None:
        self.inner, self.shapes = of.engine.forward, []
        of.engine.forward = self

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(inputs["input_ids"].shape))
        return self.inner(**inputs)


def request(prompt: tuple[int, ...], *, key: str = "a", max_new: int = 4) -> Request:
    return Request(key=key, prompt=prompt, seed=1, max_new=max_new)
