"""The memory of each rank with a student that is whole, divided in updates, or always divided.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/divided_memory.py [MODEL]

prints, for each rank, MB of its own memory (not that of files) without what the allocator kept: before an
update, in it before the first moments, and after it. An update learns from one short sequence. Linux
with glibc.
"""

import argparse
import contextlib
import ctypes
import gc
from pathlib import Path

from tutelage.policies.hf.loading import load
from tutelage.prompts.prompter import Sample
from tutelage.runs.launch import joined
from tutelage.runs.models import locate
from tutelage.training.optimizer import adamw

SAMPLE = Sample(prompt=tuple(range(5, 25)), tokens=(3, 4, 5))
FORMS = ("whole", "--sharded", "--sharded always")


def held() -> float:
    """MB of this process's own memory."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measured(model: str, form: str) -> tuple[float, float, float]:
    student = load(locate(model, where="MODEL"))
    if form != "whole":
        student.shard(always=form == "--sharded always")
    before = held()
    rate = {"lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.0}
    optimizer = adamw(student.parameters(), **rate, offload=False)  # type: ignore[arg-type]
    divided = student.sharded
    with student.updating() if divided is not None else contextlib.nullcontext():
        student.score([SAMPLE], 1.0).logp.sum().backward()  # type: ignore[no-untyped-call]
        if divided is not None:
            divided.collect()
        inside = held()
        optimizer.step()
        if divided is not None:
            divided.put_back()
        optimizer.zero_grad()
    return before, inside, held()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="wheel:smollm2-135m", metavar="MODEL")
    model = parser.parse_args().model
    with joined() as ranks:
        for form in FORMS:
            found = ranks.gather(measured(model, form))
            for rank, numbers in enumerate(found if ranks.rank == 0 else []):
                print(f"{form}, rank {rank}:", *(f"{x:,.0f}" for x in numbers), flush=True)


if __name__ == "__main__":
    main()
