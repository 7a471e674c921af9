"""Hash the simulator's objects by a fixed number, so that games are reproducible.

ScienceWorld 1.2.3 walks sets of objects in the order of their identity hashes, which a Java machine
draws at random: which of two things is found first, how heat spreads, what a bee visits and even
what a box holds differ from one playing of the same actions to the next. Objects have numbers, in
the order in which they were made. Here the class of all objects is written out once more with a
`hashCode` that returns the number, and laid before the simulator's own file.
"""

import struct
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile

from tutelage.errors import EnvError, first_line

OBJECT: Final = "scienceworld/struct/EnvObject.class"
_SIZES: Final = {
    3: 4,
    4: 4,
    5: 8,
    6: 8,
    7: 2,
    8: 2,
    9: 4,
    10: 4,
    11: 4,
    12: 4,
    15: 3,
    16: 2,
    17: 4,
    18: 4,
    19: 2,
    20: 2,
}
"""Bytes of a constant after its tag (The Java Virtual Machine Specification, table 4.4-A)."""
_TEXT: Final = 1
_WIDE: Final = (5, 6)
"""Tags of constants that take two places."""


def overlay(jar: Path, folder: Path) -> Path:
    """Write the class into a folder, which goes before the jar; the folder."""
    try:
        with ZipFile(jar) as classes:
            bytecode = numbered(classes.read(OBJECT))
    except (OSError, BadZipFile, LookupError, struct.error) as error:
        raise EnvError(
            f"{jar} is not a simulator that is known here ({first_line(error)}); install "
            "scienceworld 1.2.3 again"
        ) from error
    path = folder / OBJECT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytecode)
    return folder


def numbered(code: bytes) -> bytes:
    """A compiled class with the method `public int hashCode() { return (int) this.uuid(); }`."""
    (count,) = struct.unpack_from(">H", code, 8)
    end = _pool_end(code, count)
    (this,) = struct.unpack_from(">H", code, end + 2)
    texts = [b"hashCode", b"()I", b"Code", b"uuid", b"()J"]
    name, kind, body, number, returns = range(count, count + 5)
    pool = b"".join(struct.pack(">BH", _TEXT, len(text)) + text for text in texts)
    pool += struct.pack(">BHH", 12, number, returns) + struct.pack(">BHH", 10, this, count + 5)
    # aload_0, invokevirtual uuid, l2i, ireturn
    steps = b"\x2a\xb6" + struct.pack(">H", count + 6) + b"\x88\xac"
    inner = struct.pack(">HHI", 2, 1, len(steps)) + steps + struct.pack(">HH", 0, 0)
    method = struct.pack(">HHHHHI", 1, name, kind, 1, body, len(inner)) + inner
    at = _methods(code, end)
    (methods,) = struct.unpack_from(">H", code, at)
    return b"".join(
        (
            code[:8],
            struct.pack(">H", count + 7),
            code[10:end],
            pool,
            code[end:at],
            struct.pack(">H", methods + 1),
            method,
            code[at + 2 :],
        )
    )


def _pool_end(code: bytes, count: int) -> int:
    """Where the constants of a class end."""
    at, place = 10, 1
    while place < count:
        tag = code[at]
        if tag == _TEXT:
            (length,) = struct.unpack_from(">H", code, at + 1)
            at += 3 + length
        elif tag in _SIZES:
            at += 1 + _SIZES[tag]
        else:
            raise struct.error(f"constant {place} has the unknown tag {tag}")
        place += 2 if tag in _WIDE else 1
    return at


def _methods(code: bytes, at: int) -> int:
    """Where the number of a class's methods stands, after its interfaces and fields."""
    (interfaces,) = struct.unpack_from(">H", code, at + 6)
    at += 8 + 2 * interfaces
    (fields,) = struct.unpack_from(">H", code, at)
    at += 2
    for _ in range(fields):
        (attributes,) = struct.unpack_from(">H", code, at + 6)
        at += 8
        for _ in range(attributes):
            (length,) = struct.unpack_from(">I", code, at + 2)
            at += 6 + length
    return at
