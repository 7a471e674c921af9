"""Whether the ranks of a run can work together: the same settings and models, and a group for each."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from tutelage.config.schema import Config, PolicySection
from tutelage.config.toml_file import write
from tutelage.errors import ConfigError
from tutelage.policies.base import OpenedPolicy, Sharding, Shards, Trainable
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.registry import open_policy
from tutelage.rollout.ranks import Ranks
from tutelage.runs import models
from tutelage.runs.assemble import Parts
from tutelage.runs.phases import acting


def refuse_unlike_settings(
    ranks: Ranks, config: Config, *, resume: bool, sharded: Sharding = "no"
) -> None:
    """Raises ConfigError on every rank where one was started with other settings than rank 0, and
    where one process is to divide weights."""
    if ranks.size == 1:
        if sharded != "no":
            raise ConfigError(
                "--sharded divides the student's layers over the ranks of torchrun, and this is one "
                "process; start with `torchrun --nproc-per-node N -m tutelage train FILE "
                "--sharded`, or leave --sharded out"
            )
        return
    facts = {"settings": write(config), "--resume": str(resume), "--sharded": sharded}
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


def refuse_always(parts: Parts) -> None:
    """Raises ConfigError where something needs the whole weights of a model that no rank is to hold:
    what plays in this process."""
    config = parts.config
    sampler = config.policy.sampler
    if sampler is None or not sampler.remote:
        raise ConfigError(
            "--sharded always: no rank has the whole student, so none can play with it; set "
            "policy.sampler.url to a server for each rank, or use --sharded update"
        )
    if sampler.transfer == "gloo":
        raise ConfigError(
            '--sharded always: policy.sampler.transfer = "gloo" sends weights that a rank holds whole; '
            "leave transfer out, or use --sharded update"
        )
    if config.rollout.ahead:
        raise ConfigError(
            "--sharded always: with rollout.concurrency ahead = 1 a process beside each rank holds "
            "the whole student; leave ahead out, or use --sharded update"
        )
    local = sorted(acting(config, parts.phases))
    if "reference" in local and "reference" not in config.policies:
        raise ConfigError(
            "--sharded always: the algorithm lets the reference play, of which no rank has the "
            "whole weights; use --sharded update"
        )
    if local:
        raise ConfigError(
            f"--sharded always: policies.{local[0]} plays turns, for which each rank would hold all "
            "of its weights; serve it (its url, or servers with --cluster), or use --sharded update"
        )


def divide(student: OpenedPolicy, *, offload: bool, always: bool = False, device: str = "") -> None:
    """Divide a policy's layers over the ranks. Raises ConfigError or PolicyError where it cannot
    be divided."""
    if not isinstance(student, Shards):
        raise ConfigError(
            f"policy.model: a {type(student).__name__} cannot be divided over ranks "
            "(tutelage.policies.base.Shards); leave --sharded out, or train a model of transformers"
        )
    student.shard(offload=offload, always=always, device=device)


def divide_all(policies: Mapping[str, OpenedPolicy], config: Config) -> None:
    """Divide the student and the models of transformers that score in this process, which are in
    main memory, for good, on the devices that their sections name."""
    for name, policy in policies.items():
        if name != "self" and not isinstance(policy, HFPolicy):
            continue  # on a server, or with a tokenizer of its own: see docs/scaling.md
        section, where = section_of(config, name)
        divide(
            policy,
            offload=config.update.offload,
            always=True,
            device=models.device_of(section, where=where),
        )


def section_of(config: Config, name: str) -> tuple[PolicySection, str]:
    """The section of a policy and its name."""
    own = name == "self"
    return (config.policy, "policy") if own else (config.policies[name], f"policies.{name}")


def divided_reference(parts: Parts, start: Path) -> OpenedPolicy:
    """The student of a checkpoint, frozen and divided for good."""
    config = parts.config
    host = models.in_main_memory(config, ["self"])
    policy = open_policy(
        models.opening_of(host, "self", parts.suite, parts.context, folder=str(start))
    )
    if isinstance(policy, Trainable):
        policy.freeze()
    device = models.device_of(config.policy, where="policy")
    divide(policy, offload=config.update.offload, always=True, device=device)
    return policy


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
