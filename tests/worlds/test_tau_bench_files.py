"""tau-bench's files: layouts, tasks if available, and error messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tau_bench_shop import CANCEL, DATA, airline_tables, tables, written

from tutelage.errors import EnvError
from tutelage_worlds.tau_bench import TauBench, load
from tutelage_worlds.tau_bench.expert import ORDER
from tutelage_worlds.tau_bench.files import literals
from tutelage_worlds.tau_bench.scenario import facts
from tutelage_worlds.tau_bench.suite import find

LITERAL = """
from tau_bench.types import Task, Action

TASKS_TEST = [
    Task(
        annotator="0",
        user_id="ada_1",
        instruction="You are Ada Quill from zip code 83702. Cancel order #W4 because "
        "no longer needed. ",
        actions=[
            Action(name="get_order_details", kwargs={"order_id": "#W4"}),
            Action(
                name="cancel_pending_order",
                kwargs={"order_id": "#W4", "reason": "no longer needed"},
            ),
        ],
        outputs=["30"],
    ),
]
"""
TASK2: dict[str, Any] = {
    "id": "7",
    "user_scenario": {
        "instructions": {
            "known_info": "You are Ada Quill from zip code 83702.",
            "unknown_info": None,
            "reason_for_call": "You want to cancel order #W4, no longer needed.",
            "task_instructions": ".",
        }
    },
    "initial_state": None,
    "evaluation_criteria": {
        "actions": [
            {
                "name": "find_user_id_by_name_zip",
                "arguments": {"first_name": "Ada", "last_name": "Quill", "zip": "83702"},
            },
            {"name": "get_item_details", "arguments": {"item_id": "201"}},
            {
                "name": "cancel_pending_order",
                "arguments": {"order_id": "#W4", "reason": "no longer needed"},
            },
        ],
        "communicate_info": ["30"],
        "reward_basis": ["DB", "NL_ASSERTION"],
    },
}


def wins(suite: TauBench, split: str) -> None:
    for task in suite.tasks(split):
        for way in (suite.plan(task), suite.demonstrate(task)):
            env = suite.make()
            env.reset(task)
            shown = [env.step(action) for action in way]
            assert [o.done for o in shown] == [False] * (len(way) - 1) + [True], task.id
            assert (shown[-1].won, shown[-1].reward, shown[-1].score) == (True, 1.0, 1.0), task.id
            assert all(o.valid for o in shown), task.id


# -- layouts


def test_a_folder_of_json(tmp_path: Path) -> None:
    suite = TauBench(data=str(written(tmp_path, train=[CANCEL], dev=[])))
    (task,) = suite.tasks("train")
    assert (task.id, task.family) == ("tau_bench/retail/train/0000", "cancel_pending_order")
    wins(suite, "train")
    assert suite.describe(task) == "Cancel order #W4 because no longer needed."
    for split in ("dev", "test", "x"):
        with pytest.raises(ValueError, match=r"no tasks of a split .*it has train: get it with"):
            suite.tasks(split)
    assert "Hand the customer over" in suite.instructions()
    (tmp_path / "policy.md").write_text("Be kind to cats.\n")
    suite = TauBench(data=str(tmp_path))
    assert "Be kind to cats." in suite.instructions()
    assert "Hand the customer over" not in suite.instructions()


def test_the_repository_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    written(tmp_path / "data")
    (tmp_path / "tasks_test.py").write_text(LITERAL)
    (tmp_path / "wiki.md").write_text("The rules of the house.")
    suite = TauBench(data=str(tmp_path))
    wins(suite, "test")
    scenario = find(suite.tasks("test")[0])[1]
    assert scenario.outputs == ("30",)
    assert [call.name for call in scenario.actions] == ["get_order_details", "cancel_pending_order"]
    assert "The rules of the house." in suite.instructions()


def test_an_airline(tmp_path: Path) -> None:
    for name, table in airline_tables().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    cancel = {
        "user_id": "ada_1",
        "instruction": "Your user id is ada_1. Cancel R1.",
        "outputs": [],
        "actions": [{"name": "cancel_reservation", "kwargs": {"reservation_id": "R1"}}],
    }
    away = {**cancel, "actions": [{"name": "transfer_to_human_agents", "kwargs": {"summary": ""}}]}
    (tmp_path / "tasks_test.json").write_text(json.dumps([cancel, away]))
    suite = TauBench(data=str(tmp_path))
    wins(suite, "test")
    assert [task.family for task in suite.tasks("test")] == ["cancel_reservation", "tell"]
    assert "transfer" in suite.plan(suite.tasks("test")[1])[-1]
    assert "Cancelled flights" not in suite.instructions()
    wins(TauBench(data=str(tmp_path), transfer=False), "test")


def test_tau2_bench_by_the_database_alone(tmp_path: Path) -> None:
    (tmp_path / "db.json").write_text(json.dumps(tables()))
    (tmp_path / "tasks.json").write_text(json.dumps([TASK2]))
    suite = TauBench(data=str(tmp_path))
    assert [task.id for task in suite.tasks("base")] == ["tau2_bench/retail/7"]
    wins(suite, "base")
    world, scenario = find(suite.tasks("base")[0])
    assert (scenario.outputs, scenario.user_id) == ((), "ada_1")
    assert "get_item_details" in world.tools
    (tmp_path / "split_tasks.json").write_text('{"train": [], "test": ["7"]}')
    load.cache_clear()
    assert len(suite.tasks("test")) == 1
    (tmp_path / "split_tasks.json").write_text('{"test": ["8"]}')
    load.cache_clear()
    with pytest.raises(EnvError, match=r"split_tasks.json: test names '8', which is not in tasks"):
        suite.tasks("test")


@pytest.mark.parametrize("basis", [None, ["DB", "COMMUNICATE"], "left out"])
def test_tau2_judges_by_what_was_told_too(tmp_path: Path, basis: object) -> None:
    criteria = {**TASK2["evaluation_criteria"], "reward_basis": basis}
    if basis == "left out":
        del criteria["reward_basis"]
    (tmp_path / "db.json").write_text(json.dumps(tables()))
    (tmp_path / "tasks.json").write_text(json.dumps([{**TASK2, "evaluation_criteria": criteria}]))
    suite = TauBench(data=str(tmp_path))
    assert find(suite.tasks("base")[0])[1].outputs == ("30",)
    wins(suite, "base")


@pytest.mark.parametrize(
    "changed", [{"reward_basis": ["NL_ASSERTION"]}, {"actions": [{"name": "x", "arguments": {}}]}]
)
def test_tau2_tasks_that_the_database_cannot_judge(tmp_path: Path, changed: dict[str, Any]) -> None:
    criteria = {**TASK2["evaluation_criteria"], **changed}
    (tmp_path / "db.json").write_text(json.dumps(tables()))
    (tmp_path / "tasks.json").write_text(json.dumps([{**TASK2, "evaluation_criteria": criteria}]))
    with pytest.raises(EnvError, match=r"task 7 (is not judged|has the action 'x')"):
        load(str(tmp_path))


@pytest.mark.parametrize("part", ["unknown_info", "task_instructions"])
def test_tau2_tells_a_customer_texts_alone(tmp_path: Path, part: str) -> None:
    story = {**TASK2["user_scenario"]["instructions"], part: {"a": 1}}
    (tmp_path / "db.json").write_text(json.dumps(tables()))
    task = {**TASK2, "user_scenario": {"instructions": story}}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    with pytest.raises(EnvError, match=rf"task 7: instructions: {part} must be text"):
        load(str(tmp_path))


def test_tau2_has_retail_only(tmp_path: Path) -> None:
    (tmp_path / "db.json").write_text("{}")
    with pytest.raises(EnvError, match="retail and telecom can be played"):
        load(str(tmp_path))


@pytest.mark.parametrize("domain", ["airline", "retail"])
def test_tau2_without_its_tables(domain: str, tmp_path: Path) -> None:
    folder = tmp_path / "domains" / domain
    folder.mkdir(parents=True)
    (folder / "tasks.json").write_text("[]")
    with pytest.raises(EnvError, match=r"tau2-bench without db\.json.*sierra-research/tau2-bench"):
        load(str(folder))
    with pytest.raises(EnvError) as error:
        load(str(folder))
    assert ("not its airline" in str(error.value)) == (domain == "airline")


ODD = ({"order_id": ["#W4"]}, {"order_id": "#W4", "new_item_ids": ["1"]}, {"name": "x"})


@pytest.mark.parametrize("kwargs", [*ODD, {**ODD[1], "item_ids": 3}, {"zip": "1", "data": 3}])
def test_actions_with_other_arguments_are_tried_as_they_are(
    tmp_path: Path, kwargs: dict[str, Any]
) -> None:
    """They change nothing, and an expert does not mind."""
    actions = [*CANCEL["actions"], {"name": "exchange_delivered_order_items", "kwargs": kwargs}]
    suite = TauBench(data=str(written(tmp_path, train=[{**CANCEL, "actions": actions}])))
    (task,) = suite.tasks("train")
    for way in (suite.plan(task), suite.demonstrate(task)):
        env = suite.make()
        env.reset(task)
        assert [env.step(action).won for action in way][-1]


def test_a_customer_may_have_more_names(tmp_path: Path) -> None:
    folder = written(tmp_path, train=[CANCEL])
    users = json.loads((folder / "users.json").read_text())
    for user in users.values():
        user["name"] |= {"zip": "1", "thought": "x", "middle_name": "y"}
    (folder / "users.json").write_text(json.dumps(users))
    wins(TauBench(data=str(folder)), "train")


# -- what is wrong


def test_what_is_not_there_is_named_with_a_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"there is no folder .*git clone https"):
        load(str(tmp_path / "x"))
    with pytest.raises(EnvError, match=r"holds neither orders.json .*git clone https"):
        load(str(tmp_path))
    written(tmp_path)
    (tmp_path / "users.json").unlink()
    with pytest.raises(EnvError, match=r"users.json could not be read"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("users.json", "{", r"users.json is not JSON: Expecting .* line 1"),
        ("users.json", "[" * 100_000, r"users.json is (nested too deeply|not JSON)"),
        ("users.json", "[]", r"users.json must be an object"),
        ("users.json", '{"a": 1}', r"users.json: a must be an object"),
        ("users.json", '{"a": {}}', r"users.json: a has no 'name'"),
        ("tasks_train.json", "{}", r"tasks_train.json must be a list"),
        ("tasks_train.json", '[{"user_id": 1}]', r"tasks_train.json: 0: user_id must be text"),
        (
            "tasks_test.json",
            json.dumps([{**CANCEL, "user_id": "x"}]),
            r"tasks_test.json: task 0 names the user x, which is in no file",
        ),
        (
            "tasks_test.json",
            json.dumps([{**CANCEL, "actions": [{"name": "cancel_pending_orders", "kwargs": {}}]}]),
            r"no tool of this domain; did you mean cancel_pending_order\?",
        ),
        ("tasks_test.json", json.dumps([{**CANCEL, "outputs": [1]}]), r"outputs: 0 must be text"),
        ("tasks_test.py", "x =", r"tasks_test.py is not Python"),
        ("tasks_test.py", "x = 1", r"tasks_test.py must assign one list"),
        (
            "tasks_test.py",
            "x = [Task(user_id=open('secret').read())]",
            r"tasks_test.py:1: a task is made of plain values only",
        ),
        ("tasks_test.py", "x = [Task(user_id='a' * 3)]", r":1: a task is made of plain values"),
        ("tasks_test.py", "x = [Task(user_id={[]: 1})]", r":1: a task is made of plain values"),
        ("tasks_test.py", f"x = [{'(' * 150_000}]", r"tasks_test.py is not Python"),
        *(
            (
                "products.json",
                json.dumps(tables()["products"]).replace('"price": 30.0', f'"price": {price}', 1),
                "price must be a number",
            )
            for price in ("NaN", "-Infinity", "1" * 400)
        ),
    ],
)
def test_a_broken_file_is_named_with_the_place(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    written(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(EnvError, match=message):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("table", "path", "value", "message"),
    [
        ("orders", ("#W1", "user_id"), "x", r"orders.json: #W1 names the user x"),
        ("orders", ("#W1", "payment_history"), [], r"#W1: payment_history must be not empty"),
        ("orders", ("#W1", "items", 0, "price"), "1", r"#W1: items: 0: price must be a number"),
        ("orders", ("#W1", "items", 0, "price"), True, r"#W1: items: 0: price must be a number"),
        ("orders", ("#W1", "items", 0, "product_id"), "x", r"#W1 names the product x"),
        ("products", ("100", "variants", "101", "available"), 1, r"available must be true or f"),
        (
            "users",
            ("ada_1", "payment_methods", "gift_card_1"),
            {"source": "gift_card"},
            r"users.json: ada_1: payment_methods: gift_card_1 has no 'balance'",
        ),
    ],
)
def test_records_that_the_rules_could_not_work_on(
    tmp_path: Path, table: str, path: tuple[Any, ...], value: object, message: str
) -> None:
    result = tables()
    place: Any = result[table]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    written(tmp_path)
    (tmp_path / f"{table}.json").write_text(json.dumps(result[table]))
    with pytest.raises(EnvError, match=message):
        load(str(tmp_path))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "users.json").write_bytes(b"\xff\xfe")
    with pytest.raises(EnvError, match=r"users.json could not be read"):
        load(str(tmp_path))


def test_literals_are_read_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    path.write_text("import nowhere\nT: list = [Task(a=1, b=[A(c={'d': None})], e='f' 'g')]")
    assert literals(path) == [{"a": 1, "b": [{"c": {"d": None}}], "e": "fg"}]


# -- instructions


@pytest.mark.parametrize(
    ("instruction", "identity", "requests"),
    [
        ("", "", ()),
        ("You are Ann.", "I am Ann.", ()),
        (
            "You're Ann. You are shy. You want your hat; You also want yours.",
            "I'm Ann.",
            ("I want my hat;", "I also want mine."),
        ),
        (
            "Your name is Ann. You are logical, busy. For #W1, change payment to x. For #W2, modify "
            "Lamp {'a': 'b'} to {}; via y. Return #W3 via z: A; B; For #W4, exchange C to D; via y. ",
            "My name is Ann.",
            (
                "For #W1, change payment to x.",
                "For #W2, modify Lamp {'a': 'b'} to {}; via y.",
                "Return #W3 via z: A; B;",
                "For #W4, exchange C to D; via y.",
            ),
        ),
    ],
)
def test_instructions_become_the_customers_words(
    instruction: str, identity: str, requests: tuple[str, ...]
) -> None:
    assert facts(instruction) == (identity, requests)


# -- tau-bench's own tasks, where they are at hand


@pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}")
def test_all_tasks_at_hand_are_won_by_their_own_actions() -> None:
    suite = TauBench(data=str(DATA))
    assert [len(suite.tasks(split)) for split in ("train", "dev")] == [500, 20]
    for split in ("train", "dev"):
        wins(suite, split)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}")
def test_demonstrations_of_theirs_use_ids_that_were_seen() -> None:
    suite = TauBench(data=str(DATA))
    for task in [*suite.tasks("train")[::10], *suite.tasks("dev")]:
        env = suite.make()
        seen = env.reset(task).text
        for action in suite.demonstrate(task):
            for order in ORDER.findall(action):
                assert order in seen, task.id
            seen += env.step(action).text


@pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}")
def test_doing_nothing_wins_no_task_that_changes_something() -> None:
    suite = TauBench(data=str(DATA))
    free = []
    for task in [*suite.tasks("train"), *suite.tasks("dev")]:
        env = suite.make()
        shown = env.reset(task)
        while not shown.done:
            shown = env.step("Is there anything else?")
        if shown.won:
            free.append(task.id)
    # five whose own action fails for want of balance, and one that asks for nothing: as upstream
    assert [id.removeprefix("tau_bench/retail/") for id in free] == [
        "train/0161",
        "train/0214",
        "train/0229",
        "train/0288",
        "train/0349",
        "dev/0017",
    ]
