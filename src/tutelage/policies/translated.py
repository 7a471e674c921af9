"""A policy with another tokenizer than the student's, as one that reads and writes the student's.

Its prompts are in its own tokens, chat template and all; what was said in them is in the student's,
as it was sampled. Both are kept apart in one sequence of ids: an id of this policy's is written as
itself plus the size of the student's vocabulary. Before the policy reads a sequence, each turn in it
is put into the policy's own tokens (`prompts.alignment`); what it writes is put into the student's.
A turn that it wrote is read again in the tokens that it sampled, not in those that its text would be
encoded to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from tutelage.maths.distributions import Shared
from tutelage.maths.segments import segment_sum
from tutelage.objective.aligned import Aligned, Coverage
from tutelage.objective.scores import Scores
from tutelage.policies.base import AnswersLate, Completion, Dtype, OpenedPolicy, Prefetches, Request
from tutelage.policies.server.account import Account
from tutelage.policies.server.chat import ChatPolicy, TextChat
from tutelage.prompts.alignment import Pair, Reading, TextPair, common
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids, Sample
from tutelage.types import TopLogprobs

MOST_WRITTEN = 1 << 16
"""Turns whose own tokens are remembered: those of a step and more."""


@dataclass(frozen=True)
class TwoChats(Chat):
    """The chat of a policy whose turns are in the student's tokens: prompts are its own, each id
    plus the size of the student's vocabulary."""

    student: Chat = None  # type: ignore[assignment]  # after fields with defaults
    own: Chat = None  # type: ignore[assignment]

    @staticmethod
    def of(student: Chat, own: Chat) -> "TwoChats":
        return TwoChats(own.tokenizer, own.history, own.options, student.more_ends, student, own)

    def _shifted(self, ids: Ids) -> Ids:
        return tuple(i + self.student.size for i in ids)

    @property
    def end(self) -> int:
        """That of the student, which ends a turn."""
        return self.student.end

    @property
    def size(self) -> int:
        return self.student.size + self.own.size

    @property
    def control(self) -> frozenset[int]:
        return frozenset(self._shifted(tuple(self.own.control)))

    def content(self, text: str) -> Ids:
        return self._shifted(self.own.content(text))

    def open(self, system: str, user: str) -> Ids:
        return self._shifted(self.own.open(system, user))

    def follow(self, user: str, *, ended: bool) -> Ids:
        return self._shifted(self.own.follow(user, ended=ended))

    def reply(self, text: str) -> Ids:
        return self._shifted(self.own.reply(text))

    def text(self, tokens: Ids) -> str:
        return self.student.text(tokens)

    def open_with(self, tools: str, system: str, user: str) -> Ids:
        return self._shifted(self.own.open_with(tools, system, user))

    def follow_results(self, tools: str, results: Sequence[str], *, ended: bool) -> Ids:
        return self._shifted(self.own.follow_results(tools, results, ended=ended))

    def reply_with(self, tools: str, text: str) -> Ids:
        return self._shifted(self.own.reply_with(tools, text))

    def with_tools(self, system: str, tools: str) -> str:
        return self.own.with_tools(system, tools)

    def check(self, *, system: bool = True) -> None:
        self.own.check(system=system)

    def check_control(self) -> None:
        self.own.check_control()

    def fingerprint(self) -> str:
        return f"{self.own.fingerprint()}-{self.student.fingerprint()}"


@dataclass(frozen=True, slots=True)
class _Turn:
    """A sample in the policy's tokens."""

    prompt: Ids
    reading: Reading
    fits: bool  # into its context


class Translated:
    """Another model behind a student's tokens.

    inner    the policy, with its own chat
    student  the chat whose tokens are sampled
    name     its name in messages

    Raises PolicyError where the two tokenizers cannot be aligned.
    """

    def __init__(self, inner: OpenedPolicy, student: Chat, *, name: str) -> None:
        self.inner = inner
        self.pair: Pair = Pair(student, inner.chat, name=name)
        self.chat: Chat = TwoChats.of(student, inner.chat)
        self.asked: dict[str, tuple[Request, int]] = {}
        self.written: dict[int, Reading] = {}  # by prompt and turn

    @property
    def dtype(self) -> Dtype:
        return self.inner.dtype

    @property
    def context_length(self) -> int:
        return self.inner.context_length

    def prompt_length(self, prompt: Ids) -> int:
        return len(self._own(prompt)[0])

    # -- ids

    def _own(self, mixed: Ids) -> tuple[Ids, int]:
        """A sequence in the policy's tokens, and a number that stands for it."""
        size = self.pair.student.size
        ids: list[int] = []
        key = start = 0
        while start < len(mixed):
            prompt = mixed[start] >= size
            end = start + 1
            while end < len(mixed) and (mixed[end] >= size) == prompt:
                end += 1
            part = mixed[start:end]
            if prompt:
                ids += [i - size for i in part]
            else:
                ids += self._reading(key, part).ids
            key, start = hash((key, part)), end
        return tuple(ids), key

    def _reading(self, before: int, tokens: Ids) -> Reading:
        """A turn after the prompt that `before` stands for."""
        return self.written.get(hash((before, tokens))) or self.pair.read(tokens)

    def _turns(self, samples: Sequence[Sample]) -> list[_Turn]:
        turns = []
        for sample in samples:
            prompt, key = self._own(sample.prompt)
            reading = self._reading(key, sample.tokens)
            fits = len(prompt) + len(reading.ids) <= self.context_length
            turns.append(_Turn(prompt, reading, fits))
        return turns

    # -- sampling

    def submit(self, request: Request) -> None:
        prompt, key = self._own(request.prompt)
        self.asked[request.key] = request, key
        self.inner.submit(replace(request, prompt=prompt))

    def poll(self) -> list[Completion]:
        return [self._completion(completion) for completion in self.inner.poll()]

    def _completion(self, own: Completion) -> Completion:
        """A turn of the policy in the student's tokens, which share its log-probabilities. One that
        is too long in them is cut."""
        request, before = self.asked.pop(own.key)
        ids, ended = own.tokens, own.ended
        tokens = self.pair.write(ids, ended=ended)
        top = self._top(own, tokens)
        if not tokens:  # nothing that the student could have said
            tokens, ended = (self.pair.student.end,), True
        if len(tokens) > request.max_new:
            reading, ended = self._cut(tokens, ids, request.max_new), False
            tokens, ids = tokens[: len(reading.chunk)], reading.ids
        else:
            reading = self.pair.align(tokens, ids)
        self.written[hash((before, tokens))] = reading
        while len(self.written) > MOST_WRITTEN:
            del self.written[next(iter(self.written))]
        logps, top = _shares(reading, own.logps), top[: len(tokens)]
        return Completion(key=own.key, tokens=tokens, logps=logps, ended=ended, top_logprobs=top)

    def _top(self, own: Completion, tokens: Ids) -> TopLogprobs:
        """Likely tokens besides those of a turn in the student's tokens, where they are known."""
        return ()

    def _cut(self, tokens: Ids, ids: Ids, room: int) -> Reading:
        """The head of a turn, up to the last place that fits where both have a boundary; without
        one, as far as it fits and without a chunk."""
        ours, others = self.pair.boundaries(tokens, ids)
        for i, j in reversed(common(ours.at, others.at)):
            if 0 < i <= room:
                return self.pair.align(tokens[:i], ids[:j])
        head = self.pair.read(tokens[:room])
        none = (-1,) * room
        return Reading(ids=head.ids, chunk=none, of=(-1,) * len(head.ids), single=none)

    def release(self, key: str) -> None:
        self.asked.pop(key, None)
        self.inner.release(key)

    def refresh(self) -> None:
        self.asked.clear()
        self.inner.refresh()

    # -- scoring

    def coverage(self, samples: Sequence[Sample]) -> Coverage:
        """Chunks of every token of every sample, numbered over all of them. A turn that does not fit
        into this policy's context is in none."""
        chunk: list[int] = []
        single: list[bool] = []
        count = 0
        for turn in self._turns(samples):
            of = turn.reading
            chunk += [c + count if turn.fits and c >= 0 else -1 for c in of.chunk]
            single += [turn.fits and s >= 0 for s in of.single]
            count += len(of.chunk)
        return Coverage(
            chunk=torch.tensor(chunk, dtype=torch.long),
            single=torch.tensor(single, dtype=torch.bool),
        )

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        """Of each sampled token its chunk's share of the log-probability of the chunk's text, 0 in no
        chunk; with distributions if the policy has them, right at single tokens."""
        turns = self._turns(samples)
        whole = [turn for turn in turns if turn.fits and turn.reading.ids]
        own = [Sample(prompt=turn.prompt, tokens=turn.reading.ids) for turn in whole]
        # one token at least, which says whether there are distributions
        first = turns[0].prompt[:1]
        scores = self.inner.score(own or [Sample(prompt=first, tokens=first)], temperature)
        logp = scores.logp
        chunk, of, single = _flat(turns)
        to = torch.tensor(of, dtype=torch.long, device=logp.device)
        here = torch.tensor(chunk, dtype=torch.long, device=logp.device)
        numbers = max(chunk, default=-1) + 1
        sums = segment_sum(logp[: len(to)][to >= 0], to[to >= 0], numbers)
        share = torch.bincount(here[here >= 0], minlength=numbers).clamp(min=1)
        evenly = logp.new_zeros(len(here))
        evenly[here >= 0] = (sums / share)[here[here >= 0]]
        token = torch.tensor([t for s in samples for t in s.tokens], device=logp.device)
        if not scores.has_distribution:
            return Aligned(logp=evenly, distribution=None, token=token)
        found = scores.distribution[torch.tensor(single, dtype=torch.long, device=logp.device)]
        if not self.pair.alike:
            found = replace(found, shared=self._shared(str(logp.device)))
        return Aligned(logp=evenly, distribution=found, token=token)

    def _shared(self, device: str) -> Shared:
        pairs = [(i, j) for i, j in enumerate(self.pair.same) if j >= 0]
        ours, others = zip(*pairs, strict=True)
        rest = len(pairs) < min(len(self.pair.same), self.pair.teacher.size)
        return Shared(
            student=torch.tensor(ours, device=device),
            teacher=torch.tensor(others, device=device),
            rest=rest,
        )


class TranslatedServer(Translated):
    """One on a server, whose answers come late and whose scores can be asked for early."""

    def wait(self) -> None:
        cast(AnswersLate, self.inner).wait()

    def prefetch_scores(self, samples: Sequence[Sample]) -> None:
        turns = [turn for turn in self._turns(samples) if turn.fits and turn.reading.ids]
        own = [Sample(prompt=turn.prompt, tokens=turn.reading.ids) for turn in turns]
        if isinstance(self.inner, Prefetches):
            self.inner.prefetch_scores(own)


class TextOnly(TranslatedServer):
    """One that is asked in messages: it takes whole turns, and says nothing of others' tokens."""

    def __init__(self, inner: OpenedPolicy, student: Chat, *, name: str) -> None:
        self.inner = inner
        self.pair: TextPair = TextPair(student, inner.chat)
        self.chat = TwoChats.of(student, inner.chat)
        self.asked, self.written = {}, {}
        self.noted: set[str] = set()

    @property
    def account(self) -> Account | None:
        """What the requests to it cost."""
        return self.inner.account if isinstance(self.inner, ChatPolicy) else None

    def tokens_of(self, key: str) -> int:
        return self.inner.tokens_of(key) if isinstance(self.inner, ChatPolicy) else 0

    @property
    def notes(self) -> dict[str, str]:
        """What is wrong with the log-probabilities that it tells, by kind."""
        return self.inner.notes if isinstance(self.inner, ChatPolicy) else {}

    def new_notes(self) -> list[str]:
        """Those of a kind that was not asked for before."""
        new = {kind: note for kind, note in self.notes.items() if kind not in self.noted}
        self.noted.update(new)
        return list(new.values())

    def _top(self, own: Completion, tokens: Ids) -> TopLogprobs:
        likely = self.inner.likely_of(own.key) if isinstance(self.inner, ChatPolicy) else ()
        if not likely:
            return ()
        return self.pair.top_logprobs(tokens, self.pair.teacher.text(own.tokens), likely)

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        count = sum(len(sample.tokens) for sample in samples)
        return Aligned(
            logp=torch.zeros(count), distribution=None, token=torch.zeros(count, dtype=torch.long)
        )


def translated(policy: OpenedPolicy, student: Chat, *, name: str) -> OpenedPolicy:
    """A policy as a student with this chat meets it: itself where both have the same tokenizer."""
    if isinstance(policy.chat, TextChat):
        return TextOnly(policy, student, name=name)
    if policy.chat.tokenizer is None or policy.chat.fingerprint() == student.fingerprint():
        return policy
    kind = TranslatedServer if isinstance(policy, AnswersLate) else Translated
    return kind(policy, student, name=name)


def new_notes(policies: Mapping[str, object]) -> list[str]:
    """Sentences about log-probabilities that policies asked in messages do not tell, each once."""
    return [
        f"policies.{name}: {note}; where it tells none, its turns teach by cross-entropy"
        for name, policy in policies.items()
        if isinstance(policy, TextOnly)
        for note in policy.new_notes()
    ]


def account_lines(policies: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """What each policy that is asked in messages has cost, in numbers."""
    accounts = {
        name: policy.account
        for name, policy in policies.items()
        if isinstance(policy, TextOnly | ChatPolicy)
    }
    return {name: of.numbers() for name, of in accounts.items() if of is not None}


def _flat(turns: Sequence[_Turn]) -> tuple[list[int], list[int], list[int]]:
    """Over all turns: of each sampled token its chunk, of each of the policy's tokens its chunk, and
    of each sampled token which of those is the same (0 where none is, which nothing reads)."""
    chunk: list[int] = []
    of: list[int] = []
    single: list[int] = []
    count = start = 0
    for turn in turns:
        reading = turn.reading
        if not turn.fits:
            chunk += [-1] * len(reading.chunk)
            single += [0] * len(reading.chunk)
            continue
        chunk += [c + count if c >= 0 else -1 for c in reading.chunk]
        of += [c + count if c >= 0 else -1 for c in reading.of]
        single += [start + s if s >= 0 else 0 for s in reading.single]
        count += len(reading.chunk)
        start += len(reading.ids)
    return chunk, of, single


def _shares(reading: Reading, logps: Sequence[float]) -> tuple[float, ...]:
    """Log-probabilities of the policy's tokens, shared evenly by the student's in each chunk."""
    sums: dict[int, float] = {}
    for c, x in zip(reading.of, logps, strict=False):  # a turn may be cut
        sums[c] = sums.get(c, 0.0) + x
    sizes: dict[int, int] = {}
    for c in reading.chunk:
        sizes[c] = sizes.get(c, 0) + 1
    return tuple(sums[c] / sizes[c] if c >= 0 else 0.0 for c in reading.chunk)
