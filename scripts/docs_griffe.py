"""Site extension: aligned lists of a docstring become Markdown lists, which plain text cannot show.

`name  what it is`, with two blanks or more between, is how docstrings here list their fields.
"""

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^(\w[\w, ]*?) {2,}(\S.*)$")


def listed(text: str) -> str:
    """A docstring in which each aligned entry, with the lines that continue it, is a list item.

    >>> print(listed("Two fields.\\n\\nnorm  of the gradient,\\n      in float32\\nlr    the rate"))
    Two fields.
    <BLANKLINE>
    * **norm**: of the gradient, in float32
    * **lr**: the rate
    """
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        found = ENTRY.match(line)
        if found:
            if not inside and lines and lines[-1]:
                lines.append("")
            lines.append(f"* **{found[1]}**: {found[2]}")
        elif inside and line.startswith("  ") and line.strip():
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
        inside = bool(found) or (inside and line.startswith("  "))
    return "\n".join(lines)


class AlignedLists(griffe.Extension):  # type: ignore[misc]
    """Rewrites each docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = listed(obj.docstring.value)
