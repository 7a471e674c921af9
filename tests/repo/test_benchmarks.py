"""The scripts of benchmarks/ run in their smallest form; their measurements are not checked."""

import argparse
import gc
import json
import os
import runpy
import subprocess
import sys
import weakref
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.pretend_cuda import pretend_cuda

from tutelage.cli.progress import PHASES
from tutelage.policies.hf import cuda_graphs

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *words: str) -> str:
    """What a script prints."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(SCRIPTS.parent / "src"),
    }
    command = [sys.executable, str(SCRIPTS / script), *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


# -- all of them

NEEDS = {"generation_vllm.py": "vllm", "step_trl.py": "trl"}
"""Scripts that another library's Python runs, by the library."""


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_a_script_imports_and_explains_itself(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if (needed := NEEDS.get(script)) and find_spec(needed) is None:
        pytest.skip(f"{script} needs {needed}")
    if "__main__" not in (SCRIPTS / script).read_text():
        monkeypatch.syspath_prepend(SCRIPTS)
        runpy.run_path(str(SCRIPTS / script))
        return
    monkeypatch.syspath_prepend(SCRIPTS)  # as Python does for the script that it runs
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {script}")


# -- run.py and `make bench`


def test_options_reach_the_script_and_its_output_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n## Environment: webshop\n\nas it was\n")
    small = ["--games", "2", "--steps", "3", "--repeats", "1", "--live", "2"]
    run("run.py", "household", "--page", str(page), "--", *small)
    written = page.read_text()
    command = f"OMP_NUM_THREADS=1 python benchmarks/household.py {' '.join(small)}"
    assert f"`{command}`" in written
    assert "2 games x 3 steps" in written
    assert "## Environment: webshop\n\nas it was\n" in written  # the others stay
    raw = (tmp_path / "benchmarks" / "household.txt").read_text()
    assert raw.startswith(f"$ {command}\n# 20")
    assert raw.split("\n\n", 1)[1].strip() in written


def test_options_are_for_one_script() -> None:
    command = [sys.executable, str(SCRIPTS / "run.py"), "step", "generation", "--", "--full"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "what stands after -- is for one script; name that one" in result.stderr


@pytest.mark.parametrize(
    ("only", "builds"), [("generation", False), ("step household", True), ("", True)]
)
def test_textworld_is_built_for_the_household_alone(
    tmp_path: Path, only: str, builds: bool
) -> None:
    words = ["make", "-n", "bench", f"ONLY={only}", "ARGS=--full", f"VENV={tmp_path}/v"]
    # without the settings of a `make` that runs this test
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKEOVERRIDES")}
    result = subprocess.run(
        words, cwd=SCRIPTS.parent, env=environment, capture_output=True, text=True, check=True
    )
    assert ("textworld[pddl]" in result.stdout) is builds
    assert ("--textworld" in result.stdout) is builds
    assert f"run.py {only}" in result.stdout
    assert "-- --full" in result.stdout


# -- generation.py and step.py


@pytest.mark.nightly
def test_the_shares_of_a_whole_step_are_shown() -> None:
    text = run("generation.py", "--only", "5", "--repeats", "1", "--small")
    assert "missed 1.1" in text
    rows = [line.split(" | ") for line in text.splitlines() if " ms |" in line]
    assert [row[1] for row in rows] == ["none", "none", "2"]
    header = next(line for line in text.splitlines() if line.startswith("| pause"))
    assert header.split(" | ")[3:] == [*PHASES[:-1], f"{PHASES[-1]} |"]
    for row in rows:
        shares = [float(cell.split(" %")[0]) for cell in row[3:]]
        assert 50 < sum(shares) <= 100.5


def test_a_compiled_step_is_a_row_of_its_own() -> None:
    step = import_module("benchmarks.step")
    given = argparse.Namespace(
        models=Path("m"),
        episodes=8,
        turns=10,
        new_tokens=64,
        threads=1,
        repeats=5,
        tokens=2048,
        trl="",
        compile=True,
        device="cpu",
    )
    result = step.commands(given, "grpo", "float32")
    assert list(result) == ["tutelage", "tutelage, compiled"]
    assert result["tutelage, compiled"] == [*result["tutelage"], "--compile"]
    given.compile = False
    assert list(step.commands(given, "grpo", "float32")) == ["tutelage"]


# -- ahead.py


def test_an_interval_of_many_repeats_is_as_wide_as_it_should_be() -> None:
    """t(10) = 2.228, s = 0.522, sqrt(11)."""
    values = [float(k % 2) for k in range(11)]
    assert import_module("benchmarks.ahead").interval(values) == "0.45 ± 0.35"


# -- divergences.py


@pytest.mark.nightly
def test_losses_say_their_range_and_what_does_not_fit() -> None:
    """A billion tokens of the naive form: refused from their number, never begun."""
    words = ("--losses", "reverse KL", "--entries", "500", "--hidden", "8", "16")
    text = run("divergences.py", *words, "--tokens", "64", "--repeats", "2")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| reverse KL")]
    assert [row[2:4] for row in rows] == [["naive", "2"], ["checkpointed", "2"], ["pieces", "2"]]
    assert all(" to " in row[4] and " to " in row[5] for row in rows)  # the ranges
    assert "hidden sizes 8 (student) and 16 (teacher)" in text
    divergences = import_module("benchmarks.divergences")
    given = argparse.Namespace(
        entries=151_936, hidden=(128, 320), device="cpu", repeats=5, minutes=0.0
    )
    sheet = divergences.Sheet(given)
    output = sheet.cells("naive", "Jensen-Shannon", 10**9)
    assert output.startswith("0 | not begun: needs about 4,86")  # 8 tensors [N, V] of 4 bytes
    assert sheet.cells("pieces", "reverse KL", 1024) == "0 | not begun: 0 minutes are over | "
    assert [divergences.repeats_of(5, n) for n in (512, 1024, 4096, 16_384)] == [5, 5, 1, 1]


# -- gpu_papers.py


def test_a_step_of_a_paper_s_setting_runs_on_a_processor() -> None:
    """A student whose layers are recomputed, and a mixture of experts that takes turns and scores."""
    file = "alfworld_guided_opd_qwen3_0.6b"
    line = json.loads(run("gpu_papers.py", "--tiny", "--device", "cpu", "--file", file))
    assert "policy.gradient_checkpointing = true" in line["changes"]
    assert line["gb_predicted"] < line["gb_of_the_gpu"] == 80
    assert line["action_tokens"] == 2 * 2 * 8  # episodes, turns, tokens
    assert line["gradient_norm"] > 0
    assert {"generate", "teacher", "update"} <= line["share"].keys()


TWO = ("alfworld_guided_opd_qwen3_0.6b", "alfworld_guided_opd_qwen3_1.7b")


@pytest.mark.nightly
def test_several_settings_of_papers_are_tried_in_processes_of_their_own() -> None:
    words = ("--tiny", "--device", "cpu", "--gb", "40", "--file", *TWO)
    lines = [json.loads(text) for text in run("gpu_papers.py", *words).splitlines()]
    for file, line in zip(TWO, lines, strict=True):
        assert line["error"].startswith(f"{file} does not fit 40 GB with its other models: ")


def test_the_end_of_a_process_is_said_for_its_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    import_module("gpu_papers").main(["--tiny", "--device", "cpu", "--file", *TWO])
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == list(TWO)
    assert {line["error"] for line in lines} == {"its process ended with exit code -9"}


@pytest.mark.nightly
@pytest.mark.parametrize(
    "file", ["alfworld_guided_opd_qwen3_0.6b", "alfworld_grpo_qwen2.5_7b"], ids=str
)
def test_a_step_of_a_paper_s_setting_runs_on_a_pretended_gpu(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mixture as a teacher; adapters with a reference."""
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(cuda_graphs, "WARMUP_RUNS", 1)
    papers = import_module("gpu_papers")
    with pretend_cuda() as device:
        papers.main(["--tiny", "--device", "cuda", "--file", file])
    line = json.loads(capsys.readouterr().out)
    assert line["gradient_norm"] > 0, line.get("error")
    assert set(line["gb_by_part"]) == {"making", "playing", "update"}
    assert line["gb_predicted"] < 80
    assert device.replays


@pytest.mark.nightly
def test_the_checks_for_a_gpu_hold_on_a_pretended_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(cuda_graphs, "WARMUP_RUNS", 1)
    checks = import_module("gpu_checks")
    # what is packed cannot be loaded for a CPU there
    monkeypatch.setattr(checks, "in_4_bits", lambda *given: iter(()))
    with pretend_cuda() as device:
        lines = list(checks.right("cuda", tiny=True))
    assert [line["check"] for line in lines if not line["ok"]] == []
    assert len(lines) == 11
    assert device.replays


def test_models_that_nothing_names_give_their_memory_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A policy and its engine name each other, so that only a search for such circles frees them."""
    monkeypatch.syspath_prepend(SCRIPTS)
    parts = import_module("gpu_parts")
    weights = []

    def measure() -> None:
        of = parts.policy_of(parts.TINY, parts.chat_of(parts.TINY, ["a b c"]), "cpu")
        weights.append(weakref.ref(next(of.model.parameters())))

    gc.disable()
    try:
        measure()
        assert weights[0]() is not None
        parts.give_back("cpu")
    finally:
        gc.enable()
    assert weights[0]() is None


# -- gpu.py


@pytest.mark.nightly
def test_the_card_s_measurements_run_on_a_processor(tmp_path: Path) -> None:
    saved = tmp_path / "gpu.jsonl"
    words = ("--tiny", "--device", "cpu", "--repeats", "1", "--save", str(saved))
    message = run("gpu.py", *words)
    lines = [json.loads(text) for text in message.splitlines()]
    cases = [(line["part"], line["case"]) for line in lines]
    assert cases == [
        *(("decode", 1), ("decode", 4), ("prefill", 2), ("turn", 2), ("sampling", 4)),
        *(("train", 260), ("step", 4)),
    ]
    assert saved.read_text() == message
    for line in lines[:2]:
        assert (line["ended"], line["repeats"]) == (0, 1)
        rate, least, most = line["tokens_per_second"]
        assert 0 < least <= rate <= most
        assert line["limit"] > 0
        assert line["share"] == pytest.approx(rate / line["limit"], rel=1e-3)
    train, step = lines[-2:]
    assert train["rows"] == 4
    assert train["utilisation"][0] > 0  # of a peak measured here, which a busy machine lowers
    assert step["turns"] == 4 * 3  # random weights are never done
    assert step["action_tokens"] == 4 * 3 * 8
    assert {"generate", "teacher", "update"} <= step["share"].keys()
    assert 0.5 < sum(step["share"].values()) <= 1
    # what was cut off goes on: only what is not there is measured
    saved.write_text("".join(message.splitlines(keepends=True)[1:]))
    assert [json.loads(t)["case"] for t in run("gpu.py", *words).splitlines()] == [1]
    peers = ("generate", "generate_static", "plain_train")
    beside = [json.loads(t) for t in run("gpu.py", *words, "--part", *peers).splitlines()]
    assert [(line["part"], line["case"]) for line in beside] == [
        *(("generate", 1), ("generate", 4), ("generate_static", 2), ("plain_train", 260)),
    ]
    assert all(line["tokens_per_second"][0] > 0 for line in beside)
    # the same rows and limits as the parts beside which they stand
    assert [beside[-1][name] for name in ("rows", "row_tokens")] == [
        train[name] for name in ("rows", "row_tokens")
    ]
    assert beside[0]["limit"] > 0
    table = run("gpu.py", "--table", "--save", str(saved))
    assert [line for line in table.splitlines() if "###" in line] == [
        "### What was measured",
        "### decode",
        "### prefill",
        "### turn",
        "### sampling",
        "### train",
        "### step",
        "### generate",
        "### generate_static",
        "### plain_train",
    ]
