"""The bfcl environment: a conversation with a user for whom functions are called."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tutelage.envs.agents.tools import read
from tutelage.types import Observation, Task
from tutelage_worlds.bfcl import package, wording
from tutelage_worlds.bfcl.game import Game
from tutelage_worlds.bfcl.scenario import Call, Scenario
from tutelage_worlds.bfcl.wording import Docs

Reward = Literal["won", "turns"]


class BFCLEnv:
    """One conversation at a time.

    An answer without a call ends the user's turn, which is then judged (see `game`). The episode ends
    after the last turn, or when one turn has had too many answers, as in the benchmark.

    native  answers are calls of a chat template, so functions and results are not put in words
    """

    def __init__(
        self,
        find: Callable[[Task], Scenario],
        *,
        native: bool,
        reward: Reward,
        docs: Docs,
        early: bool,
        limit: int,
    ) -> None:
        self._find, self._native, self._reward = find, native, reward
        self._docs, self._early, self._limit = docs, early, limit
        self._game: Game | None = None
        self._over = True

    def reset(self, task: Task) -> Observation:
        scenario = self._find(task)
        self._game, self._over = Game(scenario), False
        says = self._message(self._game)
        if not self._native:
            opening = wording.opening(scenario, self._game.offered(), self._docs)
            says = f"{opening}\n\n{says}".strip()
        return self._observe(self._game, says)

    def step(self, action: str) -> Observation:
        """Calls, where actions are texts; words to the user."""
        game = self._playing()
        found = read(action, package.parameters()) if not self._native else None
        if found is not None and found.problem:
            return self._refused(game, found.problem)
        if found is not None and found.calls:
            calls = [(each.name, json.loads(each.arguments)) for each in found.calls]
            return self.calls(calls)
        if not action.strip():
            return self._refused(game, "the answer is empty")
        return self._answered(game)

    def calls(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> Observation:
        """All calls of one answer."""
        game = self._playing()
        known = all(name in game.apis.owners and package.fits(name, given) for name, given in calls)
        results = game.make([Call(name=name, arguments=given) for name, given in calls])
        return self._after(game, tuple(self._cut(each) for each in results), valid=known)

    def close(self) -> None:
        self._game, self._over = None, True

    # -- turns

    def _playing(self) -> Game:
        if self._game is None or self._over:
            raise RuntimeError("No conversation is under way: call reset(task) before step.")
        return self._game

    def _refused(self, game: Game, reason: str) -> Observation:
        game.make([])
        text = f"Error: {reason}. No function was called."
        return self._after(game, (text,), valid=False)

    def _after(self, game: Game, results: tuple[str, ...], *, valid: bool) -> Observation:
        """What an answer with calls is told; too many of them in one turn lose the task."""
        self._over = game.answers > package.most_answers()
        text = "\n".join(results)
        return self._observe(game, text, valid=valid, results=results if self._native else ())

    def _answered(self, game: Game) -> Observation:
        before = game.right
        game.finish_turn()
        self._over = game.over or (self._early and bool(game.wrong))
        says = "The conversation is over." if self._over else self._message(game)
        return self._observe(game, says, gained=game.right - before)

    def _message(self, game: Game) -> str:
        """The user's next message, with the functions that come with it."""
        turn = game.now
        says = turn.says if self._native else f"{wording.USER}{turn.says}"
        if not turn.added:
            return says
        return f"{wording.added(game.scenario, turn.added, self._docs)}\n\n{says}"

    def _cut(self, text: str) -> str:
        if len(text) <= self._limit:
            return text or "(nothing)"
        return f"{text[: self._limit]} ... ({len(text) - self._limit} more characters)"

    def _observe(
        self,
        game: Game,
        text: str,
        *,
        valid: bool = True,
        gained: int = 0,
        results: tuple[str, ...] = (),
    ) -> Observation:
        turns = len(game.scenario.turns)
        won = game.over and not game.wrong
        reward = gained / turns if self._reward == "turns" else float(won)
        return Observation(
            text=text,
            reward=reward,
            done=self._over,
            state=(game.scenario.id, game.turn, game.wrong, game.apis.mark()),
            score=game.right / turns,
            won=won if self._over else None,
            valid=valid,
            results=results,
        )
