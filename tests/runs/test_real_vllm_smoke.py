"""A run of a few steps that the real vLLM samples: what `make scale-smoke` has time for. The others
are in `test_real_vllm` and `test_real_vllm_transfer`.

Without the environment variable VLLM they are skipped.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.real_vllm import (
    EXACT,
    TRANSFER,
    VllmServer,
    apart,
    config,
    distilled,
    lines,
    needs_vllm,
    tokens,
    trained_there,
    two_models,
    vllm_servers,
)
from support.tiny_runs import Quiet

from tutelage.runs import checkpoint, train

pytestmark = [needs_vllm, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the folders of two models of one tokenizer."""
    return two_models(tmp_path_factory.mktemp("real"), start=3, teacher=6)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[VllmServer]:
    with vllm_servers(home / "start", home, flags=TRANSFER) as (one,):
        yield one


def test_a_run_hands_over_its_weights_at_each_step(home: Path, server: VllmServer) -> None:
    """From the first update on a server that kept its weights would be apart."""
    more = distilled(home)
    more["eval"] = {"every": 3, "temperature": 0.0, "tasks": 9, "split": "train"}
    train.train(config(home, "here", None, **more), watch=Quiet())
    train.train(config(home, "sampled", [server.url], **more), watch=Quiet())
    found = lines(home, "sampled")
    assert len(found) == 3
    assert all(line["mismatch"]["max"] < EXACT for line in found), found
    # at temperature 0, and before anything is learnt, both engines say the same
    first = [lines(home, name, "evals.jsonl")[0] for name in ("here", "sampled")]
    assert first[0] == first[1]
    start, end = (
        load_file(home / "sampled" / "checkpoints" / name / "model.safetensors")
        for name in (checkpoint.START, "step-000003")
    )
    assert max(float((start[name] - end[name]).abs().max()) for name in start) > 0.01


def test_two_runs_sample_the_same(home: Path, server: VllmServer) -> None:
    """The server holds the last weights of the run before, which must not be played with."""
    for name in ("first", "second"):
        train.train(config(home, name, [server.url], **distilled(home)), watch=Quiet())
    assert tokens(home, "first") == tokens(home, "second")
    assert apart(home, "second") < EXACT


def test_weight_transfer_samples_what_the_folder_does(home: Path, server: VllmServer) -> None:
    more = distilled(home) | {"policy": {"sampler": {"transfer": "gloo"}}}
    train.train(config(home, "folder", [server.url], **distilled(home)), watch=Quiet())
    trained_there(config(home, "sent", [server.url], **more), home)
    assert tokens(home, "sent") == tokens(home, "folder")
    assert apart(home, "sent") < EXACT
    assert "POST /update_weights" in server.log.read_text()
