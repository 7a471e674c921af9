"""Small corpora for tests of Search-QA."""

import json
from collections.abc import Iterable
from pathlib import Path

from tutelage_worlds.search_qa.passages import InMemory, Passage, titled
from tutelage_worlds.search_qa.world import world

TOWNS = (
    titled("7", "Oslo", "A town on the river Alna."),
    titled("8", "Lima", "A town on the river Rimac. Oslo is far away."),
    titled("9", "Ada Bo", "She wrote about the river of Lima."),
)


def towns() -> InMemory:
    return InMemory("towns", TOWNS)


def small() -> InMemory:
    return world("small", 240, 0).passages


def lines(path: Path, rows: Iterable[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(passages: Iterable[Passage]) -> list[dict[str, str]]:
    return [{"id": p.id, "contents": p.contents} for p in passages]
