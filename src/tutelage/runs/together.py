"""Whether the ranks of a run can work together: the same settings and models, and a group for each."""

import hashlib
from collections.abc import Mapping

import torch

from tutelage.config.schema import Config
from tutelage.config.toml_file import write
from tutelage.errors import ConfigError
from tutelage.policies.base import Shards, Trainable
from tutelage.rollout.ranks import Ranks
from tutelage.runs.assemble import Parts


def refuse_unlike_settings(
    ranks: Ranks, config: Config, *, resume: bool, sharded: bool = False
) -> None:
    """Raises ConfigError on every rank where one was started with other settings than rank 0, and
    where one process is to divide weights."""
    if ranks.size == 1:
        if sharded:
            raise ConfigError(
                "--sharded divides the student's layers over the ranks of torchrun, and this is one "
                "process; start with `torchrun --nproc-per-node N -m tutelage train FILE "
                "--sharded`, or leave --sharded out"
            )
        return
    facts = {"settings": write(config), "--resume": str(resume), "--sharded": str(sharded)}
    ranks.refuse_unlike(
        {name: hashlib.sha256(text.encode()).hexdigest() for name, text in facts.items()},
        "was started with other {name} than rank 0; give every rank the same file and settings",
    )


def refuse_idle_ranks(ranks: Ranks, parts: Parts) -> None:
    """Raises ConfigError where there are more ranks than groups in a step of some phase, or than
    servers to sample on: ranks that hand weights to the same one would be in each other's way."""
    sampler = parts.config.policy.sampler
    if sampler is not None and 0 < len(sampler.urls) < ranks.size:
        raise ConfigError(
            f"there are {ranks.size} ranks but {len(sampler.urls)} in policy.sampler.url, and each "
            "rank hands its weights to servers of its own; start a server for each rank and list "
            "their addresses, or start fewer ranks (--nproc-per-node)"
        )
    rollout = parts.config.rollout
    for phase in parts.phases:
        groups = rollout.tasks_per_step
        if phase.algorithm.acting.expert:  # which plays a task once
            groups = min(groups * rollout.group_size, len(parts.tasks))
        if groups < ranks.size:
            raise ConfigError(
                f"there are {ranks.size} ranks but {groups} groups in a step, and each rank plays "
                "whole groups; raise rollout.tasks_per_step, or start fewer ranks "
                "(--nproc-per-node)"
            )


def divide(student: Trainable, *, offload: bool) -> None:
    """Divide a student's layers over the ranks. Raises ConfigError or PolicyError where it cannot
    be divided."""
    if not isinstance(student, Shards):
        raise ConfigError(
            f"policy.model: a {type(student).__name__} cannot be divided over ranks "
            "(tutelage.policies.base.Shards); leave --sharded out, or train a model of transformers"
        )
    student.shard(offload=offload)


@torch.no_grad()
def refuse_unlike_models(ranks: Ranks, chats: Mapping[str, str], student: Trainable) -> None:
    """Raises ConfigError on every rank where one loaded other models than rank 0.

    chats  by policy, the fingerprint of its tokenizer and chat template
    """
    if ranks.size == 1:
        return
    sums = [float(x) for p in student.parameters() for x in (p.double().sum(), p.double().norm())]
    weights = hashlib.sha256(repr(sums).encode()).hexdigest()
    ranks.refuse_unlike(
        {"student": weights, **{f"tokenizer of {n}": x for n, x in chats.items()}},
        "loaded another {name} than rank 0; see that model paths mean the same files on every machine",
    )
