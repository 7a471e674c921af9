"""A run's student as an ordinary Hugging Face folder: weights, tokenizer, settings and model card."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from tutelage.config.plain_file import read_text
from tutelage.errors import ConfigError, PolicyError, RunError, first_line
from tutelage.policies.hf import lora
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.chat_template import Chat
from tutelage.rollout.disk import new, refuse_existing
from tutelage.runs import models
from tutelage.runs.card import Source, model_card
from tutelage.runs.offline import trained

CONVERTER = "convert_hf_to_gguf.py"
"""Of llama.cpp, which keeps the format."""
CARD = "README.md"


def export(
    where: Path,
    name: str,
    out: Path,
    *,
    apart: bool = False,
    evaluations: Sequence[Path] = (),
    gguf: str = "",
) -> None:
    """Write the student of a run's checkpoint as a new folder that transformers reads.

    name         of the checkpoint; the newest if empty
    apart        write low-rank adapters as they are, instead of merged into the weights
    evaluations  folders that `tutelage eval --out` wrote, for the model card
    gguf         also write a file model-TYPE.gguf of this type, such as "f16" or "q8_0"

    Raises RunError rather than overwrite a folder, ConfigError for what is no run, and PolicyError
    where there is no converter to GGUF.
    """
    found = trained(where, name)
    if not found:
        raise ConfigError(f"{where} is not the folder of a run; name the one that holds `latest`")
    refuse_existing(out)
    converter = _converter() if gguf else ""
    if apart and gguf:
        raise ConfigError("a GGUF file holds whole weights; leave --adapters out")
    models.quiet()
    run = Source(where)
    with new(out) as draft:
        if apart:
            chat = _adapters(run, Path(found), draft)
        else:
            policy = load(found, history="append")
            policy.save(draft)
            chat = policy.chat
            _generation(policy, run, draft)
        card = model_card(run, Path(found), chat, evaluations, apart=apart)
        (draft / CARD).write_text(card, encoding="utf-8")
        if gguf:
            _gguf(converter, draft, gguf)
        _check(draft)
        _share(draft)


def _adapters(run: Source, checkpoint: Path, draft: Path) -> Chat:
    """Copy low-rank adapters with their tokenizer: peft loads the base model that they name."""
    from transformers import AutoTokenizer

    base = lora.base_of(str(checkpoint))
    if not base:
        raise ConfigError(
            f"{run.folder} has no adapters, since policy.lora was 0; leave --adapters out"
        )
    draft.mkdir()
    shutil.copyfile(checkpoint / lora.WEIGHTS, draft / lora.WEIGHTS)
    settings = json.loads(read_text(checkpoint / lora.CONFIG))
    named = run.config.policy.model
    if models.on_a_hub(named):  # a path of this machine says nothing elsewhere
        settings["base_model_name_or_path"] = named
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (draft / lora.CONFIG).write_text(text, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(str(checkpoint), trust_remote_code=False)
    tokenizer.save_pretrained(draft)
    return Chat(tokenizer, "append")


def _generation(policy: HFPolicy, run: Source, draft: Path) -> None:
    """How it was sampled in training: without cutting the distribution, to the end of a turn."""
    from transformers import GenerationConfig

    tokenizer, rollout = policy.chat.tokenizer, run.config.rollout
    pad = tokenizer.pad_token_id
    GenerationConfig(
        do_sample=True,
        temperature=rollout.temperature,
        top_p=1.0,
        top_k=0,
        max_new_tokens=rollout.max_new_tokens,
        eos_token_id=list(policy.chat.ends) if policy.chat.more_ends else policy.chat.end,
        pad_token_id=policy.chat.end if pad is None else pad,
    ).save_pretrained(draft)


def _converter() -> str:
    """llama.cpp's converter, on the path or in the folder that LLAMA_CPP names."""
    folder = os.environ.get("LLAMA_CPP", "")
    beside = Path(folder) / CONVERTER if folder else None
    if beside is not None and beside.is_file():
        return str(beside)
    found = shutil.which(CONVERTER)
    if found is None:
        raise PolicyError(
            f"GGUF is written by llama.cpp's {CONVERTER}, which is not on the path; clone "
            "https://github.com/ggml-org/llama.cpp, install its requirements, and name its folder in "
            "the environment variable LLAMA_CPP"
        )
    return found


def _gguf(converter: str, draft: Path, kind: str) -> None:
    target = draft / f"model-{kind}.gguf"
    command = [sys.executable, converter, str(draft), "--outfile", str(target), "--outtype", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not target.is_file():
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise PolicyError(f"{converter} failed ({reason[:300]}); leave --gguf out, or update it")


def push(folder: Path, repository: str) -> str:
    """Upload an exported folder to a new private or an existing repository of the hub; its address.

    Raises RunError where the hub refuses.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        place = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=place.repo_id, folder_path=folder)
    except Exception as error:  # of the hub, of the network, of a wrong name
        why = first_line(error)
        raise RunError(
            f"{folder} is written, but could not be pushed to {repository} ({why[:300]}); log in with "
            f"`hf auth login`, then `hf upload {repository} {folder}`"
        ) from error
    return str(place)


def _share(folder: Path) -> None:
    """Let everybody read the weights who can read the card: safetensors makes files that are for
    their owner alone, which a server of another user could not load."""
    mode = stat.S_IMODE((folder / CARD).stat().st_mode)
    for path in filter(Path.is_file, folder.iterdir()):
        path.chmod(mode)


def _check(folder: Path) -> None:
    """Read back what a model's folder holds, before it gets its name."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            json.loads(read_text(path))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dict
                    file.get_tensor(name)
