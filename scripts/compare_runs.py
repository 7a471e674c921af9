"""Show that a change of the code changes no run: record short runs before it and after it, compare.

python scripts/compare_runs.py record OUT [EXAMPLE ...] [--jobs 2]
python scripts/compare_runs.py compare OLD NEW [--names TABLE] [EXAMPLE ...]

`record` runs every example that needs no download for two steps on the CPU, into OUT/EXAMPLE.
`compare` reads two such folders. The lines of the logs must be equal as JSON, in their order, and
the weights of every checkpoint byte for byte; config.toml, meta.json and timings.jsonl may differ.
TABLE renames keys of OLD's logs before they are compared: a line "OLD NEW" for each, and "OLD -"
for a key that is gone. The exit status is 1 where any run differs.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tutelage.config.schema import Config
from tutelage.config.toml_file import load

ROOT = Path(__file__).resolve().parents[1]
LOGS = ("episodes.jsonl", "metrics.jsonl", "columns.jsonl", "evals.jsonl", "hints.jsonl")
GONE = "-"


# -- record


def offline(config: Config) -> bool:
    """Whether an example builds its models itself or takes the one that the package ships."""
    policies = [config.policy, *config.policies.values()]
    models = [policy.model for policy in policies if getattr(policy, "model", None)]
    return all(str(model).startswith("builtin:") for model in models)


def short(config: Config, folder: Path) -> list[str]:
    """Settings that make a run of an example take seconds."""
    settings = [
        "run.steps=2",
        "eval.every=2",
        "run.checkpoint_every=1",
        "run.columns=true",
        f'run.folder="{folder}"',
        "rollout.tasks_per_step=2",
        "eval.tasks=3",
    ]
    if config.rollout.group_size > 1:
        settings.append("rollout.group_size=2")
    if config.warm_start is not None:
        settings.append("warm_start.steps=2")
    if config.update.minibatches > 1:
        settings.append("update.minibatches=2")
    if config.env.suite == "household":
        settings += ["env.options.train=200", "env.options.unseen=40"]
    return settings


def record(out: Path, names: Sequence[str], jobs: int) -> int:
    """Run the examples; the number of those that failed."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ROOT / "src"),
    }

    def run(example: Path) -> bool:
        config = load(example, [])
        if not offline(config):
            print(f"{example.stem}: left out, it needs a download or a server", flush=True)
            return True
        settings = short(config, (out / example.stem).resolve())
        command = [sys.executable, "-m", "tutelage", "train", str(example), *settings]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        status = "recorded" if done.returncode == 0 else f"failed\n{done.stderr[-2000:]}"
        print(f"{example.stem}: {status}", flush=True)
        return done.returncode == 0

    examples = {path.stem: path for path in sorted((ROOT / "examples").glob("*.toml"))}
    if unknown := sorted({*names} - {*examples}):
        raise SystemExit(f"there is no example {', '.join(unknown)}")
    chosen = [path for stem, path in examples.items() if not names or stem in names]
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as executor:
        return sum(not recorded for recorded in executor.map(run, chosen))


# -- compare


def read_names(path: Path) -> dict[str, str]:
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if wrong := [line for line in lines if len(line) != 2]:
        raise SystemExit(f"{path}: a line is 'OLD NEW', not {' '.join(wrong[0])!r}")
    return {line[0]: line[1] for line in lines}


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        pairs = ((names.get(key, key), renamed(item, names)) for key, item in value.items())
        return {key: item for key, item in pairs if key != GONE}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return value


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """The path of the first place at which two values differ, and both; "" if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*old, *(key for key in new if key not in old)):
            if key not in old or key not in new:
                return f"{where}.{key} is only in the {'old' if key in old else 'new'} run"
            if found := first_difference(old[key], new[key], f"{where}.{key}"):
                return found
        return ""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        inner = (first_difference(a, b, f"{where}[{k}]") for k, (a, b) in pairs)
        return next(filter(None, inner), "")
    same = json.dumps(old) == json.dumps(new)  # NaN equals NaN, and 1 is not 1.0
    return "" if same else f"{where}: {json.dumps(old)[:80]} became {json.dumps(new)[:80]}"


def differences(old: Path, new: Path, names: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each file of a run that differs: its first difference."""
    for name in LOGS:
        pair = [
            (folder / name).read_text(encoding="utf-8").splitlines()
            if (folder / name).exists()
            else []
            for folder in (old, new)
        ]
        for number, (a, b) in enumerate(zip_longest(*pair), 1):
            if a is None or b is None:
                yield f"{name} has {len(pair[0])} lines in the old run, {len(pair[1])} in the new"
                break
            if found := first_difference(renamed(json.loads(a), names), json.loads(b)):
                yield f"{name}:{number} {found}"
                break
    weights = [
        {file.relative_to(folder): file for file in folder.rglob("*.safetensors")}
        for folder in (old, new)
    ]
    for path in sorted({*weights[0], *weights[1]}):
        if path not in weights[0] or path not in weights[1]:
            yield f"{path} is only in the {'old' if path in weights[0] else 'new'} run"
        elif weights[0][path].read_bytes() != weights[1][path].read_bytes():
            yield f"{path} differs"
    if not any(weights):
        yield "there are no weights in either run"


def compare(old: Path, new: Path, names: Mapping[str, str], examples: Sequence[str]) -> int:
    """Print a line for each run; the number of those that differ."""
    folders = {path.name for root in (old, new) for path in root.iterdir() if path.is_dir()}
    chosen = sorted(set(examples) or folders)
    failed = 0
    for name in chosen:
        if missing := [str(root) for root in (old, new) if not (root / name).is_dir()]:
            found = [f"is not in {' nor in '.join(missing)}"]
        else:
            found = list(differences(old / name, new / name, names))
        print(f"{name}: {'; '.join(found) if found else 'equal'}")
        failed += bool(found)
    print(f"{len(chosen) - failed} of {len(chosen)} runs are equal")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("examples", nargs="*", metavar="EXAMPLE")
    recording.add_argument("--jobs", type=int, default=2)
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("examples", nargs="*", metavar="EXAMPLE")
    comparing.add_argument("--names", type=Path, help="the table of renamed keys")
    options = parser.parse_args(arguments)
    if options.command == "record":
        return int(record(options.out, options.examples, options.jobs) > 0)
    names = read_names(options.names) if options.names else {}
    return int(compare(options.old, options.new, names, options.examples) > 0)


if __name__ == "__main__":
    sys.exit(main())
