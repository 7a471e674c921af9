"""The documentation: code runs, files and commands exist, generated tables are current.

A block that cannot run here has a comment line `<!-- not run: REASON -->` before it. A python block
with a title is a file that the page's other blocks may use.
"""

import argparse
import ast
import contextlib
import inspect
import io
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import pytest
from pydantic import JsonValue

from scripts import write_docs
from tutelage.algorithms import ALGORITHMS
from tutelage.algorithms.compose import TERMS
from tutelage.cli import arguments
from tutelage.config import toml_file
from tutelage.config.schema import Config
from tutelage.envs.registry import SUITES, suite_class, suite_of
from tutelage.objective.penalties import LEAKED, leakage
from tutelage.runs.phases import phases_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>.*?) -->\n)?^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!\w+://|mailto:)([^)\s]+)\)")
BASE: Mapping[str, JsonValue] = {
    "run": {"steps": 100},
    "env": {"suite": "doors"},
    "rollout": {"group_size": 2},
    "algorithm": {"name": "grpo"},
    "update": {"lr": 1e-4},
    "policy": {"model": "builtin:household-teacher"},
}
"""What a fragment of a file is completed with before it is checked."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str
    code: str
    skipped: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        mark = match["mark"] or ""
        yield Block(
            page,
            text[: match.start("code")].count("\n") + 1,
            language,
            title[1] if title else "",
            match["code"],
            mark.removeprefix("not run: ") if mark.startswith("not run:") else "",
        )


EVERY = [block for page in PAGES for block in blocks(page)]


def of(*languages: str) -> pytest.MarkDecorator:
    chosen = [b for b in EVERY if b.language in languages and not b.skipped]
    return pytest.mark.parametrize("block", chosen, ids=str)


def files(page: Path) -> dict[str, str]:
    return {block.title: block.code for block in blocks(page) if block.title}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader's files lie, and where the commands of a page are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write_files(block: Block, folder: Path) -> None:
    for name, code in files(block.page).items():
        (folder / name).write_text(code)


def merged(base: Mapping[str, JsonValue], over: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Tables within tables: what a fragment says replaces what the base says."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def completed(table: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A fragment as a whole file: the base's own model gives way to the fragment's."""
    base = dict(BASE)
    policy = cast(Mapping[str, JsonValue], table.get("policy", {}))
    if "model" in policy or "build" in policy:
        base["policy"] = {}
    return merged(base, table)


def test_reasons_are_given_for_what_is_not_run() -> None:
    marked = [block for block in EVERY if block.skipped]
    assert all(len(block.skipped.split()) > 3 for block in marked), "say why it cannot run here"
    assert len(marked) <= 30, "most blocks must run"


def test_every_block_says_what_it_is() -> None:
    """A block without a language is output or a formula; one with commands is `sh`."""
    for block in EVERY:
        if block.language in ("", "text"):
            commands = [x for x in block.code.splitlines() if x.startswith(("tutelage ", "pip "))]
            assert not commands, f"{block} has commands: open it with ```sh"


@of("python")
def test_python(block: Block, folder: Path) -> None:
    write_files(block, folder)
    if block.page == DOCS / "environments/your_own.md":
        compile(block.code, str(block), "exec")  # tests/repo/test_your_own.py runs it
        return
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.code, str(block), "exec"), {"__name__": "block"})


@of("toml")
def test_toml(block: Block, folder: Path) -> None:
    """Every file and fragment is a configuration, and its algorithm takes its settings."""
    write_files(block, folder)
    table = completed(tomllib.loads(block.code))
    config: Config = toml_file.parse(table)
    if ":" not in config.env.suite and config.env.suite not in write_docs.ADAPTERS:
        suite = suite_of(config.env)
        if {"env", "algorithm", "policy"} <= set(tomllib.loads(block.code)):  # a whole file
            assert suite.tasks(config.eval.split), f"{block} evaluates on {config.eval.split!r}"
    assert phases_of(config)


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n != "compose"])
def test_the_settings_of_a_method_are_its_defaults(name: str) -> None:
    """The block under "Settings" of a method's page: every argument with its default; one without
    a default is a comment line with an example."""
    section = (DOCS / f"methods/{name}.md").read_text(encoding="utf-8").partition("## Settings")[2]
    code = re.findall(r"^```toml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[0]
    shown = tomllib.loads(code)["algorithm"]
    assert shown.pop("name") == name
    for key, parameter in inspect.signature(ALGORITHMS[name]).parameters.items():
        if key == "total_steps":
            continue
        if key in shown:
            assert str(shown.pop(key)) == str(parameter.default), f"{name}.{key}"
        else:
            assert re.search(rf"^#? ?.*\b{key} = ", code, re.MULTILINE), f"{name}.{key} is missing"
    assert not shown, f"{name} has no {', '.join(shown)}"


@pytest.mark.parametrize("name", [n for n in SUITES if (DOCS / f"environments/{n}.md").is_file()])
def test_a_suites_page_has_its_options(name: str) -> None:
    page = (DOCS / f"environments/{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`env\.options\..*?) \| ", page, re.MULTILINE)
    listed = {word for row in rows for word in re.findall(r"`(?:env\.options\.)?(\w+)`", row)}
    assert listed == set(inspect.signature(suite_class(name)).parameters)


@of("sh", "console")
def test_commands(block: Block) -> None:
    """The command line's own parser takes every `tutelage` line; files of ours exist."""
    for line in commands(block.code):
        words = shlex.split(line, comments=True)
        if words[0] == "tutelage" and words[1:2] != ["demo"]:
            parsed(words[1:])
        if words[0] == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {w for w in words[1:] if "=" not in w} <= set(targets), line
        for word in words:
            if word.startswith(("examples/", "scripts/", "benchmarks/", "studies/", "tests/")):
                assert (ROOT / word).exists(), f"{line}: there is no {word}"


def commands(code: str) -> Iterator[str]:
    for line in code.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip().removeprefix("$ ")


def parsed(words: list[str]) -> argparse.Namespace:
    try:
        return arguments.parsed(words)
    except SystemExit as error:
        raise AssertionError(f"`tutelage {' '.join(words)}` is refused") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.relative_to(ROOT)} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.relative_to(ROOT)} links to {link}"


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in titles]
    named = re.findall(r'<a id="([^"]+)"', text)
    return {re.sub(r"\s+", "-", title) for title in plain} | set(named)


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = text[text.index("\nnav:") : text.index("\nplugins:")]
    named = set(re.findall(r"([\w/-]+\.md)", nav))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_generated_parts_are_those_of_the_code() -> None:
    pages = [str(page.relative_to(ROOT)) for page in write_docs.stale()]
    assert not pages, f"stale: {', '.join(pages)}; run `python scripts/write_docs.py`"


def test_every_generated_part_of_a_page_is_closed() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        opened = re.findall(r"<!-- generated: ([\w-]+) -->", text)
        assert opened == re.findall(r"<!-- end: ([\w-]+) -->", text), page
        assert len(write_docs.PART.findall(text)) == len(opened), page


def test_messages_of_the_troubleshooting_page_exist() -> None:
    """What the page quotes of a message stands in a string of the source."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        words
        for words in re.findall(r"`([^`\n]+)`", text)
        if words.count(" ") >= 2
        and not words.startswith(("tutelage ", "if __name__"))
        and "=" not in words
    ]
    assert len(quoted) >= 12
    strings = "\n".join(texts_of(path) for path in (ROOT / "src/tutelage").rglob("*.py"))
    for words in quoted:
        parts = [part for part in words.split(" ... ") if part]
        missing = [part for part in parts if part not in strings]
        assert not missing or "400" in words, f"no message says {missing}"


def texts_of(path: Path) -> str:
    """The literal strings of a file, one a line, as they read when they are joined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return "\n".join(
        "".join(
            str(part.value) if isinstance(part, ast.Constant) else "\0"
            for part in (node.values if isinstance(node, ast.JoinedStr) else [node])
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Constant)
    )


def test_the_kinds_of_terms_have_all_their_settings() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| (.*) \|$", (DOCS / "compose.md").read_text(), re.MULTILINE
    )
    listed = {kind: set(re.findall(r"`(\w+)`", cell)) for kind, cell in rows if kind in TERMS}
    for kind, term in TERMS.items():
        assert listed[kind] == {f.name for f in fields(term)} - {"name", "trains"}, kind


def test_the_words_that_leak_are_listed() -> None:
    assert all(word in (leakage.__doc__ or "") for word in LEAKED)
