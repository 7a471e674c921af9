"""Learning curves of the suites: the studies run, and their page shows the measured numbers."""

from pathlib import Path

import pytest

from studies import plan, results
from studies.plan import episodes_of
from studies.results import Evaluated, Result, Results
from studies.worlds import WORLDS, page, results_file, study_file
from studies.worlds.__main__ import main
from tutelage.envs.registry import suite_of
from tutelage.runs import assemble

SHOWN = [world for world in WORLDS if results_file(world).exists()]


@pytest.mark.parametrize("world", WORLDS)
def test_every_run_of_a_suite_can_be_started(world: str) -> None:
    study = plan.load(study_file(world))
    assert [run.problem for run in study.runs] == [""] * len(study.runs)
    assert {run.config.env.suite for run in study.runs if run.config} == {world}
    assert {run.seed for run in study.runs} == {0, 1, 2}
    for run in study.runs:  # a result is the mean of the last evaluations
        assert run.config
        assert run.steps % run.config.eval.every == 0
        assert run.steps // run.config.eval.every >= study.last


@pytest.mark.parametrize("world", [world for world in SHOWN if world != "scienceworld"])
def test_what_is_shown_was_measured_on_the_panel_of_now(world: str) -> None:
    study, found = plan.load(study_file(world)), results.read(results_file(world))
    now = assemble.panel_of(study.base.eval, suite_of(study.base.env))
    assert found.panel == now.fingerprint
    assert list(found.families) == [task.family for task in now.tasks]


@pytest.mark.parametrize("world", SHOWN)
def test_what_is_shown_is_what_the_study_would_run(world: str) -> None:
    planned = {(run.method, run.seed): run for run in plan.load(study_file(world)).runs}
    for run in results.read(results_file(world)).runs:
        assert planned[run.method, run.seed].key == run.key
        assert planned[run.method, run.seed].steps == run.steps


def test_the_page_says_who_learns_and_what_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = plan.load(study_file("webshop"))

    def played(method: str, last: str) -> list[Result]:
        return [
            Result(
                method=method,
                group="main",
                seed=seed,
                key="k",
                commit="c" * 40,
                steps=2,
                episodes=1,
                seconds=1.0,
                tokens={},
                evaluations=tuple(
                    Evaluated(step=step, outcomes=bits, turns=1.0, invalid=0.0)
                    for step, bits in enumerate(("00001000", last, last))
                ),
            )
            for seed in (0, 1, 2)
        ]

    result = Results(
        panel="0123",
        split="test",
        temperature=0.4,
        families=tuple("aabbaabb"),
        teacher={},
        machine={"processor": "x"},
        runs=(*played("sft", "11111011"), *played("grpo", "00001000")),
        failed={},
    )
    file = tmp_path / "webshop.json"
    results.save(result, file)
    monkeypatch.setattr(
        page, "results_file", lambda world: file if world == "webshop" else tmp_path / "none"
    )
    text = page.render(tmp_path / "docs").read_text()
    rows = {line.split(" | ")[0].strip("| *"): line.split(" | ") for line in text.splitlines()}
    assert rows["shared start"][2] == "12.5 %"
    assert rows["SFT continued"][2] == "87.5 %"
    assert rows["SFT continued"][4].startswith("+75.0 (")
    assert rows["SFT continued"][5] == "learns"
    assert rows["GRPO"][5].startswith("not distinguishable; ")
    episodes = {run.method: episodes_of(run.config) for run in study.runs if run.config}
    assert rows["GRPO"][1] == f"{episodes['grpo']:,}"
    assert text.count("Not run yet.") == len(WORLDS) - 1
    assert (tmp_path / "docs" / "learning" / "webshop.png").stat().st_size > 10_000


def test_an_unknown_suite_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status", "webshp"])
    assert "there is no world 'webshp'; there are webshop," in capsys.readouterr().err
    assert main(["status", "webshop"]) == 0
    assert "sft-2" in capsys.readouterr().out
