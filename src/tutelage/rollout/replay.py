"""Recorded episodes to imitate or to continue, read one by one: their file may exceed memory."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tutelage.config.plain_file import open_plain
from tutelage.envs import guard
from tutelage.envs.base import Suite
from tutelage.errors import ConfigError, RunError
from tutelage.prompts.prompter import Prompter
from tutelage.rollout.record import episode_of
from tutelage.seeding import seed_of
from tutelage.types import Episode, Observation, Task, Turn


class Replay:
    """The won episodes of an episodes.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: list[tuple[str, int]] = []  # task and where its episode begins
        try:
            with open_plain(path) as file:
                place = 0
                for number, raw in enumerate(file, 1):
                    if raw.endswith(b"\n") and (task := self._won(raw, number)) is not None:
                        self.places.append((task, place))
                    place += len(raw)
        except OSError as error:
            raise ConfigError(f"rollout.replay: {path} cannot be read ({error.strerror})") from None
        if not self.places:
            raise ConfigError(
                f"rollout.replay: {path} holds no won episode; `tutelage collect` makes files "
                "that do"
            )

    def _won(self, raw: bytes, number: int) -> str | None:
        """The task of a line, if it was won."""
        try:
            line = json.loads(raw)
            return str(line["task"]["id"]) if line["won"] else None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(
                f"rollout.replay: line {number} of {self.path} is not an episode; give a file that "
                "`tutelage train` or `tutelage collect` wrote"
            ) from None

    def __len__(self) -> int:
        return len(self.places)

    def choose(
        self,
        count: int,
        prompter: Callable[[Task], Prompter],
        suite: Suite,
        *,
        seed: int,
        step: int,
        once: bool = False,
    ) -> list[Episode]:
        """Episodes of a step, none twice in it; all of them if there are fewer. With `once`, no
        task is twice in it either.

        Raises RunError for episodes that this configuration would not have prompted for alike.
        """
        draw = random.Random(seed_of("replay", seed, step))
        order = draw.sample(self.places, len(self.places) if once else min(count, len(self.places)))
        first = dict(reversed(order))  # of each task, the first episode in this order
        places = [p for t, p in order if not once or first[t] == p][:count]
        episodes = []
        with self.path.open("rb") as file:
            for place in places:
                file.seek(place)
                episode = episode_of(json.loads(file.readline()))
                episodes.append(self._checked(episode, prompter(episode.task), suite))
        return episodes

    def _checked(self, episode: Episode, prompter: Prompter, suite: Suite) -> Episode:
        """The episode with everything the environment showed, if its ids are this student's."""
        text = prompter.chat.text(episode.turns[0].tokens) if episode.turns else ""
        if not episode.turns or text != episode.turns[0].text:
            raise RunError(
                f"rollout.replay: {self.path} was recorded with another tokenizer, so its ids mean "
                "other words here; collect episodes with this student's"
            )
        complete = _again(episode, suite)
        turns = zip(prompter.samples(complete), complete.turns, strict=True)
        if not all(sample.prompt[-len(turn.prompt) :] == turn.prompt for sample, turn in turns):
            raise RunError(
                f"rollout.replay: {self.path} was recorded under other prompts; give [context] and "
                "the chat template that it was recorded with, or collect episodes again"
            )
        return complete


def _again(episode: Episode, suite: Suite) -> Episode:
    """What a record leaves out, such as the admissible actions: the episode is played again."""
    with guard.open_env(suite) as env:
        seen = [guard.attempt("reset", partial(env.reset, episode.task))]
        for turn in episode.turns:
            seen.append(guard.attempt("step", partial(env.step, turn.action)))
    return _with(episode, seen)


def _with(episode: Episode, seen: list[Observation]) -> Episode:
    turns: list[Turn] = []
    for turn, observation in zip(episode.turns, seen[:-1], strict=True):
        if observation.text != turn.observation.text:
            raise RunError(
                f"rollout.replay: task {episode.task.id} no longer goes as it was recorded; the "
                "environment has changed, so collect episodes again"
            )
        turns.append(replace(turn, observation=observation))
    return replace(episode, turns=tuple(turns))
