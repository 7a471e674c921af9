"""Rebuild the weights that the package ships: `make teacher`, about half an hour on one CPU core.

Trains household_teacher.toml and household_teacher_more.toml, or goes on with them, and copies the
last checkpoint to src/understudy/assets/household-teacher.
"""

import shutil
from pathlib import Path

from understudy import checkpoint
from understudy.configfile import load
from understudy.progress import Lines
from understudy.run import train

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src/understudy/assets/household-teacher"
MORE = "scripts/household_teacher_more.toml"
STAGES: dict[str, list[str]] = {
    "examples/household_teacher.toml": [],
    MORE: [],
    f"./{MORE}": [
        "policy.model=runs/household_teacher_more",
        "run.folder=runs/household_teacher_last",
        "run.steps=420",
        "run.seed=1",
        "run.eval_every=0",
    ],
}
MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
         "chat_template.jinja")  # fmt: skip


def main() -> None:
    for name, overrides in STAGES.items():
        config = load(ROOT / name, overrides)
        folder = Path(config.run.folder)
        train(config, resume=(folder / "config.toml").exists(), watch=Lines())
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in MODEL:
        shutil.copy(checkpoint.latest(folder) / name, TARGET / name)
    shutil.copy(folder / "meta.json", TARGET / "meta.json")
    print(f"{TARGET}: {sum(f.stat().st_size for f in TARGET.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
