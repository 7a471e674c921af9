"""The study's machinery: what is planned, run, stopped, continued, counted and said."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from studies import plan, results, runner
from studies.analysis import Panel, early, fall, middle, result, start, verdict
from studies.household import STUDY, render, smoke
from studies.household import __main__ as command
from studies.household.claims import CLAIMS, Test, judged, summary
from studies.results import Evaluated, Result, Results
from studies.runner import Job, Journal
from tutelage.algorithms import ALGORITHMS
from tutelage.errors import ConfigError, RunError
from tutelage.evaluation.statistics import Estimate, difference, mean_of_last, rate

Test.__test__ = False  # type: ignore[attr-defined]

TINY = """
[study]
folder = "unused"
warm_start = "plain"
last = 2
baselines = ["grpo"]

[base]
run = { steps = 40, checkpoint_every = 1 }
env = { suite = "doors", options = { rooms = 2 } }
rollout = { tasks_per_step = 4, max_turns = 3, max_new_tokens = 4 }
update = { lr = 1e-3 }
eval = { every = 10, split = "unseen", tasks = 5, temperature = 1.0 }
policy = { layers = 1, build = {hidden = 16, context = 128} }

[base.policies.teacher]
layers = 1
build = {hidden = 16, context = 128}

[warm_starts.plain]
run = { steps = 2 }
algorithm = { name = "sft" }

[groups.main]
seeds = [0]

[methods.grpo]
group = "main"
title = "GRPO"
rollout = { tasks_per_step = 2, group_size = 2 }

[methods.imitation]
group = "main"
algorithm = { name = "sft" }

[automatic]
group = "none"

[pictures.teachers]
title = "Both"
methods = ["grpo", "imitation"]

[notes]
guided = "A remark."

[try]
"""


def write(folder: Path, text: str = TINY) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def tiny(folder: Path, text: str = TINY) -> plan.Study:
    return plan.load(write(folder, text), folder=folder / "runs")


# -- from end to end


@pytest.mark.nightly
def test_a_killed_study_continues_and_is_rendered(tmp_path: Path) -> None:
    assert smoke.main(tmp_path, say=lambda _: None, study=write(tmp_path), over="try") == 0
    page = (tmp_path / "docs/household.md").read_text()
    assert "| GRPO |" in page
    assert "A remark." in page
    # from the results alone, the same bytes; without them, a sentence
    arguments = ["--study", str(tmp_path / "study.toml"), "--over", "try"]
    known = tmp_path / "results.json"
    again = ["render", *arguments, "--results", str(known), "--out", str(tmp_path / "more")]
    assert command.main(again) == 0
    for path in (tmp_path / "docs").rglob("*.*"):
        other = tmp_path / "more" / path.relative_to(tmp_path / "docs")
        assert other.read_bytes() == path.read_bytes()
    # the page of a method gets its results, and keeps the rest
    of_one, without = tmp_path / "methods/grpo.md", tmp_path / "methods/sod.md"
    text = "# GRPO\n\n## Measured here\n\nOld. To repeat the small run:\n\nthis way\n"
    of_one.parent.mkdir()
    for path in (of_one, without):
        path.write_text(text)
    assert command.main(again) == 0
    assert re.search(
        r"^# GRPO\n.*\| GRPO \| .* 40, 1 \|\n\nTo repeat", of_one.read_text(), re.DOTALL
    )
    assert "has no run of it.\n\nTo repeat the small run:\n\nthis way\n" in without.read_text()
    # what is known of a run outlives its folder
    study = plan.load(tmp_path / "study.toml", folder=tmp_path / "elsewhere", over="try")
    journal = Journal(path=tmp_path / "journal.jsonl")
    saved = results.collect(study, journal, results.read(known))
    assert saved == results.read(known)
    assert results.collect(study, journal, None).runs == ()
    counted = saved.of("grpo")[0]
    assert counted.tokens["scored"] == 0
    assert counted.tokens["student"] > 0
    assert counted.episodes == 160
    assert [e.step for e in counted.evaluations] == [0, 10, 20, 30, 40]


def test_no_results_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path))
    gone = str(tmp_path / "gone.json")
    assert command.main(["render", "--study", path, "--results", gone]) == 2
    assert "there are no results" in capsys.readouterr().err
    assert command.main(["render", "--study", path, "--over", "try"]) == 2
    assert "--results" in capsys.readouterr().err


# -- the plan


def test_the_real_study_is_what_it_says() -> None:
    study = plan.load(STUDY)
    main = [run for run in study.runs if run.group == "main"]
    assert {run.method for run in main} == {
        "sft",
        "grpo",
        "opd",
        "guided_opd",
        "opsd",
        "pi_distill",
        "sdar",
        "atod",
    }
    assert len({run.seed for run in main}) >= 3
    assert study.base.eval.tasks >= 200
    named = {run.config.algorithm.name for run in study.runs if run.config}
    unable = {run.method for run in study.runs if run.problem}
    assert set(ALGORITHMS) <= named | unable
    for claim in CLAIMS:
        for test in claim.tests:
            assert {test.method, test.baseline} <= {*study.titles, "teacher"}, claim.name
    for _, methods in study.pictures.values():
        assert set(methods) <= set(study.titles)
    # methods differ in how they learn, and in nothing that they learn from or are measured by
    for run in main:
        assert run.config is not None, run.problem
        for section in ("env", "context", "eval", "policies"):
            assert getattr(run.config, section) == getattr(study.base, section)
        assert run.start is not None
        assert run.config.policy.model == str(run.start.folder)
        assert run.config.policy.layers is None
        assert run.config.warm_start is None
    assert len({(run.seed, run.start and run.start.key) for run in main}) == len(study.starts)


def test_a_run_is_known_by_what_makes_its_result(tmp_path: Path) -> None:
    def keys(old: str = "", new: str = "") -> dict[str, str]:
        assert old in TINY
        return {run.name: run.key for run in tiny(tmp_path, TINY.replace(old, new, 1)).runs}

    first = keys()
    assert len(set(first.values())) == len(first) == 2
    assert keys() == first
    assert keys("checkpoint_every = 1", "checkpoint_every = 3") == first
    assert not set(keys("lr = 1e-3", "lr = 2e-3").values()) & set(first.values())
    # another start is another result
    assert not set(keys("run = { steps = 2 }", "run = { steps = 1 }").values()) & set(
        first.values()
    )
    changed = keys(
        'name = "sft" }\n\n[automatic]', 'name = "sft", source = "expert" }\n\n[automatic]'
    )
    assert changed["grpo-0"] == first["grpo-0"]
    assert changed["imitation-0"] != first["imitation-0"]


def test_the_weights_that_are_named_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ASSETS", tmp_path)
    (tmp_path / "one").mkdir()
    table = {"policy": {"model": "builtin:one"}}
    found = []
    for text in (b"a", b"b"):
        (tmp_path / "one/model.safetensors").write_bytes(text)
        plan._weights.cache_clear()
        found.append(plan.key_of(table))
    assert found[0] != found[1]
    plan._weights.cache_clear()


def test_unequal_budgets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="imitation would train on 160 episodes and grpo on 240"):
        tiny(tmp_path, TINY.replace("group_size = 2", "group_size = 3"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('warm_start = "plain"', 'warm_start = "none"', "none of plain"),
        ("[automatic]", "[automatics]", r"\[automatics\] means nothing.*automatic"),
        ("[try]", "[tries]", r"no table \[try\]"),
    ],
)
def test_a_study_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = write(tmp_path, TINY.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        plan.load(path, over="try")


def test_one_bad_entry_does_not_stop_the_others(tmp_path: Path) -> None:
    study = tiny(tmp_path, TINY.replace('algorithm = { name = "sft" }\n\n[auto', "\n[auto"))
    problems = {run.name: run.problem for run in study.runs}
    assert "no algorithm 'imitation'" in problems["imitation-0"]
    assert problems["grpo-0"] == ""
    names = [job.name for job in runner.jobs_of(study, study.runs)]
    assert names == ["warm_start-0", "teacher-0", "grpo-0"]


def test_registered_algorithms_without_an_entry_are_added(tmp_path: Path) -> None:
    text = TINY.replace('group = "none"', 'group = "rest"')
    text += "[groups.rest]\nseeds = [7]\n"
    study = tiny(tmp_path, text)
    rest = {run.method for run in study.runs if run.group == "rest"}
    assert rest == set(ALGORITHMS) - {"grpo", "sft"}
    assert {run.seed for run in study.only(groups=["rest"])} == {7}
    assert [run.name for run in study.only(methods=["grpo"], seeds=[0])] == ["grpo-0"]
    with pytest.raises(ConfigError, match="no 'grop'"):
        study.only(methods=["grop"])


# -- running


def job(folder: Path, name: str, code: str = "", after: Job | None = None) -> Job:
    done = folder / f"{name}.made"
    log = folder / f"{name}.log"
    code = code or f"open({str(done)!r}, 'w')"
    return Job(
        name=name,
        command=lambda: [sys.executable, "-c", code],
        finished=done.exists,
        busy=lambda: False,
        after=after,
        out=log,
        log=log,
    )


def execute(
    folder: Path, jobs: Sequence[Job], width: int = 2
) -> tuple[dict[str, str], list[str], list[str]]:
    text: list[str] = []
    settled: list[str] = []
    failed = runner.execute(
        jobs,
        Journal(path=folder / "journal.jsonl"),
        width=width,
        say=text.append,
        settled=lambda job: settled.append(job.name),
    )
    return failed, settled, text


def test_a_failure_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    bad = job(tmp_path, "bad", "import sys; sys.exit('what went wrong')")
    good = job(tmp_path, "good")
    jobs = [bad, job(tmp_path, "child", after=bad), good, job(tmp_path, "heir", after=good)]
    failed, settled, _ = execute(tmp_path, jobs)
    assert failed == {"bad": "what went wrong", "child": "not run, since bad failed"}
    assert settled == ["good", "heir"]
    journal = Journal(path=tmp_path / "journal.jsonl")
    assert journal.failures() == {"bad": "what went wrong"}
    # what is finished is left alone; what failed is tried again
    jobs[0] = jobs[1].after = job(tmp_path, "bad")
    failed, settled, text = execute(tmp_path, jobs)
    assert failed == {}
    assert settled == ["bad", "child"]
    assert text[0] == "2 of 4 are finished, 2 to go"
    assert journal.failures() == {}


def test_a_killed_run_is_a_failure_with_its_signal(tmp_path: Path) -> None:
    bad = job(tmp_path, "bad", "import os; os.kill(os.getpid(), 9)")
    assert execute(tmp_path, [bad])[0] == {"bad": "killed by signal 9"}


def test_no_more_processes_than_asked_for(tmp_path: Path) -> None:
    code = "import time; a = time.time(); time.sleep(.4); "
    code += "open({!r}, 'w').write(f'{{a}} {{time.time()}}')"
    jobs = [job(tmp_path, n, code.format(str(tmp_path / f"{n}.made"))) for n in "abcd"]
    execute(tmp_path, jobs, width=2)
    times = [tuple(map(float, p.read_text().split())) for p in tmp_path.glob("*.made")]
    at_once = [sum(a <= start < b for a, b in times) for start, _ in times]
    assert max(at_once) <= 2


def test_a_run_of_an_earlier_call_is_waited_for(tmp_path: Path) -> None:
    """A study that was killed leaves runs behind that train on: they are not started twice."""
    since = time.monotonic()
    held = replace_busy(job(tmp_path, "held"), lambda: time.monotonic() < since + 0.6)
    _, settled, _ = execute(tmp_path, [held, job(tmp_path, "free")])
    assert settled == ["free", "held"]

    def finished() -> bool:
        if time.monotonic() > since + 1.5:
            (tmp_path / "late.made").touch()
        return True

    late = replace_busy(job(tmp_path, "late"), finished)
    _, settled, text = execute(tmp_path, [late])
    assert settled == ["late"]
    assert not any("started" in line for line in text)


def replace_busy(waiting: Job, busy: Callable[[], bool]) -> Job:
    waiting.busy = busy
    return waiting


def test_stopping_the_study_stops_its_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import time; open({str(mark)!r}, 'w'); time.sleep(60)"

    def settled_or_stop(line: str) -> None:
        while "started" in line and not mark.exists():
            time.sleep(0.02)
        if "started" in line:
            raise KeyboardInterrupt

    since = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.execute(
            [job(tmp_path, "long", code)],
            Journal(path=tmp_path / "j"),
            width=1,
            say=settled_or_stop,
            settled=lambda _: None,
        )
    assert time.monotonic() - since < 30
    left = subprocess.run(["pgrep", "-f", str(mark)], capture_output=True, text=True, check=False)
    assert left.stdout == ""


# -- counting


def run_of(
    method: str, seed: int, wins: Sequence[str], *, group: str = "main", key: str = "k"
) -> Result:
    evaluations = tuple(
        Evaluated(step=6 * k, outcomes=bits, turns=1.0, invalid=0.0) for k, bits in enumerate(wins)
    )
    return Result(
        method=method,
        group=group,
        seed=seed,
        key=key,
        commit="c" * 40,
        steps=6 * (len(wins) - 1),
        episodes=32,
        seconds=1.5,
        tokens={"student": 1000, "teacher": 10, "scored": 7},
        evaluations=evaluations,
    )


def results_of(*runs: Result, families: Sequence[str] = ("a", "a", "b", "b")) -> Results:
    return Results(
        panel="p",
        split="unseen",
        temperature=0.4,
        families=tuple(families),
        machine={"processor": "x", "system": "y", "python": "3", "torch": "2"},
        teacher={0: "1110", 1: "1111"},
        runs=runs,
        failed={"opd-1": "it broke"},
    )


WINS = ["0000", "1000", "1110", "1111", "1100", "1000", "1100"]  # at 0, 6 ... 36


def test_what_is_measured_of_a_run() -> None:
    run = run_of("a", 0, WINS)
    assert result(run, 3) == mean_of_last([e.won for e in run.evaluations], 3)
    assert result(run, 3) == pytest.approx([1, 2 / 3, 0, 0])
    assert start(run, 3) == [0, 0, 0, 0]
    assert early(run, 3) == pytest.approx([1, 0.5, 0.5, 0])  # 6 and 12 of 36
    assert middle(run, 3) == pytest.approx([1, 1, 0.5, 0.5])  # 18 and 24
    assert fall(run, 3) == pytest.approx([0, 1 / 3, 1, 1])  # from 18
    # a run with few evaluations: the start is in no mean but its own
    short = run_of("a", 0, ["1111", "1000"])
    assert result(short, 3) == [1, 0, 0, 0]
    assert early(short, 3) == [1, 0, 0, 0]


def test_gaps_are_paired_by_seed() -> None:
    a, b = run_of("a", 1, WINS), run_of("b", 1, [*WINS[:-3], "1111", "1111", "1111"])
    panel = Panel(results_of(a, b, run_of("b", 0, WINS)), 3)
    assert panel.gap("b", "a") == difference([result(a, 3)], [result(b, 3)])
    assert panel.gap("b", "c") is None
    teacher = panel.gap("b", "teacher")
    assert teacher is not None
    assert teacher.seeds == 2
    assert panel.rate("b") == rate([result(run_of("b", 0, WINS), 3), result(b, 3)])
    assert panel.rate("a", family="b") == rate([result(a, 3)[2:]])
    assert panel.rate("c") is None
    assert [step for step, _ in panel.curve("b")] == [0, 6, 12, 18, 24, 30, 36]
    assert panel.starts_differ() == []
    odd = run_of("c", 1, ["1000", "1000"])
    assert Panel(results_of(a, b, odd), 3).starts_differ() == [1]


def estimate(mean: float, low: float, high: float, seeds: int = 3) -> Estimate:
    return Estimate(mean=mean, low=low, high=high, seeds=seeds, tasks=200)


def test_words_are_those_that_the_interval_allows() -> None:
    assert verdict(estimate(0.1, -0.01, 0.2)) == (
        "not distinguishable; 15 points could have been shown"
    )
    assert verdict(estimate(0.1, 0.0, 0.2)).startswith("not distinguishable; 14 points")
    assert verdict(estimate(0.0, 0.0, 0.0)) == "not distinguishable; every outcome is the same"
    assert verdict(estimate(0.1, 0.01, 0.2)) == "ahead"
    assert verdict(estimate(-0.1, -0.2, -0.01)) == "behind"
    assert verdict(estimate(0.1, 0.01, 0.2, seeds=1)) == "ahead, one seed"
    assert verdict(None) == "not run"


@pytest.mark.parametrize(
    ("expected", "up", "down"),
    [
        ("more", "as claimed", "the reverse"),
        ("not less", "as claimed", "the reverse"),
        ("less", "the reverse", "as claimed"),
        ("not more", "the reverse", "as claimed"),
    ],
)
def test_a_claim_is_judged_by_what_it_expects(expected: str, up: str, down: str) -> None:
    test = Test(says="", method="a", baseline="b", expected=expected)  # type: ignore[arg-type]
    assert judged(test, estimate(0.1, 0.05, 0.2)) == up
    assert judged(test, estimate(-0.1, -0.2, -0.05)) == down
    assert judged(test, estimate(0.1, -0.05, 0.2)).startswith("not distinguishable; 18 points")
    assert judged(test, estimate(0.1, 0.05, 0.2, seeds=1)) == f"{up}, with one seed"
    assert judged(test, None) == "not run"


def test_a_claim_in_one_sentence() -> None:
    guided = CLAIMS[0]
    assert summary(guided, Panel(results_of(), 3)) == "Not run."
    tasks = ["a"] * 40
    lost, won = ["0" * 40] * 7, ["0" * 40, *["1" * 39 + "0"] * 6]
    runs = [run_of("opd", s, lost) for s in (0, 1)] + [run_of("guided_opd", s, won) for s in (0, 1)]
    assert summary(guided, Panel(results_of(*runs, families=tasks), 3)) == "2 of 2 as claimed."
    runs = [replace(r, method="opd" if r.method == "guided_opd" else "guided_opd") for r in runs]
    assert summary(guided, Panel(results_of(*runs, families=tasks), 3)) == "2 of 2 the reverse."


# -- the file and the page


def test_results_are_read_back_equal(tmp_path: Path) -> None:
    saved = results_of(run_of("a", 0, WINS), run_of("b", 1, WINS))
    path = tmp_path / "results.json"
    results.save(saved, path)
    assert results.read(path) == saved
    json.loads(path.read_text())
    path.write_text('{"runs": 3}')
    with pytest.raises(RunError, match="does not hold a study's results"):
        results.read(path)


def test_the_page_says_what_was_not_run(tmp_path: Path) -> None:
    study = plan.load(STUDY)
    wins = [bits * 2 for bits in WINS]
    results = results_of(
        *(run_of("opd", seed, wins) for seed in (0, 1, 2)),
        run_of("guided_opd", 0, [bits[::-1] for bits in wins]),
        families=["a"] * 4 + ["b"] * 4,
    )
    results = replace(results, teacher={0: "11111110"})
    page = render.render(study, results, tmp_path).read_text()
    assert "| GRPO | not run |" in page
    assert "not distinguishable, one seed" in page
    assert "`opd-1`: it broke" in page
    assert "### Guided-OPD is ahead of OPD when the student is weak." in page
    assert "| the teacher solves 90 % or more | 87.5 %" in page, "what a claim presupposes is shown"
    assert "With seed 0 not all runs" not in page
    for line in page.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line[line.index("(") + 1 : -1]).exists()
    assert all(link in page for link in ("(#opd-2)", '<a id="opd-2">'))
