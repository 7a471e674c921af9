"""Exported students: loaded by transformers and peft with equal logits, and a card that says all."""

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import ModelCard
from support.fake_servers import Listed, client, serving
from support.tiny_models import tiny, words
from support.tiny_runs import tiny_file

from tutelage.cli.main import main
from tutelage.policies.hf.loading import load
from tutelage.policies.server.http import RequestOptions
from tutelage.runs import checkpoint, models
from tutelage.runs.card import Source, base_model, licence

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a built model, a model with a card, and a run with adapters of it."""
    folder = tmp_path_factory.mktemp("home")
    base = folder / "base"
    tiny(context=256).save_pretrained(base)
    words().save_pretrained(base)
    (base / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    short = {"run": {"steps": 2, "checkpoint_every": 1}, "eval": {"every": 1, "tasks": 9}}
    (folder / "plain.toml").write_text(
        tiny_file(
            **{**short, "algorithm": {"name": "sft"}, "run": {**short["run"], "folder": "plain"}}
        )
    )
    text = tiny_file(**{**short, "algorithm": {"name": "sft"}})
    text = text[: text.index("[policy]")] + '[policy]\nmodel = "base"\nlora = 4\n'
    text += "[eval]\nevery = 0\n"
    (folder / "lora.toml").write_text(text.replace('folder = "run"', 'folder = "lora"'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "plain.toml", "--quiet"]) == 0
        assert main(["train", "lora.toml", "--quiet"]) == 0
        assert main(["eval", "plain", "--out", "measured", "--panel", "doors-unseen-9"]) == 0
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    models.quiet()
    return home


def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    """As anybody would compute them."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def test_transformers_loads_what_was_trained(here: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    out = tmp_path / "model"
    assert main(["export", "plain", str(out), "--eval", "measured"]) == 0
    newest = checkpoint.latest(Path("plain"))
    talk = [{"role": "user", "content": "room a"}]
    ours, theirs = load(str(newest)).chat, AutoTokenizer.from_pretrained(out)
    ids = theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    assert ids == list(ours.open("", "room a"))
    assert torch.equal(logits(out, ids), logits(newest, ids))
    assert not torch.equal(logits(out, ids), logits(newest.parent / "step-000001", ids))
    generation = GenerationConfig.from_pretrained(out)
    assert generation.eos_token_id == ours.end
    assert (generation.do_sample, generation.max_new_tokens) == (True, 4)


def scored_by(port: int, ids: list[int]) -> list[float]:
    """Log-probabilities that a server of vLLM's API gives the tokens of a prompt after the first."""
    body = {"model": "student", "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0}
    (choice,) = (
        client(port, options=RequestOptions()).ask("/v1/completions", body).result()["choices"]
    )
    return [
        entry[str(i)]["logprob"]
        for i, entry in zip(ids[1:], choice["prompt_logprobs"][1:], strict=True)
    ]


def check_served(out: Path, port: int) -> None:
    """A server of the exported folder scores tokens as transformers does."""
    ids = list(range(7, 40))
    logps = logits(out, ids)[:-1].log_softmax(-1)
    expected = logps.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(scored_by(port, ids)), expected, atol=1e-3, rtol=0)


def test_our_server_serves_what_was_exported(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert main(["export", "plain", str(out)]) == 0
    with serving(load(str(out)), name="student") as server:
        check_served(out, server.port)


@pytest.mark.skipif(
    find_spec("vllm") is None,
    reason="vllm is not installed: `pip install 'tutelage[vllm]'` on a machine that it supports",
)
def test_vllm_serves_what_was_exported(here: Path, tmp_path: Path) -> None:
    """Not run on the project's machines, which have no vllm; `check_served` is what the test above
    runs against our own server."""
    out = tmp_path / "model"
    assert main(["export", "plain", str(out)]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--served-model-name", "student", "--host", "127.0.0.1", "--port", str(port)]
    options += ["--max-model-len", "128", "--dtype", "float32", "--enforce-eager"]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(out), *options]
    with (tmp_path / "log").open("w") as log:
        started = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 600
        while True:
            assert started.poll() is None, (tmp_path / "log").read_text()[-2000:]
            assert time.monotonic() < end, "vllm did not answer within 10 minutes"
            try:
                client(port).ask("/v1/models").result(5)
                break
            except Exception:
                time.sleep(1)
        check_served(out, port)
    finally:
        started.terminate()
        started.wait(60)


def test_the_card_says_what_was_done(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert main(["export", "plain", str(out), "--eval", "measured"]) == 0
    card = ModelCard.load(out / "README.md")
    assert card.data.license is None  # no base: it is for who built it to choose
    assert {"tutelage", "sft"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    (found,) = json.loads(Path("measured/summary.json").read_text())
    assert result.metric_value == pytest.approx(found["success"], abs=1e-4)
    assert f"doors-unseen-9 ({found['panel']})" in card.text
    assert f"{100 * found['low']:.1f} to {100 * found['high']:.1f} %" in card.text
    assert card.text.count("| student |") == 3  # before, after, and on the panel
    assert card.text.count("doors-seen-9 (") == 2
    for words_of in ("`doors`, split `train`", "2, checkpoint step-000002", "random weights"):
        assert words_of in card.text
    assert 'name = "sft"' in card.text
    main(["export", "plain", str(tmp_path / "first"), "--checkpoint", "step-000001"])
    assert "1, checkpoint step-000001" in (tmp_path / "first" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_adapters_are_merged_or_apart(here: Path, tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("peft")
    from peft import AutoPeftModelForCausalLM

    whole, apart = tmp_path / "whole", tmp_path / "apart"
    assert main(["export", "lora", str(whole)]) == 0
    assert main(["export", "lora", str(apart), "--adapters"]) == 0
    assert not list(apart.glob("model*.safetensors"))
    ids = list(range(7, 40))
    adapted = AutoPeftModelForCausalLM.from_pretrained(apart)
    with torch.no_grad():
        found = adapted(torch.tensor([ids])).logits[0]
    assert torch.allclose(found, logits(whole, ids), atol=1e-5)
    assert not torch.allclose(found, logits(Path("base"), ids), atol=1e-4)
    card = ModelCard.load(apart / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "peft")
    assert "LoRA of rank 4" in card.text
    assert "It was not evaluated" in card.text
    assert main(["export", "plain", str(tmp_path / "x"), "--adapters"]) == 2
    assert "has no adapters" in capsys.readouterr().err


def test_licences_are_read_and_not_guessed(here: Path, tmp_path: Path) -> None:
    assert licence("base") == "mit"
    assert licence("builtin:household-teacher") == "apache-2.0"
    assert licence(str(tmp_path)) == "unknown"
    for text, found in (
        ("license: x", "unknown"),  # not at the head
        ("---\ntags:\n- a\nlicense: 'gpl-3.0'\n---\n", "gpl-3.0"),
        ("---\ntags: a\n---\nlicense: mit\n", "unknown"),
    ):
        (tmp_path / "README.md").write_text(text)
        assert licence(str(tmp_path)) == found
    assert licence("nobody/has-this") == "unknown"
    config = Source(Path("lora")).config
    next_run = config.policy.model_copy(update={"model": "lora"})
    assert base_model(config.model_copy(update={"policy": next_run})).endswith("base")


def test_gguf_takes_the_converter(
    here: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["export", "plain", str(tmp_path / "a"), "--gguf", "f16"]) == 2
    assert "which is not on the path" in capsys.readouterr().err
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text(
        "import sys\nfolder, _, target, _, kind = sys.argv[1:]\n"
        "open(folder + '/config.json')\n"
        "sys.exit('no ' + kind) if kind == 'q1' else open(target, 'w').write(kind)\n"
    )
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    assert main(["export", "plain", str(tmp_path / "a"), "--gguf", "q1"]) == 2
    assert "failed (no q1)" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert main(["export", "plain", str(tmp_path / "a"), "--gguf", "f16"]) == 0
    assert (tmp_path / "a" / "model-f16.gguf").read_text() == "f16"


@contextmanager
def hub() -> Iterator[Listed]:
    server = Listed([(401, {}, {"error": "Invalid username or password."})])
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_nothing_is_pushed_unless_asked(
    here: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.port}")
        assert main(["export", "plain", str(tmp_path / "a")]) == 0
        assert server.asked == []
        assert main(["export", "plain", str(tmp_path / "b"), "--push", "me/mine"]) == 2
        assert server.asked
    error = capsys.readouterr().err
    assert "is written, but could not be pushed to me/mine" in error
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "b").iterdir()}
    assert len(modes) == 1  # a server of another user can load what it can list
    assert os.listdir(tmp_path / "a")
