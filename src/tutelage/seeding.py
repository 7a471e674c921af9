"""Seeds from names: every random draw of a run has a name, so order never changes a result."""

import hashlib


def seed_of(*parts: object) -> int:
    """A number for a name, the same in every process and Python."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")
