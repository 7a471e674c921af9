"""`tutelage algorithms` and `tutelage envs`: complete tables within 80 columns."""

import inspect
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from tutelage.algorithms import ALGORITHMS
from tutelage.algorithms.parameters import SHARED, meanings
from tutelage.cli import listing
from tutelage.cli.progress import Lines
from tutelage.evaluation.evaluate import Evaluation, Panel
from tutelage.types import Episode, Task

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("name", ALGORITHMS)


def printed(name: str = "", width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    listing.algorithm(name, console) if name else listing.algorithms(console)
    return out.getvalue()


@EVERY
def test_every_algorithm_has_a_line_in_the_list(name: str) -> None:
    shown = printed()
    row = next(line for line in shown.splitlines() if line.split()[:1] == [name])
    doc = sys.modules[ALGORITHMS[name].__module__].__doc__ or ""
    paper = listing._paper(doc)
    assert paper in row
    assert "arXiv:" not in row
    assert max(map(len, shown.splitlines())) <= 80


@EVERY
def test_every_setting_is_explained(name: str) -> None:
    function = ALGORITHMS[name]
    for setting in inspect.signature(function).parameters:
        if setting != "total_steps":
            assert len(meanings(function)[setting]) > 5, f"{name}.{setting}: say what it means"


@EVERY
def test_an_algorithm_is_explained_within_80_columns(name: str) -> None:
    shown = printed(name)
    assert [line for line in shown.splitlines() if len(line.rstrip()) > 80] == []
    assert f'name = "{name}"' in shown
    rows = {line.split()[0] for line in shown.partition("Settings")[2].splitlines() if line.strip()}
    assert set(inspect.signature(ALGORITHMS[name]).parameters) - {"total_steps"} <= rows
    assert (f"docs/methods/{name}.md" in shown) == (ROOT / f"docs/methods/{name}.md").is_file()
    example = f"household_{name}"
    commands = f"tutelage examples {example} --copy .\ntutelage train {example}.toml\n"
    assert (commands in shown) == (ROOT / f"examples/{example}.toml").is_file()


def test_defaults_choices_and_the_docstrings_own_words_are_shown() -> None:
    shown = " ".join(printed("grpo").split())
    assert '"sampler" or "recomputed"' in shown
    assert "clip 0.2 PPO's clip range" in shown
    assert "kl 0.0 weight of the KL to the initial weights, by k3" in shown


def test_a_setting_without_a_meaning_of_its_own_has_the_shared_one_or_its_type() -> None:
    assert meanings(ALGORITHMS["sdar"])["kl"] == SHARED["kl"]

    def mine(*, kl: float = 0.0, speed: float = 1.0, every: int = 2) -> None:
        """Mine.

        Args:
            speed: how fast,
                in tokens
            kl: mine: not theirs

        Not: an argument.
        """

    assert meanings(mine) == {
        "kl": "mine: not theirs",
        "speed": "how fast, in tokens",
        "every": SHARED.get("every", "an integer"),
    }


def test_a_docstring_that_begins_with_its_arguments_is_read() -> None:
    def grow(*, kl: float = 0.0, speed: float = 1.0) -> None:
        """Args:
        kl: its own
        speed: how fast,
            in tokens
        """

    assert meanings(grow) == {"kl": "its own", "speed": "how fast, in tokens"}


def test_a_text_is_filled_but_its_formulas_stand() -> None:
    text = (
        "Some words that are\nlong enough.\n\n    A = b\n    C = d + eeeeeeee + f\n\nx = y\nz = w"
    )
    result = listing.fill(text, 20).splitlines()
    assert result == [
        "Some words that are",
        "long enough.",
        "",
        "    A = b",
        "    C = d + eeeeeeee",
        "        + f",
        "",
        "x = y",
        "z = w",
    ]


# -- evaluations


def evaluation(scores: Sequence[float | None], **summary: float) -> Evaluation:
    episodes = tuple(
        Episode(
            task=Task(id=str(k), family="ab"[k % 2]),
            group=str(k),
            turns=(),
            score=score,
            won=score == 1,
        )
        for k, score in enumerate(scores)
    )
    tested = Panel(split="test", tasks=tuple(e.task for e in episodes), fingerprint="f")
    return Evaluation(panel=tested, episodes=episodes, summary=summary)


def shown(**found: Evaluation) -> str:
    out = io.StringIO()
    listing.evaluations(found, Console(file=out, width=120))
    return out.getvalue()


def console_line(result: Evaluation) -> str:
    out = io.StringIO()
    Lines(out).evaluated({**result.line(4, "student")})
    return out.getvalue()


def test_scores_are_shown_beside_success_where_they_say_more() -> None:
    some = evaluation([1.0, 0.5, 1.0, 0.25])
    rows = [line.split("│")[1:3] for line in shown(student=some).splitlines() if "│" in line]
    cells = {name.strip(): cell.strip() for name, cell in rows}
    assert cells["score"] == "69 % (32 to 100 %)"
    at = [name.strip() for name, _ in rows].index("score")
    assert [cell.strip() for _, cell in rows[at + 1 : at + 3]] == [
        "100 % (34 to 100 %)",
        "38 % (13 to 62 %)",
    ]
    assert "2/4 = 50 % (15 to 85 %), score 69 % (32 to 100 %) at step 4" in console_line(some)
    for same in (evaluation([1.0, 0.0]), evaluation([None, None])):
        assert "score" not in shown(student=same) + console_line(same)
    assert "score" in shown(student=some, teacher=evaluation([None] * 4))


def test_what_the_suite_says_is_shown() -> None:
    result = evaluation([1.0, 0.0], final_pass=0.125)
    assert "final pass" in shown(student=result)
    assert "0.125" in shown(student=result)
    assert ", final pass 0.125 at step 4" in console_line(result)


def test_lines_of_older_runs_can_still_be_shown() -> None:
    line = evaluation([1.0, 0.5]).line(4, "student")
    old = {name: line[name] for name in line if not name.startswith("score")}
    out = io.StringIO()
    Lines(out).evaluated(old)
    assert out.getvalue() == "evaluation: 1/2 = 50 % (9 to 91 %) at step 4\n"
