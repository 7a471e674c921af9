"""Peers of gpu_parts.py on the same work: transformers' own `generate`, and a plain training loop.

Both take the same shapes, weights, rows and counts of operations as the parts beside which they are
measured, so that a ratio compares two ways of doing one thing on one card in one run.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from gpu_parts import (
    Job,
    Line,
    chat_of,
    episode,
    model_of,
    operations,
    rounded,
    spread,
    timed,
)

from tutelage.policies.packing import PackedSequence, pack
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Prompter

IGNORED = -100
"""transformers' label of a token that is not learnt."""


# -- decoding


@torch.no_grad()
def generate(job: Job, batch: int, *, cache: str = "dynamic") -> Line:
    """Tokens of `generate` after its prompts are read: a call for many tokens less one for one.

    cache  transformers' name of its kind of cache; it compiles the decode step of a "static" one
    """
    prompt, count = (64, 4) if job.tiny else (256, 64)
    model: Any = model_of(job.shape, 2, job.device, torch.bfloat16).eval()
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(3, job.shape.vocab, (batch, prompt), generator=random).to(job.device)

    def ask(tokens: int) -> None:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            cache_implementation=cache,
        )

    for tokens in (1, 1 + count):  # both are compiled before the clock runs
        ask(tokens)
    repeats, first, many = job.arguments.repeats, list[float](), list[float]()
    while not many or (len(many) < repeats and time.perf_counter() < job.until):
        first += timed(partial(ask, 1), job.device, 1, job.until)
        many += timed(partial(ask, 1 + count), job.device, 1, job.until)
    read = statistics.median(first)
    rate = spread([batch * count / max(1e-9, seconds - read) for seconds in many])
    moved = 2 * job.shape.parameters() + batch * job.shape.cache(prompt + count // 2, 2)
    limit = batch * job.limits.bandwidth / moved
    return {
        "batch": batch,
        "prompt": prompt,
        "cache": cache,
        "tokens_per_second": rate,
        "limit": rounded(limit),
        "share": rounded(rate[0] / limit),
        "seconds_of_the_prompts": spread(first),
        "repeats": len(many),
    }


# -- learning


def plain_train(job: Job, length: int) -> Line:
    """The rows of `train`, learnt by transformers' model as its documentation shows: float32
    weights under autocast, its own loss over padded rows, torch's fused AdamW."""
    at_once = 2 if job.tiny else 4
    chat = chat_of(job.shape, ["a b c"])
    prompter = Prompter(chat=chat, context=Context())
    episodes = [episode(chat, k, length, job.shape.vocab) for k in range(4 if job.tiny else 32)]
    rows = [row for each in episodes for row in pack(prompter.samples(each))]
    model: Any = model_of(job.shape, chat.end, job.device)
    card = job.device.startswith("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=card)

    def step() -> None:
        for k in range(0, len(rows), at_once):
            ids, labels = padded(rows[k : k + at_once])
            ids, labels = ids.to(job.device), labels.to(job.device)
            with torch.autocast(torch.device(job.device).type, torch.bfloat16):
                loss = model(ids, labels=labels, use_cache=False).loss
            (loss * at_once / len(rows)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if card:
        torch.cuda.reset_peak_memory_stats()
    step()
    taken = timed(step, job.device, job.arguments.repeats, job.until)
    read, done = sum(len(row.ids) for row in rows), operations(job.shape, rows)
    rate = spread([done / seconds for seconds in taken])
    peak = {"gb_measured": rounded(torch.cuda.max_memory_allocated() / 1e9)} if card else {}
    return {
        **peak,
        "rows": len(rows),
        "row_tokens": read // len(rows),
        "pass_tokens": at_once * max(len(row.ids) for row in rows),
        "tokens_per_second": spread([read / seconds for seconds in taken]),
        "utilisation": [rounded(value / job.limits.product) for value in rate],
        "repeats": len(taken),
    }


def padded(rows: Sequence[PackedSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels [rows, longest]; padding stands on the right, where causal attention leaves
    what comes before it alone."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for k, row in enumerate(rows):
        tokens = torch.tensor(row.ids)
        ids[k, : len(row.ids)] = tokens
        at = torch.tensor(row.positions)
        labels[k, at] = tokens[at]
    return ids, labels


PEERS: Mapping[str, tuple[Callable[[Job, int], Line], Sequence[int], Sequence[int]]] = {
    "generate": (generate, (1, 32, 128, 256), (1, 4)),
    "generate_static": (partial(generate, cache="static"), (1, 32, 128), (2,)),
    "plain_train": (plain_train, (2048,), (260,)),
}
"""As gpu_parts.CASES: the function, its cases, and the tiny ones."""
