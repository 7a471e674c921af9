"""Memory and time of losses over a large vocabulary, with their gradients.

    OMP_NUM_THREADS=1 python benchmarks/divergences.py [--tokens N ...] [--device cuda]

prints a table in Markdown. A student of hidden size 128 learns from a teacher of 320 at
V = 151,936, hidden states and heads given, in float32. That is an eighth of Qwen3 0.6B and 4B, so
that all ends within 25 minutes on a core: what is held over a vocabulary is the same, and products
are faster (`--hidden 1024 2560` has the real sizes). Three forms of the same loss:

naive         log-probabilities of all tokens at once, and autograd's record of the formula
checkpointed  `maths.vocabulary.diverge`: chunks that are computed again in the backward pass
pieces        `maths.vocabulary.Pieces`: a chunk's gradient is taken before the next is begun

Every measurement is a process of its own; the more tokens, the fewer of them (n). Memory is the
peak over what was there before: it includes the head's gradient. Seconds are of the processor, on a
card of the clock. What would not fit into memory, or end after --minutes, is not begun.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tutelage.maths.distributions import Distribution, Pieces, diverge, sampled_logps
from tutelage.maths.divergences import forward_kl, jensen_shannon, reverse_kl

FORMS = ("naive", "checkpointed", "pieces")
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "reverse KL": reverse_kl,
    "forward KL": forward_kl,
    "Jensen-Shannon": jensen_shannon,
    "sampled log-probability": None,
}
PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reverse KL": lambda p, q: (p.exp() * (p - q)).sum(-1),
    "forward KL": lambda p, q: (q.exp() * (q - p)).sum(-1),
    "Jensen-Shannon": lambda p, q: _plain_jensen_shannon(p, q),
}
HELD = {"reverse KL": 5, "forward KL": 5, "Jensen-Shannon": 8, "sampled log-probability": 3}
"""Tensors [N, V] that the naive form holds at its peak: 4.4, 4.4, 7.4 and 2.5 were measured."""
ENTRIES, HIDDEN = 151_936, (128, 320)


def _plain_jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    m = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)) / 2


def parts(
    loss: str, student: Distribution, teacher: Distribution, token: Tensor, *, whole: bool
) -> Tensor:
    """The loss at each token; `whole` holds everything at once."""
    divergence = LOSSES[loss]
    if divergence is None:
        if whole:
            return student.logps().gather(-1, token[:, None]).squeeze(-1)
        return sampled_logps(student, token)
    if whole:
        return PLAIN[loss](student.logps(), teacher.logps())
    return diverge(divergence, student, teacher)


def run(form: str, loss: str, student: Distribution, teacher: Distribution, token: Tensor) -> float:
    """Loss and gradient once; the loss."""
    weight = torch.linspace(0.5, 1.5, len(token), device=token.device) / len(token)
    if form != "pieces":
        value = (weight * parts(loss, student, teacher, token, whole=form == "naive")).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())
    total, cut = 0.0, Pieces(student)
    for start in range(0, len(token), student.chunk):
        part = slice(start, min(start + student.chunk, len(token)))
        losses = parts(loss, cut[part], teacher[part], token[part], whole=False)
        value = (weight[part] * losses).sum()
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
        del losses, value  # with which the piece's log-probabilities go
    sent = list(cut.send())
    torch.autograd.backward([to for to, _ in sent], [gradient for _, gradient in sent])
    return total


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def measure(form: str, loss: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Megabytes, seconds, the loss and the norms of its gradients, in this process."""
    tokens, entries, device = arguments.tokens[0], arguments.entries, arguments.device
    of_student, of_teacher = arguments.hidden
    torch.manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape)).to(device)

    student = Distribution(
        hidden=normal(tokens, of_student).requires_grad_(),
        head=normal(entries, of_student, scale=0.05).requires_grad_(),
    )
    teacher = Distribution(
        hidden=normal(tokens, of_teacher), head=normal(entries, of_teacher, scale=0.05)
    )
    token = torch.randint(entries, (tokens,)).to(device)
    cuda = device != "cpu"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before, clock = torch.cuda.memory_allocated() / 1e6, time.perf_counter
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what came before
        before, clock = _status("VmRSS"), time.process_time
    since = clock()
    value = run(form, loss, student, teacher, token)
    if cuda:
        torch.cuda.synchronize()
    seconds = clock() - since
    peak = torch.cuda.max_memory_allocated() / 1e6 if cuda else _status("VmHWM")
    assert student.hidden.grad is not None
    assert student.head.grad is not None
    return {
        "megabytes": peak - before,
        "seconds": seconds,
        "loss": value,
        "hidden": float(student.hidden.grad.norm()),
        "head": float(student.head.grad.norm()),
    }


def room(device: str) -> float:
    """Megabytes that can be had."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0] / 1e6
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(float(x.split()[1]) / 1e3 for x in lines if x.startswith("MemAvailable"))


def needed(form: str, loss: str, tokens: int, arguments: argparse.Namespace) -> float:
    """Megabytes that a measurement takes, about: heads, the gradient of one, and in the naive form
    what is held of all tokens at once. The other forms hold hidden states and pieces."""
    student, teacher = arguments.hidden
    heads = 4e-6 * (arguments.entries + tokens) * (2 * student + teacher)
    held = HELD[loss] if form == "naive" else 0
    return float(heads + 4e-6 * held * tokens * arguments.entries)


def elsewhere(form: str, loss: str, tokens: int, arguments: argparse.Namespace) -> dict[str, float]:
    """`measure` in a process of its own; nothing where the system ended it."""
    command = [
        sys.executable,
        __file__,
        "--one",
        form,
        loss,
        "--tokens",
        str(tokens),
        "--entries",
        str(arguments.entries),
        "--device",
        arguments.device,
        "--hidden",
        *map(str, arguments.hidden),
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode == -9:
        return {}
    if process.returncode:
        sys.exit(f"{form}, {loss}, {tokens} tokens failed:\n{process.stderr[-2000:]}")
    return {str(name): float(x) for name, x in json.loads(process.stdout).items()}


def repeats_of(most: int, tokens: int) -> int:
    """`most` at up to 1,024 tokens, and at least one: what takes long varies less."""
    return max(1, min(most, most * 1024 // tokens))


def spread(values: Sequence[float], form: str) -> str:
    middle, low, high = (format(f(values), form) for f in (statistics.median, min, max))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


class Sheet:
    """What has been measured so far: how long it took, and the values that all forms share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.end = arguments, time.monotonic() + 60 * arguments.minutes
        self.pace: dict[tuple[str, str], float] = {}  # seconds a token, by form and loss
        self.values: dict[tuple[str, int, str], float] = {}

    def cells(self, form: str, loss: str, tokens: int) -> str:
        """n, megabytes and seconds, or why there are none."""
        need, there = needed(form, loss, tokens, self.arguments), room(self.arguments.device)
        if need > there:
            return f"0 | not begun: needs about {need:,.0f}, of {there:,.0f} there are | "
        runs: list[dict[str, float]] = []
        while len(runs) < repeats_of(self.arguments.repeats, tokens):
            since = time.monotonic()
            if since + tokens * self.pace.get((form, loss), 0.0) > self.end:
                break
            runs.append(elsewhere(form, loss, tokens, self.arguments))
            self.pace[form, loss] = (time.monotonic() - since) / tokens
            if not runs[-1]:
                return f"0 | ended by the system, for want of memory: {need:,.0f} were foreseen | "
        if not runs:
            return f"0 | not begun: {self.arguments.minutes:g} minutes are over | "
        for name in ("loss", "hidden", "head"):
            first = self.values.setdefault((loss, tokens, name), runs[0][name])
            assert abs(runs[0][name] - first) <= 1e-3 * abs(first), (form, name)
        megabytes = spread([x["megabytes"] for x in runs], ",.0f")
        return f"{len(runs)} | {megabytes} | {spread([x['seconds'] for x in runs], ',.3g')}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 16_384])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--repeats", type=int, default=5, help="at 1,024 tokens")
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--hidden", type=int, nargs=2, default=HIDDEN, metavar=("S", "T"))
    parser.add_argument("--minutes", type=float, default=24.0, help="of all measurements")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, metavar=("FORM", "LOSS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        form, loss = arguments.one
        print(json.dumps(measure(form, loss, arguments)))
        return
    student, teacher = arguments.hidden
    print(
        f"V = {arguments.entries:,}, hidden sizes {student:,} (student) and {teacher:,} (teacher), "
        f"torch {torch.__version__}, {platform.machine()}, {arguments.device}, "
        "median of n (range)\n"
    )
    print("| loss | tokens | form | n | MB | seconds |\n|---|---|---|---|---|---|")
    sheet = Sheet(arguments)
    for tokens in sorted(arguments.tokens):  # what takes long comes last
        for loss in arguments.losses:
            for form in FORMS:
                cells = sheet.cells(form, loss, tokens)
                print(f"| {loss} | {tokens:,} | {form} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
