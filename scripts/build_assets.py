"""Rebuild the weights that the package ships: `make teacher`, about half an hour on one CPU core.

Runs examples/household_teacher.toml, or goes on with it, and copies the last checkpoint to
src/tutelage/assets/household-teacher.
"""

import shutil
from pathlib import Path

from tutelage.cli.progress import Lines
from tutelage.config.toml_file import load
from tutelage.runs import checkpoint
from tutelage.runs.train import train

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src/tutelage/assets/household-teacher"
RECIPE = ROOT / "examples/household_teacher.toml"
MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
         "chat_template.jinja")  # fmt: skip


def main() -> None:
    config = load(RECIPE, [])
    folder = Path(config.run.folder)
    train(config, resume=(folder / "config.toml").exists(), watch=Lines())
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in MODEL:
        shutil.copy(checkpoint.latest(folder) / name, TARGET / name)
    shutil.copy(folder / "meta.json", TARGET / "meta.json")
    print(f"{TARGET}: {sum(f.stat().st_size for f in TARGET.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
