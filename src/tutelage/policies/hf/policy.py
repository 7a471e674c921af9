"""A transformers causal model in this process: acts, is scored, and can be trained."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.cpu import products
from tutelage.errors import PolicyError
from tutelage.maths.distributions import Distribution
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Engine, Request
from tutelage.policies.hf import memory as savings
from tutelage.policies.hf.attention import Packed, check_handed_on, register
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.shared_prefix import LEAST, Prefix, common, longest
from tutelage.policies.packing import Row, batches, pack
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample

Compute = Literal["float32", "bfloat16"]
SMALL = 1 << 20
"""Multiplications of a product up to which torch's BLAS is faster than oneDNN."""
PROBE = 16
"""Tokens on which a model's own logits are compared with ours when it is wrapped."""


class HFPolicy:
    """Wraps `model` (transformers.PreTrainedModel, float32 weights) and its `chat`.

    compute   the number format of activations and matrix products; weights that are trained, and
              the head's product and softmax, stay in float32
    rows      episodes decoded together
    tokens    of one forward pass when scoring
    adapters  of the model: what is trained, and saved, instead of its weights
    recompute, compiled
              of passes that score: forget activations inside layers, use torch.compile
    padded    rows of a pass that scores lie side by side, each as long as the longest, instead of
              one after another on one axis; always so where it is compiled, for shapes that repeat
    budget    bytes that keys and values may take; those of the only engine if None
    fast      if False, the slow twins of what samples and scores: turns as SlotEngine says, from
              the weights that are trained, and padded rows, each computed from its first token
    """

    def __init__(
        self, model: Any, chat: Chat, *, dtype: Compute = "float32", rows: int = 64,
        tokens: int = 16_384, adapters: Adapters | None = None, recompute: bool = False,
        compiled: bool = False, padded: bool = False, fast: bool = True, budget: int | None = None,
    ) -> None:  # fmt: skip
        self.model, self.chat, self.dtype, self.tokens = model, chat, dtype, tokens
        self.padded, self.fast = padded or compiled or not fast, fast
        self.budget = budget
        self.adapters, self.rows, self.compiled = adapters, rows, compiled
        sizes = [x.weight.numel() for x in self.base.modules() if isinstance(x, torch.nn.Linear)]
        self.weights = sum(sizes) / max(1, len(sizes))  # of a product, on average
        self.frozen = False
        self.prefixes: list[Prefix] = []
        self.halved: savings.Halved | None = None
        model.eval()  # with dropout, nothing would be scored as it was sampled
        self.device = str(next(model.parameters()).device)
        self._refuse_misfits()
        self._fit()
        if recompute:
            savings.recompute(self.base, model.config)
        self._thin()
        self._begin()

    def _begin(self) -> None:
        self.scoring = torch.compile(self.base, dynamic=True) if self.compiled else self.base
        self.engine: Engine = SlotEngine(
            self._forward, lambda: self.head.detach(), self.model.config, end=self.chat.end,
            rows=self.rows, context=self.context_length, device=self.device,
            dtype=torch.bfloat16 if self._low else torch.float32, fast=self.fast,
            budget=self.budget,
        )  # fmt: skip

    @property
    def _low(self) -> bool:
        return self.dtype == "bfloat16"

    def _thin(self) -> None:
        if self._low:
            savings.halve(self.base)

    def freeze(self) -> None:
        """Nothing of it is trained from here on."""
        self.model.requires_grad_(False)
        self.frozen, self.halved = True, None
        self._thin()

    def copied(self) -> "HFPolicy":
        """A frozen copy of it as it is now. What is frozen in it already, as all but its adapters,
        is shared."""
        made = copy.copy(self)
        shared = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        made.model, made.adapters = copy.deepcopy((self.model, self.adapters), shared)
        made.freeze()
        made._begin()
        return made

    @property
    def base(self) -> Any:
        """The model without its head."""
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def head(self) -> Tensor:
        """The output head [V, H]; entries past the tokenizer's are left out: no text means them."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight if len(weight) == self.chat.size else weight[: self.chat.size]

    @property
    def unused(self) -> range:
        """Entries past the tokenizer's."""
        return range(self.chat.size, len(self.model.get_output_embeddings().weight))

    @property
    def context_length(self) -> int:
        return int(self.model.config.max_position_embeddings)

    def _refuse_misfits(self) -> None:
        config, output = self.model.config, self.model.get_output_embeddings()
        if output is None or getattr(output, "bias", None) is not None:
            raise PolicyError(
                f"{type(self.model).__name__} has no plain linear output head, which scoring in "
                "chunks relies on; choose a decoder-only causal model such as Qwen3 or Llama"
            )
        if not getattr(config, "max_position_embeddings", None):
            raise PolicyError(
                f"{type(self.model).__name__} does not say how long its context is "
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
                f"({', '.join(sorted(kinds)) or f'a sliding window of {window}'}), which the kept "
                "cache does not know; choose a model with full attention in every layer"
            )

    @torch.no_grad()
    @products("float32")
    def _fit(self) -> None:
        """Give the model our attention, and see that this and the bare head change no logit."""
        ids = torch.arange(1, PROBE + 1, device=self.device)[None] % self.chat.size
        own = self.model(input_ids=ids, use_cache=False).logits[..., : self.chat.size]
        if not own.isfinite().all():
            raise PolicyError(
                f"the weights of this {type(self.model).__name__} give logits that are not finite: "
                "they are damaged, or were saved after training diverged; use another checkpoint"
            )
        self.model.set_attn_implementation(register())
        ours = self.base(input_ids=ids, use_cache=False).last_hidden_state @ self.head.T
        if (ours - own).abs().max() > 3e-4 * own.abs().max():
            raise PolicyError(
                f"{type(self.model).__name__} computes more than attention and a linear output "
                "head (it scales or caps logits, or attends in its own way), which would be left "
                "out here; choose a model such as Qwen3 or Llama"
            )

    def _forward(self, **inputs: Any) -> Tensor:
        """Hidden states [B, T, H] after the last layer."""
        body = self._acting() if inputs["use_cache"] else self.scoring
        kind = self.device.split(":")[0]
        small = kind == "cpu" and inputs["input_ids"].numel() * self.weights < SMALL
        with (
            torch.autocast(kind, torch.bfloat16, enabled=self._low),
            products("blas") if small else contextlib.nullcontext(),
        ):
            hidden: Tensor = body(**inputs).last_hidden_state
        return hidden

    # -- acting

    def _acting(self) -> Any:
        """What the engine asks: made when it first does, since a teacher may never act."""
        if self.fast and self._low and not self.frozen and self.halved is None:
            self.halved = savings.Halved(self.base)
        return self.base if self.halved is None else self.halved.base

    def submit(self, request: Request) -> None:
        self.engine.submit(request)

    def poll(self) -> list[Completion]:
        return self.engine.poll()

    def release(self, key: str) -> None:
        self.engine.release(key)

    def refresh(self) -> None:
        if self.halved is not None:
            self.halved.refresh()
        self.engine.refresh()

    # -- scoring and training

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        """Scores of every sampled token; with gradient where the caller has it switched on.

        One row per append-only episode, several of them in a pass, the head on sampled positions
        only. It is not copied: who reads the scores after an update must keep the head as it was.
        """
        token = torch.tensor([t for s in samples for t in s.tokens], device=self.device)
        parts, places, rows = [], [], pack(samples)
        prefix = self._prefix(rows) if self._shares else None
        for group in batches(rows, self.tokens, padded=self.padded):
            if self.padded:
                hidden, starts = self._side_by_side(group)
            else:
                hidden, starts = self._in_line(group, prefix)
            # position t is predicted from the hidden state before it
            at = [start + t - 1 for start, row in zip(starts, group, strict=True) for t in row.at]
            parts.append(hidden.index_select(0, torch.tensor(at, device=self.device)))
            places += [o for row in group for o in row.out]
        order = torch.tensor(places, device=self.device).argsort()
        head = self.head if torch.is_grad_enabled() else self.head.detach()
        return Scores(
            distribution=Distribution(
                hidden=torch.cat(parts)[order],
                head=head.to(parts[0].dtype),
                temperature=temperature,
            ),
            token=token,
        )

    def _side_by_side(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        """Hidden states of rows that are padded to the longest, on one axis, and where on it each
        row begins. Causal attention never looks at what comes after."""
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
        hidden = self._forward(input_ids=ids.to(self.device), use_cache=False)
        return hidden.flatten(0, 1), [i * width for i in range(len(rows))]

    def _in_line(
        self, rows: Sequence[Row], prefix: Prefix | None = None, into: Prefix | None = None
    ) -> tuple[Tensor, list[int]]:
        """The same of rows one after another, without what all of them begin with: nothing is
        computed that nobody reads. Where a row begins on the axis may then lie before it."""
        known = len(prefix.ids) if prefix else 0
        lengths = [len(row.ids) - known for row in rows]
        packed = Packed(lengths, self.device, prefix=prefix, into=into)
        ids = torch.tensor([t for row in rows for t in row.ids[known:]], device=self.device)
        position = torch.cat([torch.arange(known, known + n, device=self.device) for n in lengths])
        hidden = self._forward(
            input_ids=ids[None], attention_mask=None, position_ids=position[None],
            use_cache=False, packed=packed,
        )  # fmt: skip
        check_handed_on(packed, self.model.config.num_hidden_layers)
        return hidden[0], [at - known for at in [0, *accumulate(lengths)][:-1]]

    # -- what rows have in common

    @contextlib.contextmanager
    def sharing(self, samples: Sequence[Sample]) -> Iterator[None]:
        """These are scored within, in any number of passes, and the weights stay as they are: what
        all their rows begin with is computed once. With gradient where the caller has it switched
        on; it is whole when the context has ended."""
        rows = pack(samples) if self._shares else []
        size = common(rows)
        found = longest(self.prefixes, rows) if size >= LEAST else None
        if size < LEAST or (found is not None and len(found.ids) == size):
            yield
            return
        made = self._begun(rows[0], size)
        self.prefixes.append(made)
        try:
            yield
        finally:
            self.prefixes.remove(made)
        made.send()

    @property
    def _shares(self) -> bool:
        """A graphics card takes rows one after another in one kernel, which knows no prefix; a
        processor's wants keys and values of one size."""
        sizes = getattr(self.model.config, "v_head_dim", None)
        return not self.padded and self.device == "cpu" and sizes is None

    def _prefix(self, rows: Sequence[Row]) -> Prefix | None:
        """What these rows begin with, where that was computed; or, where no gradient has to find
        its way to it, is computed now."""
        found = longest(self.prefixes, rows) if rows else None
        size = common(rows)
        if torch.is_grad_enabled() or size < LEAST or (found and len(found.ids) == size):
            return found
        return self._begun(rows[0], size)

    def _begun(self, row: Row, size: int) -> Prefix:
        """The first tokens of a row as a prefix."""
        made = Prefix(row.ids[:size])
        self._in_line([Row(ids=row.ids[:size])], into=made)
        return made

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return (p for p in self.model.parameters() if p.requires_grad)

    # -- storage

    def save(self, folder: Path) -> None:
        """Weights or adapters as safetensors, configuration, tokenizer: a folder `load` reads."""
        if self.adapters is None:
            self.model.save_pretrained(folder, safe_serialization=True)
        else:
            self.adapters.save(folder)
            self.model.config.save_pretrained(folder)
        self.chat.tokenizer.save_pretrained(folder)
