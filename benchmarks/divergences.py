"""Memory and time of losses over a large vocabulary, with their gradients.

    OMP_NUM_THREADS=1 python benchmarks/divergences.py [--tokens N ...] [--device cuda]

prints a table in Markdown. A student of hidden size 1,024 learns from a teacher of 2,560 at
V = 151,936, hidden states and heads given, in float32. Three forms of the same loss:

naive         log-probabilities of all tokens at once, and autograd's record of the formula
checkpointed  `maths.vocabulary.diverge`: chunks that are computed again in the backward pass
pieces        `maths.vocabulary.Pieces`: a chunk's gradient is taken before the next is begun

Every measurement is a process of its own. Memory is the peak over what was there before: it
includes the head's gradient (622 MB). Seconds are of the processor, on a card of the clock.
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

from understudy.maths.divergences import forward_kl, jensen_shannon, reverse_kl
from understudy.maths.vocabulary import Distribution, Pieces, diverge, sampled_logps

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
ENTRIES, STUDENT, TEACHER = 151_936, 1024, 2560


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
        made = parts(loss, cut[part], teacher[part], token[part], whole=False)
        value = (weight[part] * made).sum()
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
        del made, value  # with which the piece's log-probabilities go
    sent = list(cut.send())
    torch.autograd.backward([to for to, _ in sent], [gradient for _, gradient in sent])
    return total


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def measure(form: str, loss: str, tokens: int, entries: int, device: str) -> dict[str, float]:
    """Megabytes, seconds, the loss and the norms of its gradients, in this process."""
    torch.manual_seed(0)

    def made(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape)).to(device)

    student = Distribution(
        hidden=made(tokens, STUDENT).requires_grad_(),
        head=made(entries, STUDENT, scale=0.05).requires_grad_(),
    )
    teacher = Distribution(hidden=made(tokens, TEACHER), head=made(entries, TEACHER, scale=0.05))
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


def elsewhere(form: str, loss: str, tokens: int, arguments: argparse.Namespace) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [
        sys.executable, __file__, "--one", form, loss, "--tokens", str(tokens),
        "--entries", str(arguments.entries), "--device", arguments.device,
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {str(name): float(x) for name, x in json.loads(found).items()}


def spread(values: Sequence[float]) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.3g} ({low:,.3g} to {high:,.3g})" if len(values) > 1 else f"{middle:,.3g}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096, 16_384])
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, metavar=("FORM", "LOSS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        form, loss = arguments.one
        made = measure(form, loss, arguments.tokens[0], arguments.entries, arguments.device)
        print(json.dumps(made))
        return
    print(f"V = {arguments.entries:,}, torch {torch.__version__}, {platform.machine()}, ", end="")
    print(f"{arguments.device}, median of {arguments.repeats} (range)\n")
    print("| loss | tokens | form | MB | seconds |\n|---|---|---|---|---|")
    for loss in arguments.losses:
        for tokens in arguments.tokens:
            values: dict[str, float] = {}
            for form in FORMS:
                # about seven tensors [N, V] at the peak
                if form == "naive" and 28e-6 * tokens * arguments.entries > room(arguments.device):
                    print(f"| {loss} | {tokens:,} | naive | more than there is | |")
                    continue
                runs = [elsewhere(form, loss, tokens, arguments) for _ in range(arguments.repeats)]
                seconds = spread([x["seconds"] for x in runs])
                peak = statistics.median(x["megabytes"] for x in runs)
                print(f"| {loss} | {tokens:,} | {form} | {peak:,.0f} | {seconds} |", flush=True)
                for name in ("loss", "hidden", "head"):
                    first = values.setdefault(name, runs[0][name])
                    assert abs(runs[0][name] - first) <= 1e-3 * abs(first), (form, name)


if __name__ == "__main__":
    main()
