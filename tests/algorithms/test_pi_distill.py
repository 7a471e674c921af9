"""pi-Distill and OPSD against their formulas, and imitation under a hint: what is clipped, what is
detached, which groups count, and what is left where nobody knows more than the student."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms.test_formulas import Token, advantages, clipped, tokens
from hypothesis import given
from hypothesis import strategies as st
from support.fake_policy import Table, chat
from support.fake_steps import World, gradient, parts, total, world
from support.sessions import session
from torch import Tensor
from torch.testing import assert_close

from tutelage.algorithms.grpo import grpo
from tutelage.algorithms.opsd import opsd
from tutelage.algorithms.pi_distill import pi_distill
from tutelage.algorithms.sft import sft
from tutelage.envs.doors import Doors
from tutelage.objective import ONE, Algorithm, Signal, Step, View, bind
from tutelage.objective.batch import collate
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Request
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Session
from tutelage.schedules import Schedule, linear
from tutelage.signals import episode_mean, episode_sum, token_mean, varied
from tutelage.training.layout import deal, prepare
from tutelage.training.train_step import Report, Update, train_step
from tutelage.types import Episode, Task


def flat(of: World, *groups: str) -> World:
    """The same with equal returns in some groups, in which no advantage is left."""
    episodes = tuple(
        replace(e, turns=tuple(replace(t, reward=0.1, penalty=0.0) for t in e.turns))
        if e.group in groups
        else e
        for e in of.episodes
    )
    # the same return whatever the number of turns
    episodes = tuple(
        replace(e, turns=(*e.turns[:-1], replace(e.turns[-1], reward=1 - 0.1 * (len(e.turns) - 1))))
        if e.group in groups
        else e
        for e in episodes
    )
    return World(episodes, of.hidden, of.heads)


WORLDS = [world(0), world(1), flat(world(2), "t1"), flat(world(3), "t0", "t2")]


@pytest.fixture(params=range(len(WORLDS)), ids="world={}".format)
def of(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


def hinted_logp(t: Token) -> float:
    """Ratio of the hinted policy to the one that sampled."""
    return float(torch.tensor(t.teacher[t.token] - t.old).exp())


def counted(of: World, flat_groups: str) -> list[bool]:
    """By episode: whether its group's returns differ."""
    results = []
    for e in of.episodes:
        peers = [x.total_reward for x in of.episodes if x.group == e.group]
        results.append(flat_groups == "keep" or max(peers) - min(peers) > 1e-9)
    return results


def reduced(of: World, value: Callable[[Token], float], flat_groups: str, reduction: str) -> float:
    """A mean over the tokens that count, or the mean over episodes of their sums."""
    saved = counted(of, flat_groups)
    values = [value(t) for t in tokens(of) if saved[t.episode]]
    return sum(values) / (len(values) if reduction == "token" else sum(saved))


REDUCED = pytest.mark.parametrize(
    ("flat_groups", "reduction"),
    [("leave_out", "token"), ("leave_out", "sum"), ("keep", "token"), ("keep", "sum")],
)


@REDUCED
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("beta", "clip"), [(0.25, 0.2), (0.5, 0.05), (0.0, 0.2)])
def test_pi_distill(
    of: World, alpha: float, beta: float, clip: float, flat_groups: Any, reduction: Any
) -> None:
    a = advantages(of, std=False)
    algorithm = pi_distill(
        total_steps=10,
        alpha=alpha,
        beta=beta,
        clip=clip,
        flat_groups=flat_groups,
        reduction=reduction,
    )
    result = parts(algorithm, of)
    of_token: dict[str, Callable[[Token], float]] = {
        "teacher": lambda t: alpha * clipped(hinted_logp(t), a[t.episode], clip, clip, None),
        "teacher_kl": lambda t: alpha * beta * t.forward_kl,  # KL(pT || pS)
        "student": lambda t: (1 - alpha) * clipped(t.ratio, a[t.episode], clip, clip, None),
        "student_kl": lambda t: (1 - alpha) * beta * t.forward_kl,
    }
    assert set(result) == set(of_token)
    for name, value in of_token.items():
        want = reduced(of, value, flat_groups, reduction)
        assert result[name] == pytest.approx(want, rel=1e-4, abs=1e-6), name


@REDUCED
@pytest.mark.parametrize(("beta", "clip"), [(0.5, 0.2), (0.1, 0.05)])
def test_opsd(of: World, beta: float, clip: float, flat_groups: Any, reduction: Any) -> None:
    a = advantages(of, std=False)
    result = parts(opsd(beta=beta, clip=clip, flat_groups=flat_groups, reduction=reduction), of)
    want = {
        "reward": reduced(
            of, lambda t: clipped(t.ratio, a[t.episode], clip, clip, None), flat_groups, reduction
        ),
        "kl": reduced(of, lambda t: beta * t.reverse_kl, flat_groups, reduction),
    }
    assert result == pytest.approx(want, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("hinted", [0.0, 0.3, 0.5, 1.0])
def test_sft_imitates_with_and_without_the_hint(of: World, hinted: float) -> None:
    result = sft(hint="plan", hinted=hinted)
    step = of.step()
    everything = torch.arange(len(step.batch.token))
    views = of.live(step, everything)
    live = {"student": views["student"], "hinted": views["teacher"]}
    losses = {k: v.sum().item() for k, v in bind(result, step)(live, everything).items()}
    every = tokens(of)
    n = len(every)
    assert losses["imitate"] == pytest.approx(
        -(1 - hinted) * sum(t.logp for t in every) / n, rel=1e-4
    )
    assert losses["imitate_hinted"] == pytest.approx(
        -hinted * sum(t.teacher[t.token] for t in every) / n, rel=1e-4, abs=1e-9
    )
    assert result.acting.expert
    assert result.views["hinted"] == View(policy="self", hint="plan")
    by_teacher = sft(source="teacher", hint="actions", thoughts=True)
    assert set(by_teacher.views) == {"teacher", "hinted"}
    assert set(by_teacher.actors) == {"teacher"}
    assert not sft(hinted=hinted).views
    assert [t.name for t in sft(hinted=hinted).terms] == ["imitate"]


def test_a_mixture_imitates_an_episode_under_its_own_prompt_alone(of: World) -> None:
    who = ("expert", "with_plan")
    mixed_world = replace(
        of,
        episodes=tuple(
            replace(e, turns=tuple(replace(t, actor=who[n % 2]) for t in e.turns))
            for n, e in enumerate(of.episodes)
        ),
    )
    step = mixed_world.step()
    everything = torch.arange(len(step.batch.token))
    views = mixed_world.live(step, everything)
    live = {"student": views["student"], "with_plan": views["teacher"]}
    result = bind(sft(mixture={"plan": 0.5}), step)(live, everything)
    every = tokens(mixed_world)
    assert {name: value.sum().item() for name, value in result.items()} == pytest.approx(
        {
            "imitate": -sum(t.logp for t in every if t.actor == "expert") / len(every),
            "imitate_with_plan": -sum(t.teacher[t.token] for t in every if t.actor == "with_plan")
            / len(every),
        },
        rel=1e-4,
    )


# -- gradients


def leaves(of: World) -> dict[str, Tensor]:
    return {v: torch.cat(of.hidden[v]).clone().requires_grad_() for v in ("student", "teacher")}


def live_of(of: World, hidden: dict[str, Tensor]) -> dict[str, Scores]:
    token = of.step().batch.token
    return {
        v: Scores(distribution=replace(of.distribution(v), hidden=h), token=token)
        for v, h in hidden.items()
    }


def grads(algorithm: Algorithm, of: World, name: str) -> dict[str, Tensor]:
    """Of one term, for both policies' states."""
    hidden = leaves(of)
    step = of.step()
    everything = torch.arange(len(step.batch.token))
    bind(algorithm, step)(live_of(of, hidden), everything)[name].sum().backward()
    return {v: torch.zeros_like(h) if h.grad is None else h.grad for v, h in hidden.items()}


def written_out(of: World, value: Callable[[Tensor, Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Gradients of a mean over tokens of value(student [N, V], teacher [N, V], token [N])."""
    hidden = leaves(of)
    rows = {v: replace(of.distribution(v), hidden=h).logps() for v, h in hidden.items()}
    value(rows["student"], rows["teacher"], of.step().batch.token).mean().backward()
    return {v: torch.zeros_like(h) if h.grad is None else h.grad for v, h in hidden.items()}


def test_each_kl_pulls_one_side_and_the_other_is_detached() -> None:
    """Differentiated by brute force over the vocabulary, the stop-gradients where the paper has
    them."""
    of = WORLDS[0]
    algorithm = pi_distill(total_steps=1, alpha=0.4, beta=0.3)

    def of_teacher(s: Tensor, t: Tensor, token: Tensor) -> Tensor:
        return 0.12 * (t.exp() * (t - s.detach())).sum(-1)

    def of_student(s: Tensor, t: Tensor, token: Tensor) -> Tensor:
        return 0.18 * (t.detach().exp() * (t.detach() - s)).sum(-1)

    for name, formula, still in (
        ("teacher_kl", of_teacher, "student"),
        ("student_kl", of_student, "teacher"),
    ):
        result, want = grads(algorithm, of, name), written_out(of, formula)
        for view in ("student", "teacher"):
            assert_close(result[view], want[view], atol=1e-7, rtol=1e-4)
        assert not result[still].any()

    def to_teacher(s: Tensor, t: Tensor, token: Tensor) -> Tensor:
        return 0.5 * (s.exp() * (s - t.detach())).sum(-1)

    result, want = grads(opsd(), of, "kl"), written_out(of, to_teacher)
    assert_close(result["student"], want["student"], atol=1e-7, rtol=1e-4)
    assert not result["teacher"].any()


def test_each_policy_gradient_moves_its_own_policy() -> None:
    of = WORLDS[0]
    algorithm = pi_distill(total_steps=1, alpha=0.4)
    for name, still in (("teacher", "student"), ("student", "teacher")):
        result = grads(algorithm, of, name)
        assert result[name].any()
        assert not result[still].any()


def test_policies_that_agree_pull_at_nothing() -> None:
    """At pT = pS a KL is 0 and so is its gradient."""
    of = WORLDS[0]
    twins = World(of.episodes, dict.fromkeys(of.hidden, of.hidden["student"]), of.heads)
    for algorithm, names in (
        (pi_distill(total_steps=1), ("teacher_kl", "student_kl")),
        (opsd(), ("kl",)),
    ):
        for name in names:
            assert parts(algorithm, twins)[name] == pytest.approx(0, abs=1e-6)
            for grad in grads(algorithm, twins, name).values():
                assert float(grad.abs().max()) < 1e-7


# -- schedules and what is refused


@pytest.mark.parametrize("reduction", ["token", "sum"])
def test_the_teachers_share_rises_over_the_first_part_of_training(reduction: Any) -> None:
    of = WORLDS[1]
    ramped = pi_distill(total_steps=40, alpha=0.5, ramp=0.5, reduction=reduction)
    for at, alpha in ((0, 0.0), (5, 0.125), (10, 0.25), (20, 0.5), (39, 0.5), (99, 0.5)):
        fixed = pi_distill(total_steps=40, alpha=alpha, reduction=reduction)
        assert parts(ramped, of, at) == pytest.approx(parts(fixed, of, at), rel=1e-5, abs=1e-7)
    assert parts(pi_distill(total_steps=1, ramp=0.1), of, 1) == pytest.approx(
        parts(pi_distill(total_steps=1), of, 1)
    )


def test_the_weight_of_the_kl_may_change_with_the_step() -> None:
    of = WORLDS[1]
    falling = linear(0.5, 0.0, 10)
    for at, beta in ((0, 0.5), (4, 0.3), (10, 0.0), (99, 0.0)):
        assert total(opsd(beta=falling), of, at) == pytest.approx(total(opsd(beta=beta), of, at))
        both = [pi_distill(total_steps=9, beta=b) for b in (falling, beta)]
        assert total(both[0], of, at) == pytest.approx(total(both[1], of, at))
    assert total(opsd(beta=0.5), of, 4) != pytest.approx(total(opsd(beta=0.3), of, 4))


def test_settings_outside_their_range_are_refused() -> None:
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"alpha is the teacher's share.*got"):
            pi_distill(total_steps=1, alpha=bad)
        with pytest.raises(ValueError, match=r"ramp is a share of training.*got"):
            pi_distill(total_steps=1, ramp=bad)
        with pytest.raises(ValueError, match=r"hinted is a share of the loss.*got"):
            sft(hint="plan", hinted=bad)


def test_who_acts_and_who_is_hinted() -> None:
    result = pi_distill(total_steps=9, hint="actions")
    assert result.views == {"teacher": View(policy="self", hint="actions")}
    assert [result.actors["teacher"](s) for s in (0, 8, 99)] == [1.0, 1.0, 1.0]
    assert result.trained() == {"student", "teacher"}
    assert result.followed() == set()
    assert not opsd().actors
    assert opsd(hint="actions").views == {"teacher": View(policy="self", hint="actions")}
    assert opsd().trained() == {"student"}
    assert opsd().followed() == {"teacher"}


# -- what counts


@given(seed=st.integers(0, 10**6), some=st.booleans())
def test_what_tokens_count(seed: int, some: bool) -> None:
    of = WORLDS[seed % len(WORLDS)]
    step = of.step()
    n = len(step.batch.token)
    chosen = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.4
    of_some = Signal(lambda s: chosen.float(), "some") if some else ONE
    weights = chosen.tolist() if some else [True] * n
    owner = step.batch.owner.tolist()
    sizes = [
        sum(w for w, e in zip(weights, owner, strict=True) if e == k)
        for k in range(len(of.episodes))
    ]
    among = sum(size > 0 for size in sizes)
    want = {
        token_mean: [w / max(1, sum(sizes)) for w in weights],
        episode_mean: [w / max(1, sizes[e] * among) for w, e in zip(weights, owner, strict=True)],
        episode_sum: [w / max(1, among) for w in weights],
    }
    for reduction, shares in want.items():
        assert reduction(of_some)(step).tolist() == pytest.approx(shares, rel=1e-5)


def test_a_group_counts_where_its_returns_differ() -> None:
    for of in WORLDS:
        step = of.step()
        saved = counted(of, "leave_out")
        assert varied()(step).tolist() == [float(saved[e]) for e in step.batch.owner.tolist()]
    assert not varied()(flat(world(4), "t0", "t1", "t2").step()).any()
    # 0.1 + 0.2 is not quite 0.3: the same return by another way is no difference
    turn = world(0).episodes[0].turns[0]
    ways = [
        Episode(
            task=Task(id="t"),
            group="t",
            copy=k,
            turns=tuple(replace(turn, reward=r, penalty=0.0) for r in rewards),
        )
        for k, rewards in enumerate(((0.1, 0.2), (0.3,)))
    ]
    assert ways[0].total_reward != ways[1].total_reward
    assert not varied()(Step(collate(ways), {}, 0)).any()
    alone = world(5, groups=4, group_size=1)
    assert not varied()(alone.step()).any()


# -- in training


class Reads(Table):
    """Surer of its digits where its prompt holds privileged text. Notes how it was scored."""

    def __init__(self, **more: float) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.mark = chat().content("Information that only you")
        self.passes: list[tuple[bool, bool]] = []  # with gradient, with privileged text

    def reads_hint(self, sample: Sample | Request) -> bool:
        n = len(self.mark)
        return any(sample.prompt[i : i + n] == self.mark for i in range(len(sample.prompt)))

    def sample(self, requests: Sequence[Request]) -> list[Completion]:
        surer = [
            replace(r, temperature=r.temperature / 2) if self.reads_hint(r) else r for r in requests
        ]
        return super().sample(surer)

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        result = super().score(samples, temperature)
        self.passes.append((torch.is_grad_enabled(), self.reads_hint(samples[0])))
        heat = torch.tensor([2.0 if self.reads_hint(s) else 1.0 for s in samples for _ in s.tokens])
        of = result.distribution
        return Scores(
            distribution=replace(of, hidden=of.hidden * heat[:, None]),
            token=torch.tensor([t for s in samples for t in s.tokens]),
        )


class Knows(Doors):
    """Has a plan for some of its tasks only."""

    def __init__(self, rooms: int, without: str) -> None:
        super().__init__(rooms)
        object.__setattr__(self, "without", without)

    def plan(self, task: Task) -> Sequence[str]:
        return [] if task.data["path"][0] in self.without else super().plan(task)


def step_on(
    algorithm: Algorithm,
    on: Session,
    student: Table,
    episodes: Sequence[Episode],
    *,
    lr: float = 0.0,
    **update: int,
) -> tuple[list[Tensor], Report]:
    """The gradient of every optimiser step."""
    seen: list[Tensor] = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            seen.append(student.logits.grad.clone())  # type: ignore[union-attr]
            super().step()

    report = train_step(
        algorithm,
        episodes,
        {"self": student},
        Recorder(student.parameters(), lr=lr),
        on.prompter,
        Update(grad_clip=1e9, **update),
        step=0,
        seed=0,
        clock=Clock(),
    )
    return seen, report


def without_hint(suite: Doors, hint: str) -> tuple[Session, Reads, Callable[..., list[Episode]]]:
    student = Reads(knows=0.7)
    on = session(suite, policies={"self": student})

    def played(algorithm: Algorithm) -> list[Episode]:
        return play(on, suite.tasks("train"), algorithm, seed=2, group_size=4)

    return on, student, played


@pytest.mark.parametrize("empty", ["no hint is asked for", "the plans are empty"])
@pytest.mark.parametrize("reduction", ["token", "sum"])
def test_without_privileged_information_it_is_plain_ppo_whatever_alpha(
    empty: str, reduction: Any
) -> None:
    asked = empty == "no hint is asked for"
    suite = Doors(2) if asked else Knows(2, "abc")
    on, student, played = without_hint(suite, "")
    want, episodes = None, None
    for alpha in (0.0, 0.3, 1.0):
        algorithm = pi_distill(
            total_steps=5,
            alpha=alpha,
            hint="" if asked else "plan",
            flat_groups="keep",
            reduction=reduction,
        )
        result = played(algorithm)
        episodes = episodes or result
        assert result == episodes
        # away from the policy that sampled, so that clipping shows
        moved = [
            replace(
                e, turns=tuple(replace(t, logps=tuple(x + 0.3 for x in t.logps)) for t in e.turns)
            )
            for e in result
        ]
        (grad,), report = step_on(algorithm, on, student, moved)
        assert report.losses["teacher_kl"] == report.losses["student_kl"] == 0
        plain = grpo(std=False, dual_clip=None)
        if reduction == "sum":
            plain = replace(plain, token_weight=episode_sum(), minibatch_weight=episode_mean())
        (want,), reference = step_on(plain, on, student, moved)
        assert_close(grad, want, atol=1e-6, rtol=1e-4)
        assert report.losses["teacher"] + report.losses["student"] == pytest.approx(
            reference.losses["grpo"], rel=1e-5
        )
        assert float(grad.abs().max()) > 1e-4


def test_a_task_without_a_plan_is_played_and_trained_plainly_among_others() -> None:
    suite = Knows(2, "b")
    on, student, played = without_hint(suite, "plan")
    episodes = played(pi_distill(total_steps=5, alpha=0.4))
    for request in student.asked:
        assert student.reads_hint(request) == (
            "b" not in request.key.split("#")[0].split("/")[1][0]
        )
    none = [e for e in episodes if e.task.data["path"][0] == "b"]
    student.passes.clear()
    _, report = step_on(pi_distill(total_steps=5, alpha=0.4), on, student, none)
    assert report.losses["teacher_kl"] == report.losses["student_kl"] == 0
    assert student.passes
    assert not any(hinted for _, hinted in student.passes)
    _, report = step_on(pi_distill(total_steps=5, alpha=0.4), on, student, episodes)
    assert report.losses["student_kl"] > 0


def test_the_ratio_crosses_prompts() -> None:
    """The student's denominator is what the hinted policy gave the token when it sampled it."""
    suite = Doors(2)
    on, student, played = without_hint(suite, "plan")
    algorithm = pi_distill(total_steps=5, alpha=0.0, beta=0.0, flat_groups="keep", clip=1.0)
    episodes = played(algorithm)
    assert {t.actor for e in episodes for t in e.turns} == {"teacher"}
    _, report = step_on(algorithm, on, student, episodes)
    plain = on.prompter(View(), episodes[0].task)
    advantage = {
        (e.task.id, e.copy): e.total_reward
        - sum(x.total_reward for x in episodes if x.group == e.group) / 4
        for e in episodes
    }
    losses = []
    for e in episodes:
        samples = replace(plain, hint="").samples(e)
        now = student.score(samples, 1.0).logp.tolist()
        then = [x for t in e.turns for x in t.logps]
        a = advantage[e.task.id, e.copy]
        losses += [
            clipped(float(torch.tensor(p - q).exp()), a, 1.0, 1.0, None)
            for p, q in zip(now, then, strict=True)
        ]
    assert report.losses["student"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("name", ["opsd", "pi_distill"])
@pytest.mark.parametrize("reduction", ["token", "sum"])
def test_a_minibatch_is_reduced_like_a_step(name: str, reduction: Any) -> None:
    """Each optimiser step takes the mean over its own tokens, or over its own episodes of their
    sums, of those that count: weighted by how many they are, its gradients add up to the step's."""
    suite = Doors(2)
    on, student, played = without_hint(suite, "plan")
    algorithm = {
        "opsd": opsd(reduction=reduction),
        "pi_distill": pi_distill(total_steps=1, reduction=reduction),
    }[name]
    episodes = [
        replace(e, turns=tuple(replace(t, reward=0.5) for t in e.turns)) if k < 12 else e
        for k, e in enumerate(played(algorithm))
    ]
    differing = {
        g
        for g in {e.group for e in episodes}
        if len({e.total_reward for e in episodes if e.group == g}) > 1
    }
    sizes = [
        (e.group in differing)
        * (sum(len(t.tokens) for t in e.turns) if reduction == "token" else 1)
        for e in episodes
    ]
    seen, _ = step_on(algorithm, on, student, episodes, minibatches=5)
    (full,), _ = step_on(algorithm, on, student, episodes)
    dealt = deal(prepare(algorithm, episodes, on.prompter), 5, (0, 0, 0))
    assert len(seen) == 5
    assert len({sum(sizes[e] > 0 for e in part) / len(part) for part in dealt}) > 1
    weights = [sum(sizes[e] for e in part) / sum(sizes) for part in dealt]
    summed = torch.stack([w * g for w, g in zip(weights, seen, strict=True)]).sum(0)
    assert_close(summed, full, atol=1e-6, rtol=1e-4)


def test_a_step_in_which_no_group_counts_changes_nothing() -> None:
    suite = Doors(2)
    student = Reads(knows=30.0)
    on = session(suite, policies={"self": student})
    episodes = play(on, suite.tasks("train"), opsd(), seed=0, group_size=2)
    assert all(e.won for e in episodes)
    before = student.logits.detach().clone()
    for algorithm in (opsd(), pi_distill(total_steps=3), opsd(reduction="sum")):
        seen, report = step_on(algorithm, on, student, episodes, lr=1.0, minibatches=2)
        assert seen == []
        assert set(report.losses.values()) == {0.0}
        assert report.grad_norm == 0
    assert torch.equal(student.logits, before)
    seen, _ = step_on(opsd(flat_groups="keep"), on, student, episodes, lr=1.0)
    assert seen[0].any()


def test_opsds_teacher_is_the_policy_of_now_without_gradient() -> None:
    suite = Doors(2)
    on, student, played = without_hint(suite, "plan")
    episodes = played(opsd())
    assert {t.actor for e in episodes for t in e.turns} == {"student"}
    student.passes.clear()
    step_on(opsd(), on, student, episodes, lr=0.5, minibatches=2)
    hinted = [graded for graded, with_hint in student.passes if with_hint]
    assert hinted == [False, False]  # once a minibatch, never before
    assert [graded for graded, with_hint in student.passes if not with_hint] == [True, True]


def test_schedules_weigh_the_loss_and_not_only_the_log() -> None:
    of = WORLDS[0]
    ramp: Schedule = lambda step: 0.1 * step  # noqa: E731
    step = of.step(at=5)
    ramped = Algorithm(terms=(replace(grpo(std=False).terms[0], advantage=ramp * ONE),))
    assert total(ramped, of, 5) == pytest.approx(
        total(Algorithm(terms=(replace(grpo(std=False).terms[0], advantage=0.5 * ONE),)), of)
    )
    everything = [torch.arange(len(step.batch.token))]
    value, grad = gradient(bind(pi_distill(total_steps=1, alpha=1.0), step), of, step, everything)
    assert not grad.any()  # alpha = 1 trains the teacher's view only
    assert value != 0
