"""The kinds of failure that a user can do something about. Each message names cause and fix."""


class UnderstudyError(Exception):
    """Root of the project's own errors: shown as one sentence, never as a traceback."""


class ConfigError(UnderstudyError, ValueError):
    """A setting is wrong, unknown or missing."""


class EnvError(UnderstudyError, RuntimeError):
    """An environment broke its contract or its data is unusable."""


class PolicyError(UnderstudyError, RuntimeError):
    """A model, its tokenizer or its server cannot do what is asked."""


class RunError(UnderstudyError, RuntimeError):
    """A run folder cannot be written, read or continued."""
