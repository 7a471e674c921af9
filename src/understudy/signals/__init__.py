"""The words algorithms are written in: credits and weights read from a step.

basic     the group-relative credit, the gap to a teacher, who acted, reductions
"""

from understudy.signals.basic import acted_by, episode_mean, gap, group_relative

__all__ = ["acted_by", "episode_mean", "gap", "group_relative"]
