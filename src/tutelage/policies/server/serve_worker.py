"""The thread that owns a served model: it decodes all requests under way together, and scores prompts
in between.
"""

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample

BESIDE = ("optimizer.safetensors", "acting.safetensors")
"""Files of a run's checkpoint that are not its model."""
TopLogprobs = list[dict[int, tuple[float, int]]]
"""For each token of a prompt but the first: its id and the likeliest ones, with log-probability and
rank; the token itself comes first."""


@dataclass(slots=True)
class Job:
    """One task for the thread that owns the model."""

    request: Request | None = None  # to sample
    prompt: tuple[int, ...] = ()  # to score
    top: int = 0
    weights: Path | None = None  # to load
    answer: "Future[Any]" = field(default_factory=Future)


class Worker(threading.Thread):
    """The thread that owns the policy; no other thread uses it."""

    def __init__(self, policy: HFPolicy) -> None:
        super().__init__(daemon=True)
        self.policy = policy
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.turns: dict[str, Job] = {}

    def do(self, job: Job) -> Any:
        """Queue a job and wait for its answer."""
        self.jobs.put(job)
        return job.answer.result()

    def run(self) -> None:
        while True:
            # with nothing under way, sleep until the next job
            while not self.turns or not self.jobs.empty():
                job = self.jobs.get()
                if job is None:
                    return
                self._begin(job)
            try:
                completions = self.policy.poll()
            except Exception as error:
                # the turns under way are lost, and the model answers again
                self._give_up(error)
                continue
            for completion in completions:
                self.turns.pop(completion.key).answer.set_result(completion)
                self.policy.release(completion.key)

    def _give_up(self, error: Exception) -> None:
        turns, self.turns = self.turns, {}
        for job in turns.values():
            job.answer.set_exception(error)
        self.policy.refresh()

    def _begin(self, job: Job) -> None:
        try:
            if job.request is not None:
                self.policy.submit(job.request)
                self.turns[job.request.key] = job
            elif job.weights is not None:
                job.answer.set_result(self._load(job.weights))
            else:
                job.answer.set_result(self._score(job.prompt, job.top))
        except Exception as error:  # the thread must not die: all clients wait for it
            job.answer.set_exception(error)

    @torch.no_grad()
    def _score(self, ids: tuple[int, ...], top: int) -> TopLogprobs:
        if len(ids) < 2:
            return []
        sample = Sample(prompt=ids[:1], tokens=ids[1:])
        distribution = self.policy.score([sample], 1.0).distribution
        scores: TopLogprobs = []
        for start in range(0, len(distribution), distribution.chunk):
            logps = distribution[start : start + distribution.chunk].logps()
            token = torch.tensor(ids[start + 1 : start + 1 + len(logps)], device=logps.device)
            token_logp = logps.gather(-1, token[:, None])
            rank = (logps > token_logp).sum(-1) + 1
            best = logps.topk(min(top, logps.shape[-1]), -1)
            entries = zip(
                token.tolist(),
                token_logp[:, 0].tolist(),
                rank.tolist(),
                best.indices.tolist(),
                best.values.tolist(),
                strict=True,
            )
            for t, logp, place, best_ids, best_logps in entries:
                ranked = enumerate(zip(best_ids, best_logps, strict=True), 1)
                alternatives = {other: (x, k) for k, (other, x) in ranked if other != t}
                scores.append({t: (logp, place), **alternatives})
        return scores

    @torch.no_grad()
    def _load(self, folder: Path) -> None:
        """Load other weights of the same model from the safetensors of a folder. All of them are
        read and checked before the first is replaced."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        state = self.policy.model.state_dict()
        weights: dict[str, torch.Tensor] = {}
        for path in sorted(folder.glob("*.safetensors")):
            if path.name in BESIDE:
                continue
            try:
                weights |= load_file(path)
            except (OSError, ValueError, SafetensorError) as error:
                raise PolicyError(f"{path} cannot be read ({error})") from error
        for name, value in weights.items():
            if name not in state or state[name].shape != value.shape:
                raise PolicyError(f"{folder} holds {name}, which is not in this model")
            if not value.isfinite().all():
                raise PolicyError(f"{folder} holds {name} with numbers that are not finite")
        # a tied LM head may be in the file once or twice
        given = {state[name].data_ptr() for name in weights}
        if given != {value.data_ptr() for value in state.values()}:
            raise PolicyError(f"{folder} does not hold all weights of this model")
        for name, value in weights.items():
            state[name].copy_(value)
        self.policy.refresh()
