"""Training as a library: play tasks, learn from the episodes, look at what came out."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from tutelage.config.python_values import number, whole
from tutelage.config.schema import UpdateSection
from tutelage.envs.tasks import checked
from tutelage.errors import ConfigError, RunError, kind
from tutelage.objective import Algorithm
from tutelage.policies.base import Trainable
from tutelage.rollout.hint_preparation import Hinter
from tutelage.rollout.play import play
from tutelage.rollout.session import Session
from tutelage.rollout.task_sampling import learnt
from tutelage.runs.interrupt import delayed
from tutelage.runs.notebook import Notebook, in_notebook
from tutelage.training.optimizer import adamw
from tutelage.training.train_step import Report, Update, train_step
from tutelage.training.usable import usable_episodes
from tutelage.types import Episode, Task

_UPDATE = UpdateSection()


class Trainer:
    """An algorithm, a session and an optimiser: the loop around them is yours.

        trainer = Trainer(session, algorithms.grpo(), lr=1e-5)
        for step in range(30):
            episodes = trainer.play(tasks, group_size=4)
            report = trainer.learn(episodes)

    A policy "reference" that the algorithm's views name and the session lacks is a copy of the
    student as it is now. In a notebook, curves of success and loss follow the steps. Ctrl-C
    between two steps, or while episodes are played, leaves the weights of the last whole step.

    lr, betas, weight_decay, grad_clip  of AdamW
    minibatches, epochs   optimiser steps of a step's episodes, and passes over them
    max_tokens_per_pass   tokens of one forward and backward pass: memory, never the result
    seed                  of everything random: tasks' draws, sampled tokens, minibatches

    What is left out is as in a configuration's [update] and [run].

    Raises ConfigError where the student cannot be trained, or a policy is missing.
    """

    def __init__(
        self,
        session: Session,
        algorithm: Algorithm,
        *,
        lr: float,
        betas: tuple[float, float] = _UPDATE.betas,
        weight_decay: float = _UPDATE.weight_decay,
        grad_clip: float = _UPDATE.grad_clip,
        minibatches: int = _UPDATE.minibatches,
        epochs: int = _UPDATE.epochs,
        max_tokens_per_pass: int = _UPDATE.max_tokens_per_pass,
        seed: int = 0,
    ) -> None:
        kind("session", session, Session, "tutelage.Session(suite, policies)")
        if callable(algorithm):
            raise ConfigError(
                f"algorithm is the function {getattr(algorithm, '__name__', algorithm)}; call it, as in "
                "tutelage.algorithms.grpo()"
            )
        kind("algorithm", algorithm, Algorithm, "one, such as tutelage.algorithms.grpo()")
        number("lr", lr)
        if not (isinstance(betas, tuple | list) and len(betas) == 2):
            raise ConfigError(f"betas is {betas!r:.40}; give two numbers, such as (0.9, 0.95)")
        for name, value in (("betas", betas[0]), ("betas", betas[1])):
            number(name, value, most=math.nextafter(1.0, 0.0))
        number("weight_decay", weight_decay)
        number("grad_clip", grad_clip)
        for name, count in (("minibatches", minibatches), ("epochs", epochs)):
            whole(name, count, least=1)
        whole("max_tokens_per_pass", max_tokens_per_pass, least=1)
        kind("seed", seed, int, "a whole number")
        student = session.policies.get("self")
        if not isinstance(student, Trainable):
            raise ConfigError(
                'the session has no student to train: name an HFPolicy "self" in its policies, or '
                "one of your own that is a tutelage.policies.base.Trainable"
            )
        if not session.limits.temperature:
            raise ConfigError(
                "limits.temperature is 0, at which no token has a probability to learn from; give the "
                "session limits of a temperature above 0"
            )
        policies = dict(session.policies)
        wanted = {view.policy for view in algorithm.views.values()}
        if "reference" in wanted - set(policies):
            policies["reference"] = student.copied()
        for name, policy in policies.items():
            if isinstance(policy, Trainable) and policy is not student and name != "reference":
                policy.freeze()
        for name in sorted(wanted - set(policies)):
            raise ConfigError(
                f"the algorithm wants a policy {name!r}; add it to the session's policies, which "
                f"are {', '.join(sorted(policies))}"
            )
        session = replace(session, policies=policies)
        self.hinter = Hinter(session=session, seed=seed)
        self.session = replace(session, ready=self.hinter)
        self.algorithm, self.student, self.seed, self.step = algorithm, student, seed, 0
        self.update = Update(
            max_tokens_per_pass=max_tokens_per_pass,
            minibatches=minibatches,
            epochs=epochs,
            grad_clip=grad_clip,
            temperature=session.limits.temperature,
            device=student.device,
        )
        self.optimizer = adamw(
            student.parameters(), lr=lr, betas=betas, weight_decay=weight_decay, offload=False
        )
        self.notebook = Notebook() if in_notebook() else None

    def play(self, tasks: Sequence[Task], group_size: int = 1) -> list[Episode]:
        """`group_size` episodes of every task, by the policies that the algorithm lets act."""
        whole("group_size", group_size, least=1)
        _all_of("tasks", tasks, Task, "those of a suite, such as suite.tasks('train')[:16]")
        for k, task in enumerate(tasks):
            try:
                checked(task, f"task {k}")
            except (TypeError, ValueError) as error:
                raise ConfigError(str(error)) from None
        return play(
            self.session,
            tasks,
            self.algorithm,
            seed=self.seed,
            step=self.step,
            group_size=group_size,
        )

    def learn(self, episodes: Sequence[Episode]) -> Report:
        """One step: its losses by term, the gradient's norm, and every signal's value a token.

        Broken and empty episodes, and those that are too long for a view, are left out. Raises
        RunError where none is left, a token id is not in the student's vocabulary, or a gradient is
        not finite; no gradient is left over then.
        """
        _all_of("episodes", episodes, Episode, "what `play` returned")
        if not episodes:
            raise RunError("there is no episode to learn from; give those that `play` returned")
        policies, prompts = self.session.policies, self.session.prompter
        usable = usable_episodes(self.algorithm, episodes, policies, prompts, step=self.step)
        groups = len({episode.group for episode in usable})
        with delayed():
            report = train_step(
                self.algorithm,
                learnt(self.algorithm, usable, groups),
                policies,
                self.optimizer,
                prompts,
                self.update,
                step=self.step,
                seed=self.seed,
                clock=self.session.clock,
            )
            self.hinter.settle(episodes)
            self.step += 1
        if self.notebook is not None:
            board = self.notebook
            board.title, board.done, board.steps = "training", self.step, self.step
            board.add(
                success=sum(e.won for e in usable) / len(usable),
                loss=math.fsum(report.losses.values()),
            )
        return report


def _all_of(name: str, values: object, wanted: type, what: str) -> None:
    """Raises ConfigError for what is no sequence of these."""
    kind(name, values, Sequence, what)
    for value in cast(Sequence[object], values):
        kind(f"one of the {name}", value, wanted, what)
