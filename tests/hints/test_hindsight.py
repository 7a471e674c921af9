"""Hindsight: its texts, and the prompts that hold it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from support.fake_policy import Table, chat
from support.sessions import TRANSCRIPT, WINDOW, pair, session

from tutelage.envs.doors import Doors
from tutelage.hints.hindsight import WITHHELD, next_observations, peer_success
from tutelage.objective import Algorithm, Step, View
from tutelage.prompts.context import HINT_OPEN, Context
from tutelage.prompts.prompter import Sample
from tutelage.rollout.play import play
from tutelage.schedules import constant
from tutelage.signals import gap
from tutelage.training import layout
from tutelage.types import Episode, Observation, Task, Turn


def episode(*pairs: tuple[str, str], won: bool = False, copy: int = 0) -> Episode:
    """Of observations and the actions after them."""
    turns = tuple(
        Turn(
            observation=Observation(text=seen), prompt=(), text="", tokens=(), logps=(), action=act
        )
        for seen, act in pairs
    )
    return Episode(task=Task(id="t"), group="t", turns=turns, won=won, copy=copy)


def test_the_first_success_is_shown_for_failed_episodes() -> None:
    lost = episode(("a hall", "go west"))
    first = episode(("a hall", "go east"), ("a den", "take key"), won=True, copy=1)
    second = episode(("a hall", "dig"), won=True, copy=2)
    output = peer_success()
    text = output(lost, 0, (lost, first, second))
    assert text.splitlines()[1:] == ["a hall", "> go east", "a den", "> take key"]
    assert output(first, 0, (lost, first, second)) == ""
    assert output(second, 0, (lost, first, second)) == ""
    assert output(lost, 0, (lost,)) == ""


def test_what_comes_after_a_turn_and_the_same_withheld() -> None:
    one = episode(("a hall", "go east"), ("a den", "take red key"), ("a key", "go"), ("out", "x"))
    full, ablated = next_observations(2), next_observations(2, ablated=True)
    assert full(one, 0, ()).splitlines()[1:] == ["a den", "> take ___ ___", "a key"]
    assert ablated(one, 0, ()).splitlines()[1:] == [WITHHELD, "> take ___ ___", WITHHELD]
    assert full(one, 2, ()).splitlines()[1:] == ["out"]
    assert full(one, 3, ()) == ablated(one, 3, ()) == ""
    for k in range(4):
        output, withheld = full(one, k, ()).splitlines(), ablated(one, k, ()).splitlines()
        assert len(output) == len(withheld)
        assert all(a == b or b == WITHHELD for a, b in zip(output, withheld, strict=True))


def nothing(episode: Episode, turn: int, group: Sequence[Episode]) -> str:
    return ""


def place(episode: Episode, turn: int, group: Sequence[Episode]) -> str:
    return "a" * (turn % 2)


def scored(
    context: Context, hindsight: Callable[..., str] | None, hint: str = ""
) -> tuple[list[Episode], layout.Layout]:
    """Episodes of doors, and how the student and a teacher with hindsight read them."""
    suite = Doors(4)
    on = session(suite, context=context, policies=pair(), max_new_tokens=6)
    algorithm = Algorithm(terms=(), views={"teacher": View(hint=hint, hindsight=hindsight)})
    episodes = play(on, suite.tasks("train")[:6], algorithm, seed=0, group_size=3)
    return episodes, layout.prepare(algorithm, episodes, on.prompter)


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_empty_hindsight_gives_a_gap_of_exactly_zero(context: Context) -> None:
    _, ready = scored(context, nothing)
    assert ready.samples["teacher"] == ready.samples["student"]
    policy = Table(knows=1.0)
    flat = {v: [s for e in rows for s in e] for v, rows in ready.samples.items()}
    scores = {v: policy.score(samples, 1.0) for v, samples in flat.items()}
    assert gap()(Step(ready.batch, scores, 0)).abs().max() == 0


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
@pytest.mark.parametrize("hint", ["", "plan"])
def test_hindsight_is_in_the_system_message_of_its_turn_and_nowhere_else(
    context: Context, hint: str
) -> None:
    episodes, output = scored(context, place, hint)
    _, plain = scored(context, nothing, hint)
    opening = chat().content(HINT_OPEN)
    for e, one in enumerate(episodes):
        for k, turn in enumerate(one.turns):
            sample, without = output.samples["teacher"][e][k], plain.samples["teacher"][e][k]
            assert sample.tokens == turn.tokens
            if k % 2 == 0:
                assert sample == without
                continue
            # the conversation after the system message is the same, id by id
            rest = len(plain.samples["student"][e][k].prompt) - len(system(context, ""))
            assert sample.prompt[-rest:] == without.prompt[-rest:]
            assert len(sample.prompt) > len(without.prompt)
            assert contains(sample.prompt, opening)
    assert output.samples["student"] == plain.samples["student"]


def system(context: Context, hint: str) -> tuple[int, ...]:
    """Ids of what stands before the first user's words."""
    return chat().open(context.system(hint), "")


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(tuple(ids[k : k + len(part)]) == tuple(part) for k in range(len(ids)))


def test_turns_with_equal_hindsight_share_one_append_only_prompt() -> None:
    _, ready = scored(TRANSCRIPT, lambda e, k, group: "b")
    for rows in ready.samples["teacher"]:
        for before, after in pairwise(rows):
            full = (*before.prompt, *before.tokens)
            assert after.prompt[: len(full)] == full


def test_hindsight_sees_the_whole_group_in_order() -> None:
    seen: list[tuple[str, int, tuple[tuple[str, int], ...]]] = []

    def watched(episode: Episode, turn: int, group: Sequence[Episode]) -> str:
        seen.append((episode.group, turn, tuple((e.group, e.copy) for e in group)))
        return ""

    episodes, _ = scored(TRANSCRIPT, watched)
    assert len(seen) == sum(len(e.turns) for e in episodes)
    assert all(group == ((own, 0), (own, 1), (own, 2)) for own, _, group in seen)


def test_a_view_with_hindsight_cannot_act() -> None:
    with pytest.raises(ValueError, match=r"'teacher' has hindsight.*cannot act"):
        Algorithm(
            terms=(), views={"teacher": View(hindsight=nothing)}, actors={"teacher": constant(0.5)}
        )


def test_samples_of_one_turn_each() -> None:
    """A turn is read the same whether the turns before it were asked for or not."""
    suite = Doors(4)
    on = session(suite, policies=pair())
    (one,) = play(on, suite.tasks("train")[7:8], Algorithm(terms=()), seed=0)
    prompter = on.prompter(View(), one.task)
    for k in range(len(one.turns)):
        texts = ["" if j != k else "the end" for j in range(len(one.turns))]
        alone: Sample = prompter.samples(one, texts)[k]
        again = replace(prompter, hint="the end").samples(one)[k]
        assert alone == again
