"""A transformers causal LM in this process: samples turns, scores tokens, and can be trained."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.cpu import products
from tutelage.errors import PolicyError
from tutelage.maths.distributions import Distribution
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Dtype, Engine, Request
from tutelage.policies.hf import memory
from tutelage.policies.hf.attention import PackedPass, check_all_layers_attended, register
from tutelage.policies.hf.compat import cache_argument
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.shared_prefix import MIN_PREFIX, Prefix, longest_usable, shared_tokens
from tutelage.policies.packing import DEFAULT_PASS_TOKENS, PackedSequence, batches, pack
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample

MIN_ONEDNN_MULTIPLICATIONS = 1 << 20
"""Mean multiplications of a linear layer's product from which on oneDNN is faster than torch's
BLAS: oneDNN takes some 14 us to begin a product. (Layers of 3 h by h break even at 8 rows for
h = 192, at 64 rows for h = 64; medians of 30.) Decode steps of tiny models, or of one episode, stay
below it."""
PROBE_TOKENS = 16
"""Tokens on which a model's own logits are compared with ours when it is wrapped."""
MAX_LOGIT_ERROR = 3e-4
"""Of the largest logit: how far ours may be from the model's own."""


class HFPolicy:
    """Wraps `model` (transformers.PreTrainedModel, float32 weights) and its `chat`.

    dtype     of activations and matrix products; weights that are trained, and softmaxes, stay in
              float32. So does the LM head's product on a CPU; on a GPU it is one of bfloat16 with
              sums in float32
    slots     episodes decoded together
    tokens    of one forward pass when scoring
    adapters  of the model: trained and saved instead of its weights
    gradient_checkpointing, compiled
              for passes that score: recompute activations inside layers, use torch.compile
    padded    score sequences side by side, padded to the longest of a pass, instead of packed one
              after another on one axis; always so when compiled, for shapes that repeat
    budget    bytes for keys and values; the default of an only engine if None
    reference_path
              sample and score without the optimisations, to rule them out as a cause: turns as
              SlotEngine says and from the trained weights, padded sequences, each computed from its
              first token. It uses the same slots and passes without their optimisations; a separate
              engine would be another source of errors.
    """

    def __init__(
        self,
        model: Any,
        chat: Chat,
        *,
        dtype: Dtype = "float32",
        slots: int = 64,
        tokens: int = DEFAULT_PASS_TOKENS,
        adapters: Adapters | None = None,
        gradient_checkpointing: bool = False,
        compiled: bool = False,
        padded: bool = False,
        reference_path: bool = False,
        budget: int | None = None,
    ) -> None:
        self.model, self.chat, self.dtype, self.tokens = model, chat, dtype, tokens
        self.padded = padded or compiled or reference_path
        self.reference_path = reference_path
        self.budget = budget
        self.adapters, self.slots, self.compiled = adapters, slots, compiled
        linear = [x for x in self.base.modules() if isinstance(x, torch.nn.Linear)]
        self.mean_weights = sum(x.weight.numel() for x in linear) / max(1, len(linear))
        self.frozen = False
        self.prefixes: list[Prefix] = []
        self.acting_copy: memory.ActingCopy | None = None
        self.head_copy: Tensor | None = None
        model.eval()  # with dropout, nothing would be scored as it was sampled
        self.device = str(next(model.parameters()).device)
        self._refuse_unsupported()
        self._replace_attention()
        if gradient_checkpointing:
            memory.checkpoint_layers(self.base, model.config)
        self._cast_frozen()
        self._start_engine()

    @staticmethod
    def load(name: str, *, device: str = "auto", **settings: Any) -> "HFPolicy":
        """A policy from a folder or a hub id.

        device    "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one
        settings  those of `policies.hf.loading.load`, such as dtype="bfloat16" or lora=16

        Raises PolicyError where there is no such model.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        # by name, since `loading` imports this module
        loading = import_module("tutelage.policies.hf.loading")
        policy: HFPolicy = loading.load(name, device=device, **settings)
        return policy

    def _start_engine(self) -> None:
        self.cache_argument = cache_argument(self.base)
        self.scoring = torch.compile(self.base, dynamic=True) if self.compiled else self.base
        self.engine: Engine = SlotEngine(
            self._forward,
            self._acting_head,
            self.model.config,
            end=self.chat.end,
            slots=self.slots,
            context=self.context_length,
            device=self.device,
            dtype=torch.bfloat16 if self._bfloat16 else torch.float32,
            reference_path=self.reference_path,
            budget=self.budget,
        )

    @property
    def _bfloat16(self) -> bool:
        return self.dtype == "bfloat16"

    def _cast_frozen(self) -> None:
        if self._bfloat16:
            memory.cast_frozen_to_bfloat16(self.base)

    def freeze(self) -> None:
        """Train nothing of it from here on."""
        self.model.requires_grad_(False)
        self.frozen, self.acting_copy, self.head_copy = True, None, None
        self._cast_frozen()

    def copied(self) -> "HFPolicy":
        """A frozen copy with the current weights. Weights that are frozen already, such as all but
        the adapters, are shared."""
        policy = copy.copy(self)
        shared = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        policy.model, policy.adapters = copy.deepcopy((self.model, self.adapters), shared)
        policy.freeze()
        policy._start_engine()
        return policy

    @property
    def base(self) -> Any:
        """The model without its LM head."""
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def head(self) -> Tensor:
        """The LM head [V, H], without entries past the tokenizer's: no text encodes to them."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight if len(weight) == self.chat.size else weight[: self.chat.size]

    @property
    def unused(self) -> range:
        """Entries of the LM head past the tokenizer's."""
        return range(self.chat.size, len(self.model.get_output_embeddings().weight))

    @property
    def context_length(self) -> int:
        return int(self.model.config.max_position_embeddings)

    def _refuse_unsupported(self) -> None:
        """Raise PolicyError for models that would be computed wrongly here."""
        config, output = self.model.config, self.model.get_output_embeddings()
        if output is None or getattr(output, "bias", None) is not None:
            raise PolicyError(
                f"{type(self.model).__name__} has no plain linear LM head, which scoring in chunks "
                "needs; choose a decoder-only causal model such as Qwen3 or Llama"
            )
        if not getattr(config, "max_position_embeddings", None):
            raise PolicyError(
                f"{type(self.model).__name__} does not state its context length "
                "(max_position_embeddings); choose a model such as Qwen3 or Llama"
            )
        if self.chat.size > output.weight.shape[0]:
            raise PolicyError(
                f"the tokenizer has {self.chat.size} entries but the model only embeds "
                f"{output.weight.shape[0]}: they do not belong together; use the model's own "
                "tokenizer, or resize its embeddings"
            )
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None) or self.context_length
        if kinds - {"full_attention"} or (not kinds and window < self.context_length):
            raise PolicyError(
                f"{type(self.model).__name__} has layers without full attention "
                f"({', '.join(sorted(kinds)) or f'a sliding window of {window}'}), which the KV "
                "cache does not support; choose a model with full attention in every layer"
            )

    @torch.no_grad()
    @products("float32")
    def _replace_attention(self) -> None:
        """Give the model our attention function, and check that logits do not change by it, nor by
        applying the LM head separately."""
        ids = torch.arange(1, PROBE_TOKENS + 1, device=self.device)[None] % self.chat.size
        # the reference is the model's own formula: its sdpa may leave out caps as ours does
        self.model.set_attn_implementation("eager")
        expected = self.model(input_ids=ids, use_cache=False).logits[..., : self.chat.size]
        if not expected.isfinite().all():
            raise PolicyError(
                f"the weights of this {type(self.model).__name__} give logits that are not finite: "
                "they are damaged, or were saved after training diverged; use another checkpoint"
            )
        self.model.set_attn_implementation(register())
        logits = self.base(input_ids=ids, use_cache=False).last_hidden_state @ self.head.T
        if (logits - expected).abs().max() > MAX_LOGIT_ERROR * expected.abs().max():
            raise PolicyError(
                f"{type(self.model).__name__} computes more than attention and a linear LM head "
                "(it scales or caps logits, or attends in its own way), which would be left out "
                "here; choose a model such as Qwen3 or Llama"
            )

    def _forward(self, **inputs: Any) -> Tensor:
        """Hidden states [B, T, H] after the last layer."""
        body = self._acting_base() if inputs["use_cache"] else self.scoring
        if "cache" in inputs:
            inputs[self.cache_argument] = inputs.pop("cache")
        kind = self.device.split(":")[0]
        multiplications = inputs["input_ids"].numel() * self.mean_weights
        small = kind == "cpu" and multiplications < MIN_ONEDNN_MULTIPLICATIONS
        with (
            torch.autocast(kind, torch.bfloat16, enabled=self._bfloat16),
            products("blas") if small else contextlib.nullcontext(),
        ):
            hidden: Tensor = body(**inputs).last_hidden_state
        return hidden

    # -- sampling

    def _acting_base(self) -> Any:
        """The model that samples. A bfloat16 copy is made at the first turn: a teacher may never
        act."""
        trained = not self.frozen and self._bfloat16
        if trained and not self.reference_path and self.acting_copy is None:
            self.acting_copy = memory.ActingCopy(self.base)
        return self.base if self.acting_copy is None else self.acting_copy.base

    @property
    def _bfloat16_head(self) -> bool:
        return self._bfloat16 and self.device.startswith("cuda")

    def _acting_head(self) -> Tensor:
        """The LM head for sampling. One of bfloat16 is a copy that stays where it is: recorded
        steps know its address, and casting the head for every token would read all of it."""
        head = self.head.detach()
        if not self._bfloat16_head:
            return head
        if self.reference_path:
            return head.bfloat16()
        if self.head_copy is None:
            self.head_copy = head.bfloat16()
        return self.head_copy

    def submit(self, request: Request) -> None:
        self.engine.submit(request)

    def poll(self) -> list[Completion]:
        return self.engine.poll()

    def release(self, key: str) -> None:
        self.engine.release(key)

    def refresh(self) -> None:
        if self.acting_copy is not None:
            self.acting_copy.refresh()
        if self.head_copy is not None:
            self.head_copy.copy_(self.head.detach())
        self.engine.refresh()

    # -- scoring and training

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        """Scores of every sampled token; with gradient where the caller has it switched on.

        One sequence per append-only episode, several of them in a pass, the LM head on sampled
        positions only. The head is not copied: a caller that reads the scores after an update must
        keep a copy of the old head.
        """
        token = torch.tensor([t for s in samples for t in s.tokens], device=self.device)
        parts, order, sequences = [], [], pack(samples)
        prefix = self._prefix_of(sequences) if self._can_share else None
        for group in batches(sequences, self.tokens, padded=self.padded):
            if self.padded:
                hidden, starts = self._padded_pass(group)
            else:
                hidden, starts = self._packed_pass(group, prefix)
            # position t is predicted from the hidden state before it
            read = [
                start + t - 1
                for start, sequence in zip(starts, group, strict=True)
                for t in sequence.positions
            ]
            parts.append(hidden.index_select(0, torch.tensor(read, device=self.device)))
            order += [index for sequence in group for index in sequence.flat]
        inverse = torch.tensor(order, device=self.device).argsort()
        head = self.head if torch.is_grad_enabled() else self.head.detach()
        hidden = torch.cat(parts)[inverse]
        if self._bfloat16_head:
            hidden = hidden.bfloat16()
        return Scores(
            distribution=Distribution(
                hidden=hidden,
                head=head.to(hidden.dtype),
                temperature=temperature,
            ),
            token=token,
        )

    def _padded_pass(self, sequences: Sequence[PackedSequence]) -> tuple[Tensor, list[int]]:
        """Hidden states of sequences padded to the longest, on one axis [B T, H], and where on it
        each begins. Causal attention never looks at the padding after a sequence."""
        width = max(len(each.ids) for each in sequences)
        ids = torch.tensor([each.ids + [0] * (width - len(each.ids)) for each in sequences])
        hidden = self._forward(input_ids=ids.to(self.device), use_cache=False)
        return hidden.flatten(0, 1), [i * width for i in range(len(sequences))]

    def _packed_pass(
        self,
        sequences: Sequence[PackedSequence],
        prefix: Prefix | None = None,
        into: Prefix | None = None,
    ) -> tuple[Tensor, list[int]]:
        """The same of sequences one after another, without a prefix of all of them.

        Nothing is computed that is not read, nothing needs sorting, and a pass's budget is one of
        real tokens. The returned beginning of a sequence counts its prefix, so it may lie before
        the axis.
        """
        known = len(prefix.ids) if prefix else 0
        lengths = [len(each.ids) - known for each in sequences]
        packed = PackedPass(lengths, self.device, prefix=prefix, into=into)
        ids = torch.tensor([t for each in sequences for t in each.ids[known:]], device=self.device)
        position = torch.cat([torch.arange(known, known + n, device=self.device) for n in lengths])
        hidden = self._forward(
            input_ids=ids[None],
            attention_mask=None,
            position_ids=position[None],
            use_cache=False,
            packed=packed,
        )
        check_all_layers_attended(packed, self.model.config.num_hidden_layers)
        return hidden[0], [start - known for start in [0, *accumulate(lengths)][:-1]]

    # -- shared prefixes

    @contextlib.contextmanager
    def shared_prefix(self, samples: Sequence[Sample]) -> Iterator[None]:
        """Compute the common prefix of `samples` once for all passes inside the context, in which
        they are scored under unchanged weights. With gradient where the caller has it switched on;
        it is complete when the context has ended."""
        sequences = pack(samples) if self._can_share else []
        size = shared_tokens(sequences)
        found = longest_usable(self.prefixes, sequences) if size >= MIN_PREFIX else None
        if size < MIN_PREFIX or (found is not None and len(found.ids) == size):
            yield
            return
        prefix = self._compute_prefix(sequences[0], size)
        self.prefixes.append(prefix)
        try:
            yield
        finally:
            self.prefixes.remove(prefix)
        prefix.backward()

    @property
    def _can_share(self) -> bool:
        """A GPU takes packed sequences in one kernel, which knows no prefix; the CPU's kernel needs
        keys and values of one size."""
        value_size = getattr(self.model.config, "v_head_dim", None)
        return not self.padded and self.device == "cpu" and value_size is None

    def _prefix_of(self, sequences: Sequence[PackedSequence]) -> Prefix | None:
        """A computed prefix of these sequences; or one computed now, if no gradient has to find its
        way to it."""
        found = longest_usable(self.prefixes, sequences) if sequences else None
        size = shared_tokens(sequences)
        if torch.is_grad_enabled() or size < MIN_PREFIX or (found and len(found.ids) == size):
            return found
        return self._compute_prefix(sequences[0], size)

    def _compute_prefix(self, sequence: PackedSequence, size: int) -> Prefix:
        """The first tokens of a sequence as a prefix."""
        prefix = Prefix(sequence.ids[:size])
        self._packed_pass([PackedSequence(ids=sequence.ids[:size])], into=prefix)
        return prefix

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return (p for p in self.model.parameters() if p.requires_grad)

    # -- storage

    def save(self, folder: Path) -> None:
        """Write weights or adapters as safetensors, configuration and tokenizer: a folder that
        `load` reads."""
        if self.adapters is None:
            self.model.save_pretrained(folder, safe_serialization=True)
        else:
            self.adapters.save(folder)
            self.model.config.save_pretrained(folder)
        self.chat.tokenizer.save_pretrained(folder)
