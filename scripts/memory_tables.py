"""The tables of docs/memory.md: what a student's update takes, and the papers' settings on one GPU.

python scripts/memory_tables.py

`scripts/write_docs.py` puts them on the page. They are computed as `tutelage train FILE --dry-run` does.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from tutelage.cli import dry_run, model_sizes, update_memory
from tutelage.cli.planned_memory import Model, in_bytes
from tutelage.config.schema import PolicySection
from tutelage.config.toml_file import load

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STUDENTS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B")
TOKENS, FEWER_TOKENS = 16_384, 4_096
CARD = 80.0
"""GB of the GPU that the papers' settings are planned for."""
LOW: Mapping[str, object] = {"dtype": "bfloat16"}
AGAIN: Mapping[str, object] = {**LOW, "gradient_checkpointing": True}
ADAPTERS: Mapping[str, object] = {**AGAIN, "lora": 16}


def update_gb(
    name: str, settings: Mapping[str, object], *, tokens: int = TOKENS, offload: bool = False
) -> float:
    """GB on a GPU for an update of a known model in passes of so many tokens."""
    section = PolicySection.model_validate({"model": f"Qwen/{name}", **settings})
    shape = model_sizes.named(section.model)
    assert shape is not None
    head = 2 * shape.vocab * shape.hidden if section.dtype == "bfloat16" else 0  # that samples
    beside = update_memory.beside(shape, section, tokens, gpu=True)
    # gradients, and two moments
    trained = shape.trained(section) * (4 if offload else 12)
    return (shape.weights(section, frozen=False) + head + trained + beside) / 1e9


def update_table() -> str:
    columns: tuple[tuple[str, Mapping[str, object], int, bool], ...] = (
        ("float32", {}, TOKENS, False),
        ('`dtype = "bfloat16"`', LOW, TOKENS, False),
        (f"and passes of {FEWER_TOKENS:,} tokens", LOW, FEWER_TOKENS, False),
        ("or `gradient_checkpointing`", AGAIN, TOKENS, False),
        ("and `offload`", AGAIN, TOKENS, True),
        ("or `lora = 16` instead", ADAPTERS, TOKENS, False),
        ('and `quantize = "nf4"`', {**ADAPTERS, "quantize": "nf4"}, TOKENS, False),
    )
    rows = [
        [
            name,
            *(
                f"{update_gb(name, settings, tokens=tokens, offload=offload):.1f}"
                for _, settings, tokens, offload in columns
            ),
        ]
        for name in STUDENTS
    ]
    return _table(["student", *(title for title, *_ in columns)], rows)


def papers_table() -> str:
    """The student, the other models, all of them, and the ways in which they fit."""
    rows = []
    for file in sorted(EXAMPLES.glob("alfworld_*.toml")):
        plan = dry_run.make(load(file), gpu=CARD)
        student, *others = plan.models
        (warning,) = [text for text in plan.warnings if "it fits with " in text]
        ways = warning.partition("it fits with ")[2].split(", or with ")
        rows.append(
            [
                f"`{file.stem}`",
                in_bytes(_taken(student)),
                ", ".join(f"{in_bytes(m.weights or 0)} ({m.name})" for m in others),
                in_bytes(plan.memory),
                "; ".join(_as_code(way) for way in ways),
            ]
        )
    return _table(["`examples/`", "student", "other models", "all", "fits with"], rows)


def _taken(model: Model) -> int:
    return (model.weights or 0) + model.moments + model.update


def _as_code(way: str) -> str:
    """
    >>> _as_code("update.offload = true and the other models on a server (9.0 GB)")
    '`update.offload = true` and the other models on a server (9.0 GB)'
    """
    settings, _, size = way.rpartition(" (")
    parts = [f"`{x}`" if " = " in x else x for x in settings.split(" and ")]
    return f"{' and '.join(parts)} ({size}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(update_table(), papers_table(), sep="\n\n")


if __name__ == "__main__":
    main()
