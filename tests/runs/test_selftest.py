"""A run refuses to start on wrong wiring: each self-test passes on sound parts and fails, with a
sentence, on the fault that it is for."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny_runs import TEACHER, tiny_table

from tutelage.config.schema import Config
from tutelage.config.toml_file import override, parse
from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.envs.registry import suite_of
from tutelage.errors import ConfigError, EnvError, PolicyError, TutelageError
from tutelage.maths.estimators import k3
from tutelage.objective import (
    ONE,
    STUDENT,
    Algorithm,
    Bound,
    DistillSampled,
    Entropy,
    Signal,
    Step,
    View,
)
from tutelage.objective.scores import Scores
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import train_tokenizer
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample
from tutelage.rollout.session import Session
from tutelage.runs import assemble, models, selftest, train
from tutelage.runs import folder as run_folder
from tutelage.runs.phases import phases_of, policies_wanted
from tutelage.runs.selftest import Wiring, run_all
from tutelage.schedules import constant
from tutelage.types import Observation, Task

SETTINGS = tiny_table(
    rollout={"max_new_tokens": 6},
    algorithm={"name": "guided_opd"},
    policy={"layers": 2},
    policies=TEACHER,
)
HINTED = Algorithm(
    terms=(DistillSampled(estimate=k3, teacher="wise"),),
    views={"wise": View(policy="self", hint="plan")},
    actors={"wise": constant(0.5)},
)
Make = Callable[..., Wiring]


def settings(*changes: str) -> Config:
    return parse(override(copy.deepcopy(SETTINGS), changes))


@pytest.fixture
def wiring() -> Iterator[Make]:
    """Builds a run's parts, as `train.train` does, and closes them."""
    pools = []

    def make(
        *changes: str, suite: Doors | None = None, algorithm: Algorithm | None = None
    ) -> Wiring:
        config = settings(*changes)
        phases = phases_of(config)
        if algorithm is not None:
            phases = [replace(phases[0], algorithm=algorithm)]
        world = suite or suite_of(config.env)
        context = assemble.context_of(config.context, world)  # type: ignore[arg-type]
        wanted = policies_wanted(phases, config.policies)
        policies = models.policies_of(config, wanted, world, context)  # type: ignore[arg-type]
        pool = assemble.pool_of(config.env, world)  # type: ignore[arg-type]
        pools.append(pool)
        session = Session(
            suite=world,
            pool=pool,
            policies=dict(policies),
            context=context,  # type: ignore[arg-type]
            limits=assemble.limits_of(config),
        )
        task = world.tasks("train")[0]
        return Wiring(phases=phases, session=session, policies=policies, task=task, split="train")

    yield make
    for pool in pools:
        pool.shutdown()


def swapped(wiring: Wiring, name: str, policy: HFPolicy) -> Wiring:
    """The same parts with another policy under a name."""
    policies = {**wiring.policies, name: policy}
    session = replace(wiring.session, policies=dict(policies))
    return replace(wiring, policies=policies, session=session)


def refusal(wiring: Wiring, kind: type[TutelageError]) -> str:
    with pytest.raises(kind) as error:
        run_all(wiring)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- sound parts


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("context.history=2",),
        ("algorithm.name=opd",),
        ("algorithm.name=sft",),
        ("algorithm.name=grpo", "rollout.group_size=2"),
        ("rollout.temperature=0.7",),
        ("rollout.max_new_tokens=1", "rollout.max_turns=1"),
        ("policy.dtype=bfloat16", "policies.teacher.dtype=bfloat16"),
    ],
    ids=lambda changes: " ".join(changes) or "guided",
)
def test_sound_parts_pass(wiring: Make, changes: tuple[str, ...]) -> None:
    assert len(run_all(wiring(*changes))) == len(selftest.TESTS)


def test_a_sound_self_teacher_passes(wiring: Make) -> None:
    assert len(run_all(wiring(algorithm=HINTED))) == len(selftest.TESTS)
    assert len(run_all(wiring("context.history=2", algorithm=HINTED))) == len(selftest.TESTS)


def test_they_leave_no_trace(wiring: Make) -> None:
    parts = wiring()
    before = [p.clone() for p in parts.policies["self"].parameters()]
    first = run_all(parts)
    after = list(parts.policies["self"].parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)
    assert run_all(parts) == first


def test_every_test_has_a_line_to_say(wiring: Make) -> None:
    assert all(len(line) > 20 for line in run_all(wiring()))


# -- faults of environments


class Silent(DoorsEnv):
    def step(self, action: str) -> Observation:
        return replace(super().step(action), text=" ")


class Mute(Doors):
    def make(self) -> DoorsEnv:
        return Silent()


class Loser(Doors):
    def demonstrate(self, task: Task) -> Sequence[str]:
        return ["9" for _ in task.data["path"]]


class Forgetful(Doors):
    def plan(self, task: Task) -> Sequence[str]:
        return []


class Thoughtless(Doors):
    def thoughts(self, task: Task) -> Sequence[str]:
        return ["hm"]


class Alone:
    """A suite without an expert."""

    def tasks(self, split: str) -> Sequence[Task]:
        return Doors().tasks(split)

    def make(self) -> DoorsEnv:
        return DoorsEnv()


def test_a_broken_environment(wiring: Make) -> None:
    message = refusal(wiring(suite=Mute()), EnvError)
    assert "without text" in message
    assert "check-env" in message


def test_an_expert_that_loses(wiring: Make) -> None:
    message = refusal(wiring("algorithm.name=sft", suite=Loser()), EnvError)
    assert "does not win task doors/aa" in message
    run_all(wiring("algorithm.name=opd", suite=Loser()))  # nobody imitates it


def test_an_expert_that_needs_more_turns_than_there_are(wiring: Make) -> None:
    message = refusal(wiring("algorithm.name=sft", "rollout.max_turns=1"), ConfigError)
    assert "takes 2 turns" in message
    assert "rollout.max_turns = 1" in message


def test_an_expert_that_is_not_there(wiring: Make) -> None:
    message = refusal(wiring("algorithm.name=sft", suite=Alone()), ConfigError)
    assert "`demonstrate`" in message


def test_thoughts_that_are_too_few(wiring: Make) -> None:
    changes = ("algorithm.name=sft", "algorithm.thoughts=true")
    assert "1 thoughts for its 2 actions" in refusal(
        wiring(*changes, suite=Thoughtless()), EnvError
    )


# -- faults of tokenizers and templates


def test_another_vocabulary(wiring: Make) -> None:
    parts = wiring()
    teacher = parts.policies["teacher"]
    other = Chat(train_tokenizer(["other words entirely, and more of them " * 3]))
    message = refusal(swapped(parts, "teacher", HFPolicy(teacher.model, other)), PolicyError)
    assert "policies.teacher" in message
    assert 'policy.tokenizer = "teacher"' in message


def test_a_template_that_rewrites_the_past(wiring: Make) -> None:
    parts = wiring()
    chat = parts.policies["self"].chat
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.replace(
        "{{ m.content }}<|end|>", "{{ m.content.split('</think>')[-1] }}<|end|>"
    )
    assert 'history = "append"' in refusal(parts, PolicyError)
    # a window has no past to rewrite
    context = replace(parts.session.context, kind="window")
    run_all(replace(parts, session=replace(parts.session, context=context)))


class Cutting(Chat):
    """Shows only half of a system message."""

    def open(self, system: str, user: str) -> tuple[int, ...]:
        return super().open(system[: len(system) // 2], user)


def test_a_prompt_that_cuts_the_privileged_text(wiring: Make) -> None:
    parts = wiring(algorithm=HINTED)
    parts.policies["self"].chat = Cutting(parts.policies["self"].chat.tokenizer)
    assert "privileged text does not reach wise" in refusal(parts, PolicyError)


# -- faults of models


class Shifted(HFPolicy):
    """Scores as if the temperature were another."""

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        return super().score(samples, temperature * 1.01)


class Wobbly(HFPolicy):
    """Scores that are a little different every time."""

    count = 0

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        self.count += 1
        return super().score(samples, temperature * (1 + 1e-6 * self.count))


def like(policy: HFPolicy, kind: type[HFPolicy]) -> HFPolicy:
    return kind(policy.model, policy.chat)


def test_a_scorer_that_disagrees_with_its_sampler(wiring: Make) -> None:
    parts = wiring()
    message = refusal(swapped(parts, "self", like(parts.policies["self"], Shifted)), PolicyError)
    assert message.startswith("student's log-probabilities")
    parts = wiring()
    message = refusal(
        swapped(parts, "teacher", like(parts.policies["teacher"], Shifted)), PolicyError
    )
    assert message.startswith("teacher's log-probabilities")


def test_scores_that_are_random(wiring: Make) -> None:
    parts = wiring()
    message = refusal(swapped(parts, "self", like(parts.policies["self"], Wobbly)), PolicyError)
    assert "scoring the same tokens twice" in message


def test_a_prompt_that_is_scored_differently(wiring: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.prompts.prompter import Prompter

    right = Prompter.samples

    def wrong(self: Prompter, episode: object) -> list[Sample]:
        scored = right(self, episode)  # type: ignore[arg-type]
        return [replace(sample, prompt=sample.prompt[:-1]) for sample in scored]

    monkeypatch.setattr(Prompter, "samples", wrong)
    assert "another prompt than it was sampled after" in refusal(wiring(), PolicyError)


def test_a_first_prompt_without_room(wiring: Make) -> None:
    changes = (
        "policy.build.context=32",
        "rollout.max_new_tokens=30",
        "rollout.group_size=2",
        "algorithm.name=grpo",
    )
    assert "leaves no room for 24 new tokens" in refusal(wiring(*changes), ConfigError)


# -- faults of distillation


def test_an_empty_hint_is_the_plain_prompt(wiring: Make) -> None:
    """A task of which nothing is known; `hinting.prove` refuses where none is."""
    parts = wiring(suite=Forgetful(), algorithm=HINTED)
    assert len(run_all(parts)) == len(selftest.TESTS)


def test_a_hint_that_is_too_long(wiring: Make) -> None:
    quiet = replace(HINTED, actors={})
    parts = wiring("policy.build.context=96", "rollout.max_new_tokens=40", algorithm=quiet)
    message = refusal(parts, ConfigError)
    assert "with its privileged text" in message
    assert "exceeds the context of 96" in message


class Loud(Entropy):
    def bind(self, step: Step) -> Bound:
        bound = super().bind(step)
        return replace(bound, loss=lambda live, i: float("inf") * bound(live, i))


def test_a_silent_loss_that_is_not_silent(wiring: Make) -> None:
    loud = Algorithm(terms=(Loud(weight=ONE),))
    assert "coefficient 0 changes the gradient" in refusal(wiring(algorithm=loud), PolicyError)


def test_the_gap_is_taken_on_the_trainers_own_path(
    wiring: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = Signal(lambda s: s.scores["teacher"].logp - s.scores[STUDENT].logp + 1e-6, "gap")
    monkeypatch.setattr(selftest, "gap", lambda: off)
    assert "scoring the same tokens twice" in refusal(wiring(), PolicyError)


# -- in a run


def test_a_run_that_is_refused_leaves_its_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    watch = PassedNames()
    with pytest.raises(ConfigError, match=r"rollout\.max_turns = 1"):
        train.train(settings("algorithm.name=sft", "rollout.max_turns=1"), watch=watch)
    assert not (tmp_path / "run" / run_folder.CONFIG).exists()
    assert watch.passed == []
    train.train(settings("algorithm.name=sft"), watch=watch)
    assert len(watch.passed) == len(selftest.TESTS)


class PassedNames:
    def __init__(self) -> None:
        self.passed: Sequence[str] = []

    def tested(self, names: Sequence[str]) -> None:
        self.passed = names

    def started(self, config: Config, phase: str, step: int) -> None: ...
    def playing(self, done: int, total: int) -> None: ...
    def stepped(self, line: Mapping[str, object], seconds: Mapping[str, float]) -> None: ...
    def evaluated(self, line: Mapping[str, object]) -> None: ...
    def warned(self, sentence: str) -> None: ...
    def closed(self) -> None: ...
