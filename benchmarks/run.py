"""Run the benchmarks and write their tables to docs/benchmarks.md: `make bench`.

    python benchmarks/run.py [NAME ...] [--torch PYTHON] [--trl PYTHON] [--vllm PYTHON]

Every benchmark is a script beside this one that prints its own section in Markdown; NAME is one
without its ending, and without any all are run. A section is written as soon as it is there, and
the others stay as they are. Run them on a machine that does nothing else; what counts are ratios
within one run.
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
WITH_TEXTWORLD = ("household.py",)
HEAD = """# Benchmarks

Written by `make bench` (benchmarks/run.py). Numbers are medians with the range of the repeats, and
ratios compare things that ran side by side in one run.
"""


def sections(text: str) -> dict[str, str]:
    """Title -> what stands under it, of the page as it is."""
    parts = text.split("\n## ")[1:]
    return {title: rest.strip() for title, _, rest in (part.partition("\n") for part in parts)}


def write(made: dict[str, str]) -> None:
    """The page, its sections in the order of SECTIONS."""
    found = [f"## {title}\n\n{made[title]}\n" for title in SECTIONS.values() if title in made]
    PAGE.write_text("\n".join([HEAD, *found]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [script.removesuffix(".py") for script in SECTIONS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--torch", default=sys.executable, help="the Python that has torch, where it is another"
    )
    parser.add_argument("--trl", default="", help="a Python that has TRL 1.16")
    parser.add_argument("--vllm", default="", help="a Python that has vLLM")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no benchmark {min(unknown)!r}; there are {', '.join(names)}")
    environment = {
        **os.environ,
        "TRL_PYTHON": arguments.trl,
        "VLLM_PYTHON": arguments.vllm,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name in arguments.names or names:
        script = f"{name}.py"
        python = sys.executable if script in WITH_TEXTWORLD else arguments.torch
        command = [python, str(HERE / script)]
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if made.returncode:
            sys.exit(f"{script} failed:\n{made.stderr}")
        shown = f"`OMP_NUM_THREADS=1 python benchmarks/{script}`\n\n{made.stdout.strip()}"
        write({**sections(PAGE.read_text()), SECTIONS[script]: shown})
        print(made.stdout, flush=True)
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
