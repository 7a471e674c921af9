"""travelplanner by calls in a model's own format: searches, the notebook, the plan."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from tutelage.envs.tool_suite import Spoken, ToolEnv, call_text, listed
from tutelage.types import Episode
from tutelage_worlds.travelplanner import itinerary, tools
from tutelage_worlds.travelplanner.judge import rates

DAY: Final = (
    "current_city",
    "transportation",
    "breakfast",
    "attraction",
    "lunch",
    "dinner",
    "accommodation",
)
"""What a day of a plan holds, as texts."""
SEARCHES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "FlightSearch": ("flights", ("departure_city", "destination_city", "date")),
    "GoogleDistanceMatrix": ("roads between two cities", ("origin", "destination", "mode")),
    "AccommodationSearch": ("where to sleep in a city", ("city",)),
    "RestaurantSearch": ("where to eat in a city", ("city",)),
    "AttractionSearch": ("what to see in a city", ("city",)),
    "CitySearch": ("the cities of a state", ("state",)),
    "NotebookWrite": (
        "note what the last search found, with a short description",
        ("description",),
    ),
    "Planner": (
        "end the search: nothing but the notes and this query is shown to the planner",
        ("query",),
    ),
}
"""What is done before the planning, and the arguments in their order."""
FINISH: Final = ("Finish", "hand the whole plan in, which ends the work", ("plan",))
DETAILS: Final[Mapping[str, Mapping[str, Any]]] = {
    "date": {"description": "such as 2022-03-16"},
    "mode": {"enum": ["self-driving", "taxi"]},
    "plan": {"description": "all days, in the form that was explained"},
}


def _function(name: str, about: str, arguments: Sequence[str]) -> dict[str, Any]:
    properties = {each: {"type": "string", **DETAILS.get(each, {})} for each in arguments}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"name": name, "description": about, "parameters": parameters}


def _enquiry() -> dict[str, Any]:
    function = _function("CostEnquiry", "what one day of a plan costs", DAY)
    numbers = {"people_number": {"type": "integer"}, "day": {"type": "integer"}}
    parameters = function["parameters"]
    parameters["properties"] = {**numbers, **parameters["properties"]}
    parameters["required"] = [*numbers, *parameters["required"]]
    return function


class TravelPlannerCalls(Spoken):
    """The plan itself is a text, as an argument of Finish, or as an answer without a call."""

    def tools(self) -> list[dict[str, Any]]:
        searches = SEARCHES.items() if self.suite.mode == "two-stage" else ()
        found = [_function(name, about, arguments) for name, (about, arguments) in searches]
        return [*found, _enquiry(), _function(*FINISH)]

    def instructions(self) -> str:
        return str(self.suite.rules())

    def action(self, name: str, arguments: Mapping[str, Any]) -> str:
        if name == "CostEnquiry":
            return f"{name}[{json.dumps(arguments, ensure_ascii=False)}]"
        order = SEARCHES[name][1] if name in SEARCHES else FINISH[2]
        return f"{name}[{', '.join(str(arguments[key]) for key in order)}]"

    def answer_of(self, action: str) -> str:
        name, argument = tools.parse(action)
        if name == "CostEnquiry":
            day = itinerary.literal(argument)
            assert isinstance(day, dict), action
            return call_text(name, day)
        if name in SEARCHES:
            keys = SEARCHES[name][1]
            parts = argument.split(", ") if len(keys) > 1 else [argument]
            return call_text(name, dict(zip(keys, parts, strict=True)))
        plan = action.strip().removeprefix("Finish[")
        plan = plan.removesuffix("]") if plan != action.strip() else plan
        return call_text(FINISH[0], {"plan": plan})

    def reply(self, content: str) -> str:
        return content

    def summarise(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        return asdict(rates(map(self._judged, episodes))) if episodes else {}

    def _judged(self, episode: Episode) -> Any:
        env = self.make()
        functions = listed(self.tools(), where=self.class_name)
        self.suite.replay(episode, ToolEnv(env, functions, name=self.class_name))
        return env.env.verdict
