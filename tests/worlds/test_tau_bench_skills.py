"""Skills for tau_bench: every kind of task has a file, and the rules in them hold."""

from tutelage.hints.bandit import Bandit
from tutelage.hints.bank import load
from tutelage.hints.retrieval import retrieve
from tutelage_worlds.tau_bench import TauBench
from tutelage_worlds.tau_bench.airline import AIRLINE
from tutelage_worlds.tau_bench.database import Database
from tutelage_worlds.tau_bench.generate import FAMILIES
from tutelage_worlds.tau_bench.retail import RETAIL
from tutelage_worlds.tau_bench.suite import find
from tutelage_worlds.tau_bench.tools import Call, perform

BANK = load("tau_bench")


def test_every_tool_that_changes_something_has_its_file() -> None:
    families = {family for skill in BANK.skills for family in skill.families}
    writes = {name for kit in (RETAIL, AIRLINE) for name, tool in kit.items() if tool.writes}
    assert families == {*writes, "several", "tell"}
    assert set(FAMILIES) <= families


def test_generated_tasks_find_a_file_by_their_words_too() -> None:
    suite = TauBench(size="small", train=90)
    right = 0
    for task in suite.tasks("train"):
        (by_family,) = retrieve(BANK, "family", task, "", Bandit())
        by_word = retrieve(BANK, "keyword", task, suite.describe(task), Bandit())
        right += by_word == [by_family]
    assert right >= 60, "of 90, by chance 7"


def test_what_they_say_is_so() -> None:
    suite = TauBench(size="small", train=180)

    def try_(task_family: str, *calls: Call) -> list[str]:
        task = next(t for t in suite.tasks("train") if t.family == task_family)
        world, scenario = find(task)
        data = Database(world.store)
        (change,) = [c for c in scenario.actions if c.name == task_family]
        texts = [perform(world.tools, data, change)]
        for call in calls:
            kwargs = {"order_id": change.kwargs["order_id"], **call.kwargs}
            texts.append(perform(world.tools, data, Call(name=call.name, kwargs=kwargs)))
        return texts

    cancel = Call(name="cancel_pending_order", kwargs={"reason": "no longer needed"})
    move = Call(
        name="modify_pending_order_address",
        kwargs=dict.fromkeys(("address1", "address2", "city", "state", "country", "zip"), "x"),
    )
    done, *refused = try_("modify_pending_order_items", cancel, move)
    assert not done.startswith("Error")
    assert all(texts.startswith("Error: non-pending order") for texts in refused)
    other = Call(name="cancel_pending_order", kwargs={"reason": "too dear"})
    assert "invalid reason" in try_("modify_pending_order_address", other)[1]
    assert not try_("modify_pending_order_address", move)[1].startswith("Error")
    for family in ("return_delivered_order_items", "exchange_delivered_order_items"):
        again = find(next(t for t in suite.tasks("train") if t.family == family))[1].actions[-1]
        assert "non-delivered order" in try_(family, again)[1]
