"""What it takes to hand new weights to a sampler on a server, by the size of the model.

    OMP_NUM_THREADS=1 python benchmarks/handover.py [MODEL ...] [--repeats 20] [--servers 1]

serves each MODEL ("builtin:NAME", "wheel:NAME", a folder) with `tutelage serve --reload` on this
machine, changes all of its weights here, and hands them over: written to a folder in memory, loaded
by every server, and compared on 32 tokens. Prints a table in Markdown: medians and ranges, and by how
much the trainer's memory grew from the second hand-over to the last.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import VllmEngine, write
from tutelage.policies.server.vllm_server import ServerSampler
from tutelage.policies.server.weight_folder import weight_folder
from tutelage.runs.models import locate

MODELS = ("builtin:household-teacher", "wheel:smollm2-135m")
STARTS = 120.0
"""Seconds that a server may take to start."""


@contextlib.contextmanager
def server(model: str) -> Iterator[str]:
    """The address of a server of a model, which ends with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tutelage", "serve", model, "--reload", f"--port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + STARTS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"`{' '.join(command[2:])}` did not start")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def memory() -> int:
    """Bytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


@torch.no_grad()
def measure(model: str, servers: int, repeats: int) -> str:
    """A row of the table."""
    policy = HFPolicy.load(locate(model, where="MODEL"), device="cpu")
    size = sum(x.numel() for x in policy.model.parameters())
    folder, remove = weight_folder("")
    with contextlib.ExitStack() as stack:
        stack.callback(remove)
        samplers = []
        for k in range(servers):
            client = Client(stack.enter_context(server(model)), name=f"server {k}")
            remote = RemotePolicy(client, policy.chat, returns_temperature_scaled=True)
            remote.connect()
            samplers.append(ServerSampler(remote))
        engine = VllmEngine(policy, samplers, folder=folder)
        whole, written, held = list[float](), list[float](), list[int]()
        for _ in range(repeats):
            for x in policy.model.parameters():
                x.mul_(1.0)  # the same numbers, which count as new ones
            begun = time.perf_counter()
            engine.refresh()
            whole.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            write(policy, folder)
            written.append(time.perf_counter() - begun)
            held.append(memory())
    cells = [
        model,
        f"{size / 1e6:.0f} million",
        str(servers),
        *(f"{statistics.median(x):.2f} s ({min(x):.2f} to {max(x):.2f})" for x in (whole, written)),
        f"{(held[-1] - held[min(1, repeats - 1)]) / 1e6:+.1f} MB",
        str(repeats),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", metavar="MODEL", nargs="*", default=MODELS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--servers", type=int, default=1)
    options = parser.parse_args()
    print("| model | weights | servers | hand-over | of it written | memory | n |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models:
        print(measure(model, options.servers, options.repeats), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
