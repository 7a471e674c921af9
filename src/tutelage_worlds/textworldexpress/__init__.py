"""textworldexpress: eight short games of TextWorldExpress (arXiv:2208.01174) in its own simulator."""

from tutelage_worlds.textworldexpress.suite import TextWorldExpress, needs

__all__ = ["TextWorldExpress", "needs"]
