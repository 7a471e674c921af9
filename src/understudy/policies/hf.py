"""A transformers causal model in this process: acts, is scored, and can be trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.errors import PolicyError
from understudy.maths.vocabulary import Distribution
from understudy.policies.attention import register
from understudy.policies.base import Completion, Request, Sample
from understudy.policies.chat import Chat, History
from understudy.policies.packing import Row, batches, pack
from understudy.policies.slots import SlotEngine
from understudy.scores import Scores

Compute = Literal["float32", "bfloat16"]
PROBE = 16
"""Tokens on which a model's own logits are compared with ours when it is wrapped."""


class HFPolicy:
    """Wraps `model` (transformers.PreTrainedModel, float32 weights) and its `chat`.

    compute  the number format of activations and matrix products; weights stay float32
    rows     episodes decoded together
    tokens   padded tokens of one forward pass when scoring
    """

    def __init__(
        self, model: Any, chat: Chat, *, compute: Compute = "float32", rows: int = 64,
        tokens: int = 16_384,
    ) -> None:  # fmt: skip
        self.model, self.chat, self.compute, self.tokens = model, chat, compute, tokens
        model.eval()  # with dropout, nothing would be scored as it was sampled
        self.device = str(next(model.parameters()).device)
        self._refuse_misfits()
        self.base = getattr(model, model.base_model_prefix)
        self._fit()
        self.engine = SlotEngine(
            self._forward, lambda: self.head.detach(), model.config, end=chat.end, rows=rows,
            context=self.context_length, device=self.device,
            compute=torch.bfloat16 if compute == "bfloat16" else torch.float32,
        )  # fmt: skip

    @property
    def head(self) -> Tensor:
        """The output head [V, H]; entries past the tokenizer's are left out: no text means them."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight[: self.chat.size]

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
        kind = self.device.split(":")[0]
        with torch.autocast(kind, torch.bfloat16, enabled=self.compute == "bfloat16"):
            hidden: Tensor = self.base(**inputs).last_hidden_state
        return hidden

    # -- acting

    def submit(self, request: Request) -> None:
        self.engine.submit(request)

    def poll(self) -> list[Completion]:
        return self.engine.poll()

    def release(self, key: str) -> None:
        self.engine.release(key)

    def refresh(self) -> None:
        self.engine.refresh()

    # -- scoring and training

    def score(self, samples: Sequence[Sample], temperature: float) -> Scores:
        """Scores of every sampled token; with gradient where the caller has it switched on.

        One row per append-only episode, rows of like length together, the head on sampled
        positions only.
        """
        token = torch.tensor([t for s in samples for t in s.tokens], device=self.device)
        parts, places = [], []
        for group in batches(pack(samples), self.tokens):
            hidden = self._forward(input_ids=_padded(group, self.device), use_cache=False)
            width = hidden.shape[1]
            # position t is predicted from the hidden state before it
            flat = [r * width + t - 1 for r, row in enumerate(group) for t in row.at]
            parts.append(hidden.flatten(0, 1)[torch.tensor(flat, device=self.device)])
            places += [o for row in group for o in row.out]
        order = torch.tensor(places, device=self.device).argsort()
        head = self.head
        if not torch.is_grad_enabled():
            # a view of the same weights that teaches must not follow them through the update
            head = head.detach().clone() if head.requires_grad else head.detach()
        return Scores(
            distribution=Distribution(
                hidden=torch.cat(parts)[order],
                head=head.to(parts[0].dtype),
                temperature=temperature,
            ),
            token=token,
        )

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return (p for p in self.model.parameters() if p.requires_grad)

    # -- storage

    def save(self, folder: Path) -> None:
        """Weights as safetensors, configuration and tokenizer: a folder `load` reads."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.chat.tokenizer.save_pretrained(folder)


def _padded(rows: Sequence[Row], device: str) -> Tensor:
    """ids [B, T], right-padded: causal attention never looks at what comes after."""
    width = max(len(row.ids) for row in rows)
    return torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows], device=device)


def _not_loaded(name: str, reason: str) -> str:
    return (
        f"the model {name!r} could not be loaded ({reason}); give a folder written by "
        "save_pretrained, or the id of a model that this machine can download"
    )


def _shape(name: str, layers: int | None) -> Any:
    """The model's configuration, with its first `layers` only."""
    from transformers import AutoConfig

    shape = AutoConfig.from_pretrained(name)
    if layers is None:
        return shape
    if layers > shape.num_hidden_layers:
        raise PolicyError(
            f"the model {name!r} has {shape.num_hidden_layers} layers, so its first {layers} "
            "cannot be taken; lower layers"
        )
    shape.num_hidden_layers = layers
    if getattr(shape, "layer_types", None):
        shape.layer_types = shape.layer_types[:layers]
    return shape


def load(
    name: str,
    *,
    compute: Compute = "float32",
    device: str = "cpu",
    layers: int | None = None,
    rows: int = 64,
    tokens: int = 16_384,
    history: History = "exact",
    options: tuple[tuple[str, object], ...] = (),
    chat_template: str = "",
) -> HFPolicy:
    """A policy from a folder or a hub id, or from its first `layers`. Its weights are kept in
    float32."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise PolicyError(f"there is no model folder {name!r}; check the path")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, found = AutoModelForCausalLM.from_pretrained(
            name, config=_shape(name, layers), dtype=torch.float32, attn_implementation="sdpa",
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PolicyError(_not_loaded(name, reason)) from error
    # transformers would go on with random numbers in their place
    lost = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if lost:
        raise PolicyError(
            _not_loaded(name, f"{len(lost)} of its weights are missing or of another shape")
        )
    if chat_template:
        tokenizer.chat_template = Path(chat_template).read_text()
    chat = Chat(tokenizer, history, options)
    return HFPolicy(model.to(device).eval(), chat, compute=compute, rows=rows, tokens=tokens)
