"""Whole runs that hand their weights to the real vLLM by its weight transfer, and what may go wrong.

`make vllm` runs them; without the environment variable VLLM they are skipped. The trainer runs in the
Python that has vLLM as well, because its side of a transfer is made by vLLM.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.real_vllm import (
    EXACT,
    FROM_SOURCE,
    PYTHON,
    SOURCE,
    TRANSFER,
    VllmServer,
    apart,
    begun,
    config,
    distilled,
    lines,
    needs_vllm,
    tokens,
    trained_there,
    two_models,
    vllm_servers,
)

pytestmark = [needs_vllm, pytest.mark.timeout(3000)]
GLOO: dict[str, Any] = {"policy": {"sampler": {"transfer": "gloo"}}}
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(tmp_path_factory.mktemp("sent"), start=3, teacher=6)


@pytest.fixture(scope="module")
def servers(home: Path) -> Iterator[list[VllmServer]]:
    with vllm_servers(home / "start", home, count=2, flags=TRANSFER) as both:
        yield both


@pytest.fixture(scope="module")
def calm(home: Path, servers: list[VllmServer]) -> str:
    """A run whose weights go through a folder, undisturbed: its name."""
    trained_there(config(home, "calm", [servers[0].url], **distilled(home)), home)
    return "calm"


def sender(server: VllmServer, model: Path, *flags: str) -> "subprocess.Popen[str]":
    """Hands over a model's weights twice, and compares what is sampled: see support/sends.py."""
    return subprocess.Popen(
        [PYTHON, "-m", "support.sends", server.url, str(model), *flags],
        env={**FROM_SOURCE, "PYTHONPATH": f"{SOURCE}{os.pathsep}{TESTS}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def found(process: "subprocess.Popen[str]") -> float:
    """By how many nats both sides differ in the end."""
    printed, _ = process.communicate()
    assert process.returncode == 0, printed[-4000:]
    return float(printed.split(" nats")[0].split()[-1])


def until(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}")


# -- whole runs


def test_the_run_of_the_folder_to_the_byte(
    home: Path, servers: list[VllmServer], calm: str
) -> None:
    trained_there(config(home, "sent", [servers[0].url], **distilled(home), **GLOO), home)
    for file in ("metrics.jsonl", "episodes.jsonl"):
        assert (home / "sent" / file).read_bytes() == (home / calm / file).read_bytes()
    assert apart(home, "sent") < EXACT
    log = servers[0].log.read_text()
    # a transfer for each of three updates but the last, and one before the first; in one group
    assert log.count("POST /update_weights") == 3
    assert log.count("POST /init_weight_transfer_engine") == 1
    assert list((home / "sent").glob("**/.model.safetensors")) == []


def test_two_servers(home: Path, servers: list[VllmServer], calm: str) -> None:
    urls = [server.url for server in servers]
    trained_there(config(home, "both", urls, **distilled(home), **GLOO), home)
    assert tokens(home, "both") == tokens(home, calm)
    assert apart(home, "both") < EXACT


def test_merged_adapters_and_a_rate_that_changes_nothing(
    home: Path, servers: list[VllmServer]
) -> None:
    more = distilled(home, lr=1e-30)
    more["policy"] = {"lora": 4, "sampler": {"transfer": "gloo"}}
    trained_there(config(home, "still", [servers[0].url], **more), home)
    for line in lines(home, "still"):
        assert line["mismatch"]["max"] < 1e-5


# -- what may go wrong


def test_a_server_that_is_killed_and_started_again(
    home: Path, servers: list[VllmServer], calm: str
) -> None:
    """It has neither the weights nor a group."""
    process = begun(config(home, "killed", [servers[1].url], **distilled(home), **GLOO), home)
    until(process, "step 1 ")
    servers[1].kill()
    time.sleep(2.0)
    servers[1].start()
    printed, _ = process.communicate()
    assert process.returncode == 0, printed[-4000:]
    assert tokens(home, "killed") == tokens(home, calm)
    assert apart(home, "killed") < EXACT


def test_a_server_that_is_killed_in_the_middle_of_a_transfer(
    home: Path, servers: list[VllmServer]
) -> None:
    process = sender(servers[1], home / "start", "--slowly")
    until(process, "sending")
    servers[1].kill()
    servers[1].start()
    assert found(process) < EXACT
    servers[1].wait()


def test_a_trainer_that_is_killed_in_the_middle_of_a_transfer(
    home: Path, servers: list[VllmServer]
) -> None:
    """The server goes on, and takes the weights of the next."""
    process = sender(servers[0], home / "start", "--slowly")
    until(process, "sending")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert found(sender(servers[0], home / "start")) < EXACT


def test_another_model_is_refused_and_leaves_the_server_whole(
    home: Path, servers: list[VllmServer]
) -> None:
    """Of the same tokenizer, with other sizes: vLLM cannot load the student's weights."""
    other = sender(servers[0], SOURCE / "tutelage/assets/household-teacher")
    printed, _ = other.communicate()
    assert "policy.sampler could not load the weights: the server of policy.sampler" in printed
    assert found(sender(servers[0], home / "start")) < EXACT


def test_a_server_that_does_not_know_the_backend(home: Path, tmp_path: Path) -> None:
    """In one sentence, before a turn is played; neither side waits for the other."""
    with vllm_servers(home / "start", tmp_path) as (plain,):
        settings = config(home, "plain", [plain.url], **distilled(home), **GLOO)
        printed = trained_there(settings, home, code=2)
        assert "its weight transfer is switched off (vLLM takes them this way if" in printed
        assert "Traceback" not in printed
        assert plain.log.read_text().count("POST /start_weight_update") == 0
