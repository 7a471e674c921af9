"""ScienceWorld (arXiv:2203.07540): its own simulator, with many games in one JVM."""

from tutelage_worlds.scienceworld.suite import ScienceWorld, needs

__all__ = ["ScienceWorld", "needs"]
