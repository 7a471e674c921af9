"""bfcl: the multi-turn tasks of the Berkeley Function Calling Leaderboard, in its own simulated APIs."""

from tutelage_worlds.bfcl.suite import BFCL, needs

__all__ = ["BFCL", "needs"]
