"""Several policies in the place of one: each answers for the tasks of its families.

The sections [policies."teacher@math"] and [policies."teacher@code"] together are the policy
"teacher" of an algorithm's views; [policies.teacher] beside them is for every other family.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from tutelage.errors import ConfigError, PolicyError, did_you_mean
from tutelage.maths.distributions import Distribution
from tutelage.objective.scores import Scores
from tutelage.policies.base import (
    Aligns,
    AnswersLate,
    Completion,
    Dtype,
    OpenedPolicy,
    Prefetches,
    Request,
)
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample
from tutelage.types import Episode

MARK = "@"
"""Between the name of a policy and a family, in the name of a section."""


def parted(sections: Iterable[str]) -> dict[str, dict[str, str]]:
    """By policy with sections of families: family -> section, and "" -> that of all other families
    if there is one.

    >>> parted(["teacher@math", "teacher", "judge", "teacher@code"])
    {'teacher': {'math': 'teacher@math', 'code': 'teacher@code', '': 'teacher'}}
    """
    names = list(sections)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        policy, mark, family = name.partition(MARK)
        if mark:
            found.setdefault(policy, {})[family] = name
    for policy, table in found.items():
        if policy in names:
            table[""] = policy
    return found


def sections_of(policy: str, sections: Iterable[str]) -> list[str]:
    """The sections that make up a policy; itself alone if no family has its own."""
    return sorted(parted(sections).get(policy, {"": policy}).values())


def refuse_missing(policy: str, table: Mapping[str, object], families: Iterable[str]) -> None:
    """Raises ConfigError for families of tasks that no section is for."""
    if "" in table:
        return
    missing = sorted({family for family in families if family not in table})
    if missing:
        first = missing[0]
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ConfigError(
            f"tasks of the family {first!r}{others} have no {policy}{did_you_mean(first, table)}: add "
            f'[policies."{policy}{MARK}{first}"], or [policies.{policy}] for all families without '
            "their own"
        )


class ByFamily:
    """Policies that act and are scored in turn, by the family of the task.

    table  family -> its policy; "" -> the one of all others, if there is one

    All have the student's tokenizer. Raises ConfigError where that is not so, or where only some are
    on servers.
    """

    def __init__(self, name: str, table: Mapping[str, OpenedPolicy]) -> None:
        self.name, self.table = name, dict(table)
        self.policies: list[OpenedPolicy] = []
        self.heads: _Heads | None = None
        for policy in table.values():
            if not any(policy is other for other in self.policies):
                self.policies.append(policy)
        for family, policy in table.items():
            if isinstance(policy, Aligns):
                raise ConfigError(
                    f"policies.{name}{MARK * bool(family)}{family}: a policy by family must have the "
                    "student's tokenizer; choose a model of its family, or one teacher for all tasks"
                )
        if len({isinstance(policy, AnswersLate) for policy in self.policies}) > 1:
            raise ConfigError(
                f"policies.{name}: some of its families have a model on a server and some one in this "
                "process; use one kind for all of them"
            )

    def of(self, family: str) -> OpenedPolicy:
        """Raises ConfigError for a family without a policy."""
        refuse_missing(self.name, self.table, [family])
        return self.table.get(family) or self.table[""]

    def chat_of(self, family: str) -> Chat:
        """The chat of a family's policy, whose template may be its own."""
        return self.of(family).chat

    @property
    def chat(self) -> Chat:
        return self.policies[0].chat

    @property
    def context_length(self) -> int:
        return min(policy.context_length for policy in self.policies)

    @property
    def dtype(self) -> Dtype:
        return "bfloat16" if any(p.dtype == "bfloat16" for p in self.policies) else "float32"

    # -- sampling

    def submit(self, request: Request) -> None:
        self.of(request.family).submit(request)

    def poll(self) -> list[Completion]:
        return [completion for policy in self.policies for completion in policy.poll()]

    def release(self, key: str) -> None:
        for policy in self.policies:
            policy.release(key)

    def refresh(self) -> None:
        for policy in self.policies:
            policy.refresh()

    # -- scoring

    def _parts(self, samples: Sequence[Sample]) -> list[tuple[int, list[int]]]:
        """Which policy scores which of the samples."""
        by_policy: dict[int, list[int]] = {}
        for k, sample in enumerate(samples):
            own = self.of(sample.family)
            number = next(i for i, policy in enumerate(self.policies) if policy is own)
            by_policy.setdefault(number, []).append(k)
        return sorted(by_policy.items())

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        parts = self._parts(samples)
        scores = [
            self.policies[i].score([samples[k] for k in rows], temperature) for i, rows in parts
        ]
        place = self._places(samples, [k for _, rows in parts for k in rows])
        if not all(each.has_distribution for each in scores):
            device = scores[0].logp.device
            logp = torch.cat([each.logp.to(device) for each in scores])
            return Scores(logp=logp[place.to(device)])
        where = str(scores[0].token.device)
        heads = self._heads(samples[0], temperature).to(where)
        blocks = [
            heads.block(i, each.distribution.to(where))
            for (i, _), each in zip(parts, scores, strict=True)
        ]
        to = place.to(where)
        return Scores(
            distribution=Distribution(
                hidden=torch.cat([each.hidden for each in blocks])[to],
                head=blocks[0].head,
                temperature=blocks[0].temperature,
                cap=blocks[0].cap,
            ),
            token=torch.cat([each.token.to(where) for each in scores])[to],
        )

    def _places(self, samples: Sequence[Sample], order: Sequence[int]) -> Tensor:
        """[N] where each token of the samples stands among those that were scored in `order`."""
        starts, at = dict[int, int](), 0
        for k in order:
            starts[k] = at
            at += len(samples[k].tokens)
        return torch.tensor(
            [starts[k] + t for k, sample in enumerate(samples) for t in range(len(sample.tokens))],
            dtype=torch.long,
        )

    def _heads(self, sample: Sample, temperature: float) -> "_Heads":
        """The LM heads of all policies, which do not change."""
        if self.heads is None:
            probe = Sample(prompt=sample.prompt[:1], tokens=sample.prompt[:1])
            with torch.no_grad():
                found = [policy.score([probe], temperature) for policy in self.policies]
            self.heads = _Heads([each.distribution for each in found])
        return self.heads

    @property
    def padded(self) -> bool:
        return any(getattr(policy, "padded", False) for policy in self.policies)


class _Heads:
    """LM heads of several policies side by side: [V, H_1 + H_2 + ...]. A hidden state of policy i is
    padded with zeros in the place of the others', so its logits are those under its own head."""

    def __init__(self, of: Sequence[Distribution]) -> None:
        self.of = list(of)
        if len({len(each.head) for each in of}) > 1:
            raise PolicyError("policies by family have vocabularies of different sizes")
        self.dense = any(not each.head.shape[1] for each in of) or len({x.cap for x in of}) > 1
        self.widths = [each.head.shape[1] for each in of]
        dtypes = {each.head.dtype for each in of}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        device = of[0].head.device
        self.head = (
            of[0].head.new_zeros(len(of[0].head), 0)
            if self.dense
            else torch.cat([x.head.detach().to(device, self.dtype) for x in of], -1)
        )

    def to(self, device: str) -> "_Heads":
        if str(self.head.device) != device:
            self.head = self.head.to(device)
        return self

    def block(self, i: int, of: Distribution) -> Distribution:
        of = of.detach()
        if self.dense:  # logits of one cannot be written under the head of another
            return Distribution(hidden=of.logps(), head=self.head)
        before, after = sum(self.widths[:i]), sum(self.widths[i + 1 :])
        hidden = torch.nn.functional.pad(of.hidden.to(self.dtype), (before, after))
        return Distribution(hidden=hidden, head=self.head, temperature=of.temperature, cap=of.cap)


class ByFamilyLate(ByFamily):
    """Policies on servers, whose answers come late and whose scores can be asked for early."""

    def wait(self) -> None:
        for policy in self.policies:
            cast(AnswersLate, policy).wait()

    def prefetch_scores(self, samples: Sequence[Sample]) -> None:
        for i, rows in self._parts(samples):
            policy: Any = self.policies[i]
            if isinstance(policy, Prefetches):
                policy.prefetch_scores([samples[k] for k in rows])


def by_family(policies: Mapping[str, OpenedPolicy]) -> dict[str, OpenedPolicy]:
    """Policies by section -> by name, those with sections of families put together."""
    found = dict(policies)
    for name, table in parted(policies).items():
        opened = {family: policies[section] for family, section in table.items()}
        late = all(isinstance(policy, AnswersLate) for policy in opened.values())
        for section in table.values():
            del found[section]
        found[name] = (ByFamilyLate if late else ByFamily)(name, opened)
    return found


def taught_lines(
    policies: Mapping[str, object], episodes: Iterable[Episode]
) -> dict[str, dict[str, dict[str, int]]]:
    """Who taught what: by policy with sections of families, section -> family -> episodes."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, policy in policies.items():
        if not isinstance(policy, ByFamily):
            continue
        rows = found.setdefault(name, {})
        for family in sorted(e.task.family for e in episodes if not e.stop.broken):
            section = f"{name}{MARK}{family}" if family in policy.table else name
            row = rows.setdefault(section, {})
            row[family] = row.get(family, 0) + 1
    return found
