"""`tutelage check-agent`: run an agent on a few tasks with made-up answers, and say what it breaks."""

from collections.abc import Iterator, Sequence
from functools import partial

from tutelage.config.toml_file import override
from tutelage.config.trust import NAMED
from tutelage.envs.agents.check import check
from tutelage.envs.agents.suite import Agents
from tutelage.envs.check import Finding
from tutelage.envs.guard import Broken, attempt
from tutelage.envs.registry import as_suite
from tutelage.errors import ConfigError


def findings(
    run: str, options: Sequence[str], *, split: str, count: int, seconds: float
) -> Iterator[Finding]:
    """What every check found.

    Raises ConfigError for an agent or tasks that cannot be opened.
    """
    if count < 1:
        raise ConfigError(f"--tasks must be at least 1, got {count}")
    suite = as_suite(Agents, {**override({}, list(options)), "run": run})
    assert isinstance(suite, Agents)
    try:
        listed = attempt(f"tasks({split!r})", partial(suite.tasks, split))
    except Broken as error:
        raise ConfigError(f"--split {split} cannot be opened ({error})") from error
    if not len(listed):
        raise ConfigError(f"the split {split!r} has no tasks; name another with --split")
    tasks = [listed[k] for k in range(min(count, len(listed)))]
    workers = int(NAMED.fullmatch(run) is not None)
    return check(partial(suite.agents, workers=workers, seconds=seconds), tasks)
