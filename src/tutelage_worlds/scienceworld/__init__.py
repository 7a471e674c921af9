"""ScienceWorld (arXiv:2203.07540): its own simulator, many games to a Java machine."""

from tutelage_worlds.scienceworld.suite import ScienceWorld, needs

__all__ = ["ScienceWorld", "needs"]
