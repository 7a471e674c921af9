"""TravelPlanner (arXiv:2402.01622) in pure Python: its tools, constraints and rates."""

from understudy.envs.travelplanner.env import TravelPlannerEnv, Trip
from understudy.envs.travelplanner.judge import Rates, Verdict, judge, rates
from understudy.envs.travelplanner.needs import needs
from understudy.envs.travelplanner.query import Query
from understudy.envs.travelplanner.suite import TravelPlanner

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
