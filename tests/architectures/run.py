"""Every causal language model that transformers lists, tried: docs/architectures.md.

    PYTHONPATH=src:tests python -m architectures.run                 all, and write the page
    PYTHONPATH=src:tests python -m architectures.run gemma2 mamba    some of them, printed

A small form of each with random weights is loaded as any folder is, plays two turns, scores ragged
sequences, takes a gradient and a GRPO step, and is saved and loaded again. Probabilities and
gradients are compared with the model's own forward pass over each sequence. Then it is loaded in
bfloat16, as a student and as a model that is never trained, acts and is scored.
"""

import argparse
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from support.architectures import NotBuiltError, build, listed, ragged
from support.tiny_models import run, small_chat, words
from torch import Tensor

import tutelage as tl
from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.prompter import Sample
from tutelage.runs.models import quiet

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architectures.md"
SECONDS = 60
"""Of a CPU's time for one model type."""
ERROR = 5e-4
"""Nats, and parts of the largest gradient."""
WORDS = {
    "fast": "right (fast)",
    "plain": "right (plain)",
    "recomputed": "right (recomputed)",
    "refused": "refused",
    "wrong": "wrong",
    "crashed": "traceback",
    "not built": "not tried",
}
"""Kinds of results, in the order of the table, as the page names them."""


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    kind: str
    detail: str = ""


class LateError(Exception):
    """A model type took too long."""


def next_logits(of: HFPolicy, ids: Tensor) -> Tensor:
    """After the last token, with the inputs that transformers' own generate would make."""
    try:
        inputs = of.model.prepare_inputs_for_generation(
            ids, attention_mask=torch.ones_like(ids), is_first_iteration=True
        )
    except (TypeError, ValueError, AttributeError):
        inputs = {"input_ids": ids}
    logits: Tensor = of.model(**{**inputs, "use_cache": False}).logits[0, -1]
    return logits


def own_logps(of: HFPolicy, sample: Sample, heat: float) -> Tensor:
    """Of one forward pass of the model over the sequence; for a model that is recomputed, of a pass
    over exactly the tokens before each."""
    ids = torch.tensor([[*sample.prompt, *sample.tokens]])
    if of.plain is not None and of.plain.recomputed:
        ends = range(len(sample.prompt), ids.shape[1])
        logits = torch.stack([next_logits(of, ids[:, :end]) for end in ends])
    else:
        logits = of.model(input_ids=ids, use_cache=False).logits[0, len(sample.prompt) - 1 : -1]
    rows = (logits[:, : of.chat.size].float() / heat).log_softmax(-1)
    return rows.gather(-1, torch.tensor(sample.tokens)[:, None]).squeeze(-1)


def differs(what: str, ours: Tensor, own: Tensor, limit: float = ERROR) -> str:
    worst = float((ours - own).abs().max())
    return "" if worst <= limit else f"{what} off by {worst:.2g}"


def acts(of: HFPolicy) -> str:
    """Two turns of two episodes, sampled with what is kept of the first."""
    prompts = {"a": tuple(range(20, 41)), "b": tuple(range(60, 73))}
    for turn in range(2):
        asked = [
            Request(key=k, prompt=ids, seed=turn, max_new=5, temperature=0.8)
            for k, ids in prompts.items()
        ]
        for key, completion in run(of, asked).items():
            sample = Sample(prompt=prompts[key], tokens=completion.tokens)
            with torch.no_grad():
                own = own_logps(of, sample, 0.8)
            if wrong := differs("sampling", torch.tensor(completion.logps), own):
                return wrong
            prompts[key] = (*prompts[key], *completion.tokens, 50, 51)
    of.refresh()
    return ""


def learns(of: HFPolicy) -> str:
    """Scores and their gradients."""
    found = [Sample(prompt=x[:-n], tokens=x[-n:]) for x, n in ragged(of.chat.size)]
    weight = torch.linspace(-1, 2, sum(len(s.tokens) for s in found))
    gradients = []
    own = torch.cat([own_logps(of, s, 1.0) for s in found])
    scores = of.score(found, 1.0).logp
    if wrong := differs("scoring", scores, own):
        return wrong
    for logps in (scores, own):
        of.model.zero_grad()
        (weight * logps).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append({n: p.grad for n, p in of.model.named_parameters() if p.grad is not None})
    of.model.zero_grad()
    ours, theirs = gradients
    if ours.keys() != theirs.keys():
        names = ", ".join(sorted(ours.keys() ^ theirs.keys()))
        return f"parameters with a gradient on one side only: {names[:120]}"
    scale = max(float(g.abs().max()) for g in theirs.values())
    parts = (differs(f"gradient of {k}", ours[k] / scale, g / scale) for k, g in theirs.items())
    return next((part for part in parts if part), "")


def steps(of: HFPolicy) -> None:
    suite = tl.suite("doors")
    session = tl.Session(suite, {"self": of}, limits=tl.Limits(max_turns=2, max_new_tokens=6))
    trainer = tl.Trainer(session, tl.algorithms.grpo(), lr=1e-4)
    trainer.learn(trainer.play(suite.tasks("train")[:1], group_size=2))


def refused_in_bfloat16(folder: str, samples: Sequence[Sample]) -> str:
    """Why a model is refused in bfloat16, as a student or frozen; empty if it acts and learns there."""
    for frozen in (False, True):
        try:
            of = load(folder, dtype="bfloat16", frozen=frozen)
            if frozen:
                of.freeze()
        except PolicyError as error:
            return f"refused in bfloat16: {error}"
        run(of, [Request(key="a", prompt=samples[0].prompt, seed=0, max_new=5)])
        of.refresh()
        logp = of.score(samples, 1.0).logp
        if not frozen:
            logp.sum().backward()  # type: ignore[no-untyped-call]
        assert logp.isfinite().all(), "log-probabilities in bfloat16 are not finite"
    return ""


def tried(name: str) -> Result:
    chat = small_chat()
    try:
        model = build(name, size=chat.size, end=chat.end, pad=words().pad_token_id)
    except NotBuiltError as error:
        return Result(name, "not built", str(error))
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
        except Exception as error:
            return Result(name, "not built", f"transformers cannot save it: {str(error)[:150]}")
        words().save_pretrained(folder)
        try:
            of = load(folder)
        except PolicyError as error:
            return Result(name, "refused", str(error).replace(folder, "its folder"))
        if wrong := acts(of) or learns(of):
            return Result(name, "wrong", wrong)
        steps(of)
        of.save(Path(folder))
        again = load(folder)
        samples = [Sample(prompt=x[:-n], tokens=x[-n:]) for x, n in ragged(chat.size)]
        with torch.no_grad():
            ours, theirs = of.score(samples, 1.0).logp, again.score(samples, 1.0).logp
        if wrong := differs("a saved copy", theirs, ours):
            return Result(name, "wrong", wrong)
        low = refused_in_bfloat16(folder, samples)
    if of.plain is None:
        return Result(name, "fast", low)
    kind = "recomputed" if of.plain.feeding == "none" else "plain"
    return Result(name, kind, "; ".join(filter(None, (of.path.removeprefix("plain path: "), low))))


def result_of(name: str) -> Result:
    """What came of a model type, within its time."""

    def late(*_: object) -> None:
        raise LateError(f"took more than {SECONDS} s")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return tried(name)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return Result(name, "crashed", f"{type(error).__name__}: {str(error)[:200]} ({where})")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def class_of(name: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])


def page(results: Sequence[Result]) -> str:
    counts = {kind: sum(r.kind == kind for r in results) for kind in WORDS}
    lines = [
        "# Architectures",
        "",
        "Every model type that `AutoModelForCausalLM` of transformers lists, in a small form with "
        "random weights on a CPU. The page is written by `make architectures` "
        f"(transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}).",
        "",
        "Right means: turns are sampled, and tokens scored, with the probabilities of the model's "
        "own forward pass over the sequence, with eager attention; gradients are those of that pass; "
        "a GRPO step runs; what is saved is loaded again with the same scores. Which path a model "
        "takes is found when it is loaded, by comparing both paths with that forward pass, and is "
        "named in the plan. Sparse indexers have as many heads here as in real models (64): with "
        "few, the scores of many keys are exactly 0, which of them are chosen depends on the length "
        "of the sequence, and the model is recomputed.",
        "",
        "- **Fast**: sequences packed on one axis, a cache of slots, prefixes that are shared.",
        "- **Plain**: the model's own code and cache. Turns are sampled one at a time, and "
        "sequences are scored side by side, padded at their ends. It is slower.",
        "- **Recomputed**: the plain path without a cache, so every token is sampled by a pass over "
        "all before it. Where a token's probabilities depend on the tokens after it, it is scored "
        "by such a pass too. A turn of n tokens costs n passes.",
        "- **Refused**: one sentence when it is loaded, before anything is trained.",
        "",
        "Each is then loaded in bfloat16, as a student and frozen, samples a turn and is scored. "
        "Where that is refused, the last column says so; its numbers are compared with nothing.",
        "",
        "| Result | Model types |",
        "|---|---:|",
        *(f"| {WORDS[kind]} | {count} |" for kind, count in counts.items() if count),
        "",
        "| Model type | Class | Result | Why |",
        "|---|---|---|---|",
    ]
    order = list(WORDS)
    for r in sorted(results, key=lambda r: (order.index(r.kind), r.name)):
        detail = " ".join(r.detail.split()).replace("|", "\\|")
        lines.append(f"| {r.name} | `{class_of(r.name)}` | {WORDS[r.kind]} | {detail} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="model types; all that transformers lists")
    names: Any = parser.parse_args(arguments).names
    warnings.filterwarnings("ignore")
    quiet()
    torch.set_num_threads(1)
    results = []
    for name in names or listed():
        since = time.monotonic()
        results.append(result := result_of(name))
        taken = time.monotonic() - since
        print(
            f"{name:26} {WORDS[result.kind]:18} {taken:5.1f} s  {result.detail[:160]}", flush=True
        )
    if not names:
        PAGE.write_text(page(results), encoding="utf-8")
    return int(any(r.kind in ("wrong", "crashed") for r in results))


if __name__ == "__main__":
    sys.exit(main())
