"""`tutelage check-agent`: an agent that keeps its promises, and ones that break each of them."""

import random
import time

import pytest
from support import agents

from tutelage.cli.check_agent import findings
from tutelage.envs.agents.check import check
from tutelage.envs.agents.pool import AgentPool
from tutelage.errors import ConfigError
from tutelage.types import Task

pytest.importorskip("starlette")


def problems(run: object, seconds: float = 5.0) -> dict[str, str]:
    found = check(lambda: AgentPool(run, seconds=seconds), agents.tasks("train")[:2])  # type: ignore[arg-type]
    return {f.name: "\n".join(f.problems) for f in found if f.problems}


def test_an_agent_that_keeps_them_all() -> None:
    assert problems(agents.solve) == {}


def test_what_each_broken_promise_says() -> None:
    def rolls(base_url: str, api_key: str, task: Task) -> float:
        agents.chat(base_url, api_key, [agents.user(str(random.random()))])
        return 1.0

    def expects(base_url: str, api_key: str, task: Task) -> float:
        return float(agents.chat(base_url, api_key, [agents.user("x")]).removeprefix("answer "))

    def clings(base_url: str, api_key: str, task: Task) -> float:
        try:
            agents.chat(base_url, api_key, [agents.user("x")])
        except RuntimeError:
            time.sleep(7)
        return 1.0

    first = "it asks, ends and says what it earned"
    assert "without a single call" in problems(lambda *given: 1.0)[first]
    assert "posted no reward" in problems(agents.nothing)[first]
    assert "raise env.deadline" in problems(agents.hangs, seconds=0.2)[first]
    lies = problems(agents.lies)["it keeps to its own session"]
    for words in ("another model", "another key", "no chat completion", "not served", "2 requests"):
        assert words in lies
    assert (
        "differs the second time"
        in problems(rolls)["it asks the same when it is answered the same"]
    )
    assert "return 0 instead" in problems(expects)["it survives whatever it is answered"]
    assert "still running" in problems(clings)["it ends when its episode is over"]


def test_what_cannot_be_checked_is_refused() -> None:
    options = {"split": "train", "count": 1, "seconds": 5.0}
    with pytest.raises(ConfigError, match="has no function 'nobody'"):
        list(findings("support.agents:nobody", [], **options))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"env.options.taks is not a setting"):
        findings("support.agents:solve", ["taks=x"], **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--tasks must be at least 1"):
        findings("support.agents:solve", [], **{**options, "count": 0})  # type: ignore[arg-type]
