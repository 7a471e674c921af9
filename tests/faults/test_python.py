"""`import tutelage` with arguments of wrong types and values: one sentence, nothing is taken silently."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import policy
from support.tiny_runs import Quiet, tiny_table

import tutelage as tl
from tutelage.envs.doors import Doors
from tutelage.errors import ConfigError, RunError, TutelageError
from tutelage.types import Taken

LIMITS = tl.Limits(max_turns=2, max_new_tokens=3)
LOOP: dict[str, Any] = {}
LOOP["env"] = LOOP


@pytest.fixture(scope="module")
def trainer() -> tl.Trainer:
    session = tl.Session(Doors(), {"self": policy()}, limits=LIMITS)
    return tl.Trainer(session, tl.algorithms.grpo(), lr=1e-3)


def sentence(call: Callable[[], object]) -> str:
    with pytest.raises(TutelageError) as refusal:
        call()
    message = str(refusal.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("source", [None, 3, b"run.toml", [], object()])
def test_what_is_no_configuration_is_named(source: Any) -> None:
    assert "a configuration is a TOML file" in sentence(lambda: tl.load(source))
    assert "a configuration is a TOML file" in sentence(lambda: tl.train(source))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({**tiny_table(), 3: 4}, "the configuration has the name 3"),
        ({**tiny_table(), "run": {3: 4}}, "run has the name 3"),
        (tiny_table(run={"steps": None}), "run.steps is None; leave it out"),
        (tiny_table(run={"folder": {1, 2}}), "run.folder is set, which no TOML file"),
        (LOOP, "nests tables or lists deeper than 32"),
    ],
)
def test_a_table_that_no_file_could_hold_is_refused(table: Any, words: str) -> None:
    assert words in sentence(lambda: tl.load(table))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (None, "overrides is NoneType"),
        (3, "overrides is int"),
        ("update.lr=1e-4", "overrides is str"),
        ([3], "a setting is int"),
        ({3: 4}, "has the name 3"),
        ({"run.folder": None}, "run.folder is None"),
        ({"run.folder": object()}, "run.folder is object"),
        ({"policy.model": print}, "policy.model is builtin_function"),
    ],
)
def test_settings_that_are_none_are_refused(overrides: Any, words: str) -> None:
    assert words in sentence(lambda: tl.load(tiny_table(), overrides))


def test_paths_and_numbers_of_other_libraries_are_taken() -> None:
    given = {"run.folder": Path("here/run"), "run.steps": np.int64(3), "update.lr": np.float64(0.5)}
    config = tl.load(tiny_table(), given)
    assert (config.run.folder, config.run.steps, config.update.lr) == ("here/run", 3, 0.5)
    table = tiny_table(run={"folder": Path("here/run"), "steps": torch.tensor(3)})
    assert tl.load(table).run == replace_run(config, folder="here/run", steps=3)


def replace_run(config: tl.Config, **changes: object) -> Any:
    return config.run.model_copy(update=changes)


def test_a_watch_without_its_methods_is_refused_before_the_run(tmp_path: Path) -> None:
    table = tiny_table(run={"folder": str(tmp_path / "run")})
    for watch in (3, object()):
        assert "no method started" in sentence(lambda: tl.train(table, watch=watch))  # type: ignore[arg-type] # noqa: B023
    assert "resume is 'no'" in sentence(lambda: tl.train(table, watch=Quiet(), resume="no"))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("max_turns", "max_new_tokens") for value in (0, -1, 1.5, "x")],
        ("concurrency", 0),
        ("retries", -1),
        *[("temperature", value) for value in (-1, float("nan"), float("inf"), "x", None)],
        *[("invalid_penalty", value) for value in (-1, "x", {"nope": 1.0}, {"format": "x"})],
    ],
)
def test_limits_are_checked(name: str, value: Any) -> None:
    assert sentence(lambda: tl.Limits(**{name: value})).startswith(name)


@pytest.mark.parametrize("policies", [None, 3, {"self": None}, {"self": "model"}])
def test_a_session_takes_policies_alone(policies: Any) -> None:
    assert sentence(lambda: tl.Session(Doors(), policies)).startswith("policies")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"session": None}, "session is NoneType"),
        ({"algorithm": "grpo"}, "algorithm is str"),
        ({"algorithm": tl.algorithms.grpo}, "algorithm is the function grpo; call it"),
        *[({"lr": lr}, "lr is") for lr in (-1, float("nan"), "x", None)],
        *[({"betas": betas}, "betas is") for betas in (3, (2, 3), (0.9, 1.0), (0.9,))],
        *[({"grad_clip": clip}, "grad_clip is") for clip in (-1, float("nan"))],
        *[({name: 0}, name) for name in ("minibatches", "epochs", "max_tokens_per_pass")],
        ({"seed": "x"}, "seed is str"),
    ],
)
def test_a_trainer_s_settings_are_checked(
    trainer: tl.Trainer, changes: dict[str, Any], words: str
) -> None:
    given = {"session": trainer.session, "algorithm": tl.algorithms.grpo(), "lr": 1e-3, **changes}
    assert words in sentence(lambda: tl.Trainer(**given))


def test_a_greedy_session_is_not_trained_in(trainer: tl.Trainer) -> None:
    greedy = replace(trainer.session, limits=replace(LIMITS, temperature=0.0))
    assert "temperature is 0" in sentence(lambda: tl.Trainer(greedy, tl.algorithms.grpo(), lr=1e-3))


def test_tasks_and_episodes_are_checked(trainer: tl.Trainer) -> None:
    tasks: Sequence[Any] = Doors().tasks("train")
    for wrong in (None, 3, "train", ["doors/0"], tasks[0]):
        assert "tasks" in sentence(lambda: trainer.play(wrong))  # type: ignore[arg-type] # noqa: B023
    for task in (
        tl.Task(id=[]),
        tl.Task(id=""),
        tl.Task(id="a", data=3),
        tl.Task(id="a", seed="x"),
    ):  # type: ignore[arg-type]
        assert "task 1" in sentence(lambda: trainer.play([tasks[0], task]))  # noqa: B023
    for size in (0, -1, 1.5, "2", True):
        assert "group_size is" in sentence(lambda: trainer.play(tasks[:1], group_size=size))  # type: ignore[arg-type] # noqa: B023
    for wrong in (None, 3, [3], [None], []):
        assert "episode" in sentence(lambda: trainer.learn(wrong))  # type: ignore[arg-type] # noqa: B023


@pytest.mark.parametrize("beyond", [0, 1, 10**12, -(10**12)])
def test_ids_of_another_tokenizer_are_not_learnt_from(trainer: tl.Trainer, beyond: int) -> None:
    episodes = trainer.play(Doors().tasks("train")[:1], group_size=2)
    size = trainer.student.chat.size
    wrong = -1 + beyond if beyond < 0 else size + beyond
    first, last = episodes[1].turns
    turns = (first, replace(last, tokens=(*last.tokens[:-1], wrong)))
    message = sentence(lambda: trainer.learn([episodes[0], replace(episodes[1], turns=turns)]))
    assert f"turn 1 of an episode of task {episodes[1].task.id} has the token id {wrong}" in message
    assert f"vocabulary has {size} ids" in message
    highest = (first, replace(last, tokens=(*last.tokens[:-1], size - 1)))
    trainer.learn([episodes[0], replace(episodes[1], turns=highest)])


def test_a_step_that_failed_leaves_nothing_to_the_next() -> None:
    """Its gradient would be added to that of the next step."""
    found = []
    for fails in (False, True):
        session = tl.Session(Doors(), {"self": policy()}, limits=LIMITS)
        trainer = tl.Trainer(session, tl.algorithms.grpo(), lr=1e-3)
        episodes = trainer.play(Doors().tasks("train")[:2], group_size=2)
        rewarded = [_with(e, reward=float(e.copy)) for e in episodes]
        if fails:
            broken = [_with(e, reward=float("nan")) for e in episodes]
            with pytest.raises(RunError, match="is not finite"):
                trainer.learn(broken)
        report = trainer.learn(rewarded)
        found.append((report.grad_norm, [p.detach().clone() for p in trainer.student.parameters()]))
    (norm, weights), (again, others) = found
    assert norm == again > 0
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def _with(episode: tl.Episode, *, reward: float) -> tl.Episode:
    turns = tuple(replace(turn, reward=reward) for turn in episode.turns)
    return replace(episode, turns=turns)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *[({"tasks": count}, "tasks is") for count in (0, -1, 1.5, "2", True)],
        ({"split": 3}, "split is int"),
        ({"split": "nope"}, "tasks('nope') raised"),
        ({"hint": 3}, "hint is int"),
        *[({"temperature": t}, "temperature is") for t in (-1, float("nan"), "x")],
        ({"seed": "x"}, "seed is str"),
        *[({"limits": limits}, "limits is") for limits in (3, {"max_turns": 2})],
    ],
)
def test_an_evaluation_s_settings_are_checked(
    trainer: tl.Trainer, changes: dict[str, Any], words: str
) -> None:
    given = {"tasks": 1, "limits": LIMITS, **changes}
    assert words in sentence(lambda: tl.evaluate(trainer.student, Doors(), **given))  # type: ignore[arg-type]


@pytest.mark.parametrize("what", [3, object()])
def test_what_is_no_policy_is_not_evaluated(what: Any) -> None:
    assert "which is no policy" in sentence(lambda: tl.evaluate(what, Doors()))


def test_a_check_of_no_task_is_no_check() -> None:
    for count in (0, -1, "x"):
        assert "tasks is" in sentence(lambda: tl.check_env("doors", tasks=count))  # type: ignore[arg-type] # noqa: B023
    assert "splits is int" in sentence(lambda: tl.check_env("doors", splits=3))  # type: ignore[arg-type]
    assert not any(f.problems for f in tl.check_env("doors", splits="train", tasks=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer": None}, "tokenizer is NoneType"),
        ({"key": 3}, "key is int"),
        ({"url": None}, "url is NoneType"),
        ({"context": -1}, "context is -1"),
    ],
)
def test_a_server_s_settings_are_checked(changes: dict[str, Any], words: str) -> None:
    given = {"url": "http://127.0.0.1:1", "tokenizer": "model", **changes}
    assert words in sentence(lambda: tl.connect(**given))


@pytest.mark.parametrize("folder", [None, 3, b"run"])
def test_a_run_is_named_by_its_folder(folder: Any) -> None:
    assert "named by" in sentence(lambda: tl.Run(folder))


def three(step: Any) -> torch.Tensor:
    return torch.ones(3)


@pytest.mark.parametrize(
    ("advantage", "words"),
    [
        (lambda step: 1.0, "a function stands where a signal belongs"),
        (3, "a int stands where a signal belongs"),
        (tl.Signal(three, "mine"), "the signal 'mine' gave a Tensor of shape [3]"),
        (tl.Signal(lambda step: torch.ones(24, 2), "mine"), "gave a Tensor of shape [24, 2]"),
        (tl.Signal(lambda step: None, "mine"), "gave a NoneType"),  # type: ignore[arg-type, return-value]
        (tl.Signal(lambda step: "x", "mine"), "gave a str"),  # type: ignore[arg-type, return-value]
    ],
)
def test_what_is_no_signal_is_named(trainer: tl.Trainer, advantage: Any, words: str) -> None:
    episodes = trainer.play(Doors().tasks("train")[:2], group_size=2)
    algorithm = tl.Algorithm(terms=(tl.Reinforce(advantage=advantage),))
    own = tl.Trainer(trainer.session, algorithm, lr=1e-3)
    assert words in sentence(lambda: own.learn(episodes))


@pytest.mark.parametrize("terms", [3, (3,), tl.Entropy(weight=tl.Signal(three, "x"))])
def test_what_are_no_terms_is_named(terms: Any) -> None:
    assert "where a tuple of terms belongs" in sentence(lambda: tl.Algorithm(terms=terms))


REWARD = tl.Signal(lambda step: step.batch.logp, "logp")
TURN = tl.Turn(
    observation=tl.Observation(text="a"), prompt=(1,), text="b", tokens=(2, 3), logps=(-1.0, -1.0)
)
EPISODE = tl.Episode(task=tl.Task(id="a"), group="a", turns=(TURN,))
DISTILL = tl.Distill(divergence=tl.maths.divergences.reverse_kl)
SAMPLED = tl.DistillSampled(estimate=tl.maths.estimators.k3)
METHOD = tl.Algorithm(terms=(DISTILL,), views={"teacher": tl.View(policy="teacher")})


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        *[(tl.View(), {name: 3}) for name in ("policy", "hint", "hindsight")],
        (tl.View(), {"hint": None}),
        *[(tl.View(), {"top_logprobs": count}) for count in (-1, 1.5, True, None)],
        *[(tl.Reinforce(advantage=REWARD), {x: 3}) for x in ("surrogate", "trains", "name", "old")],
        *[(DISTILL, {name: 3}) for name in ("divergence", "teacher", "trains", "gate", "live")],
        *[(SAMPLED, {name: 3}) for name in ("estimate", "gate", "baseline", "corrected", "name")],
        (tl.Entropy(weight=REWARD), {"trains": None}),
        *[(REWARD, {name: 3}) for name in ("of", "name", "schedules", "tokenwise", "views")],
        *[(REWARD, {name: (3,)}) for name in ("schedules", "views")],
        *[(METHOD, {name: 3}) for name in ("views", "actors", "penalties", "acting")],
        *[(METHOD, {name: {"a": 3}}) for name in ("views", "actors", "penalties")],
        (METHOD, {"views": {3: tl.View()}}),
        *[(METHOD, {name: 3}) for name in ("token_weight", "minibatch_weight")],
        *[(METHOD.acting, {name: 3}) for name in ("expert", "student_turns", "takeover")],
        *[(METHOD.acting, {name: "x"}) for name in ("hinted_share", "hinted_only", "max_batches")],
        (METHOD.acting, {"hinted_share": {"a": "x"}}),
        *[(TURN, {name: None}) for name in ("observation", "prompt", "tokens", "logps", "text")],
        *[(TURN, {name: "x"}) for name in ("reward", "penalty", "valid", "taken", "version")],
        *[(EPISODE, {name: 3}) for name in ("task", "group", "turns", "stop", "won", "counts")],
        (EPISODE, {"turns": (3,)}),
        (EPISODE, {"stop": "done"}),
    ],
)
def test_a_value_of_another_kind_is_refused_where_it_is_given(
    value: Any, changes: dict[str, Any]
) -> None:
    assert f"{next(iter(changes)).removesuffix('s')}" in sentence(lambda: replace(value, **changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"logps": (-1.0,)}, "a turn has 2 tokens but 1 log-probabilities"),
        ({"top_logprobs": (((2, -1.0),),)}, "a turn has 2 tokens but top_logprobs of 1"),
        ({"taken": Taken(at=2, by="teacher")}, "a turn of 2 tokens cannot change hands at token 2"),
    ],
)
def test_a_turn_has_as_many_of_everything_as_tokens(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(TURN, **changes)


@pytest.mark.parametrize(
    "name", ["pool", "context", "clock", "hints", "ranks", "tick", "turned", "ready", "ended"]
)
def test_a_session_s_parts_are_checked(trainer: tl.Trainer, name: str) -> None:
    assert f"{name} is int" in sentence(lambda: replace(trainer.session, **{name: 3}))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda: tl.schedules.constant("x"),  # type: ignore[arg-type]
        lambda: tl.schedules.linear(None, 0, 3),  # type: ignore[arg-type]
        lambda: tl.schedules.cosine(1, 0, "3"),  # type: ignore[arg-type]
        lambda: tl.schedules.exponential(1, 0, 3, floor="x"),  # type: ignore[arg-type]
        lambda: tl.schedules.linear(1, 0, 0),
    ],
)
def test_a_schedule_s_numbers_are_checked(schedule: Callable[[], object]) -> None:
    assert "a schedule" in sentence(schedule) or "value is str" in sentence(schedule)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        (None, {}, "named by a folder or a hub id, and not by NoneType"),
        (3, {}, "and not by int"),
        ("model", {"device": "nope"}, "device is 'nope', which this machine does not have"),
        ("model", {"device": 3.5}, "device is 3.5, which"),
        ("model", {"dtype": "nope"}, "dtype is 'nope'; give float32 or bfloat16"),
    ],
)
def test_a_model_s_settings_are_checked(name: Any, settings: dict[str, Any], words: str) -> None:
    assert words in sentence(lambda: tl.HFPolicy.load(name, **settings))


# -- tasks in another order


class Shuffled(Doors):
    """A suite whose tasks have another order at each call."""

    def tasks(self, split: str) -> list[tl.Task]:
        order = list(super().tasks(split))
        vars(self)["turn"] = vars(self).get("turn", 0) + 1
        return order[vars(self)["turn"] :] + order[: vars(self)["turn"]]


def test_tasks_in_another_order_at_each_call_are_refused(tmp_path: Path) -> None:
    table = tiny_table(run={"folder": str(tmp_path / "run")}, env={"suite": Shuffled()})
    with pytest.raises(
        TutelageError, match=r"lists 'doors/.*' as task .*, where 'doors/.*' was a mom"
    ):
        tl.train(tl.load(table), watch=Quiet())
    assert not (tmp_path / "run").exists()


SORTED = """\
from tutelage.envs.doors import Doors

class Sorted(Doors):
    def tasks(self, split):
        return sorted(super().tasks(split), key=lambda task: hash(task.id))
"""


def test_an_order_that_depends_on_hashes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a set: each process has its own, so that a resumed run would train on others."""
    (tmp_path / "by_hash.py").write_text(SORTED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    config = tl.load(tiny_table(env={"suite": "by_hash:Sorted"}))
    with pytest.raises(
        TutelageError, match="so that no step could be drawn again; let `tasks` give"
    ):
        tl.train(config, watch=Quiet())
    assert not (tmp_path / "run").exists()


class Fewer(Doors):
    def tasks(self, split: str) -> list[tl.Task]:
        return list(super().tasks(split))[: vars(self).get("count", 99)]


def test_a_run_is_not_resumed_with_other_tasks(tmp_path: Path) -> None:
    def config(count: int) -> tl.Config:
        suite = Fewer()
        vars(suite)["count"] = count
        table = tiny_table(env={"suite": suite}, eval={"every": 0})
        return tl.load(table, {"run.folder": tmp_path / "run"})

    tl.train(config(9), watch=Quiet())
    with pytest.raises(RunError, match=r"lists 8 tasks instead of 9 when .*run began") as refusal:
        tl.train(config(8), watch=Quiet(), resume=True)
    assert "start a new run" in str(refusal.value)
    assert len(tl.train(config(9), watch=Quiet(), resume=True).metrics()) == 2
    with pytest.raises(ConfigError, match="is not a suite"):
        tl.train(tl.load(tiny_table(env={"suite": object()})), watch=Quiet())
