"""vLLM as the sampler of an `HFPolicy`: in this process or on servers, with weight updates.

`VllmEngine` replaces the policy's own generation engine; training is unchanged. When the weights
have changed they are written to a folder, which vLLM reads, and a fixed sequence must then score
alike on both sides before anything is sampled. The check is needed because a reload that misses a
part of the model (seen in vLLM 0.32 on a CPU, with an output head tied to the embeddings) raises no
error. A server that lost them since, because it was started again, is given them once more.
"""

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tutelage.errors import ConfigError, PolicyError, install
from tutelage.policies.base import Completion, Dtype, Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.server.vllm_api import SEEDS
from tutelage.policies.server.vllm_server import WeightsLost
from tutelage.prompts.prompter import Ids, Sample

PROBE_TOKENS = 32
"""Length of the sequence on which both sides must agree after a weight update."""
MAX_PROBE_DIFFERENCE: dict[Dtype, float] = {"float32": 0.01, "bfloat16": 0.2}
"""Mean difference in nats that rounding explains."""
GPU_MEMORY_SHARE = 0.35
"""Fraction of GPU memory for vLLM in this process: the trainer uses the same GPU."""
FORBIDDEN_BIAS = -100.0
"""Logit bias of tokens that must not be sampled: the least that vLLM accepts."""
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MAX_RESTORED = 3
"""Times that a sampler may lose the weights of one hand-over."""


class Sampler(Protocol):
    """vLLM in either place: samples, scores, and loads weights from a folder."""

    name: str  # in error messages

    def submit(self, request: Request) -> None: ...
    def poll(self) -> list[Completion]: ...
    def refresh(self) -> None: ...
    def load(self, folder: Path) -> None: ...
    def logps(self, ids: Ids) -> Tensor: ...  # of ids[1:], at temperature 1


class VllmEngine:
    """The engine of an `HFPolicy` whose turns `samplers` sample, with the policy's current weights.

    Of several samplers an episode stays with one, whose prefix cache then holds its earlier turns.

    folder   through which weights are passed; all sides must see it
    written  whether they are: samplers that are sent their weights read no folder, and take its name
             as the run's
    """

    fix = (
        "serve the student's own model with --dtype {dtype}, use another version of vLLM, or leave "
        "the sampler out"
    )
    """What a user can do about a sampler that computes something else."""

    def __init__(
        self, policy: HFPolicy, samplers: Sequence[Sampler], *, folder: Path, written: bool = True
    ) -> None:
        self.policy, self.samplers, self.folder, self.written = policy, samplers, folder, written
        self.loaded: tuple[int, ...] = ()
        self.expected = torch.empty(0)  # the trainer's log-probabilities of the probe
        self.restored: Counter[str] = Counter()  # by sampler, since the last hand-over
        self.notes: list[str] = []

    def submit(self, request: Request) -> None:
        # by the episode's name, not by who is free: which episodes are computed beside each other
        # must not depend on how fast a server answers
        place = zlib.crc32(request.key.encode()) % len(self.samplers)
        self.samplers[place].submit(request)

    def poll(self) -> list[Completion]:
        found: list[Completion] = []
        for sampler in self.samplers:
            try:
                found += sampler.poll()
            except WeightsLost as lost:
                self._restore(sampler)
                lost.sampler.submit_again()
        return found

    def release(self, key: str) -> None:
        """Does nothing: vLLM evicts what it cached of an episode when it needs the space."""

    def refresh(self) -> None:
        """Drop the turns under way and load the policy's weights if they have changed."""
        for sampler in self.samplers:
            sampler.refresh()
        version = self.policy.version()
        if version == self.loaded:
            return
        self.loaded = ()
        if self.written:
            self._write()
        with ThreadPoolExecutor(len(self.samplers)) as pool:  # servers load at the same time
            list(pool.map(lambda sampler: sampler.load(self.folder), self.samplers))
        self.expected = self._trainer_logps()
        for sampler in self.samplers:
            self._check_agreement(sampler)
        self.restored.clear()
        self.loaded = version

    def new_notes(self) -> list[str]:
        """What there is to say since the last call."""
        notes, self.notes = self.notes, []
        return notes

    def _restore(self, sampler: Sampler) -> None:
        self.restored[sampler.name] += 1
        if self.restored[sampler.name] > MAX_RESTORED:
            raise PolicyError(
                f"{sampler.name} has lost its weights {MAX_RESTORED + 1} times since they were "
                "handed over: it is started again and again, or another run loads weights into "
                "it; look at its log, and give every run servers of its own"
            )
        sampler.load(self.folder)
        self._check_agreement(sampler)
        self.notes.append(
            f"{sampler.name} had lost its weights, as a server that was started again has; they "
            "were loaded once more, and the turns under way were sampled again"
        )

    def _write(self) -> None:
        write(self.policy, self.folder)

    def _probe(self) -> Ids:
        size = self.policy.chat.size
        return tuple(k * (size - 1) // (PROBE_TOKENS - 1) for k in range(PROBE_TOKENS))

    @torch.no_grad()
    def _trainer_logps(self) -> Tensor:
        ids = self._probe()
        sample = Sample(prompt=ids[:1], tokens=ids[1:])
        return self.policy.score([sample], 1.0).logp.float().cpu()

    def _check_agreement(self, sampler: Sampler) -> None:
        limit = MAX_PROBE_DIFFERENCE[self.policy.dtype]
        difference = float((self.expected - sampler.logps(self._probe())).abs().mean())
        if not difference <= limit:
            raise PolicyError(
                f"after a weight update, {sampler.name} and the trainer differ by "
                f"{difference:.3g} nats a token (at most {limit:g} is rounding), so it would "
                f"sample from another model; {self.fix.format(dtype=self.policy.dtype)}"
            )


def new_sampler_notes(policy: object) -> list[str]:
    """What there is to say of a policy's samplers, each once."""
    engine = getattr(policy, "engine", None)
    return engine.new_notes() if isinstance(engine, VllmEngine) else []


def write(policy: HFPolicy, folder: Path) -> None:
    """Write all weights as safetensors, atomically: a reader sees the old file or the new one.
    Low-rank adapters are merged into the weights of their base.

    They are written in the dtype that the policy computes in. vLLM would round float32 weights
    itself, so nothing is lost, and half the bytes are written and read.
    """
    from safetensors.torch import save_file

    # a tied LM head is written a second time: a reload may not follow the tie
    to = DTYPES[policy.dtype]
    tensors = {
        name: value.detach().to("cpu", to, copy=True).contiguous()
        for name, value in policy.weights()
    }
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / ".model.safetensors"
    save_file(tensors, draft, metadata={"format": "pt"})
    os.replace(draft, folder / "model.safetensors")


def begin(policy: HFPolicy, folder: Path) -> None:
    """Write a model that vLLM can start from; the same as `write` from then on."""
    # piece by piece: a folder of adapters would name the base instead of holding its weights, and
    # transformers saves a whole model on rank 0 alone
    config = policy.model.config
    config.architectures = config.architectures or [type(policy.model).__name__]
    for part in (config, policy.model.generation_config, policy.chat.tokenizer):
        if part is not None:
            part.save_pretrained(folder)
    write(policy, folder)


class LocalSampler:
    """vLLM in this process; needs the extra `vllm`.

    folder   the initial model, as save_pretrained writes it
    unused   ids that the model embeds but the tokenizer does not know: they are never sampled
    options  further arguments of vllm.LLM, such as gpu_memory_utilization (default 0.35)
    """

    name = "policy.sampler"

    def __init__(
        self,
        folder: Path,
        *,
        ends: Sequence[int],
        context: int,
        dtype: Dtype,
        unused: Iterable[int],
        options: Mapping[str, object],
    ) -> None:
        try:
            import vllm
        except ImportError as error:
            raise PolicyError(
                f"policy.sampler has no url, so vLLM must run in this process, but it cannot be "
                f"imported ({error}); {install('vllm')}, or set policy.sampler.url"
            ) from error
        self.parameters: Callable[..., Any] = vllm.SamplingParams
        self.ends, self.bias = tuple(ends), dict.fromkeys(unused, FORBIDDEN_BIAS)
        settings: dict[str, object] = {
            "dtype": dtype,
            "max_model_len": context,
            "gpu_memory_utilization": GPU_MEMORY_SHARE,
            "seed": 0,
            "enable_prefix_caching": True,
            # ignore the model's own generation_config.json, which may set a top_p
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
        }
        if options.get("trust_remote_code"):
            raise ConfigError(
                "policy.sampler.options.trust_remote_code would run code from a model's folder, "
                "which is never done here; leave it out"
            )
        self.llm: Any = vllm.LLM(model=str(folder), **{**settings, **options})
        self.turns: dict[str, Request] = {}
        self.count = 0

    def submit(self, request: Request) -> None:
        self.count += 1
        name = f"turn {self.count}"
        self.turns[name] = request
        settings = self.parameters(
            temperature=request.temperature,
            max_tokens=request.max_new,
            seed=request.seed % SEEDS,
            logprobs=0,
            ignore_eos=True,
            stop_token_ids=list(self.ends),
            detokenize=False,
            logit_bias=self.bias or None,
        )
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": list(request.prompt)}, settings)

    def poll(self) -> list[Completion]:
        if not self.turns:
            return []
        return [self._completion(out) for out in self.llm.llm_engine.step() if out.finished]

    def _completion(self, out: Any) -> Completion:
        request, output = self.turns.pop(out.request_id), out.outputs[0]
        tokens = tuple(output.token_ids)
        logps = [entry[t].logprob for t, entry in zip(tokens, output.logprobs, strict=True)]
        ended = tokens[-1] in self.ends
        return Completion(key=request.key, tokens=tokens, logps=tuple(logps), ended=ended)

    def refresh(self) -> None:
        self.llm.llm_engine.abort_request(list(self.turns))
        self.turns = {}

    def load(self, folder: Path) -> None:
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        if self.llm.reset_prefix_cache() is False:
            raise PolicyError(
                f"{self.name} could not clear its prefix cache, so it would go on from what the "
                "old weights computed; use another version of vLLM, or leave the sampler out"
            )

    def logps(self, ids: Ids) -> Tensor:
        settings = self.parameters(temperature=1.0, max_tokens=1, prompt_logprobs=0)
        (out,) = self.llm.generate({"prompt_token_ids": list(ids)}, settings, use_tqdm=False)
        return torch.tensor(_logps(ids, out.prompt_logprobs))


def _logps(ids: Sequence[int], entries: Sequence[Any]) -> list[float]:
    return [float(entry[t].logprob) for t, entry in zip(ids[1:], entries[1:], strict=True)]
