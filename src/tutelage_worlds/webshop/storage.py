"""The storage of a shop: in memory, or in memory-mapped files that processes share.

What is read goes through buffers, so that both are the same to the reader.
"""

import json
import mmap
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar, cast, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
Buffer = memoryview


class Place(Protocol):
    """Named files. `writer` and `array` make one, `buffer` reads it."""

    def writer(self, name: str) -> BinaryIO: ...
    def array(self, name: str, kind: str, length: int) -> "NDArray[np.generic]":
        """Zeros of a numpy kind, to be filled in place."""
        ...

    def scratch(self, values: "NDArray[np.generic]") -> "NDArray[np.generic]":
        """The same values, put aside until they are needed again."""
        ...

    def buffer(self, name: str) -> Buffer: ...


class Memory:
    """Files that are not."""

    def __init__(self) -> None:
        self._files: dict[str, BytesIO | NDArray[np.generic]] = {}

    def writer(self, name: str) -> BinaryIO:
        self._files[name] = file = _Unclosable()
        return file

    def array(self, name: str, kind: str, length: int) -> "NDArray[np.generic]":
        import numpy as np

        self._files[name] = values = np.zeros(length, kind)
        return values

    def scratch(self, values: "NDArray[np.generic]") -> "NDArray[np.generic]":
        return values

    def buffer(self, name: str) -> Buffer:
        file = self._files[name]
        if isinstance(file, BytesIO):
            return file.getbuffer()
        return memoryview(file.tobytes())


class _Unclosable(BytesIO):
    def close(self) -> None:
        """Nothing: closing would lose what was written."""


class Folder:
    """Files of a folder, mapped when they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def writer(self, name: str) -> BinaryIO:
        return cast(BinaryIO, (self.path / name).open("wb"))

    def array(self, name: str, kind: str, length: int) -> "NDArray[np.generic]":
        import numpy as np

        if not length:
            (self.path / name).write_bytes(b"")
            return np.zeros(0, kind)
        return np.memmap(self.path / name, dtype=kind, mode="w+", shape=(length,))

    def scratch(self, values: "NDArray[np.generic]") -> "NDArray[np.generic]":
        import numpy as np

        if not len(values):
            return values
        with tempfile.TemporaryFile(dir=self.path) as file:
            values.tofile(file)
            file.flush()
            return np.memmap(file, dtype=values.dtype, mode="r")

    def buffer(self, name: str) -> Buffer:
        with (self.path / name).open("rb") as file:
            if not file.seek(0, 2):
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in a folder, but for hidden ones."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}


def check_sizes(folder: Path, wanted: Mapping[str, int]) -> None:
    """Raises ValueError where a file is not there or not whole."""
    there = sizes(folder)
    for name, size in wanted.items():
        if there.get(name) != size:
            raise ValueError(f"{name} has {there.get(name, 'no')} bytes, not {size}")


def write_records(place: Place, name: str, records: Iterable[object]) -> int:
    """Write things as JSON, one after the other, and where each begins. How many they were."""
    ends = [0]
    with place.writer(f"{name}.json") as file:
        for record in records:
            raw = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(
                "utf-8", "surrogatepass"
            )
            file.write(raw)
            ends.append(ends[-1] + len(raw))
    _write_ends(place, name, ends)
    return len(ends) - 1


def _write_ends(place: Place, name: str, ends: list[int]) -> None:
    import numpy as np

    array = place.array(f"{name}.ends", "u8", len(ends))
    array[:] = np.asarray(ends, "u8")


class Records(Sequence[T]):
    """What `write_records` wrote, each made into a T when it is asked for."""

    def __init__(self, place: Place, name: str, make: Callable[[object], T]) -> None:
        self._raw = place.buffer(f"{name}.json")
        self._ends = place.buffer(f"{name}.ends").cast("Q")
        self._make = make

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        raw = bytes(self._raw[self._ends[index] : self._ends[index + 1]])
        return self._make(json.loads(raw.decode("utf-8", "surrogatepass")))


def write_keys(place: Place, name: str, keys: Sequence[str]) -> None:
    """Write different strings that are sorted by their UTF-8 bytes."""
    ends = [0]
    with place.writer(f"{name}.keys") as file:
        for key in keys:
            raw = key.encode("utf-8", "surrogatepass")
            file.write(raw)
            ends.append(ends[-1] + len(raw))
    _write_ends(place, name, ends)


class Keys(Mapping[str, int]):
    """What `write_keys` wrote: the place of each string in the order."""

    def __init__(self, place: Place, name: str) -> None:
        self._raw = place.buffer(f"{name}.keys")
        self._ends = place.buffer(f"{name}.ends").cast("Q")

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return (self._at(i).decode("utf-8", "surrogatepass") for i in range(len(self)))

    def __getitem__(self, key: str) -> int:
        raw = key.encode("utf-8", "surrogatepass")
        found = bisect_left(range(len(self)), raw, key=self._at)
        if found == len(self) or self._at(found) != raw:
            raise KeyError(key)
        return found

    def _at(self, index: int) -> bytes:
        return bytes(self._raw[self._ends[index] : self._ends[index + 1]])
