"""Which settings make a run fit into the memory of a machine: what `--dry-run` advises."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, get_args

from tutelage.cli.planned_memory import Model, Need, in_bytes, memory_of, models_of
from tutelage.config.schema import Config
from tutelage.errors import ConfigError

SAVES: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("update.max_tokens_per_pass = 4096", "update", {"max_tokens_per_pass": 4096}),
    ("policy.gradient_checkpointing = true", "policy", {"gradient_checkpointing": True}),
    ("update.offload = true", "update", {"offload": True}),
    ("policy.lora = 16", "policy", {"lora": 16}),
    ('policy.quantize = "nf4"', "policy", {"quantize": "nf4"}),
)
"""Settings that save memory: how they are written, their section, and the change."""


MIXES = ((0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2), (3,), (0, 3), (0, 1, 3), (3, 4), (0, 1, 3, 4))
"""Which of them are tried together, those that change less first."""


Others = Literal["as they are", "in 4 bits", "elsewhere"]
"""What becomes of the models beside the student."""
SUGGESTED = 3
"""Ways that are named."""
USABLE = 0.95
"""Fraction of the memory that models may be planned to take: predictions are off by some percent,
and torch's allocator cannot give back every piece."""


def what_fits(config: Config, need: Need) -> str:
    """Settings with which everything fits, as advice: the first for each of what may become of the
    other models, then more of those that leave them as they are."""
    ways = [list(_ways(config, need, others)) for others in get_args(Others)]
    first, more = [way[0] for way in ways if way], [text for way in ways for text in way[1:]]
    if not first:
        return (
            "no setting makes it fit: choose smaller models, lower update.max_tokens_per_pass, or "
            "use a larger machine"
        )
    return f"it fits with {', or with '.join([*first, *more][:SUGGESTED])}"


def _ways(config: Config, need: Need, others: Others) -> Iterator[str]:
    """The settings of MIXES with which everything fits, those that change less first."""
    for mix in MIXES if others == "as they are" else ((), *MIXES):
        found = _with(config, need, mix, others)
        if found is None or memory_of(found) > USABLE * need.machine.memory:
            continue
        words = [SAVES[k][0] for k in mix]
        if others == "in 4 bits":
            words += [f'policies.{name}.quantize = "nf4"' for name in _packable(config, need)]
        if others == "elsewhere":
            words.append("the other models on a server or another device")
        yield f"{' and '.join(words)} ({in_bytes(memory_of(found))})"


def _packable(config: Config, need: Need) -> list[str]:
    """Models beside the student whose weights can be kept in 4 bits and are not."""
    return [
        name
        for name in sorted(set(need.used) & set(config.policies))
        if (section := config.policies[name]).build is None
        and not section.remote
        and section.quantize == "none"
    ]


def _with(
    config: Config, need: Need, mix: Sequence[int], others: Others
) -> tuple[Model, ...] | None:
    """The models with some of SAVES, and the others in 4 bits, or without them if they are elsewhere;
    None where a change is none, or is not allowed."""
    names = _packable(config, need) if others == "in 4 bits" else []
    if (others == "in 4 bits" and not names) or (
        others == "elsewhere" and not set(need.used) - {"reference"}
    ):
        return None
    for k in mix:
        _, where, change = SAVES[k]
        section = getattr(config, where)
        values = {**section.model_dump(exclude_unset=True), **change}
        if all(_saves_nothing(getattr(section, key), value) for key, value in change.items()):
            return None
        try:
            changed = type(section).model_validate(values)
        except ValueError:  # 4 bits beside a sampler, adapters in a model that is built
            return None
        config = config.model_copy(update={where: changed})
    packed = {name: config.policies[name].model_copy(update={"quantize": "nf4"}) for name in names}
    config = config.model_copy(update={"policies": {**config.policies, **packed}})
    if others == "elsewhere":
        need = replace(need, used=set(need.used) & {"reference"} - set(config.policies))
    try:
        return models_of(config, need)
    except ConfigError:  # packed experts that take no adapters
        return None


def _saves_nothing(now: object, then: object) -> bool:
    """Whether a setting is what it would be changed to, or a number that is smaller already."""
    if isinstance(now, int) and isinstance(then, int) and now:
        return now <= then
    return now == then
