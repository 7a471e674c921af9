"""From recorded token ids to the text of each token."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.config import json_text
from tutelage.config.plain_file import read_bytes, read_text
from tutelage.errors import first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE, LATEST = "tokenizer.json", "latest"
PARTIAL = "\N{REPLACEMENT CHARACTER}"


def tokenizer_of(run: Path) -> "Tokenizer | None":
    """The tokenizer that a run saved with its newest checkpoint; None where it saved none."""
    latest = run / LATEST
    folders = [run]
    if latest.is_file():
        name = read_bytes(latest).decode("utf-8", "replace").strip().replace("\0", "")
        folders.insert(0, run / "checkpoints" / name)
    for folder in folders:
        path = folder / FILE
        if path.exists():
            return _load(path, path.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=8)
def _load(path: Path, changed: int) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        text = read_text(path)
        json_text.table(text)  # the other library's messages name no cause
        return Tokenizer.from_str(text)
    except Exception as error:  # the other library raises nothing narrower
        raise OSError(f"{path} is no tokenizer: {first_line(error)}") from error


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


_NAMES = {
    0x061C: "ALM",
    0x200B: "ZWSP",
    0x200E: "LRM",
    0x200F: "RLM",
    0x202A: "LRE",
    0x202B: "RLE",
    0x202C: "PDF",
    0x202D: "LRO",
    0x202E: "RLO",
    0x2060: "WJ",
    0x2066: "LRI",
    0x2067: "RLI",
    0x2068: "FSI",
    0x2069: "PDI",
    0xFEFF: "BOM",
}
_SIGNS = {
    **{code: chr(0x2400 + code) for code in range(0x20) if code not in (0x09, 0x0A)},
    0x7F: "\u2421",
    **{code: f"\u27e8U+{code:04X}\u27e9" for code in range(0x80, 0xA0)},
    **{code: f"\u27e8{name}\u27e9" for code, name in _NAMES.items()},
}


def visible(text: str) -> str:
    """Text whose control characters, and those that turn its direction, are shown as signs: printed
    to a terminal it can neither move the cursor nor hide what stands beside it.

    >>> visible("a\\x1b[2Jb")
    'a\u241b[2Jb'
    """
    return text.translate(_SIGNS)
