"""Judge plans, search and ask for costs with TravelPlanner's own code, in a Python that has pandas:

    python travelplanner_original.py CLONE < questions > answers

CLONE is a clone of TravelPlanner with a database in it. A line of questions is JSON: a kind and its
arguments; the line of answers in the same place holds what the original says, null where it stops
with an exception.
"""

import contextlib
import io
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

CLONE = os.path.abspath(sys.argv[1])
os.chdir(os.path.join(CLONE, "evaluation"))
sys.path[:0] = [CLONE, os.path.join(CLONE, "evaluation"), os.path.join(CLONE, "tools", "planner")]
sys.modules["gradio"] = types.ModuleType("gradio")

with contextlib.redirect_stdout(io.StringIO()):
    import commonsense_constraint as commonsense
    import hard_constraint as hard
    from env import ReactEnv
    from tools.cities.apis import Cities
    from tools.notebook.apis import Notebook

    costs, cities = ReactEnv(), Cities("../database/background/citySet_with_states.txt")

CHECKS = {
    "within_sandbox": commonsense.is_valid_information_in_sandbox,
    "complete_information": commonsense.is_not_absent,
    "within_current_city": commonsense.is_valid_information_in_current_city,
    "reasonable_city_route": commonsense.is_reasonable_visiting_city,
    "diverse_restaurants": commonsense.is_valid_restaurants,
    "diverse_attractions": commonsense.is_valid_attractions,
    "non_conflicting_transportation": commonsense.is_valid_transportation,
    "minimum_nights_stay": commonsense.is_valid_accommodaton,
}
HARD = {
    "room_rule": hard.is_valid_room_rule,
    "cuisine": hard.is_valid_cuisine,
    "room_type": hard.is_valid_room_type,
    "transportation": hard.is_valid_transportation,
    "budget": lambda query, plan: (bool(hard.get_total_cost(query, plan) <= query["budget"]), None),
}


def met(check: Callable[..., Any], query: Any, plan: Any) -> Any:
    try:
        return check(query, plan)[0]
    except Exception:
        return None


def judge(query: Any, plan: Any) -> dict[str, Any]:
    verdicts = {name: met(check, query, plan) for name, check in CHECKS.items()}
    verdicts["hard"] = None
    if verdicts["complete_information"] and verdicts["within_sandbox"]:
        verdicts["hard"] = {name: met(check, query, plan) for name, check in HARD.items()}
        verdicts["cost"] = float(hard.get_total_cost(query, plan))
    return verdicts


def text(found: Any) -> str:
    return found if isinstance(found, str) else found.to_string(index=False)


def answer(kind: str, *given: Any) -> Any:
    if kind == "judge":
        return judge(*given)
    if kind == "cost":
        return costs.run(*given)
    if kind == "flights":
        return text(costs.flight.run(*given))
    if kind == "road":
        return costs.googleDistanceMatrix.run(*given)
    if kind == "cities":
        return str(cities.run(*given))
    if kind == "notebook":
        book = Notebook()
        for note in given[0]:
            book.write(note[1], note[0])
        return str(book.list_all())
    return text(getattr(costs, kind).run(*given))


def main() -> None:
    for line in sys.stdin:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                result = answer(*json.loads(line))
            except Exception:
                result = None
        print(json.dumps(result), flush=True)


main()
