"""Memory of an update on paper: what is saved for the backward pass, and what the loss takes.

The bytes of a layer are read off what autograd saves, tensor by tensor, with T tokens in a pass,
hidden size H, query and key/value sizes Q and K (heads times head size), F hidden units of the
feed-forward part, and s bytes a number (4 in float32, 2 in bfloat16):

    residual stream after attention and after the feed-forward part, float32      8 T H
    normalised inputs of the two norms, where their weights are trained           8 T H
    inputs of linear layers: five casts in bfloat16; two tensors in float32      10 T H or 8 T H
    queries, keys and values (float32 on a GPU: a key head for each query head)  s T (Q + 2 K)
    attention's result, and a copy of it where the next layer needs one       1 or 2 s T Q
    norms of queries and keys (Qwen3): input in float32, normalised           (4 + s) T (Q + K)
    gate, up, SiLU and their product                                              4 s T F

Fused kernels of a GPU save less: no normalised inputs, one cast of a norm for all that read it, no
input of the norms of queries and keys in float32, no SiLU. Tensors of fewer than MIN_ELEMENTS go
without them, so a pass may take more than one of a few more tokens. (Training Qwen3-1.7B on an H100
in passes of up to 8,192 tokens: 64.1 GB without and 52.3 GB with them, on paper 64.4 and 53.1.)

`tests/cli/test_update_memory.py` holds the sum against a count of live tensors.
"""

from tutelage.cli.model_sizes import BYTES, Shape
from tutelage.config.schema import PolicySection
from tutelage.maths.distributions import CHUNK_ELEMENTS, CHUNK_ELEMENTS_GPU
from tutelage.policies.hf.fused import MIN_ELEMENTS

LINEAR_LAYERS = 7
"""Linear layers of a transformer layer that take adapters."""


def layer(shape: Shape, section: PolicySection, *, gpu: bool, tokens: int = 0) -> int:
    """Bytes a token that one layer saves for the backward pass of so many tokens. On a GPU, compiled
    elementwise kernels compute again what lies between their input and their result."""
    size, low = BYTES[section.dtype], section.dtype == "bfloat16"
    hidden, trained = shape.hidden, not section.lora
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def fused(width: int) -> bool:
        return gpu and not section.compile and tokens * width >= MIN_ELEMENTS

    total = (8 + (8 if trained else 0) + (10 if low else 8)) * hidden
    # a kernel of a GPU writes its result as the next layer reads it; adapters cast it for themselves
    copies = 1 if low and gpu and trained else 2
    total += size * (query + 2 * (query if gpu and not low else key)) + copies * size * query
    if shape.qk_norm:
        total += (4 + (size if trained else 0)) * (query + key)
        total += 4 * (shape.heads + shape.kv_heads)  # reciprocal norms
    total += 4 * shape.heads + 8  # sums of attention's softmax, reciprocal norms
    total += 4 * size * shape.ffn * max(1, shape.active)
    if fused(hidden):
        total -= ((8 if trained else 0) + (6 if low else 0)) * hidden
    if low and shape.qk_norm:
        total -= 4 * sum(width for width in (query, key) if fused(width))
    if not shape.experts and fused(shape.ffn):
        total -= size * shape.ffn
    return total + LINEAR_LAYERS * section.lora * size


def casts(shape: Shape, section: PolicySection) -> int:
    """Bytes of trained linear weights in the dtype of products, kept for the backward pass."""
    if section.dtype != "bfloat16":
        return 0
    trained = shape.linear() + shape.in_experts()
    return 2 * (shape.adapters(section.lora) if section.lora else trained)


def loss(shape: Shape, section: PolicySection, tokens: int, *, gpu: bool, rows: int) -> int:
    """Bytes of the loss over the vocabulary: a chunk's log-probabilities and their gradients,
    `rows` of them beyond those of the sampled token, and the gradient of the LM head."""
    chunk = min(tokens, max(1, (CHUNK_ELEMENTS_GPU if gpu else CHUNK_ELEMENTS) // shape.vocab))
    entries, head = chunk * shape.vocab, shape.vocab * shape.hidden
    if not (gpu and section.dtype == "bfloat16"):
        return (12 + 4 * rows) * entries
    if section.lora:
        return (14 + 4 * rows) * entries + 2 * head
    return max((14 + 4 * rows) * entries, (10 + 4 * rows) * entries + 4 * head) + 2 * head


def beside(shape: Shape, section: PolicySection, tokens: int, *, gpu: bool, rows: int = 0) -> int:
    """Bytes of a pass of at most `tokens` tokens beside weights, gradients and moments, at their peak.

    rows  tensors over the vocabulary that the loss holds besides the student's log-probabilities:
          a teacher's, where a divergence is taken
    """
    counts = {tokens}
    if gpu:  # the longest passes whose tensors are too small for fused kernels
        heads = shape.heads, shape.kv_heads
        widths = (shape.hidden, shape.ffn, *(n * shape.head_dim for n in heads))
        counts |= {count for x in widths if 0 < (count := (MIN_ELEMENTS - 1) // x) < tokens}
    return max(_of_a_pass(shape, section, count, gpu=gpu, rows=rows) for count in counts)


def _of_a_pass(shape: Shape, section: PolicySection, tokens: int, *, gpu: bool, rows: int) -> int:
    """The same of a pass of exactly so many tokens."""
    size, hidden = BYTES[section.dtype], shape.hidden
    of_layer = tokens * layer(shape, section, gpu=gpu, tokens=tokens)
    # a layer's tensors are freed as its gradients are taken
    backward = tokens * (size * shape.ffn * max(1, shape.active) + 8 * hidden)
    # the embedding, the last norm, and the hidden states that are read with their gradients
    ends = tokens * hidden * (12 + 3 * size)
    over_vocabulary = loss(shape, section, tokens, gpu=gpu, rows=rows)
    copies = casts(shape, section)
    head = 2 * shape.vocab * hidden if gpu and section.dtype == "bfloat16" else 0
    if section.gradient_checkpointing:
        inputs = ends + shape.layers * 4 * hidden * tokens
        one = of_layer + copies // shape.layers
        peak = inputs + max(copies + one, over_vocabulary, one + backward + head)
    else:
        saved = ends + shape.layers * of_layer + copies
        peak = saved + max(over_vocabulary, backward + head)
    embedding = 0 if section.lora else 4 * shape.vocab * hidden + head
    return max(peak, embedding)
