"""Our attention against the definition, on both of its paths."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from tutelage import cpu
from tutelage.cpu import Matmul, products
from tutelage.errors import PolicyError
from tutelage.policies.hf import attention

B, H, K, D = 2, 6, 2, 8


def by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """softmax(q k^T scaling) v, a head and a position at a time."""
    out = torch.zeros(B, q.shape[2], H, D)
    for b in range(B):
        for h in range(H):
            mine = h // (H // K)
            for t in range(q.shape[2]):
                seen = mask[b, 0, t]
                scores = (k[b, mine] @ q[b, h, t]) * scaling
                weights = scores[seen].softmax(-1)
                out[b, t, h] = weights @ v[b, mine][seen]
    return out


def inputs(t: int, s: int) -> tuple[Tensor, Tensor, Tensor]:
    gen = torch.Generator().manual_seed(t * 100 + s)
    return (
        torch.randn(B, H, t, D, generator=gen),
        torch.randn(B, K, s, D, generator=gen),
        torch.randn(B, K, s, D, generator=gen),
    )


@pytest.mark.parametrize(
    ("elements", "many"),
    [(0, 0), (1 << 24, 1 << 24), (1 << 24, 0)],
    ids=["sdpa", "one product", "one product of many keys"],
)
@pytest.mark.parametrize(("t", "s"), [(1, 1), (1, 9), (4, 9), (5, 5)])
def test_with_a_mask(
    t: int, s: int, elements: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MAX_GROUPED_SCORES", elements)
    monkeypatch.setattr(attention, "MIN_KEYS_AS_ROWS", many)
    q, k, v = inputs(t, s)
    mask = torch.rand(B, 1, t, s, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[..., 0] = True
    out, _ = attention.attend(None, q, k, v, mask, 0.3)
    assert_close(out, by_definition(q, k, v, mask, 0.3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [1, 2, 7])
def test_without_a_mask_nobody_sees_what_comes_after(t: int) -> None:
    q, k, v = inputs(t, t)
    mask = torch.ones(t, t, dtype=torch.bool).tril().expand(B, 1, t, t)
    out, _ = attention.attend(None, q, k, v, None, 0.3)
    assert_close(out, by_definition(q, k, v, mask, 0.3), atol=1e-5, rtol=1e-5)


def test_what_a_mask_hides_never_matters() -> None:
    q, k, v = inputs(2, 6)
    mask = torch.ones(B, 1, 2, 6, dtype=torch.bool)
    mask[..., 4:] = False
    before, _ = attention.attend(None, q, k, v, mask, 1.0)
    k[:, :, 4:], v[:, :, 4:] = 1e4, -1e4
    after, _ = attention.attend(None, q, k, v, mask, 1.0)
    assert torch.equal(before, after)


@pytest.mark.parametrize("kind", ["blas", "bfloat16"])
@pytest.mark.parametrize("slots", [9, 11, 40])
def test_whole_rows_of_a_cache_may_be_read_and_what_is_beyond_never_matters(
    slots: int, kind: Matmul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MIN_ONEDNN_VALUES", 0)
    q, k, v = inputs(1, 9)
    room = torch.full((B + 1, K, slots, D), 1e4)
    room[1:, :, :9] = v
    mask = torch.rand(B, 1, 1, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[..., 0] = True
    with products(kind):
        whole = attention.contiguous_values(room[1:, :, :9])
        out, _ = attention.attend(None, q, k, room[1:, :, :9], mask, 0.3)
    # a processor with units for bfloat16 rounds in earnest
    close = 1e-5 if kind == "blas" or cpu.exact() else 3e-2
    assert_close(out, by_definition(q, k, v, mask, 0.3), atol=close, rtol=close)
    assert (whole is not None) == (kind == "bfloat16" and slots <= 11)
    if whole is not None:
        assert torch.equal(whole, room[1:])
        assert whole.data_ptr() == room[1:].data_ptr()


def test_values_that_lie_apart_or_are_few_are_read_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, _, v = inputs(1, 9)
    with products("bfloat16"):
        assert attention.contiguous_values(v) is None  # few
        monkeypatch.setattr(attention, "MIN_ONEDNN_VALUES", 0)
        assert attention.contiguous_values(v) is not None
        assert attention.contiguous_values(v.double()) is None
        apart = {
            "copies": v[:1, :1].expand(B, K, -1, -1),
            "every second": v[:, :, ::2],
            "by place": v.transpose(1, 2).contiguous().transpose(1, 2),
            "some rows": torch.stack([v, v], 1)[:, 0],
        }
        for name, x in apart.items():
            assert attention.contiguous_values(x) is None, name


@pytest.mark.parametrize("lengths", [(7,), (1, 4, 2), (3, 3, 1)])
def test_sequences_on_one_axis_see_themselves_alone(lengths: tuple[int, ...]) -> None:
    total = sum(lengths)
    q, k, v = inputs(total, total)
    row = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    mask = (row[:, None] == row) & torch.ones(total, total, dtype=torch.bool).tril()
    way = attention.PackedPass(lengths, "cpu")
    out, _ = attention.attend(None, q[:1], k[:1], v[:1], None, 0.3, packed=way)
    every = by_definition(q, k, v, mask[None, None].expand(B, 1, -1, -1), 0.3)
    assert_close(out, every[:1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_whole_sequences_in_16_bits_are_rounded_once_at_the_end(
    kind: torch.dtype, autocast: bool
) -> None:
    """Products and weights are formed in float32 on a CPU, also where autocast would round them."""
    lengths = (40, 1, 23)
    total = sum(lengths)
    q, k, v = (x.to(kind) for x in inputs(total, total))
    row = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    mask = (row[:, None] == row) & torch.ones(total, total, dtype=torch.bool).tril()
    way = attention.PackedPass(lengths, "cpu")
    with torch.autocast("cpu", dtype=kind, enabled=autocast):
        out, _ = attention.attend(None, q[:1], k[:1], v[:1], None, 0.3, packed=way)
    exact = by_definition(
        *(x.float() for x in (q, k, v)), mask[None, None].expand(B, 1, -1, -1), 0.3
    )
    assert out.dtype == kind
    half_a_step = torch.finfo(kind).eps / 2
    assert_close(out.float(), exact[:1], atol=1e-5, rtol=half_a_step * 1.01)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_new_token_of_each_slot_in_16_bits(kind: torch.dtype) -> None:
    q, k, v = (x.to(kind) for x in inputs(1, 30))
    mask = torch.rand(B, 1, 1, 30, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[..., 0] = True
    out, _ = attention.attend(None, q, k, v, mask, 0.3)
    assert out.dtype == kind
    exact = by_definition(*(x.float() for x in (q, k, v)), mask, 0.3)
    assert_close(out.float(), exact, atol=2 * torch.finfo(kind).eps, rtol=2 * torch.finfo(kind).eps)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_one_new_token_of_a_slot_sees_all_that_the_slot_holds(kind: torch.dtype) -> None:
    """As where few slots decode, each read on its own up to its length."""
    lengths, gen = (9, 4), torch.Generator().manual_seed(1)
    q = torch.randn(1, H, len(lengths), D, generator=gen).to(kind)
    k, v = (torch.randn(B, K, 12, D, generator=gen).to(kind) for _ in range(2))
    spans = [attention.NewTokens(slot, held - 1, 1) for slot, held in enumerate(lengths)]
    out, _ = attention.attend(None, q, k, v, None, 0.3, flat=attention.FlatPass(spans))
    mask = torch.arange(12).expand(B, 1, 1, 12) < torch.tensor(lengths)[:, None, None, None]
    queries = q[0].transpose(0, 1)[:, :, None].float()
    wanted = by_definition(queries, k.float(), v.float(), mask, 0.3)
    close = 1e-5 if kind == torch.float32 else 2e-2
    assert_close(out[0].float(), wanted[:, 0], atol=close, rtol=close)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize(("block", "scores"), [(2, 1 << 20), (64, 1 << 20), (64, 300)])
@pytest.mark.parametrize("new", [(1, 3), (20, 1), (7, 19), (40, 33)])
def test_new_tokens_see_what_their_row_holds_and_themselves(
    new: tuple[int, int], block: int, scores: int, kind: Matmul, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a cache, in float32 and where a processor may round: torch's kernel, and blocks."""
    monkeypatch.setattr(attention, "BLOCK_TOKENS", block)
    monkeypatch.setattr(attention, "BLOCK_SCORES", scores)
    monkeypatch.setattr(attention, "MIN_BLOCKED_MULTIPLICATIONS", 0)
    monkeypatch.setattr(attention, "MAX_GROUPED_TOKENS", 4)
    held = (9, 5)
    q, k, v = inputs(max(new), 50)
    spans = [attention.NewTokens(row, held[row], new[row]) for row in (1, 0)]
    q = torch.cat([q[span.slot, None, :, : span.new] for span in spans], 2)
    with products(kind):
        out, _ = attention.attend(None, q, k, v, None, 0.3, flat=attention.FlatPass(spans))
    start = 0
    for span in spans:
        t, s = span.new, span.cached + span.new
        mask = torch.ones(t, s, dtype=torch.bool).tril(span.cached).expand(B, 1, t, s)
        mine = q[:, :, start : start + t].expand(B, -1, -1, -1)
        right = by_definition(mine, k[:, :, :s], v[:, :, :s], mask, 0.3)[span.slot]
        # a processor with units for bfloat16 rounds in earnest
        close = 1e-5 if kind == "float32" else 3e-2
        assert_close(out[0, start : start + t], right, atol=close, rtol=close)
        start += t


def test_blocks_have_a_bound_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    inner = torch.softmax

    def watched(scores: Tensor, dim: int) -> Tensor:
        sizes.append(scores.numel())
        return inner(scores, dim)

    monkeypatch.setattr(attention, "BLOCK_SCORES", 20_000)
    monkeypatch.setattr(torch, "softmax", watched)
    q, k, v = inputs(300, 500)
    attention.blocked(q[:1], k[:1], v[:1], 0.3, 200)
    assert max(sizes) <= max(20_000, attention.MAX_GROUPED_TOKENS * H // K * 500)
    assert len(sizes) < 300 * K / 8
    sizes.clear()
    monkeypatch.setattr(attention, "BLOCK_SCORES", 1 << 30)
    attention.blocked(q[:1], k[:1], v[:1], 0.3, 200)
    assert len(sizes) == K * -(-300 // attention.BLOCK_TOKENS)


def test_small_products_stay_with_the_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN begins each slowly."""
    q, k, v = inputs(30, 40)
    seen: list[tuple[int, bool]] = []
    kernel = F.scaled_dot_product_attention

    def watched(query: Tensor, *args: Tensor, **kwargs: object) -> Tensor:
        seen.append((query.shape[2], cpu.onednn()))
        return kernel(query, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    spans = [attention.NewTokens(0, 10, 30)]
    with products("bfloat16"):
        assert not attention.blocks_are_faster(q[:1], k[:1])
        attention.attend(None, q[:1], k[:1], v[:1], None, 0.3, flat=attention.FlatPass(spans))
        for length in (attention.MIN_ONEDNN_TOKENS - 1, attention.MIN_ONEDNN_TOKENS):
            a, b, c = (x[:1] for x in inputs(length, length))
            way = attention.PackedPass([length], "cpu")
            attention.attend(None, a, b, c, None, 0.3, packed=way)
        a, b, _ = inputs(300, 5000)
        assert attention.blocks_are_faster(a[:1], b[:1])
        assert not attention.blocks_are_faster(a[:1].double(), b[:1].double())
    few, last = attention.MIN_ONEDNN_TOKENS - 1, attention.MIN_ONEDNN_TOKENS
    assert seen == [(30, False), (few, False), (last, True)]


def test_layers_that_were_told_nothing_are_noticed() -> None:
    way = attention.PackedPass([2, 3], "cpu")
    q, k, v = inputs(5, 5)
    attention.attend(None, q[:1], k[:1], v[:1], None, 0.3, packed=way)
    attention.check_all_layers_attended(way, 1)
    with pytest.raises(PolicyError, match=r"do not pass keyword.*choose"):
        attention.check_all_layers_attended(way, 2)
