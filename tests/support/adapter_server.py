"""A server that takes low-rank adapters as vLLM does: `tutelage serve` and the paths that vLLM has for
them, over HTTP."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from support.fake_servers import serving
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.serve import Handler, Server
from tutelage.policies.server.serve_api import Endpoints, RequestError
from tutelage.policies.server.serve_worker import Job


class PlainText(Handler):
    """vLLM answers a loaded adapter with a text that is not JSON."""

    def _send(self, status: int, answer: Any) -> None:
        if not isinstance(answer, str):
            return super()._send(status, answer)
        raw = answer.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class Adapted:
    """What vLLM does with adapters, and a prefix cache that knows only their name and folder: until it
    is cleared, turns are those of the adapters before; scores of prompts never come from it.

    rank  the largest that it takes; 0 for a server without --enable-lora
    """

    def __init__(self, server: Server, room: Path, *, rank: int = 8) -> None:
        self.server, self.room, self.rank = server, room, rank
        self.own: Endpoints = server.endpoints
        self.asked: list[str] = []
        self.count = 0
        self.loaded: dict[str, Path] = {}  # whole weights, by the name of the adapters
        self.cached: dict[str, Path] = {}
        self.lock = threading.Lock()
        self.active = self.base = self._whole({})
        self.completions = self.own.post["/v1/completions"]
        self.listed = self.own.get["/v1/models"]
        self.own.post |= {
            "/v1/completions": self._completions,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
            "/reset_prefix_cache": self._reset,
        }
        self.own.get["/server_info"] = self._info
        server.RequestHandlerClass = PlainText

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def forget(self) -> None:
        """As a process that was started again."""
        self.loaded, self.cached = {}, {}
        self.own.weight_version = "default"

    def ignore(self, layer: str) -> None:
        """Apply no adapters in layers whose names hold this, as with --lora-target-modules."""
        self.ignored = layer

    ignored = "nothing"

    def _whole(self, deltas: dict[str, Tensor]) -> Path:
        """The base with something added to it."""
        self.count += 1
        folder = self.room / str(self.count)
        folder.mkdir()
        if not deltas:
            state = self.own.worker.policy.model.state_dict()
            self.state = {name: x.clone() for name, x in state.items()}
        tensors = {
            name: x + deltas.get(name, torch.zeros(())).to(x) for name, x in self.state.items()
        }
        save_file(tensors, folder / "model.safetensors")
        return folder

    def _load(self, body: Any) -> str:
        self.asked.append("load")
        name, folder = str(body["lora_name"]), Path(str(body["lora_path"]))
        if not body["lora_name"] or not body["lora_path"]:
            raise RequestError(400, "InvalidUserInput", "Both must be provided.")
        if name in self.loaded:
            raise RequestError(400, "InvalidUserInput", f"'{name}' has already been loaded.")
        if not (folder / "adapter_config.json").is_file():
            raise RequestError(404, "NotFoundError", f"No adapter found for {folder}")
        config = json.loads((folder / "adapter_config.json").read_text())
        if config["r"] > self.rank:
            why = f"LoRA rank {config['r']} is greater than max_lora_rank {self.rank}."
            raise RequestError(500, "InternalServerError", why)
        tensors = load_file(folder / "adapter_model.safetensors")
        deltas = {}
        for key, a in tensors.items():
            if key.endswith(".lora_A.weight") and self.ignored not in key:
                b = tensors[key.replace(".lora_A.", ".lora_B.")]
                layer = key.removeprefix("base_model.model.").replace(".lora_A.", ".")
                deltas[layer] = (config["lora_alpha"] / config["r"]) * (b @ a)
        self.loaded[name] = self._whole(deltas)
        return f"Success: LoRA adapter '{name}' added successfully."

    def _unload(self, body: Any) -> str:
        self.asked.append("unload")
        if body["lora_name"] not in self.loaded:
            raise RequestError(404, "NotFoundError", "The lora adapter cannot be found.")
        del self.loaded[body["lora_name"]]
        return "Success"

    def _reset(self, body: Any) -> Any:
        self.asked.append("reset")
        self.cached = {}
        return {"success": True}

    def _info(self, body: Any) -> Any:
        lora = {"max_lora_rank": self.rank} if self.rank else None
        return {"vllm_config": {"lora_config": lora}}

    def _completions(self, body: Any) -> Any:
        name = body["model"]
        if name != self.own.name and name not in self.loaded:
            raise RequestError(404, "NotFoundError", f"The model `{name}` does not exist.")
        wanted = self.loaded.get(name, self.base)
        if body.get("prompt_logprobs") is None:
            wanted = self.cached.setdefault(name, wanted)
        with self.lock:
            if wanted != self.active:
                self.own.worker.do(Job(weights=wanted))
                self.active = wanted
        return self.completions({**body, "model": self.own.name})


@contextlib.contextmanager
def adapted(of: HFPolicy, room: Path, *, rank: int = 8) -> Iterator[Adapted]:
    """A server of this model; `room` is an empty folder for its files."""
    room.mkdir(parents=True)
    with serving(of, reload=True) as server:
        yield Adapted(server, room, rank=rank)
