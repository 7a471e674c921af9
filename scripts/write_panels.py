"""Write the panels that are shipped: `python scripts/write_panels.py`, or with `--check`, compare.

Each is the beginning of a split, in order, with the suite's default options. The lists are written
out, so that a change of a suite cannot change what a panel means: it is refused instead.
"""

import argparse
import sys

from tutelage.config.schema import EnvSection
from tutelage.envs.registry import suite_of
from tutelage.evaluation import panels
from tutelage.evaluation.evaluate import panel

SHIPPED: dict[str, dict[str, tuple[int, ...]]] = {
    "bfcl": {"dev": (100,), "test": (100, 800)},
    "doors": {"seen": (9,), "unseen": (9,)},
    "household": {"seen": (100, 140), "unseen": (100, 134)},
    "scienceworld": {"dev": (100,), "test": (100,)},
    "search_qa": {"dev": (100,), "test": (100, 300)},
    "tau_bench": {"dev": (100,), "test": (100,)},
    "textworldexpress": {"dev": (100,), "test": (100,)},
    "travelplanner": {"test": (100,), "validation": (100, 180)},
    "webshop": {"dev": (100,), "test": (100, 500)},
}
"""The sizes of the panels of each split: 100 is what an evaluation plays unless it is told."""


def panel_of(suite: str, split: str, count: int) -> panels.NamedPanel:
    """A panel as the suite is now."""
    found = panel(suite_of(EnvSection(suite=suite)), split, count)
    return panels.NamedPanel(
        name=f"{suite}-{split}-{count}",
        suite=suite,
        options={},
        split=split,
        seed=0,
        tasks=tuple((task.id, task.seed) for task in found.tasks),
        fingerprint=found.fingerprint,
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", default=list(SHIPPED), metavar="SUITE")
    parser.add_argument("--check", action="store_true", help="write nothing, and compare")
    asked = parser.parse_args(arguments)
    stale = []
    for suite in asked.suites:
        for split, counts in SHIPPED[suite].items():
            for count in counts:
                named = panel_of(suite, split, count)
                path = panels.FOLDER / f"{named.name}.json"
                text = panels.written(named)
                if not asked.check:
                    path.write_text(text, encoding="utf-8")
                elif not path.exists() or path.read_text(encoding="utf-8") != text:
                    stale.append(path.name)
                print(named.name, named.fingerprint, flush=True)
    for name in stale:
        print(f"{name} is not what the suite plays now", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
