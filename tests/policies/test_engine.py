"""What makes the engine fast changes nothing: each fast path beside its slow twin."""

import random
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fake_cuda import Cuda
from support.recorder import tape
from support.scripted_turns import Fed, assert_same, play, reference, request, talks
from support.tiny_models import policy, run
from torch import Tensor
from torch.testing import assert_close

from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf import attention, generation
from tutelage.policies.hf.attention import FlatPass, NewTokens
from tutelage.policies.hf.cuda_graphs import WARMUP_RUNS, CudaRecorder, Recordings, rounded
from tutelage.policies.hf.kv_cache import KVShape, SlotCache
from tutelage.policies.hf.policy import HFPolicy
from tutelage.policies.hf.sampling import SlotSampler
from tutelage.policies.packing import common_prefix

Play = list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[float, ...]]]


def played(of: HFPolicy, seed: int, count: int = 7) -> Play:
    """All that some ragged conversations came to."""
    turns = play(of, talks(seed=seed, count=count))
    return sorted((r.key, r.prompt, c.tokens, c.logps) for r, c in turns)


def assert_like(a: Play, b: Play) -> None:
    assert [x[:3] for x in a] == [x[:3] for x in b]
    for left, right in zip(a, b, strict=True):
        assert left[3] == pytest.approx(right[3], abs=2e-5)


# -- one axis of tokens


def alone(q: Tensor, k: Tensor, v: Tensor, held: int, scaling: float) -> Tensor:
    """[H, T, D]: softmax over what each new token may see, a head and a token at a time."""
    out = torch.zeros_like(q)
    shared = q.shape[0] // k.shape[0]
    for h in range(q.shape[0]):
        for t in range(q.shape[1]):
            keys, values = k[h // shared, : held + t + 1], v[h // shared, : held + t + 1]
            out[h, t] = ((keys @ q[h, t]) * scaling).softmax(-1) @ values
    return out


@pytest.mark.parametrize("elements", [0, 1 << 24], ids=["sdpa", "one product"])
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_rows_on_one_axis_attend_as_if_each_were_alone(elements: int, data: Any) -> None:
    rows = data.draw(st.permutations(range(4)))
    spans = [
        NewTokens(row, data.draw(st.sampled_from((0, 1, 7))), data.draw(st.sampled_from((1, 2, 5))))
        for row in rows[: data.draw(st.integers(1, 4))]
    ]
    gen = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    tokens = sum(span.new for span in spans)
    q = torch.randn(1, 6, tokens, 8, generator=gen)
    k, v = torch.randn(4, 2, 13, 8, generator=gen), torch.randn(4, 2, 13, 8, generator=gen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "MAX_GROUPED_SCORES", elements)
        out, _ = attention.attend(None, q, k, v, None, 0.3, flat=FlatPass(spans))
    start = 0
    for span in spans:
        part = slice(start, start + span.new)
        want = alone(q[0, :, part], k[span.slot], v[span.slot], span.cached, 0.3)
        assert_close(out[0, part].transpose(0, 1), want, atol=1e-5, rtol=1e-5)
        start += span.new


@pytest.mark.parametrize("alone", [0, 1 << 30], ids=["apart", "in one product"])
def test_rows_of_different_lengths_decode_alike_apart_and_together(
    alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = played(policy(context=768), seed=3)
    monkeypatch.setattr(generation, "SLOT_COST", alone)
    of = policy(context=768)
    fed = Fed(of)
    assert_like(played(of, seed=3), usual)
    apart = [shape for shape in fed.shapes if shape[0] == 1 and 1 < shape[1] <= 7]
    together = [shape for shape in fed.shapes if shape[0] > 1]
    assert (bool(together), len(apart) > 20) == (bool(alone), not alone)


def test_a_long_prompt_is_fed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "MAX_PREFILL_TOKENS", 16)
    of = policy(context=768)
    fed = Fed(of)
    assert_like(played(of, seed=5), played(policy(context=768), seed=5))
    assert max(b * t for b, t in fed.shapes) == 16
    long = request(tuple(range(10, 60)), key="z")
    fed.shapes.clear()
    assert_same(run(of, [long])["z"], reference(of, long))
    assert [t for _, t in fed.shapes[:4]] == [16, 16, 16, 2]


def test_a_model_that_keeps_arguments_to_itself_is_refused() -> None:
    of = policy(slots=1)
    inner = of.engine.forward
    of.engine.forward = lambda **inputs: inner(**{**inputs, "flat": None})
    of.submit(request((10, 11, 12)))
    with pytest.raises(PolicyError, match="choose a model such as Qwen3 or Llama"):
        of.poll()


# -- heads that rows share


def test_episodes_that_begin_alike_compute_their_head_once() -> None:
    of = policy()
    fed = Fed(of)
    head = tuple(range(10, 70))
    group = [request((*head, 100 + k, 101 + k), key=str(k)) for k in range(4)]
    completions = run(of, group)
    for r in group:
        assert_same(completions[r.key], reference(of, r))
    assert fed.shapes[:2] == [(1, 62), (1, 6)]  # one episode, then what is new of three


def test_who_waited_for_a_head_is_next() -> None:
    """Though one prompt is few beside the turns that are under way."""
    of = policy()
    fed = Fed(of)
    others = [request(tuple(range(10 + k, 300 + k)), key=str(k)) for k in range(7)]
    run(of, [*others, request((*others[0].prompt[:-1], 310), key="z")])
    assert fed.shapes[:2] == [(1, 7 * 290), (1, 1)]


def test_equal_prompts_feed_only_their_last_token_again() -> None:
    of = policy()
    fed = Fed(of)
    prompt = tuple(range(10, 60))
    pair = [
        Request(key=key, prompt=prompt, seed=seed, max_new=6) for key, seed in (("a", 1), ("b", 2))
    ]
    completions = run(of, pair)
    for r in pair:
        assert_same(completions[r.key], reference(of, r))
    assert fed.shapes[:2] == [(1, 50), (1, 1)]


def test_a_head_is_taken_from_what_a_finished_episode_left() -> None:
    of = policy(slots=2)
    fed = Fed(of)
    run(of, [request((11, 12), key="stays")])
    run(of, [request(tuple(range(10, 60)), key="old")])
    of.release("old")
    fed.shapes.clear()
    new = request((*range(10, 55), 200, 201), key="new")
    assert_same(run(of, [new])["new"], reference(of, new))
    assert fed.shapes[0] == (1, 2)


def test_a_short_head_is_computed_by_everyone() -> None:
    of = policy()
    fed = Fed(of)
    run(of, [request((*range(10, 20), 90 + k), key=str(k)) for k in range(3)])
    assert fed.shapes[0] == (1, 33)


# -- memory


def largest(of: HFPolicy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of the cache whenever it changes its size."""
    sizes: list[int] = []
    resize = SlotCache.resize

    def noted(self: SlotCache, sources: list[int], slots: int, capacity: int) -> None:
        resize(self, sources, slots, capacity)
        sizes.append(sum(x.numel() * x.itemsize for x in (*self.keys, *self.values)))
        assert sizes[-1] == slots * self.shape.slot_bytes(capacity)

    monkeypatch.setattr(SlotCache, "resize", noted)
    return sizes


@pytest.mark.parametrize("rows", [0, 1, 2.5, 5])
def test_a_budget_bounds_the_cache_and_changes_no_token(
    rows: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long and short episodes in memory for some: those that do not fit wait, those that are given
    away are computed again."""
    of = policy(context=768)
    budget = int(rows * of.engine.kv_shape.slot_bytes(256))
    of.engine.budget = budget
    sizes = largest(of, monkeypatch)
    turns = played(of, seed=11, count=9)
    assert max(sizes) <= max(budget, of.engine.kv_shape.slot_bytes(768))
    assert_like(turns, played(policy(context=768), seed=11, count=9))


def test_rows_beyond_the_budget_are_the_longest_idle_ones() -> None:
    of = policy(slots=3, context=768)
    for key in "abc":
        run(of, [request((10, 11, 12), key=key)])
    assert {row.key for row in of.engine.slots} == {"a", "b", "c"}
    of.engine.budget = 2 * of.engine.kv_shape.slot_bytes(640)
    long = request(tuple(10 + k % 90 for k in range(600)), key="b")
    assert_same(run(of, [long])["b"], reference(of, long))
    assert {row.key for row in of.engine.slots} == {"b", "c"}
    fed = Fed(of)
    run(of, [request((10, 11, 12, 13, 14), key="c")])
    assert fed.shapes[0] == (1, 2)  # its row has moved with all that it held


def test_a_row_in_a_turn_is_never_the_one_that_goes() -> None:
    of = policy(slots=3, context=768)
    for key in "bc":
        run(of, [request((10, 11, 12), key=key)])
    under_way = request(tuple(range(20, 40)), key="a", max_new=40)
    of.submit(under_way)
    for _ in range(5):
        assert not of.poll()
    of.engine.budget = 2 * of.engine.kv_shape.slot_bytes(640)
    long = request(tuple(10 + k % 90 for k in range(600)), key="b")
    of.submit(long)
    completions = {completion.key: completion for _ in range(200) for completion in of.poll()}
    assert_same(completions["b"], reference(of, long))
    assert_same(completions["a"], reference(of, under_way))


def test_a_turn_goes_on_reading_all_that_it_holds_when_another_ends() -> None:
    """From the prompts alone, fewer keys would be read than the turn has by then."""
    of = policy(slots=2)
    asked = [
        request(tuple(range(10, 60)), key="a", max_new=40),
        request(tuple(range(90, 140)), key="b", max_new=20),
    ]
    completions = run(of, asked)
    assert len(completions["b"].tokens) <= 20 < 30 <= len(completions["a"].tokens)
    for one in asked:
        assert_same(completions[one.key], reference(of, one))


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), max_size=9))
@example(a=[1, 2, 3, 4], b=[0, 2, 3, 4])  # alike again after it
def test_the_common_head_ends_at_the_first_difference(a: list[int], b: list[int]) -> None:
    want = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    assert common_prefix(a, b) == (min(len(a), len(b)) if want is None else want)


def test_the_cache_is_given_back_when_no_episode_is_left() -> None:
    of = policy()
    run(of, [request((10, 11)), request((12, 13), key="b")])
    of.release("a")
    assert of.engine.cache.slots
    of.release("b")
    assert not of.engine.cache.slots
    assert sum(x.numel() for x in of.engine.cache.keys) == 0
    after = request((10, 11, 12))
    assert_same(run(of, [after])["a"], reference(of, after))


def test_a_rows_bytes_are_those_of_its_tensors() -> None:
    of = policy()
    for dtype in (torch.float32, torch.bfloat16):
        kv_shape = KVShape.of(of.model.config, dtype, "cpu")
        cache = SlotCache(kv_shape)
        cache.resize([], 3, 64)
        tensors = (*cache.keys, *cache.values)
        assert sum(x.numel() * x.itemsize for x in tensors) == 3 * kv_shape.slot_bytes(64)


# -- steps of fixed shapes


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_recorded_steps_equal_those_that_are_run(rows: int) -> None:
    of = policy(slots=rows, context=768)
    of.engine.recordings = Recordings(tape)
    assert_like(played(of, seed=rows), played(policy(slots=rows, context=768), seed=rows))


def test_few_shapes_are_recorded_and_each_is_used_again() -> None:
    of = policy(context=768)
    runs: list[int] = []

    def counted(step: Any) -> Any:
        replay, at = tape(step), len(runs)
        runs.append(0)

        def again() -> None:
            runs[at] += 1
            replay()

        return again

    of.engine.recordings = Recordings(counted)
    prompts = [tuple(10 + (7 * k + j) % 300 for j in range(90)) for k in range(3)]
    # the second is over at the very step that is recorded with more slots
    most = (40, 8, 40)
    requests = [request(p, key=str(k), max_new=most[k]) for k, p in enumerate(prompts)]
    recorded, plain = run(of, requests), run(policy(context=768), requests)
    for key, completion in plain.items():
        assert recorded[key].tokens == completion.tokens
    assert 1 <= len(runs) <= 3  # 96 and 128 slots, and fewer rows when some are over
    assert sum(runs) >= 10


def test_recordings_are_forgotten_when_tensors_move() -> None:
    of = policy(context=768)
    of.engine.recordings = Recordings(tape)
    for length in (20, 300, 700):
        r = request(tuple(10 + k % 90 for k in range(length)), max_new=12)
        assert_same(run(of, [r])["a"], reference(of, r))
    wide = request(tuple(range(10, 40)), key="b", max_new=60)
    assert_same(run(of, [wide])["b"], reference(of, wide))


def test_recordings_share_a_pool_as_long_as_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """And take a new one after: torch refuses one whose graphs are all gone."""
    cuda = Cuda(monkeypatch)
    recordings = Recordings(CudaRecorder("cuda:0"))
    for high in (64, 96):
        recordings.get((1, high), cuda.step)()
    recordings.forget()
    assert not +cuda.used
    for high in (64, 96):
        recordings.get((1, high), cuda.step)()
    assert cuda.replayed == [1, 1, 2, 2]
    assert cuda.used[2] == 2


def test_engines_record_on_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    student, teacher = CudaRecorder("cuda:1"), CudaRecorder("cuda:1")
    graphs = [record(cuda.step) for record in (student, teacher, student)]
    assert [(s, pool) for s, pool in cuda.ran if pool] == [
        (student.stream, 1),
        (teacher.stream, 2),
        (student.stream, 1),
    ]
    # what libraries keep for a stream is there before a step is recorded on it
    assert cuda.ran[:WARMUP_RUNS] == [(student.stream, 0)] * WARMUP_RUNS
    assert student.stream.device == teacher.stream.device == "cuda:1"
    assert student.stream.waits == 2 * [cuda.usual]
    assert cuda.usual.waits == [student.stream, teacher.stream, student.stream]
    assert len(graphs) == 3
    assert cuda.now is cuda.usual


def test_shapes_grow_by_a_half_or_a_third() -> None:
    sizes = sorted({rounded(n, 10_000) for n in range(1, 5000)})
    assert sizes[:6] == [64, 96, 128, 192, 256, 384]
    assert all(rounded(n, 10_000) >= n for n in range(1, 5000))
    assert rounded(900, 700) == 700


# -- sampling


def test_rows_that_sit_out_draw_nothing() -> None:
    sampler = SlotSampler(3, ends=[9], device="cpu")
    sampler.begin([0, 1, 2], [request((10,), key=str(k), max_new=4) for k in range(3)])
    gen = torch.Generator().manual_seed(0)
    sampler.sample(slice(0, 3), torch.randn(3, 5, generator=gen))
    before = sampler.last.clone(), sampler.counts.clone(), sampler.tokens[:, :1].clone()
    live = torch.tensor([True, False, True])
    over = sampler.sample(slice(0, 3), torch.randn(3, 5, generator=gen), live)
    assert sampler.counts.tolist() == [2, 1, 2]
    assert sampler.last[1] == before[0][1]
    assert torch.equal(sampler.tokens[:, :1], before[2])
    assert not over.any()
    sampler.limit[:] = 1
    assert sampler.sample(slice(0, 3), torch.randn(3, 5, generator=gen), live).tolist() == [
        True,
        False,
        True,
    ]


def test_a_turns_numbers_are_those_of_its_seed() -> None:
    sampler = SlotSampler(2, ends=[9], device="cpu")
    sampler.begin([1], [Request(key="a", prompt=(1,), seed=5, max_new=3)])
    lot = random.Random(5)
    numbers = [lot.random() for _ in range(3)]
    assert sampler.uniforms[1].tolist() == numbers
    assert sampler.begin([0], [Request(key="b", prompt=(1,), seed=6, max_new=8)])
    assert not sampler.begin([0], [Request(key="c", prompt=(1,), seed=6, max_new=8)])
    assert sampler.uniforms[1, :3].tolist() == numbers  # kept, though there is room for more now
    assert sampler.uniforms[0, :3].tolist() != numbers


def test_rows_take_their_draws_with_them() -> None:
    sampler = SlotSampler(3, ends=[9], device="cpu")
    sampler.begin([0, 1, 2], [request((10,), key=str(k), max_new=2 + k) for k in range(3)])
    sampler.last[:] = torch.tensor([5, 6, 7])
    numbers = sampler.uniforms[2].clone()
    sampler.move([2, 0])
    assert sampler.last[:2].tolist() == [7, 5]
    assert sampler.limit[:2].tolist() == [4, 2]
    assert torch.equal(sampler.uniforms[0], numbers)
