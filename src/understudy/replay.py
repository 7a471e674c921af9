"""Recorded episodes to imitate, read from their file one by one: it may be larger than memory."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from understudy.envs.base import Suite
from understudy.errors import ConfigError, RunError
from understudy.policies.prompts import Prompter
from understudy.record import episode_of
from understudy.rollout import seed_of
from understudy.types import Episode, Observation, Task, Turn


class Replay:
    """The won episodes of an episodes.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: list[int] = []
        try:
            with path.open("rb") as file:
                place = 0
                for number, raw in enumerate(file, 1):
                    if raw.endswith(b"\n") and self._won(raw, number):
                        self.places.append(place)
                    place += len(raw)
        except OSError as error:
            raise ConfigError(f"rollout.replay: {path} cannot be read ({error.strerror})") from None
        if not self.places:
            raise ConfigError(
                f"rollout.replay: {path} holds no won episode; `understudy collect` makes files "
                "that do"
            )

    def _won(self, raw: bytes, number: int) -> bool:
        try:
            return bool(json.loads(raw)["won"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"rollout.replay: line {number} of {self.path} is not an episode; give a file that "
                "`understudy train` or `understudy collect` wrote"
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
    ) -> list[Episode]:
        """Episodes of a step, none twice in it; all of them if there are fewer.

        Raises RunError for episodes that this configuration would not have prompted for alike.
        """
        draw = random.Random(seed_of("replay", seed, step))
        places = draw.sample(self.places, min(count, len(self.places)))
        made = []
        with self.path.open("rb") as file:
            for place in places:
                file.seek(place)
                episode = episode_of(json.loads(file.readline()))
                made.append(self._checked(episode, prompter(episode.task), suite))
        return made

    def _checked(self, episode: Episode, prompter: Prompter, suite: Suite) -> Episode:
        """The episode with everything the environment showed, if its ids are this student's."""
        text = prompter.chat.text(episode.turns[0].tokens) if episode.turns else ""
        if not episode.turns or text != episode.turns[0].text:
            raise RunError(
                f"rollout.replay: {self.path} was recorded with another tokenizer, so its ids mean "
                "other words here; collect episodes with this student's"
            )
        whole = _again(episode, suite)
        turns = zip(prompter.samples(whole), whole.turns, strict=True)
        if not all(sample.prompt[-len(turn.prompt) :] == turn.prompt for sample, turn in turns):
            raise RunError(
                f"rollout.replay: {self.path} was recorded under other prompts; give [context] and "
                "the chat template that it was recorded with, or collect episodes again"
            )
        return whole


def _again(episode: Episode, suite: Suite) -> Episode:
    """What a record leaves out, such as the admissible actions, said by the environment again."""
    env = suite.make()
    try:
        seen = [env.reset(episode.task)]
        seen += [env.step(turn.action) for turn in episode.turns]
    finally:
        env.close()
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
