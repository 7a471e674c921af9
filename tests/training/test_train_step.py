"""One step of training: what its gradient may depend on, what it refuses, and that it learns."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.fake_policy import Table, answer
from support.tiny_models import policy
from torch import Tensor
from torch.testing import assert_close

from tutelage.algorithms import ALGORITHMS
from tutelage.envs.doors import RULE, Doors
from tutelage.envs.pool import LocalPool
from tutelage.errors import RunError
from tutelage.maths.divergences import reverse_kl
from tutelage.maths.estimators import k3
from tutelage.maths.surrogates import ppo_clip
from tutelage.objective import ONE, Algorithm, Distill, DistillSampled, Reinforce, View
from tutelage.objective.scores import Scores
from tutelage.policies.base import Actor, Scorer
from tutelage.policies.packing import pack
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Limits, Session
from tutelage.signals import gap, group_relative
from tutelage.training.train_step import Report, Update, train_step
from tutelage.types import Episode, Observation, Task, Turn

TRANSCRIPT = Context(instructions="Answer each letter with its digit.")
WINDOW = replace(TRANSCRIPT, kind="window", window=1)
MAKE: dict[str, Callable[[], Algorithm]] = {
    "sft": ALGORITHMS["sft"],
    "grpo": lambda: ALGORITHMS["grpo"](kl=0.05, entropy=0.001),
    "opd": ALGORITHMS["opd"],
    "opd full": lambda: ALGORITHMS["opd"](vocabulary="full"),
    "guided_opd": lambda: ALGORITHMS["guided_opd"](total_steps=30),
    "guided_opd sampled": lambda: ALGORITHMS["guided_opd"](
        total_steps=30, student_turns="sampled", teacher_turns="sampled"
    ),
}


class Recorder(torch.optim.SGD):
    """Keeps the gradients that it was given, before clipping could matter."""

    def __init__(self, parameters: Sequence[Tensor], lr: float = 0.0) -> None:
        super().__init__(parameters, lr=lr)
        self.seen: list[Tensor] = []

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        self.seen.append(
            torch.cat([p.grad.flatten().clone() for p in self.param_groups[0]["params"]])
        )
        super().step()


def world(context: Context = TRANSCRIPT, rooms: int = 3) -> tuple[Session, dict[str, Table]]:
    torch.manual_seed(0)
    suite = Doors(rooms)
    policies = {
        "self": Table(knows=0.5),
        "teacher": Table(knows=4.0),
        "reference": Table(knows=0.2),
    }
    for table in (policies["teacher"], policies["reference"]):
        table.requires_grad_(False)
    on = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies=dict[str, Actor](policies),
        context=context,
        limits=Limits(max_turns=9, max_new_tokens=8),
    )
    return on, policies


def step(
    on: Session,
    policies: Mapping[str, Scorer],
    algorithm: Algorithm,
    episodes: Sequence[Episode],
    optimizer: torch.optim.Optimizer,
    *,
    at: int = 0,
    **update: float,
) -> Report:
    return train_step(
        algorithm,
        episodes,
        policies,
        optimizer,
        on.prompter,
        Update(**{"grad_clip": 1e9, **update}),  # type: ignore[arg-type]
        step=at,
        seed=0,
        clock=Clock(),
    )


def gradient(name: str, context: Context = TRANSCRIPT, **update: float) -> tuple[Tensor, Report]:
    """Of the student, for one optimiser step on the same episodes."""
    on, policies = world(context)
    algorithm = MAKE[name]()
    episodes = play(on, on.suite.tasks("train")[:8], algorithm, seed=0, step=9, group_size=2)
    recorder = Recorder(list(policies["self"].parameters()))
    report = step(on, policies, algorithm, episodes, recorder, at=9, **update)
    return recorder.seen[0], report


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
@pytest.mark.parametrize("name", MAKE)
def test_micro_batches_change_no_gradient(name: str, context: Context) -> None:
    whole, report = gradient(name, context, max_tokens_per_pass=10**9)
    assert float(whole.abs().sum()) > 0
    for tokens in (1, 60, 300):
        sliced, again = gradient(name, context, max_tokens_per_pass=tokens)
        assert_close(sliced, whole, atol=1e-6 * float(whole.abs().max()) + 1e-9, rtol=1e-4)
        assert again.losses == pytest.approx(report.losses, rel=1e-4, abs=1e-7)
        assert again.tokens == report.tokens


class Counting:
    """A scorer that notes how much it is given at a time."""

    def __init__(self, inner: Table) -> None:
        self.inner, self.chat = inner, inner.chat
        self.passes: list[list[Sample]] = []

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        if torch.is_grad_enabled():
            self.passes.append(list(samples))
        return self.inner.score(samples, temperature)


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_a_pass_keeps_to_its_budget_of_tokens(context: Context) -> None:
    """An append-only episode is one row; a window's turns are rows of their own."""
    on, policies = world(context, rooms=4)
    episodes = play(on, on.suite.tasks("train")[:12], MAKE["grpo"](), seed=0)
    student = Counting(policies["self"])
    recorder = Recorder(list(policies["self"].parameters()))
    step(
        on,
        {**policies, "self": student},
        MAKE["sft"](),
        episodes,
        recorder,
        max_tokens_per_pass=180,
    )
    assert len(student.passes) > 2
    lengths = []
    for samples in student.passes:
        rows = pack(samples)
        lengths.append([len(row.ids) for row in rows])
        assert len(rows) == 1 or sum(lengths[-1]) <= 180
        assert (len(rows) == len(samples)) == (context.kind == "window")
    assert all(sum(a) + min(b) > 180 for a, b in pairwise(lengths))  # and uses it up
    every = [s for samples in student.passes for s in samples]
    want = [s for e in episodes for s in on.prompter(View(), e.task).samples(e)]
    assert sorted(map(repr, every)) == sorted(map(repr, want))


def test_a_row_is_scored_under_the_views_whose_losses_count_there_alone() -> None:
    """Each episode of a mixture is imitated under one prompt, with its hint or without."""
    on, policies = world(rooms=4)
    mixture = ALGORITHMS["sft"](mixture={"plan": 0.5})
    episodes = play(on, on.suite.tasks("train")[:12], mixture, seed=0)
    student = Counting(policies["self"])
    recorder = Recorder(list(policies["self"].parameters()))
    step(on, {**policies, "self": student}, mixture, episodes, recorder, max_tokens_per_pass=180)
    prompts = sorted(sample.prompt for samples in student.passes for sample in samples)
    who = [next(iter({turn.actor for turn in e.turns})) for e in episodes]
    assert set(who) == {"expert", "with_plan"}
    views = {"expert": View(), "with_plan": mixture.views["with_plan"]}
    assert prompts == sorted(
        sample.prompt
        for e, actor in zip(episodes, who, strict=True)
        for sample in on.prompter(views[actor], e.task).samples(e)
    )


def test_pieces_of_a_loss_in_which_nothing_counts_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An expert opens each episode, and the student's last turn is graded: of what comes before it,
    a token alone has no gradient."""
    losses = []
    for elements in (1 << 24, 1):  # everything at once, and a token at a time
        monkeypatch.setattr("tutelage.maths.distributions.CHUNK_ELEMENTS", elements)
        suite, policies = Doors(3), {"self": policy(0), "teacher": policy(1)}
        on = Session(
            suite=suite,
            pool=LocalPool(suite),
            policies=dict[str, Actor](policies),
            context=TRANSCRIPT,
            limits=Limits(max_turns=3, max_new_tokens=5),
        )
        algorithm = ALGORITHMS["tcod"](direction="b2f", start=1, every=99)
        episodes = play(on, suite.tasks("train")[:3], algorithm, seed=0)
        assert all(e.turns[0].actor == "expert" for e in episodes)
        recorder = Recorder(list(policies["self"].parameters()))
        step(on, policies, algorithm, episodes, recorder)
        losses.append(recorder.seen[0])
    assert float(losses[0].abs().max()) > 1e-3
    assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-3)


def test_a_long_row_is_alone() -> None:
    whole, _ = gradient("grpo", max_tokens_per_pass=1)
    assert torch.isfinite(whole).all()


@pytest.mark.parametrize(("minibatches", "epochs"), [(1, 1), (3, 1), (4, 2), (100, 1)])
def test_every_episode_is_dealt_once_an_epoch(
    minibatches: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:10], MAKE["grpo"](), seed=0)
    student = Counting(policies["self"])
    recorder = Recorder(list(policies["self"].parameters()))
    step(
        on,
        {**policies, "self": student},
        MAKE["grpo"](),
        episodes,
        recorder,
        minibatches=minibatches,
        epochs=epochs,
        max_tokens_per_pass=10**9,
    )
    parts = min(minibatches, 10)
    assert len(recorder.seen) == len(student.passes) == parts * epochs
    sizes = [len(samples) / 3 for samples in student.passes]
    assert max(sizes) - min(sizes) <= 1
    want = sorted(repr(s) for e in episodes for s in on.prompter(View(), e.task).samples(e))
    dealt = []
    for k in range(epochs):
        mine = student.passes[k * parts : (k + 1) * parts]
        assert sorted(repr(s) for samples in mine for s in samples) == want
        dealt.append([sorted(map(repr, samples)) for samples in mine])
    if parts > 1:
        assert dealt[0] != [sorted(map(repr, p)) for p in [want]]
    if epochs > 1:
        assert dealt[0] != dealt[1]


def test_a_minibatch_is_a_mean_over_its_own_tokens() -> None:
    """Several optimiser steps are each as large as one over the whole would be."""
    on, policies = world()
    tasks = on.suite.tasks("train")[:6]
    episodes = play(on, tasks, MAKE["opd"](), seed=0)
    algorithm = Algorithm(terms=(Reinforce(advantage=gap()),), views=MAKE["opd"]().views)
    parts = Recorder(list(policies["self"].parameters()))
    step(on, policies, algorithm, episodes, parts, minibatches=6)
    alone = []
    for e in episodes:
        one = Recorder(list(policies["self"].parameters()))
        step(on, policies, algorithm, [e], one)
        alone.append(one.seen[0])
    for g in parts.seen:
        assert min(float((g - a).abs().max()) for a in alone) < 1e-7


def test_advantages_are_read_from_the_whole_step_and_not_from_a_minibatch() -> None:
    """A copy without its peers would be its own mean, and earn nothing."""
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:1], MAKE["grpo"](), seed=1, group_size=4)
    assert len({e.total_reward for e in episodes}) > 1
    recorder = Recorder(list(policies["self"].parameters()))
    step(on, policies, ALGORITHMS["grpo"](), episodes, recorder, minibatches=4)
    assert sum(float(g.abs().sum()) > 0 for g in recorder.seen) >= 2


def test_the_denominator_stays_where_it_was_while_minibatches_move_the_weights() -> None:
    """With `recomputed`, the second epoch's ratio is against the weights before the first."""
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:4], MAKE["grpo"](), seed=0, group_size=2)
    ratios: list[Tensor] = []

    def watched(logp: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        ratios.append((logp - old).detach().abs().max())
        return -advantage * (logp - old).exp()

    algorithm = Algorithm(
        terms=(Reinforce(advantage=group_relative(), surrogate=watched, old="recomputed"),)
    )
    optimizer = torch.optim.SGD(policies["self"].parameters(), lr=5.0)
    step(on, policies, algorithm, episodes, optimizer, epochs=2)
    assert float(ratios[0]) < 1e-6
    assert float(ratios[1]) > 1e-3


@pytest.mark.parametrize("tokens", [60, 10**9])
def test_ratios_are_those_of_every_minibatch(tokens: int) -> None:
    """In the second epoch all tokens are under other weights, and some of them are clipped."""
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:4], MAKE["grpo"](), seed=0, group_size=4)
    optimizer = torch.optim.SGD(policies["self"].parameters(), lr=100.0)
    surrogate, applied = ppo_clip(), list[tuple[Tensor, Tensor]]()

    def watched(logp: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        counts = advantage != 0
        applied.append(((logp - old).detach().exp()[counts], advantage[counts]))
        return surrogate(logp, old, advantage)

    terms = (Reinforce(advantage=group_relative(), surrogate=surrogate, name="a"),)
    report = step(
        *(on, policies, Algorithm(terms=terms), episodes, optimizer),
        epochs=2,
        max_tokens_per_pass=tokens,
    )
    on, policies = world()
    optimizer = torch.optim.SGD(policies["self"].parameters(), lr=100.0)
    terms = (Reinforce(advantage=group_relative(), surrogate=watched, name="a"),)
    step(
        *(on, policies, Algorithm(terms=terms), episodes, optimizer),
        epochs=2,
        max_tokens_per_pass=tokens,
    )
    r, a = (torch.cat(columns) for columns in zip(*applied, strict=True))
    clipped = ((a > 0) & (r > 1.2)) | ((a < 0) & (r < 0.8))
    assert 0.05 < float(clipped.float().mean()) < 0.5
    assert report.ratios["a"] == pytest.approx(
        {"mean": float(r.mean()), "max": float(r.max()), "clipped": float(clipped.float().mean())},
        rel=1e-5,
    )


def test_losses_are_those_of_one_pass_however_many_epochs_there_are() -> None:
    """The weights stay as they are, so every epoch has the same losses."""
    on, policies = world()
    algorithm = MAKE["grpo"]()
    episodes = play(on, on.suite.tasks("train")[:4], algorithm, seed=0, group_size=2)
    once, thrice = (
        step(
            on,
            policies,
            algorithm,
            episodes,
            Recorder(list(policies["self"].parameters())),
            epochs=epochs,
        )
        for epochs in (1, 3)
    )
    assert max(map(abs, once.losses.values())) > 0
    assert thrice.losses == pytest.approx(once.losses, rel=1e-5)


@pytest.mark.parametrize("update", [{"minibatches": 2}, {"epochs": 2}])
def test_a_teacher_of_the_students_own_weights_stays_where_it_was(update: dict[str, int]) -> None:
    """Its scores are those from before the step, also after the LM head has moved."""
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:4], MAKE["grpo"](), seed=0, group_size=2)
    gaps: list[float] = []

    def watched(logp: Tensor, logq: Tensor) -> Tensor:
        gaps.append(float((logp - logq).detach().abs().max()))
        return reverse_kl(logp, logq)

    algorithm = Algorithm(
        terms=(Reinforce(advantage=ONE), Distill(divergence=watched, teacher="before")),
        views={"before": View(policy="self")},
    )
    optimizer = torch.optim.SGD(policies["self"].parameters(), lr=5.0)
    step(on, policies, algorithm, episodes, optimizer, **update)
    assert gaps[0] < 1e-6
    assert gaps[-1] > 1e-3


def turns_of(policy: Table, task: Task, logp: float = -1.0) -> tuple[Turn, ...]:
    return tuple(
        Turn(
            observation=Observation(text=c),
            prompt=(1,),
            text="",
            tokens=answer(RULE[c]),
            logps=(logp,) * 4,
        )
        for c in task.data["path"]
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_no_weight(bad: float) -> None:
    on, policies = world()
    task = on.suite.tasks("train")[0]
    episode = Episode(task=task, group="g", turns=turns_of(policies["self"], task))
    before = policies["self"].logits.detach().clone()

    def burst(logp: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        return logp * bad

    algorithm = Algorithm(terms=(Reinforce(advantage=ONE, surrogate=burst),))
    optimizer = torch.optim.AdamW(policies["self"].parameters(), lr=0.1)
    with pytest.raises(RunError, match=r"gradient of step 7 is not finite.*a lower update.lr"):
        step(on, policies, algorithm, [episode], optimizer, at=7)
    assert torch.equal(policies["self"].logits, before)
    assert not optimizer.state_dict()["state"]


def test_a_step_with_nothing_to_learn_from_says_so() -> None:
    on, policies = world()
    task = on.suite.tasks("train")[0]
    optimizer = torch.optim.SGD(policies["self"].parameters(), lr=0.1)
    for episodes in ([], [Episode(task=task, group="g", turns=())]):
        with pytest.raises(RunError, match="nothing to learn from"):
            step(on, policies, MAKE["grpo"](), episodes, optimizer)


def test_an_episode_in_which_nothing_was_said_is_no_obstacle() -> None:
    on, policies = world()
    tasks = on.suite.tasks("train")[:3]
    usual = [Episode(task=t, group=t.id, turns=turns_of(policies["self"], t)) for t in tasks[:2]]
    silent = Episode(task=tasks[2], group=tasks[2].id, turns=())
    seen = []
    for episodes in (usual, [*usual[:1], silent, *usual[1:]]):
        recorder = Recorder(list(policies["self"].parameters()))
        step(on, policies, MAKE["sft"](), episodes, recorder, minibatches=2)
        seen.append(recorder.seen)
    assert len(seen[0]) == len(seen[1]) == 2
    assert_close(sum(seen[0]), sum(seen[1]))


def test_a_step_whose_every_token_weighs_nothing_moves_nothing() -> None:
    on, policies = world()
    task = on.suite.tasks("train")[0]
    episode = Episode(task=task, group="g", turns=turns_of(policies["self"], task))
    algorithm = Algorithm(
        terms=(Distill(divergence=reverse_kl, weight=0.0 * ONE),), views=MAKE["opd"]().views
    )
    before = policies["self"].logits.detach().clone()
    optimizer = torch.optim.SGD(policies["self"].parameters(), lr=1.0)
    report = step(on, policies, algorithm, [episode], optimizer)
    assert report.grad_norm == 0
    assert torch.equal(policies["self"].logits, before)


def test_a_long_gradient_is_cut_to_its_norm() -> None:
    on, policies = world()
    task = on.suite.tasks("train")[0]
    episode = Episode(task=task, group="g", turns=turns_of(policies["self"], task))
    free, cut = (Recorder(list(policies["self"].parameters())) for _ in range(2))
    whole = step(on, policies, MAKE["sft"](), [episode], free)
    policies["self"].zero_grad()
    short = step(on, policies, MAKE["sft"](), [episode], cut, grad_clip=1e-3)
    assert whole.grad_norm == pytest.approx(float(free.seen[0].norm()), rel=1e-4)
    assert short.grad_norm == pytest.approx(whole.grad_norm)
    assert float(cut.seen[0].norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("zero", ["kl", "full"])
def test_a_coefficient_of_zero_leaves_the_gradient_bit_for_bit(zero: str) -> None:
    plain = ALGORITHMS["grpo"]()
    extra = {
        "kl": DistillSampled(teacher="reference", estimate=k3, weight=0.0 * ONE, name="kl"),
        "full": Distill(teacher="reference", divergence=reverse_kl, weight=0.0 * ONE),
    }[zero]
    both = replace(
        plain, terms=(*plain.terms, extra), views={"reference": View(policy="reference")}
    )
    seen = []
    for algorithm in (plain, both):
        on, policies = world()
        episodes = play(on, on.suite.tasks("train")[:5], plain, seed=0, group_size=2)
        recorder = Recorder(list(policies["self"].parameters()))
        step(on, policies, algorithm, episodes, recorder, max_tokens_per_pass=200)
        seen.append(recorder.seen[0])
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("sft", {"self": 0, "teacher": 0}),
        ("grpo", {"self": 0, "reference": 1}),
        ("opd", {"self": 1, "teacher": 1}),
        ("opd full", {"self": 0, "teacher": 1}),
        ("guided_opd", {"self": 0, "teacher": 1}),
    ],
)
def test_a_view_that_no_term_reads_is_never_scored(name: str, want: dict[str, int]) -> None:
    """Passes without gradient, counted a policy."""
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:4], MAKE[name](), seed=0)
    asked: dict[str, int] = dict.fromkeys(policies, 0)

    class Watched(Counting):
        def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
            asked[self.name] += not torch.is_grad_enabled()
            return super().score(samples, temperature)

    watched = {}
    for key, table in policies.items():
        watched[key] = Watched(table)
        watched[key].name = key
    step(on, watched, MAKE[name](), episodes, Recorder(list(policies["self"].parameters())))
    assert {k: v for k, v in asked.items() if v or k in want} == want


def test_scores_are_taken_at_the_temperature_of_sampling() -> None:
    on, policies = world()
    hot = replace(on, limits=replace(on.limits, temperature=2.0))
    episodes = play(hot, on.suite.tasks("train")[:4], MAKE["grpo"](), seed=0)
    ratios: list[Tensor] = []

    def watched(logp: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        ratios.append((logp - old).detach().abs().max())
        return -advantage * logp

    algorithm = Algorithm(terms=(Reinforce(advantage=ONE, surrogate=watched),))
    optimizer = Recorder(list(policies["self"].parameters()))
    step(on, policies, algorithm, episodes, optimizer, temperature=2.0)
    step(on, policies, algorithm, episodes, optimizer, temperature=1.0)
    assert float(ratios[0]) < 1e-5
    assert float(ratios[1]) > 0.1


def test_a_report_tells_what_was_applied() -> None:
    on, policies = world()
    episodes = play(on, on.suite.tasks("train")[:6], MAKE["opd"](), seed=0)
    report = step(
        on, policies, MAKE["opd"](), episodes, Recorder(list(policies["self"].parameters()))
    )
    assert report.tokens == sum(len(t.tokens) for e in episodes for t in e.turns)
    column = report.columns["gap[teacher|student]"]
    samples = {
        v: [s for e in episodes for s in on.prompter(View(policy=v), e.task).samples(e)]
        for v in ("self", "teacher")
    }
    with torch.no_grad():
        scored = {v: policies[v].score(s, 1.0).logp for v, s in samples.items()}
    assert_close(column, scored["teacher"] - scored["self"], atol=1e-5, rtol=1e-4)
    assert report.means["gap[teacher|student]"] == pytest.approx(float(column.mean()))
    assert set(report.losses) == {"opd"}
    # on-policy at a ratio of one, the loss is the mean of minus the gap
    assert report.losses["opd"] == pytest.approx(-float(column.mean()), rel=1e-4)


@pytest.mark.parametrize("name", MAKE)
def test_it_learns_to_open_doors(name: str) -> None:
    on, policies = world(rooms=2)
    algorithm = MAKE[name]()
    optimizer = torch.optim.Adam(policies["self"].parameters(), lr=0.15)
    tasks = on.suite.tasks("train")

    def opened() -> float:
        alone = play(on, tasks, Algorithm(terms=()), seed=99, group_size=10)
        return sum(e.total_reward for e in alone) / sum(len(e.turns) for e in alone)

    assert opened() < 0.5
    for at in range(30):
        episodes = play(on, tasks, algorithm, seed=0, step=at, group_size=2)
        step(on, policies, algorithm, episodes, optimizer, at=at, grad_clip=1.0)
    assert opened() > 0.85
