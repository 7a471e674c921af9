"""The whole loop on a transformer of two small layers: what is sampled is what is scored, however
many rows there are; and it learns."""

from dataclasses import replace

import pytest
import torch
from support.fake_policy import Table, chat
from torch.testing import assert_close

from tutelage.algorithms.guided_opd import guided_opd
from tutelage.algorithms.opd import opd
from tutelage.algorithms.sft import sft
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.maths.divergences import forward_kl
from tutelage.objective import Algorithm, Distill, Signal, Step, View
from tutelage.policies.base import Actor
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import build_model
from tutelage.prompts.context import Context
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Limits, Session
from tutelage.schedules import constant
from tutelage.training.train_step import Update, train_step
from tutelage.types import Episode

TRANSCRIPT = Context(instructions="Answer each letter with its digit.")
WINDOW = replace(TRANSCRIPT, kind="window", window=1)
MIXED = Algorithm(
    terms=(),
    views={"teacher": View(policy="teacher", hint="plan")},
    actors={"teacher": constant(0.4)},
)


def policy(seed: int, *, slots: int = 64, layers: int = 2, sharp: float = 3.0) -> HFPolicy:
    """`sharp` scales the embeddings, so that an untrained model prefers some tokens."""
    model = build_model(
        entries=chat().size,
        layers=layers,
        hidden=32,
        heads=4,
        kv_heads=2,
        ffn=64,
        context=512,
        seed=seed,
        end=chat().end,
        pad=0,
    )
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharp)
    return HFPolicy(model.eval(), chat(), slots=slots)


def session(
    policies: dict[str, Actor], context: Context, rooms: int = 3, **limits: object
) -> Session:
    suite = Doors(rooms)
    return Session(
        suite=suite,
        pool=LocalPool(suite),
        policies=policies,
        context=context,
        limits=Limits(**{"max_turns": 9, "max_new_tokens": 8, **limits}),  # type: ignore[arg-type]
    )


def spoken(episodes: list[Episode]) -> list[list[tuple[str, tuple[int, ...]]]]:
    return [[(t.actor, t.tokens) for t in e.turns] for e in episodes]


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_neither_slots_nor_concurrency_change_a_token(context: Context) -> None:
    tasks = Doors(3).tasks("train")[:5]
    runs = []
    for slots, concurrency in ((64, 64), (2, 64), (64, 1), (2, 3)):
        policies: dict[str, Actor] = {
            "self": policy(0, slots=slots),
            "teacher": policy(1, slots=slots, layers=1),
        }
        on = session(policies, context, concurrency=concurrency, max_new_tokens=5)
        runs.append(play(on, tasks, MIXED, seed=5))
    assert len({t.actor for e in runs[0] for t in e.turns}) == 2
    for other in runs[1:]:
        assert spoken(other) == spoken(runs[0])
        for a, b in zip(runs[0], other, strict=True):
            for t, u in zip(a.turns, b.turns, strict=True):
                assert u.logps == pytest.approx(t.logps, abs=2e-5)


@pytest.mark.parametrize("heat", [1.0, 0.7])
@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_what_was_sampled_is_scored_alike_by_whoever_sampled_it(
    context: Context, heat: float
) -> None:
    """The ratio starts at one: same prompt, same ids, same temperature, same weights."""
    policies = {"self": policy(0), "teacher": policy(1, layers=1)}
    on = session(dict[str, Actor](policies), context, temperature=heat)
    episodes = play(on, Doors(3).tasks("train")[:6], MIXED, seed=5)
    for name, view in MIXED.all_views().items():
        samples = [s for e in episodes for s in on.prompter(view, e.task).samples(e)]
        with torch.no_grad():
            scored = policies[view.policy].score(samples, heat).logp
        sampled = torch.tensor([x for e in episodes for t in e.turns for x in t.logps])
        mine = torch.tensor([t.actor == name for e in episodes for t in e.turns for _ in t.tokens])
        assert_close(scored[mine], sampled[mine], atol=3e-5, rtol=1e-5)
        assert float((scored - sampled)[~mine].abs().max()) > 0.1


def train(
    algorithm: Algorithm, student: HFPolicy, teacher: Actor | None, *, steps: int, lr: float
) -> float:
    """Share of doors opened by the student alone after training."""
    policies: dict[str, Actor] = {"self": student}
    if teacher is not None:
        policies["teacher"] = teacher
    on = session(policies, TRANSCRIPT, rooms=2)
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.0)
    tasks = on.suite.tasks("train")
    for at in range(steps):
        episodes = play(on, tasks, algorithm, seed=0, step=at, group_size=2)
        train_step(
            algorithm,
            episodes,
            policies,
            optimizer,
            on.prompter,  # type: ignore[arg-type]
            Update(max_tokens_per_pass=600),
            step=at,
            seed=0,
            clock=Clock(),
        )
    alone = play(on, tasks, Algorithm(terms=()), seed=99, group_size=4)
    return sum(e.total_reward for e in alone) / (2 * len(alone))


def test_a_transformer_learns_from_an_expert_and_then_from_a_teacher() -> None:
    student = policy(0, layers=1, sharp=1.0)
    assert train(sft(), student, None, steps=100, lr=1e-2) > 0.9
    # and on from there: a teacher that always says 7 is a teacher too
    stubborn = Table(knows=-20.0)
    with torch.no_grad():
        digit = chat().content("<action>7</action>")[1]
        stubborn.logits[:, 1, digit] += 20
    stubborn.requires_grad_(False)
    assert train(opd(vocabulary="full"), student, stubborn, steps=25, lr=5e-3) < 0.3


def test_a_transformer_learns_from_turns_that_its_teacher_takes() -> None:
    student, teacher = policy(0, layers=1, sharp=1.0), Table(knows=8.0)
    teacher.requires_grad_(False)
    assert train(guided_opd(total_steps=100), student, teacher, steps=100, lr=1e-2) > 0.9


def test_a_student_that_teaches_itself_aims_at_what_it_was() -> None:
    """Several updates in one step: the hinted view's distribution is that of before the first."""
    student = policy(0)
    on = session({"self": student}, TRANSCRIPT)
    episodes = play(on, on.suite.tasks("train")[:6], Algorithm(terms=()), seed=0)
    goals: list[torch.Tensor] = []

    def watched(own: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        goals.append(goal.clone())
        return forward_kl(own, goal)

    before: list[torch.Tensor] = []

    def read(step: Step) -> float:
        before.append(step.scores["teacher"].distribution.logps())
        return 1.0

    algorithm = Algorithm(
        terms=(Distill(divergence=watched, weight=Signal(read, "all")),),
        views={"teacher": View(policy="self", hint="plan")},
    )
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    train_step(
        algorithm,
        episodes,
        {"self": student},
        optimizer,
        on.prompter,
        Update(epochs=2, max_tokens_per_pass=10**9),
        step=0,
        seed=0,
        clock=Clock(),
    )
    used = [g for g in goals if g.shape == before[0].shape]
    assert len(used) == len(goals) >= 2
    for goal in used:
        assert torch.equal(goal, before[0])
