"""A number among fifteen in four guesses: four are just enough for who halves what is left each time."""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage import Observation, Task

LOWS = range(11, 85)
"""The first numbers of the ranges; a number has two digits."""
SPAN = 15
HELD_OUT = 3
"""Of the ranges every third is for evaluation."""


@dataclass(slots=True)
class Guess:
    """Train: 49 ranges of 15 secrets. Test: 25 ranges that are not trained on. Without a thought for the
    answers, four guesses find the secret in 4 of 15 episodes."""

    low: int = 0
    secret: int = 0

    def tasks(self, split: str) -> Sequence[Task]:
        # in every stretch of the tasks all ranges and all places of the secret come up about as often
        lows = [low for n, low in enumerate(LOWS) if (n % HELD_OUT == 0) == (split == "test")]
        return [
            Task(id=f"{split}/{low}/{secret}", data={"low": str(low), "secret": str(secret)})
            for turn in range(SPAN)
            for low, secret in ((low, low + (n + turn) % SPAN) for n, low in enumerate(lows))
        ]

    def make(self) -> "Guess":
        return Guess()

    def reset(self, task: Task) -> Observation:
        self.low, self.secret = _of(task)
        last = self.low + SPAN - 1
        return Observation(text=f"I think of a number from {self.low} to {last}. Guess it.")

    def step(self, action: str) -> Observation:
        if not action.isdecimal():
            return Observation(text="Answer with a number alone.", valid=False)
        guess = int(action)
        if guess == self.secret:
            return Observation(text="Right!", reward=1.0, done=True, won=True)
        return Observation(text="Higher." if guess < self.secret else "Lower.")

    def close(self) -> None:
        pass

    def demonstrate(self, task: Task) -> list[str]:
        """The guesses of an expert that halves what is left."""
        low, secret = _of(task)
        high = low + SPAN - 1
        guesses: list[int] = []
        while not guesses or guesses[-1] != secret:
            guesses.append((low + high) // 2)
            if guesses[-1] < secret:
                low = guesses[-1] + 1
            else:
                high = guesses[-1] - 1
        return [str(guess) for guess in guesses]


def _of(task: Task) -> tuple[int, int]:
    return int(task.data["low"]), int(task.data["secret"])
