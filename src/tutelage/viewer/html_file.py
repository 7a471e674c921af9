"""One page that holds everything: the page's files, and the data of some runs, to be mailed.

Its modules are joined into one script, since a page opened from a file may load no modules.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tutelage.errors import RunError
from tutelage.viewer.index import Filter
from tutelage.viewer.server import STATIC, digest, finite
from tutelage.viewer.shelf import Shelf

NAMED = {
    "preact": "vendor/preact.mjs",
    "preact/hooks": "vendor/hooks.mjs",
    "htm": "vendor/htm.mjs",
    "uplot": "vendor/uPlot.mjs",
}
IMPORT = re.compile(r"""^import\s*(\{[^}]*\}|\w+)\s*from\s*["']([^"']+)["'];?""", re.MULTILINE)
EXPORTS = re.compile(r"\bexport\s*\{([^}]*)\};?")


def write(
    shelf: Shelf, path: Path, *, episodes: int = 200, tick: Callable[[], None] = lambda: None
) -> int:
    """Write the page; the number of episodes of the runs that it leaves out.

    episodes  the newest of each run that are put in, with all their tokens

    Raises RunError for a file that is there already, or cannot be written.
    """
    if path.exists():
        raise RunError(f"{path} exists already; choose another file, or remove it")
    data = gathered(shelf, episodes, tick)
    try:
        path.write_text(page(data), encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); choose another file"
        ) from error
    return int(data["left_out"])


def gathered(shelf: Shelf, episodes: int, tick: Callable[[], None]) -> dict[str, Any]:
    """What the page's server would answer."""
    runs: dict[str, Any] = {}
    left_out = 0
    rows = shelf.rows()
    for row in rows:
        name = row["id"]
        folder, index = shelf.folder(name), shelf.index(name)
        index.update()
        about = shelf.run(name)
        found = index.search(Filter(), limit=max(1, episodes))["rows"] if episodes else []
        left_out += index.count() - len(found)
        shown = {}
        for one in found:
            views = shelf.views_of(name, one["id"])
            shown[str(one["id"])] = {"shown": shelf.episode(name, one["id"]), "views": views}
            tick()
        phases = ("train", "warm_start")
        runs[name] = {
            "about": about,
            "series": {phase: folder.series(folder.keys(phase), phase) for phase in phases},
            "rows": found,
            "episodes": shown,
            "histograms": _histograms(shelf, name),
        }
    written = time.strftime("%Y-%m-%d %H:%M")
    return {"runs": rows, "run": runs, "written": written, "left_out": left_out}


def _histograms(shelf: Shelf, name: str) -> dict[str, Any]:
    first = shelf.histogram(name, "train", None, "")
    found = {"": first}
    for column in first["columns"]:
        found[column] = {
            **shelf.histogram(name, "train", None, column),
            "steps": [first.get("step", 0)],
        }
    return {**found, "": {**first, "steps": [first.get("step", 0)]}}


def page(data: dict[str, Any]) -> str:
    """The page with its styles, script and data inside, and a policy that lets nothing else in."""
    script, styles = linked("app.js"), ""
    for name in ("vendor/uPlot.css", "style.css"):
        styles += (STATIC / name).read_text(encoding="utf-8")
    # "</" would end the element that holds it; in JSON and in our scripts it can be written so
    held = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; "
        f"style-src 'sha256-{digest(styles)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    licences = "\n\n".join(
        f"{licence.name}\n\n{licence.read_text(encoding='utf-8')}"
        for licence in sorted((STATIC / "vendor").glob("LICENSE.*"))
    ).replace("--", "- -")
    return (
        "<!doctype html>\n"
        f"<!--\nThis page contains preact, htm and uPlot.\n\n{licences}\n-->\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>tutelage view</title>\n<style>{styles}</style>\n</head><body>\n"
        '<div id="app"></div>\n'
        f'<script type="application/json" id="data">{held}</script>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )


def linked(entry: str) -> str:
    """Modules as one script: each becomes a function that returns what it exports."""
    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        done[name] = ""  # a cycle would find it empty
        text = (STATIC / name).read_text(encoding="utf-8")
        for _, wanted in IMPORT.findall(text):
            add(_path(name, wanted))
        done.pop(name)
        done[name] = _wrapped(name, text)

    add(entry)
    return '"use strict";const modules={};\n' + "\n".join(done.values())


def _path(importer: str, wanted: str) -> str:
    if wanted in NAMED:
        return NAMED[wanted]
    return (Path(importer).parent / wanted).as_posix().removeprefix("./")


def _wrapped(name: str, text: str) -> str:
    def imported(found: re.Match[str]) -> str:
        names, wanted = found[1], json.dumps(_path(name, found[2]))
        if not names.startswith("{"):
            return f"const {names}=modules[{wanted}].default;"
        pairs = ",".join(_pair(part, "{0}:{1}") for part in _names(names[1:-1]))
        return f"const {{{pairs}}}=modules[{wanted}];"

    def exported(found: re.Match[str]) -> str:
        pairs = ",".join(_pair(part, "{1}:{0}") for part in _names(found[1]))
        return f";return {{{pairs}}};"

    text = re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE)
    text = IMPORT.sub(imported, text)
    text, count = EXPORTS.subn(exported, text)
    if not count and (single := re.search(r"\bexport default ", text)):
        text = (
            text[: single.start()] + "return {default:" + text[single.end() :].rstrip().rstrip(";")
        )
        text += "};"
    text = text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"modules[{json.dumps(name)}]=(()=>{{{text}\n}})();"


def _names(text: str) -> Iterable[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pair(part: str, form: str) -> str:
    """ "a as b" in one of the two orders that an object takes it in.

    >>> _pair("a as b", "{0}:{1}"), _pair("a", "{1}:{0}")
    ('a:b', 'a:a')
    """
    first, _, second = part.partition(" as ")
    return form.format(first.strip(), (second or first).strip())
