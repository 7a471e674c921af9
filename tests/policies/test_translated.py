"""A teacher with another tokenizer: the same numbers where the tokenizers agree, chunks' sums and
single tokens' divergences where they do not."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch
from support.fake_servers import remote, serving
from support.tiny_models import CHATML, byte_tokenizer, own_logits, small_chat
from torch import Tensor
from torch.testing import assert_close
from training.test_train_step import TRANSCRIPT, Recorder, step

from tutelage.algorithms import ALGORITHMS
from tutelage.envs.doors import Doors
from tutelage.envs.pool import LocalPool
from tutelage.errors import PolicyError
from tutelage.maths.divergences import reverse_kl
from tutelage.objective import Algorithm, Distill, View
from tutelage.policies.base import Aligns, AnswersLate, OpenedPolicy, Prefetches, Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import build_model
from tutelage.policies.translated import Translated, translated
from tutelage.prompts.chat_template import Chat
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session
from tutelage.runs.selftest import refuse_mixed_tokens
from tutelage.training.train_step import Report
from tutelage.types import Episode

MERGES = [("t", "h"), ("a", "c"), ("ac", "t"), ("act", "i"), ("acti", "o"), ("actio", "n")]
MAKE: dict[str, Callable[[], Algorithm]] = {
    "opd": ALGORITHMS["opd"],
    "opd discounted": lambda: ALGORITHMS["opd"](gamma_kl=0.9, clip=0.2),
    "opd full": lambda: ALGORITHMS["opd"](vocabulary="full"),
    "opd topk": lambda: ALGORITHMS["opd"](vocabulary="topk", k=3),
    "guided_opd": lambda: ALGORITHMS["guided_opd"](total_steps=30, curriculum="fixed", start=0.5),
    "guided_opd sampled": lambda: ALGORITHMS["guided_opd"](
        total_steps=30,
        curriculum="fixed",
        start=0.5,
        student_turns="sampled",
        teacher_turns="sampled",
        teacher_kl="reverse",
    ),
    "atod": ALGORITHMS["atod"],
    "sdar": lambda: ALGORITHMS["sdar"](teacher="teacher", hint="", coef=0.5, kl=0.0),
    "sdar jsd": lambda: ALGORITHMS["sdar"](
        teacher="teacher", hint="", coef=0.5, loss="jsd", kl=0.0
    ),
}
EVERY = pytest.mark.parametrize("name", MAKE)


@cache
def byte_chat() -> Chat:
    return Chat(byte_tokenizer(CHATML, MERGES))


def model(chat: Chat, seed: int, context: int = 1024) -> HFPolicy:
    core = build_model(
        entries=chat.size,
        layers=1,
        hidden=16,
        heads=2,
        kv_heads=1,
        ffn=32,
        context=context,
        seed=seed,
        end=chat.end,
        pad=chat.end,
    )
    with torch.no_grad():
        core.get_input_embeddings().weight.mul_(20.0)
    return HFPolicy(core, chat)


def session(policies: Mapping[str, OpenedPolicy]) -> Session:
    suite = Doors(2)
    return Session(
        suite,
        dict(policies),
        pool=LocalPool(suite),
        context=TRANSCRIPT,
        limits=Limits(max_turns=3, max_new_tokens=12),
    )


def learned(name: str, teacher: OpenedPolicy, chat: Chat) -> tuple[Tensor, Report, list[Episode]]:
    """The student's gradient of one step, whose episodes are played with the same teacher."""
    policies: dict[str, OpenedPolicy] = {"self": model(chat, seed=1), "teacher": teacher}
    on, algorithm = session(policies), MAKE[name]()
    episodes = play(on, on.suite.tasks("train")[:2], algorithm, seed=0, step=9, group_size=2)
    parameters = list(policies["self"].parameters())  # type: ignore[attr-defined]
    recorder = Recorder(parameters)
    report = step(on, policies, algorithm, episodes, recorder, at=9, minibatches=2)
    return torch.cat(recorder.seen), report, episodes


@pytest.mark.parametrize(
    ("name", "chat"), [*((n, small_chat()) for n in MAKE), ("opd", byte_chat())]
)
def test_tokenizers_that_agree_give_the_same_bits(name: str, chat: Chat) -> None:
    plain, _, episodes = learned(name, model(chat, seed=2), chat)
    other = Translated(model(chat, seed=2), chat, name="policies.teacher")
    found, report, again = learned(name, other, chat)
    assert float(plain.abs().sum()) > 0
    strip = [[(t.text, t.tokens, t.actor) for t in e.turns] for e in episodes]
    assert strip == [[(t.text, t.tokens, t.actor) for t in e.turns] for e in again]
    assert torch.equal(found, plain)
    assert report.means["covered[teacher]"] == report.means["single[teacher]"] == 1.0


def mixed(name: str = "opd") -> tuple[Translated, list[Episode], Session]:
    """A student of words, a teacher of letters, and what they played."""
    other = Translated(model(byte_chat(), seed=2), small_chat(), name="policies.teacher")
    policies = {"self": model(small_chat(), seed=1), "teacher": other}
    on = session(policies)
    episodes = play(on, on.suite.tasks("train")[:3], MAKE[name](), seed=0, step=9)
    return other, episodes, on


@pytest.mark.parametrize("name", ["opd", "guided_opd"])
def test_a_chunk_has_its_sum_and_a_single_token_its_distribution(name: str) -> None:
    """Against the teacher's own forward pass over its own tokens."""
    other, episodes, on = mixed(name)
    algorithm, student = MAKE[name](), on.policies["self"]
    singles = 0
    for episode in episodes:
        samples = on.prompter(algorithm.views["teacher"], episode.task).samples(episode)
        with torch.no_grad():
            scores, known = other.score(samples, 1.0), other.coverage(samples)
        start = 0
        for sample, turn in zip(samples, episode.turns, strict=True):
            prompt, key = other._own(sample.prompt)
            reading = other._reading(key, sample.tokens)
            if turn.actor == "student":
                text = student.chat.text(sample.tokens)
                own = other.inner.chat.reply(text)
                assert reading.ids == (own if sample.tokens[-1] == student.chat.end else own[:-1])
            rows = own_logits(other.inner, (*prompt, *reading.ids)).log_softmax(-1)  # type: ignore[arg-type]
            sums: dict[int, float] = {}
            for k, (c, i) in enumerate(zip(reading.of, reading.ids, strict=True)):
                sums[c] = sums.get(c, 0.0) + float(rows[len(prompt) + k - 1, i])
            for k, c in enumerate(reading.chunk):
                share = sums[c] / reading.chunk.count(c) if c >= 0 else 0.0
                assert float(scores.logp[start + k]) == pytest.approx(share, abs=1e-3)
                assert bool(known.covered[start + k]) == (c >= 0)
                if reading.single[k] >= 0:
                    at = len(prompt) + reading.single[k] - 1
                    assert_close(
                        scores.distribution.logps()[start + k], rows[at], atol=1e-3, rtol=1e-3
                    )
                    singles += 1
            start += len(sample.tokens)
    assert singles


@EVERY
def test_what_is_not_covered_trains_nothing(name: str) -> None:
    """The gradient is that of a loss over the covered tokens alone, and some are."""
    other = Translated(model(byte_chat(), seed=2), small_chat(), name="policies.teacher")
    found, report, _ = learned(name, other, small_chat())
    assert float(found.abs().sum()) > 0
    assert found.isfinite().all()
    assert 0 < report.means["single[teacher]"] <= report.means["covered[teacher]"] <= 1
    columns = report.columns
    gaps = [c for n, c in columns.items() if n.startswith("gap[teacher")]
    for column in gaps:
        assert bool((column[columns["covered[teacher]"] == 0].nan_to_num() == 0).all())


def test_turns_of_the_teacher_are_the_students_tokens() -> None:
    other, episodes, on = mixed("guided_opd")
    turns = [turn for e in episodes for turn in e.turns if turn.actor == "teacher"]
    assert turns
    for turn in turns:
        assert len(turn.tokens) <= on.limits.max_new_tokens
        assert max(turn.tokens) < small_chat().size
        assert turn.text == small_chat().text(turn.tokens)
    # they are scored as they were sampled
    view = MAKE["guided_opd"]().views["teacher"]
    for episode in episodes:
        samples = on.prompter(view, episode.task).samples(episode)
        scored = other.score(samples, 1.0).logp
        start = 0
        for turn in episode.turns:
            if turn.actor == "teacher":
                own = scored[start : start + len(turn.tokens)]
                assert_close(own, torch.tensor(turn.logps), atol=1e-4, rtol=1e-4)
            start += len(turn.tokens)


def test_a_teacher_says_nothing_beyond_its_context() -> None:
    short = Translated(model(byte_chat(), seed=2, context=120), small_chat(), name="x")
    _, episodes, on = mixed()
    on = replace(on, policies={**on.policies, "teacher": short})
    samples = on.prompter(MAKE["opd"]().views["teacher"], episodes[0].task).samples(episodes[0])
    sizes = [len(turn.prompt) + len(turn.reading.ids) for turn in short._turns(samples)]
    assert sizes[0] <= 120 < sizes[-1]
    known, scores = short.coverage(samples), short.score(samples, 1.0)
    tail = len(samples[-1].tokens)
    assert not known.covered[-tail:].any()
    assert not scores.logp[-tail:].any()
    assert known.covered[: len(samples[0].tokens)].any()


def test_a_teacher_on_a_server_has_another_tokenizer() -> None:
    inner = model(byte_chat(), seed=2)
    with serving(inner) as server:
        far = translated(remote(server.port, byte_chat()), small_chat(), name="policies.teacher")
        assert isinstance(far, Prefetches)
        assert isinstance(far, AnswersLate)
        near = translated(inner, small_chat(), name="policies.teacher")
        assert not isinstance(near, AnswersLate)
        here, _, episodes = learned("opd", near, small_chat())
        there, _, again = learned("opd", far, small_chat())
        assert [e.turns for e in episodes] == [e.turns for e in again]
        assert_close(there, here, atol=1e-4, rtol=1e-3)
        _, report, played = learned("guided_opd sampled", far, small_chat())
        assert report.means["covered[teacher]"] > 0
        assert "teacher" in {turn.actor for e in played for turn in e.turns}


def test_the_same_tokenizer_is_left_alone() -> None:
    own = model(small_chat(), seed=2)
    assert translated(own, small_chat(), name="x") is own
    assert isinstance(translated(own, byte_chat(), name="x"), Aligns)


def test_a_turn_that_is_too_long_for_the_student_is_cut_where_both_have_a_boundary() -> None:
    other = Translated(model(small_chat(), seed=2), byte_chat(), name="x")
    prompt = other.chat.open("", "a")
    other.submit(Request(key="e", prompt=prompt, seed=3, max_new=12))
    (done,) = [c for _ in range(99) for c in other.poll()]
    assert len(done.tokens) <= 12
    assert len(done.logps) == len(done.tokens)
    assert done.ended == (done.tokens[-1] == byte_chat().end)


def test_what_needs_one_tokenizer_is_refused() -> None:
    refuse_mixed_tokens("teacher", ALGORITHMS["opd"]())
    with pytest.raises(PolicyError, match=r"policies\.teacher has another tokenizer.*began"):
        refuse_mixed_tokens("teacher", ALGORITHMS["adaswitch"]())
    followed = Algorithm(
        terms=(Distill(divergence=reverse_kl, live=True),),
        views={"teacher": View(policy="teacher")},
    )
    with pytest.raises(PolicyError, match=r"policies\.teacher has another tokenizer.*followed"):
        refuse_mixed_tokens("teacher", followed)
