"""The tools that an agent can call by name, with JSON arguments, over a database.

A tool is a plain function of the database and its arguments that returns text. What it raises is
answered as "Error: ..." and the episode continues, as in tau-bench; a call with missing or unknown
arguments is such an error, in Python's own words.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

from tutelage_worlds.tau_bench import arithmetic
from tutelage_worlds.tau_bench.database import Database, copied

RESPOND: Final = "respond"
TRANSFER: Final = "transfer_to_human_agents"
ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
)
"""All that reading and changing JSON values can raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool's name and its arguments: JSON values, never changed."""

    name: str
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`about` tells an agent what it does; `writes` says whether it can change the database."""

    name: str
    run: Callable[..., str]
    arguments: tuple[str, ...]
    about: str
    writes: bool = False

    def line(self) -> str:
        """The description of the tool for an agent."""
        return f"{self.name}({', '.join(self.arguments)}): {self.about}"


Tools = Mapping[str, Tool]


class Kit(dict[str, Tool]):
    """The tools of a domain, collected by a decorator."""

    def tool(
        self, about: str, *, writes: bool = False
    ) -> Callable[[Callable[..., str]], Callable[..., str]]:
        def add(function: Callable[..., str]) -> Callable[..., str]:
            name = function.__name__
            # Python names the function in its errors, and agents read those: in tau-bench a tool
            # is a class with a method `invoke`
            function.__qualname__ = "".join(w.title() for w in name.split("_")) + ".invoke"
            arguments = tuple(signature(function).parameters)[1:]
            self[name] = Tool(
                name=name, run=function, arguments=arguments, about=about, writes=writes
            )
            return function

        return add


def perform(tools: Tools, data: object, call: Call) -> str:
    """Call a tool on what it reads and changes, which is a database but for a customer's phone, and
    return its answer. It is given copies: nothing that it stores is shared."""
    tool = tools.get(call.name)
    if tool is None:
        return f"Unknown action {call.name}"
    if "data" in call.kwargs:
        method = tool.run.__qualname__
        return f"Error: {method}() got multiple values for keyword argument 'data'"
    kwargs = copied(dict(call.kwargs)) if tool.writes else call.kwargs
    try:
        return tool.run(data, **kwargs)
    except ERRORS as error:
        return f"Error: {error}"


def common(kit: Kit) -> None:
    """The tools that every domain has besides its own."""

    @kit.tool("the value of an expression of numbers, + - * / and brackets")
    def calculate(data: Database, expression: str) -> str:
        return arithmetic.calculate(expression)

    @kit.tool("note something for yourself; nothing is looked up or changed")
    def think(data: Database, thought: str) -> str:
        return ""

    @kit.tool("hand the customer over to a person, which ends the conversation")
    def transfer_to_human_agents(data: Database, summary: str) -> str:
        return "Transfer successful"
