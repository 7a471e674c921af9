"""Read the benchmark's own tasks and their right calls."""

import ast
from pathlib import Path
from typing import Any, Final

from tutelage.envs.generated_tasks import in_turns
from tutelage.errors import ConfigError
from tutelage_worlds.bfcl import package
from tutelage_worlds.bfcl.scenario import FAMILIES, Call, Scenario, Turn
from tutelage_worlds.json_text import parse
from tutelage_worlds.read_once import read_once

_UNFIT: Final = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    SyntaxError,
    MemoryError,
    RecursionError,
)
"""What a task or a call of another form may raise; the last two where it is nested deeply."""
NAME: Final = "BFCL_v4_multi_turn_{family}.json"


@read_once(4)
def published(data: str | None) -> tuple[Scenario, ...]:
    """All tasks of a folder, or of the package; families take turns.

    Raises ConfigError for a file that is not there or not as the benchmark writes it.
    """
    place = package.folder() / "data" if data is None else Path(data).expanduser()
    found = [each for family in FAMILIES for each in _family(place, family)]
    return tuple(found[k] for k in in_turns([each.family for each in found]))


def _family(place: Path, family: str) -> list[Scenario]:
    name = NAME.format(family=family)
    answers = {_id(row): row for row in _rows(place / "possible_answer" / name)}
    found = []
    for row in _rows(place / name):
        where = f"{place / name}: {_id(row)}"
        answer = answers.get(_id(row))
        if answer is None:
            raise ConfigError(f"{where} has no answer in {place / 'possible_answer' / name}")
        try:
            found.append(_scenario(row, answer, family))
        except _UNFIT as error:
            raise ConfigError(
                f"{where} is not a task as bfcl-eval 2026.3.23 writes them "
                f"({type(error).__name__}: {error}); take the files of that release"
            ) from None
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"env.options.data: {path} cannot be read ({error}); name the folder bfcl_eval/data of "
            f"the package, or leave it out ({package.GET})"
        ) from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ConfigError(f"env.options.data: line {number} of {path} is not a JSON object")
        rows.append(row)
    return rows


def _id(row: dict[str, Any]) -> str:
    return str(row.get("id", ""))


def _scenario(row: dict[str, Any], answer: dict[str, Any], family: str) -> Scenario:
    apis = tuple(str(name) for name in row["involved_classes"])
    if unknown := [name for name in apis if name not in package.APIS]:
        raise ValueError(f"there is no API {unknown[0]!r}")
    added = {int(k): tuple(names) for k, names in row.get("missed_function", {}).items()}
    turns = []
    for k, (messages, calls) in enumerate(
        zip(row["question"], answer["ground_truth"], strict=True)
    ):
        says = "\n\n".join(str(message["content"]) for message in messages)
        if k in added:
            says = package.more_functions()
        turns.append(
            Turn(says=says, calls=tuple(call_of(each) for each in calls), added=added.get(k, ()))
        )
    start = {name: dict(row["initial_config"].get(name, {})) for name in apis}
    return Scenario(id=_id(row), family=family, apis=apis, start=start, turns=tuple(turns))


def call_of(text: str) -> Call:
    """A call that Python's syntax writes, its arguments with their names. Nothing is evaluated.

    Raises ValueError or SyntaxError for what is no call of one of the functions with plain values.
    """
    found = ast.parse(text.strip(), mode="eval").body
    if not isinstance(found, ast.Call) or not isinstance(found.func, ast.Name):
        raise ValueError(f"{text!r} is no call")
    names = package.parameters().get(found.func.id)
    if names is None or len(found.args) > len(names):
        raise ValueError(f"{text!r} calls no function of the APIs")
    pairs = [*zip(names, found.args, strict=False)]
    pairs += [(str(each.arg), each.value) for each in found.keywords]
    return Call(
        name=found.func.id, arguments={name: ast.literal_eval(value) for name, value in pairs}
    )
