"""On a graphics card: decoding, learning, and a whole step, beside what the card can do.

    python benchmarks/gpu.py [--part decode prefill turn sampling train step] [--shape Qwen3-1.7B ...] [--save]
    python benchmarks/gpu.py --tiny --device cpu      all of it in a small shape, within a minute
    python benchmarks/gpu.py --table                  what was saved, in Markdown

prints a line of JSON for each measurement. Models have the shapes of Qwen3 and random weights;
products are in bfloat16. With --save a line is kept in docs/benchmarks/gpu.jsonl, and what stands
there of the same device is not measured again: a run that was cut off goes on.

decode  action tokens a second at a batch, every row in a turn, beside the memory-bandwidth limit:
        the weights once and every row's keys and values, 2 bytes a number, at the rate at which a
        large tensor is copied in the same run
prefill seconds for first prompts of 256 tokens, all different
turn    seconds for the 60 new tokens of a turn after 1,100 that are cached, and one sampled token
sampling  milliseconds to draw a token from each row of logits
train   tokens a second of `train_step` on packed rows, its optimiser included, and the share of
        the rate of a large bfloat16 product in the same run. Counted are 6 operations a weight of
        linear layers and token, the head's on tokens that are learnt from, and causal attention's;
        what is computed again is not
step    a whole step of sdar on household games, played, scored and learnt from, in episodes an
        hour. Random weights end neither a turn nor an episode, so that all are of full length:
        --turns of --new-tokens each

Beside them on the same work, where --part names them, transformers as its documentation shows it:
generate, generate_static   its `generate` after the prompts, with either kind of cache
plain_train                 its model and loss over padded rows, under autocast, with fused AdamW

Seconds are of the clock, medians with the range of the repeats. A part ends after --seconds with
what there is by then; a line says of how many repeats it is.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from gpu_parts import CASES, REAL, SHAPES, Job, Limits, Line, give_back, limits_of
from gpu_peers import PEERS

RAW = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "gpu.jsonl"
FIRST = RAW.with_name("gpu_first.txt")
"""The first measurements, of older code, beside the goals."""
PARTS = {**CASES, **PEERS}


def known(path: Path | None) -> list[Line]:
    if path is None or not path.exists():
        return []
    return [json.loads(text) for text in path.read_text().splitlines()]


def run(arguments: argparse.Namespace) -> Iterator[Line]:
    device, saved = arguments.device, known(arguments.save)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    there = {tuple(line.get(key) for key in ("device", "part", "shape", "case")) for line in saved}
    found: Limits | None = None
    for part in arguments.part:
        measure, cases, tiny = PARTS[part]
        until = time.perf_counter() + arguments.seconds
        wanted = [
            (shape, case)
            for shape in (["tiny"] if arguments.tiny else arguments.shape)
            for case in (tiny if arguments.tiny else cases)
            if (name, part, shape, case) not in there
        ]
        for left, (shape, case) in zip(range(len(wanted), 0, -1), wanted, strict=True):
            found = found or limits_of(device)
            # what a case may take of the time that is left: none is left out for another's sake
            share = time.perf_counter() + max(0.0, until - time.perf_counter()) / left
            try:
                measured = measure(Job(shape, SHAPES[shape], found, arguments, share), case)
            except torch.OutOfMemoryError:
                measured = {"error": "does not fit into this card's memory"}
            give_back(device)
            yield {
                "part": part,
                "shape": shape,
                "case": case,
                **measured,
                "device": name,
                "gigabytes_per_second": round(found.bandwidth / 1e9, 1),
                "teraflops_of_a_product": round(found.product / 1e12, 2),
                "torch": torch.__version__,
            }


def table(lines: Sequence[Line]) -> str:
    """What was saved, a table for each part."""
    if not lines:
        return "Not measured yet: `python benchmarks/gpu.py --save` on a machine with a card."
    table_lines = []
    for part in PARTS:
        mine = [line for line in lines if line["part"] == part]
        if not mine:
            continue
        names = list(dict.fromkeys(key for line in mine for key in line if key != "part"))
        table_lines += [
            "",
            f"### {part}",
            "",
            "| " + " | ".join(names) + " |",
            "|" + "---|" * len(names),
        ]
        table_lines += [
            "| " + " | ".join(shown(line.get(key, "")) for key in names) + " |" for line in mine
        ]
    return "\n".join(table_lines).strip()


def shown(value: object) -> str:
    if isinstance(value, list):
        middle, low, high = (f"{x:,.4g}" for x in value)
        return f"{middle} ({low} to {high})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {x}" for name, x in value.items())
    return str(value)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(CASES))
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=REAL)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small shape and small work")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=420.0, help="of a part, about")
    parser.add_argument("--compile", action="store_true", help="policy.compile")
    parser.add_argument("--context", choices=("transcript", "window"), default="transcript")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--save", nargs="?", type=Path, const=RAW, help=f"default: {RAW.name}")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args(words)
    if arguments.table:
        print(FIRST.read_text(encoding="utf-8"))
        print(table(known(arguments.save or RAW)))
        return
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no graphics card here; --tiny --device cpu tries it all without")
    for line in run(arguments):
        print(json.dumps(line), flush=True)
        if arguments.save is not None:
            arguments.save.parent.mkdir(parents=True, exist_ok=True)
            with arguments.save.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
