"""Every setting of a run: its type, its default and its meaning. `toml_file` reads and writes them.

A file has the sections [run] [env] [context] [rollout] [algorithm] [update] [policy] [eval], and
where needed [warm_start], [hints] and one [policies.NAME] for each further model. `[env] suite`,
`[policy] model` and `[algorithm] name` are enough to train; all else has a default that runs.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.fields import FieldInfo

MOST = 10**9
"""No count is larger: a step number or a token count beyond it is a slip of the keyboard."""


def _without_nul(text: str) -> str:
    # the operating system refuses such a path with a traceback of its own
    if "\0" in text:
        raise ValueError("contains a NUL character, which no path or name can hold; remove it")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
At0 = Annotated[int, Field(ge=0, le=MOST)]
At1 = Annotated[int, Field(ge=1, le=MOST)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Temperature = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


def _decay(values: list[float]) -> list[float]:
    if len(values) not in (2, 3) or any(not 0 <= x <= 1 for x in values[:2]):
        raise ValueError(
            "must be [start, end], which ends at the last step, or [start, end, steps], with a "
            "start and an end from 0 to 1"
        )
    if values[0] <= 0 or (len(values) == 3 and (values[2] < 1 or values[2] != int(values[2]))):
        raise ValueError("needs a start above 0, and a whole number of steps where it names one")
    return values


Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Decay = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], AfterValidator(_decay)]
LearningRate = (
    Rate | Annotated[dict[Literal["linear", "cosine"], Decay], Field(min_length=1, max_length=1)]
)
"""A number, or {linear = [start, end]} and {cosine = [start, end]} from the end of the warm-up to
the last step (or over so many steps, where a third number names them)."""

InvalidPenalty = (
    NotNegative | Annotated[dict[Literal["format", "refused"], NotNegative], Field(min_length=1)]
)


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class RunSection(Section):
    folder: Text = ""
    """Where everything is written; runs/NAME after the file's name if empty."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    """Of everything random: equal runs on a CPU write equal bytes."""
    steps: At1 = 100
    """Training steps, the warm start not counted."""
    checkpoint_every: At1 = 25
    """Steps between checkpoints, of which the newest two stay."""
    columns: bool = False
    """Write every signal of every token to columns.jsonl: large, for plots and viewers."""


class EnvSection(Section):
    suite: Text
    """A built-in suite (`tutelage envs` lists them) or your own as "package.module:Class"."""
    options: dict[str, JsonValue] = {}
    """Keyword arguments of the suite."""
    split: Text = "train"
    """Tasks to train on."""
    workers: Literal["auto"] | At0 = "auto"
    """Processes that environments run in; 0 is the training process itself. "auto" is 0 for
    built-in suites (but 1 for scienceworld, which starts Java, and 8 where an option `url` names a
    server), else 1."""
    deadline: Positive = 60.0
    """Seconds that a reset or a step may take in a worker before the episode is given up."""


class ContextSection(Section):
    history: Literal["all"] | At0 = "all"
    """Turns that a prompt shows besides the current one: "all" is one growing conversation, a
    number a new prompt every turn with that many past turns."""
    render: Text = "text"
    """How observations are worded: text, actions (lists the admissible ones) or the suite's own."""
    instructions: bool = True
    """Whether the system message holds the suite's instructions and the answer format."""


class RolloutSection(Section):
    tasks_per_step: At1 = 16
    """Different tasks in a training step; as many as the split has where that is fewer and this
    is not set."""
    group_size: At1 = 1
    """Episodes of each task, which group-relative advantages compare; where it is not set, 8 for
    an algorithm that compares them."""
    max_turns: At1 = 50
    """Turns of an episode."""
    max_new_tokens: At1 = 512
    """Sampled tokens of one turn."""
    temperature: Temperature = 1.0
    """Of sampling; every score is taken at it too."""
    concurrency: At1 = 64
    """Episodes that are played, and decoded, at the same time."""
    invalid_penalty: InvalidPenalty = 0.0
    """Taken off the reward of an invalid turn. A number is for every one; {format = 0.1} only for
    an answer without a readable action, {refused = 0.1} only for an action that the environment
    refuses, and what the table leaves out does not count as invalid."""
    replay: Text = ""
    """An episodes.jsonl whose won episodes take the expert's place, to imitate or to continue."""


class AlgorithmSection(Section):
    """A name from `tutelage algorithms`; every other key is an argument of that algorithm."""

    model_config = ConfigDict(extra="allow")

    name: Text
    """The method: `tutelage algorithms` lists them; your own as "package.module:function"."""

    def arguments(self) -> dict[str, JsonValue]:
        return dict(self.model_extra or {})


class WarmStartSection(AlgorithmSection):
    """An algorithm that runs before step 0 of the main one, with [update]'s other settings."""

    steps: At1
    """Its training steps."""
    lr: LearningRate
    """Its learning rate, a number or a schedule over its steps."""


class UpdateSection(Section):
    lr: LearningRate = 1e-5
    """Learning rate: a number, or {linear = [start, end]} or {cosine = [start, end]}, which goes
    from the end of the warm-up to the last step."""
    warmup: At0 = 0
    """Steps in which the learning rate rises to its first value."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.95)
    """Decay of AdamW's two moments."""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled weight decay."""
    grad_clip: Positive = 1.0
    """Largest norm of a gradient."""
    max_tokens_per_pass: At1 = 16_384
    """Tokens of one forward and backward pass, with policy.compile padded ones: memory, never the
    result."""
    minibatches: At1 = 1
    """Optimiser steps that a step's episodes are divided into."""
    epochs: At1 = 1
    """Passes over a step's episodes."""
    offload: bool = False
    """Keep the optimiser's moments in main memory, and compute its steps there."""


MODEL_KEYS = "build layers dtype device lora quantize gradient_checkpointing compile sampler"
"""What a model on a server does not take: the server decides it."""
HEAD = 32
"""Width of an attention head of a built model."""


class BuildSection(Section):
    """A small model with random weights, of the Qwen3 architecture, with policy.layers layers.

    Its other sizes follow from `hidden`: heads of 32, half as many for keys and values, a
    feed-forward layer three times as wide.
    """

    hidden: Annotated[int, Field(ge=2, le=2**16)]
    """Width of the residual stream: a multiple of 32, or an even number below."""
    context: At1
    """Tokens that it can read."""

    @model_validator(mode="after")
    def _fits(self) -> "BuildSection":
        if self.hidden % (HEAD if self.hidden >= HEAD else 2):
            raise ValueError(f"hidden must be a multiple of {HEAD}, or an even number below")
        return self

    @property
    def heads(self) -> int:
        return max(1, self.hidden // HEAD)

    @property
    def kv_heads(self) -> int:
        return self.heads if self.heads % 2 else self.heads // 2

    @property
    def ffn(self) -> int:
        return 3 * self.hidden


class SamplerSection(Section):
    """vLLM samples the student's turns, and receives its weights before it plays."""

    url: Text = ""
    """A server's address; vLLM in this process if empty."""
    options: dict[str, JsonValue] = {}
    """In this process: arguments of vllm.LLM, such as gpu_memory_utilization (0.35 if left out)."""
    folder: Text = ""
    """Where weights are passed on, seen by both sides; this machine's memory if empty."""
    truncate: Positive = 2.0
    """Largest importance weight of a token: trainer's probability over sampler's."""
    max_mismatch: Positive = 0.1
    """Nats by which the sampler's log-probabilities may differ from the trainer's on average."""

    @model_validator(mode="after")
    def _one_place(self) -> "SamplerSection":
        if self.url and self.options:
            raise ValueError("has options, which only vLLM in this process takes: remove its url")
        return self


class ChatSection(Section):
    """The chat template that turns messages into tokens."""

    options: dict[str, JsonValue] = {}
    """Arguments of the template, such as enable_thinking."""
    template: Text = ""
    """A Jinja file that replaces the tokenizer's own template."""


class PolicySection(Section):
    model: Text = ""
    """A folder, a hub id, a run's folder (its last checkpoint), "builtin:NAME", an engine of your
    own as "package.module:Class" (with #TEXT for it to read), or for a further model a server's
    address, "http://host:8000" (with #NAME where it serves several)."""
    layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Keep only the first so many layers of a `model`; of a built one, how many (4)."""
    build: BuildSection | None = None
    """Instead of `model`: a new one."""
    tokenizer: Text | Annotated[int, Field(ge=512, le=2**24)] = ""
    """Of a built model: a folder, another policy's name, or how many entries a new one that is
    trained on the suite's texts has (2048). Of one on a server: a folder or another policy's name;
    the student's if empty."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of activations; trained weights and the optimiser's state stay float32."""
    lora: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Of the student: the rank of low-rank adapters to train instead of its weights; 0 has none."""
    quantize: Literal["none", "nf4"] = "none"
    """Keep weights of linear layers in 4 bits: of further models, or of a student with lora."""
    gradient_checkpointing: bool = False
    """Of the student: drop activations inside layers and recompute them in the backward pass."""
    compile: bool = False
    """Use torch.compile for scoring and training (not for sampling): minutes at the start."""
    device: Text = "auto"
    """"cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one."""
    template_history: Literal["exact", "append"] = "exact"
    """What to do with a chat template that rewrites past turns: refuse it, or keep every turn as
    it was sampled."""
    chat: ChatSection = ChatSection()
    """Its chat template."""
    key: Text = ""
    """The environment variable that holds the key of its server, or of its sampler's."""
    sampler: SamplerSection | None = None
    """Of the student: vLLM, to sample its turns."""

    @property
    def url(self) -> str:
        """The address of a model on a server, else empty."""
        served = self.model.startswith(("http://", "https://"))
        return self.model.partition("#")[0].rstrip("/") if served else ""

    @property
    def served_name(self) -> str:
        """The model's name on its server; empty takes the first that it lists."""
        return self.model.partition("#")[2] if self.url else ""

    @property
    def entries(self) -> int:
        """Entries of a tokenizer that is trained on the suite, at most."""
        return self.tokenizer if isinstance(self.tokenizer, int) else 2048

    @model_validator(mode="after")
    def _one_source(self) -> "PolicySection":
        if self.url:
            return self._remote()
        if bool(self.model) == (self.build is not None):
            raise ValueError("needs exactly one of model and build")
        if self.tokenizer and self.build is None:
            raise ValueError("has a tokenizer, which only a built model or one on a server takes")
        if self.build is not None and (self.lora or self.quantize != "none"):
            raise ValueError("has lora or quantize, which are for a `model`, not for a built one")
        if self.lora and self.sampler is not None:
            raise ValueError("has lora and a sampler, which takes whole weights: leave one out")
        if self.key and not (self.sampler and self.sampler.url):
            raise ValueError("has a key, but no server that asks for one")
        return self

    def _remote(self) -> "PolicySection":
        for name in MODEL_KEYS.split():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"has {name}, which a model on a server does not take")
        if isinstance(self.tokenizer, int):
            raise ValueError("has a number as tokenizer, which only a built model takes")
        return self


class HintsSection(Section):
    """Where privileged text comes from: the hints that views name, such as "skills"."""

    bank: Text = ""
    """Skills to show: a built-in bank, or a folder of text files; the suite's own if empty."""


class EvalSection(Section):
    every: At0 = 25
    """Evaluate before the first step, after every so many, and at the end; 0 never does."""
    split: Text = "seen"
    """Tasks to evaluate on."""
    tasks: At1 = 100
    """The first so many tasks of the split, always the same; all where it has fewer and this is
    not set."""
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    """0 takes the likeliest token."""
    hint: Text = ""
    """Evaluate a second time with this privileged text in the prompt, such as "skills"."""


class Config(Section):
    run: RunSection = RunSection()
    """How long, and where to."""
    env: EnvSection
    """What is played."""
    context: ContextSection = ContextSection()
    """What a prompt shows."""
    rollout: RolloutSection = RolloutSection()
    """How many episodes, and how long."""
    algorithm: AlgorithmSection
    """What is learnt from them."""
    warm_start: WarmStartSection | None = None
    """An algorithm that runs before the main one."""
    update: UpdateSection = UpdateSection()
    """How the weights change."""
    policy: PolicySection
    """The student."""
    policies: dict[str, PolicySection] = {}
    """Further models by name, such as "teacher"."""
    hints: HintsSection = HintsSection()
    """Where privileged text comes from."""
    eval: EvalSection = EvalSection()
    """How progress is measured."""

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
                "policy.model: the student is trained in this process; name a folder or a hub id, "
                "and to sample on a server set policy.sampler.url"
            )
        return self


# -- walking the schema


class Leaf(NamedTuple):
    """One setting: its full name, such as "policy.build.hidden", and what is known of it."""

    key: str
    field: FieldInfo


def section_of(annotation: object) -> type[BaseModel] | None:
    """The section that a field holds, alone, or None, or by name; None for a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_of(part))), None)


def leaves(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[Leaf]:
    """Every setting of every section in order; those of [policies.NAME] are [policy]'s."""
    for name, field in model.model_fields.items():
        below = section_of(field.annotation)
        if below is None:
            yield Leaf(prefix + name, field)
        elif name != "policies":
            yield from leaves(below, f"{prefix}{name}.")
