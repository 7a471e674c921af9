"""compose: an algorithm defined in a configuration file by its views, actors and terms.

    L = sum over terms of mean_t of the term's loss at token t

    [algorithm.views.NAME]  policy, hint, hindsight, top_logprobs
    [algorithm.actors]      NAME = the chance that this view takes a turn
    [algorithm.terms.NAME]  kind (NAME if left out), and its parts:
      reinforce             advantage, surrogate, old, trains
      distill               divergence, teacher, weight, gate, live, trains
      distill_sampled       estimate, teacher, weight, gate, corrected, baseline, trains
      distill_recorded      weight, trains
      entropy               weight, trains

Chances, advantages, weights, gates, surrogates, estimates and divergences are expressions such as
"linear(1, 0.1, 80) * t_dur() * gap() + group_relative()". docs/compose.md lists the functions.
"""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from tutelage.algorithms.functions import reader as reader_of
from tutelage.config.expressions import Reader, fits, in_words
from tutelage.errors import did_you_mean
from tutelage.objective import (
    STUDENT,
    Acting,
    Algorithm,
    Distill,
    DistillRecorded,
    DistillSampled,
    Entropy,
    Reinforce,
    Takeover,
    Term,
    View,
)

AnyTerm = Reinforce | Distill | DistillSampled | DistillRecorded | Entropy
TERMS: dict[str, type[AnyTerm]] = {
    "reinforce": Reinforce,
    "distill": Distill,
    "distill_sampled": DistillSampled,
    "distill_recorded": DistillRecorded,
    "entropy": Entropy,
}
EXPRESSIONS = {
    "advantage": "signal",
    "weight": "signal",
    "gate": "gate",
    "surrogate": "surrogate",
    "divergence": "divergence",
    "baseline": "divergence",
    "estimate": "estimate",
    "hindsight": "hindsight",
    "student_turns": "schedule",
}
"""Fields that are written as expressions, and the kind of their value."""

Settings = Mapping[str, object]


def compose(
    *,
    total_steps: int,
    terms: Mapping[str, Settings],
    views: Mapping[str, Settings] | None = None,
    actors: Mapping[str, object] | None = None,
    token_weight: str = "token_mean()",
    minibatch_weight: str = "",
    penalties: Mapping[str, str] | None = None,
    acting: Settings | None = None,
) -> Algorithm:
    """`total_steps` may be named in schedules.

    Args:
        terms: the parts of the loss, a table each
        views: the policies in their contexts, a table each
        actors: view -> chance of a turn
        token_weight: weight of each token in the loss
        minibatch_weight: each token's share of the step, where token_weight does not sum to 1
        penalties: what is subtracted from episodes' rewards, by name
        acting: a table: expert, student_turns, hinted_share, hinted_only, with_errors,
            with_thoughts, takeover, max_batches
    """
    numbers = {"total_steps": total_steps}
    named = {STUDENT, *(views or {})}
    reader = reader_of(numbers=numbers, views=sorted(named))
    composed = {n: _view(s, f"views.{n}", reader) for n, s in (views or {}).items()}
    if not terms:
        raise ValueError("terms is empty: add a section [algorithm.terms.NAME] with a kind")
    return Algorithm(
        terms=tuple(_term(name, s, reader) for name, s in terms.items()),
        views=composed,
        actors={
            _known(n, named, "actors"): reader.read(text, "schedule", f"actors.{n}")
            for n, text in (actors or {}).items()
        },
        token_weight=reader.read(token_weight, "signal", "token_weight"),
        minibatch_weight=(
            reader.read(minibatch_weight, "signal", "minibatch_weight")
            if minibatch_weight
            else None
        ),
        penalties={
            n: reader.read(t, "penalty", f"penalties.{n}") for n, t in (penalties or {}).items()
        },
        acting=_acting(acting or {}, named, reader),
    )


def _acting(settings: Settings, named: Collection[str], reader: Reader) -> Acting:
    rest = dict(settings)
    takeover, shares = rest.pop("takeover", None), rest.pop("hinted_share", {})
    if not isinstance(shares, Mapping) or not all(fits(x, float) for x in shares.values()):
        raise ValueError(f"acting.hinted_share must be a table of numbers, got {shares!r}")
    if takeover is not None and not isinstance(takeover, Mapping):
        raise ValueError(f"acting.takeover must be a table, got {takeover!r}")
    fields = _fields(Acting, rest, "acting", reader)
    for view in shares:
        _known(view, named, "acting.hinted_share")
    if takeover is not None:
        takeover_fields = _fields(Takeover, takeover, "acting.takeover", reader)
        fields["takeover"] = Takeover(**takeover_fields)
        _known(fields["takeover"].view, named, "acting.takeover")
    return Acting(hinted_share=shares, **fields)


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
    arguments = _fields(TERMS[kind], rest, where, reader)
    for field in fields(TERMS[kind]):
        if field.name in ("teacher", "trains"):
            view = arguments.get(field.name, field.default)
            _known(str(view), reader.views, f"{where}.{field.name}")
    return TERMS[kind](**arguments, name=name)


def _fields(
    kind: type[View | Acting | Takeover | AnyTerm],
    settings: Settings,
    where: str,
    reader: Reader,
) -> dict[str, Any]:
    """A table of settings as keyword arguments of a class; names are given elsewhere."""
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind) if field.name != "name"}
    arguments: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in known:
            raise ValueError(
                f"{where}.{key} is not a setting{did_you_mean(key, known)}; there are "
                f"{', '.join(known)}"
            )
        if key in EXPRESSIONS:
            arguments[key] = reader.read(value, EXPRESSIONS[key], f"{where}.{key}")
        elif fits(value, hints[key]):
            arguments[key] = value
        else:
            raise ValueError(f"{where}.{key} must be {in_words(hints[key])}, got {value!r}")
    for key, field in known.items():
        if field.default is MISSING and field.default_factory is MISSING and key not in arguments:
            raise ValueError(f"{where}.{key} is missing; a {kind.__name__} needs it")
    return arguments


def _known(view: str, views: Collection[str], where: str) -> str:
    if view not in views:
        raise ValueError(
            f"{where}: there is no view {view!r}{did_you_mean(view, views)}; there are "
            f"{', '.join(sorted(views))}; add [algorithm.views.{view}]"
        )
    return view
