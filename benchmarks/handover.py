"""What it takes to hand new weights to a sampler on a server, by the size of the model.

    OMP_NUM_THREADS=1 python benchmarks/handover.py [MODEL ...] [--repeats 20] [--servers 1]

serves each MODEL ("builtin:NAME", "wheel:NAME", a folder) with `tutelage serve --reload` on this
machine, changes all of its weights here, and hands them over: written to a folder in memory, loaded
by every server, and compared on 32 tokens. Prints a table in Markdown: medians and ranges, and by how
much the trainer's memory grew from the second hand-over to the last.

    OMP_NUM_THREADS=1 PYTHON benchmarks/handover.py FOLDER --vllm URL [--repeats 20]

with a Python that has vLLM, and a server of FOLDER's model that was started for both ways (see
docs/policies.md, "Without a shared folder"), hands over in turn through a folder in memory and by weight
transfer, to the same server.

    OMP_NUM_THREADS=1 python benchmarks/handover.py FOLDER --vllm URL --lora RANK [--repeats 20]

with a server of FOLDER's model that takes adapters (see docs/policies.md, "Adapters alone"), hands over a
student with adapters in turn: merged into whole weights in a folder in memory, and the adapters alone. They
are new ones, which change nothing, so that both ways leave the server's weights as they were.
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

from tutelage.policies.hf.lora import WEIGHTS
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.adapter_transfer import AdapterEngine, AdapterSampler
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import VllmEngine, write
from tutelage.policies.server.vllm_server import ServerSampler
from tutelage.policies.server.weight_folder import weight_folder
from tutelage.policies.server.weight_transfer import TransferSampler, require_vllm
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
        for _ in range(servers):
            samplers.append(ServerSampler(connected(policy, stack.enter_context(server(model)))))
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


def connected(policy: HFPolicy, url: str) -> RemotePolicy:
    client = Client(url, name="policy.sampler", setting="policy.sampler.url")
    remote = RemotePolicy(client, policy.chat, returns_temperature_scaled=True)
    remote.connect()
    return remote


@torch.no_grad()
def beside(model: str, url: str, repeats: int) -> list[str]:
    """A row of the second table for each way."""
    require_vllm()
    policy = HFPolicy.load(locate(model, where="MODEL"), device="cpu")
    size = sum(x.numel() for x in policy.model.parameters())
    folder, remove = weight_folder("")
    with contextlib.ExitStack() as stack:
        stack.callback(remove)
        samplers: dict[str, ServerSampler] = {
            "folder": ServerSampler(connected(policy, url)),
            "gloo": TransferSampler(connected(policy, url), policy),
        }
        engines = {
            way: VllmEngine(policy, [one], folder=folder, written=way == "folder")
            for way, one in samplers.items()
        }
        seconds: dict[str, list[float]] = {way: [] for way in engines}
        for _ in range(repeats + 1):
            version = ""
            for way, engine in engines.items():
                for x in policy.model.parameters():
                    x.mul_(1.0)  # the same numbers, which count as new ones
                # the last name of the weights, by either way: the server is the same process, and the
                # group stays
                samplers[way].version = version or samplers["gloo"].version
                begun = time.perf_counter()
                engine.refresh()
                seconds[way].append(time.perf_counter() - begun)
                version = samplers[way].version
    rows = []
    for way, (first, *others) in seconds.items():
        middle = f"{statistics.median(others):.2f} s ({min(others):.2f} to {max(others):.2f})"
        cells = [model, f"{size / 1e6:.3g} million", way, middle, f"{first:.2f} s", str(repeats)]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


@torch.no_grad()
def adapters(model: str, url: str, rank: int, repeats: int) -> list[str]:
    """A row of the third table for each way."""
    policy = HFPolicy.load(locate(model, where="MODEL"), device="cpu", lora=rank)
    trained = [x for x in policy.model.parameters() if x.requires_grad]
    with contextlib.ExitStack() as stack:
        folders = []
        for _ in range(2):  # vLLM reads all weights that lie in a folder
            folder, remove = weight_folder("")
            stack.callback(remove)
            folders.append(folder)
        alone = AdapterSampler(connected(policy, url))
        alone.check(rank)
        engines = {
            "merged": VllmEngine(
                policy, [ServerSampler(connected(policy, url))], folder=folders[0]
            ),
            "adapters": AdapterEngine(policy, [alone], folder=folders[1]),
        }
        seconds: dict[str, list[float]] = {way: [] for way in engines}
        for _ in range(repeats + 1):
            for way, engine in engines.items():
                for x in trained:
                    x.mul_(1.0)  # the same numbers, which count as new ones
                begun = time.perf_counter()
                engine.refresh()
                seconds[way].append(time.perf_counter() - begun)
        files = folders[0] / "model.safetensors", folders[1] / WEIGHTS
        sizes = dict(zip(engines, (path.stat().st_size for path in files), strict=True))
    rows = []
    for way, (first, *others) in seconds.items():
        middle = f"{statistics.median(others):.2f} s ({min(others):.2f} to {max(others):.2f})"
        size = f"{sizes[way] / 1e6:.3g} MB"
        cells = [model, str(rank), way, size, middle, f"{first:.2f} s", str(repeats)]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", metavar="MODEL", nargs="*", default=MODELS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--vllm", metavar="URL", default="")
    parser.add_argument("--lora", metavar="RANK", type=int, default=0)
    options = parser.parse_args()
    if options.vllm and options.lora:
        print("| model | rank | way | sent | hand-over | the first | n |")
        print("|---|---|---|---|---|---|---|")
        for model in options.models:
            rows = adapters(model, options.vllm, options.lora, options.repeats)
            print("\n".join(rows), flush=True)
        return 0
    if options.vllm:
        print("| model | weights | way | hand-over | the first | n |")
        print("|---|---|---|---|---|---|")
        for model in options.models:
            print("\n".join(beside(model, options.vllm, options.repeats)), flush=True)
        return 0
    print("| model | weights | servers | hand-over | of it written | memory | n |")
    print("|---|---|---|---|---|---|---|")
    for model in options.models:
        print(measure(model, options.servers, options.repeats), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
