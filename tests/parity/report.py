"""The text of docs/parity.md, made from the records of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from parity.reference import versions

if TYPE_CHECKING:
    from parity.run import Record, WalkRecord

INTRODUCTION = """# Parity with TextWorld

The household plays by ALFWorld's rules without TextWorld, the engine that ALFWorld runs on. Whether
it plays *exactly* so is measured: the same game files and the same commands go to both, and after
every reset and every move these must be equal: the text, the admissible commands and their order,
the reward, whether the game is won, and whether it has ended. TextWorld continues after a win, so the
comparison does too.
"""

SOURCES = """The sources of commands: `expert`, our searching expert to its end, then random moves
in the won game (where the goal wants a slice, it acts without, cuts and acts again); `random`,
admissible commands, every verb equally likely; `detours`, the expert's moves with random ones in
between; `garbage`, unknown verbs, wrong numbers, odd case and blanks, Unicode, very long lines and
commands that are admissible elsewhere, mixed with admissible ones; `tour`, always what was tried
least; `errands`, things carried to where something can be done to them. "Won after" counts the
moves after which the goal held.
"""

FORMS = """The forms of games: `generated`, as the generator makes them, all families, sizes and
splits; `worn`, the same after a party: doors open at the start, furniture pushed together, objects
in two places or in none, already clean, hot, cool, sliced or toggled, one in another, the agent
anywhere, goals that want a slice; `dressed`, worn and with the extra facts, scenery, costs,
comments and letter case of official files; `old`, dressed and in the rules and wording of
ALFWorld's first data release ("put {o} in/on {r}", arrivals at a location, no help).
"""

PUBLISHED = """`published` are official files of that release (`json_2.1.1`, valid_unseen), from the
public repository [mint-bench](https://github.com/xingyaoww/mint-bench).
"""

KNOWN = "pick_cool_then_place_in_recep-BreadSliced-None-Microwave-10"
ALONE = f"""The two that our reader alone refuses, `trial_T20190906_224631_058932` and
`trial_T20190906_224718_745017` of `{KNOWN}`, have another rule
for `OpenObject` than all others: nothing can be opened while anything is open. Their objects are
sliced and they are not marked solvable, so ALFWorld itself leaves them out.
"""

LIMITS = """Not compared are games whose goal is out of reach, which TextWorld 1.7.0 fails to load,
and files that `read` refuses with a sentence, because their rules, goal or wording are not
ALFWorld's. `tests/parity/test_odd_files.py` holds both engines against odd files, fact by fact, and
shows which are refused; `tests/parity/test_scripts.py` plays the rules that walks seldom meet.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a table: counts over the walks of one source or one form of game."""

    name: str
    games: int
    steps: int
    admissible: int
    won: int
    mismatches: int

    def __str__(self) -> str:
        counts = (self.games, self.steps, self.admissible, self.won, self.mismatches)
        return " | ".join((f"| {self.name}", *(f"{count:,}" for count in counts))) + " |"


def render(records: Sequence[Record], *, stock: bool) -> str:
    """The whole text."""
    played = [record for record in records if not record["refused"]]
    parts = [
        INTRODUCTION,
        _table("source", played, lambda _, walk: walk["source"]),
        SOURCES,
        _table("form of game", played, lambda record, _: record["form"]),
        FORMS,
    ]
    published = [record for record in records if record["form"] == "published"]
    parts += [_refusals([record for record in records if record not in published], "made games")]
    if published:
        parts += [PUBLISHED + _refusals(published, "files")]
    if any(KNOWN in record["name"] and record["refused"] == "ours" for record in published):
        parts += [ALONE]
    parts += [LIMITS, _circumstances(records, stock)]
    differences = [record["mismatch"] for record in played if record["mismatch"]]
    if differences:
        parts += ["## Mismatches\n\n```\n" + "\n".join(differences) + "\n```\n"]
    return "\n".join(parts)


def _table(title: str, records: Sequence[Record], key: Callable[[Record, WalkRecord], str]) -> str:
    groups: dict[str, list[tuple[str, WalkRecord]]] = {}
    for record in records:
        for walk in record["walks"]:
            groups.setdefault(key(record, walk), []).append((record["name"], walk))
    every = [pair for group in groups.values() for pair in group]
    rows = [_row(name, groups[name]) for name in sorted(groups)]
    head = f"| {title} | games | moves | admissible | won after | mismatches |"
    return "\n".join(
        [head, "|---|---:|---:|---:|---:|---:|", *map(str, rows), f"{_row('all', every)}\n"]
    )


def _row(name: str, walks: Sequence[tuple[str, WalkRecord]]) -> Row:
    return Row(
        name=name,
        games=len({game for game, _ in walks}),
        steps=sum(walk["steps"] for _, walk in walks),
        admissible=sum(walk["valid"] for _, walk in walks),
        won=sum(walk["wins"] for _, walk in walks),
        mismatches=sum(walk["mismatch"] for _, walk in walks),
    )


def _refusals(records: Sequence[Record], what: str) -> str:
    refused = [record["refused"] for record in records if record["refused"]]
    if not refused:
        return ""
    reference, ours, both = (refused.count(who) for who in ("TextWorld", "ours", "both"))
    return (
        f"Of {len(records)} {what} {len(refused)} are not played: TextWorld alone cannot load "
        f"{reference},\nour reader alone refuses {ours}, neither takes {both}.\n"
    )


def _circumstances(records: Sequence[Record], stock: bool) -> str:
    seconds = sum(record["seconds"] for record in records)
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    way = (
        "TextWorld ran as installed"
        if stock
        else "TextWorld ran with remembered parses (`test_reference.py`: no difference)"
    )
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} in {seconds:,.0f} s of CPU time;\n{way}.\n"
        f"Versions: {found}. To repeat it: `make parity-report`.\n"
    )
