"""Run everything that matters on a GPU in under 8 minutes, and write one report: `make gpu`.

    python scripts/gpu.py [--out gpu-report] [--only "right" "decode" ...]
    python scripts/gpu.py --device cpu --tiny     the same in the small, without a GPU

starts   every method: self-tests, one step, a checkpoint, in float32 and bfloat16
right    scores, gradients, sampled turns, adapters and files beside the CPU in float32
fast     decoding, prompts, sampling, training, a whole step, and memory beside its prediction

Each part is a process of its own with its own time limit: one that fails, hangs or takes the GPU
down with it costs no other. What a part has measured when its time is over is in the report, which
is OUT.json and OUT.md, and which is written after each part. The exit code is 1 where a check
failed or a part did not end.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
Line = dict[str, Any]


class Part(NamedTuple):
    """What is run in a process: checks, or cases of benchmarks/gpu.py."""

    seconds: int  # its limit
    words: tuple[str, ...] = ()  # for benchmarks/gpu.py; checks have none


SMALL, LARGE = "Qwen3-0.6B", "Qwen3-1.7B"
PARTS: Mapping[str, Part] = {
    "right": Part(90),
    "starts in bfloat16": Part(45),
    "starts in float32": Part(45),
    "sampling": Part(15, ("--part", "sampling", "--shape", SMALL)),
    "prompts": Part(35, ("--part", "prefill", "turn", "--shape", SMALL)),
    "decode, 0.6B": Part(50, ("--part", "decode", "--shape", SMALL)),
    "decode, 1.7B": Part(60, ("--part", "decode", "--shape", LARGE)),
    "train, 1.7B": Part(50, ("--part", "train", "--shape", LARGE)),
    "a whole step, 1.7B": Part(90, ("--part", "step", "--shape", LARGE)),
}
"""Together 480 seconds, compiling included: what is most often wrong comes first."""
REPEATS = 3


def command(name: str, arguments: argparse.Namespace) -> list[str]:
    """What a part's process runs; each line that it prints is a JSON object."""
    device = ["--device", arguments.device, *(["--tiny"] if arguments.tiny else [])]
    part = PARTS[name]
    if not part.words:
        return [sys.executable, str(Path(__file__).resolve()), "--check", name, *device]
    words = [*part.words, "--repeats", "1" if arguments.tiny else str(REPEATS)]
    # of a part's time, some goes to the start of Python and of CUDA
    words += ["--seconds", str(0.6 * part.seconds)]
    return [sys.executable, str(BENCHMARKS / "gpu.py"), *words, *device]


def run_part(name: str, arguments: argparse.Namespace) -> Line:
    """Run a part to its end or its limit."""
    limit, since = PARTS[name].seconds * arguments.patience, time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command(name, arguments), stdout=out, stderr=errors, env=environment
        )
        try:
            code = process.wait(timeout=limit)
            error = ""
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code, error = 1, f"not done within its {limit:g} seconds"
        out.seek(0)
        errors.seek(0)
        lines = read_lines(out.read())
        if code and not error:
            error = (errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
        if not lines and not error:
            error = "it printed no result"
    ok = not error and bool(lines) and all(line.get("ok", "error" not in line) for line in lines)
    return {
        "part": name,
        "ok": ok,
        "error": error,
        "lines": lines,
        "seconds": round(time.perf_counter() - since, 1),
    }


def read_lines(text: str) -> list[Line]:
    """The JSON objects of a text, without a last line that was cut off."""
    lines = []
    for each in text.splitlines():
        try:
            line = json.loads(each)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def machine(device: str) -> Line:
    import torch
    import transformers

    cuda = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "memory_gb": round(torch.cuda.mem_get_info(device)[1] / 1e9, 1) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def page(report: Line) -> str:
    """The report in Markdown."""
    about = ", ".join(f"{k} {v}" for k, v in report["machine"].items() if v is not None)
    report_lines = ["# GPU report", "", f"{report['began']}: {about}", ""]
    if report["tiny"]:
        report_lines += ["In the small: this shows that the parts run, and measures nothing.", ""]
    report_lines += ["| part | result | seconds |", "|---|---|---|"]
    for part in report["parts"]:
        report_lines.append(f"| {part['part']} | {result(part)} | {part['seconds']:g} |")
    for part in report["parts"]:
        lines = part["lines"]
        if not lines:
            continue
        names = list(dict.fromkeys(key for line in lines for key in line))
        report_lines += ["", f"## {part['part']}", ""]
        report_lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
        for line in lines:
            cells = [
                judged(line[k]) if k == "ok" and k in line else cell(line.get(k)) for k in names
            ]
            report_lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(report_lines) + "\n"


def result(part: Line) -> str:
    failed = sum(not line.get("ok", "error" not in line) for line in part["lines"])
    if part["ok"]:
        return "ok"
    return cell(part["error"]) if part["error"] else f"{failed} of {len(part['lines'])} failed"


def judged(ok: object) -> str:
    return "yes" if ok else "**no**"


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " / ".join(f"{x:,.4g}" for x in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {x}" for name, x in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def write(report: Line, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_suffix(".md").write_text(page(report))


def check(name: str, device: str, *, tiny: bool) -> None:
    """The child of a part of checks."""
    import torch
    from gpu_checks import CHECKS

    if device == "cpu":
        torch.set_num_threads(1)
    models_quiet()
    for line in CHECKS[name](device, tiny):
        print(json.dumps(line), flush=True)


def models_quiet() -> None:
    from tutelage.runs.models import quiet

    quiet()


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small shapes and few methods")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="without its ending")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"some of: {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--patience", type=float, default=1.0, help="multiplies every time limit: slow machines"
    )
    parser.add_argument(
        "--check", choices=[n for n in PARTS if not PARTS[n].words], help=argparse.SUPPRESS
    )
    arguments = parser.parse_args(words)
    if arguments.check:
        check(arguments.check, arguments.device, tiny=arguments.tiny)
        return 0
    if arguments.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            parser.error("torch sees no GPU here; --device cpu --tiny runs all parts without one")
    report: Line = {
        "began": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(arguments.device),
        "tiny": arguments.tiny,
        "parts": [],
    }
    for name in arguments.only:
        part = run_part(name, arguments)
        report["parts"].append(part)
        write(report, arguments.out)
        print(f"{name}: {result(part)} ({part['seconds']:g} s)", flush=True)
    print(f"report: {arguments.out.with_suffix('.md')}")
    return 0 if all(part["ok"] for part in report["parts"]) else 1


if __name__ == "__main__":
    sys.exit(main())
