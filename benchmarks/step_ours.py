"""tutelage's side of step.py: the archive as a suite, its models, and a run that steps when told.

    python benchmarks/step_ours.py models FOLDER [--steps 120] [--shape usual] [--device cpu]
    python benchmarks/step_ours.py run WORK MODELS ...

`models` makes a tokenizer and the same model after half and after all of a short imitation of an
expert: a student and a teacher that both call the tool. `run` is started by step.py.
"""

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tools_world as world

from tutelage.types import Observation, Task

SHAPES = {
    "small": {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "ffn": 64, "context": 4096},
    "usual": {"layers": 6, "hidden": 384, "heads": 6, "kv_heads": 2, "ffn": 1024, "context": 4096},
    # Qwen3-0.6B's layers, with heads of 64 instead of 128
    "0.4B": {
        "layers": 28,
        "hidden": 1024,
        "heads": 16,
        "kv_heads": 8,
        "ffn": 3072,
        "context": 4096,
    },
}
ENTRIES = 4096
TASKS = 4096
PEAK_LRS = {"small": 3e-3, "usual": 3e-3, "0.4B": 4e-4}
SURE = 4.0


def worded(text: str) -> str:
    """A tool's answer as the chat template words it."""
    return f"<tool_response>\n{text}\n</tool_response>"


class Stories:
    """The suite: an episode goes on until a message holds no call."""

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=f"story/{k}", data={"task": str(k)}) for k in range(TASKS)]

    def make(self) -> "Story":
        return Story()

    def instructions(self) -> str:
        return world.RULES


class Story:
    def reset(self, task: Task) -> Observation:
        return Observation(text=world.question(int(task.data["task"])))

    def step(self, action: str) -> Observation:
        arguments = world.called(action)
        if arguments is None:
            return Observation(text="That was no call.", done=True, won=False)
        reward = world.worth(arguments)
        return Observation(text=worded(world.answer(arguments)), reward=reward)

    def close(self) -> None:
        pass


# -- the models


def tokenizer() -> Any:
    """A byte-level BPE of the world's own texts, with the marks of messages and calls."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = [world.PAD, world.ROLE, world.END]
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES - len(world.MARKS),
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(world.texts(1500), trainer)
    core.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in world.MARKS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=world.PAD,
        eos_token=world.END,
        additional_special_tokens=[world.ROLE],
    )
    fast.chat_template = world.TEMPLATE
    return fast


def shown(chat: Any, number: int, turns: int) -> Any:
    """An expert's episode."""
    from tutelage.types import Episode, Stop, Turn

    at, observation = world.first(number), Observation(text=world.question(number))
    turns_played = []
    for _ in range(turns):
        text = world.call(at)
        ids = chat.reply(text)
        turns_played.append(
            Turn(
                observation=observation,
                prompt=(),
                text=text,
                tokens=ids,
                logps=(0.0,) * len(ids),
                action=text,
                actor="expert",
            )
        )
        answer, at = world.record(*at)
        observation = Observation(text=worded(answer))
    task = Task(id=f"story/{number}", data={"task": str(number)})
    return Episode(task=task, group=task.id, turns=tuple(turns_played), stop=Stop.TURNS)


def make_models(folder: Path, shape: str, steps: int, turns: int, device: str) -> None:
    """`folder`/student and `folder`/teacher, as transformers saves them."""
    import torch

    from tutelage.algorithms.sft import sft
    from tutelage.cpu import products
    from tutelage.policies.hf.policy import HFPolicy
    from tutelage.policies.hf.tiny import build_model
    from tutelage.prompts.chat_template import Chat
    from tutelage.prompts.context import Context
    from tutelage.prompts.prompter import Prompter
    from tutelage.rollout.session import Clock
    from tutelage.training.train_step import Update, train_step

    encoder = tokenizer()
    chat = Chat(encoder)
    model = build_model(
        entries=chat.size, seed=0, end=chat.end, pad=int(encoder.pad_token_id), **SHAPES[shape]
    )
    policy = HFPolicy(model.to(device), chat)
    prompter = Prompter(chat=chat, context=Context(instructions=world.RULES))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=PEAK_LRS[shape], weight_decay=0.0)
    for step in range(steps):
        rise, fall = (step + 1) / 10, 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = PEAK_LRS[shape] * min(rise, 1.0) * fall
        episodes = [shown(chat, TASKS + 2 * step + k, turns) for k in range(2)]
        with products("bfloat16"):
            report = train_step(
                sft(),
                episodes,
                {"self": policy},
                optimizer,
                lambda view, task: prompter,
                Update(max_tokens_per_pass=2048, device=device),
                step=step,
                seed=0,
                clock=Clock(),
            )
        if step % 10 == 9 or step + 1 == steps:
            print(f"step {step + 1}: {sum(report.losses.values()):.3f}", file=sys.stderr)
        if step == steps * 5 // 6:
            save(policy, folder / "student")
    save(policy, folder / "teacher")


def save(policy: Any, folder: Path) -> None:
    """As sure of every token as at a temperature of 1 / SURE: its calls can be read, and episodes
    have all their turns. Its last norm is the logits' scale."""
    scale = policy.base.norm.weight.data
    scale.mul_(SURE)
    policy.save(folder)
    scale.div_(SURE)


# -- the run


class Paced:
    """A watch that lets the run step only when a line comes in, and says what each step took."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def started(self, config: Any, phase: str, step: int) -> None:
        say({"ready": True})
        self._wait()

    def tested(self, names: Sequence[str]) -> None:
        pass

    def playing(self, done: int, total: int) -> None:
        pass

    def stepped(self, line: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        say(
            {
                "wall": wall,
                "cpu": cpu,
                "generate": seconds.get("generate", 0.0),
                "tokens": line["tokens"],
                "turns": line["turns"],
                "loss": line["loss"],
                "reward": line["return"],
                "peak": peak(),
            }
        )
        self._wait()

    def evaluated(self, line: Mapping[str, Any]) -> None:
        pass

    def warned(self, sentence: str) -> None:
        pass

    def closed(self) -> None:
        pass

    def _wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.wall, self.cpu = time.perf_counter(), time.process_time()


def say(line: Mapping[str, Any]) -> None:
    print(f"@@ {json.dumps(line)}", flush=True)


def peak() -> float:
    """Megabytes that this process held at most; on a GPU, those of its tensors there."""
    import torch

    if torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def run(work: str, models: Path, arguments: argparse.Namespace) -> None:
    import torch
    from pydantic import JsonValue

    from tutelage.config.toml_file import parse
    from tutelage.prompts.chat_template import Chat
    from tutelage.prompts.context import Context
    from tutelage.prompts.prompter import Prompter
    from tutelage.runs.train import train

    torch.set_num_threads(arguments.threads)
    os.environ["TUTELAGE_MATMUL"] = arguments.matmul
    grpo = work == "grpo"
    group_size = min(4, arguments.episodes) if grpo else 1
    algorithm: dict[str, JsonValue] = (
        {"name": "grpo"} if grpo else {"name": "opd", "vocabulary": "full"}
    )
    place: dict[str, JsonValue] = {"device": arguments.device}
    if arguments.device != "cpu":
        place["dtype"] = "bfloat16"
    teacher: dict[str, JsonValue] = (
        {} if grpo else {"teacher": {"model": str(models / "teacher"), **place}}
    )
    with tempfile.TemporaryDirectory() as folder:
        config = parse(
            {
                "run": {
                    "folder": f"{folder}/run",
                    "steps": arguments.steps,
                    "checkpoint_every": arguments.steps,
                },
                "eval": {"every": 0},
                "env": {"suite": "step_ours:Stories", "workers": 0},
                "rollout": {
                    "tasks_per_step": arguments.episodes // group_size,
                    "group_size": group_size,
                    "max_turns": arguments.turns,
                    "max_new_tokens": arguments.new_tokens,
                },
                "algorithm": algorithm,
                "update": {"lr": 1e-5, "max_tokens_per_pass": arguments.tokens},
                "policy": {
                    "model": str(models / "student"),
                    "compile": arguments.compile,
                    **place,
                },
                "policies": teacher,
            }
        )
        from transformers import AutoTokenizer

        chat = Chat(AutoTokenizer.from_pretrained(models / "student"))
        prompter = Prompter(chat=chat, context=Context(instructions=world.RULES))
        one = shown(chat, 0, 2)
        say({"prompt": [list(sample.prompt) for sample in prompter.samples(one)]})
        train(config, watch=Paced())


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True, dest="command")
    models = commands.add_parser("models")
    models.add_argument("folder", type=Path)
    models.add_argument("--steps", type=int, default=120)
    models.add_argument("--turns", type=int, default=10)
    models.add_argument("--shape", choices=SHAPES, default="usual")
    models.add_argument("--device", default="cpu")
    given = commands.add_parser("run")
    given.add_argument("work", choices=["distillation", "grpo"])
    given.add_argument("models", type=Path)
    for name in ("steps", "episodes", "turns", "new-tokens", "threads", "tokens"):
        given.add_argument(f"--{name}", type=int, required=True)
    given.add_argument("--matmul", required=True)
    given.add_argument("--device", required=True)
    given.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "models":
        make_models(
            arguments.folder, arguments.shape, arguments.steps, arguments.turns, arguments.device
        )
    else:
        run(arguments.work, arguments.models, arguments)


if __name__ == "__main__":
    main()
