"""TRL's side of step.py, run with TRL's own Python: a trainer that steps when told.

GRPOTrainer with `environment_factory`, or DistillationTrainer with `tools`: 8 episodes a batch,
float32, on a GPU under autocast to bfloat16, its attention and its optimiser, no gradient
checkpointing (which costs it time), without which it starts. The first answer and nine after a tool
make ten turns.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}

import tools_world as world
import torch
import trl  # type: ignore[import-not-found, unused-ignore]
from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

PARSER = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How the chat template of the models is read back, in transformers' terms."""


class Paced(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Lets the trainer step only when a line comes in, and says what each step took."""

    def __init__(self) -> None:
        self.wall = self.cpu = self.generate = 0.0
        self.batch: Mapping[str, Any] = {}
        self.logged: Mapping[str, Any] = {}

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.generate, self.wall, self.cpu = 0.0, time.perf_counter(), time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        mask = self.batch["completion_mask"] * self.batch["tool_mask"]
        ends = (self.batch["completion_ids"] == kwargs["processing_class"].eos_token_id) * mask
        say(
            {
                "wall": wall,
                "cpu": cpu,
                "generate": self.generate,
                "tokens": int(mask.sum()),
                "turns": int(ends.sum()),
                "peak": peak(),
            }
        )

    def on_log(self, *args: Any, logs: Mapping[str, Any], **kwargs: Any) -> None:
        say(
            {
                name: logs[name]
                for name in ("loss", "reward", "tools/failure_frequency")
                if name in logs
            }
        )


def say(line: Mapping[str, Any]) -> None:
    print(f"@@ {json.dumps(line)}", flush=True)


def peak() -> float:
    """Megabytes that this process held at most; on a GPU, those of its tensors there."""
    if torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def messages(task: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": world.RULES},
        {"role": "user", "content": world.question(task)},
    ]


def prompts(encoder: Any, trainer: Any) -> list[list[int]]:
    """What the model is shown before its first and its second turn of task 0, when it is right."""
    start = encoder.apply_chat_template(messages(0), add_generation_prompt=True, return_dict=False)
    call = encoder(world.call(world.first(0)) + world.END, add_special_tokens=False)["input_ids"]
    text, _ = world.record(*world.first(0))
    more = trainer._get_tool_suffix_ids([{"role": "tool", "name": world.TOOL, "content": text}])
    return [list(start), [*start, *call, *more]]


def trainer_of(
    work: str, models: Path, folder: str, arguments: argparse.Namespace, paced: Paced
) -> Any:
    """The trainer."""
    card = arguments.device.startswith("cuda")
    encoder = AutoTokenizer.from_pretrained(models / "student", padding_side="left")
    encoder.response_template = PARSER
    model = AutoModelForCausalLM.from_pretrained(models / "student", dtype=torch.float32)
    settings = {
        "output_dir": folder,
        "max_steps": arguments.steps,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": arguments.rows,
        "gradient_accumulation_steps": arguments.episodes // arguments.rows,
        "max_completion_length": arguments.new_tokens * arguments.turns * 4,
        "max_tool_calling_iterations": arguments.turns - 1,
        "temperature": 1.0,
        "bf16": card,
        "use_cpu": not card,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    numbers = range(10_000, 10_000 + arguments.steps * arguments.episodes)
    rows = Dataset.from_list([{"prompt": messages(k), "task": k} for k in numbers])
    if work == "grpo":
        trainer = trl.GRPOTrainer(
            model=model,
            processing_class=encoder,
            train_dataset=rows,
            callbacks=[paced],
            environment_factory=world.Archive,
            args=trl.GRPOConfig(num_generations=min(4, arguments.episodes), **settings),
        )
    else:
        teacher = AutoModelForCausalLM.from_pretrained(models / "teacher", dtype=torch.float32)
        trainer = trl.DistillationTrainer(
            model=model,
            teacher_model=teacher,
            processing_class=encoder,
            train_dataset=rows,
            callbacks=[paced],
            tools=[world.open_record],
            args=trl.DistillationConfig(**settings),
        )
    # of a turn, as tutelage has it; the setting above is the whole conversation's
    trainer.generation_config.max_new_tokens = arguments.new_tokens
    return encoder, trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["distillation", "grpo"])
    parser.add_argument("models", type=Path)
    for name in ("steps", "episodes", "turns", "new-tokens", "threads", "rows"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--matmul", required=True)
    parser.add_argument("--device", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    precision = {"float32": "ieee", "bfloat16": "bf16", "blas": "ieee"}[arguments.matmul]
    torch.backends.mkldnn.matmul.fp32_precision = precision  # type: ignore[attr-defined]
    paced = Paced()
    with tempfile.TemporaryDirectory() as folder:
        encoder, trainer = trainer_of(arguments.work, arguments.models, folder, arguments, paced)
        play, score = trainer._generate, trainer._generate_and_score_completions

        def timed(*args: Any, **kwargs: Any) -> Any:
            since = time.perf_counter()
            result = play(*args, **kwargs)
            paced.generate += time.perf_counter() - since
            return result

        def recorded(*args: Any, **kwargs: Any) -> Any:
            paced.batch = score(*args, **kwargs)
            return paced.batch

        trainer._generate, trainer._generate_and_score_completions = timed, recorded
        say({"version": trl.__version__, "prompt": prompts(encoder, trainer)})
        say({"ready": True})
        trainer.train()


if __name__ == "__main__":
    main()
