"""compose: an algorithm written in a configuration, from views, actors and terms.

    L = sum over terms of mean_t of the term's loss at token t

    [algorithm.views.NAME]  policy, hint, hindsight
    [algorithm.actors]      NAME = the chance that this view takes a turn
    [algorithm.terms.NAME]  kind (NAME if left out), and its parts:
      reinforce             advantage, surrogate, old, trains
      distill               divergence, teacher, weight, gate, live, trains
      distill_sampled       estimate, teacher, weight, gate, corrected, trains
      entropy               weight, trains

Chances, advantages, weights, gates, surrogates, estimates and divergences are expressions such as
"linear(1, 0.1, 80) * t_dur() * gap() + group_relative()". docs/compose.md lists the words.
"""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from tutelage.algorithms.expressions import Reader, fits, in_words
from tutelage.errors import did_you_mean
from tutelage.objective import (
    STUDENT,
    Algorithm,
    Distill,
    DistillSampled,
    Entropy,
    Reinforce,
    Term,
    View,
)
from tutelage.objective.takeover import Switch

TERMS: dict[str, type[Reinforce | Distill | DistillSampled | Entropy]] = {
    "reinforce": Reinforce,
    "distill": Distill,
    "distill_sampled": DistillSampled,
    "entropy": Entropy,
}
EXPRESSIONS = {
    "advantage": "signal",
    "weight": "signal",
    "gate": "gate",
    "surrogate": "surrogate",
    "divergence": "divergence",
    "estimate": "estimate",
    "hindsight": "hindsight",
}
"""Fields that are written as expressions, and what these must mean."""

Settings = Mapping[str, object]


def compose(
    *,
    total_steps: int,
    terms: Mapping[str, Settings],
    views: Mapping[str, Settings] | None = None,
    actors: Mapping[str, object] | None = None,
    reduction: str = "token_mean()",
    size: str = "",
    penalties: Mapping[str, str] | None = None,
    rounds: int = 0,
    demonstrated: bool = False,
    left: float | str | None = None,
    planned: Mapping[str, float] | None = None,
    strays: bool = False,
    aloud: bool = False,
    switch: Settings | None = None,
) -> Algorithm:
    """`terms` are the parts of the loss, each a table; `views` are the policies in their contexts,
    each a table; `actors` say which views take turns, and how often; `reduction` is what a token
    counts; `size` is what of the step a token is, where `reduction` is a sum; `penalties` are taken
    off episodes' rewards; `rounds` are the batches of tasks that may be played until enough groups
    have returns that differ; with `demonstrated` the environment's expert takes every turn; `left`
    is a schedule: it takes all but so many of the last ones; `planned` says for which share of its
    episodes what each view's hint tells is done; with `strays` they hold wrong turns that nobody
    imitates; with `aloud` it says its thoughts; `switch` is a table (to, factor, ema, floor): where
    the student strays, the view `to` ends its turn. `total_steps` may be used in schedules."""
    numbers = {"total_steps": total_steps}
    named = {STUDENT, *(views or {})}
    reader = Reader(numbers=numbers, views=sorted(named))
    made = {n: _view(s, f"views.{n}", reader) for n, s in (views or {}).items()}
    if not terms:
        raise ValueError("terms is empty: add a section [algorithm.terms.NAME] with a kind")
    return Algorithm(
        terms=tuple(_term(name, s, reader) for name, s in terms.items()),
        views=made,
        actors={
            _known(n, named, "actors"): reader.read(text, "schedule", f"actors.{n}")
            for n, text in (actors or {}).items()
        },
        reduction=reader.read(reduction, "signal", "reduction"),
        size=reader.read(size, "signal", "size") if size else None,
        penalties={
            n: reader.read(t, "penalty", f"penalties.{n}") for n, t in (penalties or {}).items()
        },
        rounds=rounds,
        demonstrated=demonstrated,
        left=None if left is None else reader.read(left, "schedule", "left"),
        planned={_known(n, named, "planned"): share for n, share in (planned or {}).items()},
        strays=strays,
        aloud=aloud,
        switch=Switch(**_fields(Switch, switch, "switch", reader)) if switch else None,
    )


def _view(settings: Settings, where: str, reader: Reader) -> View:
    return View(**_fields(View, settings, where, reader))


def _term(name: str, settings: Settings, reader: Reader) -> Term:
    where = f"terms.{name}"
    rest = dict(settings)
    kind = str(rest.pop("kind", name))
    if kind not in TERMS:
        raise ValueError(
            f"{where}.kind must be one of {', '.join(TERMS)}, got {kind!r}"
            f"{did_you_mean(kind, TERMS)}"
        )
    made = _fields(TERMS[kind], rest, where, reader)
    for field in fields(TERMS[kind]):
        if field.name in ("teacher", "trains"):
            view = made.get(field.name, field.default)
            _known(str(view), reader.views, f"{where}.{field.name}")
    return TERMS[kind](**made, name=name)


def _fields(
    kind: type[View | Switch | Reinforce | Distill | DistillSampled | Entropy],
    settings: Settings,
    where: str,
    reader: Reader,
) -> dict[str, Any]:
    """A table of settings as the fields of what is made of them; names are given elsewhere."""
    hints = get_type_hints(kind)
    there = {field.name: field for field in fields(kind) if field.name != "name"}
    made = {}
    for key, value in settings.items():
        if key not in there:
            raise ValueError(
                f"{where}.{key} is not a setting{did_you_mean(key, there)}; there are "
                f"{', '.join(there)}"
            )
        if key in EXPRESSIONS:
            made[key] = reader.read(value, EXPRESSIONS[key], f"{where}.{key}")
        elif fits(value, hints[key]):
            made[key] = value
        else:
            raise ValueError(f"{where}.{key} must be {in_words(hints[key])}, got {value!r}")
    for key, field in there.items():
        if field.default is MISSING and field.default_factory is MISSING and key not in made:
            raise ValueError(f"{where}.{key} is missing; a {kind.__name__} needs it")
    return made


def _known(view: str, views: Collection[str], where: str) -> str:
    if view not in views:
        raise ValueError(
            f"{where}: there is no view {view!r}{did_you_mean(view, views)}; there are "
            f"{', '.join(sorted(views))}; add [algorithm.views.{view}]"
        )
    return view
