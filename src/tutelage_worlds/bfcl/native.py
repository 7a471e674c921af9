"""bfcl by calls in a model's own format, of the functions that each task has."""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.envs.base import Render
from tutelage.envs.tool_suite import call_text
from tutelage.types import Task
from tutelage_worlds.bfcl import expert, package, wording
from tutelage_worlds.bfcl.env import BFCLEnv
from tutelage_worlds.bfcl.game import without_descriptions
from tutelage_worlds.bfcl.scenario import Call, Scenario


class BFCLCalls:
    """The tasks of a suite `BFCL`. Functions that are added later are described by the user."""

    checks_arguments = False  # some right calls of the benchmark do not fit their schemas

    def __init__(self, suite: Any) -> None:
        self.suite = suite
        self.class_name = type(suite).__name__

    def tools(self) -> list[Mapping[str, Any]]:
        return self._listed([*package.parameters()], [*package.APIS])

    def tools_of(self, task: Task) -> list[Mapping[str, Any]]:
        scenario: Scenario = self.suite.scenario(task)
        names = [name for name in package.parameters() if name not in scenario.held]
        return self._listed(names, scenario.apis)

    def _listed(self, names: Sequence[str], apis: Sequence[str]) -> list[Mapping[str, Any]]:
        found = wording.listed(names, apis)
        if self.suite.docs == "full":
            return found
        return [
            {"name": each["name"], "parameters": without_descriptions(each["parameters"])}
            for each in found
        ]

    def tasks(self, split: str) -> Sequence[Task]:
        found: Sequence[Task] = self.suite.tasks(split)
        return found

    def make(self) -> BFCLEnv:
        env: BFCLEnv = self.suite.new_env(native=True)
        return env

    def demonstrate(self, task: Task) -> Sequence[str]:
        return expert.demonstrate(self.suite.scenario(task), _written)

    def plan(self, task: Task) -> Sequence[str]:
        return expert.plan(self.suite.scenario(task), _written)

    def describe(self, task: Task) -> str:
        return str(self.suite.describe(task))

    def renders(self) -> Mapping[str, Render]:
        found: Mapping[str, Render] = self.suite.renders()
        return found

    def instructions(self) -> str:
        return wording.RULES

    def identity(self) -> str:
        return str(self.suite.identity())


def _written(calls: Sequence[Call]) -> str:
    return "\n".join(call_text(call.name, call.arguments) for call in calls)
