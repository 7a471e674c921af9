"""TravelPlanner (arXiv:2402.01622) in pure Python: its tools, constraints and rates."""

from tutelage_worlds.travelplanner.env import TravelPlannerEnv, Trip
from tutelage_worlds.travelplanner.judge import Rates, Verdict, judge, rates
from tutelage_worlds.travelplanner.query import Query
from tutelage_worlds.travelplanner.suite import TravelPlanner, needs

__all__ = [
    "Query",
    "Rates",
    "TravelPlanner",
    "TravelPlannerEnv",
    "Trip",
    "Verdict",
    "judge",
    "needs",
    "rates",
]
