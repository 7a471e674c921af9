"""The proof at load: what is sampled and scored here has the probabilities of the model's own code.

The reference is the model's own forward pass over one sequence, with eager attention: the kernels
behind transformers' sdpa may leave out caps and sinks as ours would, and agree with it wrongly.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from tutelage.errors import PolicyError, first_line, lacks_memory
from tutelage.policies.base import Completion, Engine, Request
from tutelage.policies.hf import architecture
from tutelage.policies.hf.plain import TRIED, PlainPath, generating

T = TypeVar("T")
PROBE_LENGTHS = (13, 21)
"""Tokens of the two prompts that are played."""
TURNS, NEW = 2, 2
"""Turns of each, and tokens that each turn samples at most."""
SEEN = (1, 5)
"""Tokens that come between turns: fewer and more than a recurrent layer's convolution is wide."""
SHORTER = (1, 2, 3, 5, 8, 13, 21, 34)
"""By how many tokens a sequence is cut to see whether earlier tokens are scored as before."""
LONGEST_WINDOW = 64
"""Windows up to this many tokens are looked beyond; a proof over thousands would take minutes."""
MAX_LOGIT_ERROR = 3e-4
"""Of the largest logit: how far ours may be from the model's own."""


class Probe(NamedTuple):
    """Prompts and what comes after their first turn."""

    prompts: tuple[tuple[int, ...], ...]
    seen: tuple[tuple[int, ...], ...]
    context: int


class Played(NamedTuple):
    """A sequence [T], and the log-probabilities with which some of its tokens were sampled."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    logps: tuple[float, ...]


def probe(config: Any, *, size: int, context: int) -> Probe:
    """Token ids below `size`, spread over the vocabulary, without the padding token: some models
    count positions by it."""
    pad = getattr(architecture.text_config(config), "pad_token_id", None)
    edge = max(architecture.window(config), architecture.rope_switch(config))
    more = edge if edge <= LONGEST_WINDOW else 0
    room = max(2, context - TURNS * (NEW + max(SEEN)))
    lengths = [min(n + more, room - k) for k, n in enumerate(reversed(PROBE_LENGTHS))]
    ids = [(7 + 31 * i) % size for i in range(sum(lengths) + sum(SEEN))]
    ids = [(i + 1) % size if i == pad else i for i in ids]
    first, second = lengths
    return Probe(
        (tuple(ids[:first]), tuple(ids[first : first + second])),
        (tuple(ids[-sum(SEEN) : -SEEN[1]]), tuple(ids[-SEEN[1] :])),
        context,
    )


def played(engine: Engine, of: Probe) -> list[Played]:
    """Let an engine play the probe's episodes side by side."""
    ids = list(of.prompts)
    places: list[list[int]] = [[] for _ in ids]
    logps: list[list[float]] = [[] for _ in ids]
    for turn in range(TURNS):
        for k, prompt in enumerate(ids):
            engine.submit(Request(key=str(k), prompt=prompt, seed=turn + 2 * k, max_new=NEW))
        done: list[Completion] = []
        while len(done) < len(ids):
            done += engine.poll()
        for completion in done:
            k = int(completion.key)
            places[k] += range(len(ids[k]), len(ids[k]) + len(completion.tokens))
            logps[k] += completion.logps
            ids[k] = (*ids[k], *completion.tokens, *(of.seen[k] if turn + 1 < TURNS else ()))
    for k in range(len(ids)):
        engine.release(str(k))
    return [Played(*each) for each in zip(ids, map(tuple, places), map(tuple, logps), strict=True)]


def own_logits(model: Any, ids: Sequence[int], *, size: int, switch: int, device: str) -> Tensor:
    """[T, V] of the model's own pass over the sequence; past a switch of its rotations, of passes
    over exactly the tokens before each."""
    whole = torch.tensor([list(ids)], device=device)
    if not 0 < switch < len(ids):
        logits: Tensor = model(input_ids=whole, use_cache=False).logits[0, :, :size]
        return logits.float()
    rows = [
        model(input_ids=whole[:, :end], use_cache=False).logits[0, -1, :size]
        for end in range(1, len(ids) + 1)
    ]
    return torch.stack(rows).float()


def sampled_wrongly(episodes: Sequence[Played], own: Sequence[Tensor]) -> str:
    """Empty, or by how much log-probabilities of sampled tokens are not the model's own."""
    worst, scale = 0.0, 0.0
    for episode, logits in zip(episodes, own, strict=True):
        places = torch.tensor(episode.places)
        token = torch.tensor([episode.ids[i] for i in episode.places])
        rows = logits.cpu()[places - 1].log_softmax(-1)
        expected = rows.gather(-1, token[:, None]).squeeze(-1)
        worst = _max(worst, float((torch.tensor(episode.logps) - expected).abs().max()))
        scale = max(scale, float(logits.abs().max()))
    if worst <= 2 * MAX_LOGIT_ERROR * scale:
        return ""
    return f"log-probabilities of tokens sampled with a cache are off by up to {worst:.2g}"


def scored_wrongly(logits: Sequence[Tensor], own: Sequence[Tensor]) -> str:
    """Empty, or by how much logits [T, V] are not the model's own."""
    worst = 0.0
    for row, expected in zip(logits, own, strict=True):
        worst = _max(worst, float((row - expected).abs().max() / expected.abs().max()))
    if worst <= MAX_LOGIT_ERROR:
        return ""
    return f"logits are off by up to {worst:.2g} of the largest"


def _max(a: float, b: float) -> float:
    """The larger of two numbers, NaN if one of them is."""
    return a if a != a or b <= a else b


def tried(function: Callable[[], T]) -> T | str:
    """What a function over a model's code returns, or why it raises. A lack of memory says nothing
    about the code, and is raised."""
    try:
        return function()
    except Exception as error:  # anybody's code, which may not bear what is asked of it
        if lacks_memory(error):
            raise
        kind, line = type(error).__name__, first_line(error)[:200]
        return line if line == kind else f"{kind}: {line}"


def prove_plain(path: PlainPath, engine: Any, of: Probe, *, name: str) -> None:
    """Find the fastest way in which a model's own code can be sampled from and scored with.

    engine  makes an engine over the path

    Raises PolicyError where none agrees with the model's own forward pass.
    """
    later = _depends_on_later(path, of)
    if later:
        described = architecture.text_config(path.model.config)
        if getattr(described, "is_decoder", None) is False:
            raise PolicyError(
                f"{name} cannot be sampled from: it is an encoder, whose scores of a token depend "
                f"on later ones ({later}), as is_decoder = false in its configuration says; use a "
                "causal language model"
            )
        path.recomputed, path.padded = True, False
    reasons = []
    for path.feeding, path.given in TRIED[-1:] if later else TRIED:
        reason, episodes, own = _tried(path, engine, of)
        if not reason:
            break
        reasons.append(reason)
    else:
        raise PolicyError(
            f"{name} cannot be sampled from: with its own cache, and without one, its "
            f"probabilities are not those of its forward pass over the same tokens "
            f"({reasons[-1]}), so two passes of it may differ; use a model that computes the same "
            "numbers each time"
        )
    if reason := _gradient_misfit(path, of):
        raise PolicyError(
            f"{name} cannot be trained: its code takes no backward pass outside of training mode, "
            f"in which dropout would change its probabilities ({reason}); use another model"
        )
    if path.recomputed:
        return
    reasons = []
    for path.padded in (True, False):
        reason = _scored(path, episodes, own)
        if not reason:
            return
        reasons.append(reason)
    raise PolicyError(
        f"{name} cannot be scored: two passes of its own over the same tokens differ "
        f"({reasons[-1]}); use another model"
    )


def _depends_on_later(path: PlainPath, of: Probe) -> str:
    """Empty, or by how much the model's scores of the first tokens of a sequence change when its
    last ones are cut off.

    Attention that looks ahead does that, and so does a choice of keys by their rank whose ties fall
    otherwise in a longer row (sparse indexers: their scores are exactly 0 where no head's is
    positive).
    """
    ids = [t for part in (*of.prompts, *of.seen) for t in part][: of.context]
    if 0 < path.switch < len(ids):
        return ""  # scored by passes over exactly the tokens before each
    whole = _own(path, ids)
    ends = [len(ids) - n for n in SHORTER if n < len(ids)]
    parts = [_own(path, ids[:end]) for end in ends]
    return scored_wrongly(parts, [whole[:end] for end in ends])


def _own(path: PlainPath, ids: Sequence[int]) -> Tensor:
    size, switch, device = path.size, path.switch, path.device
    return own_logits(path.model, ids, size=size, switch=switch, device=device)


def _gradient_misfit(path: PlainPath, of: Probe) -> str:
    """Why no gradient reaches the model's first layer; empty if one does."""
    embedded: list[Tensor] = []

    def catch(module: Any, inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1].clone()  # some models go on in place

    def reaches() -> str:
        rows = path.next_rows(of.prompts[-1], [len(of.prompts[-1])])
        if not embedded:
            return ""
        gradient = torch.autograd.grad(rows.float().sum(), embedded[0], allow_unused=True)[0]
        finite = gradient is None or bool(gradient.isfinite().all())
        return "" if finite else "its gradient is not finite"

    hook = path.model.get_input_embeddings().register_forward_hook(catch)
    try:
        with torch.enable_grad():
            return tried(reaches)
    finally:
        hook.remove()


def _tried(path: PlainPath, engine: Any, of: Probe) -> tuple[str, list[Played], list[Tensor]]:
    def numbers() -> tuple[list[Played], list[Tensor]]:
        episodes = played(engine(path), of)
        return episodes, [
            _own_next(path, each) if path.recomputed else _own(path, each.ids) for each in episodes
        ]

    found = tried(numbers)
    return (found, [], []) if isinstance(found, str) else (sampled_wrongly(*found), *found)


def _own_next(path: PlainPath, episode: Played) -> Tensor:
    """[T, V] of the model's own passes over exactly the tokens before each sampled one; zeros
    elsewhere."""
    logits = torch.zeros(len(episode.ids), path.size, device=path.device)
    for place in episode.places:
        ids = torch.tensor([episode.ids[:place]], device=path.device)
        inputs = {"input_ids": ids, "use_cache": False} | generating(path.model, ids)
        logits[place - 1] = path.model(**inputs).logits[0, -1, : path.size].float()
    return logits


def _scored(path: PlainPath, episodes: Sequence[Played], own: Sequence[Tensor]) -> str:
    """How the path scores both sequences: together, if they may be padded."""
    lengths = [len(each.ids) for each in episodes]

    def numbers() -> list[Tensor]:
        head = path.readout.head(path.size, like=own[0])
        logits = dict[int, Tensor]()
        for group in path.groups(lengths, 2 * max(lengths)):
            rows = path.rows([episodes[i].ids for i in group])
            for i, row in zip(group, rows, strict=True):
                logits[i] = path.logits(row[: lengths[i]], head)
        return [logits[i] for i in range(len(own))]

    found = tried(numbers)
    return found if isinstance(found, str) else scored_wrongly(found, own)
