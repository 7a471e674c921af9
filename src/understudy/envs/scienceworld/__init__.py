"""ScienceWorld (arXiv:2203.07540): its own simulator, many games to a Java machine."""

from understudy.envs.scienceworld.needs import needs
from understudy.envs.scienceworld.suite import ScienceWorld

__all__ = ["ScienceWorld", "needs"]
