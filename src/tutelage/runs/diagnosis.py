"""Signs that a run cannot learn: found before it starts, after its first step and at its end.

Each sign is one sentence: what was seen, what it means, and the settings that help. Nothing here
changes a run.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from tutelage.config.schema import Config, RolloutSection
from tutelage.envs.base import Demonstrates, Suite
from tutelage.envs.guard import attempt, one_line
from tutelage.objective import STUDENT
from tutelage.policies.base import OpenedPolicy
from tutelage.policies.hf.folder import end_tokens
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.registry import named
from tutelage.policies.translated import TextOnly, Translated
from tutelage.prompts.alignment import Pair
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import Context
from tutelage.rollout.demonstrations import script
from tutelage.rollout.hint_preparation import sample
from tutelage.rollout.record import Line
from tutelage.rollout.session import Session
from tutelage.runs.assemble import Parts
from tutelage.runs.models import locate
from tutelage.runs.phases import Phase, signals_of
from tutelage.types import Episode, Stop, Task

INVALID = 0.9
"""Share of invalid turns above which a model does not know the format of an answer."""
CUT = 0.9
"""Share of the student's turns that reach the limit above which the limit is too low."""
CAUSES = 5
"""Causes of broken episodes that are told after one step."""
DEMONSTRATIONS = 20
"""Tasks whose demonstrations are measured."""
SECONDS = 3.0
"""After which no further demonstration is measured: some suites ask a simulator for them."""


# -- before the first step


def before(parts: Parts, session: Session, policies: Mapping[str, OpenedPolicy]) -> list[str]:
    """What the models and the demonstrations tell before anything is played."""
    student = policies["self"]
    sentences = list(dropped_layers(parts.config))
    sentences += slow_paths(policies)
    views = [view for p in parts.phases for view in p.algorithm.views.values()]
    telling = {view.policy for view in views if view.top_logprobs}
    sentences += [
        text_only(name, tells=name in telling)
        if isinstance(policy, TextOnly)
        else other_tokenizer(name, policy.pair)
        for name, policy in policies.items()
        if isinstance(policy, Translated)
    ]
    sentences += other_ends(policies)
    imitated = [p.algorithm.acting for p in parts.phases if p.algorithm.acting.uses_expert]
    if imitated and not parts.config.rollout.replay and isinstance(session.suite, Demonstrates):
        thoughts = any(acting.with_thoughts for acting in imitated)
        sentences += long_demonstrations(
            student.chat, session.suite, parts.tasks, parts.config.rollout, with_thoughts=thoughts
        )
    return sentences


def slow_paths(policies: Mapping[str, OpenedPolicy]) -> Iterator[str]:
    """Models that this process cannot sample from and score in its fast way."""
    for name, opened in policies.items():
        policy = opened.inner if isinstance(opened, Translated) else opened
        if isinstance(policy, HFPolicy) and policy.plain is not None:
            whose = "the student" if name == "self" else name
            yield f"{whose} takes the {policy.path}; turns are sampled one at a time, which is slower"
        elif isinstance(policy, HFPolicy) and policy.unfused:
            whose = "the student" if name == "self" else name
            yield (
                f"{whose} does without compiled elementwise kernels, which is slower: {policy.unfused}"
            )


def other_tokenizer(name: str, pair: Pair) -> str:
    """What to expect of a teacher with another tokenizer."""
    same = sum(other >= 0 for other in pair.same)
    return (
        f"{name} has another tokenizer than the student, with which it shares {same:,} of the "
        f"student's {len(pair.same):,} tokens; it teaches where both cut the text alike "
        '("covered" in the metrics), and over the vocabulary where that is one token for both '
        '("single")'
    )


def text_only(name: str, *, tells: bool = False) -> str:
    """What to expect of a teacher that is asked in messages, and `tells` of likely tokens."""
    if tells:
        return (
            f"{name} is asked in messages: the student learns from the turns that it takes, from "
            "the likely tokens that it tells where its token is one of the student's (their share "
            'is "top_logprobs" in the metrics), and nothing from it about other turns'
        )
    return (
        f"{name} is asked in messages and tells no log-probabilities: the student learns from the "
        "turns that it takes, and nothing from it about other turns"
    )


def other_ends(policies: Mapping[str, OpenedPolicy]) -> Iterator[str]:
    """Models whose generation_config.json names words as end tokens. Further special tokens, such as
    Llama 3's <|eom_id|>, end a turn."""
    for name, policy in policies.items():
        if not isinstance(policy, HFPolicy):
            continue
        chat, ids = policy.chat, set(end_tokens(policy.model))
        others = sorted(token for token in ids - {*chat.ends} if 0 <= token < chat.size)
        if others:
            words = [str(each) for each in chat.tokenizer.convert_ids_to_tokens(others)]
            whose = "the student" if name == "self" else name
            yield (
                f"{whose} has further end tokens in its generation_config.json "
                f"({', '.join(words)}) that its tokenizer does not mark as special: they are text "
                "here, and a turn goes on after them"
            )


def dropped_layers(config: Config) -> Iterator[str]:
    """A pretrained model without its last layers speaks no language any more. The models of this
    project are made to start smaller students from, and a new model has learnt nothing yet, so both
    are left out."""
    section = config.policy
    if not named(section).ours:
        return
    built = section.build is not None or section.model.startswith("builtin:")
    if section.layers is None or built:
        return
    described = Path(locate(section.model, where="policy")) / "config.json"
    if not described.is_file():
        return
    layers = json.loads(described.read_text()).get("num_hidden_layers", section.layers)
    if section.layers < layers:
        yield (
            f"policy.layers = {section.layers} keeps {section.layers} of the {layers} layers of "
            f"{section.model}, so what it learnt before is lost; leave policy.layers out to train "
            "the whole model"
        )


def long_demonstrations(
    chat: Chat,
    suite: Suite,
    tasks: Sequence[Task],
    rollout: RolloutSection,
    *,
    with_thoughts: bool,
) -> Iterator[str]:
    """Demonstrations that the limits of an episode cut short, with the student's tokenizer; the
    suite must have an expert."""
    scripts: list[list[str]] = []
    until = time.monotonic() + SECONDS
    for task in sample(tasks)[:DEMONSTRATIONS]:
        turns = attempt("demonstrate", partial(script, suite, task, with_thoughts=with_thoughts))
        scripts.append([text for text, _ in turns])
        if time.monotonic() > until:
            break
    limit, room = rollout.max_turns, rollout.max_new_tokens
    long = [len(texts) for texts in scripts if len(texts) > limit]
    if long:
        yield (
            f"{len(long)} of {len(scripts)} demonstrations have more turns than "
            f"rollout.max_turns = {limit}, so they are cut short; set it to at least {max(long)}"
        )
    lengths = [len(chat.reply(text)) for texts in scripts for text in texts]
    cut = [length for length in lengths if length > room]
    if cut:
        yield (
            f"{len(cut)} of {len(lengths)} replies of the expert have more tokens than "
            f"rollout.max_new_tokens = {room}, so the student could not finish what it imitates; "
            f"set it to at least {max(cut)}"
        )


# -- while it runs


@dataclass(kw_only=True)
class _Sums:
    steps: int = 0
    episodes: int = 0
    turns: int = 0  # the student's
    invalid: int = 0
    unreadable: int = 0  # of these, without exactly one action between the tags
    cut: int = 0  # turns of the student that reached max_new_tokens
    varied: float = 0.0
    gradient: float = 0.0
    stops: dict[str, int] = field(default_factory=dict)
    empty: dict[str, tuple[float, int]] = field(default_factory=dict)  # view -> tasks without hint


class Signs:
    """What the steps of a phase have in common, and what it says about the settings."""

    def __init__(self, config: Config, phase: Phase, context: Context | None = None) -> None:
        """`context` reads the answers."""
        self.config, self.phase, self.sums = config, phase, _Sums()
        self.context = context or Context()

    def add(self, line: Line, episodes: Sequence[Episode]) -> None:
        """Take in a finished step: its line of metrics.jsonl, and all that was played."""
        s, limit = self.sums, self.config.rollout.max_new_tokens
        unbroken = [e for e in episodes if not e.stop.broken]
        own = [turn for e in unbroken for turn in e.turns if turn.actor == STUDENT]
        s.steps += 1
        s.episodes += len(unbroken)
        s.turns += len(own)
        invalid = [turn for turn in own if not turn.valid]
        s.invalid += len(invalid)
        s.unreadable += sum(bool(self.context.problem(t.text)) for t in invalid)
        s.cut += sum(len(turn.tokens) >= limit for turn in own)
        s.varied += float(str(line["varied"]))
        s.gradient += float(str(line["grad_norm"]))
        for episode in unbroken:
            s.stops[episode.stop] = s.stops.get(episode.stop, 0) + 1
        hints = line["hints"]
        assert isinstance(hints, Mapping)
        tasks = len({e.task.id for e in unbroken})
        for name, tokens in hints.items():
            empty, seen = s.empty.get(name, (0.0, 0))
            s.empty[name] = (empty + tokens["empty"], seen + tasks)

    def sentences(self, *, after: str, columns: Mapping[str, Tensor] | None = None) -> list[str]:
        """One sentence for each sign; `after` is the "first" or the "last" step."""
        if not self.sums.steps:
            return []
        when = "in the first step" if after == "first" else f"in all {self.sums.steps} steps"
        signs = [*self._student(when), *self._ends(when), *self._learning(when), *self._hints(when)]
        return signs + list(self._unread(columns or {}))

    def _student(self, when: str) -> Iterator[str]:
        s, limit = self.sums, self.config.rollout.max_new_tokens
        if not s.turns:
            return
        if s.cut > CUT * s.turns:
            yield (
                f"{s.cut} of the student's {s.turns} turns {when} were cut at "
                f"rollout.max_new_tokens = {limit}, so their actions are lost; raise it, or start "
                "with a [warm_start] that teaches short answers"
            )
        if s.invalid > INVALID * s.turns:
            yield self._invalid(when)

    def _invalid(self, when: str) -> str:
        """The three likeliest causes, each with what was measured and the setting that helps."""
        s, limit = self.sums, self.config.rollout.max_new_tokens
        shown = self.config.context.instructions
        unreadable, refused = s.unreadable / s.turns, (s.invalid - s.unreadable) / s.turns
        what = "no call that can be read" if self.context.tools else "no action between its tags"
        format_help = (
            "the functions and their format stand in every prompt, so this model does not follow "
            "them: choose one that was trained to call functions, or see (3)"
            if self.context.tools
            else "the system message shows it already (context.instructions = true), so this model "
            "does not follow it: choose one that does, or see (3)"
            if shown
            else "it was never shown: set context.instructions = true"
        )
        return (
            f"{s.invalid} of the student's {s.turns} turns {when} are invalid; the likeliest "
            f"causes: (1) the format of an answer: {unreadable:.0%} of the turns have {what}; "
            f"{format_help}. (2) the length: {s.cut / s.turns:.0%} were cut at "
            f"rollout.max_new_tokens = {limit}, and a cut answer has no end tag; raise it. (3) the "
            f"environment refused the actions of {refused:.0%}, which were readable; start with "
            '[warm_start] name = "sft" where the environment has an expert, which teaches the '
            'format too, or list what is admissible with context.render = "actions". '
            "`tutelage try` shows an episode turn by turn"
        )

    def _ends(self, when: str) -> Iterator[str]:
        s, rollout = self.sums, self.config.rollout
        if s.episodes and s.stops.get(Stop.TOKENS, 0) == s.episodes:
            yield (
                f"every episode {when} ended because the context was full; choose a model with a "
                "longer context, set context.history to a few turns, or lower rollout.max_new_tokens"
            )
        if s.episodes and s.stops.get(Stop.TURNS, 0) == s.episodes:
            yield (
                f"every episode {when} was cut at rollout.max_turns = {rollout.max_turns}, none "
                "reached its end; raise it, or choose easier tasks"
            )

    def _learning(self, when: str) -> Iterator[str]:
        s = self.sums
        algorithm = self.phase.algorithm
        compared = any(signal.compares_group for signal in signals_of(algorithm))
        compares = compared or algorithm.acting.max_batches > 0
        if compares and s.varied == 0:
            yield (
                f"the episodes of a group have equal returns in every group {when}, so their "
                "advantages are 0 and the reward teaches nothing; raise rollout.group_size or "
                "rollout.temperature, take easier tasks, start with a [warm_start], or choose an "
                "algorithm with a teacher"
            )
        if s.gradient == 0:
            yield (
                f"the gradient is 0 {when}, so the weights stay as they are; see the signs before "
                "this one, or give the algorithm a term with a weight above 0"
            )

    def _hints(self, when: str) -> Iterator[str]:
        for name, (empty, tasks) in self.sums.empty.items():
            if tasks and empty == tasks:
                yield (
                    f"the hint of {name} is empty for all {tasks} tasks {when}, so {name} knows no "
                    "more than the student; choose another hint, or complete what the environment "
                    "tells of its tasks"
                )

    def _unread(self, columns: Mapping[str, Tensor]) -> Iterator[str]:
        """A view of the student's own weights whose scores do not depend on its hint."""
        for name, view in self.phase.algorithm.views.items():
            column = columns.get(f"gap[{name}|{STUDENT}]")
            if column is None or view.policy != "self" or not (view.hint or view.hindsight):
                continue
            known = column[~column.isnan()]
            if len(known) and not bool(known.any()):
                yield (
                    f"{name} scores every token in the first step as the student does, so its "
                    "privileged text was never read; look at the chat template "
                    "(policy.chat.template), which may drop the system message"
                )


class Causes:
    """Why episodes broke, one sentence for each cause that has not been told yet."""

    def __init__(self) -> None:
        self.reported: set[str] = set()

    def new(self, episodes: Sequence[Episode]) -> list[str]:
        first: dict[str, Episode] = {}
        for episode in episodes:
            if episode.stop.broken:
                # numbers and addresses differ from time to time
                first.setdefault(re.sub(r"0x[0-9a-fA-F]+|\d+", "#", episode.error), episode)
        new = {cause: episode for cause, episode in first.items() if cause not in self.reported}
        self.reported |= set(new)
        return [
            f"an episode of task {one_line(episode.task.id, 80)} broke ({episode.error}); broken "
            "episodes are counted, played again and not learnt from; `tutelage check-env` tells more"
            for episode in list(new.values())[:CAUSES]
        ]
