"""What a run is made of: every setting, its type and its only default. See `configfile` for TOML.

A file has the sections [run] [env] [context] [rollout] [algorithm] [update] [policy] [eval], and
where wanted [warm_start], [hints] and one [policies.NAME] for each further model.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

At0 = Annotated[int, Field(ge=0)]
At1 = Annotated[int, Field(ge=1)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class RunSection(Section):
    folder: str = ""
    """Where everything is written; runs/NAME after the file's name if empty."""
    seed: int = 0
    steps: At1
    """Training steps, the warm start not counted."""
    eval_every: At0 = 25
    """Evaluate before the first step, after every so many, and at the end; 0 never does."""
    checkpoint_every: At1 = 25
    keep: At0 = 2
    """The newest checkpoints that are kept; 0 keeps all."""
    threads: At0 = 0
    """Processor threads of torch; 0 leaves its own choice, within a container's quota. Other
    numbers, other last digits."""
    matmul: Literal["float32", "bfloat16", "blas"] = "float32"
    """How float32 matrices are multiplied on a processor. "float32" never rounds them, and takes
    oneDNN where that does not either; "bfloat16" takes oneDNN, and allows it to round their
    entries; "blas" takes the library torch was built with."""
    columns: bool = False
    """Write every signal of every token (columns.jsonl): large, and what plots are made of."""


class EnvSection(Section):
    suite: str
    """A built-in suite (`tutelage envs` lists them) or your own as "package.module:Class"."""
    options: dict[str, JsonValue] = {}
    """Keyword arguments of the suite."""
    split: str = "train"
    workers: Literal["auto"] | At0 = "auto"
    """Processes that environments run in; 0 is this one. "auto": 0 for built-in suites
    (but 1 for scienceworld, which starts Java, and 8 where an option `url` names a server that
    is asked), else 1."""
    deadlines: Annotated[tuple[Positive, Positive], Field(strict=False)] = (60.0, 30.0)
    """Seconds that a reset and a step may take in a worker before the episode is given up."""
    order: Literal["fixed", "arrival"] = "fixed"
    """Whether answers of workers are awaited in a fixed order (reproducible) or taken as they
    come."""


class ContextSection(Section):
    kind: Literal["transcript", "window"] = "transcript"
    """The whole conversation, or a fresh prompt every turn."""
    window: At0 = 2
    """Turns that a window shows besides the current one."""
    render: str = "text"
    """How observations are worded: text, actions (lists what is admissible), or the suite's own."""
    instructions: bool = True
    """Whether the suite's instructions, and how an answer is written, are the system message."""


class RolloutSection(Section):
    tasks_per_step: At1 = 16
    """Different tasks in a step."""
    group_size: At1 = 1
    """Episodes of each task: the group that group-relative advantages compare."""
    max_turns: At1 = 50
    max_new_tokens: At1 = 512
    """Tokens of one turn at most."""
    temperature: Positive = 1.0
    concurrency: At1 = 64
    """Episodes played at the same time."""
    invalid_penalty: NotNegative = 0.0
    """Taken off the reward of an invalid turn."""
    invalid: Literal["format", "any"] = "any"
    """Invalid is what cannot be read, or also what the environment refuses."""
    retries: At0 = 2
    """How often an episode is played again whose environment broke."""
    replay: str = ""
    """An episodes.jsonl whose won episodes stand for the expert's, to imitate or go on from."""


class AlgorithmSection(Section):
    """A name from `tutelage algorithms`; every other key is an argument of that algorithm."""

    model_config = ConfigDict(extra="allow")

    name: str

    def arguments(self) -> dict[str, JsonValue]:
        return dict(self.model_extra or {})


class WarmStartSection(AlgorithmSection):
    """An algorithm that is run before step 0 of the main one, with [update]'s other settings."""

    steps: At1
    lr: Positive


class UpdateSection(Section):
    lr: Positive
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after its warm-up: stay, or fall to 0 at the last step."""
    warmup: At0 = 0
    """Steps in which the learning rate rises to its value."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    weight_decay: NotNegative = 0.0
    grad_clip: Positive = 1.0
    """Largest norm of a gradient."""
    max_tokens_per_pass: At1 = 16_384
    """Tokens of one forward and backward pass, with policy.compile padded ones: memory, never the
    result."""
    minibatches: At1 = 1
    """Optimiser steps that a step's episodes are dealt into."""
    epochs: At1 = 1
    """Passes over a step's episodes."""
    offload: bool = False
    """Keep the optimiser's moments in main memory, and take its steps there."""
    mismatch: Positive = 0.1
    """Nats by which the sampler's log-probabilities may differ from the trainer's on average."""


class BuildSection(Section):
    """A small model with random weights, of the Qwen3 architecture. Its tokenizer is made of the
    environment's texts, with at most so many `entries`, unless policy.tokenizer names another."""

    layers: At1
    hidden: At1
    heads: At1
    kv_heads: At1
    ffn: At1
    context: At1
    entries: Annotated[int, Field(ge=512)] = 2048

    @model_validator(mode="after")
    def _fits(self) -> "BuildSection":
        if self.hidden % self.heads or self.hidden // self.heads % 2:
            raise ValueError("hidden must be an even multiple of heads")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        return self


class ServerSection(Section):
    """How a server is asked. Settings of the server itself are given to it when it is started."""

    dialect: Literal["vllm", "sglang"] = "vllm"
    """Whose requests it understands; `tutelage serve` understands vLLM's."""
    key: str = ""
    """The environment variable that holds its key, if it wants one."""
    concurrent: At1 = 16
    """Requests under way at a time."""
    deadline: Positive = 120.0
    """Seconds that an attempt may take."""
    retries: At0 = 5
    """Attempts after the first, with growing pauses between them."""
    context: At0 = 0
    """Its context in tokens; 0 believes what it says."""


class SamplerSection(Section):
    """vLLM samples the student's turns, and is given its weights before it plays."""

    url: str = ""
    """A server's address; vLLM in this process if empty."""
    model: str = ""
    """The student's name on the server; the first that it lists if empty."""
    server: ServerSection = ServerSection()
    folder: str = ""
    """Where weights are handed over, seen by both sides; memory of this machine if empty."""
    options: dict[str, JsonValue] = {}
    """In this process: arguments of vllm.LLM, such as gpu_memory_utilization (0.35 if left out)."""
    truncate: Positive = 2.0
    """Largest importance weight of a token: trainer's probability over sampler's."""

    @model_validator(mode="after")
    def _one_place(self) -> "SamplerSection":
        if self.url and self.options:
            raise ValueError("has options, which only vLLM in this process takes: remove its url")
        return self


class PolicySection(Section):
    model: str = ""
    """A folder, a hub id, a run's folder (its last checkpoint), or "builtin:NAME"."""
    url: str = ""
    """Of a model on a server: its address. `model` is then its name there, or empty."""
    server: ServerSection | None = None
    """Of a model on a server: how it is asked."""
    sampler: SamplerSection | None = None
    """Of the student: vLLM, to sample its turns."""
    layers: At1 | None = None
    """Of a `model`: its first so many layers only, to start a smaller student from a bigger one."""
    build: BuildSection | None = None
    """Instead of `model`: make a new one."""
    tokenizer: str = ""
    """Of a built model: a folder, another policy's name, or empty to train one on the suite. Of
    one on a server: a folder or another policy's name, or empty for the student's."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of activations; weights that are trained, and the optimiser, stay float32."""
    lora: At0 = 0
    """Of the student: the rank of low-rank adapters to train instead of its weights; 0 has none."""
    quantize: Literal["none", "nf4"] = "none"
    """Keep weights of linear layers in 4 bits: of further models, or of a student with lora."""
    gradient_checkpointing: bool = False
    """Of the student: forget activations inside layers, compute them again in the backward pass."""
    compile: bool = False
    """Use torch.compile for scoring and training (not for sampling): minutes at the start."""
    kernels: Literal["torch", "liger"] = "torch"
    """On a card: whose code computes normalisation, rotary positions and SwiGLU; "liger" needs the
    extra of that name."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one."""
    rows: At1 = 64
    """Episodes decoded together."""
    cache: NotNegative = 0.0
    """GB that keys and values of the turns under way may take; 0 is a third of the memory, shared
    by the models that act."""
    fast: bool = True
    """false takes the slow twin of every fast way to sample and score (docs/policies.md): to see
    whether one of them is to blame."""
    template_history: Literal["exact", "append"] = "exact"
    """What to do with a chat template that rewrites past turns: refuse it, or keep every turn as
    it was sampled."""
    options: dict[str, JsonValue] = {}
    """Switches of the chat template, such as enable_thinking."""
    chat_template: str = ""
    """A Jinja file that replaces the tokenizer's own template."""

    @model_validator(mode="after")
    def _one_source(self) -> "PolicySection":
        if self.url:
            return self._remote()
        if bool(self.model) == (self.build is not None):
            raise ValueError("needs exactly one of model and build, or a url")
        if self.server is not None:
            raise ValueError("has a server, but no url")
        if self.tokenizer and self.build is None:
            raise ValueError("has a tokenizer, which only a built model or one on a server takes")
        if self.layers and self.build is not None:
            raise ValueError("has layers, which a built model takes as build.layers")
        if self.build is not None and (self.lora or self.quantize != "none"):
            raise ValueError("has lora or quantize, which are for a `model`, not for a built one")
        if self.lora and self.sampler is not None:
            raise ValueError("has lora and a sampler, which is given whole weights: leave one out")
        return self

    def _remote(self) -> "PolicySection":
        for name in (
            "build", "layers", "dtype", "device", "rows", "sampler", "lora", "quantize",
            "gradient_checkpointing", "compile", "kernels", "cache", "fast",
        ):  # fmt: skip
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"has {name}, which a model on a server does not take")
        return self


class HintsSection(Section):
    """Where privileged text comes from: the hints that views name, such as "skills"."""

    bank: str = ""
    """Skills to show: a built-in bank, or a folder of text files; the suite's own if empty."""
    retrieval: Literal["family", "keyword", "similarity", "ucb", "random", "full"] = "family"
    """How skills are chosen for a task where a hint does not say it ("skills:random")."""
    allow_general: bool = False
    """Whether the general skills alone will do for a task that nothing matches."""
    written_tokens: At1 = 96
    """Tokens of a self-written hint at most."""
    written_temperature: NotNegative = 0.0
    """At which hints are written; 0 takes the likeliest token."""


class EvalSection(Section):
    split: str = "seen"
    tasks: At1 = 100
    """The first so many tasks of the split: always the same."""
    temperature: NotNegative = 0.0
    """0 takes the likeliest token."""
    hint: str = ""
    """Evaluate a second time with this privileged text in the prompt, such as "skills"."""


class Config(Section):
    run: RunSection
    env: EnvSection
    context: ContextSection = ContextSection()
    rollout: RolloutSection = RolloutSection()
    algorithm: AlgorithmSection
    warm_start: WarmStartSection | None = None
    update: UpdateSection
    policy: PolicySection
    """The student."""
    policies: dict[str, PolicySection] = {}
    """Further models by name, such as "teacher"."""
    hints: HintsSection = HintsSection()
    eval: EvalSection = EvalSection()

    @model_validator(mode="after")
    def _names(self) -> "Config":
        for name in ("self", "student", "expert"):
            if name in self.policies:
                raise ValueError(f"policies.{name} uses a name that means the student or expert")
        if self.policy.quantize != "none" and not self.policy.lora:
            raise ValueError(
                "policy.quantize without policy.lora: weights in 4 bits cannot be trained"
            )
        for name, section in self.policies.items():
            if section.lora or section.gradient_checkpointing:
                raise ValueError(
                    f"policies.{name} has lora or gradient_checkpointing, but only the student, "
                    "[policy], is trained"
                )
            if section.sampler is not None:
                raise ValueError(f"policies.{name}.sampler: only the student has a sampler")
        if self.policy.url:
            raise ValueError(
                "policy.url: the student is trained in this process; give it a model, and to "
                "sample on a server policy.sampler.url"
            )
        return self
