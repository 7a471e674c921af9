"""A transformers causal LM in this process: samples turns, scores tokens, and can be trained."""

import contextlib
import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from tutelage.cpu import products
from tutelage.errors import PolicyError, first_line
from tutelage.maths.distributions import Distribution, capped, raw_logits
from tutelage.objective.scores import Scores
from tutelage.policies.base import Completion, Dtype, Engine, Request
from tutelage.policies.hf import architecture, fused, joined, kv_cache, memory, proof, readout
from tutelage.policies.hf.attention import PackedPass, check_all_layers_attended, register
from tutelage.policies.hf.compat import cache_argument
from tutelage.policies.hf.folder import end_tokens
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.lora import Adapters
from tutelage.policies.hf.lora import weights as merged_weights
from tutelage.policies.hf.plain import PlainEngine, PlainPath
from tutelage.policies.hf.readout import Readout
from tutelage.policies.hf.sharded import Sharded
from tutelage.policies.hf.shared_prefix import MIN_PREFIX, Prefix, longest_usable, shared_tokens
from tutelage.policies.packing import DEFAULT_PASS_TOKENS, PackedSequence, batches, pack
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample

MIN_ONEDNN_MULTIPLICATIONS = 1 << 20
"""Mean multiplications of a linear layer's product from which on oneDNN is faster than torch's
BLAS: oneDNN takes some 14 us to begin a product. (Layers of 3 h by h break even at 8 rows for
h = 192, at 64 rows for h = 64; medians of 30.) Decode steps of tiny models, or of one episode, stay
below it."""


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

    Packed passes over slots of keys and values fit most models. Any other takes the plain path,
    `policies.hf.plain`: slower, its own code throughout. Which one is chosen, and that it samples
    and scores as the model's own forward pass with eager attention, is found out here; `path` says
    it in a sentence. Raises PolicyError where neither does. `unfused` is why a GPU does without
    compiled elementwise kernels, empty if it does not.
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
        self.model, self.dtype, self.tokens = model, dtype, tokens
        self.chat = chat.ending_with(end_tokens(model))
        self.padded = padded or compiled or reference_path
        self.plain: PlainPath | None = None
        self.path = "fast path"
        self.unfused = ""
        self.proving = False
        self.reference_path = reference_path
        self.budget = budget
        self.adapters, self.slots, self.compiled = adapters, slots, compiled
        linear = [x for x in self.base.modules() if isinstance(x, torch.nn.Linear)]
        self.mean_weights = sum(x.weight.numel() for x in linear) / max(1, len(linear))
        self.frozen = False
        self.prefixes: list[Prefix] = []
        self.sharded: Sharded | None = None
        self.acting_copy: memory.ActingCopy | None = None
        self.head_copy: Tensor | None = None
        model.eval()  # with dropout, nothing would be scored as it was sampled
        self.device = str(next(model.parameters()).device)
        self.readout = Readout()
        self._refuse_unsupported()
        with memory.in_float32(self.base):
            self._choose_path()
        if gradient_checkpointing:
            memory.checkpoint_layers(self.base, architecture.text_config(model.config))
        self._cast_frozen()
        self._refuse_dtype()
        self._fuse()
        self._start_engine()

    @staticmethod
    def load(name: str, *, device: str = "auto", **settings: Any) -> "HFPolicy":
        """A policy from a folder or a hub id.

        device    "cpu", "cuda", "cuda:1"; "auto" takes a GPU if there is one
        settings  those of `policies.hf.loading.load`, such as dtype="bfloat16" or lora=16

        Raises PolicyError where there is no such model or device.
        """
        if not isinstance(name, str | os.PathLike):
            raise PolicyError(
                f"a model is named by a folder or a hub id, and not by {type(name).__name__}"
            )
        dtype = settings.get("dtype", "float32")
        if dtype not in get_args(Dtype):
            raise PolicyError(f"dtype is {dtype!r:.40}; give {' or '.join(get_args(Dtype))}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, TypeError) as error:  # of torch without a GPU too
            raise PolicyError(
                f"device is {device!r:.40}, which this machine does not have ({first_line(error):.80}); "
                'give "cpu", or leave it out'
            ) from error
        # by name, since `loading` imports this module
        loading = import_module("tutelage.policies.hf.loading")
        policy: HFPolicy = loading.load(os.fspath(name), device=device, **settings)
        return policy

    def _start_engine(self) -> None:
        if self.plain is not None:
            self.engine: Engine = self._plain_engine(self.plain)
            return
        self.cache_argument = cache_argument(self.base)
        self.scoring = torch.compile(self.base, dynamic=True) if self.compiled else self.base
        self.engine = SlotEngine(
            self._forward,
            self._acting_head,
            self.model.config,
            ends=self.chat.ends,
            slots=self.slots,
            context=self.context_length,
            device=self.device,
            dtype=torch.bfloat16 if self._bfloat16 else torch.float32,
            reference_path=self.reference_path,
            budget=self.budget,
            cap=self.cap,
            # products of groups may wait for the CPU, which a recording cannot; not tried on a GPU
            recorded=not memory.is_mixture(self.base),
        )

    def _plain_engine(self, path: PlainPath) -> PlainEngine:
        return PlainEngine(
            path,
            self._acting_head,
            ends=self.chat.ends,
            context=self.context_length,
            slots=self.slots,
            budget=kv_cache.budget(self.device) if self.budget is None else self.budget,
        )

    @property
    def _bfloat16(self) -> bool:
        return self.dtype == "bfloat16" and not self.proving

    def _cast_frozen(self) -> None:
        if self._bfloat16:
            memory.cast_frozen_to_bfloat16(self.model)

    def freeze(self) -> None:
        """Freeze all parameters."""
        self.model.requires_grad_(False)
        self.frozen, self.acting_copy, self.head_copy = True, None, None
        self._cast_frozen()
        if self._joins:
            joined.join(self.base)
        self._refuse_dtype()

    def copied(self) -> "HFPolicy":
        """A frozen copy with the current weights. Weights that are frozen already, such as all but
        the adapters, are shared."""
        policy = copy.copy(self)
        policy.sharded = None
        shared = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        if self.sharded is not None and self.sharded.always:
            raise PolicyError(
                "a policy whose weights are always divided has no copy in one process"
            )
        for weight in self.sharded.whole if self.sharded is not None else ():
            shared.pop(id(weight), None)  # it is given back during an update
        policy.model, policy.adapters = copy.deepcopy((self.model, self.adapters), shared)
        if self.readout.output is not None:
            policy.readout = replace(self.readout, output=policy.model.get_output_embeddings())
        if self.plain is not None:
            policy.plain = self.plain.over(policy.model, policy.readout, policy._context)
        policy.freeze()
        policy._start_engine()
        return policy

    @property
    def base(self) -> Any:
        """The model without its LM head; the whole model if it is one."""
        return getattr(self.model, self.model.base_model_prefix, self.model)

    @property
    def head(self) -> Tensor:
        """The LM head [V, H], without entries past the tokenizer's: no text encodes to them. With a
        last column for its bias; [V, 0] where logits are computed by the model as a whole."""
        return self.readout.head(self.chat.size, like=next(self.model.parameters()))

    @property
    def cap(self) -> float:
        """Soft cap of the logits; 0 without one."""
        return self.readout.cap

    @property
    def unused(self) -> range:
        """Entries of the LM head past the tokenizer's."""
        output = self.model.get_output_embeddings()
        return range(self.chat.size, len(output.weight) if output is not None else self.chat.size)

    @property
    def context_length(self) -> int:
        return architecture.context_length(self.model.config, self.chat.tokenizer)

    def _refuse_unsupported(self) -> None:
        """Raise PolicyError for a tokenizer that is not the model's."""
        rows = self.model.get_input_embeddings().weight.shape[0]
        if self.chat.size > rows:
            raise PolicyError(
                f"the tokenizer has {self.chat.size} entries but the model only embeds "
                f"{rows}: they do not belong together; use the model's own "
                "tokenizer, or resize its embeddings"
            )

    @torch.no_grad()
    @products("float32")
    def _choose_path(self) -> None:
        """Take the fast path if what it samples and scores is the model's own, else the plain one."""
        self.proving = True
        of = proof.probe(self.model.config, size=self.chat.size, context=self.context_length)
        self.model.set_attn_implementation("eager")
        self._find_readout(of)
        reason = architecture.misfit(self.model.config)
        if not reason and self.readout.output is None:
            reason = "its logits are more than a linear head of its last states"
        reason = reason or self._fast_misfit(of)
        if reason:
            self.model.set_attn_implementation("eager")
            self.padded, self.path = True, f"plain path: {reason}"
            if self.compiled:
                self.path += ", so nothing is compiled"
            path = PlainPath(
                self.model,
                self.readout,
                self._context,
                size=self.chat.size,
                switch=architecture.rope_switch(self.model.config),
                device=self.device,
            )
            proof.prove_plain(path, self._plain_engine, of, name=type(self.model).__name__)
            self.plain = path
            if path.cost:
                self.path += f"; {path.cost}"
        self.proving = False

    def _find_readout(self, of: proof.Probe) -> None:
        """How logits come from the last hidden states, by the model's own forward pass."""
        ids = torch.tensor([list(of.prompts[0])], device=self.device)
        logits = proof.tried(lambda: self.model(input_ids=ids, use_cache=False).logits)
        if isinstance(logits, str):
            raise PolicyError(
                f"the forward pass of this {type(self.model).__name__} over {ids.shape[1]} tokens "
                f"fails ({logits}); it is no causal language model of text, or its configuration "
                "does not belong to it; use another one"
            )
        if not logits[..., : self.chat.size].isfinite().all():
            raise PolicyError(
                f"the weights of this {type(self.model).__name__} give logits that are not finite: "
                "they are damaged, or were saved after training diverged; use another checkpoint"
            )
        self.readout = readout.find(self.model, ids)

    def _fast_misfit(self, of: proof.Probe) -> str:
        """Why packed passes and slots of keys and values are not right for this model; empty if
        they are."""
        size = self.chat.size
        self.model.set_attn_implementation(register())
        self.cache_argument, self.scoring = cache_argument(self.base), self.base
        tried = proof.tried(lambda: self._fast_numbers(of))
        if isinstance(tried, str):
            return f"its code does not take packed sequences ({tried})"
        episodes, logits = tried
        self.model.set_attn_implementation("eager")
        own = [
            proof.own_logits(self.model, each.ids, size=size, switch=0, device=self.device)
            for each in episodes
        ]
        self.model.set_attn_implementation(register())
        wrong = proof.sampled_wrongly(episodes, own) or proof.scored_wrongly(logits, own)
        return f"in packed passes its {wrong}" if wrong else ""

    def _fast_numbers(self, of: proof.Probe) -> tuple[list[proof.Played], list[Tensor]]:
        """The probe played through slots, and the logits of its sequences scored in one pass."""
        engine = SlotEngine(
            self._forward,
            self._acting_head,
            self.model.config,
            ends=self.chat.ends,
            slots=2,
            context=self.context_length,
            device=self.device,
            dtype=torch.float32,
            reference_path=self.reference_path,
            budget=self.budget,
            cap=self.cap,
            recorded=False,
        )
        episodes = proof.played(engine, of)
        hidden, starts = self._packed_pass([PackedSequence(ids=list(e.ids)) for e in episodes])
        logits = [
            capped(raw_logits(hidden[start : start + len(each.ids)], self.head), self.cap)
            for start, each in zip(starts, episodes, strict=True)
        ]
        return episodes, logits

    @torch.no_grad()
    def _refuse_dtype(self) -> None:
        """Raise PolicyError for a model whose code does not run in bfloat16: its path was proved in
        float32."""
        if not self._bfloat16:
            return
        of = proof.probe(self.model.config, size=self.chat.size, context=self.context_length)
        ids = list(of.prompts[0])

        def hidden() -> Tensor:
            if self.plain is not None:
                return self.plain.rows([ids])
            return self._packed_pass([PackedSequence(ids=ids)])[0]

        found = proof.tried(hidden)
        if isinstance(found, str):
            raise PolicyError(
                f"a forward pass of this {type(self.model).__name__} in bfloat16 fails ({found}), "
                'and the same in float32 does not; set dtype = "float32"'
            )

    @torch.no_grad()
    def _fuse(self) -> None:
        """On a GPU, compile the elementwise work of the layers where that gives the same numbers."""
        gpu = self.device.startswith("cuda")
        if not gpu or self.plain is not None or self.reference_path or self.compiled:
            return
        layers = memory.layers_of(self.base, architecture.text_config(self.model.config))
        of = proof.probe(self.model.config, size=self.chat.size, context=self.context_length)
        sequences = [PackedSequence(ids=list(ids)) for ids in of.prompts]
        wanted, _ = self._packed_pass(sequences)
        after = [x for x in self.base.children() if x is not layers]  # such as the last norm
        exchanged = fused.fuse([*layers, *after], low=torch.bfloat16 if self._bfloat16 else None)
        with fused.used_always():
            found = proof.tried(lambda: self._packed_pass(sequences)[0])
        if isinstance(found, str):
            reason = f"compiling them fails ({found})"
        else:
            apart = float((found - wanted).float().norm() / wanted.float().norm())
            limit = fused.LIMITS[torch.bfloat16 if self._bfloat16 else torch.float32]
            reason = "" if apart <= limit else f"they would differ by {apart:.1g}"
        if reason:
            fused.undo(exchanged)
            self.unfused = reason

    def _context(self, tokens: int) -> contextlib.AbstractContextManager[Any]:
        """Where a pass over so many tokens runs: under autocast, and small products on a CPU with
        the BLAS."""
        kind, stack = self.device.split(":")[0], contextlib.ExitStack()
        stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=self._bfloat16))
        if kind == "cpu" and tokens * self.mean_weights < MIN_ONEDNN_MULTIPLICATIONS:
            stack.enter_context(products("blas"))
        return stack

    def _forward(self, **inputs: Any) -> Tensor:
        """Hidden states [B, T, H] after the last layer."""
        body = self._acting_base() if inputs["use_cache"] else self.scoring
        if self.sharded is not None and self.sharded.active:
            body = self.sharded.base
        if "cache" in inputs:
            inputs[self.cache_argument] = inputs.pop("cache")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._context(inputs["input_ids"].numel()))
            if inputs["use_cache"]:
                stack.enter_context(joined.used())
            hidden: Tensor = body(**inputs).last_hidden_state
        return self.readout.rows(hidden)

    # -- sampling

    def _acting_base(self) -> Any:
        """The model that samples. A bfloat16 copy is made at the first turn: a teacher may never
        act."""
        trained = not self.frozen and self._bfloat16
        if trained and not self.reference_path and self.acting_copy is None:
            self.acting_copy = memory.ActingCopy(self.base)
            if self._joins:
                joined.join(self.acting_copy.base)
        return self.base if self.acting_copy is None else self.acting_copy.base

    @property
    def _joins(self) -> bool:
        """Whether products of one input are joined: a GPU has fewer kernels to start."""
        gpu = self.device.startswith("cuda")
        return gpu and self.plain is None and not self.reference_path and not self.compiled

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
        groups = self._batches(sequences)
        others = self._passes_of_others(len(groups))
        for group in groups:
            parts.append(self._predicting(group, prefix))
            order += [index for sequence in group for index in sequence.flat]
        for _ in range(others):
            self.idle()
        if not parts:
            parts = [self.head.new_zeros((0, self.head.shape[1]))]
        inverse = torch.tensor(order, device=self.device, dtype=torch.long).argsort()
        head = self.head if torch.is_grad_enabled() else self.head.detach()
        hidden, leaf = torch.cat(parts)[inverse], None
        if self._bfloat16_head:
            hidden = hidden.bfloat16()
            if head.requires_grad and self.readout.output is not None and self.readout.bias is None:
                leaf = self.readout.output.weight
        return Scores(
            distribution=Distribution(
                hidden=hidden,
                head=head.to(hidden.dtype),
                temperature=temperature,
                cap=self.cap,
                leaf=leaf,
            ),
            token=token,
        )

    def _predicting(self, group: Sequence[PackedSequence], prefix: Prefix | None) -> Tensor:
        """Hidden states [N, H] that predict the sampled tokens of the sequences of a pass."""
        if self.plain is not None and self.plain.recomputed:
            return torch.cat([self.plain.next_rows(x.ids, x.positions) for x in group])
        if self.plain is not None:
            rows = self.plain.rows([each.ids for each in group])
            hidden, starts = rows.flatten(0, 1), [i * rows.shape[1] for i in range(len(rows))]
        elif self.padded:
            hidden, starts = self._padded_pass(group)
        else:
            hidden, starts = self._packed_pass(group, prefix)
        # position t is predicted from the hidden state before it
        read = [
            start + t - 1
            for start, sequence in zip(starts, group, strict=True)
            for t in sequence.positions
        ]
        return hidden.index_select(0, torch.tensor(read, device=self.device))

    def _batches(self, sequences: Sequence[PackedSequence]) -> list[list[PackedSequence]]:
        """The sequences of each pass."""
        divided = self.sharded
        if (
            divided is not None
            and divided.active
            and (torch.is_grad_enabled() or not divided.always)
        ):
            return [list(sequences)]  # one pass on every rank: micro-batches keep the budget
        if self.plain is None:
            return batches(sequences, self.tokens, padded=self.padded)
        groups = self.plain.groups([len(each.ids) for each in sequences], self.tokens)
        return [[sequences[i] for i in group] for group in groups]

    def _passes_of_others(self, own: int) -> int:
        """Passes without a gradient that another rank makes beyond this one's own, where weights are
        always divided: all ranks score at the same time, and each its own tokens."""
        if self.sharded is None or not self.sharded.always or torch.is_grad_enabled():
            return 0
        return self.sharded.agreed(own) - own

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
        alone = self.sharded is None  # ranks make the same passes
        return not self.padded and self.device == "cpu" and value_size is None and alone

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
        if self.sharded is not None:
            return self.sharded.trained(self.model)
        return (p for p in self.model.parameters() if p.requires_grad)

    # -- divided over ranks

    def shard(self, *, offload: bool = False, always: bool = False, device: str = "") -> None:
        """Divide the layers over the ranks of torch.distributed from now on. Every rank calls this,
        with the same weights. Parameters are then this rank's parts.

        offload  keep the parts in main memory, where the model is on a GPU
        always   not in updates alone: the policy samples nothing itself, every rank calls `score`
                 equally often, and all call `save` and `weights` together
        device   to which the model is moved, a layer at a time; where it is if empty

        Raises PolicyError for a model that cannot be divided.
        """
        reason = ""
        if self.plain is not None:
            reason = f"its layers run on the {self.path}"
        elif self.compiled:
            reason = "it is compiled; leave compile out"
        elif any(hasattr(m, "compute_dtype") for m in self.base.modules()):
            reason = "its weights are packed in 4 bits; leave quantize out"
        elif always and any(x.dim() == 0 for x in self.model.state_dict().values()):
            reason = "it has weights that are single numbers; use --sharded update"
        if reason:
            raise PolicyError(
                f"this model cannot be divided over ranks, since {reason}, or train without "
                "--sharded"
            )
        self.device = device or self.device
        self.sharded = Sharded(
            self.model,
            self.base,
            architecture.text_config(self.model.config),
            bfloat16=self._bfloat16,
            offload=offload,
            always=always,
            device=self.device,
        )

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """An update of weights that are divided over ranks: every rank makes the same passes. The
        copy that samples is given back as well."""
        assert self.sharded is not None
        self.acting_copy, slots = None, isinstance(self.engine, SlotEngine)
        with self.sharded.updating():
            yield
        if slots and self.device.startswith("cuda"):
            self._start_engine()  # recorded decode steps know the addresses of the weights

    def idle(self) -> Tensor:
        """A pass that no token counts in, for a rank that has none where others have one: its
        hidden states [n, H], whose gradient is 0."""
        hidden, _ = (self._padded_pass if self.padded else self._packed_pass)(
            [PackedSequence(ids=[0, 0])]
        )
        return hidden

    def version(self) -> tuple[int, ...]:
        """Another one after each change of the weights; the same on every rank that divides them."""
        if self.sharded is not None and self.sharded.always:
            return (self.sharded.updates,)
        # torch counts the in-place writes to a tensor
        return tuple(value._version for value in self.model.state_dict().values())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weights by the names of the base, with adapters merged into them; one that is merged
        or gathered from all ranks is in memory at a time."""
        return merged_weights(self.model, self.sharded.whole_weight if self.sharded else None)

    # -- storage

    def stored(self) -> dict[str, Tensor]:
        if self.sharded is None or not self.sharded.always or self.adapters is not None:
            return {}
        return self.sharded.stored(self.model)

    def save(self, folder: Path) -> None:
        """Write weights or adapters as safetensors, configuration and tokenizer: a folder that
        `load` reads."""
        if self.adapters is None and self.sharded is not None and self.sharded.always:
            self._save_without_weights(folder)
        elif self.adapters is None:
            self.model.save_pretrained(folder, safe_serialization=True)
        else:
            self.adapters.save(folder)
            self.model.config.save_pretrained(folder)
        self.chat.tokenizer.save_pretrained(folder)

    def _save_without_weights(self, folder: Path) -> None:
        """What stands beside the weights, which all ranks write together."""
        config = self.model.config
        config.architectures = [type(self.model).__name__]
        config.dtype = str(next(self.model.parameters()).dtype).removeprefix("torch.")
        config.save_pretrained(folder)
        if self.model.generation_config is not None:
            self.model.generation_config.save_pretrained(folder)
