"""Site hook: links from a page to a file of the repository lead to a page that shows the file.

The pages are read on a forge too, where `../src/tutelage/types.py` is a link that works. The site
holds docs/ alone, so each linked file outside of it becomes a page `source/PATH` of the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "sh", ".md": "markdown", ".json": "json"}


def on_files(files: Files, *, config: Any) -> Files:
    """Add a page for each file outside of docs/ that a page links to."""
    pages = [file for file in files if file.src_uri.endswith(".md")]
    wanted = {path for file in pages for path in _outside(file.content_string, file.src_uri)}
    for path in sorted(wanted):
        text = (ROOT / path).read_text(encoding="utf-8")
        language = LANGUAGES.get(Path(path).suffix, "text")
        fence = "`" * (max([2, *map(len, re.findall(r"`{3,}", text))]) + 1)
        page = f"---\ntitle: {path}\nsearch: {{exclude: true}}\n---\n\n# {path}\n\n"
        page += f'{fence} {{.{language} linenums="1"}}\n{text.rstrip()}\n{fence}\n'
        files.append(
            File.generated(
                config, f"source/{path}.md", content=page, inclusion=InclusionLevel.NOT_IN_NAV
            )
        )
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Send links to files outside of docs/ to their pages."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown

    def moved(match: re.Match[str]) -> str:
        path = _target(match[2], here)
        if path is None:
            return match[0]
        up = posixpath.relpath(f"source/{path}.md", posixpath.dirname(here) or ".")
        return f"{match[1]}{up})"

    return LINK.sub(moved, markdown)


def _outside(text: str, page: str) -> set[str]:
    found = (_target(match[2], page) for match in LINK.finditer(text))
    return {path for path in found if path is not None}


def _target(link: str, page: str) -> str | None:
    """The file of the repository that a link of a page means, if it lies outside of docs/."""
    if "://" in link or link.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    outside = not path.startswith("docs/") and (ROOT / path).is_file()
    return path if outside else None
