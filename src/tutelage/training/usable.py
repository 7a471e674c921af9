"""Which episodes of a step can be learnt from: unbroken, not empty, and within every context."""

from collections.abc import Mapping, Sequence

from tutelage.errors import RunError
from tutelage.objective import Algorithm
from tutelage.policies.base import Aligns, Policy
from tutelage.training.layout import Prompts, read
from tutelage.types import Episode


def refuse_silence(episodes: Sequence[Episode], step: int) -> None:
    """Raises RunError where no token was sampled in a whole step."""
    if not any(turn.tokens for episode in episodes for turn in episode.turns):
        raise RunError(
            f"no episode of step {step} has a single sampled token, so there is nothing to learn "
            "from; lower rollout.max_new_tokens or shorten the prompts, so that a first turn fits"
        )


def refuse_foreign_ids(episodes: Sequence[Episode], size: int) -> None:
    """Raises RunError for a turn with a token id beyond a vocabulary of `size` ids: of another
    tokenizer, such as that of recorded episodes."""
    for episode in episodes:
        for k, turn in enumerate(episode.turns):
            if turn.tokens and not 0 <= min(turn.tokens) <= max(turn.tokens) < size:
                wrong = next(token for token in turn.tokens if not 0 <= token < size)
                raise RunError(
                    f"turn {k} of an episode of task {episode.task.id} has the token id {wrong}, and "
                    f"the student's vocabulary has {size} ids, from 0 on; give episodes that were "
                    "recorded with the student's tokenizer"
                )


def usable_episodes(
    algorithm: Algorithm,
    episodes: Sequence[Episode],
    policies: Mapping[str, Policy],
    prompts: Prompts,
    *,
    step: int,
) -> list[Episode]:
    """The episodes that did not break, have at least one turn, and that every view can read.

    A view with a hint or hindsight reads longer prompts than the one that acted, so an episode
    that was played within the context may not fit when it is scored.

    Raises RunError where none is left, and for token ids that the student does not have.
    """
    refuse_foreign_ids(episodes, policies["self"].chat.size)
    unbroken = [e for e in episodes if not e.stop.broken]
    if not unbroken:
        first = episodes[0]
        raise RunError(
            f"all {len(episodes)} episodes of step {step} broke; the first, of task "
            f"{first.task.id}, with: {first.error}; fix the environment (`tutelage "
            "check-env` helps), then continue with --resume"
        )
    usable, before = [e for e in unbroken if e.turns], len(unbroken) + 1
    while len(usable) < before:  # without one episode, the hindsight of its group's others changes
        before = len(usable)
        usable = [e for e in usable if _fits(algorithm, e, usable, policies, prompts)]
    if not usable:
        raise RunError(
            f"no episode of step {step} fits the models' contexts; lower rollout.max_turns or "
            "rollout.max_new_tokens, or choose a shorter context.render"
        )
    return usable


def _fits(
    algorithm: Algorithm,
    episode: Episode,
    usable: Sequence[Episode],
    policies: Mapping[str, Policy],
    prompts: Prompts,
) -> bool:
    """Whether an episode is within every view's context, its privileged text included."""
    longest = length = 0
    for turn in episode.turns:
        length = (0 if turn.fresh else length) + len(turn.prompt) + len(turn.tokens)
        longest = max(longest, length)
    group = [e for e in usable if e.group == episode.group]
    views = list(algorithm.all_views().values())
    # the prompts of a view are not those of the one that acted
    apart = any(v.hint or v.hindsight or isinstance(policies[v.policy], Aligns) for v in views)
    for view in views:
        if isinstance(policies[view.policy], Aligns):
            continue  # it says nothing of what is beyond its context
        if apart:
            turns = read(view, prompts(view, episode.task), episode, group)
            longest = max(len(turn.prompt) + len(turn.tokens) for turn in turns)
        if longest > policies[view.policy].context_length:
            return False
    return True
