"""Hindsight: text from finished episodes in the prompts of scoring views, never of acting ones.

Each function returns a `Hindsight`: (episode, turn, group) -> text. With an empty text the view's
prompt is exactly the student's.
"""

from collections.abc import Callable, Sequence

from tutelage.types import Episode

Hindsight = Callable[[Episode, int, Sequence[Episode]], str]
"""(a finished episode, the number of a turn, all episodes of its group in order) -> what a scorer
is shown before that turn."""

WITHHELD = "(withheld)"


def peer_success() -> Hindsight:
    """The first won episode of the group, shown for those that were not won (StepOPSD,
    arXiv:2605.27140)."""

    def text(episode: Episode, turn: int, group: Sequence[Episode]) -> str:
        best = next((e for e in group if e.won), None)
        if episode.won or best is None:
            return ""
        lines = [f"{t.observation.text.strip()}\n> {t.action}" for t in best.turns]
        return "\n".join(["Another attempt at this task, which succeeded:", *lines])

    return text


def next_observations(count: int = 2, *, ablated: bool = False) -> Hindsight:
    """What was seen after a turn's action: the next `count` observations, between them the actions
    with all but their first word masked (OCSD, arXiv:2608.04788). With `ablated` each observation
    is replaced by one fixed phrase and nothing else changes."""
    if count < 1:
        raise ValueError(f"hindsight of observations needs a count of at least 1, got {count}")

    def text(episode: Episode, turn: int, group: Sequence[Episode]) -> str:
        after = episode.turns[turn + 1 : turn + 1 + count]
        if not after:
            return ""
        lines = ["What came after the next action:"]
        for k, t in enumerate(after):
            lines += [f"> {_masked(after[k - 1].action)}"] if k else []
            lines.append(WITHHELD if ablated else t.observation.text.strip())
        return "\n".join(lines)

    return text


def _masked(action: str) -> str:
    first, *rest = action.split() or [""]
    return " ".join([first, *("___" for _ in rest)])


KINDS: dict[str, Callable[[], Hindsight]] = {
    "peer_success": peer_success,
    "next_observations": next_observations,
}
"""The kinds that a configuration can name."""
