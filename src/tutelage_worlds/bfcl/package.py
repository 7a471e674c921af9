"""The installed package bfcl-eval: its simulated APIs, their documentation and its checker.

Only modules are imported that need nothing of what the package depends on, but mpmath.
"""

import copy
import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tutelage.errors import ConfigError, install
from tutelage_worlds.json_text import parse

ROOT: Final = "bfcl_eval"
GET: Final = "pip install --no-deps bfcl-eval"
CHECKER: Final = f"{ROOT}.eval_checker.multi_turn_eval.multi_turn_checker"
PROMPTS: Final = f"{ROOT}.constants.default_prompts"
APIS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "GorillaFileSystem": "gorilla_file_system",
        "MathAPI": "math_api",
        "MessageAPI": "message_api",
        "TwitterAPI": "posting_api",
        "TicketAPI": "ticket_api",
        "TradingBot": "trading_bot",
        "TravelAPI": "travel_booking",
        "VehicleControlAPI": "vehicle_control",
    }
)
"""The simulated APIs, by the names of their classes; values are names of the package's files."""
STATELESS: Final = frozenset({"MathAPI"})
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {"dict": "object", "float": "number", "tuple": "array", "any": ""}
)
"""JSON's names of types that the package names otherwise."""


@cache
def folder() -> Path:
    """Where the package is. Raises ConfigError where it is not installed."""
    spec = importlib.util.find_spec(ROOT)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        return Path(place)
    raise ConfigError(f"bfcl needs the package bfcl-eval without what it depends on: {GET}")


@cache
def module(path: str) -> Any:
    """A module of the package. Raises ConfigError where it is not there or does not import."""
    folder()
    try:
        return importlib.import_module(path)
    except ImportError as error:
        fix = install("bfcl") if (error.name or "").split(".")[0] != ROOT else f"{GET} -U"
        raise ConfigError(f"bfcl-eval cannot be imported ({error}); {fix}") from None


@cache
def classes() -> Mapping[str, type]:
    """The classes of the APIs by name."""
    places = f"{ROOT}.eval_checker.multi_turn_eval.func_source_code"
    return {name: getattr(module(f"{places}.{file}"), name) for name, file in APIS.items()}


def start(name: str, config: Mapping[str, Any], *, long: bool) -> Any:
    """An API in the state that a task begins with.

    long  whether its data and answers are padded, as in the category `long_context`

    With padding it is copied once more after loading: the class puts data of its module into its
    state, which one episode would then change for all that follow.
    """
    api = classes()[name]()
    if name not in STATELESS:
        api._load_scenario(copy.deepcopy(dict(config)), long_context=long)
    if not long:
        return api
    generator = getattr(api, "_random", None)  # its own already, and slow to copy
    return copy.deepcopy(api, {id(generator): generator} if generator is not None else {})


@cache
def parameters() -> Mapping[str, tuple[str, ...]]:
    """The names of the arguments of every function of every API, in their order."""
    return {
        name: tuple(inspect.signature(member).parameters)[1:]
        for api in classes().values()
        for name, member in inspect.getmembers(api, inspect.isfunction)
        if not name.startswith("_")
    }


@cache
def _required() -> Mapping[str, frozenset[str]]:
    return {
        name: frozenset(
            key
            for key, each in list(inspect.signature(member).parameters.items())[1:]
            if each.default is each.empty
        )
        for api in classes().values()
        for name, member in inspect.getmembers(api, inspect.isfunction)
    }


def fits(name: str, arguments: Mapping[str, object]) -> bool:
    """Whether a function takes arguments of these names."""
    return _required()[name] <= set(arguments) <= set(parameters()[name])


@cache
def _defaults() -> Mapping[str, Mapping[str, Any]]:
    return {
        name: {
            key: each.default
            for key, each in inspect.signature(member).parameters.items()
            if isinstance(each.default, list | dict)
        }
        for api in classes().values()
        for name, member in inspect.getmembers(api, inspect.isfunction)
    }


def fresh_defaults(name: str) -> dict[str, Any]:
    """Lists that a function takes where none is given. The class has one for all calls, and puts it
    into its state, where other functions add to it."""
    return {key: type(value)(value) for key, value in _defaults().get(name, {}).items()}


@cache
def functions() -> Mapping[str, tuple[Mapping[str, Any], ...]]:
    """The functions of every API as its documentation lists them, with JSON schemas."""
    found = {}
    for api, file in APIS.items():
        path = folder() / "data" / "multi_turn_func_doc" / f"{file}.json"
        try:
            lines = [parse(line) for line in path.read_text("utf-8").split("\n") if line]
            found[api] = tuple(
                {
                    "name": each["name"],
                    "description": each["description"],
                    "parameters": _schema(each["parameters"]),
                }
                for each in lines
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"bfcl-eval's file {path} cannot be read ({type(error).__name__}: {error}); "
                f"install it again: {GET} --force-reinstall"
            ) from None
    return found


def _schema(value: Any) -> Any:
    """A schema of the package in JSON's words.

    >>> _schema({"type": "dict", "properties": {"a": {"type": "float"}}})
    {'type': 'object', 'properties': {'a': {'type': 'number'}}}
    """
    if isinstance(value, list):
        return [_schema(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, each in value.items():
        if key == "type" and isinstance(each, str):
            if kind := KINDS.get(each, each):
                found[key] = kind
        else:
            found[key] = _schema(each)
    return found


def state_checker(ours: Mapping[str, Any], gold: Mapping[str, Any]) -> dict[str, Any]:
    """The package's comparison of two sets of APIs."""
    found: dict[str, Any] = module(CHECKER).state_checker(ours, gold)
    return found


def response_checker(ours: list[str], gold: list[str], turn: int) -> dict[str, Any]:
    """The package's comparison of what calls returned."""
    found: dict[str, Any] = module(CHECKER).response_checker(ours, gold, turn)
    return found


def more_functions() -> str:
    """What the benchmark's user says when functions are added."""
    return str(module(PROMPTS).DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC)


@cache
def most_answers() -> int:
    """Answers with calls in one turn of the user, after which the benchmark stops a task."""
    return int(module(PROMPTS).MAXIMUM_STEP_LIMIT)
