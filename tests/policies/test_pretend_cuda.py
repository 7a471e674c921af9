"""The pretended GPU follows CUDA's rules, and what runs on it gives the numbers of the CPU."""

import copy
import io
import multiprocessing as mp
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.pretend_cuda import CudaTensor, Device, pretend_cuda
from support.scripted_turns import play, talks
from support.tiny_models import run, small_chat, tiny
from torch import Tensor
from torch.testing import assert_close

from tutelage.errors import PolicyError
from tutelage.maths.distributions import product
from tutelage.policies.base import Completion, Request
from tutelage.policies.hf import attention, compat, fused, generation, recorded_prompts
from tutelage.policies.hf.cuda_graphs import Recordings, Shape
from tutelage.policies.hf.generation import SlotEngine
from tutelage.policies.hf.policy import Dtype, HFPolicy
from tutelage.policies.hf.sampling import draw, draw_by_blocks
from tutelage.prompts.prompter import Sample
from tutelage.runs.diagnosis import slow_paths
from tutelage.training.optimizer import adamw


@pytest.fixture
def cuda() -> Iterator[Device]:
    with pretend_cuda() as device:
        yield device


def on_cuda(*shape: int) -> Tensor:
    return torch.ones(*shape, device="cuda")


# -- the rules


def test_a_tensor_says_where_it_is(cuda: Device) -> None:
    tensors = [
        on_cuda(2),
        torch.tensor([1.0], device="cuda"),
        torch.ones(2).cuda(),
        torch.ones(2).to("cuda:0"),
        on_cuda(2).new_zeros(3),
        on_cuda(2)[:1] + 1,
        torch.zeros_like(on_cuda(2)),
        on_cuda(2).new_tensor([1]),
    ]
    assert {(x.device, x.is_cuda, x.get_device()) for x in tensors} == {
        (torch.device("cuda:0"), True, 0)
    }
    back = [on_cuda(2).cpu(), on_cuda(2).to("cpu"), torch.tensor([1.0]), torch.arange(3)]
    assert {(type(x), x.device.type, x.is_cuda) for x in back} == {(Tensor, "cpu", False)}
    there = on_cuda(2)
    assert there.to("cuda") is there
    assert there.to("cuda", copy=True) is not there


MIXES: dict[str, Callable[[], object]] = {
    "sum": lambda: on_cuda(2) + torch.ones(2),
    "scalar of the GPU": lambda: on_cuda(2).sum() * torch.ones(2),
    "product": lambda: on_cuda(2, 2) @ torch.ones(2, 2),
    "in place": lambda: torch.ones(2).add_(on_cuda(2)),
    "stack": lambda: torch.stack([on_cuda(2), torch.ones(2)]),
    "gather": lambda: on_cuda(2).gather(0, torch.tensor([1])),
    "index_select": lambda: on_cuda(2).index_select(0, torch.tensor([1])),
    "index of the GPU": lambda: torch.ones(2)[torch.tensor([0], device="cuda")],
    "values of the CPU": lambda: on_cuda(3).__setitem__(torch.tensor([0, 1]), torch.ones(2)),
    "mask of the CPU": lambda: on_cuda(2).masked_fill(torch.tensor([True, False]), 0.0),
    "where": lambda: torch.where(torch.tensor([True, False]), on_cuda(2), 0.0),
    "equal": lambda: torch.equal(on_cuda(2), torch.ones(2)),
    "embedding": lambda: torch.nn.functional.embedding(torch.tensor([0]), on_cuda(2, 2)),
    "a layer": lambda: torch.nn.Linear(2, 2)(on_cuda(1, 2)),
}


@pytest.mark.parametrize("name", MIXES)
def test_operands_on_two_devices_are_refused(name: str, cuda: Device) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        MIXES[name]()


def test_what_cuda_takes_from_the_cpu(cuda: Device) -> None:
    x = torch.tensor([1.0, 2.0, 3.0], device="cuda")
    assert (x + torch.tensor(1.0)).tolist() == [2, 3, 4]
    assert x[torch.tensor([2, 0])].tolist() == x[[2, 0]].tolist() == [3, 1]
    x[[0, 2]] = 5.0
    x[1:] = torch.tensor([7.0, 8.0])
    assert x.tolist() == [5, 7, 8]
    assert x.masked_fill(x > 6, torch.tensor(0.0)).tolist() == [5, 0, 0]


@pytest.mark.parametrize("read", [lambda x: x.numpy(), lambda x: x.__array__()])
def test_numpy_cannot_read_it(read: Callable[[Tensor], object], cuda: Device) -> None:
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        read(on_cuda(2))


def test_gradients_cross_devices_and_stay_where_their_tensor_is(cuda: Device) -> None:
    here, there = torch.ones(2, requires_grad=True), on_cuda(2).requires_grad_()
    (here.to("cuda") * there).cpu().mul(torch.tensor([2.0, 3.0])).sum().backward()
    assert here.grad is not None
    assert there.grad is not None
    assert (here.grad.device.type, there.grad.device.type) == ("cpu", "cuda")
    assert here.grad.tolist() == there.grad.tolist() == [2, 3]
    with pytest.raises(RuntimeError, match="device"):
        there.grad = torch.ones(2)


def test_a_module_moves_with_its_tied_weights_and_is_copied(cuda: Device) -> None:
    model = tiny(0).to("cuda")
    first, last = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert first is last
    assert isinstance(first, torch.nn.Parameter)
    assert first.is_cuda
    twin = copy.deepcopy(model)
    assert twin.get_output_embeddings().weight.is_cuda
    with torch.no_grad():
        twin.get_output_embeddings().weight.zero_()
    assert float(first.detach().abs().sum()) > 0
    assert type(model.to("cpu").get_output_embeddings().weight.data) is Tensor


def test_autocast_casts_what_cuda_would(cuda: Device) -> None:
    x = on_cuda(2, 2)
    with torch.autocast("cuda", torch.bfloat16):
        assert (x @ x).dtype == torch.nn.functional.linear(x, x).dtype == torch.bfloat16
        assert (x.bfloat16() + x.bfloat16()).dtype == torch.bfloat16
        assert x.bfloat16().softmax(-1).dtype == torch.float32
    assert (x @ x).dtype == torch.float32


def test_a_graph_runs_nothing_until_it_is_replayed(cuda: Device) -> None:
    x, y = torch.tensor([1.0, 2.0], device="cuda"), torch.zeros(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y.add_(x * 2)
        shown = y + 1
    assert y.tolist() == [0, 0]
    graph.replay()
    graph.replay()
    assert y.tolist() == [4, 8]
    assert shown.tolist() == [5, 9]
    x.fill_(1.0)
    graph.replay()
    assert y.tolist() == [6, 10]


WAITS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: float(x.sum()),
    "a list": lambda x: x.tolist(),
    "a branch": lambda x: bool(x.any()),
    "indices": lambda x: x.nonzero(),
    "from the CPU": lambda x: torch.ones(2).to("cuda"),
    "to the CPU": lambda x: x.cpu(),
    "everything": lambda x: torch.cuda.synchronize(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_graph_cannot_wait_for_the_cpu(name: str, cuda: Device) -> None:
    x = on_cuda(2)
    with (
        pytest.raises(RuntimeError, match="not permitted when stream is capturing"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        WAITS[name](x)


def test_a_process_is_not_forked_after_cuda_began(cuda: Device) -> None:
    with pytest.raises(RuntimeError, match="forked subprocess"):
        mp.get_context("fork").Process(target=os.getpid).start()


def test_nothing_is_left_behind() -> None:
    before = {name: getattr(torch.cuda, name) for name in ("is_available", "Stream", "graph")}
    with pretend_cuda():
        assert torch.cuda.is_available()
    assert {name: getattr(torch.cuda, name) for name in before} == before
    assert type(torch.ones(2)) is Tensor
    with pytest.raises((RuntimeError, AssertionError)):
        torch.ones(2, device="cuda")


def test_it_is_written_and_read(cuda: Device) -> None:
    file = io.BytesIO()
    torch.save({"x": on_cuda(2) * 3}, file)
    file.seek(0)
    assert torch.load(file, weights_only=False)["x"].tolist() == [3, 3]


# -- models on it


def policy(device: str, dtype: Dtype = "float32", **settings: Any) -> HFPolicy:
    return HFPolicy(tiny(0).to(device), small_chat(), dtype=dtype, budget=100_000_000, **settings)


def turns(of: HFPolicy) -> dict[tuple[str, tuple[int, ...]], Completion]:
    return {(r.key, r.prompt): c for r, c in play(of, talks(seed=0, count=5))}


def samples(of: HFPolicy) -> list[Sample]:
    return [Sample(prompt=prompt, tokens=c.tokens) for (_, prompt), c in turns(of).items()]


NEAR = {"float32": 2e-5, "bfloat16": 0.05}


@pytest.mark.parametrize("dtype", NEAR)
def test_turns_are_sampled_as_on_the_cpu(dtype: Dtype, cuda: Device) -> None:
    """Decode steps are recorded graphs there. In bfloat16, one kernel keeps attention's scores in
    float32, where the CPU rounds them: other tokens may follow."""
    wanted, found = turns(policy("cpu", dtype)), turns(policy("cuda", dtype))
    assert cuda.replays > 10
    if dtype == "float32":
        assert {k: c.tokens for k, c in found.items()} == {k: c.tokens for k, c in wanted.items()}
    common = 0
    for key in wanted.keys() & found.keys():
        agree = [a == b for a, b in zip(wanted[key].tokens, found[key].tokens, strict=False)]
        same = (*agree, False).index(False)
        common += same
        there, here = found[key].logps[:same], wanted[key].logps[:same]
        assert there == pytest.approx(here, abs=3 * NEAR[dtype])
    assert common > 0.5 * sum(len(c.tokens) for c in wanted.values())


def test_sampled_log_probabilities_are_as_near_to_float32_as_on_the_cpu(cuda: Device) -> None:
    exact, gaps = policy("cpu"), {}
    for device in ("cpu", "cuda"):
        played = turns(policy(device, "bfloat16"))
        read = [Sample(prompt=prompt, tokens=c.tokens) for (_, prompt), c in played.items()]
        drawn = torch.tensor([x for c in played.values() for x in c.logps])
        gaps[device] = float((exact.score(read, 1.0).logp.detach() - drawn).abs().mean())
    assert gaps["cuda"] < 1.3 * gaps["cpu"]


@pytest.mark.parametrize(
    "settings", [{}, {"padded": True}, {"gradient_checkpointing": True}, {"tokens": 60}], ids=str
)
@pytest.mark.parametrize("dtype", NEAR)
def test_scores_and_gradients_are_those_of_the_cpu(
    dtype: Dtype, settings: dict[str, Any], cuda: Device
) -> None:
    read, found = samples(policy("cpu")), {}
    for device in ("cpu", "cuda"):
        of = policy(device, dtype, **settings)
        logp = of.score(read, 0.8).logp
        assert logp.device.type == device
        (logp * torch.linspace(-1, 2, len(logp), device=device)).sum().backward()
        grads = [p.grad for p in of.parameters()]
        assert {g.device.type for g in grads if g is not None} == {device}
        found[device] = [logp.detach().cpu(), *(g.cpu() for g in grads if g is not None)]
    assert_close(found["cuda"][0], found["cpu"][0], atol=NEAR[dtype], rtol=0)
    for one, other in zip(found["cuda"][1:], found["cpu"][1:], strict=True):
        assert float((one - other).norm() / other.norm()) < NEAR[dtype]


def test_a_kernel_without_the_argument_for_shared_heads(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.11 has none, and says so with a TypeError where it is given."""
    read, usual = samples(policy("cpu")), compat.varlen_attn

    def older(q: Tensor, k: Tensor, v: Tensor, *ends: Any, scale: float, window_size: Any) -> Any:
        return usual(q, k, v, *ends, scale=scale, window_size=window_size)

    with torch.no_grad():
        wanted = policy("cuda", "bfloat16").score(read, 1.0).logp
        monkeypatch.setattr(compat, "varlen_attn", older)
        with pytest.raises(PolicyError, match=r"bfloat16 fails .*enable_gqa"):
            policy("cuda", "bfloat16")
        monkeypatch.setattr(compat, "varlen_takes", lambda argument: False)
        assert_close(policy("cuda", "bfloat16").score(read, 1.0).logp, wanted)


# -- what is done on a GPU only


def prompts(count: int) -> list[Request]:
    """Of unequal lengths, with a common beginning."""
    return [
        Request(
            key=str(k),
            prompt=(*range(10, 50), *(50 + k + j for j in range(3 + 7 * k))),
            seed=k,
            max_new=4,
        )
        for k in range(count)
    ]


def test_new_tokens_of_all_slots_attend_in_one_kernel(cuda: Device) -> None:
    of, slots = policy("cuda", "bfloat16"), 6
    for each in prompts(slots):
        of.submit(each)
    cuda.watch = True
    of.poll()  # one of them, whose beginning the others copy
    cuda.names.clear()
    completions = of.poll()
    assert cuda.names.count("varlen_attn") == 2  # of two layers
    while len(completions) < slots:
        completions += of.poll()
    turns = {c.key: c for c in completions}
    read = [Sample(prompt=p.prompt, tokens=turns[p.key].tokens) for p in prompts(slots)]
    drawn = torch.tensor([x for p in prompts(slots) for x in turns[p.key].logps])
    with torch.no_grad():
        assert float((of.score(read, 1.0).logp.cpu() - drawn).abs().mean()) < 0.05


@pytest.mark.parametrize("most", [16, 100])
def test_a_pass_over_prompts_has_so_many_tokens_at_most(
    most: int, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read in several passes is what is read in one."""
    wanted = run(policy("cuda", "bfloat16"), prompts(5))
    of, sizes = policy("cuda", "bfloat16"), list[int]()
    read_slots = SlotEngine._read_slots

    def watched(self: SlotEngine, reads: Any, ids: Tensor, positions: Tensor) -> Tensor:
        sizes.append(len(ids))
        return read_slots(self, reads, ids, positions)

    monkeypatch.setattr(SlotEngine, "_read_slots", watched)
    monkeypatch.setattr(generation, "MAX_PREFILL_TOKENS_GPU", most)
    monkeypatch.setattr(recorded_prompts, "MAX_RECORDED_TOKENS", 0)  # they are padded to more
    found = run(of, prompts(5))
    assert max(sizes) <= most
    assert max(sizes) > most / 2
    assert {k: c.tokens for k, c in found.items()} == {k: c.tokens for k, c in wanted.items()}


@pytest.mark.parametrize("new", [(1, 1, 1), (5, 1, 9), (20,)])
def test_slots_are_read_where_they_lie_up_to_their_own_length(
    new: tuple[int, ...], cuda: Device
) -> None:
    """Against the definition: softmax of each query over the keys of its slot up to its own."""
    draw = torch.Generator().manual_seed(0)
    heads, key_heads, size, capacity, chosen = 4, 2, 8, 40, (3, 0, 2)[: len(new)]
    key, value = (torch.randn(5, key_heads, capacity, size, generator=draw) for _ in range(2))
    query = torch.randn(1, heads, sum(new), size, generator=draw)
    parts = [
        attention.NewTokens(s, 7 + 3 * i, n)
        for i, (s, n) in enumerate(zip(chosen, new, strict=True))
    ]
    on_device = [x.bfloat16().to("cuda") for x in (query, key, value)]
    reads = attention.SlotReads.of(parts, "cuda")
    found, _ = attention.attend(None, *on_device, None, 0.3, reads=reads)
    query, key, value = (x.bfloat16().float() for x in (query, key, value))
    start = 0
    for part in parts:
        for t in range(part.new):
            seen = part.cached + t + 1
            for h in range(heads):
                k, v = (x[part.slot, h // 2, :seen] for x in (key, value))
                wanted = (query[0, h, start + t] @ k.T * 0.3).softmax(-1) @ v
                assert_close(found[0, start + t, h].float().cpu(), wanted, atol=0.02, rtol=0.02)
        start += part.new


def test_torch_without_lengths_of_keys_uses_the_operation_behind_it(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch 2.11 has no argument for them: the operation is asked, with the same tensors."""
    calls: list[tuple[Any, ...]] = []

    def operation(*args: Any, **kwargs: Any) -> tuple[Tensor]:
        query, key, value, ends, starts, longest, longest_keys, dropout, causal, mask = args
        calls.append((longest, dropout, causal, mask))
        window = (-1, 0) if causal else (-1, -1)
        return (
            compat.varlen_attn(
                query,
                key,
                value,
                ends,
                starts,
                longest,
                longest_keys,
                window_size=window,
                enable_gqa=True,
                **kwargs,
            ),
        )

    wanted = run(policy("cuda", "bfloat16"), prompts(3))
    monkeypatch.setattr(compat, "varlen_takes", lambda argument: False)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", operation)
    found = run(policy("cuda", "bfloat16"), prompts(3))
    assert {k: c.tokens for k, c in found.items()} == {k: c.tokens for k, c in wanted.items()}
    assert {(longest > 1, causal) for longest, _, causal, _ in calls} == {
        (True, True),
        (False, False),
    }


@pytest.mark.parametrize("fault", ["no compiler", "other numbers"])
def test_kernels_that_cannot_be_compiled_or_are_wrong_are_not_used(
    fault: str, cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own are, and a sentence says why."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*args: Any) -> Any:
            if fault == "no compiler":
                raise RuntimeError("Failed to find C compiler")
            results = function(*args)
            return results * 1.5 if isinstance(results, Tensor) else results

        return broken

    wanted = run(policy("cuda", "bfloat16"), prompts(3))
    monkeypatch.setattr(fused, "_functions", {})
    monkeypatch.setattr(fused, "compiled", compiled)
    of = policy("cuda", "bfloat16")
    assert ("Failed to find C compiler" if fault == "no compiler" else "differ by") in of.unfused
    monkeypatch.undo()
    found = run(of, prompts(3))
    assert {k: c.tokens for k, c in found.items()} == {k: c.tokens for k, c in wanted.items()}
    opened = {"self": of}
    assert any("compiled elementwise" in sentence for sentence in slow_paths(opened))


def test_prompts_of_a_size_that_comes_again_are_recorded(
    cuda: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns of an agent are many passes over few new tokens. What is padded changes nothing."""
    of, recorded = policy("cuda", "bfloat16"), set[str]()
    get = Recordings.get

    def watched(self: Recordings, shape: Shape, step: Callable[[], None]) -> Callable[[], None]:
        recorded.add(shape[0])
        return get(self, shape, step)

    monkeypatch.setattr(Recordings, "get", watched)
    monkeypatch.setattr(recorded_prompts, "MIN_SEEN", 2)
    # log-probabilities are at temperature 1 for these, the greedy ones included
    found = [(r, c) for r, c in play(of, talks(seed=3, count=16)) if r.temperature in (0, 1)]
    assert "prompts" in recorded
    read = [Sample(prompt=r.prompt, tokens=c.tokens) for r, c in found]
    drawn = torch.tensor([x for _, c in found for x in c.logps])
    with torch.no_grad():
        gap = (of.score(read, 1.0).logp.cpu() - drawn).abs().mean()
    assert float(gap) < 0.05


def engine(of: HFPolicy) -> SlotEngine:
    assert isinstance(of.engine, SlotEngine)
    return of.engine


def test_keys_and_values_are_given_back_before_the_update(cuda: Device) -> None:
    of = policy("cuda")
    first = run(of, prompts(4))
    held = weakref.ref(engine(of).cache.keys[0])
    assert engine(of).recordings is not None
    assert engine(of).recordings.replays
    size = len(engine(of).slots), engine(of).cache.capacity
    assert min(size) > 0
    for key in first:
        of.release(key)
    assert held() is None
    assert (engine(of).slots, engine(of).cache.capacity) == ([], 0)
    assert not engine(of).recordings.replays
    replays = cuda.replays
    assert run(of, prompts(4)) == first
    assert cuda.replays > replays
    # at once of the size that they had, so that nothing is recorded for a smaller one
    assert (len(engine(of).slots), engine(of).cache.capacity) == size


@pytest.mark.parametrize("entries", [7, 420, 512, 1187 * 128])
def test_a_token_is_drawn_by_blocks_as_from_the_whole_vocabulary(entries: int) -> None:
    gen = torch.Generator().manual_seed(entries)
    rows = 4 if entries > 1000 else 64
    logits = torch.randn(rows, entries, generator=gen) * 4
    logits[:, 1::5] = -torch.inf
    heat = torch.tensor([0.0, 0.5, 1.0, 2.0]).repeat(rows // 4)
    uniform = torch.rand(rows, generator=gen, dtype=torch.float64)
    uniform[:4] = torch.tensor([0.3, 0.0, 1 - 2**-53, 1 - 2**-53], dtype=torch.float64)
    token, logp = draw_by_blocks(logits, heat, uniform)
    wanted, wanted_logp = draw(logits, heat, uniform)
    assert torch.equal(token, wanted)
    assert_close(logp, wanted_logp, atol=1e-4, rtol=0)
    exact = (logits.double() / heat.where(heat > 0, 1.0)[:, None]).log_softmax(-1)
    assert_close(logp.double(), exact.gather(-1, token[:, None])[:, 0], atol=2e-6, rtol=1e-6)
    order = torch.randperm(rows, generator=gen)
    again, again_logp = draw_by_blocks(logits[order], heat[order], uniform[order])
    assert torch.equal(again, token[order])
    assert torch.equal(again_logp, logp[order])
    alone = [
        draw_by_blocks(logits[i : i + 1], heat[i : i + 1], uniform[i : i + 1])[0]
        for i in range(rows)
    ]
    assert torch.equal(torch.cat(alone), token)


def test_a_gpu_draws_by_blocks(cuda: Device) -> None:
    """And nothing there is a double of the whole vocabulary."""
    logits = torch.randn(2, 1024).to("cuda")
    heat, uniform = torch.ones(2).to("cuda"), torch.tensor([0.2, 0.9]).double().to("cuda")
    token, logp = draw(logits, heat, uniform)
    wanted, wanted_logp = draw(logits.cpu(), heat.cpu(), uniform.cpu())
    assert token.tolist() == wanted.tolist()
    assert_close(logp.cpu(), wanted_logp, atol=1e-5, rtol=0)


def test_the_heads_product_keeps_its_sums_in_float32(cuda: Device) -> None:
    gen = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(40, 64, generator=gen), torch.randn(300, 64, generator=gen)
    exact = hidden @ head.T
    bound = (2**-8 + 2**-18) * (hidden.abs() @ head.abs().T) + 1e-4
    leaves = [x.to("cuda").bfloat16().requires_grad_() for x in (hidden, head)]
    out = product(*leaves)
    assert out.dtype == torch.float32
    assert ((out.detach().cpu() - exact).abs() <= bound).all()
    one, other = (x.detach().cpu().double() for x in leaves)
    assert_close(out.detach().cpu().double(), one @ other.T, atol=1e-4, rtol=1e-5)
    out.log_softmax(-1)[:, 3].sum().backward()
    here = [x.clone().requires_grad_() for x in (hidden, head)]
    (here[0] @ here[1].T).log_softmax(-1)[:, 3].sum().backward()
    for one, other in zip(leaves, here, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert float((one.grad.cpu() - other.grad).norm() / other.grad.norm()) < 0.02


def test_the_sampler_multiplies_by_the_head_that_is_scored(cuda: Device) -> None:
    """Before and after an update: its copy of the head stays where recorded steps read it."""
    of = policy("cuda", "bfloat16")
    for scale in (1.0, 0.7):
        with torch.no_grad():
            of.model.get_output_embeddings().weight.mul_(scale)
        of.refresh()
        completions = run(of, prompts(3))
        read = [Sample(prompt=p.prompt, tokens=completions[p.key].tokens) for p in prompts(3)]
        drawn = [x for p in prompts(3) for x in completions[p.key].logps]
        with torch.no_grad():
            gap = (of.score(read, 1.0).logp.cpu() - torch.tensor(drawn)).abs().mean()
        assert float(gap) < 0.05
    copied = of.head_copy
    assert copied is not None
    assert torch.equal(copied, of.head.detach().bfloat16())


@pytest.mark.parametrize("frozen", [False, True])
def test_products_of_one_input_are_joined_when_sampling(frozen: bool, cuda: Device) -> None:
    """A decode step of two layers: those for queries, keys and values, of the output, of the gated
    MLP's input and output. Those of a trained student follow its weights."""
    of = policy("cuda", "bfloat16")
    if frozen:
        of.freeze()
    for scale in (1.0, 1.0) if frozen else (1.0, 1.1):
        with torch.no_grad():
            for p in of.parameters():
                p.mul_(scale)
        of.refresh()
        for each in prompts(3):
            of.submit(each)
        while engine(of).waiting:
            of.poll()
        cuda.watch = True
        cuda.names.clear()
        with fused.used_always():
            engine(of)._decode_together(slice(0, 3), None, 64)
        cuda.watch = False
        assert cuda.names.count("mm") == 2 * 4
        # where slots begin is computed once, and not in every layer; one more is the sampler's
        assert cuda.names.count("constant_pad_nd") == 2
        of.refresh()
        completions = run(of, prompts(3))
        read = [Sample(prompt=p.prompt, tokens=completions[p.key].tokens) for p in prompts(3)]
        drawn = [x for p in prompts(3) for x in completions[p.key].logps]
        cuda.watch = True
        cuda.names.clear()
        with torch.no_grad():
            gap = (of.score(read, 1.0).logp.cpu() - torch.tensor(drawn)).abs().mean()
        cuda.watch = False
        assert cuda.names.count("mm") >= 2 * 7
        assert float(gap) < 0.05


def test_frozen_weights_are_halved_and_copies_stand_alone(cuda: Device) -> None:
    of = policy("cuda", "bfloat16")
    read = samples(of)
    frozen = of.copied()
    assert {x.weight.dtype for x in frozen.base.modules() if isinstance(x, torch.nn.Linear)} == {
        torch.bfloat16
    }
    with torch.no_grad():
        before = frozen.score(read, 1.0).logp
        assert_close(before, of.score(read, 1.0).logp)
        for parameter in of.parameters():
            parameter.mul_(1.5)
        assert torch.equal(frozen.score(read, 1.0).logp, before)


@pytest.mark.parametrize("offload", [False, True])
def test_adamw_steps_as_on_the_cpu(offload: bool, cuda: Device) -> None:
    read, found = samples(policy("cpu")), []
    for device in ("cpu", "cuda"):
        of = policy(device)
        optimizer = adamw(
            of.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, offload=offload
        )
        (group,) = optimizer.param_groups
        assert bool(group["fused"]) == (device == "cuda" and not offload)
        for _ in range(2):
            optimizer.zero_grad()
            (-of.score(read, 1.0).logp.mean()).backward()
            torch.nn.utils.clip_grad_norm_(list(of.parameters()), 1.0)
            optimizer.step()
        where = {
            x.device.type
            for s in optimizer.state_dict()["state"].values()
            for x in s.values()
            if x.dim()
        }
        assert where == {"cpu" if offload else device}
        found.append([p.detach().cpu() for p in of.parameters()])
    for one, other in zip(*found, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_weights_are_saved_and_loaded(cuda: Device, tmp_path: Path) -> None:
    of = policy("cuda")
    read = samples(of)
    of.save(tmp_path)
    with torch.no_grad():
        wanted = of.score(read, 1.0).logp.cpu()
        for device in ("cpu", "cuda"):
            again = HFPolicy.load(str(tmp_path), device=device, budget=100_000_000)
            assert_close(again.score(read, 1.0).logp.cpu(), wanted, atol=2e-5, rtol=0)
    assert isinstance(next(of.model.parameters()), CudaTensor)
