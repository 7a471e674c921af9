"""Seeds from names: every random draw of a run has a name, so no result depends on the order."""

import hashlib


def seed_of(*parts: object) -> int:
    """A 64-bit seed from the parts of a name, the same in every process and Python version."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")
