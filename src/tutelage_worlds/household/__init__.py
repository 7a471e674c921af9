"""Household: ALFWorld's text games (arXiv:2010.03768), rules and games, in pure Python."""

from tutelage_worlds.household.engine import Game
from tutelage_worlds.household.expert import explore, plan
from tutelage_worlds.household.gamefile import GameFileError, read, write
from tutelage_worlds.household.generate import generate
from tutelage_worlds.household.scene import Scene
from tutelage_worlds.household.suite import Household, needs

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
