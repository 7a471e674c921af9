"""Train the tiny teacher that the package ships: `make teacher`, about 30 minutes on one CPU core.

Runs examples/household_teacher.toml, or continues it, and copies the last checkpoint to
src/tutelage/assets/household-teacher. SECTION.KEY=VALUE changes a setting of the recipe.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage.cli.progress import Lines
from tutelage.config.toml_file import load
from tutelage.runs import checkpoint
from tutelage.runs.train import train

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src/tutelage/assets/household-teacher"
RECIPE = ROOT / "examples/household_teacher.toml"
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--target", type=Path, default=TARGET, help="the folder that is written")
    options = parser.parse_args(arguments)
    config = load(RECIPE, options.settings)
    folder = Path(config.run.folder)
    train(config, resume=(folder / "config.toml").exists(), watch=Lines(sys.stdout))
    target: Path = options.target
    target.mkdir(parents=True, exist_ok=True)
    for name in MODEL_FILES:
        shutil.copy(checkpoint.latest(folder) / name, target / name)
    shutil.copy(folder / "meta.json", target / "meta.json")
    print(f"{target}: {sum(f.stat().st_size for f in target.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
