"""What the models of a run take in memory, from their shapes alone."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tutelage import cpu
from tutelage.cli import model_sizes, update_memory
from tutelage.config.paths import expanded
from tutelage.config.schema import Config, PolicySection
from tutelage.envs.addresses import address
from tutelage.errors import ConfigError
from tutelage.objective import Distill, Entropy
from tutelage.policies import registry
from tutelage.policies.hf import architecture
from tutelage.policies.hf.generation import MAX_PREFILL_TOKENS_GPU
from tutelage.policies.hf.kv_cache import GB, budget
from tutelage.runs import models
from tutelage.runs.phases import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A policy's size. Bytes are estimates; None where its shape is not known."""

    name: str
    source: str
    shape: model_sizes.Shape | None
    weights: int | None
    moments: int = 0  # Adam's two, for the student only
    update: int = 0  # gradients, activations and the loss, likewise
    cache: int | None = None
    prompts: int = 0  # activations of a pass over prompts, on a GPU
    saved: int = 0  # bytes of a checkpoint: the trained weights and their moments
    misfit: str = ""  # why the model cannot take the fast path, as far as its configuration tells
    ahead: bool = False  # it is the one of the process that plays while the student learns
    alone: int | None = None  # its weights where it cannot share the student's frozen ones

    @property
    def training(self) -> int | None:
        """Bytes that only a student takes; None where the shape is not known."""
        return None if self.weights is None else self.moments + self.update


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the models are: whether on a GPU, and the bytes of its memory (0 if unknown)."""

    gpu: bool
    memory: int

    @classmethod
    def this(cls) -> "Machine":
        room, _ = memory()
        return cls(gpu=torch.cuda.is_available(), memory=room)

    @property
    def words(self) -> str:
        return f"{in_bytes(self.memory)} of {'GPU memory' if self.gpu else 'memory'}"


def memory_of(models: Iterable[Model]) -> int:
    found = list(models)
    always = sum((m.weights or 0) + m.moments + (m.cache or 0) * m.ahead for m in found)
    playing = sum(m.cache or 0 for m in found if not m.ahead)
    playing += max((m.prompts for m in found), default=0)  # one samples at a time
    return always + max(playing, sum(m.update for m in found))


def to_load(models: Iterable[Model]) -> int:
    """Bytes of main memory for the largest of the models while it is loaded: in float32, before it is
    rounded or packed and moved to a GPU."""
    return max((4 * m.shape.parameters() for m in models if m.shape), default=0)


def divided(shape: model_sizes.Shape, section: PolicySection) -> tuple[int, int]:
    """Parameters of a student that --sharded divides over ranks, and the bytes of each as a weight:
    those of linear layers and experts, which beside adapters are frozen."""
    low = section.lora and section.dtype == "bfloat16"
    return shape.linear() + shape.in_experts(), 2 if low else 4


def divided_memory(
    models: Iterable[Model],
    shape: model_sizes.Shape,
    section: PolicySection,
    ranks: int,
    *,
    always: bool = False,
) -> int:
    """As `memory_of`, where --sharded divides the first of the models over so many ranks. Its whole
    weights are there while episodes are played, and this rank's rows of them at any time. Where they
    are `always` divided, servers play, and nobody has them."""
    student, *others = (replace(m, weights=m.alone) if m.alone else m for m in models)
    count, size = divided(shape, section)
    trained = 0 if section.lora else count
    rows, left = size * count // ranks, 1 - 1 / ranks
    moments = student.moments - int(8 * trained * left) if student.moments else 0
    always_there = sum((m.weights or 0) + m.moments for m in others) + moments + rows
    copy = 2 * count if section.dtype == "bfloat16" and not section.lora else 0
    playing = (student.weights or 0) + sum(m.cache or 0 for m in (student, *others))
    playing += max(m.prompts for m in (student, *others))
    learning = (student.weights or 0) - size * count - copy
    if always:
        playing = learning
        always_there -= sum(int(left * _layers_of(m)) for m in others)
    learning += student.update - int(4 * trained * left)
    return always_there + max(playing, learning)


def _layers_of(model: Model) -> int:
    """Bytes of the layers of a model that only scores, in this process."""
    if model.shape is None or model.weights is None:
        return 0
    layers = model.shape.linear() + model.shape.in_experts()
    return model.weights * layers // max(1, model.shape.parameters())


def _shape(name: str, config: Config) -> tuple[str, model_sizes.Shape | None]:
    where = "policy" if name == "student" else f"policies.{name}"
    section: PolicySection = config.policy if name == "student" else config.policies[name]
    if section.url:
        shown = address(section.url, where=f"{where}.model").shown
        return f"{section.served_name or 'a model'} at {shown}", None
    if section.servers:
        return f"{section.model} on servers of the cluster", None
    if not registry.named(section).ours:
        registry.engine_of(section, where=where)  # refuses one that is not there
        return f"{section.model} of an engine of yours", None
    models.device_of(section, where=where)
    if section.build is not None:
        entries = _entries(section, config, where)
        return "built", model_sizes.built(section.build, section.layers or models.LAYERS, entries)
    place = models.locate(section.model, where=where)
    local = Path(place)
    shape = model_sizes.read(local) if local.is_dir() else model_sizes.named(section.model)
    if shape and section.layers:
        if section.layers > shape.layers:
            raise ConfigError(
                f"{where}.layers = {section.layers}: {section.model} has {shape.layers} layers"
            )
        shape = replace(shape, layers=section.layers)
    if shape and shape.experts and section.lora and section.quantize != "none":
        raise ConfigError(
            f"{where} is a mixture of experts, which take no adapters once quantize packs them; "
            "leave quantize or lora out"
        )
    return section.model, shape


def _entries(section: PolicySection, config: Config, where: str) -> int:
    """Entries of a built model's vocabulary, as far as known without loading a tokenizer."""
    tokenizer = section.tokenizer
    if isinstance(tokenizer, int):
        return section.entries
    if tokenizer in config.policies:
        shape = _shape(tokenizer, config)[1]
        return shape.vocab if shape else section.entries
    if tokenizer:
        models.locate(tokenizer, where=where)
    return section.entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What decides the memory of a run besides its settings."""

    machine: Machine
    used: Collection[str]  # policies besides the student
    acting: Collection[str]
    episode: int  # tokens
    rows: int  # see `update_memory.beside`


def rows_of(phases: Iterable[Phase]) -> int:
    """Tensors over the vocabulary that a loss holds for a divergence to a teacher, or an entropy."""
    terms = [term for phase in phases for term in phase.algorithm.terms]
    return 2 if any(isinstance(term, Distill | Entropy) for term in terms) else 0


def models_of(config: Config, need: Need) -> tuple[Model, ...]:
    """The models of a run, the student first."""
    found = []
    for name in ("student", *sorted(need.used)):
        copied = name == "reference" and name not in config.policies
        owner = "student" if name == "student" or copied else name
        section = config.policy if owner == "student" else config.policies[owner]
        source, shape = _shape(owner, config)
        source = "a copy of the student" if copied else source
        if shape is None:
            misfit = _misfit(section)
            found.append(Model(name=name, source=source, shape=None, weights=None, misfit=misfit))
        else:
            model = _model(name, source, shape, section, config, need)
            found.append(_sharing(model, section) if copied and section.lora else model)
    if config.rollout.ahead:
        gpu = _on_gpu(config.policy, need.machine)
        acting = [m for m in found if m.shape and (m.cache or m.name == "student")]
        found += [_playing_ahead(model, config, gpu=gpu) for model in acting]
    return tuple(found)


def _sharing(reference: Model, section: PolicySection) -> Model:
    """A copy of adapters on the weights of the student."""
    assert reference.shape is not None
    assert reference.weights is not None
    adapters = 4 * reference.shape.adapters(section.lora)
    return replace(
        reference,
        source="a copy of the student's adapters",
        weights=reference.weights - reference.shape.weights(section, frozen=True) + adapters,
        alone=reference.weights,
    )


def _playing_ahead(model: Model, config: Config, *, gpu: bool) -> Model:
    """The same model in the process that plays one step ahead. The weights that it was given last
    are kept beside the student's, in main memory."""
    copy = 0
    if model.shape and model.name == "student" and not gpu:
        copy = 4 * model.shape.trained(config.policy)
    return replace(
        model,
        name=f"{model.name}, playing ahead",
        source="the same, in another process",
        weights=(model.weights or 0) + copy,
        moments=0,
        update=0,
        saved=0,
        ahead=True,
    )


def _model(
    name: str,
    source: str,
    shape: model_sizes.Shape,
    section: PolicySection,
    config: Config,
    need: Need,
) -> Model:
    trains, gpu = name == "student", _on_gpu(section, need.machine)
    acts = ("self" if trains else name) in need.acting
    weights = shape.weights(section, frozen=not trains)
    if acts and gpu and section.dtype == "bfloat16":
        weights += 2 * shape.vocab * shape.hidden  # the LM head that samples
    update = 0
    if trains:
        update = 4 * shape.trained(section) + update_memory.beside(
            shape, section, _pass_tokens(config, shape, need), gpu=gpu, rows=need.rows
        )
    return Model(
        name=name,
        source=source,
        shape=shape,
        weights=weights,
        moments=8 * shape.trained(section) if trains and not config.update.offload else 0,
        update=update,
        cache=_cache(config, section, shape, need) if acts else 0,
        prompts=_prompts(config, section, shape, need) if acts and gpu else 0,
        saved=(12 + 4 * config.rollout.ahead) * shape.trained(section),
    )


def _misfit(section: PolicySection) -> str:
    """Why a model takes the plain path, if it is in a folder whose configuration says so."""
    folder = expanded(section.model)
    if section.build is not None or section.remote or not (folder / "config.json").is_file():
        return ""
    from transformers import AutoConfig

    try:
        described = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # said when the model is loaded
        return ""
    return architecture.misfit(described)


def _pass_tokens(config: Config, shape: model_sizes.Shape, need: Need) -> int:
    """Tokens of the largest pass: at most those of a step. A sequence is never divided."""
    episode, rollout = min(need.episode, shape.context), config.rollout
    step = rollout.tasks_per_step * rollout.group_size * episode
    return max(min(config.update.max_tokens_per_pass, step), episode)


def _on_gpu(section: PolicySection, machine: Machine) -> bool:
    if section.device == "auto":
        return machine.gpu
    return models.device_of(section, where="policy").startswith("cuda")


def _cache(config: Config, section: PolicySection, shape: model_sizes.Shape, need: Need) -> int:
    """Largest KV cache in bytes, within its engine's budget, but at least one sequence."""
    r = config.rollout
    rows = min(r.slots, r.tasks_per_step * r.group_size)
    row = shape.cache(min(need.episode, shape.context), model_sizes.BYTES[section.dtype])
    room = budget(
        "cuda" if _on_gpu(section, need.machine) else "cpu",
        wanted=models.kv_cache_gb(),
        engines=max(1, len(need.acting)) * (1 + r.ahead),
        total=need.machine.memory,
    )
    return max(row, min(rows * row, room))


def _prompts(config: Config, section: PolicySection, shape: model_sizes.Shape, need: Need) -> int:
    """Activations of the largest pass over prompts, where one kernel reads all slots.

    A token has its residual in float32 twice and its norm in 16 bits. Beside them are, in 16 bits, a
    gated MLP's two inputs, the activation of one and their product; or queries while they are turned
    and normalised, mostly in float32.
    """
    if section.dtype != "bfloat16":
        return 0
    r = config.rollout
    rows = min(r.slots, r.tasks_per_step * r.group_size)
    tokens = min(MAX_PREFILL_TOKENS_GPU, rows * min(need.episode, shape.context))
    gated, queries = shape.ffn * max(1, shape.active), shape.heads * shape.head_dim
    return tokens * (10 * shape.hidden + max(8 * gated, 20 * queries))


def memory() -> tuple[int, str]:
    """Bytes that models can use here (0 if unknown), and the kind of memory."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], "GPU memory"
    return cpu.memory(), "memory"


def in_bytes(count: float) -> str:
    """Bytes in readable form.

    >>> in_bytes(2.4e9), in_bytes(350_000)
    ('2.4 GB', '0.35 MB')
    """
    if count >= GB:
        return f"{count / GB:.1f} GB"
    return f"{count / 1e6:.3g} MB"


def in_parameters(parameters: int) -> str:
    """A number of parameters in readable form.

    >>> in_parameters(596_049_920), in_parameters(656_128)
    ('596 million', '0.656 million')
    """
    if parameters >= 1e9:
        return f"{parameters / 1e9:.3g} billion"
    return f"{parameters / 1e6:.3g} million"
