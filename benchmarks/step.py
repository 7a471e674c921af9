"""One whole training step beside TRL: play, score, learn, of the same agent in the same world.

    python benchmarks/step.py [--trl PYTHON] [--threads 1] [--matmul float32 bfloat16] [--compile]
    python benchmarks/step.py [--trl PYTHON] --device cuda --shape 0.4B --episodes 64    on a GPU

prints a table in Markdown. 8 episodes of 10 tool calls in a toy archive (tools_world.py), a Qwen3
shape of 11 million parameters, float32, on a processor. Two pieces of work:

distillation  reverse KL to a teacher over the whole vocabulary, which scores the student's tokens
grpo          policy gradient on rewards of the world, groups of 4

The libraries get the same folders of models and see the same token ids (which is checked for the
first two turns). --matmul is torch's setting on both sides: "float32" is the default of both, with
which tutelage takes oneDNN where that does not round; "bfloat16" takes oneDNN for both, "blas"
for neither. Each runs in a process of its own, and they take turns, a step at a time, after one
that is not counted. Rates are of action tokens, those that the student sampled; seconds of the
clock, and of the processor, which matter less to neighbours on the machine. Memory is the most that
a process ever held, Python and libraries included.

TRL is measured in two ways: all 8 episodes in one pass, and one at a time (its gradient
accumulation), as tutelage does on a processor. On a GPU both multiply in bfloat16 and keep float32
weights, --matmul says nothing, and memory is that of the GPU. It never ran on one.
PYTHON is that of an environment with TRL 1.16:

    pip install torch==2.13.0 trl==1.16.0
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STORY = """Predicted: at least 4 times TRL's action tokens per second and at most a quarter of its
memory, products alike. The kept cache computes a token once, where a fresh prefill at each of ten
turns computes 11,700 tokens for an episode of 1,857; the head runs on sampled tokens only; a pass
holds one episode.

Came out, with the defaults of both, which never round: 4.5 times in distillation and 4.8 in GRPO,
memory 1/4.4 and 1/4.3. With oneDNN for both (`--matmul bfloat16`) they are 3.1 and 3.4, memory
1/5.6 for either. So of the 4.5 a factor of 1.45 is that tutelage's default takes the faster
library; the rest is work that is not done. Both sides play nearly all of 80 turns and train on
all of them: the student is as sure as at a temperature of a quarter, and a group's rewards
differ. (Before, episodes ended at calls that could not be read, 42 to 53 turns a step, and groups
without a difference trained nothing.)

The story of distillation in float32, which was 2.7: a profile (torch.profiler, 8 episodes of 10
turns that an expert took) had 54 % of the step's scores and updates in matrix products at 99
GFLOP/s, which is what torch's own library has on this core, and 38 % in torch's flash attention.
Predicted: oneDNN, where it stays in float32, takes half of the time. Came out: 21.6 s of
processor time became 12.5. Predicted: the 548 of 1,857 tokens that are the same in all episodes,
scored once, save a quarter of the products. Came out: 12.5 s became 10.3, since attention to them
stays. Ratios of five steps in turn, of 8 episodes that an expert took, in one process with and
without each (a script of its own, no command here; `--matmul blas` shows the first): 1.74 (1.70
to 1.80), 1.21 (1.15 to 1.30), both 2.09 (2.01 to 2.21); 1.24 (1.22 to 1.26) for the second with
torch's own library. oneDNN's memory was a gigabyte more, kept for shapes that do not come again;
with 64 of them it is 45 MB (1,407 beside 1,362, one run each).

`--compile --work distillation --matmul float32` without TRL: 157 tokens a second (153 to 161)
beside 166 (160 to 173), memory 0.96 (n = 5). It fuses what goes over memory element by element,
but pads rows and scores their common beginning every time.

Looked at and left alone: causal attention with grouped keys already takes torch's flash kernel
(54 ms forward and backward at 1,024 tokens, 55 with copied keys). Of its time over keys that all
rows share, two fifths are exponentials; plain products in blocks took as long (9.2 ms beside 9.0
for 1,300 tokens over 548)."""
HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "runs" / "benchmarks" / "step"
WORKS = ("distillation", "grpo")
OURS = "tutelage"


class Runner:
    """A library's process."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self.steps: list[dict[str, float]] = []
        self.facts: dict[str, Any] = {}
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=HERE,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        while "ready" not in (line := self._line()):
            self.facts |= line

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            if text.startswith("@@ "):
                return dict(json.loads(text[3:]))
        self.log.seek(0)
        log = self.log.read().strip().splitlines()[-15:]
        sys.exit(f"{self.name} stopped:\n" + "\n".join(log))

    def step(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        while "wall" not in (line := self._line()):
            pass
        self.steps.append(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def rates(self, clock: str) -> list[float]:
        """Action tokens per second of every step but the first."""
        return [step["tokens"] / step[clock] for step in self.steps[1:]]


def spread(values: Sequence[float], digits: int = 0) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def commands(arguments: argparse.Namespace, work: str, matmul: str) -> dict[str, list[str]]:
    common = [work, str(arguments.models), "--matmul", matmul, "--device", arguments.device]
    for name in ("episodes", "turns", "new_tokens", "threads"):
        common += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    common += ["--steps", str(arguments.repeats + 1)]
    ours = [sys.executable, "step_ours.py", "run", *common, "--tokens", str(arguments.tokens)]
    commands_of = {OURS: ours}
    if arguments.compile:
        commands_of[f"{OURS}, compiled"] = [*ours, "--compile"]
    if arguments.trl:
        theirs = [arguments.trl, "step_trl.py", *common]
        for rows in arguments.trl_rows:
            commands_of[f"TRL, {rows} a pass"] = [*theirs, "--rows", str(rows)]
    return commands_of


def measure(arguments: argparse.Namespace, work: str, matmul: str) -> list[Runner]:
    """Every library, their steps in turn."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(arguments.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(HERE),
    }
    runners: list[Runner] = []
    try:
        for name, command in commands(arguments, work, matmul).items():
            runners.append(Runner(name, command, environment))
        for other in runners[1:]:
            assert other.facts["prompt"] == runners[0].facts["prompt"], "other prompts"
        for _ in range(arguments.repeats + 1):
            for runner in runners:
                runner.step()
    finally:
        for runner in runners:
            runner.close()
    return runners


def rows(runners: Sequence[Runner], work: str, matmul: str) -> list[str]:
    table = []
    for runner in runners:
        counted = runner.steps[1:]
        peak = runner.steps[-1]["peak"]
        share = statistics.median(step["generate"] / step["wall"] for step in counted)
        line = [
            work,
            matmul,
            runner.name,
            spread(runner.rates("wall")),
            spread(runner.rates("cpu")),
            f"{peak:,.0f}",
            f"{share:.0%}",
            f"{statistics.mean(step['turns'] for step in counted):.0f}, "
            f"{statistics.mean(step['tokens'] for step in counted):,.0f}",
        ]
        ours = runners[0]
        if runner is not ours:
            pairs = zip(ours.rates("cpu"), runner.rates("cpu"), strict=True)
            line.append(
                f"{spread([a / b for a, b in pairs], 1)}; {peak / ours.steps[-1]['peak']:.1f}"
            )
        else:
            line.append("")
        table.append("| " + " | ".join(line) + " |")
    return table


def make_models(arguments: argparse.Namespace) -> None:
    if (arguments.models / "teacher" / "config.json").exists():
        return
    command = [sys.executable, "step_ours.py", "models", str(arguments.models)]
    command += ["--turns", str(arguments.turns), "--steps", str(arguments.practice)]
    command += ["--shape", arguments.shape, "--device", arguments.device]
    subprocess.run(command, cwd=HERE, check=True)


def missing(python: str) -> str:
    """Why TRL cannot be measured; empty where it can."""
    if not python:
        return "--trl names no Python that has it"
    look = "import importlib.util as of; print(of.find_spec('trl') is not None)"
    try:
        found = subprocess.run([python, "-c", look], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{python} cannot be run ({error.strerror})"
    return "" if found.stdout.strip() == "True" else f"{python} has no module trl"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trl", default=os.environ.get("TRL_PYTHON", ""), metavar="PYTHON")
    parser.add_argument("--trl-rows", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument(
        "--matmul",
        nargs="+",
        choices=["float32", "bfloat16", "blas"],
        default=["float32", "bfloat16"],
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument(
        "--tokens", type=int, default=2048, help="update.max_tokens_per_pass of tutelage"
    )
    parser.add_argument("--models", type=Path, help="made if they are not there")
    parser.add_argument("--practice", type=int, default=120, help="steps that make the teacher")
    parser.add_argument("--compile", action="store_true", help="a row more: policy.compile")
    parser.add_argument("--shape", choices=("small", "usual", "0.4B"), default="usual")
    parser.add_argument("--device", default="cpu", help='"cpu" or "cuda"')
    arguments = parser.parse_args()
    if arguments.device != "cpu":
        arguments.matmul = ["bfloat16"]
    arguments.models = (arguments.models or MODELS / arguments.shape).resolve()
    make_models(arguments)
    absent = missing(arguments.trl)
    arguments.trl = "" if absent else arguments.trl
    version, lines = "", []
    for work in arguments.work:
        for matmul in arguments.matmul:
            runners = measure(arguments, work, matmul)
            version = str(runners[-1].facts.get("version", ""))
            lines += rows(runners, work, matmul)
            print(lines[-1], file=sys.stderr)
    if absent:
        print(f"TRL was not measured: {absent}.\n")
    print(f"{STORY}\n")
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {'TRL ' + version + ', ' if version else ''}", end=""
    )
    print(
        f"{platform.machine()}, {arguments.threads} thread(s), median of {arguments.repeats} ",
        end="",
    )
    print(f"steps (range); other load on the machine about {max(0.0, load - 1):.1f}\n")
    print(
        "| work | products | library | action tokens/s | per processor second | peak MB "
        "| share of the step in generation | turns, action tokens a step "
        "| tutelage over it: tokens per processor second; memory |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
