"""The episodes of one training step, as a run's settings say."""

from collections.abc import Sequence

from tutelage.config.schema import RolloutSection
from tutelage.envs.pool import LocalPool, Pool, ProcessPool
from tutelage.envs.spread import SpreadPool
from tutelage.objective import View
from tutelage.rollout.play import play
from tutelage.rollout.replay import Replay
from tutelage.rollout.session import Session
from tutelage.rollout.task_sampling import gather
from tutelage.runs.phases import Phase
from tutelage.types import Episode, Task


def episodes_of(
    session: Session,
    rollout: RolloutSection,
    tasks: Sequence[Task],
    phase: Phase,
    step: int,
    replay: Replay | None = None,
) -> list[Episode]:
    """Play a step, or take its episodes from a file that is imitated. They depend on the settings,
    the weights of the policies and the step's number alone.

    tasks   of the training split
    replay  the recorded episodes of rollout.replay
    """
    if replay is not None and phase.algorithm.acting.expert:
        demonstrations = replay.choose(
            rollout.tasks_per_step * rollout.group_size,
            lambda task: session.prompter(View(), task),
            session.suite,
            seed=phase.seed,
            step=step,
        )
        session.ready([e.task for e in demonstrations], phase.algorithm, step)
        return demonstrations
    if replay is not None and phase.algorithm.acting.student_turns is not None:
        begun = replay.choose(
            rollout.tasks_per_step,
            lambda task: session.prompter(View(), task),
            session.suite,
            seed=phase.seed,
            step=step,
            once=True,
        )
        return play(
            session,
            [e.task for e in begun],
            phase.algorithm,
            seed=phase.seed,
            step=step,
            group_size=rollout.group_size,
            recorded={e.task.id: e.turns for e in begun},
        )
    return gather(
        session,
        tasks,
        phase.algorithm,
        count=rollout.tasks_per_step,
        group_size=rollout.group_size,
        seed=phase.seed,
        step=step,
    )


def cut_so_far(pool: Pool) -> int:
    """Observations that were too long and were cut. Agents see their own, which nothing cuts."""
    return pool.incidents.cut if isinstance(pool, LocalPool | ProcessPool | SpreadPool) else 0
