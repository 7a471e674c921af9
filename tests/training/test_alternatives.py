"""The likeliest tokens that a step records are those of the models, and change nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from support.fake_policy import Table
from support.tiny_runs import Quiet, contents, tiny_run
from torch.testing import assert_close

from tutelage.algorithms import ALGORITHMS
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.maths.distributions import log_softmax
from tutelage.policies.base import Actor
from tutelage.prompts.context import Context
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Limits, Session
from tutelage.runs import train
from tutelage.training.layout import prepare
from tutelage.training.train_step import Report, Update, train_step
from tutelage.viewer.shelf import Shelf

K = 3
CASES = {
    "grpo": ("student", "reference"),
    "opd": ("student", "teacher"),
    "guided_opd": ("student", "teacher"),
}


def learn(name: str, k: int, *, minibatches: int = 1) -> tuple[Report, Mapping[str, Table], object]:
    torch.manual_seed(0)
    suite = Doors(3)
    policies = {n: Table(knows=x) for n, x in (("self", 0.5), ("teacher", 4.0), ("reference", 0.2))}
    for other in ("teacher", "reference"):
        policies[other].requires_grad_(False)
    session = Session(
        suite=suite,
        pool=LocalPool(suite),
        policies=dict[str, Actor](policies),
        context=Context(instructions="Answer each letter with its digit."),
        limits=Limits(max_turns=4, max_new_tokens=8),
    )
    settings = {"grpo": {"kl": 0.05}, "opd": {}, "guided_opd": {"total_steps": 10}}[name]
    algorithm = ALGORITHMS[name](**settings)
    episodes = play(session, suite.tasks("train")[:6], algorithm, seed=0, step=0, group_size=2)
    report = train_step(
        algorithm,
        episodes,
        policies,
        torch.optim.SGD(policies["self"].parameters(), lr=0.0 if minibatches == 1 else 0.5),
        session.prompter,
        Update(alternatives=k, minibatches=minibatches, max_tokens_per_pass=60),
        step=0,
        seed=0,
        clock=Clock(),
    )
    return report, policies, prepare(algorithm, episodes, session.prompter)


@pytest.mark.parametrize("name", CASES)
def test_they_are_the_likeliest_of_each_view(name: str) -> None:
    report, policies, layout = learn(name, K)
    assert set(report.alternatives) == set(CASES[name])
    for view, (ids, logps) in report.alternatives.items():
        assert ids.shape == logps.shape == (report.tokens, K)
        of = policies["self" if view == "student" else view]
        samples = [sample for turns in layout.samples[view] for sample in turns]  # type: ignore[attr-defined]
        with torch.no_grad():
            d = of.score(samples, 1.0).distribution
            best = log_softmax(d.hidden, d.head, 1.0).topk(K, -1)
        known = ids[:, 0] >= 0
        assert known.any()
        assert_close(logps[known], best.values[known])
        assert ids[known].equal(best.indices[known])
        assert logps[~known].isnan().all()


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_recording_changes_no_number(name: str, minibatches: int) -> None:
    with_them, one, _ = learn(name, K, minibatches=minibatches)
    without, other, _ = learn(name, 0, minibatches=minibatches)
    assert with_them.alternatives
    assert not without.alternatives
    assert with_them.losses == without.losses
    assert with_them.grad_norm == without.grad_norm
    for p, q in zip(one["self"].parameters(), other["self"].parameters(), strict=True):
        assert p.equal(q)


def test_a_run_writes_them_and_the_viewer_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, columns in (("plain", True), ("rich", "alternatives")):
        run = {"folder": folder, "columns": columns}
        algorithm = {"name": "grpo", "entropy": 0.01}  # every token counts, won or not
        settings = tiny_run(run=run, rollout={"group_size": 2}, algorithm=algorithm)
        train.train(settings, watch=Quiet())
    plain, rich = (contents(tmp_path / name) for name in ("plain", "rich"))
    # state.json holds the length of columns.jsonl
    differing = {name.rpartition("/")[2] for name in plain if plain[name] != rich[name]}
    assert differing == {"columns.jsonl", "config.toml", "state.json"}
    lines = [json.loads(line) for line in rich["columns.jsonl"].splitlines()]
    tokens = len(next(iter(lines[0]["columns"].values())))
    assert len(lines[0]["alternatives"]["student"]) == tokens
    pairs = next(x for line in lines for x in line["alternatives"]["student"] if x)
    assert len(pairs) == 5
    assert [logp for _, logp in pairs] == sorted((logp for _, logp in pairs), reverse=True)
    shelf = Shelf([tmp_path / "rich"], cache=tmp_path / "cache")
    (run_id,) = shelf.folders
    shown = [shelf.episode(run_id, k + 1) for k in range(4)]
    assert any(x for one in shown for x in one["alternatives"]["student"])
    likely = {i for one in shown for x in one["alternatives"]["student"] for i, _ in x or ()}
    assert likely == {i for one in shown for i in one["texts"]}
    assert all(one["texts"][i] for one in shown for i in one["texts"])
