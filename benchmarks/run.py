"""Run the benchmarks and write their tables to docs/benchmarks.md: `make bench`.

Every benchmark is a script beside this one that prints its own section in Markdown. Run them on a
machine that does nothing else; what counts are ratios within one run.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
SECTIONS = {
    "generation.py": "Generation: turns over a kept cache",
    "step.py": "A whole training step beside TRL",
    "divergences.py": "Losses over a vocabulary: memory and time",
    "environments.py": "Environments: steps, resets and memory of every world",
    "household.py": "Environment: household beside TextWorld",
    "webshop.py": "Environment: webshop",
    "search_qa.py": "Environment: search_qa",
    "tau_bench.py": "Environment: tau_bench beside tau-bench",
    "scienceworld.py": "Environment: scienceworld beside its own API",
    "travelplanner.py": "Environment: travelplanner",
}
WITH_TORCH = ("step.py", "divergences.py")
HEAD = """# Benchmarks

Written by `make bench` (benchmarks/run.py). Numbers are medians with the range of the repeats, and
ratios compare things that ran side by side in one process.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--torch", default=sys.executable, help="the Python that has torch, where it is another"
    )
    parser.add_argument("--trl", default="", help="a Python that has TRL 1.16")
    arguments = parser.parse_args()
    environment = {
        **os.environ,
        "TRL_PYTHON": arguments.trl,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    parts = [HEAD]
    for script, title in SECTIONS.items():
        python = arguments.torch if script in WITH_TORCH else sys.executable
        command = [python, str(HERE / script)]
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if made.returncode:
            sys.exit(f"{script} failed:\n{made.stderr}")
        shown = f"OMP_NUM_THREADS=1 python benchmarks/{script}"
        parts.append(f"## {title}\n\n`{shown}`\n\n{made.stdout.strip()}\n")
        print(made.stdout)
    PAGE.write_text("\n".join(parts))
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
