"""From recorded token ids to the text of each token."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE, LATEST = "tokenizer.json", "latest"
PARTIAL = "\N{REPLACEMENT CHARACTER}"


def tokenizer_of(run: Path) -> "Tokenizer | None":
    """The tokenizer that a run saved with its newest checkpoint; None where it saved none."""
    latest = run / LATEST
    folders = [run]
    if latest.exists():
        folders.insert(0, run / "checkpoints" / latest.read_text(encoding="utf-8").strip())
    for folder in folders:
        path = folder / FILE
        if path.exists():
            return _load(path, path.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=8)
def _load(path: Path, changed: int) -> "Tokenizer":
    from tokenizers import Tokenizer

    text = path.read_text(encoding="utf-8")
    try:
        json.loads(text)
    except ValueError as error:
        raise OSError(f"{path} is no tokenizer: {error}") from error
    return Tokenizer.from_str(text)


def pieces(tokenizer: "Tokenizer | None", ids: Sequence[int]) -> list[str]:
    """The text of each token, so that they join to the decoded text. A token that ends inside a
    character has "" and the one that completes it has the character. Without a tokenizer, ids."""
    if tokenizer is None:
        return [f"#{i} " for i in ids]
    out = []
    begin = read = 0  # what is decoded again for its context, and what is written already
    for k in range(len(ids)):
        old = tokenizer.decode(list(ids[begin:read]), skip_special_tokens=False)
        new = tokenizer.decode(list(ids[begin : k + 1]), skip_special_tokens=False)
        last = k + 1 == len(ids)
        if len(new) <= len(old) or (new.endswith(PARTIAL) and not last and k - read < 4):
            out.append("")
            continue
        out.append(new[len(old) :])
        begin, read = read, k + 1
    return out
