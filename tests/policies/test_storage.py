"""A policy in a folder: what is saved is what is loaded, and what is not a policy is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from support.tiny_models import CHATML, policy, small_chat

from tutelage.errors import PolicyError
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

SAMPLE = Sample(prompt=(20, 30, 40, 50), tokens=(60, 70, 2))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "model"
    policy().save(folder)
    return folder


def logps(of: HFPolicy) -> list[float]:
    with torch.no_grad():
        return of.score([SAMPLE], 1.0).logp.tolist()


def test_a_saved_policy_comes_back_bit_for_bit(saved: Path) -> None:
    again = load(str(saved))
    assert logps(again) == logps(policy())
    assert again.chat.fingerprint() == small_chat().fingerprint()
    assert again.chat.open("sys", "hello") == small_chat().open("sys", "hello")
    assert again.context_length == 512
    assert not again.model.training
    assert {p.name for p in saved.iterdir()} >= {"model.safetensors", "config.json"}


def test_weights_stored_in_half_precision_are_trained_in_float32(
    saved: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(saved).to(torch.bfloat16).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (saved / name).exists():
            shutil.copy(saved / name, tmp_path)
    of = load(str(tmp_path), dtype="bfloat16")
    assert {p.dtype for p in of.parameters()} == {torch.float32}


def test_settings_of_the_policy_are_kept(saved: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(CHATML.replace("<|im_end|>", "<|end|>"))
    of = load(
        str(saved),
        slots=3,
        tokens=77,
        history="append",
        options=(("x", 1),),
        chat_template=str(template),
        dtype="bfloat16",
    )
    assert of.engine.max_slots == 3
    assert of.tokens == 77
    assert of.dtype == "bfloat16"
    assert of.chat.history == "append"
    assert of.chat.options == (("x", 1),)
    assert of.chat.tokenizer.chat_template == template.read_text()


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(PolicyError, match=r"no model folder.*check the path"):
        load(name)


def damaged(saved: Path, to: Path, name: str) -> str:
    shutil.copytree(saved, to, dirs_exist_ok=True)
    weights = to / "model.safetensors"
    if name == "no weights":
        weights.unlink()
    elif name == "half the weights":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif name == "not weights":
        weights.write_bytes(b"what is this")
    elif name == "no configuration":
        (to / "config.json").unlink()
    elif name == "not a configuration":
        (to / "config.json").write_text("{")
    elif name == "an unknown architecture":
        (to / "config.json").write_text(json.dumps({"model_type": "telepathy"}))
    elif name == "another width":
        config = json.loads((to / "config.json").read_text())
        (to / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    elif name == "a layer too few":
        config = json.loads((to / "config.json").read_text())
        more = {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
        (to / "config.json").write_text(json.dumps({**config, **more}))
    return str(to)


@pytest.mark.parametrize(
    "name",
    [
        "no weights",
        "half the weights",
        "not weights",
        "no configuration",
        "not a configuration",
        "an unknown architecture",
        "another width",
        "a layer too few",
    ],
)
def test_a_damaged_folder_is_answered_with_a_sentence(
    name: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(PolicyError, match=r"could not be loaded \(.+\); give a folder"):
        load(damaged(saved, tmp_path, name))


def test_a_folder_without_a_tokenizer_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(damaged(saved, tmp_path, "nothing"))
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(PolicyError):
        load(str(folder))


def test_the_first_layers_of_a_model_are_a_smaller_one(saved: Path, tmp_path: Path) -> None:
    whole, part = load(str(saved)), load(str(saved), layers=1)
    weights = part.model.state_dict()
    assert len(part.model.model.layers) == 1 < len(whole.model.model.layers)
    assert all(torch.equal(weights[name], whole.model.state_dict()[name]) for name in weights)
    part.save(tmp_path / "part")
    assert len(load(str(tmp_path / "part")).model.model.layers) == 1
    assert len(load(str(tmp_path / "part"), layers=1).model.model.layers) == 1


def test_more_layers_than_there_are_cannot_be_taken(saved: Path) -> None:
    with pytest.raises(PolicyError, match="has 2 layers, so its first 9 cannot be taken"):
        load(str(saved), layers=9)
