"""Run the benchmarks and write their tables to docs/benchmarks.md: `make bench`.

    python benchmarks/run.py [NAME ...] [--textworld PYTHON] [--trl PYTHON] [--vllm PYTHON]
    python benchmarks/run.py generation -- --full

Every benchmark is a script beside this one that prints its own section in Markdown; NAME is one
without its ending, and without any all are run. What stands after `--` is handed on to the one
script that is named. A section is written as soon as it is there, and the others stay as they are;
what a script printed is also kept in docs/benchmarks/NAME.txt. Run them on a machine that does
nothing else; what counts are ratios within one run.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
SECTIONS = {
    "generation.py": "Generation: turns over a kept cache",
    "step.py": "A whole training step beside TRL",
    "divergences.py": "Losses over a vocabulary: memory and time",
    "gpu.py": "On a graphics card",
    "environments.py": "Environments: steps, resets and memory of every suite",
    "household.py": "Environment: household beside TextWorld",
    "webshop.py": "Environment: webshop",
    "search_qa.py": "Environment: search_qa",
    "tau_bench.py": "Environment: tau_bench beside tau-bench",
    "scienceworld.py": "Environment: scienceworld beside its own API",
    "travelplanner.py": "Environment: travelplanner",
}
USUAL = {"gpu.py": ("--table",)}
"""What a script is told where nobody says. A card is measured by hand, with `gpu.py --save`."""
HEAD = """# Benchmarks

Written by `make bench` (benchmarks/run.py). Numbers are medians with the range of the repeats, and
ratios compare things that ran side by side in one run.
"""


def sections(text: str) -> dict[str, str]:
    """Title -> what stands under it, of the page as it is."""
    parts = text.split("\n## ")[1:]
    return {title: rest.strip() for title, _, rest in (part.partition("\n") for part in parts)}


def write(page: Path, sections: dict[str, str]) -> None:
    """The page, its sections in the order of SECTIONS."""
    found = [
        f"## {title}\n\n{sections[title]}\n" for title in SECTIONS.values() if title in sections
    ]
    page.write_text("\n".join([HEAD, *found]))


def measure(script: str, given: Sequence[str], others: dict[str, str], page: Path) -> str:
    """Run a script; keep what it printed, raw and on the page."""
    words = [*(given or USUAL.get(script, ()))]
    python, shown = sys.executable, ["python", f"benchmarks/{script}", *words]
    if script == "household.py" and others["textworld"]:
        python = others["textworld"]
    for beside, of in (("trl", "step.py"), ("vllm", "generation.py")):
        if others[beside] and script == of:
            words += [f"--{beside}", others[beside]]
            shown += [f"--{beside}", "PYTHON"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.run(
        [python, str(HERE / script), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(f"{script} failed:\n{process.stderr}")
    command = f"OMP_NUM_THREADS=1 {shlex.join(shown)}"
    raw = page.parent / "benchmarks" / f"{script.removesuffix('.py')}.txt"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(f"$ {command}\n# {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n\n{process.stdout}")
    there = sections(page.read_text()) if page.exists() else {}
    write(page, {**there, SECTIONS[script]: f"`{command}`\n\n{process.stdout.strip()}"})
    return process.stdout


def main() -> None:
    words, handed_on = sys.argv[1:], list[str]()
    if "--" in words:
        at = words.index("--")
        words, handed_on = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [script.removesuffix(".py") for script in SECTIONS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--textworld", default="", help="the Python that has TextWorld")
    parser.add_argument("--trl", default="", help="a Python that has TRL 1.16")
    parser.add_argument("--vllm", default="", help="a Python that has vLLM")
    parser.add_argument("--page", type=Path, default=PAGE, help="what is written")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no benchmark {min(unknown)!r}; there are {', '.join(names)}")
    if handed_on and len(arguments.names) != 1:
        parser.error("what stands after -- is for one script; name that one")
    others = {name: str(getattr(arguments, name)) for name in ("textworld", "trl", "vllm")}
    for name in arguments.names or names:
        print(measure(f"{name}.py", handed_on, others, arguments.page), flush=True)
    print(f"written to {arguments.page}")


if __name__ == "__main__":
    main()
