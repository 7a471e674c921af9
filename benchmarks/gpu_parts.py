"""The measurements of gpu.py, and the models that they are taken on."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from tutelage.algorithms.sft import sft
from tutelage.cli import update_memory
from tutelage.cli.model_sizes import KNOWN, Shape
from tutelage.cli.planned_memory import memory
from tutelage.config.schema import Config, PolicySection
from tutelage.config.toml_file import parse
from tutelage.envs.registry import suite_of
from tutelage.policies.base import Request
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.sampling import draw
from tutelage.policies.hf.tiny import train_tokenizer
from tutelage.policies.packing import PackedSequence, pack
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Prompter
from tutelage.rollout.hint_preparation import Hinter
from tutelage.rollout.play import play
from tutelage.rollout.session import Clock, Session
from tutelage.runs import assemble
from tutelage.runs.phases import phases_of
from tutelage.training.optimizer import adamw
from tutelage.training.train_step import Update, train_step
from tutelage.types import Episode, Observation, Stop, Task, Turn

TINY = Shape(
    vocab=4096,
    hidden=64,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=32,
    ffn=128,
    context=4096,
    tied=True,
    qk_norm=True,
)
REAL = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B")
SHAPES = {**{name: KNOWN[name] for name in REAL}, "tiny": TINY}
PUBLISHED = "63 to 128 episodes an hour and card: the SDAR stack on A100s"
GOAL = 0.45
"""Of the bfloat16 limit, on packed rows at 1.7B."""
WARM = 16
"""Tokens of a turn before the clock runs: its prompts are read, and steps recorded, by then."""
Line = dict[str, Any]


class Wide(Chat):
    """A chat with a small tokenizer, of a model whose vocabulary is larger: what is sampled beyond
    the tokenizer has no text."""

    entries: int

    @property
    def size(self) -> int:
        return self.entries


def chat_of(shape: Shape, texts: Sequence[str]) -> Wide:
    chat = Wide(train_tokenizer(texts, entries=1024))
    object.__setattr__(chat, "entries", shape.vocab)
    return chat


def model_of(
    shape: Shape, end: int, device: str, dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    """A model of the Qwen family with random weights, in one dtype."""
    import transformers

    kind = "Qwen3Moe" if shape.experts else "Qwen2" if shape.qkv_bias else "Qwen3"
    mixture = {
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.active,
        "moe_intermediate_size": shape.ffn,
    }
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.ffn,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.context,
        bos_token_id=None,
        eos_token_id=end,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        **({} if shape.qkv_bias else {"head_dim": shape.head_dim}),
        **(mixture if shape.experts else {}),
    )
    usual = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):  # billions of numbers are drawn slowly on a processor
            model: torch.nn.Module = getattr(transformers, f"{kind}ForCausalLM")(config)
    finally:
        torch.set_default_dtype(usual)
    return model


def policy_of(shape: Shape, chat: Chat, device: str, **settings: Any) -> HFPolicy:
    """Random weights in a model's own shape."""
    model = model_of(shape, chat.end, device)
    return HFPolicy(model.eval(), chat, dtype="bfloat16", **settings)


# -- the clock and the limits


def settled(device: str) -> float:
    """The time when the device has nothing left to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def give_back(device: str) -> None:
    """The memory of models that nothing names any more: a policy and its engine name each other, so
    Python frees them when it looks for such circles, which it may not do before the next model."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def timed(work: Callable[[], object], device: str, repeats: int, until: float) -> list[float]:
    """Seconds of some repeats: fewer where the time is over, at least one."""
    taken: list[float] = []
    while not taken or (len(taken) < repeats and time.perf_counter() < until):
        since = settled(device)
        work()
        taken.append(settled(device) - since)
    return taken


def spread(values: Sequence[float]) -> list[float]:
    """Median, least, most."""
    return [rounded(x) for x in (statistics.median(values), min(values), max(values))]


def rounded(value: float) -> float:
    """To four digits, which say enough of a time."""
    return float(f"{value:.4g}")


class Limits(NamedTuple):
    bandwidth: float  # bytes a second
    product: float  # operations a second


def limits_of(device: str) -> Limits:
    """What the device reaches on one large copy and one large product: the best of some."""
    card = device.startswith("cuda")
    size, edge = (1 << 30, 8192) if card else (1 << 25, 512)
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a = torch.randn(edge, edge, device=device).bfloat16()
    b = torch.randn(edge, edge, device=device).bfloat16()
    end = time.perf_counter() + 10
    copying = timed(lambda: target.copy_(source), device, 20, end)
    timed(lambda: a @ b, device, 5, end)
    products = timed(lambda: a @ b, device, 20, end)
    return Limits(bandwidth=2 * size / min(copying), product=2 * edge**3 / min(products))


class Job(NamedTuple):
    """What every part is given."""

    name: str  # of the shape
    shape: Shape
    limits: Limits
    arguments: argparse.Namespace
    until: float  # the part's end

    @property
    def device(self) -> str:
        return str(self.arguments.device)

    @property
    def tiny(self) -> bool:
        return bool(self.arguments.tiny)


# -- decoding


def decode(job: Job, batch: int) -> Line:
    """Tokens of a turn that every row of a batch is in. The policy is frozen, as a teacher is: a
    student acts with the same kernels."""
    repeats, each = job.arguments.repeats, 4 if job.tiny else 20
    prompt = 64 if job.tiny else 256
    chat = chat_of(job.shape, ["a b c"])
    policy = policy_of(job.shape, chat, job.device, slots=batch)
    policy.freeze()
    random = torch.Generator().manual_seed(0)
    for k in range(batch):
        ids = torch.randint(3, job.shape.vocab, (prompt,), generator=random).tolist()
        policy.submit(
            Request(key=str(k), prompt=tuple(ids), seed=k, max_new=2 * WARM + each * repeats)
        )
    while policy.engine.waiting:  # type: ignore[attr-defined]  # rows that are not in a turn yet
        policy.poll()
    for _ in range(WARM):
        policy.poll()
    ended = 0

    def some() -> None:
        nonlocal ended
        for _ in range(each):
            ended += len(policy.poll())

    taken = timed(some, job.device, repeats, job.until)
    policy.refresh()
    held = prompt + WARM + each * len(taken) // 2
    moved = 2 * job.shape.parameters() + batch * job.shape.cache(held, 2)
    limit = batch * job.limits.bandwidth / moved
    rate = spread([batch * each / seconds for seconds in taken])
    return {
        "batch": batch,
        "prompt": prompt,
        "tokens_per_second": rate,
        "limit": rounded(limit),
        "share": rounded(rate[0] / limit),
        "ended": ended,
        "repeats": len(taken),
    }


# -- prompts


def prefilled(policy: HFPolicy) -> None:
    """Poll until every waiting prompt has been read."""
    while policy.engine.waiting:  # type: ignore[attr-defined]
        policy.poll()


def prefill(job: Job, rows: int) -> Line:
    """First prompts of 256 tokens, all different."""
    length = 32 if job.tiny else 256
    policy = policy_of(job.shape, chat_of(job.shape, ["a b c"]), job.device, slots=rows)
    policy.freeze()
    random, keys = torch.Generator().manual_seed(0), iter(range(1 << 30))

    def some() -> None:
        for _ in range(rows):
            ids = torch.randint(3, job.shape.vocab, (length,), generator=random).tolist()
            policy.submit(Request(key=str(next(keys)), prompt=tuple(ids), seed=0, max_new=8))
        prefilled(policy)
        policy.refresh()

    some()
    taken = timed(some, job.device, job.arguments.repeats, job.until)
    return {
        "rows": rows,
        "new_tokens": length,
        "cached_tokens": 0,
        "seconds": spread(taken),
        "repeats": len(taken),
    }


def turn(job: Job, rows: int) -> Line:
    """A turn's 60 new tokens after 1,100 that are cached."""
    cached, new = (64, 8) if job.tiny else (1100, 60)
    policy = policy_of(job.shape, chat_of(job.shape, ["a b c"]), job.device, slots=rows)
    policy.freeze()
    random = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, job.shape.vocab, (count,), generator=random).tolist())

    held = {str(k): ids(cached) for k in range(rows)}

    def ask() -> None:
        for key, prompt in held.items():
            policy.submit(Request(key=key, prompt=prompt, seed=0, max_new=1))
        done = 0
        while done < rows:
            done += len(policy.poll())

    def again() -> None:
        for key in held:
            held[key] = (*held[key], *ids(new))
        ask()

    ask()
    again()
    taken = timed(again, job.device, job.arguments.repeats, job.until)
    return {
        "rows": rows,
        "new_tokens": new,
        "cached_tokens": cached,
        "seconds": spread(taken),
        "repeats": len(taken),
    }


def sampling(job: Job, batch: int) -> Line:
    """A token from each row of logits."""
    logits = torch.randn(batch, job.shape.vocab, device=job.device) * 3
    temperature = torch.ones(batch, device=job.device)
    uniform = torch.rand(batch, dtype=torch.float64, device=job.device)

    def some() -> None:
        for _ in range(10):
            draw(logits, temperature, uniform)

    some()
    taken = timed(some, job.device, 4 * job.arguments.repeats, job.until)
    return {
        "batch": batch,
        "entries": job.shape.vocab,
        "repeats": len(taken),
        "milliseconds": spread([100 * seconds for seconds in taken]),
    }


# -- learning


def episode(chat: Chat, number: int, length: int, vocab: int) -> Episode:
    """Turns of 32 words and 96 sampled ids, until there are about so many tokens."""
    random = torch.Generator().manual_seed(number)
    turns = []
    for _ in range(max(1, length // 130)):
        ids = tuple(torch.randint(3, vocab, (96,), generator=random).tolist())
        turns.append(
            Turn(
                observation=Observation(text="a b " * 16),
                prompt=(),
                text="",
                tokens=ids,
                logps=(0.0,) * len(ids),
            )
        )
    task = Task(id=str(number))
    return Episode(task=task, group=task.id, turns=tuple(turns), stop=Stop.TURNS)


def operations(shape: Shape, rows: Sequence[PackedSequence]) -> float:
    """Forward and backward of rows, nothing twice: 2 for a weight and token forward, attention
    over half of a row on average, and twice that backward."""
    forward = 0.0
    for row in rows:
        count, learnt = len(row.ids), len(row.flat)
        forward += 2 * shape.linear() * count + 2 * shape.vocab * shape.hidden * learnt
        forward += 2 * shape.layers * shape.heads * shape.head_dim * count**2
    return 3 * forward


class Saved(NamedTuple):
    """What a model has to do without, to be trained here."""

    recompute: bool
    offload: bool


def section(recompute: bool) -> PolicySection:
    return PolicySection(model="any", dtype="bfloat16", gradient_checkpointing=recompute)


def saved_of(job: Job, tokens: int, beside: float = 0.0) -> Saved:
    """So that learning in passes of so many tokens takes nine tenths of the card's memory, less
    the bytes of what else is there."""
    if not job.device.startswith("cuda"):
        return Saved(recompute=False, offload=False)
    room, state = 0.9 * memory()[0] - beside, 16 * job.shape.parameters()
    if state + update_memory.beside(job.shape, section(False), tokens, gpu=True) < room:
        return Saved(recompute=False, offload=False)
    saved = update_memory.beside(job.shape, section(True), tokens, gpu=True)
    return Saved(recompute=True, offload=state + saved >= room)


def learner(job: Job, saved: Saved, chat: Chat, tokens: int, rows: int = 1) -> HFPolicy:
    return policy_of(
        job.shape,
        chat,
        job.device,
        slots=rows,
        tokens=tokens,
        gradient_checkpointing=saved.recompute,
        compiled=job.arguments.compile,
    )


def optimizer_of(policy: HFPolicy, saved: Saved) -> torch.optim.Optimizer:
    return adamw(
        policy.parameters(), lr=1e-6, betas=(0.9, 0.999), weight_decay=0.0, offload=saved.offload
    )


def memory_of(job: Job, predicted: float) -> Line:
    """Most of a GPU's memory that was taken, beside what the dry run's formula says."""
    if not job.device.startswith("cuda"):
        return {}
    measured = torch.cuda.max_memory_allocated()
    return {"gb_predicted": rounded(predicted / 1e9), "gb_measured": rounded(measured / 1e9)}


def train(job: Job, length: int) -> Line:
    tokens = length * (2 if job.tiny else 4)  # of a pass
    saved, chat = saved_of(job, tokens), chat_of(job.shape, ["a b c"])
    policy = learner(job, saved, chat, tokens)
    optimizer = optimizer_of(policy, saved)
    prompter = Prompter(chat=chat, context=Context())
    count = 4 if job.tiny else 32
    episodes = [episode(chat, k, length, job.shape.vocab) for k in range(count)]
    rows = [row for e in episodes for row in pack(prompter.samples(e))]

    def step() -> None:
        train_step(
            sft(),
            episodes,
            {"self": policy},
            optimizer,
            lambda view, task: prompter,
            Update(max_tokens_per_pass=tokens, device=job.device),
            step=0,
            seed=0,
            clock=Clock(),
        )

    if job.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    step()
    taken = timed(step, job.device, job.arguments.repeats, job.until)
    read, done = sum(len(row.ids) for row in rows), operations(job.shape, rows)
    rate = spread([done / seconds for seconds in taken])
    predicted = update_memory.beside(job.shape, section(saved.recompute), tokens, gpu=True)
    predicted += (8 if saved.offload else 16) * job.shape.parameters()
    return {
        **memory_of(job, predicted),
        "rows": len(rows),
        "row_tokens": read // len(rows),
        "pass_tokens": tokens,
        **saved._asdict(),
        "compile": job.arguments.compile,
        "tokens_per_second": spread([read / seconds for seconds in taken]),
        "teraflops": rounded(rate[0] / 1e12),
        "limit_teraflops": rounded(job.limits.product / 1e12),
        "utilisation": [rounded(value / job.limits.product) for value in rate],
        "goal": GOAL,
        "repeats": len(taken),
    }


# -- a whole step


def config_of(job: Job) -> Config:
    """sdar on ALFWorld's tasks: 16 of them, 8 episodes each, which know the plan as teachers."""
    a, tiny = job.arguments, job.tiny
    return parse(
        {
            "run": {"steps": 1},
            "env": {"suite": "household", "options": {"size": "small" if tiny else "full"}},
            "context": (
                {"history": 2, "render": "actions"} if a.context == "window" else {"history": "all"}
            ),
            "rollout": {
                "tasks_per_step": 2 if tiny else 16,
                "group_size": 2 if tiny else 8,
                "max_turns": 3 if tiny else a.turns,
                "max_new_tokens": 8 if tiny else a.new_tokens,
                "concurrency": 128,
            },
            "algorithm": {"name": "sdar", "hint": "skills"},
            "update": {"lr": 1e-6, "max_tokens_per_pass": 8192},
            "policy": {"model": "builtin:household-teacher"},  # in whose place a larger one is put
        }
    )


def stage_of(job: Job, config: Config, saved: Saved) -> Session:
    suite, tokens = suite_of(config.env), config.update.max_tokens_per_pass
    context = assemble.context_of(config.context, suite)
    policy = learner(job, saved, chat_of(job.shape, [context.instructions]), tokens, rows=128)
    session = Session(
        suite,
        {"self": policy, "reference": policy.copied()},
        pool=assemble.pool_of(config.env, suite),
        context=context,
        limits=assemble.limits_of(config),
        hints=assemble.hints_of(config, suite, phases_of(config)),
    )
    return replace(session, ready=Hinter(session=session, seed=0))


def step(job: Job, episodes: int) -> Line:
    """The repeats are whole steps: play, scores under every view, update."""
    config = config_of(job)
    algorithm = phases_of(config)[-1].algorithm
    # the copy that acts, the reference, and what keys and values may take
    beside = 4 * job.shape.parameters() + memory()[0] / 3
    saved = saved_of(job, config.update.max_tokens_per_pass, beside)
    session = stage_of(job, config, saved)
    policy = session.policies["self"]
    assert isinstance(policy, HFPolicy)
    optimizer = optimizer_of(policy, saved)
    update = assemble.update_of(config, job.device)
    tasks = assemble.tasks_of(
        session.suite, config.env.split, config.rollout.tasks_per_step, where="env"
    )
    turns: list[Turn] = []

    def whole(count: int) -> None:
        played = play(
            session, tasks[:count], algorithm, seed=0, group_size=config.rollout.group_size
        )
        samples = [mixed(e, k) for k, e in enumerate(played)]
        turns[:] = [turn for e in samples for turn in e.turns]
        train_step(
            algorithm,
            samples,
            session.policies,
            optimizer,
            session.prompter,
            update,
            step=0,
            seed=0,
            clock=session.clock,
        )

    try:
        whole(1)
        session.clock.restart()
        work = partial(whole, episodes // config.rollout.group_size)
        taken = timed(work, job.device, job.arguments.repeats, job.until)
    finally:
        session.pool.shutdown()
    return {
        "episodes": episodes,
        "context": config.context.history,
        **saved._asdict(),
        "compile": job.arguments.compile,
        "turns": len(turns),
        "action_tokens": sum(len(turn.tokens) for turn in turns),
        "episodes_per_hour": spread([3600 * episodes / seconds for seconds in taken]),
        "seconds": spread(taken),
        "published": PUBLISHED,
        "repeats": len(taken),
        "share": {name: rounded(s / sum(taken)) for name, s in session.clock.seconds.items()},
    }


def mixed(episode: Episode, number: int) -> Episode:
    """Half of a group's episodes with a reward: nobody wins with random weights, and where returns
    do not differ there is nothing to learn from, nor anything to compute."""
    if not episode.turns or number % 2:
        return episode
    last = replace(episode.turns[-1], reward=1.0)
    return replace(episode, turns=(*episode.turns[:-1], last))


CASES: Mapping[str, tuple[Callable[[Job, int], Line], Sequence[int], Sequence[int]]] = {
    "decode": (decode, (1, 32, 128, 256), (1, 4)),
    "prefill": (prefill, (128,), (2,)),
    "turn": (turn, (64,), (2,)),
    "sampling": (sampling, (128,), (4,)),
    "train": (train, (2048,), (260,)),
    "step": (step, (128,), (4,)),
}
"""By part: the function, its cases (a batch, a row's length, episodes), and the tiny ones."""
