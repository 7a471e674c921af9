"""Which tokens of a step are scored: only those that are read, and each once."""

import random
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from objective.test_invariance import MAKE
from support.tiny_models import policy, small_chat
from torch import Tensor
from torch.testing import assert_close
from training.test_train_step import Recorder

from tutelage.algorithms import ALGORITHMS
from tutelage.errors import ConfigError
from tutelage.objective import Algorithm, Reinforce, Signal, View
from tutelage.objective.lazy_scores import LazyScores
from tutelage.objective.scores import Scores
from tutelage.policies.base import Scorer
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.packing import pack
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Prompter, Sample
from tutelage.rollout.session import Clock
from tutelage.training import layout
from tutelage.training.train_step import Report, Update, train_step
from tutelage.types import Episode, Observation, Task, Turn

TURNS = 6


def episode(
    seed: int, *, turns: int = TURNS, group: str = "g", hand: str = "", more: float = 0.0
) -> Episode:
    """Turns of random tokens; `hand` names who takes every other one."""
    rng, chat = random.Random(seed), small_chat()
    results = []
    for k in range(turns):
        tokens = (*(rng.randrange(10, chat.size - 10) for _ in range(rng.randint(1, 4))), chat.end)
        results.append(
            Turn(
                observation=Observation(text=rng.choice(("a door", "no door")), won=k == turns - 1),
                prompt=(1,),
                text="",
                tokens=tokens,
                logps=tuple(-3 * rng.random() for _ in tokens),
                actor=hand if hand and k % 2 else "student",
                reward=float(rng.choice((0, 0, 1))) + more,
            )
        )
    return Episode(
        task=Task(id=group), group=group, turns=tuple(results), won=rng.random() < 0.5, copy=seed
    )


class Watched:
    """A policy that notes how many tokens its rows hold, with gradient and without."""

    def __init__(self, inner: HFPolicy) -> None:
        self.inner, self.chat = inner, inner.chat
        self.tokens = {True: 0, False: 0}

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        self.tokens[torch.is_grad_enabled()] += sum(len(row.ids) for row in pack(samples))
        return self.inner.score(samples, temperature)


def policies() -> dict[str, Watched]:
    result = {name: Watched(policy(k)) for k, name in enumerate(("self", "teacher", "reference"))}
    for name in ("teacher", "reference"):
        result[name].inner.freeze()
    return result


def prompts(view: View, task: Task) -> Prompter:
    return Prompter(chat=small_chat(), context=Context(), hint=view.hint)


def step(
    algorithm: Algorithm,
    episodes: Sequence[Episode],
    of: Mapping[str, Scorer],
    at: int = 0,
    **update: float,
) -> tuple[Report, list[Tensor]]:
    recorder = Recorder(list(of["self"].inner.parameters()))  # type: ignore[attr-defined]
    report = train_step(
        algorithm,
        episodes,
        of,
        recorder,
        prompts,
        Update(**{"grad_clip": 1e9, **update}),  # type: ignore[arg-type]
        step=at,
        seed=0,
        clock=Clock(),
    )
    return report, recorder.seen


def length(episode: Episode, turns: int) -> int:
    """Tokens of a student's row that ends with so many turns."""
    last = prompts(View(), episode.task).samples(episode)[turns - 1]
    return len(last.prompt) + len(last.tokens)


@pytest.mark.parametrize("vocabulary", ["sampled", "full"])
def test_a_window_of_turns_is_all_that_tcod_scores(vocabulary: str) -> None:
    of, episodes = policies(), [episode(k) for k in range(3)]
    step(ALGORITHMS["tcod"](start=2, vocabulary=vocabulary), episodes, of)
    want = sum(length(e, 2) for e in episodes)
    assert want < sum(length(e, TURNS) for e in episodes) / 2
    assert of["self"].tokens == {True: want, False: want if vocabulary == "sampled" else 0}
    assert of["teacher"].tokens == {True: 0, False: want}


def test_a_turn_is_scored_up_to_its_last_token_that_counts() -> None:
    of, result = policies(), episode(0)
    while len(result.turns[-1].tokens) < 3:
        result = episode(result.copy + 1)
    ends = torch.tensor([len(turn.tokens) for turn in result.turns]).cumsum(0)
    first = torch.zeros(int(ends[-1])).index_fill(0, ends[:-1], 1.0)
    advantage = Signal(of=lambda step: first, name="first token", tokenwise=True)
    step(Algorithm(terms=(Reinforce(advantage=advantage),)), [result], of)
    assert of["self"].tokens[True] == length(result, TURNS) - len(result.turns[-1].tokens) + 1


def test_rewards_that_are_equal_cost_a_teacher_nothing() -> None:
    """RLSD moves an advantage by a teacher: where there is none, there is nothing to move."""
    of = policies()
    won, lost = episode(0, group="a", more=1.0), episode(1, group="a")
    same = [episode(5, group="b"), episode(5, group="b")]
    assert won.total_reward != lost.total_reward
    rlsd = ALGORITHMS["rlsd"](teacher="teacher", hint="", kl=0.0)
    step(rlsd, [won, *same, lost], of)
    assert of["teacher"].tokens[False] == length(won, TURNS) + length(lost, TURNS)
    of = policies()
    step(rlsd, [won, *same, lost], of, at=100)  # its strength has fallen to 0
    assert of["teacher"].tokens[False] == 0
    assert of["self"].tokens == {True: length(won, TURNS) + length(lost, TURNS), False: 0}


def test_what_is_no_signal_of_single_tokens_finds_all_of_them_scored() -> None:
    """SOD compares a turn with the first: a window of turns takes none of that away."""
    of, episodes = policies(), [episode(k) for k in range(2)]
    compose = ALGORITHMS["compose"]
    weighed = {"reinforce": {"advantage": "first_turns(1) * sod_weight() * gap()"}}
    algorithm = compose(total_steps=3, views={"teacher": {"policy": "teacher"}}, terms=weighed)
    report, _ = step(algorithm, episodes, of)
    assert of["teacher"].tokens[False] == sum(length(e, TURNS) for e in episodes)
    assert not report.columns["sod_weight"].isnan().any()


def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score all tokens of all views, each on its own, as if each were read."""
    narrow, until = LazyScores.of, layout._up_to_last
    monkeypatch.setattr(
        LazyScores, "of", lambda self, name, tokens: narrow(self, name, ~self._no_tokens)
    )
    monkeypatch.setattr(
        "tutelage.training.train_step.shared_scores", lambda ready, views: dict.fromkeys(views, ())
    )
    monkeypatch.setattr(
        layout, "_up_to_last", lambda ready, row, counts: row if until(ready, row, counts) else None
    )


@pytest.mark.parametrize("name", sorted(set(MAKE) - {"all terms"}))  # which has no views
def test_what_is_left_out_changes_no_loss_and_no_gradient(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = [
        episode(k, turns=2 + k % 3, group=f"g{k // 2}", hand="teacher") for k in range(4)
    ] + [episode(9, turns=2, group="g3"), episode(9, turns=2, group="g3")]
    results = []
    for complete in (False, True):
        if complete:
            everything(monkeypatch)
        of = policies()
        results.append((*step(MAKE[name](), episodes, of, at=1, minibatches=2), of))
    (report, gradients, of), (full, wanted, more) = results
    for actual, reference in zip(gradients, wanted, strict=True):
        assert_close(actual, reference, atol=2e-6 * float(reference.abs().max()) + 1e-9, rtol=1e-3)
    assert report.losses == pytest.approx(full.losses, rel=1e-4, abs=1e-6)
    for who, scored in of.items():
        assert scored.tokens[False] <= more[who].tokens[False]
        assert scored.tokens[True] <= more[who].tokens[True]


def test_views_that_read_the_same_ids_share_their_scores() -> None:
    """A hint where there is one, and for other tasks the student's own prompt."""
    of, episodes = policies(), [episode(k, group=f"g{k}") for k in range(2)]

    def prompter(view: View, task: Task) -> Prompter:
        hint = view.hint if task.id == "g0" else ""
        return Prompter(chat=small_chat(), context=Context(), hint=hint)

    rlsd = ALGORITHMS["opd"](teacher="self")
    algorithm = Algorithm(terms=rlsd.terms, views={"teacher": View(policy="self", hint="go on")})
    recorder = Recorder(list(of["self"].inner.parameters()))
    report = train_step(
        algorithm,
        episodes,
        of,
        recorder,
        prompter,
        Update(grad_clip=1e9),
        step=0,
        seed=0,
        clock=Clock(),
    )
    hinted = prompter(View(hint="go on"), episodes[0].task).samples(episodes[0])[-1]
    own = [length(e, TURNS) for e in episodes]
    assert of["self"].tokens[False] == sum(own) + len(hinted.prompt) + len(hinted.tokens)
    gap, first = (
        report.columns["gap[teacher|student]"],
        sum(len(t.tokens) for t in episodes[0].turns),
    )
    assert float(gap[:first].abs().max()) > 1e-3
    assert torch.equal(gap[first:], torch.zeros_like(gap[first:]))


@pytest.mark.parametrize("hint", ["", "go on"])
def test_a_live_teacher_without_a_hint_is_the_students_own_pass(hint: str) -> None:
    of, episodes = policies(), [episode(k, more=float(k)) for k in range(2)]
    report, (gradient,) = step(ALGORITHMS["opsd"](hint=hint), episodes, of)
    assert (of["self"].tokens[False] > 0) == (hint == "go on")
    assert of["self"].tokens[True] == sum(length(e, TURNS) for e in episodes)
    assert (report.losses["kl"] > 1e-6) == (hint == "go on")
    assert float(gradient.abs().max()) > 0


def scorer(log: list[int]) -> Callable[[str, Tensor], tuple[Scores, Tensor]]:
    def take(name: str, tokens: Tensor) -> tuple[Scores, Tensor]:
        log.append(int(tokens.sum()))
        index = tokens.nonzero().squeeze(-1)
        return Scores(logp=-index.float()), index

    return take


def test_what_is_wanted_is_taken_once_and_what_comes_later_is_added() -> None:
    log: list[int] = []
    result = LazyScores({"a": []}, scorer(log), torch.zeros(5))

    def some(*index: int) -> Tensor:
        return torch.zeros(5, dtype=torch.bool).index_fill(0, torch.tensor(index), True)

    wanted = result.request("a", some(3))
    assert result.within(some(0, 1))["a"].logp.isnan().tolist() == [False, False, True, False, True]
    assert wanted().at(torch.tensor([3])).logp.tolist() == [-3]
    assert log == [3]
    with pytest.raises(ValueError, match="leave `tokenwise` out"):
        result.within(some(0))["a"].at(torch.tensor([2]))
    assert result["a"].logp.tolist() == [0, -1, -2, -3, -4]
    assert log == [3, 2]
    with pytest.raises(ConfigError, match="whole vocabulary"):
        result["a"].check()


def test_a_pass_that_pads_its_rows_counts_the_padding() -> None:
    """Rows of 3, 4 and 10 tokens in passes of 20: as many as fit side by side at full length."""
    rows = [
        [layout.ScoredSpan(("student",), size, layout.Span(e, 0, 1, size))]
        for e, size in enumerate((3, 4, 10, 10, 3))
    ]
    for padded, want in ((False, [[0, 1, 4, 2], [3]]), (True, [[0, 1, 4], [2, 3]])):
        result = layout.micro_batches(range(5), rows, 20, padded=padded)
        assert [[row.episode for row in part] for _, part in result] == [sorted(w) for w in want]
