"""What rows begin with is computed once, and nothing else changes: scores and gradients are those
of the slow twin, in which every row is computed from its first token."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_models import policy, small_chat
from torch import Tensor
from torch.testing import assert_close

from tutelage.algorithms import ALGORITHMS
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.objective import STUDENT, Algorithm
from tutelage.objective.scores import Scores
from tutelage.policies.base import Actor
from tutelage.policies.hf import shared_prefix
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.shared_prefix import MIN_PREFIX, Prefix, longest_usable, shared_tokens
from tutelage.policies.packing import PackedSequence, pack
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Limits, Session
from tutelage.training.layout import Span, prepare
from tutelage.training.train_step import Update, train_step
from tutelage.training.view_scores import ViewScores
from tutelage.types import Episode


def by_definition(
    q: Tensor, k: Tensor, v: Tensor, head: Tensor, head_values: Tensor, scaling: float
) -> Tensor:
    """One place and one head at a time."""
    out = torch.empty_like(q)
    shared = q.shape[1] // k.shape[1]
    for h in range(q.shape[1]):
        keys = torch.cat([head[0, h // shared], k[0, h // shared]])
        values = torch.cat([head_values[0, h // shared], v[0, h // shared]])
        for t in range(q.shape[2]):
            high = head.shape[2] + t + 1
            weight = torch.softmax(keys[:high] @ q[0, h, t] * scaling, 0)
            out[0, h, t] = weight @ values[:high]
    return out


@pytest.mark.parametrize(("known", "new"), [(40, 9), (3, 1), (1, 70), (700, 300)])
def test_attention_after_a_prefix_is_that_of_the_whole(known: int, new: int) -> None:
    torch.manual_seed(0)
    size = {"q": (6, new), "k": (2, new), "v": (2, new), "head": (2, known), "values": (2, known)}
    of = [torch.randn(1, h, n, 8, dtype=torch.float64) for h, n in size.values()]
    of = [x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in of]
    grad = torch.randn(1, 6, new, 8, dtype=torch.float64)
    q, k, v, head, head_values = of
    out = shared_prefix.attend(q, k, v, (head, head_values), 0.3)
    want = by_definition(q, k, v, head, head_values, 0.3)
    assert_close(out, want, atol=1e-10, rtol=1e-10)
    for mine, right in zip(
        torch.autograd.grad(out, of, grad), torch.autograd.grad(want, of, grad), strict=True
    ):
        assert_close(mine, right, atol=1e-9, rtol=1e-9)


# -- which tokens

ROW = st.tuples(st.lists(st.integers(0, 1), max_size=6), st.integers(0, 8)).map(
    lambda x: PackedSequence(
        ids=[7, *x[0], 7, 7], positions=[i for i in (x[1],) if 0 < i < len(x[0]) + 3]
    )
)


@given(st.lists(ROW, min_size=2, max_size=5))
def test_what_is_common_is_before_every_place_that_is_read(rows: list[PackedSequence]) -> None:
    size = shared_tokens(rows)
    heads = {tuple(row.ids[:size]) for row in rows}
    assert len(heads) == 1
    for row in rows:
        # the state at a place predicts the next one; and something must be left to pass
        assert size <= min(row.positions, default=len(row.ids)) - 1
    one_more = {tuple(row.ids[: size + 1]) for row in rows}
    tight = any(min(row.positions, default=len(row.ids)) - 1 == size for row in rows)
    assert tight or len(one_more) > 1


def test_the_longest_prefix_that_all_rows_share_is_used_as_far_as_it_goes() -> None:
    a, b = list(range(100, 180)), list(range(300, 340))
    known = [Prefix(a[:40]), Prefix(a[:70]), Prefix(b)]
    rows = [PackedSequence(ids=[*a[:60], k, k], positions=[61]) for k in (1, 2)]
    found = longest_usable(known, rows)
    assert found is not None
    assert list(found.ids) == a[:60]
    assert longest_usable(known, [*rows, PackedSequence(ids=[*b, 1, 2], positions=[41])]) is None
    assert (
        longest_usable(
            known, [PackedSequence(ids=[*a[: MIN_PREFIX - 1], 5, 6], positions=[MIN_PREFIX])]
        )
        is None
    )
    early = longest_usable(known, [PackedSequence(ids=a, positions=[50])])
    assert early is not None
    assert len(early.ids) == 49


# -- scores


def rows(seed: int, *, head: int = 80, count: int = 5) -> list[Sample]:
    """Episodes of turns that extend each other, after the same instructions."""
    rng = random.Random(seed)
    start = tuple(random.Random(0).randrange(10, 400) for _ in range(head))
    samples = []
    for _ in range(count):
        ids = start
        for _ in range(rng.randint(1, 3)):
            prompt = (*ids, *(rng.randrange(10, 400) for _ in range(rng.randint(1, 20))))
            tokens = (*(rng.randrange(10, 400) for _ in range(rng.randint(1, 6))), small_chat().end)
            samples.append(Sample(prompt=prompt, tokens=tokens))
            ids = (*prompt, *tokens)
    return samples


def fed(of: HFPolicy) -> list[int]:
    """Tokens of every pass from here on."""
    sizes: list[int] = []
    inner = of._forward

    def watched(**inputs: Any) -> Tensor:
        sizes.append(inputs["input_ids"].numel())
        return inner(**inputs)

    of._forward = watched  # type: ignore[method-assign]
    return sizes


def twins(**options: Any) -> tuple[HFPolicy, HFPolicy]:
    return policy(**options), policy(**options, reference_path=True)


@pytest.mark.parametrize("heat", [1.0, 0.4])
@pytest.mark.parametrize("tokens", [1, 250, 16_384])
def test_one_call_computes_what_its_rows_begin_with_once(tokens: int, heat: float) -> None:
    fast, slow = twins(tokens=tokens)
    samples = rows(1)
    packed = pack(samples)
    sizes = fed(fast)
    with torch.no_grad():
        scores, want = fast.score(samples, heat), slow.score(samples, heat)
    assert_close(scores.logp, want.logp, atol=2e-5, rtol=1e-5)
    assert_close(scores.distribution.logps(), want.distribution.logps(), atol=5e-5, rtol=1e-5)
    assert sum(sizes) == 80 + sum(len(row.ids) - 80 for row in packed)
    assert fast.prefixes == []


def parts(samples: Sequence[Sample]) -> list[list[Sample]]:
    """One row each."""
    groups: list[list[Sample]] = []
    for s in samples:
        if groups and s.prompt[: len(groups[-1][-1].prompt)] == groups[-1][-1].prompt:
            groups[-1].append(s)
        else:
            groups.append([s])
    return groups


def gradient(of: HFPolicy, samples: Sequence[Sample], *, share: bool) -> dict[str, Tensor]:
    """Of a weighted sum, a row at a time."""
    of.model.zero_grad()
    with of.shared_prefix(samples) if share else contextlib.nullcontext():
        for n, part in enumerate(parts(samples)):
            logp = of.score(part, 0.7).logp
            (torch.linspace(-1, 2 + n, len(logp)) * logp).sum().backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in of.model.named_parameters() if p.grad is not None}


def same(actual: dict[str, Tensor], want: dict[str, Tensor], close: float = 1e-4) -> None:
    assert set(actual) == set(want)
    for name, g in want.items():
        assert_close(actual[name], g, atol=close * float(g.abs().max()), rtol=1e-3)


def test_a_row_at_a_time_has_the_gradient_of_rows_from_their_first_token() -> None:
    fast, slow = twins()
    samples = rows(2)
    sizes = fed(fast)
    actual = gradient(fast, samples, share=True)
    assert sum(sizes) == 80 + sum(len(row.ids) - 80 for row in pack(samples))
    same(actual, gradient(slow, samples, share=False))
    assert set(actual) == {n for n, _ in fast.model.named_parameters()}


def test_the_prefix_has_a_gradient_of_its_own() -> None:
    """Without it, embeddings of tokens that occur nowhere else would have none."""
    of = policy()
    start = [t for t in range(10, 60) if t != small_chat().end]
    samples = [Sample(prompt=(*start, 200 + k), tokens=(300 + k,)) for k in range(3)]
    of.model.zero_grad()
    embedded = of.model.get_input_embeddings().weight
    # the head shares its weights with the embeddings: its own part is taken out
    head = embedded.detach().clone().requires_grad_()
    with of.shared_prefix(samples):
        before = None
        for sample in samples:
            hidden = of.score([sample], 1.0).distribution.hidden
            (hidden @ head[300]).sum().backward()  # type: ignore[no-untyped-call]
            before = embedded.grad.clone()
            assert float(before[start].abs().sum()) == 0
    assert float(embedded.grad[start].abs().sum(-1).min()) > 0


@pytest.mark.parametrize("kind", ["recompute", "lora", "bfloat16"])
def test_it_goes_with_what_saves_memory(kind: str) -> None:
    if kind == "lora":
        pytest.importorskip("peft")

    def student(fast: bool) -> HFPolicy:
        plain = policy(reference_path=not fast)
        added = Adapters(plain.model, rank=4, base="", seed=0) if kind == "lora" else None
        if added is not None:
            torch.manual_seed(5)
            for name, p in plain.model.named_parameters():
                if "lora_B" in name:  # which begins at zero, and would leave A without gradient
                    torch.nn.init.normal_(p, std=0.1)
        return HFPolicy(
            plain.model,
            plain.chat,
            adapters=added,
            gradient_checkpointing=kind == "recompute",
            reference_path=not fast,
            dtype="bfloat16" if kind == "bfloat16" else "float32",
        )

    samples = rows(3)
    fast, slow = student(True), student(False)
    close = 0.1 if kind == "bfloat16" else 1e-4
    one, other = gradient(fast, samples, share=True), gradient(slow, samples, share=False)
    with fast.shared_prefix(samples):
        for key, value in fast.prefixes[0].leaves.values():
            assert key.dtype == value.dtype == torch.float32  # many gradients add up there
    if kind == "bfloat16":  # rounded everywhere: alike as vectors
        a, b = (torch.cat([g.flatten() for _, g in sorted(x.items())]) for x in (one, other))
        assert float(torch.cosine_similarity(a, b, 0)) > 0.99
        assert float((a - b).norm() / b.norm()) < close
    else:
        same(one, other, close)


def test_a_second_view_of_the_same_weights_reads_the_first_ones_prefix() -> None:
    """A self-teacher that is told more, after the same instructions."""
    of, slow = twins()
    student = rows(4)
    hinted = [
        Sample(prompt=(*s.prompt[:70], 11, 12, 13, *s.prompt[70:]), tokens=s.tokens)
        for s in student
    ]
    sizes = fed(of)
    with of.shared_prefix(student), torch.no_grad(), of.shared_prefix(hinted):
        before = sum(sizes)
        logps = of.score(hinted, 1.0).logp
        size = shared_tokens(pack(hinted))
    assert_close(logps, slow.score(hinted, 1.0).logp, atol=2e-5, rtol=1e-5)
    assert size == 83
    # 70 of its 83 tokens were known, which is not all: it has a prefix of its own
    assert before == 80 + 83
    sizes.clear()
    cut = [Sample(prompt=(*s.prompt[:50], 5, 6), tokens=s.tokens) for s in student]
    cut = [Sample(prompt=(*s.prompt[:50], k % 3, 6), tokens=s.tokens) for k, s in enumerate(cut)]
    with of.shared_prefix(student):
        before = sum(sizes)
        with torch.no_grad(), of.shared_prefix(cut):
            logps = of.score(cut, 1.0).logp
    assert sum(sizes) == before + sum(len(row.ids) - 50 for row in pack(cut))
    assert_close(logps, slow.score(cut, 1.0).logp, atol=2e-5, rtol=1e-5)


def test_a_prefix_is_forgotten_with_its_context_whatever_happens() -> None:
    of = policy()
    with contextlib.suppress(KeyError), of.shared_prefix(rows(5)):
        assert len(of.prefixes) == 1
        raise KeyError
    assert of.prefixes == []
    assert all(p.grad is None for p in of.model.parameters())


@pytest.mark.parametrize("why", ["alone", "short", "slow", "nothing"])
def test_what_is_not_worth_a_pass_has_none(why: str) -> None:
    of = policy(reference_path=why == "slow")
    samples = {
        "alone": rows(6, count=1),
        "short": rows(6, head=MIN_PREFIX - 1),
        "slow": rows(6),
        "nothing": [],
    }[why]
    sizes = fed(of)
    with of.shared_prefix(samples):
        assert sizes == []
        assert of.prefixes == []


# -- a step


class KeepsGradients(torch.optim.SGD):
    """Keeps the gradients it was given."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        of = self.param_groups[0]["params"]
        self.seen = [p.grad.clone() for p in of if p.grad is not None]


INSTRUCTIONS = (
    "Answer each letter with its digit, and think of what was said before you answer it. " * 2
)
ALGORITHMS_OF: dict[str, Algorithm] = {
    "one view": ALGORITHMS["opd"](vocabulary="full"),
    "a self-teacher": ALGORITHMS["opsd"](hint="plan"),
    "two that learn": ALGORITHMS["pi_distill"](total_steps=1, hint="plan"),
}


@pytest.mark.parametrize("tokens", [1, 500, 10**9])
@pytest.mark.parametrize("name", ALGORITHMS_OF)
def test_a_step_has_the_gradient_of_its_slow_twin(name: str, tokens: int) -> None:
    algorithm, suite = ALGORITHMS_OF[name], Doors(rooms=3)
    context = Context(instructions=INSTRUCTIONS)

    def trained(fast: bool, played: list[Episode]) -> tuple[list[Tensor], list[int]]:
        policies = {
            "self": policy(reference_path=not fast),
            "teacher": policy(1, reference_path=not fast),
        }
        policies["teacher"].freeze()
        on = Session(
            suite=suite,
            pool=LocalPool(suite),
            policies=dict[str, Actor](policies),
            context=context,
            limits=Limits(max_turns=3, max_new_tokens=5),
        )
        if not played:
            tasks = suite.tasks("train")[:2]
            played += play(on, tasks, algorithm, seed=0, step=0, group_size=3)
            # returns that differ, so that every group has an advantage
            played[:] = [
                replace(e, turns=(*e.turns[:-1], replace(e.turns[-1], reward=float(k % 3))))
                for k, e in enumerate(played)
            ]
        sizes = [size for p in policies.values() for size in (fed(p),)]
        optimizer = KeepsGradients(list(policies["self"].parameters()), lr=0.0)
        train_step(
            algorithm,
            played,
            policies,
            optimizer,
            on.prompter,
            Update(max_tokens_per_pass=tokens, grad_clip=1e9),
            step=0,
            seed=0,
            clock=Clock(),
        )
        assert policies["self"].prefixes == []
        return optimizer.seen, [n for size in sizes for n in size]

    played: list[Episode] = []
    one, few = trained(True, played)
    other, many = trained(False, played)
    assert sum(few) < 0.8 * sum(many)
    assert max(float(g.abs().max()) for g in other) > 0
    for a, b in zip(one, other, strict=True):
        assert_close(a, b, atol=2e-4 * float(b.abs().max()), rtol=1e-3)


class Noting:
    """A scorer that notes what it is told will be scored."""

    chat = small_chat()

    def __init__(self) -> None:
        self.announced: list[tuple[list[Sample], bool]] = []

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        raise AssertionError

    @contextlib.contextmanager
    def shared_prefix(self, samples: Sequence[Sample]) -> Iterator[None]:
        self.announced.append((list(samples), torch.is_grad_enabled()))
        yield
        self.announced.clear()


def test_a_policy_is_told_of_the_rows_that_are_scored_under_each_view() -> None:
    """Those that learn first, with gradient."""
    algorithm, suite = ALGORITHMS["opsd"](hint="plan"), Doors(rooms=3)
    context = Context(instructions=INSTRUCTIONS)
    acting = policy()
    on = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies={"self": acting},
        context=context,
        limits=Limits(max_turns=2, max_new_tokens=5),
    )
    played = play(on, suite.tasks("train")[:3], algorithm, seed=0, step=0)
    ready = prepare(algorithm, played, on.prompter)
    whole = [Span(e, 0, len(s) - 1, s[-1]) for e, s in enumerate(ready.starts)]
    (teacher,) = set(algorithm.all_views()) - {STUDENT}
    slices = [((STUDENT,), whole[:1]), ((STUDENT, teacher), whole[1:])]
    noting = Noting()
    assert algorithm.followed() == {teacher}
    scores = ViewScores(layout=ready, algorithm=algorithm, policies={"self": noting})  # type: ignore[dict-item]
    passes = scores.sharing_prefixes(slices)
    assert next(passes) == slices[0]
    mine = [s for row in whole for s in ready.samples_of(STUDENT, row)]
    theirs = [s for row in whole[1:] for s in ready.samples_of(teacher, row)]
    assert noting.announced == [(mine, True), (theirs, False)]
    assert list(passes) == slices[1:]
    assert noting.announced == []
