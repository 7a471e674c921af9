"""Find a number among seven in three guesses. The expert halves what is left."""

from tutelage import Observation, Task


class Guess:
    def tasks(self, split):
        every = [(10 * k + 1, 10 * k + digit) for k in range(1, 10) for digit in range(1, 8)]
        held_out = every[::3]  # 21 of 63
        chosen = held_out if split == "test" else [one for one in every if one not in held_out]
        return [
            Task(id=f"{split}/{secret}", data={"low": low, "secret": secret})
            for low, secret in chosen
        ]

    def make(self):
        return Guess()

    def reset(self, task):
        self.secret, low = task.data["secret"], task.data["low"]
        return Observation(text=f"I think of a number from {low} to {low + 6}. Guess it.")

    def step(self, action):
        if not action.isdecimal():
            return Observation(text="Answer with a number alone.", valid=False)
        won = int(action) == self.secret
        text = "Right!" if won else "Higher." if int(action) < self.secret else "Lower."
        return Observation(text=text, reward=float(won), done=won, won=won or None)

    def close(self):
        pass

    def demonstrate(self, task):
        low, guesses = task.data["low"], []
        high = low + 6
        while not guesses or guesses[-1] != task.data["secret"]:
            guesses.append((low + high) // 2)
            if guesses[-1] < task.data["secret"]:
                low = guesses[-1] + 1
            else:
                high = guesses[-1] - 1
        return [str(guess) for guess in guesses]
