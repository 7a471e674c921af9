"""Read and check tau-bench's own files.

These layouts are known by what lies in the folder, and none of their code is run:

a folder of JSON    orders, products and users (or flights, reservations and users), and
                    tasks_train.json, tasks_dev.json, tasks_test.json as far as they are there
tau-bench           its repository's tau_bench/envs/retail or .../airline: the tables below data/,
                    tasks as Python literals in tasks_train.py and so on
tau2-bench          its repository's data/tau2/domains/retail: db.json, tasks.json, split_tasks.json;
                    or .../telecom (see `telecom.files`)
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tutelage.errors import EnvError, first_line
from tutelage_worlds.json_text import parse
from tutelage_worlds.read_once import read_once
from tutelage_worlds.tau_bench import shapes
from tutelage_worlds.tau_bench.airline import AIRLINE
from tutelage_worlds.tau_bench.database import Database, Record, Store
from tutelage_worlds.tau_bench.retail import RETAIL
from tutelage_worlds.tau_bench.scenario import Scenario, World, facts, first_person
from tutelage_worlds.tau_bench.tau2 import TAU2
from tutelage_worlds.tau_bench.telecom import files as telecom
from tutelage_worlds.tau_bench.tools import Call, Tools, perform

SPLITS: Final = ("train", "dev", "test")
TABLES: Final = {
    "retail": ("orders", "products", "users"),
    "airline": ("flights", "reservations", "users"),
}
TOOLS: Final[Mapping[str, Tools]] = {"retail": RETAIL, "airline": AIRLINE}
HOW = (
    "get it with `git clone https://github.com/sierra-research/tau-bench` and name its folder "
    "tau_bench/envs/retail"
)
NO_AIRLINE: Final = (
    "of tau2-bench retail and telecom can be played, not its airline, whose rules are others; "
    "tau-bench's own airline is in its folder tau_bench/envs/airline"
)


@read_once(8)
def load(folder: str) -> World:
    """The world in a folder, read once in a process.

    Raises EnvError, naming file, place and fix, for what is missing or does not fit.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise EnvError(f"there is no folder {folder} with tau-bench's data; {HOW}")
    if telecom.is_telecom(root):
        return telecom.load(root)
    if (root / "db.json").is_file():
        return _tau2(root)
    data = root / "data" if (root / "data").is_dir() else root
    found = [d for d, names in TABLES.items() if (data / f"{names[0]}.json").is_file()]
    if not found:
        if root.parent.name == "domains" or (root / "split_tasks.json").is_file():
            known = "" if root.name != "airline" else f"; {NO_AIRLINE}"
            raise EnvError(
                f"{folder} is a folder of tau2-bench without db.json (retail) or db.toml "
                f"(telecom){known}; get the files again "
                "with `git clone https://github.com/sierra-research/tau2-bench` and name its "
                "folder data/tau2/domains/retail or .../telecom"
            )
        raise EnvError(
            f"{folder} holds neither orders.json (retail) nor flights.json (airline) nor db.json "
            f"(tau2-bench); {HOW}"
        )
    domain = found[0]
    tables = {name: read_json(data / f"{name}.json") for name in TABLES[domain]}
    shapes.tables(domain, tables, data)
    splits = {split: tuple(_tasks(root, domain, split, tables)) for split in SPLITS}
    return World(
        domain=domain,
        store=Store(tables),
        tools=TOOLS[domain],
        policy=_policy(root),
        splits={split: tasks for split, tasks in splits.items() if tasks},
    )


def read_json(path: Path) -> Any:
    """Raises EnvError for a file that is not there or not JSON."""
    try:
        return parse(read_text(path))
    except ValueError as error:
        raise EnvError(f"{path} is not JSON: {error}; get the file again") from error


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EnvError(f"{path} could not be read ({error}); {HOW}") from error


def _policy(root: Path) -> str:
    """The domain's rules, where the folder has them."""
    found = [root / name for name in ("policy.md", "wiki.md") if (root / name).is_file()]
    return read_text(found[0]).strip() if found else ""


def _tasks(
    root: Path, domain: str, split: str, tables: Mapping[str, Mapping[str, Record]]
) -> Iterator[Scenario]:
    path = next(
        (p for p in (root / f"tasks_{split}.json", root / f"tasks_{split}.py") if p.is_file()), None
    )
    if path is None:
        return
    rows = read_json(path) if path.suffix == ".json" else literals(path)
    shapes.fits(rows, [shapes.TASK], str(path))
    for k, task in enumerate(rows):
        identity, requests = facts(task["instruction"])
        calls = [Call(name=a["name"], kwargs=a["kwargs"]) for a in task["actions"]]
        shapes.known(task["user_id"], tables["users"], f"{path}: task {k}", "user")
        shapes.calls(calls, TOOLS[domain], f"{path}: task {k}")
        yield Scenario(
            id=f"tau_bench/{domain}/{split}/{k:04d}",
            user_id=task["user_id"],
            instruction=task["instruction"],
            actions=tuple(calls),
            outputs=tuple(task["outputs"]),
            identity=identity,
            requests=requests,
        )


def literals(path: Path) -> list[Record]:
    """The tasks of a Python file that assigns one list of Task(...) calls, which are not run."""
    try:
        tree = ast.parse(read_text(path))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise EnvError(f"{path} is not Python: {first_line(error)}; get the file again") from error
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign)]
    if len(lists) != 1 or not isinstance(lists[0], ast.List):
        raise EnvError(f"{path} must assign one list of tasks, as tau-bench's files do")
    return [_literal(node, path) for node in lists[0].elts]


def _literal(node: ast.expr, path: Path) -> Any:
    """A value: calls become objects of their keyword arguments."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return {word.arg or "": _literal(word.value, path) for word in node.keywords}
    if isinstance(node, ast.List):
        return [_literal(part, path) for part in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise EnvError(
            f"{path}:{node.lineno}: a task is made of plain values only; get the file again"
        ) from error


# -- tau2-bench


TAU2_BASIS: Final = ["DB", "COMMUNICATE"]
"""What judges a task that does not say, as tau2-bench has it."""


def _tau2(root: Path) -> World:
    """Retail alone: its airline has rules that tau-bench's does not."""
    tables = read_json(root / "db.json")
    if not isinstance(tables, dict) or not set(TABLES["retail"]) <= set(tables):
        raise EnvError(
            f"{root / 'db.json'} has not the tables {', '.join(TABLES['retail'])}; {NO_AIRLINE}"
        )
    tables = {name: tables[name] for name in TABLES["retail"]}
    shapes.tables("retail", tables, root)
    rows = read_json(root / "tasks.json")
    shapes.fits(rows, [shapes.TASK2], str(root / "tasks.json"))
    store = Store(tables)
    by_id = {task["id"]: _scenario2(root, task, store) for task in rows}
    listed = root / "split_tasks.json"
    splits = read_json(listed) if listed.is_file() else {"base": list(by_id)}
    shapes.fits(splits, {"*": [str]}, str(listed))
    for split, ids in splits.items():
        unknown = sorted(set(ids) - set(by_id))
        if unknown:
            raise EnvError(f"{listed}: {split} names {unknown[0]!r}, which is not in tasks.json")
    return World(
        domain="retail",
        store=store,
        tools=TAU2,
        policy=_policy(root),
        splits={split: tuple(by_id[id] for id in ids) for split, ids in splits.items()},
    )


def _scenario2(root: Path, task: Record, store: Store) -> Scenario:
    where = f"{root / 'tasks.json'}: task {task['id']}"
    criteria, instructions = task["evaluation_criteria"], task["user_scenario"]["instructions"]
    basis = criteria.get("reward_basis") or TAU2_BASIS
    shapes.fits(basis, [str], f"{where}: reward_basis")
    if "DB" not in basis or task.get("initial_state"):
        raise EnvError(
            f"{where} is not judged by the database, or begins with a changed one; only tasks of "
            "the plain database criterion can be played"
        )
    calls = tuple(Call(name=a["name"], kwargs=a["arguments"]) for a in criteria["actions"])
    shapes.calls(calls, TAU2, where)
    outputs = (criteria.get("communicate_info") or []) if "COMMUNICATE" in basis else []
    shapes.fits(outputs, [str], f"{where}: communicate_info")
    words = shapes.words(instructions, f"{where}: instructions")
    return Scenario(
        id=f"tau2_bench/retail/{task['id']}",
        user_id=_owner(calls, store),
        instruction=" ".join(words),
        actions=calls,
        outputs=tuple(outputs),
        identity=first_person(instructions["known_info"]),
        requests=(first_person(instructions["reason_for_call"]),),
    )


def _owner(calls: tuple[Call, ...], store: Store) -> str:
    """Whom a task is about: those of tau2-bench say it only by how the customer is looked up."""
    for call in calls:
        if call.name.startswith("find_user"):
            return perform(TAU2, Database(store), call)
    return ""
