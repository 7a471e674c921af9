"""The household: ALFWorld's text games (arXiv:2010.03768), rules and games, in pure Python."""

from understudy.envs.household.engine import Game
from understudy.envs.household.expert import explore, plan
from understudy.envs.household.gamefile import GameFileError, read, write
from understudy.envs.household.generate import generate
from understudy.envs.household.needs import needs
from understudy.envs.household.scene import Scene
from understudy.envs.household.suite import Household

__all__ = [
    "Game",
    "GameFileError",
    "Household",
    "Scene",
    "explore",
    "generate",
    "needs",
    "plan",
    "read",
    "write",
]
