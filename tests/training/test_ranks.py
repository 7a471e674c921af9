"""Several ranks of one run agree with one process, and end together whatever happens to one."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.every_algorithm import MAKE
from support.fake_policy import chat
from support.gangs import run
from torch.testing import assert_close

from tutelage.algorithms import ALGORITHMS
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.hints import Hints
from tutelage.hints.bank import Bank, Skill
from tutelage.objective.aligned import Coverage
from tutelage.objective.batch import collate
from tutelage.policies.base import Actor, Dtype, Sharding
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import build_model
from tutelage.prompts.context import Context
from tutelage.rollout.hint_preparation import Hinter
from tutelage.rollout.ranks import Ranks
from tutelage.rollout.record import episode_line
from tutelage.rollout.session import Clock, Limits, Session
from tutelage.rollout.task_sampling import gather, learnt
from tutelage.training.layout import Layout
from tutelage.training.optimizer import adamw
from tutelage.training.shard import Shard
from tutelage.training.train_step import Update, train_step
from tutelage.types import Episode, Observation, Stop, Task, Turn

STEPS = 2
RATE = 3e-4
"""Learning rate: each of AdamW's first updates moves a weight by about as much."""
CASES = {
    **MAKE,
    "dapo batches": lambda: ALGORITHMS["dapo"](max_batches=3),
    "skills": lambda: ALGORITHMS["skill_grpo"](hint="skills:ucb"),
}
ALWAYS = (
    *("grpo everything", "dapo batches", "reinforce_pp", "opd full", "guided", "atod", "opsd"),
    *("pi_distill", "sdar", "gated_opsd", "skills"),
)
"""For every change: the papers' methods, and all that looks at the whole step."""
OF_THREE = ("dapo batches", "guided", "atod", "skills")
"""The same on three ranks, one of which has fewer groups than the others."""


def policy(
    seed: int,
    layers: int = 1,
    *,
    lora: bool = False,
    recompute: bool = False,
    dtype: Dtype = "float32",
) -> HFPolicy:
    model = build_model(
        entries=chat().size,
        layers=layers,
        hidden=16,
        heads=2,
        kv_heads=1,
        ffn=32,
        context=512,
        seed=seed,
        end=chat().end,
        pad=0,
    )
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3.0)
    adapters = Adapters(model, rank=2, base="tests", seed=0) if lora else None
    if adapters is not None:  # so that they matter from the first step on
        for name, p in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(p, std=0.1)
    return HFPolicy(
        model.eval(),
        chat(),
        slots=16,
        adapters=adapters,
        gradient_checkpointing=recompute,
        dtype=dtype,
    )


def rewarded(episode: Episode) -> Episode:
    """An episode with rewards that depend on its task and copy, so that groups differ."""
    draw = hashlib.sha256(f"{episode.task.id} {episode.copy}".encode()).digest()
    turns = [replace(t, reward=draw[k % 8] / 255) for k, t in enumerate(episode.turns)]
    return replace(episode, turns=tuple(turns), won=draw[9] > 127)


def learn(
    name: str,
    ranks: Ranks,
    *,
    student: Callable[[], HFPolicy] = lambda: policy(0),
    sharded: Sharding = "no",
    **update: Any,
) -> dict[str, Any]:
    """A few steps of an algorithm: what was played, every number, and the weights."""
    torch.manual_seed(0)
    suite, algorithm = Doors(3), CASES[name]()
    policies: dict[str, Actor] = {
        "self": student(),
        "teacher": policy(1),
        "reference": policy(2),
    }
    for other in ("teacher", "reference"):
        policies[other].freeze()  # type: ignore[attr-defined]
    skills = tuple(
        Skill(name=word, text=f"the {word} door", families=("",), keywords=()) for word in "ab"
    )
    session = Session(
        suite,
        policies,
        pool=LocalPool(suite),
        context=Context(instructions="Answer each letter with its digit."),
        limits=Limits(max_turns=3, max_new_tokens=5),
        hints=Hints(bank=Bank(name="tests", general="", skills=skills)),
        ranks=ranks,
    )
    hinter = Hinter(session=session, seed=0)
    session = replace(session, ready=hinter)
    own = policies["self"]
    assert isinstance(own, HFPolicy)
    before = flat(own)
    if sharded != "no":
        own.shard(always=sharded == "always")
    if sharded == "always":
        own.engine = WholeCopy(own, student())
        for other in ("teacher", "reference"):
            policies[other].shard(always=True)  # type: ignore[attr-defined]
    optimizer = adamw(
        own.parameters(), lr=RATE, betas=(0.9, 0.999), weight_decay=0.0, offload=False
    )
    out: dict[str, Any] = {"played": [], "losses": [], "columns": [], "norms": [], "ratios": []}
    for step in range(STEPS):
        played = gather(
            session,
            suite.tasks("train")[:12],
            algorithm,
            count=5,
            group_size=2,
            seed=0,
            step=step,
        )
        episodes = [rewarded(e) for e in played]
        report = train_step(
            algorithm,
            learnt(algorithm, episodes, 5),
            policies,  # type: ignore[arg-type]
            optimizer,
            session.prompter,
            Update(**{"max_tokens_per_pass": 200, "minibatches": 2, "alternatives": 2, **update}),
            step=step,
            seed=0,
            clock=Clock(),
            ranks=ranks,
            owners=ranks.owners(e.group for e in episodes),
        )
        hinter.settle(episodes)
        out["played"] += [written(e) for e in played]
        out["losses"].append(dict(report.losses))
        likely = {f"likeliest of {name}": x for name, (_, x) in report.alternatives.items()}
        out["columns"].append({**report.columns, **likely})
        out["norms"].append(report.grad_norm)
        out["ratios"].append(report.ratios)
    out["weights"], out["moved"] = flat(own), (flat(own) - before).abs().max()
    out["trained"] = sum(p.numel() for p in own.parameters())
    if own.sharded is not None:
        weights = range(len(own.sharded.whole))
        out["divided"] = sum(own.sharded.divided(k).numel() for k in weights)
        out["whole"] = sum(w.numel() for w in own.sharded.whole)
        out["held"] = sum(own.sharded.divided(k).to_local().numel() for k in weights)
    out["skills"] = session.hints.bandit.state()
    return out


class WholeCopy:
    """Samples for a student that no rank has whole, as a server would, with the bytes of its own
    engine: a copy in this process that is given the weights."""

    def __init__(self, student: HFPolicy, copy: HFPolicy) -> None:
        self.student, self.copy = student, copy
        self.submit, self.poll, self.release = copy.submit, copy.poll, copy.release

    @torch.no_grad()
    def refresh(self) -> None:
        own = dict(self.copy.model.named_parameters())
        for name, value in self.student.model.named_parameters():
            assert self.student.sharded is not None
            own[name].copy_(self.student.sharded.whole_weight(name, value))
        self.copy.refresh()


@torch.no_grad()
def flat(student: HFPolicy) -> torch.Tensor:
    """Every weight, those that are divided for good gathered from all ranks."""
    divided = student.sharded
    return torch.cat(
        [
            (divided.whole_weight(name, p) if divided is not None else p).detach().flatten()
            for name, p in student.model.named_parameters()
        ]
    )


def written(episode: Episode) -> dict[str, object]:
    """An episode as it is logged, but for what is rounded: which rows are computed beside each
    other decides the last digits of log-probabilities."""
    line = dict(episode_line(episode, 0))
    line["turns"] = [{**turn, "logps": len(turn["logps"])} for turn in line["turns"]]
    return line


def every(names: Sequence[str], ranks: Ranks) -> dict[str, dict[str, Any]]:
    return {name: learn(name, ranks) for name in names}


Learnt = Mapping[int, list[dict[str, dict[str, Any]]]]
"""By number of ranks: what each rank has, by case."""


def cases(size: int) -> Sequence[str]:
    """What is tried on so many ranks: everything at night."""
    if os.environ.get("NIGHTLY"):
        return list(CASES)
    return OF_THREE if size == 3 else ALWAYS


@pytest.fixture(scope="module")
def learnt_by(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    folder = tmp_path_factory.mktemp("ranks")
    return {size: run(size, partial(every, cases(size)), folder / str(size)) for size in (1, 2, 3)}


FORMS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "adapters": {"lora": True},
    "recomputed": {"recompute": True},
    "bfloat16": {"dtype": "bfloat16"},
}
"""Of a student with two layers whose weights are divided."""
DIVIDED = [("grpo everything", ""), ("opd full", ""), ("sdar", "")]
if os.environ.get("NIGHTLY"):
    DIVIDED += [("sdar", "adapters"), ("sdar", "recomputed")]
DIVIDING = (2, 4) if os.environ.get("NIGHTLY") else (2,)
"""Numbers of ranks."""


def in_form(name: str, form: str, ranks: Ranks, *, sharded: Sharding) -> dict[str, Any]:
    student = partial(policy, 0, 2, **FORMS[form])
    return learn(name, ranks, student=student, sharded=sharded)


WHEN: Sequence[Sharding] = ("update", "always")


def divided(ranks: Ranks) -> dict[str, dict[str, Any]]:
    if ranks.size == 1:
        return {f"{x} {form}": in_form(x, form, ranks, sharded="no") for x, form in DIVIDED}
    return {
        f"{name} {form} {when}": in_form(name, form, ranks, sharded=when)
        for name, form in DIVIDED
        for when in WHEN
    }


@pytest.fixture(scope="module")
def divided_by(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    folder = tmp_path_factory.mktemp("divided")
    return {size: run(size, divided, folder / str(size)) for size in (1, *DIVIDING)}


@pytest.mark.parametrize("size", DIVIDING)
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(("name", "form"), DIVIDED)
def test_divided_weights_agree_with_one_process(
    name: str, form: str, when: Sharding, size: int, divided_by: Learnt
) -> None:
    """FSDP2 over two and four ranks, in unequal shares: some passes are some ranks' alone."""
    several = [found[f"{name} {form} {when}"] for found in divided_by[size]]
    agree(divided_by[1][0][f"{name} {form}"], several)
    for each in several:  # an odd number of rows is divided unequally
        assert each["whole"] == (0 if when == "always" else each["divided"])
        assert each["held"] == pytest.approx(each["divided"] / size, rel=0.1)
        whole = each["divided"] if not FORMS[form].get("lora") else 0
        less = (0.9 - 0.9 / size) * whole
        assert each["trained"] <= divided_by[1][0][f"{name} {form}"]["trained"] - less


@pytest.mark.nightly
def test_weights_divided_in_bfloat16_agree_with_whole_ones(tmp_path: Path) -> None:
    """Layers are gathered in bfloat16, as autocast computes with them; sums stay in float32."""

    def job(ranks: Ranks) -> list[dict[str, Any]]:
        return [in_form("sdar", "bfloat16", ranks, sharded=sharded) for sharded in ("no", *WHEN)]

    for whole, *others in run(2, job, tmp_path):
        for other in others:
            assert other["played"] == whole["played"]
            assert other["norms"] == pytest.approx(whole["norms"], rel=1e-6)
            assert_close(other["weights"], whole["weights"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for size in (2, 3) for name in cases(size)]
)
def test_ranks_agree_with_one_process(name: str, size: int, learnt_by: Learnt) -> None:
    """Five or more groups on two and three ranks: shares are unequal, and some minibatches have
    nothing for a rank."""
    (one,) = (found[name] for found in learnt_by[1])
    agree(one, [found[name] for found in learnt_by[size]])


def agree(one: Mapping[str, Any], several: Sequence[Mapping[str, Any]]) -> None:
    assert one["moved"] > RATE / 2
    for other in several:
        assert other["played"] == one["played"]
        assert other["skills"] == one["skills"]
        assert_close(other["weights"], one["weights"], atol=1e-6, rtol=0)
        assert other["norms"] == pytest.approx(one["norms"], rel=1e-6)
        for mine, its in zip(one["losses"], other["losses"], strict=True):
            assert its == pytest.approx(mine, abs=1e-6, rel=1e-6)
        for mine, its in zip(one["ratios"], other["ratios"], strict=True):
            assert its.keys() == mine.keys()
            for term, numbers in mine.items():
                assert its[term] == pytest.approx(numbers, abs=1e-5)
        for mine, its in zip(one["columns"], other["columns"], strict=True):
            assert its.keys() == mine.keys()
            for column, values in mine.items():
                assert_close(its[column], values, atol=3e-4, rtol=1e-5, equal_nan=True, msg=column)
        # one set of weights: what a rank sums is what all of them have
        assert torch.equal(other["weights"], several[0]["weights"])


def test_coverage_is_of_the_rank_that_played_an_episode(tmp_path: Path) -> None:
    """Each rank knows its own episodes' tokens best; numbers of chunks stay apart by rank, and a
    token in no chunk of its rank is in none."""
    # episodes of 3, 2 and 2 tokens on the ranks 0, 1, 0
    known = [
        Coverage(chunk=torch.tensor(chunk), single=torch.tensor(single))
        for chunk, single in (
            ([0, 0, 1, 7, 7, 2, -1], [False, False, True, True, True, True, False]),
            ([5, 5, 5, 0, -1, 5, 5], [True, True, True, True, False, False, True]),
        )
    ]

    def job(ranks: Ranks) -> Coverage:
        shard = Shard(ranks=ranks, layout=three_episodes(), owner=[0, 1, 0])
        return shard.coverage({"teacher": known[ranks.rank]})["teacher"]

    for found in run(2, job, tmp_path):
        chunk = found.chunk.tolist()
        assert found.single.tolist() == [False, False, True, True, False, True, False]
        assert found.covered.tolist() == [True, True, True, True, False, True, False]
        assert chunk[0] == chunk[1]
        assert len({chunk[0], chunk[2], chunk[3], chunk[5]}) == 4


def three_episodes() -> Layout:
    """A layout of three episodes with 3, 2 and 2 sampled tokens."""

    def episode(k: int, tokens: int) -> Episode:
        turn = Turn(
            observation=Observation(text="x"),
            prompt=(1,),
            text="",
            tokens=(5,) * tokens,
            logps=(0.0,) * tokens,
        )
        return Episode(task=Task(id=str(k)), group=str(k), turns=(turn,), stop=Stop.DONE)

    episodes = [episode(k, tokens) for k, tokens in enumerate((3, 2, 2))]
    starts = [[0, 3], [3, 5], [5, 7]]
    return Layout(batch=collate(episodes), samples={}, starts=starts)
