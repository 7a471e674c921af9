"""The kinds of failure that a user can do something about. Each message names cause and fix."""

import difflib
from collections.abc import Iterable


class TutelageError(Exception):
    """Root of the project's own errors: shown as one sentence, never as a traceback."""


class ConfigError(TutelageError, ValueError):
    """A setting is wrong, unknown or missing."""


class EnvError(TutelageError, RuntimeError):
    """An environment broke its contract or its data is unusable."""


class PolicyError(TutelageError, RuntimeError):
    """A model, its tokenizer or its server cannot do what is asked."""


class RunError(TutelageError, RuntimeError):
    """A run folder cannot be written, read or continued."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A half-sentence with the nearest choice, empty if none is near.

    >>> did_you_mean("grop", ["grpo", "opd"])
    '; did you mean grpo?'
    """
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
