"""Errors that a user can fix; each message is one sentence that names the cause and the fix."""

import difflib
from collections.abc import Iterable
from typing import Any

NAME = "tutelage"
"""The name of the distribution, the import and the command."""
LONGEST_WORD = 200
"""Characters of a name that suggestions are looked for."""


class TutelageError(Exception):
    """Root of the project's own errors: shown as one sentence, never as a traceback."""


class ConfigError(TutelageError, ValueError):
    """A setting is wrong, unknown or missing."""


class EnvError(TutelageError, RuntimeError):
    """An environment broke its contract or its data is unusable."""


class PolicyError(TutelageError, RuntimeError):
    """A model, its tokenizer or its server cannot do what is asked."""


class EndlessTemplateError(PolicyError):
    """A chat template takes too much time or memory."""


class RunError(TutelageError, RuntimeError):
    """A run folder cannot be written, read or continued."""


class Elsewhere(RunError):
    """Another process of this run failed or was stopped, and says so: it is not said twice."""


class Diverged(RunError):
    """A gradient was not finite: the run can continue from its last checkpoint with a lower
    learning rate."""


def kind(name: str, value: object, wanted: Any, what: str) -> None:
    """Raises ConfigError for an argument of another type; `what` says what it should be."""
    if not isinstance(value, wanted):
        raise ConfigError(f"{name} is {type(value).__name__}; give {what}")


def function(name: str, value: object, what: str = "a function") -> None:
    """Raises ConfigError for an argument that cannot be called."""
    if not callable(value):
        raise ConfigError(f"{name} is {type(value).__name__}; give {what}")


def first_line(error: BaseException) -> str:
    """The first line of another library's message; the error's type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In what torch's CPU allocator, CUDA and its libraries say, which have no exception of their own."""


def lacks_memory(error: BaseException | None) -> bool:
    """Whether memory could not be allocated, or that was behind another error: a CUDA graph that is
    broken off ends with one of its own. torch's exception is known by its name, since nothing here
    needs torch."""
    while error is not None:
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if named or any(words in str(error) for words in NO_MEMORY):
            return True
        error = error.__context__
    return False


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A clause that suggests the nearest choice; empty if none is near.

    >>> did_you_mean("grop", ["grpo", "opd"])
    '; did you mean grpo?'
    >>> did_you_mean("GRPO", ["grpo", "opd"])
    '; did you mean grpo?'
    """
    if len(word) > LONGEST_WORD:
        return ""  # the comparison takes quadratic time, and nothing is near
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def install(extra: str) -> str:
    """The command that installs an extra of this project.

    >>> install("lora")
    "pip install 'tutelage[lora]'"
    """
    return f"pip install '{NAME}[{extra}]'"
