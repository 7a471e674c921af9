"""As much of vLLM as is used here, in the shapes of version 0.32, over the model that transformers
loads from the same folder: what it samples and scores is known exactly.

It is as strict as vLLM where that matters: settings it does not know are an error, numbers are at
temperature 1 unless `logprobs_mode` says otherwise, and what is cached of a prompt stays, even when
the weights change, until the cache is reset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

Prompt = Mapping[str, list[int]]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    stop_token_ids: list[int] = field(default_factory=list)
    detokenize: bool = True
    logit_bias: Mapping[int, float] | None = None


class Logprob(NamedTuple):
    logprob: float


@dataclass
class CompletionOutput:
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)


@dataclass
class RequestOutput:
    request_id: str
    prompt: list[int]
    params: SamplingParams
    chance: torch.Generator
    outputs: list[CompletionOutput] = field(default_factory=lambda: [CompletionOutput()])
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    finished: bool = False


class LLM:
    """`given` are the settings of the last that was made. `drift`, in nats, is added to what is
    told of sampled tokens: a sampler that is not the trainer."""

    given: Mapping[str, Any] = {}
    drift = 0.0

    def __init__(
        self,
        *,
        model: str,
        dtype: str,
        max_model_len: int,
        seed: int,
        enable_prefix_caching: bool = True,
        generation_config: str = "auto",
        logprobs_mode: str = "raw_logprobs",
        disable_log_stats: bool = False,
        gpu_memory_utilization: float = 0.92,
        enforce_eager: bool = False,
    ) -> None:
        LLM.given = {k: v for k, v in locals().items() if k != "self"}
        self.context, self.processed = max_model_len, logprobs_mode == "processed_logprobs"
        self.cache: dict[tuple[int, ...], Tensor] = {}
        self.running: dict[str, RequestOutput] = {}
        self.dtype = getattr(torch, dtype)
        self.llm_engine = self
        self._read(model)

    def _read(self, folder: str) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype).eval()

    # -- weights

    def collective_rpc(self, method: str, *, kwargs: Mapping[str, Any]) -> list[None]:
        assert method == "reload_weights"
        self._read(kwargs["weights_path"])
        return [None]

    def reset_prefix_cache(self) -> bool:
        self.cache = {}
        return True

    # -- numbers

    @torch.no_grad()
    def _logits(self, ids: tuple[int, ...]) -> Tensor:
        if ids not in self.cache:
            self.cache[ids] = self.model(torch.tensor([ids])).logits[0, -1].float()
        return self.cache[ids]

    def _one(self, out: RequestOutput) -> None:
        result, params = out.outputs[0], out.params
        logits = self._logits((*out.prompt, *result.token_ids)).clone()
        for entry, more in (params.logit_bias or {}).items():
            logits[entry] += more
        heated = logits / (params.temperature or 1.0)
        greedy = params.temperature == 0
        drawn = torch.multinomial(heated.softmax(-1), 1, generator=out.chance)
        token = int(logits.argmax() if greedy else drawn)
        output = (heated if self.processed else logits).log_softmax(-1)
        result.token_ids.append(token)
        if params.logprobs == 0:
            result.logprobs.append({token: Logprob(float(output[token]) + self.drift)})
        assert params.ignore_eos, "a stop at the model's own end was not switched off"
        stops = token in params.stop_token_ids
        out.finished = stops or len(result.token_ids) == params.max_tokens

    # -- llm_engine

    def add_request(self, request_id: str, prompt: Prompt, params: SamplingParams) -> None:
        ids = prompt["prompt_token_ids"]
        assert request_id not in self.running
        assert len(ids) + params.max_tokens <= self.context
        chance = torch.Generator().manual_seed(params.seed or 0)
        self.running[request_id] = RequestOutput(request_id, ids, params, chance)

    def step(self) -> list[RequestOutput]:
        """One token of every request."""
        results = list(self.running.values())
        for out in results:
            self._one(out)
        self.running = {k: out for k, out in self.running.items() if not out.finished}
        return results

    def abort_request(self, request_ids: list[str]) -> None:
        for name in request_ids:
            self.running.pop(name, None)

    # -- offline

    def generate(
        self, prompts: Prompt, params: SamplingParams, *, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        assert not use_tqdm, "a bar was drawn"
        assert not self.running, "turns under way would be lost"
        ids = prompts["prompt_token_ids"]
        out = RequestOutput("0", ids, params, torch.Generator())
        if params.prompt_logprobs == 0:
            # those are never read from the cache
            with torch.no_grad():
                output = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
            out.prompt_logprobs = [None]
            for row, token in zip(output, ids[1:], strict=False):
                out.prompt_logprobs.append({token: Logprob(float(row[token]))})
        return [out]


def module() -> Any:
    result: Any = ModuleType("vllm")
    result.LLM, result.SamplingParams = LLM, SamplingParams
    return result
