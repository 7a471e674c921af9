"""The prompt ids of every view equal those that the actor sampled on."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from support.fake_policy import Table, chat
from support.sessions import ALONE, TRANSCRIPT, WINDOW, mixed, pair, session

from tutelage.envs.doors import RULE, Doors
from tutelage.policies.base import Actor
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import HINT_OPEN, Context
from tutelage.rollout.play import play
from tutelage.seeding import seed_of
from tutelage.types import Observation


@dataclass(frozen=True)
class Shouting:
    """The same vocabulary in other clothes: a teacher may have a template of its own."""

    @staticmethod
    def chat() -> Chat:
        tokenizer = chat().tokenizer
        copied = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
        for name in ("pad_token", "unk_token", "eos_token"):
            setattr(copied, name, getattr(tokenizer, name))
        copied.chat_template = tokenizer.chat_template.replace(
            "{{ m.content }}{%- endif -%}", "{{ m.content }}the end{%- endif -%}"
        )
        return Chat(copied)


def test_every_turn_is_closed_once_whether_it_ended_or_was_cut_off() -> None:
    suite, policies = Doors(4), {"self": Table(clumsy=12), "teacher": Table(clumsy=12)}
    algorithm = mixed(0.5)
    on = session(suite, policies=dict(policies), max_new_tokens=3, temperature=2.0)
    cases = set()
    for episode in play(on, suite.tasks("train")[:20], algorithm, seed=0):
        samples = on.prompter(algorithm.all_views()["student"], episode.task).samples(episode)
        for before, after in pairwise(samples):
            between = after.prompt[len(before.prompt) + len(before.tokens) :]
            ended = before.tokens[-1] == chat().end
            assert (between[0] == chat().end) == (not ended)
            cases.add(ended)
    assert cases == {True, False}


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
@pytest.mark.parametrize("template", ["same", "other"])
@pytest.mark.parametrize("hint", ["", "plan"])
def test_a_turn_is_scored_on_the_ids_that_its_actor_was_shown(
    context: Context, template: str, hint: str
) -> None:
    """Every view reads every turn, whoever took it, as it would have been prompted for it."""
    suite = Doors(4)
    talk = chat() if template == "same" else Shouting.chat()
    policies = {"self": Table(clumsy=12), "teacher": Table(clumsy=12, talk=talk)}
    algorithm = mixed(0.5, hint=hint)
    on = session(suite, context=context, policies=dict(policies), max_new_tokens=3, temperature=2.0)
    episodes = play(on, suite.tasks("train")[:20], algorithm, seed=0)
    asked = {
        "student": {r.seed: r.prompt for r in policies["self"].asked},
        "teacher": {r.seed: r.prompt for r in policies["teacher"].asked},
    }
    seen = 0
    for episode in episodes:
        name = repr((0, 0, episode.task.id, episode.copy, 0))
        for view in ("student", "teacher"):
            samples = on.prompter(algorithm.all_views()[view], episode.task).samples(episode)
            assert [s.tokens for s in samples] == [t.tokens for t in episode.turns]
            for k, (sample, turn) in enumerate(zip(samples, episode.turns, strict=True)):
                shown = asked[view].get(seed_of("turn", name, k))
                assert (shown is not None) == (turn.actor == view)
                if shown is not None:
                    assert sample.prompt == shown
                    seen += 1
    assert seen == sum(len(e.turns) for e in episodes)
    # turns that ended and turns that were cut off are both among them
    assert {t.tokens[-1] == chat().end for e in episodes for t in e.turns} == {True, False}


def test_a_turns_prompt_is_what_is_new_in_it() -> None:
    suite = Doors(3)
    policy = Table()
    on = session(suite, policies={"self": policy})
    (episode,) = play(on, suite.tasks("train")[5:6], ALONE, seed=0)
    ids: tuple[int, ...] = ()
    for turn, request in zip(episode.turns, policy.asked, strict=True):
        assert not turn.fresh
        ids += turn.prompt
        assert request.prompt == ids
        ids += turn.tokens
    fresh = Table()
    on = session(suite, policies={"self": fresh}, context=WINDOW)
    (episode,) = play(on, suite.tasks("train")[5:6], ALONE, seed=0)
    assert [t.prompt for t in episode.turns] == [r.prompt for r in fresh.asked]
    assert all(t.fresh for t in episode.turns)


def words_of(policy: Actor) -> list[str]:
    assert isinstance(policy, Table)
    return [chat().tokenizer.decode(list(r.prompt)) for r in policy.asked]


@pytest.mark.parametrize("context", [TRANSCRIPT, WINDOW], ids=["transcript", "window"])
def test_only_the_hinted_view_has_the_hint(context: Context) -> None:
    suite = Doors(3)
    policies = pair()
    on = session(suite, context=context, policies=policies)
    algorithm = mixed(0.5, hint="plan")
    episodes = play(on, suite.tasks("train"), algorithm, seed=0)
    output, untold = words_of(policies["teacher"]), words_of(policies["self"])
    assert output
    assert untold
    opening = HINT_OPEN.split()
    assert all(" ".join(opening) in " ".join(w.split()) for w in output)
    assert not any(" ".join(opening) in " ".join(w.split()) for w in untold)
    for episode in episodes:
        hinted = on.prompter(algorithm.views["teacher"], episode.task)
        assert hinted.hint == "\n".join(
            f"{k}. {RULE[c]}" for k, c in enumerate(episode.task.data["path"], 1)
        )
        full = chat().content(context.system(hinted.hint))
        for sample in hinted.samples(episode):
            assert str(list(full))[1:-1] in str(list(sample.prompt))


def test_a_window_shows_the_task_the_last_turns_and_what_is_now() -> None:
    suite = Doors(5)
    policy = Table(knows=9.0)
    on = session(suite, policies={"self": policy}, context=replace(WINDOW, window=2))
    task = next(t for t in suite.tasks("train") if t.data["path"] == "abcab")
    play(on, [task], ALONE, seed=0)
    first, *_, last = words_of(policy)
    assert "actions have been taken" not in first.replace("<", " ")
    assert len(first) < len(last)
    text = WINDOW.user([Observation(text=c) for c in "abcab"], [RULE[c] for c in "abca"])
    assert text.startswith("a\n\n4 actions have been taken. The last 1, each after")
    two = replace(WINDOW, window=2).user(
        [Observation(text=c) for c in "abcab"], [RULE[c] for c in "abca"]
    )
    assert two.endswith("[2] c\n[2] > 4\n[3] a\n[3] > 3\n\nNow:\nb")
    none = replace(WINDOW, window=0).user([Observation(text=c) for c in "ab"], ["3"])
    assert "The last 0" in none
    start = replace(WINDOW, window=9).user([Observation(text=c) for c in "ab"], ["3"])
    assert "[0] (the start)\n[0] > 3\n\nNow:\nb" in start
