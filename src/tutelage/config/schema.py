"""The schema of a run's settings: type, default and description of each.

A file has the sections [run] [env] [context] [rollout] [algorithm] [update] [policy] [eval], and
optionally [warm_start], [hints] and one [policies.NAME] for each further model. `[env] suite`,
`[policy] model` and `[algorithm] name` are enough to train; everything else has a default.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.fields import FieldInfo

from tutelage.config.paths import expanded

MOST = 10**9
"""Upper bound of all counts; a larger number of steps or tokens is a typing error."""
MOST_EPISODES = 2**20
"""Upper bound of the episodes of one step, which are all in memory until it ends."""
MOST_AT_A_TIME = 2**16
"""Upper bound of the episodes that are played at the same time."""
AT_A_TIME = 64
"""Episodes that are played at the same time where no number is set."""
LONGEST = 4096
"""Characters of a path, a name or an address; Linux takes no longer path."""
LONGEST_NAME = 255
"""Bytes of one part of a path, on every usual file system."""


def _usable(text: str) -> str:
    """Refuse texts that the operating system would refuse with a traceback."""
    if "\0" in text:
        raise ValueError("contains a NUL character, which no path or name can hold; remove it")
    if len(text) > LONGEST:
        raise ValueError(
            f"has {len(text):,} characters, but a path or name has at most {LONGEST:,}; shorten it"
        )
    parts = text.encode(errors="replace").split(b"/")
    if "://" not in text and max(map(len, parts)) > LONGEST_NAME:
        raise ValueError(
            f"has a part of more than {LONGEST_NAME} bytes between two slashes, which no file "
            "system takes; shorten it"
        )
    return text


def _at_home(text: str) -> str:
    """As a shell would have it: otherwise a folder that is called "~" would appear."""
    return str(expanded(text)) if text.startswith("~") else text


Text = Annotated[str, AfterValidator(_usable)]
PathText = Annotated[str, AfterValidator(_usable), AfterValidator(_at_home)]
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
        raise ValueError(
            "needs a start above 0, and an integer number of steps if it has a third value"
        )
    return values


Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Decay = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], AfterValidator(_decay)]
LearningRate = (
    Rate | Annotated[dict[Literal["linear", "cosine"], Decay], Field(min_length=1, max_length=1)]
)
"""A number, or {linear = [start, end]} and {cosine = [start, end]} from the end of the warm-up to
the last step (or over that many steps, if there is a third number)."""


def _overlap(values: dict[str, int]) -> dict[str, int]:
    if not 1 <= values.get("episodes", 1) <= MOST_AT_A_TIME:
        raise ValueError(f"has episodes = {values['episodes']}, not from 1 to {MOST_AT_A_TIME:,}")
    if not 0 <= values.get("ahead", 0) <= 1:
        raise ValueError(
            f"has ahead = {values['ahead']}, but episodes are played at most 1 step ahead"
        )
    return values


Concurrency = (
    Annotated[int, Field(ge=1, le=MOST_AT_A_TIME)]
    | Annotated[
        dict[Literal["episodes", "ahead"], int], Field(min_length=1), AfterValidator(_overlap)
    ]
)
InvalidPenalty = (
    NotNegative | Annotated[dict[Literal["format", "refused"], NotNegative], Field(min_length=1)]
)


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class RunSection(Section):
    folder: PathText = ""
    """Folder of the run's files; if empty, runs/NAME with the file's name."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    """Seed of all random draws; equal runs on a CPU write equal bytes."""
    steps: At1 = 100
    """Training steps, without those of the warm start."""
    checkpoint_every: At1 = 25
    """Steps between checkpoints; the newest two are kept."""
    columns: bool | Literal["alternatives"] = False
    """Write every signal of every token to columns.jsonl, for plots and viewers; the file is large.
    "alternatives" adds the 5 likeliest tokens of each view whose distribution is computed."""


class EnvSection(Section):
    suite: Text
    """A built-in suite (`tutelage envs` lists them) or your own as "package.module:Class"."""
    options: dict[str, JsonValue] = {}
    """Keyword arguments of the suite."""
    split: Text = "train"
    """Tasks to train on."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=1024)] = "auto"
    """Worker processes for environments; 0 runs them in the training process. "auto" is 0 for
    built-in suites (but 1 for scienceworld and textworldexpress, which start Java, and 8 if an option
    `url` names a server), else 1."""
    deadline: Positive = 60.0
    """Seconds that a reset or step may take in a worker before the episode is stopped."""


class ContextSection(Section):
    history: Literal["all"] | At0 = "all"
    """Past turns in a prompt: "all" is one growing conversation; a number gives every turn a new
    prompt with that many past turns."""
    render: Text = "text"
    """How observations are written: text, actions (adds the admissible ones) or one of the suite's."""
    instructions: bool | Literal["tools"] = True
    """Whether the system message holds the suite's instructions and the answer format; "tools"
    gives the suite's functions to the chat template, and answers call them in the model's own
    format (docs/tools.md). A suite that only has functions is always played so."""

    @property
    def calls(self) -> bool:
        """Whether answers are calls of functions in a suite that also takes texts."""
        return self.instructions == "tools"


class RolloutSection(Section):
    tasks_per_step: At1 = 16
    """Different tasks per training step; if not set, at most the number of tasks in the split."""
    group_size: Annotated[int, Field(ge=1, le=2**16)] = 1
    """Episodes per task; group-relative advantages compare them. If not set, 8 for an algorithm
    that compares them."""
    max_turns: At1 = 50
    """Most turns of an episode."""
    max_new_tokens: At1 = 512
    """Most sampled tokens of one turn."""
    temperature: Temperature = 1.0
    """Sampling temperature; all scores are computed at it too."""
    concurrency: Concurrency = AT_A_TIME
    """Episodes that are played and decoded at the same time. {episodes = 64, ahead = 1} also plays
    a step's episodes while the step before learns, with weights that are one update old
    (docs/scaling.md)."""
    invalid_penalty: InvalidPenalty = 0.0
    """Subtracted from the reward of an invalid turn. A number applies to every invalid turn;
    {format = 0.1} only to an answer without a readable action, {refused = 0.1} only to an action
    that the environment refuses; a kind that the table omits does not count as invalid."""
    replay: PathText = ""
    """An episodes.jsonl whose won episodes replace the expert's, to imitate or to continue."""

    @property
    def slots(self) -> int:
        """Episodes that are played and decoded at the same time."""
        both = self.concurrency
        return both.get("episodes", AT_A_TIME) if isinstance(both, dict) else both

    @property
    def ahead(self) -> int:
        """Steps that episodes are played ahead of learning: 0 or 1."""
        return self.concurrency.get("ahead", 0) if isinstance(self.concurrency, dict) else 0

    @model_validator(mode="after")
    def _few_enough(self) -> "RolloutSection":
        episodes = self.tasks_per_step * self.group_size
        if "tasks_per_step" in self.model_fields_set and episodes > MOST_EPISODES:
            raise ValueError(
                f"tasks_per_step * group_size = {episodes} episodes in a step, more than "
                f"{MOST_EPISODES}; lower one of them"
            )
        return self


class AlgorithmSection(Section):
    """A name from `tutelage algorithms`; every other key is an argument of that algorithm."""

    model_config = ConfigDict(extra="allow")

    name: Text
    """The algorithm (`tutelage algorithms` lists them), or your own as "package.module:function"."""

    def arguments(self) -> dict[str, JsonValue]:
        return dict(self.model_extra or {})


class WarmStartSection(AlgorithmSection):
    """An algorithm that runs before the main one, with the other settings of [update]."""

    steps: At1
    """Its number of training steps."""
    lr: LearningRate
    """Its learning rate, a number or a schedule over its steps."""


class UpdateSection(Section):
    lr: LearningRate = 1e-5
    """Learning rate: a number, or {linear = [start, end]} or {cosine = [start, end]} from the end
    of the warm-up to the last step."""
    warmup: At0 = 0
    """Steps over which the learning rate rises to its initial value."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""
    weight_decay: NotNegative = 0.01
    """AdamW's decoupled weight decay."""
    grad_clip: Positive = 1.0
    """Gradients are clipped to this norm."""
    max_tokens_per_pass: At1 = 16_384
    """Tokens of one forward and backward pass (padded ones with policy.compile). It affects memory,
    not the result."""
    minibatches: Annotated[int, Field(ge=1, le=2**16)] = 1
    """Optimiser steps per pass over a step's episodes."""
    epochs: Annotated[int, Field(ge=1, le=2**10)] = 1
    """Passes over a step's episodes."""
    offload: bool = False
    """Keep the optimiser's moments in CPU memory, and run its steps on the CPU."""


MODEL_KEYS = "build layers dtype device lora quantize gradient_checkpointing compile sampler"
"""Settings that a model on a server does not take, since the server decides them."""
OF_SERVE = ("dtype", "device")
"""Those of them that a server takes which Ray starts."""
Servers = Annotated[int, Field(ge=0, le=1024)]
HEAD = 32
"""Width of an attention head of a built model."""


class BuildSection(Section):
    """A small Qwen3 model with random weights and policy.layers layers.

    Its other sizes follow from `hidden`: heads of width 32, half as many KV heads, and a
    feed-forward layer three times as wide.
    """

    hidden: Annotated[int, Field(ge=2, le=2**16)]
    """Width of the residual stream: a multiple of 32, or an even number below."""
    context: At1
    """Longest sequence in tokens."""

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
    """vLLM samples the student's turns; it receives the new weights before each rollout."""

    url: Text | list[Text] = ""
    """The server's address, or a list of them, which share the episodes; if empty, vLLM runs in this
    process."""
    servers: Servers = 0
    """With `tutelage train --cluster`, instead of a url: the number of servers (`tutelage serve`) that
    Ray starts, at least one for each rank."""
    options: dict[str, JsonValue] = {}
    """In this process: arguments of vllm.LLM, such as gpu_memory_utilization (default 0.35)."""
    folder: PathText = ""
    """A folder that both sides can read, to pass weights through; shared memory if empty."""
    transfer: Literal["folder", "gloo", "adapters"] = "folder"
    """How weights reach the server at a url: all through the folder, with adapters merged; by vLLM's
    weight transfer, without a folder; or low-rank adapters alone, through the folder."""
    truncate: Positive = 2.0
    """Largest importance weight of a token: the trainer's probability over the sampler's."""
    max_mismatch: Positive = 0.1
    """Largest mean difference in nats of the sampler's and the trainer's log-probabilities."""

    @property
    def urls(self) -> list[str]:
        """The addresses of servers; none if vLLM runs in this process, or Ray starts them."""
        found = [self.url] if isinstance(self.url, str) else self.url
        return [url for url in found if url]

    @property
    def remote(self) -> int:
        """The number of servers; 0 if vLLM runs in this process."""
        return len(self.urls) or self.servers

    @model_validator(mode="after")
    def _one_place(self) -> "SamplerSection":
        if isinstance(self.url, list) and len({*self.urls}) < max(1, len(self.url)):
            raise ValueError("has a url that is empty or is there twice: list each server once")
        if self.url and self.servers:
            raise ValueError("has a url and servers, which Ray would start: remove one of them")
        if self.remote and self.options:
            other = "url" if self.url else "servers"
            raise ValueError(
                f"has options, which only vLLM in this process takes: remove its {other}"
            )
        if self.transfer != "folder" and not self.url:
            raise ValueError(
                f'has transfer = "{self.transfer}", which only a vLLM server takes that a user '
                "started: set its url, or remove transfer"
            )
        if self.transfer == "gloo" and self.folder:
            raise ValueError(
                'has a folder, through which no weights go with transfer = "gloo": remove one of them'
            )
        return self


class ChatSection(Section):
    """The chat template, which turns messages into tokens."""

    options: dict[str, JsonValue] = {}
    """Arguments of the template, such as enable_thinking."""
    template: PathText = ""
    """A Jinja file that replaces the tokenizer's own template."""


class PolicySection(Section):
    model: Text = ""
    """A folder, a hub id, a run's folder (its last checkpoint), "builtin:NAME", an engine of your
    own as "package.module:Class" (with #TEXT for it to read), or for a further model a server's
    address, "http://host:8000" (with #NAME if it serves several)."""
    layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Keep only this many first layers of a `model`; the number of layers of a built one (4)."""
    build: BuildSection | None = None
    """Instead of `model`: a new model."""
    tokenizer: Text | Annotated[int, Field(ge=512, le=2**24)] = ""
    """For a built model: a folder, another policy's name, or the vocabulary size of a new tokenizer
    that is trained on the suite's texts (2048). For a model on a server: a folder or another
    policy's name; the student's if empty."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """dtype of activations; trained weights and the optimiser's state stay float32."""
    lora: Annotated[int, Field(ge=0, le=2**16)] = 0
    """For the student: the rank of LoRA adapters that are trained instead of the weights; 0 for
    none."""
    quantize: Literal["none", "nf4"] = "none"
    """Keep the weights of linear layers in 4 bits, for further models or a student with lora; and those of a
    further model's experts."""
    gradient_checkpointing: bool = False
    """For the student: drop activations inside layers and recompute them in the backward pass."""
    compile: bool = False
    """Use torch.compile for scoring and training (not for sampling); compiling takes minutes."""
    device: Text = "auto"
    """"cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one."""
    template_history: Literal["exact", "append"] = "exact"
    """A chat template that rewrites past turns: "exact" refuses it, "append" keeps every turn as it
    was sampled."""
    chat: ChatSection = ChatSection()
    """Its chat template."""
    key: Text = ""
    """The environment variable with the key of its server, or of its sampler's server."""
    servers: Servers = 0
    """For a further model, with `tutelage train --cluster`: the number of servers of it (`tutelage
    serve`) that Ray starts, instead of loading it in the training process."""
    sampler: SamplerSection | None = None
    """For the student: vLLM as the sampler of its turns."""

    @property
    def url(self) -> str:
        """The address of a model on a server, else empty."""
        served = self.model.startswith(("http://", "https://"))
        return self.model.partition("#")[0].rstrip("/") if served else ""

    @property
    def remote(self) -> bool:
        """Whether the model is on a server, at an address or one that Ray starts."""
        return bool(self.url) or self.servers > 0

    @property
    def chats(self) -> bool:
        """Whether it is a model that is asked in messages and can only play: "chat:URL#NAME"."""
        return self.model.startswith(("chat:http://", "chat:https://"))

    @property
    def served_name(self) -> str:
        """The model's name on its server; if empty, the first that the server lists."""
        return self.model.partition("#")[2] if self.url else ""

    @property
    def entries(self) -> int:
        """Largest vocabulary of a tokenizer that is trained on the suite."""
        return self.tokenizer if isinstance(self.tokenizer, int) else 2048

    @model_validator(mode="after")
    def _one_source(self) -> "PolicySection":
        if self.url or self.servers:
            return self._remote()
        if bool(self.model) == (self.build is not None):
            raise ValueError("needs exactly one of model and build")
        if self.tokenizer and self.build is None:
            raise ValueError("has a tokenizer, which only a built model or one on a server takes")
        if self.build is not None and (self.lora or self.quantize != "none"):
            raise ValueError("has lora or quantize, which are for a `model`, not for a built one")
        if self.quantize != "none" and self.sampler is not None:
            raise ValueError("has quantize and a sampler, which takes full weights: remove one")
        if self.sampler is not None and self.sampler.transfer == "adapters" and not self.lora:
            raise ValueError(
                'has a sampler with transfer = "adapters" but no adapters, since lora = 0: set lora to '
                "their rank, or remove transfer"
            )
        if self.key and not (self.sampler and self.sampler.url) and not self.chats:
            raise ValueError("has a key, but no server that needs one")
        return self

    def _remote(self) -> "PolicySection":
        if self.servers and (self.url or self.chats or not self.model or self.key):
            raise ValueError(
                "has servers, which Ray starts for a further model from a folder or a hub id, with "
                "keys of their own: name that as its model and leave build and key out, or leave "
                "servers out; to sample the student on servers, set policy.sampler.servers"
            )
        for name in MODEL_KEYS.split():
            if self.servers and name in OF_SERVE:
                continue
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"has {name}, which a model on a server does not take")
        if isinstance(self.tokenizer, int):
            raise ValueError("has a number as tokenizer, which only a built model takes")
        return self


class HintsSection(Section):
    """Sources of the hints that views name, such as "skills"."""

    bank: Text = ""
    """The bank of skills: a built-in one, or a folder of text files; the suite's own if empty."""


class EvalSection(Section):
    every: At0 = 25
    """Evaluate before the first step, after every this many steps, and at the end; 0 for never."""
    split: Text = "seen"
    """Tasks to evaluate on."""
    tasks: At1 = 100
    """Evaluate on the first this many tasks of the split; if not set, at most as many as it has."""
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    """Sampling temperature; 0 is greedy."""
    hint: Text = ""
    """Evaluate a second time with this hint in the prompt, such as "skills"."""


class Config(Section):
    run: RunSection = RunSection()
    """Length, seed and output of the run."""
    env: EnvSection
    """The environment."""
    context: ContextSection = ContextSection()
    """How prompts are built."""
    rollout: RolloutSection = RolloutSection()
    """The number and length of episodes."""
    algorithm: AlgorithmSection
    """The algorithm."""
    warm_start: WarmStartSection | None = None
    """An algorithm that runs before the main one."""
    update: UpdateSection = UpdateSection()
    """The optimiser."""
    policy: PolicySection
    """The student's model."""
    policies: dict[str, PolicySection] = {}
    """Further models by name, such as "teacher"."""
    hints: HintsSection = HintsSection()
    """Sources of privileged information."""
    eval: EvalSection = EvalSection()
    """Evaluation during training."""

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
        if self.policy.servers:
            raise ValueError(
                "policy.servers: the student is trained in the ranks; set policy.sampler.servers to "
                "sample it on servers"
            )
        if self.policy.url:
            raise ValueError(
                "policy.model: the student is trained in this process; name a folder or a hub id, "
                "and to sample on a server set policy.sampler.url"
            )
        return self


# -- walking the schema


class Leaf(NamedTuple):
    """One setting: its full name, such as "policy.build.hidden", and its field."""

    key: str
    field: FieldInfo


def section_of(annotation: object) -> type[BaseModel] | None:
    """The section class in a field's annotation (plain, optional or in a dict); None for a value."""
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
