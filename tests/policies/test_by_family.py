"""Several policies in the place of one: each acts and is scored for the tasks of its families."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fake_servers import remote, serving
from support.tiny_models import policy, run, small_chat, tiny
from support.tiny_runs import Quiet, tiny_run
from torch.testing import assert_close

from tutelage.envs.doors import Doors
from tutelage.envs.registry import register
from tutelage.errors import ConfigError
from tutelage.objective import View
from tutelage.policies.base import AnswersLate, Request
from tutelage.policies.by_family import ByFamily, ByFamilyLate, by_family, parted, refuse_missing
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample
from tutelage.rollout.session import Session
from tutelage.runs import train
from tutelage.runs.assemble import assemble
from tutelage.types import Task

FAMILIES = ("math", "code", "math", "games", "code", "math")


def wide() -> HFPolicy:
    """A policy whose hidden states have another width than those of the others."""
    return HFPolicy(tiny(3, hidden=64), small_chat(), slots=4, tokens=16_384)


class Capped(HFPolicy):
    @property
    def cap(self) -> float:
        return 5.0


def samples() -> list[Sample]:
    chat = small_chat()
    return [
        Sample(
            prompt=chat.open("", f"room {k}"),
            tokens=chat.reply("go " * (k + 1)),
            family=family,
        )
        for k, family in enumerate(FAMILIES)
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_each_family_is_scored_by_its_own_teacher(temperature: float) -> None:
    table = {"math": policy(1), "code": wide(), "": policy(2)}
    several = ByFamily("teacher", table)
    with torch.no_grad():
        mixed = several.score(samples(), temperature)
        alone = [table.get(each.family, table[""]).score([each], temperature) for each in samples()]
    assert_close(mixed.logp, torch.cat([each.logp for each in alone]), atol=1e-5, rtol=0)
    rows = torch.cat([each.distribution.logps() for each in alone])
    assert_close(mixed.distribution.logps(), rows, atol=1e-5, rtol=0)
    assert mixed.token.tolist() == [t for each in samples() for t in each.tokens]
    # scores of a part go together with those of another part
    first, rest = several.score(samples()[:1], 1.0), several.score(samples()[1:], 1.0)
    assert first.distribution.head is rest.distribution.head


def test_policies_of_different_forms_are_scored_as_log_probabilities() -> None:
    capped = Capped(tiny(4), small_chat(), slots=4, tokens=16_384)
    table = {"math": policy(1), "": capped}
    several = ByFamily("teacher", table)
    with torch.no_grad():
        mixed = several.score(samples(), 1.0)
        alone = [table.get(s.family, table[""]).score([s], 1.0) for s in samples()]
    rows = torch.cat([each.distribution.logps() for each in alone])
    assert_close(mixed.distribution.logps(), rows, atol=1e-5, rtol=0)


def test_each_family_is_played_by_its_own_teacher() -> None:
    table = {"math": policy(1), "code": policy(2)}
    several: Any = ByFamily("teacher", table)
    chat = small_chat()
    for family, own in table.items():
        request = Request(key=family, prompt=chat.open("", "look"), seed=3, max_new=5)
        found = run(several, [replace(request, family=family)])
        alone = run(own, [request])
        assert found[family].tokens == alone[family].tokens
        assert found[family].logps == pytest.approx(alone[family].logps, abs=1e-5)
        several.release(family)


def test_teachers_on_servers() -> None:
    with serving(policy(1)) as one, serving(policy(2)) as two:
        table: dict[str, Any] = {
            "math": remote(one.port, small_chat()),
            "": remote(two.port, small_chat()),
        }
        several = by_family({"teacher@math": table["math"], "teacher": table[""]})["teacher"]
        assert isinstance(several, ByFamilyLate)
        assert isinstance(several, AnswersLate)
        several.prefetch_scores(samples())
        found = several.score(samples(), 1.0).logp
    with torch.no_grad():
        alone = [policy(1 if s.family == "math" else 2).score([s], 1.0).logp for s in samples()]
    assert_close(found, torch.cat(alone), atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match=r"policies.teacher: some of its families .* on a server"):
        ByFamily("teacher", {"math": policy(1), "": table[""]})


def test_a_family_without_a_teacher_is_a_sentence() -> None:
    several = ByFamily("teacher", {"math": policy(1)})
    with pytest.raises(ConfigError, match=r"family 'code' have no teacher: add \[policies"):
        several.score(samples(), 1.0)
    refuse_missing("teacher", {"math": 1}, ["math"])
    refuse_missing("teacher", {"math": 1, "": 1}, ["games"])
    with pytest.raises(ConfigError, match=r"'maths' \(and 1 more\) have no teacher; did you mean"):
        refuse_missing("teacher", {"math": 1}, ["maths", "zoo", "math"])
    assert parted(["teacher", "self"]) == {}


def test_a_prompt_is_in_the_chat_of_the_familys_teacher() -> None:
    other = policy(2)
    other.chat = replace(other.chat, history="append")
    several: Any = ByFamily("teacher", {"math": policy(1), "code": other})
    session = Session(assemble(config()).suite, {"self": policy(), "teacher": several})
    for family, chat in (("math", small_chat()), ("code", other.chat)):
        prompter = session.prompter(View(policy="teacher"), Task(id="t", family=family))
        assert prompter.chat is chat
        assert prompter.family == family


class Rooms(Doors):
    """Doors whose first letter is the family."""

    def tasks(self, split: str) -> list[Task]:
        return [replace(task, family=task.data["path"][0]) for task in super().tasks(split)]


def config(folder: str = "run", *families: str) -> Any:
    sections = [f"teacher@{family}" for family in families] or ["teacher"]
    model = {"layers": 1, "build": {"hidden": 32, "context": 160}}
    return tiny_run(
        run={"folder": folder, "steps": 1},
        env={"suite": register(Rooms)},
        algorithm={"name": "opd"},
        rollout={"tasks_per_step": 9},
        eval={"every": 0, "tasks": 2},
        policies=dict.fromkeys(sections, model),
    )


def test_a_run_with_a_teacher_for_each_family(tmp_path: Path) -> None:
    parts = assemble(config(str(tmp_path / "run"), "a", "b", "c"))
    assert parts.policies == {"teacher@a", "teacher@b", "teacher@c"}
    with parts.open(tick=lambda done, total: None) as (session, policies):
        several: Any = policies["teacher"]
        assert set(policies) == {"self", "teacher"}
        assert len(several.policies) == 3
        for task in parts.tasks:
            assert several.of(task.family) is several.table[task.data["path"][0]]
        assert session.policies["teacher"] is several
    train.train(config(str(tmp_path / "run"), "a", "b", "c"), watch=Quiet())
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["losses"]
    families = {f"teacher@{family}": {family: 3} for family in "abc"}
    assert json.loads(line)["taught"] == {"teacher": families}


def test_a_run_with_a_family_that_has_no_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"tasks of the family 'c' have no teacher: add \[policies"
    ):
        assemble(config(str(tmp_path / "run"), "a", "b"))
