"""The public API: names and signatures of `import tutelage` are frozen."""

import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import tutelage as tl

ROOT = Path(__file__).parents[2]
ROOMS = ("algorithms", "errors", "maths", "schedules", "signals")
SURFACE = {
    "Algorithm": "terms, views, actors",
    "Config": "",
    "Distill": "divergence, teacher, weight",
    "DistillSampled": "estimate, teacher, weight",
    "Entropy": "weight",
    "Env": "",
    "Episode": "task, group, turns, stop, won, score, copy, error, penalties",
    "Evaluation": "panel, episodes, hint, summary",
    "HFPolicy": "model, chat",
    "Limits": "max_turns, max_new_tokens, concurrency, temperature, invalid_penalty, retries",
    "Observation": "text, reward, done, state, score, won, valid, actions, focus",
    "Reinforce": "advantage, surrogate",
    "Report": "losses, grad_norm, tokens, columns, means, mismatch",
    "Run": "folder",
    "Session": "suite, policies, pool, context, limits, clock, tick, hints, ready",
    "Signal": "of, name",
    "Suite": "",
    "Task": "id, family, seed, data",
    "Trainer": "session, algorithm, lr, betas, weight_decay, grad_clip, minibatches, epochs, "
    "max_tokens_per_pass, seed",
    "Turn": "observation, prompt, text, tokens, logps",
    "View": "policy, hint, hindsight",
    "check_env": "suite, splits, tasks",
    "connect": "url, tokenizer, model, key, context",
    "evaluate": "what, suite, split, tasks, hint, temperature, seed, limits",
    "load": "source, overrides, trust",
    "suite": "what, options",
    "train": "config, watch, resume",
}
"""Every name, with the parameters that stay; further ones may follow those of a class."""
METHODS = {
    "Run": {
        "checkpoint": "name",
        "config": "",
        "episodes": "",
        "evaluations": "",
        "export": "path, checkpoint",
        "metrics": "",
    },
    "Trainer": {"learn": "episodes", "play": "tasks, group_size"},
    "Session": {"prompter": "view, task"},
    "HFPolicy": {
        "load": "name, device, settings",
        "score": "samples, temperature",
        "save": "folder",
    },
}


def parameters(function: object) -> list[str]:
    names = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    return [name for name in names if name != "self"]


def test_the_names_are_these() -> None:
    assert sorted(tl.__all__) == sorted([*SURFACE, *ROOMS])
    assert dir(tl) == sorted(tl.__all__)
    with pytest.raises(AttributeError, match="'tutelage' has no attribute 'trian'"):
        tl.trian  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_the_parameters_are_these(name: str) -> None:
    value, expected = getattr(tl, name), [p for p in SURFACE[name].split(", ") if p]
    assert value.__doc__ or name == "Config"  # its fields are documented one by one
    if expected:
        found = parameters(value)
        if isinstance(value, type):
            missing = [p for p in expected if p not in found]
            assert not missing, f"{name} lacks {missing}"
        else:
            assert found == expected


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_methods_are_these(name: str) -> None:
    kind = getattr(tl, name)
    for method, expected in METHODS[name].items():
        value = inspect.getattr_static(kind, method)
        value = value.__func__ if isinstance(value, staticmethod) else value
        assert value.__doc__
        if not isinstance(value, property):
            assert parameters(value) == [p for p in expected.split(", ") if p]


def test_the_rooms_are_modules() -> None:
    for name in ROOMS:
        assert isinstance(getattr(tl, name), types.ModuleType)
    assert tl.algorithms.grpo().terms
    assert {"grpo", "sdar", "guided_opd"} <= set(dir(tl.algorithms))
    with pytest.raises(AttributeError, match="no algorithm 'grop'; did you mean grpo"):
        tl.algorithms.grop  # noqa: B018
    assert tl.signals.gap().name == "gap[teacher|student]"
    assert tl.schedules.constant(1.0)(3) == 1.0
    assert tl.maths.surrogates.ppo_clip()


def test_the_import_is_light() -> None:
    code = (
        "import sys, time\nbegan = time.process_time()\nimport tutelage\n"
        "print(time.process_time() - began)\n"
        "print(*[n for n in ('torch', 'transformers', 'pydantic', 'rich') if n in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    ).stdout.splitlines()
    assert float(out[0]) < 0.1
    assert out[1] == ""
