"""Which tasks a step plays, and which of its groups it learns from.

Without dynamic sampling, one batch of tasks is drawn, and all of it is learnt from. With it
(DAPO, arXiv:2503.14476, eq. 11 and algorithm 1: `Acting.max_batches`), further batches of tasks
that the step has not played yet follow until as many groups as were wanted have returns that differ.
What is drawn depends on the seed, the step and the round alone, so that a resumed run draws it
again.
"""

import random
from collections.abc import Sequence

from tutelage.maths.advantages import EQUAL_RETURNS
from tutelage.objective import Algorithm
from tutelage.rollout.play import play
from tutelage.rollout.session import Session
from tutelage.seeding import seed_of
from tutelage.types import Episode, Task


def step_size(
    algorithm: Algorithm, available: int, *, count: int, group_size: int
) -> tuple[int, int]:
    """The different tasks of a step, and the episodes of each: `count` and `group_size`, except
    where an expert plays.

    An expert shows a task in the same way each time, so that its copies would teach nothing more:
    it plays `count * group_size` different tasks once, or all that are available where there are
    fewer.
    """
    if algorithm.acting.expert:
        return min(count * group_size, available), 1
    return count, group_size


def gather(
    session: Session,
    tasks: Sequence[Task],
    algorithm: Algorithm,
    *,
    count: int,
    group_size: int,
    seed: int,
    step: int,
) -> list[Episode]:
    """Play a step's episodes, and those of further batches of tasks as the algorithm asks for: all
    that was played, in the order of rounds.

    count, group_size  as `step_size` takes them
    """
    count, group_size = step_size(algorithm, len(tasks), count=count, group_size=group_size)
    draw = random.Random(seed_of("tasks", seed, step))
    chosen = [tasks[i] for i in draw.sample(range(len(tasks)), count)]
    episodes = play(session, chosen, algorithm, seed=seed, step=step, group_size=group_size)
    for number in range(1, algorithm.acting.max_batches):
        played = {e.task.id for e in episodes}
        left = [task for task in tasks if task.id not in played]
        if len(differing(episodes)) >= count or not left:
            break
        draw = random.Random(seed_of("tasks", seed, step, number))
        chosen = draw.sample(left, min(count, len(left)))
        episodes += play(
            session,
            chosen,
            algorithm,
            seed=seed,
            step=step,
            group_size=group_size,
            before=len(played),
        )
    return episodes


def differing(episodes: Sequence[Episode]) -> list[str]:
    """The groups whose returns are not all equal, in their order. Broken episodes have none."""
    returns: dict[str, list[float]] = {}
    for episode in episodes:
        if not episode.stop.broken:
            returns.setdefault(episode.group, []).append(episode.total_reward)
    return [group for group, each in returns.items() if max(each) - min(each) > EQUAL_RETURNS]


def learnt(algorithm: Algorithm, episodes: Sequence[Episode], count: int) -> list[Episode]:
    """Those of a step's episodes that are learnt from: all, or with dynamic sampling the first
    `count` groups whose returns differ. Where none differ, all: the algorithm's reduction leaves
    out what it cannot learn from."""
    groups = differing(episodes)[:count] if algorithm.acting.max_batches else []
    return [e for e in episodes if e.group in groups] if groups else list(episodes)
