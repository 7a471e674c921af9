"""A CUDA device without a GPU: tensors that report cuda:0, computed by the CPU, under CUDA's rules.

Inside `pretend_cuda()`, `torch.cuda.is_available()` is true, `device="cuda"` makes `CudaTensor`s,
and every operation on them computes real numbers on the CPU. What CUDA refuses is refused:

- operands on two devices, but for CPU scalars in elementwise operations and CPU indices
- `.numpy()`, and assigning a gradient from another device
- inside a recorded graph: reading a value on the CPU, and copying from the CPU
- `varlen_attn` in float32
- forking the process

A recorded graph runs nothing while it is recorded and computes the same operations on the same
memory when it is replayed. `torch.autocast("cuda")` casts the arguments of CUDA's lists of
functions. The backward of `varlen_attn` adds in another order each time, as CUDA's does.

What it cannot show: compiled kernels, speed, rounding of CUDA's kernels, asynchronous execution,
memory, alignment.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.attention.varlen
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.policies.hf import fused

aten = torch.ops.aten
CUDA = torch.device("cuda:0")
GB = 1_000_000_000
MIXED = (
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
    "cpu! (when checking arguments of {})"
)
CAPTURING = "CUDA error: operation not permitted when stream is capturing ({})"
FORKED = (
    "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must "
    "use the 'spawn' start method"
)
NUMPY = (
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
    "host memory first."
)


class CudaTensor(torch.Tensor):
    """A tensor that says it is on cuda:0; `host` is its data, a tensor of the CPU."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls: Any, real: torch.Tensor, requires_grad: bool = False) -> "CudaTensor":
        assert type(real) is torch.Tensor, (
            "only a tensor of the CPU can stand behind one of the GPU"
        )
        assert real.device.type == "cpu"
        guard = torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch()
        shape = torch.empty_strided(real.size(), real.stride(), dtype=real.dtype, device="meta")
        tensor = torch.Tensor._make_subclass(
            cls, shape, requires_grad, device_for_backend_keys=CUDA
        )
        del guard
        tensor.host = real
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        assert isinstance(value, CudaTensor), "the data of a tensor on a GPU come from the CPU"
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.host = value.host

    def get_device(self) -> int:
        return 0

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(NUMPY)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(NUMPY)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> Any:
        return self.host.untyped_storage()

    def is_pinned(self, *args: Any) -> bool:
        return False

    def pin_memory(self, *args: Any) -> torch.Tensor:
        raise RuntimeError(
            "cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "CudaTensor":
        if id(self) not in memo:
            assert self.is_leaf, "only leaves can be copied deeply"
            copy = CudaTensor(self.host.clone(), self.requires_grad)
            if getattr(self, "_is_param", False):
                copy._is_param = True  # type: ignore[attr-defined]
            memo[id(self)] = copy
        copied: CudaTensor = memo[id(self)]
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return CudaTensor, (self.host, self.requires_grad)

    def __repr__(self, **kwargs: Any) -> str:
        return f"CudaTensor({self.host!r})"


@dataclass
class Device:
    """What has been done on the pretended GPU: graphs, waits of the CPU, launches."""

    total: int = 80 * GB
    recording: list[tuple[Any, Any, Any, Any]] | None = None
    replays: int = 0
    launches: int = 0
    waits: int = 0  # values that the CPU read
    order: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    names: list[str] = field(default_factory=list)  # of operations, where `watch` is set
    watch: bool = False


DEVICE = Device()
NOISE = 2**-9
"""Of the backward kernel's products: it adds in any order, so that no two passes are alike."""
_explicit_meta = False
"""Whether the caller asked for torch's own meta device, which stands for cuda inside of torch."""


def mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """The same lists, tuples and dicts with function(tensor) in place of every tensor."""
    if isinstance(x, torch.Tensor):
        return function(x)
    if isinstance(x, list | tuple):
        parts = [mapped(function, each) for each in x]
        return parts if type(x) is list else type(x)(*parts) if hasattr(x, "_fields") else (*parts,)
    return {k: mapped(function, v) for k, v in x.items()} if isinstance(x, dict) else x


def tensors_of(*values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    mapped(found.append, values)
    return found


def host(x: torch.Tensor) -> torch.Tensor:
    return x.host if isinstance(x, CudaTensor) else x


# -- operations below autograd

READS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::equal",
    "aten::unique_consecutive",
    "aten::_unique2",
    "aten::unique_dim",
}
"""Operations whose result, or its shape, the CPU waits for."""
INDEXED = {
    "aten::index",
    "aten::index_put_",
    "aten::index_put",
    "aten::_unsafe_index",
    "aten::_index_put_impl_",
    "aten::_unsafe_index_put",
}


def dispatched(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute one operation, of which at least one tensor or the result is on the GPU."""
    name = func._schema.name
    tensors = tensors_of(args, kwargs)
    on_cuda = [x for x in tensors if isinstance(x, CudaTensor)]
    wanted = kwargs.get("device")
    to_cuda = _is_cuda(wanted)
    if not on_cuda and not to_cuda:
        return func(*args, **kwargs)
    if name == "aten::_to_copy":
        return _to_copy(args[0], kwargs, to_cuda or wanted is None)
    if name == "aten::copy_":
        return _copy(*args)
    if name == "prim::device":
        return CUDA
    if func is aten.mm.dtype:
        return _mm_float32(*args)
    if name == "torch_attn::_varlen_attn":
        return _varlen(*args, **kwargs)
    if name == "torch_attn::_varlen_attn_backward":
        return _varlen_backward(*args, **kwargs)
    _check_devices(func, name, args, tensors, on_cuda)
    back_on_cpu = wanted is not None and not to_cuda
    if DEVICE.recording is not None and (name in READS or back_on_cpu):
        raise RuntimeError(CAPTURING.format(name))
    DEVICE.launches += 1
    DEVICE.waits += name in READS
    if DEVICE.watch:
        DEVICE.names.append(name.removeprefix("aten::"))
    real_args, real_kwargs = mapped(host, args), mapped(host, kwargs)
    if wanted is not None:
        real_kwargs = {**real_kwargs, "device": torch.device("cpu")}
    if real_kwargs.get("pin_memory"):
        real_kwargs = {**real_kwargs, "pin_memory": False}
    if name == "aten::histc" and not real_args[0].is_floating_point():
        # CUDA counts integers too, the CPU floating-point numbers only
        real_args = (real_args[0].float(), *real_args[1:])
    known = {id(x.host): x for x in on_cuda}
    if DEVICE.recording is not None and func._schema.is_mutable:
        result = _written(func, real_args, real_kwargs)
    else:
        result = func(*real_args, **real_kwargs)
    if DEVICE.recording is not None:
        DEVICE.recording.append((func, real_args, real_kwargs, result))
    if back_on_cpu:
        return result

    return mapped(lambda x: known[id(x)] if id(x) in known else CudaTensor(x), result)


def _is_cuda(device: Any) -> bool:
    """Whether a factory's device is the GPU: where C++ asks for that of a tensor, it says meta."""
    if device is None:
        return False
    kind = torch.device(device).type
    return kind == "cuda" or (kind == "meta" and not _explicit_meta)


def _check_devices(func: Any, name: str, args: Any, tensors: Any, on_cuda: Any) -> None:
    strangers = [x for x in tensors if not isinstance(x, CudaTensor)]
    if not strangers:
        return
    if name in INDEXED:
        if not isinstance(args[0], CudaTensor):
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        values = [x for x in args[2:3] if isinstance(x, torch.Tensor)]
        strangers = [x for x in values if not isinstance(x, CudaTensor) and x.dim()]
    elif torch.Tag.pointwise in func.tags or name.startswith("aten::masked_fill"):
        strangers = [x for x in strangers if x.dim()]
    if strangers:
        raise RuntimeError(MIXED.format(name))


def _to_copy(x: torch.Tensor, kwargs: Any, to_cuda: bool) -> torch.Tensor:
    crosses = to_cuda != isinstance(x, CudaTensor)
    if DEVICE.recording is not None and crosses:
        raise RuntimeError(CAPTURING.format("a copy between the CPU and the GPU"))
    DEVICE.waits += crosses and not to_cuda
    DEVICE.launches += 1
    source = host(x)
    rest = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
    copy = aten._to_copy.default(source, **rest)
    if DEVICE.recording is not None:
        DEVICE.recording.append((aten._to_copy.default, (source,), rest, copy))
    return CudaTensor(copy) if to_cuda else copy


def _copy(to: torch.Tensor, source: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Copies may cross devices."""
    reals = [host(to), host(source)]
    if DEVICE.recording is not None:
        if isinstance(to, CudaTensor) != isinstance(source, CudaTensor):
            raise RuntimeError(CAPTURING.format("a copy between the CPU and the GPU"))
        DEVICE.recording.append((aten.copy_.default, tuple(reals), {}, reals[0]))
    else:
        reals[0].copy_(reals[1])
    DEVICE.launches += 1
    return to


def _written(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operation returns that writes to its arguments, without writing: those."""
    named = {**dict(zip((a.name for a in func._schema.arguments), args, strict=False)), **kwargs}
    written = [
        named[a.name]
        for a in func._schema.arguments
        if a.alias_info is not None and a.alias_info.is_write
    ]
    count = len(func._schema.returns)
    assert count in (0, len(written)), f"{func} cannot be recorded here"
    return None if not count else written[0] if count == 1 else tuple(written)


def _mm_float32(a: Any, b: Any, dtype: torch.dtype) -> torch.Tensor:
    """A product of 16 bits whose sums are not rounded to 16 bits."""
    for x in (a, b):
        if not isinstance(x, CudaTensor):
            raise RuntimeError(MIXED.format("mm"))
    assert dtype == torch.float32
    assert a.dtype == b.dtype
    assert a.dtype in (torch.bfloat16, torch.float16), "out_dtype is for products of 16 bits"
    DEVICE.launches += 1
    x, y = a.host, b.host
    product = x.float() @ y.float()
    if DEVICE.recording is not None:
        again = _Recorded(lambda x, y: x.float() @ y.float())
        DEVICE.recording.append((again, (x, y), {}, product))
    return CudaTensor(product)


class _Recorded:
    """A function as one of torch's operations that writes to none of its arguments."""

    _schema = SimpleNamespace(is_mutable=False)

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.function(*args, **kwargs)


# -- the kernel for sequences of different lengths


def _varlen_parts(ends: Any, ends_k: Any, used: Any) -> Any:
    lists = [x.tolist() for x in (ends, ends if ends_k is None else ends_k)]
    spans = [list(itertools.pairwise(x)) for x in lists]
    for at, ((a, b), (c, d)) in enumerate(zip(*spans, strict=True)):
        d = d if used is None else c + int(used[at])
        yield slice(a, b), slice(c, d)


def _weights(q: Any, k: Any, scale: float, causal: bool) -> torch.Tensor:
    """Softmax of queries [H, T, D] over keys [H, S, D]; the last query is at the last key."""
    scores = q @ k.transpose(1, 2) * scale
    if causal:
        t, s = scores.shape[1:]
        scores = scores.masked_fill(torch.ones(t, s, dtype=torch.bool).triu(s - t + 1), -torch.inf)
    return scores.softmax(-1)


def _heads(q: Any, *more: Any) -> list[torch.Tensor]:
    """[T, H, D] each, of fewer key heads -> [H, T, D] each in float32, of as many as queries."""
    heads = [q.float().transpose(0, 1)]
    for x in more:
        heads.append(x.float().transpose(0, 1).repeat_interleave(q.shape[1] // x.shape[1], 0))
    return heads


def _varlen_checked(query: Any, key: Any, value: Any, ends: Any, window: Any) -> bool:
    for x in (query, key, value, ends):
        if not isinstance(x, CudaTensor):
            raise RuntimeError(MIXED.format("varlen_attn"))
    if query.dtype not in (torch.bfloat16, torch.float16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    if not query.dtype == key.dtype == value.dtype:
        raise RuntimeError("query, key and value must have the same dtype")
    if ends.dtype != torch.int32:
        raise RuntimeError("cu_seqlens_q must have dtype int32")
    assert list(window or (-1, -1)) in ([-1, -1], [-1, 0]), "other windows are not pretended"
    return list(window or ()) == [-1, 0]


def _varlen(
    query: Any,
    key: Any,
    value: Any,
    ends: Any,
    ends_k: Any,
    longest: int,
    longest_k: int,
    is_causal: bool = False,
    scale: Any = None,
    window_size: Any = None,
    enable_gqa: bool = False,
    seqused_k: Any = None,
    block_table: Any = None,
    num_splits: Any = None,
) -> Any:
    causal = _varlen_checked(query, key, value, ends, window_size) or is_causal
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    assert block_table is None, "paged keys are not pretended"
    DEVICE.launches += 1
    if DEVICE.watch:
        DEVICE.names.append("varlen_attn")
    if query.shape[1] != key.shape[1] and not enable_gqa:
        raise RuntimeError("query and key need the same heads")

    def attended(query: Any, key: Any, value: Any, ends: Any, ends_k: Any, used: Any) -> Any:
        out = torch.zeros_like(query)
        for rows, seen in _varlen_parts(ends, ends_k, used):
            assert rows.stop - rows.start <= longest, "max_q is too small"
            assert seen.stop - seen.start <= longest_k, "max_k is too small"
            q, k, v = _heads(query[rows], key[seen], value[seen])
            out[rows] = (_weights(q, k, scale, causal) @ v).transpose(0, 1).to(out.dtype)
        return out

    reals = mapped(host, (query, key, value, ends, ends_k, seqused_k))
    out = attended(*reals)
    if DEVICE.recording is not None:
        DEVICE.recording.append((_Recorded(attended), reals, {}, out))
    sums = torch.zeros(query.shape[1], len(query))
    state = torch.zeros(2, dtype=torch.uint64)
    return CudaTensor(out), CudaTensor(sums), CudaTensor(state)


def _varlen_backward(
    grad: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    sums: Any,
    ends: Any,
    ends_k: Any,
    longest: int,
    longest_k: int,
    is_causal: bool,
    state: Any,
    scale: Any = None,
    window_size: Any = None,
    *more: Any,
    **options: Any,
) -> Any:
    causal = _varlen_checked(query, key, value, ends, window_size) or is_causal
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    gradients = [torch.zeros_like(x.host) for x in (query, key, value)]
    for rows, seen in _varlen_parts(*mapped(host, (ends, ends_k)), None):
        q, k, v = _heads(query.host[rows], key.host[seen], value.host[seen])
        (g,), weights = _heads(grad.host[rows]), _weights(q, k, scale, causal)
        slope = weights * (g @ v.transpose(1, 2))
        slope = (slope - weights * slope.sum(-1, keepdim=True)) * scale
        slope *= 1 + NOISE * torch.randn(slope.shape, generator=DEVICE.order)
        grads = slope @ k, slope.transpose(1, 2) @ q, weights.transpose(1, 2) @ g
        for to, at, part in zip(gradients, (rows, seen, seen), grads, strict=True):
            shared = part.reshape(to.shape[1], -1, *part.shape[1:]).sum(1)
            to[at] += shared.transpose(0, 1).to(to.dtype)
    return tuple(CudaTensor(x) for x in gradients)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


# -- functions of Python: what C++ would decide before it asks for an operation

LOWER = {
    "linear",
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "addbmm",
    "einsum",
    "mv",
    "addmv",
    "scaled_dot_product_attention",
}
FLOAT32 = {
    "__pow__",
    "__rpow__",
    "__rtruediv__",
    "cumsum",
    "exp",
    "log",
    "log_softmax",
    "norm",
    "pow",
    "prod",
    "reciprocal",
    "rsqrt",
    "softmax",
    "softplus",
    "sum",
    "layer_norm",
    "cross_entropy",
    "nll_loss",
    "kl_div",
    "logsumexp",
}
"""torch's lists of functions that autocast runs in the lower dtype, and in float32."""


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        global _explicit_meta
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if torch.is_autocast_enabled("cuda"):
            args, kwargs = _autocast(name, args, kwargs)
        first = args[0] if args else None
        if name in ("to", "cuda", "cpu", "type_as") and isinstance(first, torch.Tensor):
            return _moved(func, name, args, kwargs)
        if isinstance(first, CudaTensor):
            if name in ("__getitem__", "__setitem__"):
                args = (first, _indices(args[1]), *args[2:])
            if name == "new_tensor":
                device = kwargs.pop("device", "cuda")
                tensor = torch.tensor(*args[1:], **kwargs)
                return aten._to_copy.default(tensor, device=torch.device(device))
            if name == "numpy":
                raise TypeError(NUMPY)
            if name in (
                "tolist",
                "data_ptr",
                "untyped_storage",
                "get_device",
                "is_pinned",
                "pin_memory",
                "__deepcopy__",
                "__reduce_ex__",
                "__repr__",
            ):
                return getattr(CudaTensor, name)(*args, **kwargs)
        device = kwargs.get("device")
        if device is None:
            return func(*args, **kwargs)
        kind = torch.device(device).type
        if kind == "cuda" and name in ("tensor", "as_tensor", "asarray"):
            return aten._to_copy.default(func(*args, **{**kwargs, "device": "cpu"}), device=CUDA)
        before, _explicit_meta = _explicit_meta, kind == "meta"
        try:
            return func(*args, **kwargs)
        finally:
            _explicit_meta = before


def _autocast(name: str, args: Any, kwargs: Any) -> Any:
    to = torch.get_autocast_dtype("cuda") if name in LOWER else None
    to = torch.float32 if name in FLOAT32 else to
    if to is None or ("dtype" in kwargs and kwargs["dtype"] is not None):
        return args, kwargs

    def cast(x: Any) -> Any:
        fits = isinstance(x, CudaTensor) and x.is_floating_point() and x.dtype != torch.float64
        return x.to(to) if fits and x.dtype != to else x

    return mapped(cast, args), mapped(cast, kwargs)


def _moved(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """`to` and its like: the tensor itself where device and dtype are those it has."""
    x, given = args[0], args[1:]
    other = given[0] if given and isinstance(given[0], torch.Tensor) else kwargs.get("other")
    dtype, copied = None, bool(kwargs.get("copy", False))
    if name == "cuda":
        device: Any = CUDA
    elif name == "cpu":
        device = torch.device("cpu")
    elif isinstance(other, torch.Tensor):
        device, dtype = other.device, other.dtype
    else:
        named = {k: v for k, v in kwargs.items() if k != "copy"}
        device, dtype, *_ = torch._C._nn._parse_to(*given[:2], **named)
        copied = copied or True in given
    device, dtype = x.device if device is None else device, x.dtype if dtype is None else dtype
    device = CUDA if device.type == "cuda" else device
    if not (isinstance(x, CudaTensor) or device == CUDA):
        return func(*args, **kwargs)
    if device == x.device and dtype == x.dtype and not copied:
        return x
    return aten._to_copy.default(x, device=device, dtype=dtype)


def _indices(index: Any) -> Any:
    """Lists as indices are tensors of the CPU, which CUDA takes."""
    if isinstance(index, list):
        return torch.tensor(index, dtype=None if index else torch.long)
    return tuple(map(_indices, index)) if type(index) is tuple else index


# -- torch.cuda


class Stream:
    def __init__(self, device: Any = None, **options: Any) -> None:
        self.device = CUDA

    def wait_stream(self, other: "Stream") -> None: ...
    def synchronize(self) -> None: ...


class Event:
    def __init__(self, **options: Any) -> None: ...
    def record(self, stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...
    def wait(self, stream: Any = None) -> None: ...
    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "Event") -> float:
        return 1.0


class Graph:
    """Operations on memory, recorded without running them."""

    def __init__(self, **options: Any) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def pool(self) -> tuple[int, int]:
        return (0, id(self))

    def replay(self) -> None:
        DEVICE.replays += 1
        guard = torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch()
        with torch.no_grad():
            for func, args, kwargs, results in self.operations:
                again = func(*args, **kwargs)
                if func._schema.is_mutable:
                    continue
                for old, new in zip(tensors_of(results), tensors_of(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)
        del guard


@contextlib.contextmanager
def graph(of: Graph, pool: Any = None, stream: Any = None, **options: Any) -> Iterator[None]:
    assert DEVICE.recording is None, "a graph is being recorded"
    DEVICE.recording = of.operations
    try:
        yield
    finally:
        DEVICE.recording = None


@contextlib.contextmanager
def _stream(stream: Any) -> Iterator[None]:
    yield


def _replacements(total: int) -> dict[str, Any]:
    current, nothing = Stream(), (lambda *args, **options: None)

    def count(*args: Any) -> int:
        return 0

    def wait(*args: Any) -> None:
        if DEVICE.recording is not None:
            raise RuntimeError(CAPTURING.format("synchronize"))

    properties = SimpleNamespace(
        name="a pretended GPU", total_memory=total, major=9, minor=0, multi_processor_count=132
    )
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": nothing,
        "get_device_name": lambda *args: properties.name,
        "get_device_properties": lambda *args: properties,
        "get_device_capability": lambda *args: (9, 0),
        "is_bf16_supported": lambda *args, **options: True,
        "mem_get_info": lambda *args: (total, total),
        "memory_allocated": count,
        "memory_reserved": count,
        "max_memory_allocated": count,
        "max_memory_reserved": count,
        "reset_peak_memory_stats": nothing,
        "empty_cache": nothing,
        "set_per_process_memory_fraction": nothing,
        "manual_seed": nothing,
        "manual_seed_all": nothing,
        "synchronize": wait,
        "is_current_stream_capturing": lambda: DEVICE.recording is not None,
        "current_stream": lambda *args: current,
        "default_stream": lambda *args: current,
        "stream": _stream,
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "graph": graph,
        "_lazy_init": nothing,
    }


def _refuse_fork() -> int:
    raise RuntimeError(FORKED)


@contextlib.contextmanager
def pretend_cuda(total: int = 80 * GB) -> Iterator[Device]:
    """A process with one GPU of `total` bytes of memory, for as long as the context lasts."""
    DEVICE.__init__(total=total)  # type: ignore[misc]
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, value in _replacements(total).items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        # torch 2.14's optimisers ask here whether a graph is recorded
        recording = SimpleNamespace(is_capturing=lambda: DEVICE.recording is not None)
        of_any_kind = patch.object(torch.accelerator, "current_stream", lambda *args: recording)
        stack.enter_context(of_any_kind)
        # torch.compile does not trace a subclass of tensors: formulas stay as they are written
        stack.enter_context(patch.object(fused, "compiled", lambda function: function))
        # CUDA cannot be used in a process that was forked after CUDA began
        stack.enter_context(patch.object(os, "fork", _refuse_fork))
        # parameters keep their identity when a module is moved, and with it tied weights
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapped)
        # a function of torch runs without its mode, but backward computes checkpoints again
        functions, run_backward = _Functions(), torch.autograd._engine_run_backward

        def with_functions(*args: Any, **kwargs: Any) -> Any:
            with functions:
                return run_backward(*args, **kwargs)

        stack.enter_context(patch.object(torch.autograd, "_engine_run_backward", with_functions))
        stack.enter_context(_Operations())
        stack.enter_context(functions)
        yield DEVICE


@contextlib.contextmanager
def in_4_bits() -> Iterator[None]:
    """Inside `pretend_cuda()`, the linear layers of bitsandbytes are packed as they are moved to the
    GPU. Its parameters are a subclass of tensors of their own, which no tensor of the pretended GPU
    can be: one of those stands in their place, with the attributes that bitsandbytes and peft read.
    The module has to be imported before: where there is a GPU, it wants torch to be built for one."""
    from bitsandbytes import functional
    from bitsandbytes.nn import Linear4bit, Params4bit

    usual = Linear4bit._apply

    def applied(self: Any, fn: Any, recurse: bool = True) -> Any:
        weight = self.weight
        if not isinstance(weight, Params4bit) or not fn(torch.empty(0)).is_cuda:
            return usual(self, fn, recurse)
        del self._parameters["weight"]
        usual(self, fn, recurse)
        packed, state = functional.quantize_4bit(
            weight.as_subclass(torch.Tensor).detach(),
            blocksize=weight.blocksize,
            compress_statistics=weight.compress_statistics,
            quant_type=weight.quant_type,
        )
        state.to(CUDA)
        moved: Any = CudaTensor(packed)
        moved._is_param, moved.quant_state, moved.bnb_quantized = True, state, True
        for name in ("blocksize", "compress_statistics", "quant_type", "quant_storage"):
            setattr(moved, name, getattr(weight, name))
        self._parameters["weight"] = moved
        return self

    with patch.object(Linear4bit, "_apply", applied):
        yield
