"""tutelage: train small language-model agents over many turns by distillation and RL.

import tutelage as tl

    config = tl.load("run.toml", {"update.lr": 1e-4})       a run from a file
    run = tl.train(config)
    tl.evaluate(run)

    suite = tl.suite("doors", rooms=2)                      or as a library
    session = tl.Session(suite, {"self": tl.HFPolicy.load("Qwen/Qwen3-0.6B")})
    trainer = tl.Trainer(session, tl.algorithms.grpo(), lr=1e-5)
    for step in range(30):
        trainer.learn(trainer.play(suite.tasks("train")[:16], group_size=4))

Names are imported on first use: `import tutelage` itself does not load torch.
"""

from importlib import import_module

TYPE_CHECKING = False  # for type checkers: importing it takes longer than all else here
if TYPE_CHECKING:
    from tutelage import algorithms, errors, maths, schedules, signals
    from tutelage.cli.library import check_env, connect, evaluate, load, suite, train
    from tutelage.config.schema import Config
    from tutelage.envs.base import Env, Suite
    from tutelage.evaluation.evaluate import Evaluation
    from tutelage.objective import (
        Algorithm,
        Distill,
        DistillSampled,
        Entropy,
        Reinforce,
        Signal,
        View,
    )
    from tutelage.policies.hf.policy import HFPolicy
    from tutelage.rollout.session import Limits, Session
    from tutelage.runs.run import Run
    from tutelage.runs.trainer import Trainer
    from tutelage.training.train_step import Report
    from tutelage.types import Episode, Observation, Task, Turn

__version__ = "0.1.0"

_HOMES = {
    "cli.library": "check_env connect evaluate load suite train",
    "config.schema": "Config",
    "envs.base": "Env Suite",
    "evaluation.evaluate": "Evaluation",
    "objective": "Algorithm Distill DistillSampled Entropy Reinforce Signal View",
    "policies.hf.policy": "HFPolicy",
    "rollout.session": "Limits Session",
    "runs.run": "Run",
    "runs.trainer": "Trainer",
    "training.train_step": "Report",
    "types": "Episode Observation Task Turn",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
_ROOMS = ("algorithms", "errors", "maths", "schedules", "signals")

__all__ = [
    "Algorithm",
    "Config",
    "Distill",
    "DistillSampled",
    "Entropy",
    "Env",
    "Episode",
    "Evaluation",
    "HFPolicy",
    "Limits",
    "Observation",
    "Reinforce",
    "Report",
    "Run",
    "Session",
    "Signal",
    "Suite",
    "Task",
    "Trainer",
    "Turn",
    "View",
    "algorithms",
    "check_env",
    "connect",
    "errors",
    "evaluate",
    "load",
    "maths",
    "schedules",
    "signals",
    "suite",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        from pkgutil import iter_modules

        room = import_module(f"tutelage.{name}")
        for module in iter_modules(room.__path__ if name == "maths" else ()):
            import_module(f"tutelage.{name}.{module.name}")  # so that tl.maths.surrogates exists
        return room
    if name in _HOME:
        value = getattr(import_module(f"tutelage.{_HOME[name]}"), name)
        globals()[name] = value  # found without this function next time
        return value
    raise AttributeError(f"module 'tutelage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
