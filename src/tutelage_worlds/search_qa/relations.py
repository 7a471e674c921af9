"""The kinds of things in the generated corpus, their relations, and the templates of sentences.

In a template, {x} is the thing and {y} the value of the relation.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Relation(NamedTuple):
    """One fact that every thing of a kind has.

    name       of the relation, and the word a query has for it
    kind       of thing that it is said of
    target     kind of thing that it leads to; empty for a plain value
    phrases    (before, after) the thing, in a question: "the river of" Tolmar
    sentences  of a passage, the plain one first
    """

    name: str
    kind: str
    target: str
    phrases: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]


def _plain(name: str) -> tuple[str, str]:
    return (f"the {name} of ", "")


RELATIONS: Final[tuple[Relation, ...]] = (
    Relation(
        "capital",
        "country",
        "town",
        (_plain("capital"), ("the town that is the capital of ", "")),
        ("The capital is {y}.", "{x} is governed from its capital {y}.", "Its capital is {y}."),
    ),
    Relation(
        "language",
        "country",
        "",
        (_plain("language"), ("the language spoken in ", "")),
        ("The language is {y}.", "Most people in {x} speak {y}.", "The official language is {y}."),
    ),
    Relation(
        "country",
        "town",
        "country",
        (_plain("country"), ("the country in which ", " lies")),
        ("It lies in the country {y}.", "{x} is a town in {y}.", "The town belongs to {y}."),
    ),
    Relation(
        "river",
        "town",
        "",
        (_plain("river"), ("the river that flows through ", "")),
        (
            "It lies on the river {y}.",
            "The river {y} flows through {x}.",
            "The town grew along the river {y}.",
        ),
    ),
    Relation(
        "founding year",
        "town",
        "",
        (_plain("founding year"), ("the year in which ", " was founded")),
        ("The founding year is {y}.", "{x} was founded in {y}.", "The town dates from {y}."),
    ),
    Relation(
        "birthplace",
        "person",
        "town",
        (_plain("birthplace"), ("the town where ", " was born")),
        ("The birthplace is {y}.", "{x} was born in {y}.", "{x} grew up in {y}, the birth town."),
    ),
    Relation(
        "birth year",
        "person",
        "",
        (_plain("birth year"), ("the year in which ", " was born")),
        ("The birth year is {y}.", "The year of birth is {y}.", "{x} came into the world in {y}."),
    ),
    Relation(
        "profession",
        "person",
        "",
        (_plain("profession"), ("the occupation of ", "")),
        ("The profession is {y}.", "{x} worked as a {y}.", "{x} is known as a {y}."),
    ),
    Relation(
        "teacher",
        "person",
        "person",
        (_plain("teacher"), ("the person who taught ", "")),
        ("The teacher was {y}.", "{x} learned from {y}.", "{x} was a pupil of {y}."),
    ),
    Relation(
        "author",
        "book",
        "person",
        (_plain("author"), ("the person who wrote ", "")),
        ("The author is {y}.", "{x} was written by {y}.", "{x} is a book by {y}."),
    ),
    Relation(
        "publication year",
        "book",
        "",
        (_plain("publication year"), ("the year in which ", " appeared")),
        ("The publication year is {y}.", "{x} appeared in {y}.", "The book came out in {y}."),
    ),
    Relation(
        "director",
        "film",
        "person",
        (_plain("director"), ("the person who directed ", "")),
        ("The director is {y}.", "{x} was directed by {y}.", "{x} is a film by {y}."),
    ),
    Relation(
        "genre",
        "film",
        "",
        (_plain("genre"), ("the kind of film of ", "")),
        (
            "The genre is {y}.",
            "{x} is counted among films of the genre {y}.",
            "Its genre is given as {y}.",
        ),
    ),
    Relation(
        "founder",
        "company",
        "person",
        (_plain("founder"), ("the person who founded ", "")),
        ("The founder is {y}.", "{x} was founded by {y}.", "The company goes back to {y}."),
    ),
    Relation(
        "seat",
        "company",
        "town",
        (_plain("seat"), ("the town where ", " has its seat")),
        ("The seat is {y}.", "{x} is run from {y}.", "The company has its seat in {y}."),
    ),
    Relation(
        "product",
        "company",
        "",
        (_plain("product"), ("the product made by ", "")),
        ("The product is {y}.", "{x} makes {y}.", "The company sells {y}."),
    ),
)
OF_KIND: Final[Mapping[str, tuple[Relation, ...]]] = {
    kind: tuple(r for r in RELATIONS if r.kind == kind)
    for kind in ("country", "town", "person", "book", "film", "company")
}
KINDS: Final = tuple(OF_KIND)

OPENINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "country": ("{x} is a country.", "{x} is a small state between hills and sea."),
    "town": ("{x} is a town.", "{x} is an old market town."),
    "person": ("{x} is a person.", "{x} became known far beyond the neighbourhood."),
    "book": ("{x} is a book.", "{x} found readers slowly."),
    "film": ("{x} is a film.", "{x} was shown in small cinemas first."),
    "company": ("{x} is a company.", "{x} is a family business."),
}
ASIDES: Final = (
    "A letter from {z} mentions it in passing.",
    "Visitors often compare it with {z}.",
    "Archives on the matter burned down twice.",
    "An exhibition in {z} was devoted to the subject.",
    "Little else is certain.",
    "Some sources confuse the name with {z}.",
    "A street in {z} bears the name.",
)
"""Sentences that answer nothing; {z} is anything else."""

QUESTIONS: Final = ("What is {q}?", "Name {q}.", "Which answer is right for {q}?")
"""The plain one first."""


class Comparison(NamedTuple):
    """A question about two things of a kind: which of the two, or yes or no.

    first  whether the one with the lower value is asked for; None for whether both are equal
    """

    kind: str
    relation: str
    text: str
    first: bool | None


COMPARISONS: Final = (
    Comparison("person", "birth year", "Who was born first, {a} or {b}?", True),
    Comparison("town", "founding year", "Which town is younger, {a} or {b}?", False),
    Comparison("book", "publication year", "Which book appeared first, {a} or {b}?", True),
    Comparison("person", "profession", "Do {a} and {b} have the same profession?", None),
    Comparison("town", "country", "Do {a} and {b} lie in the same country?", None),
)

PROFESSIONS: Final = (
    "painter",
    "surgeon",
    "poet",
    "weaver",
    "chemist",
    "botanist",
    "violinist",
    "mason",
    "judge",
    "glazier",
    "geologist",
    "baker",
    "cartographer",
    "sculptor",
    "tailor",
    "pilot",
)
GENRES: Final = (
    "comedy",
    "western",
    "melodrama",
    "thriller",
    "musical",
    "satire",
    "romance",
    "mystery",
)
PRODUCTS: Final = (
    "lanterns",
    "bicycles",
    "pianos",
    "clocks",
    "carpets",
    "compasses",
    "umbrellas",
    "telescopes",
    "ceramics",
    "buttons",
    "chocolate",
    "soap",
)
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "profession": PROFESSIONS,
    "genre": GENRES,
    "product": PRODUCTS,
}
