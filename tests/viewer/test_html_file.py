"""The page that is written to a file holds its data, and nothing that a run said gets out of them."""

import json
import re
from pathlib import Path

import pytest

from scripts.large_run import write
from tutelage.errors import RunError
from tutelage.viewer import html_file
from tutelage.viewer.server import STATIC, digest
from tutelage.viewer.shelf import Shelf

HOSTILE = "</script><script>alert(1)</script><!-- \u202e \x00 <img src=x onerror=alert(1)>"


def shelf_of(folder: Path) -> Shelf:
    write(folder / "run", 12, per_step=8, turns=3, with_columns=True)
    path = folder / "run" / "episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["turns"][0]["seen"] = HOSTILE
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cache = folder / "cache"
    cache.mkdir()
    return Shelf([folder / "run"], cache=cache)


def test_all_is_inside_and_hostile_text_stays_data(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert html_file.write(shelf_of(tmp_path), out, episodes=5) == 7
    page = out.read_text(encoding="utf-8")
    scripts = re.findall(r"<script(.*?)>(.*?)</script>", page, re.DOTALL)
    assert [head for head, _ in scripts] == [' type="application/json" id="data"', ""]
    data = json.loads(scripts[0][1])
    (run,) = data["run"].values()
    shown = [e["shown"]["line"]["turns"][0]["seen"] for e in run["episodes"].values()]
    assert HOSTILE in shown
    assert len(shown) == 5
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert f"script-src 'sha256-{digest(scripts[1][1])}'" in policy
    (styles,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert f"style-src 'sha256-{digest(styles)}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)=[\"']?https?:", page)
    with pytest.raises(RunError, match="exists already"):
        html_file.write(shelf_of(tmp_path / "again"), out)


def test_every_module_is_joined_before_who_imports_it() -> None:
    script = html_file.linked("app.js")
    order = re.findall(r'^modules\["([^"]+)"\]=', script, re.MULTILINE)
    assert order[-1] == "app.js"
    assert len(order) == len(set(order))
    mine = {path.relative_to(STATIC).as_posix() for path in STATIC.glob("**/*.*js")}
    assert set(order) == mine, "a file of the page is in no module's imports"
    for name in order:
        text = (STATIC / name).read_text(encoding="utf-8")
        for _, wanted in html_file.IMPORT.findall(text):
            needed = html_file.NAMED.get(wanted, wanted.removeprefix("./"))
            assert order.index(needed) < order.index(name)
    assert not re.search(
        r"^\s*(?:import|export)\b", re.sub(r"/\*.*?\*/", "", script, flags=re.S), re.M
    )
