"""ScienceWorld's thirty tasks with their variations and splits, available without Java."""

from collections.abc import Sequence
from typing import Final

from tutelage.errors import did_you_mean

SPLITS: Final = ("train", "dev", "test")
TOPICS: Final = {
    "matter": ("boil", "melt", "freeze", "change-the-state-of-matter-of"),
    "measurement": (
        "use-thermometer",
        "measure-melting-point-known-substance",
        "measure-melting-point-unknown-substance",
    ),
    "electricity": (
        "power-component",
        "power-component-renewable-vs-nonrenewable-energy",
        "test-conductivity",
        "test-conductivity-of-unknown-substances",
    ),
    "classification": (
        "find-living-thing",
        "find-non-living-thing",
        "find-plant",
        "find-animal",
    ),
    "growing": ("grow-plant", "grow-fruit"),
    "chemistry": (
        "chemistry-mix",
        "chemistry-mix-paint-secondary-color",
        "chemistry-mix-paint-tertiary-color",
    ),
    "lifespan": (
        "lifespan-longest-lived",
        "lifespan-shortest-lived",
        "lifespan-longest-lived-then-shortest-lived",
    ),
    "life-stages": ("identify-life-stages-1", "identify-life-stages-2"),
    "forces": (
        "inclined-plane-determine-angle",
        "inclined-plane-friction-named-surfaces",
        "inclined-plane-friction-unnamed-surfaces",
    ),
    "genetics": ("mendelian-genetics-known-plant", "mendelian-genetics-unknown-plant"),
}
"""Tasks by topic, in the order of the paper (arXiv:2203.07540, table 2)."""
TASKS: Final = tuple(task for tasks in TOPICS.values() for task in tasks)
GROUPS: Final = {
    **TOPICS,
    "all": TASKS,
    "short": (*TOPICS["classification"], *TOPICS["lifespan"]),
}
"""Names for several tasks; those of "short" take a dozen actions, mostly to walk somewhere."""
VARIATIONS: Final = dict(
    zip(
        TASKS,
        (
            30,
            30,
            30,
            30,
            540,
            436,
            300,
            20,
            20,
            900,
            600,
            300,
            300,
            300,
            300,
            126,
            126,
            32,
            36,
            36,
            125,
            125,
            125,
            14,
            10,
            168,
            1386,
            162,
            120,
            480,
        ),
        strict=True,
    )
)
SIMPLIFICATIONS: Final = (
    "teleportAction",
    "openContainers",
    "openDoors",
    "selfWateringFlowerPots",
    "noElectricalAction",
)


def variations(task: str, split: str) -> range:
    """The variations of a task in a split, cut as the simulator cuts them: quarters, of which two
    are `train` and one each `dev` and `test`, which also has the one to three that are left over.

    >>> variations("identify-life-stages-2", "test"), variations("boil", "dev")
    (range(6, 10), range(14, 21))
    """
    count = VARIATIONS[task]
    quarter = count // 4
    cuts = {
        "train": range(2 * quarter),
        "dev": range(2 * quarter, 3 * quarter),
        "test": range(3 * quarter, count),
    }
    return cuts[split]


def chosen(names: str | Sequence[str]) -> tuple[str, ...]:
    """The tasks that names of tasks and groups stand for. Raises ValueError for unknown names."""
    tasks: dict[str, None] = {}
    for name in (names,) if isinstance(names, str) else names:
        if name not in VARIATIONS and name not in GROUPS:
            raise ValueError(
                f"families: there is no task or group {name!r}"
                f"{did_you_mean(name, (*GROUPS, *TASKS))}; there are the groups "
                f"{', '.join(GROUPS)} and the tasks {', '.join(TASKS)}"
            )
        tasks.update(dict.fromkeys(GROUPS.get(name, (name,))))
    if not tasks:
        raise ValueError('families: name at least one task or group, such as "all"')
    return tuple(tasks)


def simplified(names: str, tasks: Sequence[str]) -> str:
    """Simplifications as the simulator takes them. Raises ValueError for unknown ones, and where
    electrical tasks would have no electrical actions."""
    if names in ("", "easy"):
        return names
    parts = tuple(part.strip() for part in names.split(","))
    for part in parts:
        if part not in SIMPLIFICATIONS:
            raise ValueError(
                f"simplify: there is no simplification {part!r}; there are easy, alone, and "
                f"{', '.join(SIMPLIFICATIONS)}, separated by commas"
            )
    electrical = [task for task in tasks if task in TOPICS["electricity"]]
    if "noElectricalAction" in parts and electrical:
        raise ValueError(
            f"simplify: {electrical[0]} cannot be done with noElectricalAction; leave it out, or "
            "choose other tasks"
        )
    return ",".join(parts)
