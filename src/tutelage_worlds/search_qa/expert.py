"""Experts of search_qa: one that searches and reads, and one that knows the passages."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from tutelage_worlds.search_qa import moves
from tutelage_worlds.search_qa.generate import compared
from tutelage_worlds.search_qa.questions import Question
from tutelage_worlds.search_qa.relations import (
    COMPARISONS,
    OF_KIND,
    QUESTIONS,
    RELATIONS,
    Comparison,
    Relation,
)

LONGEST: Final = 1000
"""Characters of a question that may be one of the generated ones."""
Search = Callable[[str], Sequence[tuple[str, str]]]
"""What a query shows: titles and texts of passages."""


class Move(NamedTuple):
    action: str
    thought: str


class Asked(NamedTuple):
    """A question as it was understood: a way along relations, or a comparison."""

    names: tuple[str, ...]
    path: tuple[Relation, ...] = ()
    comparison: Comparison | None = None


def understand(text: str) -> Asked | None:
    """The question behind the words; None for one of another kind.

    >>> asked = understand("What is the river of the birthplace of Ada Bo?")
    >>> asked.names, [relation.name for relation in asked.path]
    (('Ada Bo',), ['birthplace', 'river'])
    """
    if len(text) > LONGEST:
        return None
    for comparison in COMPARISONS:
        match = _pattern(comparison.text).fullmatch(text)
        if match:
            return Asked((match["a"], match["b"]), comparison=comparison)
    for form in QUESTIONS:
        match = _pattern(form).fullmatch(text)
        if match:
            path, name = _unfold(match["q"])
            return Asked((name,), path) if path else None
    return None


@lru_cache(maxsize=64)
def _pattern(form: str) -> re.Pattern[str]:
    """A form with {names} as a regular expression with groups."""
    parts = re.split(r"\{(\w)\}", form)
    return re.compile(
        "".join(f"(?P<{p}>.+)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
    )


def _unfold(phrase: str) -> tuple[tuple[Relation, ...], str]:
    """The relations in a phrase, the innermost first, and the name within."""
    for relation in RELATIONS:
        for before, after in relation.phrases:
            if phrase.startswith(before) and phrase.endswith(after) and phrase != before:
                inner = phrase[len(before) : len(phrase) - len(after)]
                path, name = _unfold(inner)
                return (*path, relation), name
    return (), phrase


def read(text: str, title: str, relation: Relation) -> str | None:
    """What a passage says of its subject in a relation; None if it does not.

    >>> river = next(r for r in RELATIONS if r.name == "river")
    >>> read("Oslo is a town. The river Alna flows through Oslo.", "Oslo", river)
    'Alna'
    """
    for sentence in relation.sentences:
        form = re.escape(sentence.format(x=title, y="\0")).replace(re.escape("\0"), r"([^.]+?)")
        match = re.search(rf"(?:^|\s){form}(?:\s|$)", text)
        if match:
            return match[1]
    return None


class Reader:
    """One who answers generated questions from passages that it has found. What it did is in
    `moves`, the answer last."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._seen: dict[str, str] = {}
        self._known = ""
        self.moves: list[Move] = []

    def answer(self, text: str) -> None:
        asked = understand(text)
        if asked is None:
            self._guess(text)
        elif asked.comparison is not None:
            self._compare(asked.names, asked.comparison)
        else:
            self._follow(asked.names[0], asked.path)

    def _follow(self, name: str, path: Sequence[Relation]) -> None:
        for relation in path:
            found = self._find(name, relation)
            if found is None:
                return self._give(name, "I cannot find more.")
            name = found
        self._give(name, self._known)
        return None

    def _compare(self, names: Sequence[str], comparison: Comparison) -> None:
        relation = next(r for r in OF_KIND[comparison.kind] if r.name == comparison.relation)
        values, facts = [], []
        for name in names:
            found = self._find(name, relation)
            if found is None:
                return self._give(names[0], "I cannot find more.")
            values.append(found)
            facts.append(self._known)
        self._give(compared(comparison, names, values), " ".join(facts))
        return None

    def _find(self, name: str, relation: Relation) -> str | None:
        """A fact, from what was seen or from another search."""
        for query in _queries(name, relation):
            found = self._recall(name, relation)
            if found is not None:
                return found
            thought = f"{self._known} I need the {relation.name} of {name}.".lstrip()
            self.moves.append(Move(moves.write("search", query), thought))
            self._seen.update((title, text) for title, text in self._search(query))
        return self._recall(name, relation)

    def _recall(self, name: str, relation: Relation) -> str | None:
        found = read(self._seen[name], name, relation) if name in self._seen else None
        if found is not None:
            self._known = f"The {relation.name} of {name} is {found}."
        return found

    def _guess(self, text: str) -> None:
        """For questions of others: the best passage's title that they do not name."""
        query = text.removesuffix("?")
        self.moves.append(Move(moves.write("search", query), "I look for the question itself."))
        titles = [title for title, _ in self._search(query)]
        new = [title for title in titles if title.lower() not in text.lower()]
        self._give((new or titles or ["unknown"])[0], "The best passage is about this.")

    def _give(self, answer: str, thought: str) -> None:
        self.moves.append(Move(moves.write("answer", answer), thought))


def _queries(name: str, relation: Relation) -> Iterator[str]:
    """What to search for a fact, the best first."""
    yield f"{name} {relation.name}"
    yield name
    yield f"{name} {relation.kind}"
    yield from (f"{name} {o.name}" for o in OF_KIND[relation.kind] if o is not relation)


def plan(question: Question) -> list[str]:
    """Searches for the passages that answer, where they are known, and the answer."""
    titles = question.titles or (question.text,)
    return [
        *(moves.write("search", title) for title in titles),
        moves.write("answer", question.golds[0]),
    ]
