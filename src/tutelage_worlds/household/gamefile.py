"""ALFWorld's game files `game.tw-pddl`: find, read and write them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from tutelage.envs.generated_tasks import in_turns
from tutelage.types import Task
from tutelage_worlds.household import problem
from tutelage_worlds.household.expert import UnsolvableError, plan
from tutelage_worlds.household.grammar import (
    GrammarError,
    load_domain,
    load_grammar,
    strange_signs,
)
from tutelage_worlds.household.scene import Family, Scene
from tutelage_worlds.json_text import parse

FOLDERS: Final = {"train": "train", "seen": "valid_seen", "unseen": "valid_unseen"}
_NAME: Final = "game.tw-pddl"
_UNTOLD: Final = "UNKNOWN GOAL"
_SOLVABLE = re.compile(rb'"solvable"\s*:\s*true')
_FAMILIES: Final = frozenset(family.value for family in Family)
_FOLDER: Final = (
    "give the folder that holds train, valid_seen and valid_unseen, as alfworld-download makes it"
)
_GET: Final = (
    "get a whole one from ALFWorld's data or write one with tutelage_worlds.household.write"
)


class GameFileError(ValueError):
    """A file that cannot be played; the message names it, says why, and what to do."""


def read(path: str | Path) -> Scene:
    """The game of a `game.tw-pddl` file: its problem, in the wording of its grammar.

    Raises GameFileError.
    """
    path = Path(path)
    data = _json(path)
    parts: list[str] = []
    for key in ("pddl_domain", "grammar", "pddl_problem"):
        value = data.get(key)
        if not isinstance(value, str):
            raise GameFileError(f"{path} has no text under {key!r}, so it is not a game: {_GET}.")
        parts.append(value)
    try:
        sinks, actions = load_domain(parts[0])
        grammar = load_grammar(parts[1], actions)
        scene = problem.load(parts[2])
    except (problem.ProblemError, GrammarError) as error:
        raise GameFileError(f"{path} cannot be played: {error}; {_GET}.") from error
    return replace(scene, task=grammar.task, wording=grammar.wording, sinks=sinks)


def write(scene: Scene, path: str | Path, domain: str, grammar: str) -> None:
    """Write a scene for TextWorld.

    `domain` and `grammar` are the texts of `alfred.pddl` and `alfred.twl2`, which the alfworld
    package ships; the grammar's "UNKNOWN GOAL" becomes the task sentence. Raises GameFileError.
    """
    if _UNTOLD not in grammar:
        raise GameFileError(
            f"{path} was not written: the grammar has no {_UNTOLD!r} where the task sentence goes; "
            "use alfworld's alfred.twl2."
        )
    if signs := strange_signs(scene.task):
        raise GameFileError(
            f"{path} was not written: the task {scene.task!r} has {signs!r}, which TextWorld "
            "cannot show; say it without."
        )
    try:
        walkthrough: list[str] | None = plan(scene)
    except UnsolvableError:
        walkthrough = None
    data = {
        "pddl_domain": domain,
        "grammar": grammar.replace(_UNTOLD, scene.task),
        "pddl_problem": problem.dump(scene),
        "solvable": walkthrough is not None,
        "walkthrough": walkthrough,
    }
    Path(path).write_text(json.dumps(data), encoding="utf-8")


@lru_cache(maxsize=8)
def official(root: Path, split: str) -> Sequence[Task]:
    """The games of ALFWorld's data that ALFWorld itself plays: families take turns, each in the
    order of its paths. A folder is read once in a process.

    Left out, as there: tasks with a movable receptacle or a sliced object, and files not marked
    solvable. Raises GameFileError if there are no files.
    """
    folder = root.expanduser() / FOLDERS[split]
    if next(folder.glob(f"**/{_NAME}"), None) is None:
        raise GameFileError(f"No {_NAME} was found below {folder}: {_FOLDER}.")
    tasks: list[Task] = []
    for id, file in _played(folder):
        family = next(
            (part.split("-")[0] for part in id.split("/") if part.split("-")[0] in _FAMILIES), ""
        )
        tasks.append(
            Task(
                id=id,
                family=family or read(file).goal.family.value,
                seed=len(tasks),
                data={"game": str(file)},
            )
        )
    return tuple(tasks[i] for i in in_turns([task.family for task in tasks]))


def _played(folder: Path) -> Iterator[tuple[str, Path]]:
    """The names and files of the games of a split that ALFWorld plays, in the order of their paths."""
    for file in sorted(folder.glob(f"**/{_NAME}")):
        id = file.parent.relative_to(folder.parent).as_posix()
        if "movable" not in id and "Sliced" not in id and _SOLVABLE.search(file.read_bytes()):
            yield id, file


def first_game(root: Path) -> Path:
    """The first game that is played below a folder of ALFWorld's data, by splits and paths. Raises
    GameFileError if there is none."""
    for folder in FOLDERS.values():
        for _, file in _played(root.expanduser() / folder):
            return file
    raise GameFileError(f"No {_NAME} that can be played was found below {root}: {_FOLDER}.")


def _json(path: Path) -> dict[str, object]:
    try:
        data = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GameFileError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    except ValueError as error:
        raise GameFileError(
            f"{path} is not JSON ({error}), so it is cut off or another file: {_GET}."
        ) from error
    if not isinstance(data, dict):
        raise GameFileError(f"{path} holds no JSON object, so it is not a game: {_GET}.")
    return data
