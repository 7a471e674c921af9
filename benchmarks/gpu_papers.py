"""A whole step of the papers' ALFWorld settings on one GPU, beside the memory that the dry run predicts.

    python benchmarks/gpu_papers.py [--file alfworld_grpo_qwen2.5_3b ...] [--gb 80]
    python benchmarks/gpu_papers.py --device cpu --tiny      small shapes, within a minute

prints a line of JSON for each file; of several, each runs in a process of its own. Models have the
shapes that the files name and random weights, drawn on the GPU. A file is changed as its dry run
advises for a GPU of --gb, in the first way that leaves the other models on the same GPU and
unpacked. Turns are cut to --new-tokens, in the prediction too, since random weights never end one.
The step is that of the middle of the run, when teacher and student share the turns. torch may take
no more than --gb, so that what does not fit there fails here. Measured are the most bytes of
tensors while models are made, while episodes are played and in the update, and the most that torch
reserved, which is what a GPU must have.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_parts import TINY, Line, chat_of, mixed, model_of, rounded, settled

from tutelage.cli import dry_run
from tutelage.cli.model_sizes import Shape
from tutelage.config.schema import Config, PolicySection
from tutelage.config.toml_file import load
from tutelage.envs.registry import suite_of
from tutelage.errors import first_line
from tutelage.policies.hf import kv_cache, memory
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.chat_template import Chat
from tutelage.rollout.hint_preparation import Hinter
from tutelage.rollout.play import play
from tutelage.rollout.session import Session
from tutelage.runs import assemble
from tutelage.runs.phases import phases_of
from tutelage.training.optimizer import adamw
from tutelage.training.train_step import train_step

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = [file.stem for file in sorted(EXAMPLES.glob("alfworld_*.toml"))]
MIXTURE = replace(TINY, experts=4, active=2, tied=False)


def advised(name: str, gb: float, settings: Sequence[str]) -> tuple[list[str], dry_run.Plan]:
    """The settings with which a file fits, and the plan of the file with them.

    Raises ValueError where nothing is advised that leaves the other models as they are.
    """
    file = EXAMPLES / f"{name}.toml"
    plan = dry_run.make(load(file, settings), gpu=gb)
    (advice,) = [text for text in plan.warnings if "it fits with " in text] or [""]
    for way in advice.partition("it fits with ")[2].split(", or with ") if advice else [""]:
        if "on a server" not in way and "quantize" not in way:
            changes = re.findall(r"(?:policy|update)\.\w+ = \S+", way)
            return changes, dry_run.make(load(file, [*settings, *changes]), gpu=gb)
    raise ValueError(f"{name} does not fit {gb:g} GB with its other models: {advice}")


def policy_of(
    shape: Shape,
    section: PolicySection,
    config: Config,
    chat: Chat,
    device: str,
    *,
    frozen: bool,
    budget: int,
) -> HFPolicy:
    """Random weights in a shape, with the settings of a section that matter for memory."""
    model = model_of(shape, chat.end, device, dtype=torch.bfloat16 if frozen else torch.float32)
    if frozen:
        model.requires_grad_(False)
        memory.cast_frozen_to_bfloat16(model)
        for parameter in model.parameters():  # embeddings and norms stay in float32
            if parameter.dim() < 2 or parameter.shape[0] == shape.vocab:
                parameter.data = parameter.data.float()
    adapters = None
    if section.lora:
        adapters = Adapters(model, rank=section.lora, base="", seed=0)
    return HFPolicy(
        model.eval(),
        chat,
        dtype=section.dtype,
        slots=config.rollout.slots,
        tokens=config.update.max_tokens_per_pass,
        adapters=adapters,
        gradient_checkpointing=section.gradient_checkpointing,
        budget=budget,
    )


def session_of(config: Config, plan: dry_run.Plan, arguments: argparse.Namespace) -> Session:
    suite = suite_of(config.env)
    context = assemble.context_of(config.context, suite)
    policies: dict[str, Any] = {}
    engines = sum(bool(model.cache) for model in plan.models)
    budget = kv_cache.budget(arguments.device, engines=engines, total=plan.machine.memory)
    for model in plan.models:
        name = "self" if model.name == "student" else model.name
        if name == "reference":
            policies[name] = policies["self"].copied()
            continue
        assert model.shape is not None
        shape = model.shape
        if arguments.tiny:
            shape = MIXTURE if shape.experts else TINY
        section = config.policy if name == "self" else config.policies[name]
        chat = chat_of(shape, [context.instructions])
        policy = policy_of(
            shape, section, config, chat, arguments.device, frozen=name != "self", budget=budget
        )
        if name != "self":
            policy.freeze()
        policies[name] = policy
    session = Session(
        suite,
        policies,
        pool=assemble.pool_of(config.env, suite),
        context=context,
        limits=assemble.limits_of(config),
        hints=assemble.hints_of(config, suite, phases_of(config)),
    )
    return replace(session, ready=Hinter(session=session, seed=0))


def whole_step(name: str, arguments: argparse.Namespace) -> Line:
    tokens = 8 if arguments.tiny else arguments.new_tokens
    settings = [f"rollout.max_new_tokens = {tokens}"]
    changes, plan = advised(name, arguments.gb, settings)
    if arguments.tiny:
        settings += ["rollout.max_turns = 2", "rollout.tasks_per_step = 2"]
        settings.append("rollout.group_size = 2" if "grpo" in name else "update.minibatches = 2")
    config = load(EXAMPLES / f"{name}.toml", [*settings, *changes])
    peaks = Peaks(arguments.device)
    since = settled(arguments.device)
    session = session_of(config, plan, arguments)
    student = session.policies["self"]
    assert isinstance(student, HFPolicy)
    algorithm, middle = phases_of(config)[-1].algorithm, config.run.steps * 2 // 5
    optimizer = adamw(
        student.parameters(),
        lr=config.update.lr if isinstance(config.update.lr, float) else 1e-6,
        betas=(0.9, 0.999),
        weight_decay=0.0,
        offload=config.update.offload,
    )
    tasks = assemble.tasks_of(
        session.suite, config.env.split, config.rollout.tasks_per_step, where="env"
    )
    begun = settled(arguments.device)
    peaks.end("making")
    try:
        played = play(
            session,
            tasks[: config.rollout.tasks_per_step],
            algorithm,
            seed=0,
            step=middle,
            group_size=config.rollout.group_size,
        )
        peaks.end("playing")
        result = train_step(
            algorithm,
            [mixed(episode, k) for k, episode in enumerate(played)],
            session.policies,
            optimizer,
            session.prompter,
            assemble.update_of(config, arguments.device),
            step=middle,
            seed=0,
            clock=session.clock,
        )
    finally:
        session.pool.shutdown()
    ended = settled(arguments.device)
    peaks.end("update")
    line: Line = {
        "file": name,
        "changes": changes,
        "gb_of_the_gpu": arguments.gb,
        "gb_predicted": rounded(plan.memory / 1e9),
        "episodes": len(played),
        "action_tokens": sum(len(turn.tokens) for e in played for turn in e.turns),
        "gradient_norm": rounded(result.grad_norm),
        "seconds_to_make_models": rounded(begun - since),
        "seconds": rounded(ended - begun),
        "share": {k: rounded(s / (ended - begun)) for k, s in session.clock.seconds.items()},
    }
    return {**line, **peaks.line(plan.memory)}


class Peaks:
    """The most memory of a GPU that tensors took, in each part of a step."""

    def __init__(self, device: str) -> None:
        self.gpu, self.bytes, self.reserved = device.startswith("cuda"), dict[str, int](), 0
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()

    def end(self, part: str) -> None:
        if self.gpu:
            self.bytes[part] = torch.cuda.max_memory_allocated()
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
            torch.cuda.reset_peak_memory_stats()

    def line(self, predicted: int) -> Line:
        if not self.gpu:
            return {}
        measured = max(self.bytes.values())
        return {
            "gb_measured": rounded(measured / 1e9),
            "gb_by_part": {part: rounded(size / 1e9) for part, size in self.bytes.items()},
            "gb_reserved": rounded(self.reserved / 1e9),
            "within_a_tenth": abs(measured - predicted) < 0.1 * predicted,
        }


def in_a_process(name: str, words: Sequence[str]) -> Line:
    """The line of a file, from a process of its own: what it leaves behind, a GPU that it brings down
    and its end by the system cost no other."""
    command = [sys.executable, str(Path(__file__).resolve()), *words, "--file", name]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    for text in reversed(ended.stdout.splitlines()):
        if text.startswith("{"):
            line: Line = json.loads(text)
            return line
    return {"file": name, "error": f"its process ended with exit code {ended.returncode}"}


def tried(name: str, arguments: argparse.Namespace) -> Line:
    try:
        return whole_step(name, arguments)
    except ValueError as error:
        return {"file": name, "error": first_line(error)[:300]}
    except Exception as error:  # whatever it is, the line says it
        return {"file": name, "error": f"{type(error).__name__}: {first_line(error)[:300]}"}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", nargs="+", choices=FILES, default=FILES)
    parser.add_argument("--gb", type=float, default=80.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes and few episodes")
    parser.add_argument("--new-tokens", type=int, default=64)
    arguments = parser.parse_args(words)
    gpu = arguments.device.startswith("cuda")
    if gpu and not torch.cuda.is_available():
        parser.error("torch sees no graphics card here; --tiny --device cpu tries it all without")
    alone = len(arguments.file) == 1
    if gpu and alone:
        share = arguments.gb * 1e9 / torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    given = sys.argv[1:] if words is None else words
    for name in arguments.file:
        since = time.perf_counter()
        line = tried(name, arguments) if alone else in_a_process(name, given)
        print(json.dumps({**line, "all_seconds": rounded(time.perf_counter() - since)}), flush=True)


if __name__ == "__main__":
    main()
