"""Fuzz the targets for a time: python -m fuzz.fuzz [--seconds 300] [--seed 0] [TARGET ...]

Inputs are mutated from the corpus: bytes are changed, cut, repeated and exchanged with pieces of
other inputs and of WORDS. What a target does not survive is kept in corpus/TARGET, where
`test_corpus.py` runs it from then on, and the exit status is 1.
"""

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 20_000
SLOW_SECONDS = 2.0
"""Time of one input above which a target is too slow: nothing here should take a tenth of it."""
WORDS = [
    *(b"<think>", b"</think>", b"<action>", b"</action>", b"<search>", b"</search>"),
    *(b"<|im_start|>", b"<|im_end|>", b"[env]\n", b"suite = ", b"= 1e999", b"= nan", b"{", b"}"),
    *(b"[", b"]", b'"', b"'", b"\n", b"\0", b"\xed\xa0\x80", b"\xff", b"\xef\xbb\xbf", b"null"),
    *(b"true", b"-1", b"1e400", b"9" * 400, b"tl1\n", b'{"choices": [', b'"logprobs": ', b"#"),
    *(b'"reward": ', b'"state": ', b"token_id:", b"policy.", b"run.steps", b"=", b"..", b","),
]


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutated(data: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """An input that differs from another one in a few places."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(out) + 1)
        end = min(len(out), at + draw.choice((1, 2, 8, 64)))
        kind = draw.randrange(6)
        if kind == 0 and at < len(out):
            out[at] = draw.randrange(256)
        elif kind == 1:
            del out[at:end]
        elif kind == 2:
            out[at:at] = draw.choice(WORDS)
        elif kind == 3:
            out[at:at] = out[at:end] * draw.choice((1, 3, 100))
        elif kind == 4:
            other = draw.choice(others)
            begin = draw.randrange(len(other) + 1)
            out[at:end] = other[begin : begin + draw.choice((4, 32, 256))]
        else:
            out[at:end] = bytes(draw.randrange(256) for _ in range(end - at))
    return bytes(out[:LONGEST])


def fuzz(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Run one target; how many inputs it was given, and how many of them it did not survive."""
    draw, known = random.Random(f"{name} {seed}"), corpus(name)
    until, count, failures, causes = time.monotonic() + seconds, 0, 0, set[str]()
    while time.monotonic() < until:
        data = mutated(draw.choice(known), known, draw)
        count += 1
        since = time.process_time()
        try:
            TARGETS[name](data)
            took = time.process_time() - since
            assert took < SLOW_SECONDS, f"it took {took:.1f} s"
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            cause = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            if cause not in causes:
                causes.add(cause)
                failures += 1
                path = CORPUS / name / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"{name}: {cause}: {str(error)[:200]!r}; kept as {path}", flush=True)
    return count, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names, failed = arguments.targets or list(TARGETS), 0
    for name in names:
        count, failures = fuzz(name, arguments.seconds / len(names), arguments.seed)
        print(f"{name}: {count:,} inputs, {failures} causes of failure", flush=True)
        failed += failures
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
