"""vLLM samples the student's turns, in this process or on a server, and is given its weights.

The trainer stays what it is: `VllmEngine` stands in an `HFPolicy` where its own engine would. When
the weights have changed they are written to a folder, which vLLM reads, and a fixed sequence must
score alike on both sides before anything is played: a reload that leaves a part of the model as it
was (seen in vLLM 0.32 on a CPU, with an output head tied to the embeddings) raises no error there.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tutelage.errors import PolicyError
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf.policy import Compute, HFPolicy
from tutelage.policies.server.dialects import SEEDS
from tutelage.policies.server.policy import RemotePolicy
from tutelage.prompts.prompter import Ids, Sample

PROBE = 32
"""Tokens on which both sides must agree after the weights were handed over."""
AGREEMENT: dict[Compute, float] = {"float32": 0.01, "bfloat16": 0.2}
"""Nats by which they may differ on average."""
SHARE = 0.35
"""Of a card's memory, what vLLM takes in this process: the trainer is on the same card."""
NEVER = -100.0
"""Added to a logit: the least that vLLM takes."""
DTYPES: dict[Compute, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MEMORY = Path("/dev/shm")
"""Where a folder costs no disk."""


class Sampler(Protocol):
    """A model that samples, scores, and can be given other weights."""

    def submit(self, request: Request) -> None: ...
    def poll(self) -> list[Completion]: ...
    def refresh(self) -> None: ...
    def load(self, folder: Path) -> None: ...
    def logps(self, ids: Ids) -> Tensor: ...  # of ids[1:], at temperature 1


class VllmEngine:
    """What `HFPolicy` plays with: a sampler that has the policy's weights of now.

    folder  where weights are handed over; both sides must see it
    """

    def __init__(self, policy: HFPolicy, sampler: Sampler, *, folder: Path, name: str) -> None:
        self.policy, self.sampler, self.folder, self.name = policy, sampler, folder, name
        self.given: tuple[int, ...] = ()

    def submit(self, request: Request) -> None:
        self.sampler.submit(request)

    def poll(self) -> list[Completion]:
        return self.sampler.poll()

    def release(self, key: str) -> None:
        """What is cached of an episode goes when its place is needed."""

    def refresh(self) -> None:
        """Hand the weights over, if they have changed since."""
        self.sampler.refresh()
        # torch counts what is written into a tensor
        now = tuple(value._version for value in self.policy.model.state_dict().values())
        if now == self.given:
            return
        write(self.policy, self.folder)
        self.sampler.load(self.folder)
        self._agree()
        self.given = now

    @torch.no_grad()
    def _agree(self) -> None:
        size = self.policy.chat.size
        ids = tuple(k * (size - 1) // (PROBE - 1) for k in range(PROBE))
        mine = self.policy.score([Sample(prompt=ids[:1], tokens=ids[1:])], 1.0).logp.float().cpu()
        apart = float((mine - self.sampler.logps(ids)).abs().mean())
        limit = AGREEMENT[self.policy.dtype]
        if not apart <= limit:
            raise PolicyError(
                f"after the weights were handed over, {self.name} and the trainer differ by "
                f"{apart:.3g} nats a token (at most {limit:g} is rounding), so it would sample "
                "from another model; use another version of vLLM, or leave the sampler out"
            )


def write(policy: HFPolicy, folder: Path) -> None:
    """All weights as safetensors, in the number format that the policy computes in, at once: a
    reader sees the old file or the new one."""
    from safetensors.torch import save_file

    # a tied head is written out a second time: a reload may not follow the tie
    to = DTYPES[policy.dtype]
    tensors = {
        name: value.detach().to("cpu", to, copy=True).contiguous()
        for name, value in policy.model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".model.safetensors"
    save_file(tensors, draft, metadata={"format": "pt"})
    os.replace(draft, folder / "model.safetensors")


def hand_over(where: str) -> tuple[Path, Callable[[], None]]:
    """A folder for weights, in memory if there is such a place, and what removes it."""
    root = where or (str(MEMORY) if MEMORY.is_dir() else None)
    made = Path(tempfile.mkdtemp(prefix="tutelage-", dir=root))
    return made, lambda: shutil.rmtree(made, ignore_errors=True)


class Served:
    """vLLM behind its server, started with VLLM_SERVER_DEV_MODE=1 (which opens /collective_rpc) and
    --logprobs-mode processed_logprobs (log-probabilities at the sampling temperature)."""

    def __init__(self, remote: RemotePolicy) -> None:
        self.remote = remote

    def submit(self, request: Request) -> None:
        self.remote.submit(request)

    def poll(self) -> list[Completion]:
        return self.remote.poll()

    def refresh(self) -> None:
        self.remote.refresh()

    def load(self, folder: Path) -> None:
        told = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        try:
            self.remote.client.ask("/collective_rpc", told).result()
            self.remote.client.ask("/reset_prefix_cache", {}).result()
        except PolicyError as error:
            raise PolicyError(
                f"the weights could not be handed over: {error} (vLLM takes them where it was "
                "started with VLLM_SERVER_DEV_MODE=1, `tutelage serve` with --reload, and both "
                f"must see the folder {folder})"
            ) from error

    def logps(self, ids: Ids) -> Tensor:
        return self.remote.score([Sample(prompt=ids[:1], tokens=ids[1:])], 1.0).logp


class InProcess:
    """vLLM in this process: the extra `vllm`.

    folder   a model as save_pretrained writes it, to start from
    unused   entries that the model embeds and the tokenizer does not know: they are never sampled
    options  further arguments of vllm.LLM, such as gpu_memory_utilization, here 0.35 if left out
    """

    def __init__(
        self, folder: Path, *, end: int, context: int, dtype: Compute, unused: Iterable[int],
        options: Mapping[str, object],
    ) -> None:  # fmt: skip
        try:
            import vllm
        except ImportError as error:
            raise PolicyError(
                f"policy.sampler has no url, so vLLM is wanted in this process, and it cannot be "
                f"imported ({error}); pip install 'tutelage[vllm]', or set policy.sampler.url"
            ) from error
        self.parameters: Callable[..., Any] = vllm.SamplingParams
        self.end, self.bias = end, dict.fromkeys(unused, NEVER)
        settings: dict[str, object] = {
            "dtype": dtype,
            "max_model_len": context,
            "gpu_memory_utilization": SHARE,
            "seed": 0,
            "enable_prefix_caching": True,
            # nothing of the model's own generation_config.json, such as a top_p
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
        }
        self.llm: Any = vllm.LLM(model=str(folder), **{**settings, **options})
        self.turns: dict[str, Request] = {}
        self.asked = 0

    def submit(self, request: Request) -> None:
        self.asked += 1
        name = f"turn {self.asked}"
        self.turns[name] = request
        settings = self.parameters(
            temperature=request.temperature, max_tokens=request.max_new,
            seed=request.seed % SEEDS, logprobs=0, ignore_eos=True, stop_token_ids=[self.end],
            detokenize=False, logit_bias=self.bias or None,
        )  # fmt: skip
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": list(request.prompt)}, settings)

    def poll(self) -> list[Completion]:
        if not self.turns:
            return []
        return [self._made(out) for out in self.llm.llm_engine.step() if out.finished]

    def _made(self, out: Any) -> Completion:
        request, found = self.turns.pop(out.request_id), out.outputs[0]
        tokens = tuple(found.token_ids)
        logps = [told[t].logprob for t, told in zip(tokens, found.logprobs, strict=True)]
        ended = tokens[-1:] == (self.end,)
        return Completion(key=request.key, tokens=tokens, logps=tuple(logps), ended=ended)

    def refresh(self) -> None:
        self.llm.llm_engine.abort_request(list(self.turns))
        self.turns = {}

    def load(self, folder: Path) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.llm.reset_prefix_cache()

    def logps(self, ids: Ids) -> Tensor:
        settings = self.parameters(temperature=1.0, max_tokens=1, prompt_logprobs=0)
        (out,) = self.llm.generate({"prompt_token_ids": list(ids)}, settings, use_tqdm=False)
        return torch.tensor(_told(ids, out.prompt_logprobs))


def _told(ids: Sequence[int], entries: Sequence[Any]) -> list[float]:
    return [float(entry[t].logprob) for t, entry in zip(ids[1:], entries[1:], strict=True)]
