"""Every setting that a message, a docstring or a page names exists in the schema."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tutelage.config.schema import Config, leaves, section_of

ROOT = Path(__file__).parents[2]
FILES = sorted(
    p for room in ("tutelage", "tutelage_worlds") for p in (ROOT / "src" / room).rglob("*.py")
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SECTIONS = tuple(Config.model_fields)
NAMED = re.compile(rf"(?<![\w./-])((?:{'|'.join(SECTIONS)})(?:\.[a-z_]+)+)(?![\w(/]|\.[A-Z\w])")
NO_SETTINGS = ("md", "json", "jsonl", "toml")
"""Endings of files."""
EXCEPT = {
    "src/tutelage/__init__.py": {"rollout.session", "policies.hf.policy"},  # modules
    "src/tutelage/policies/hf/policy.py": {"policies.hf.loading.load", "policies.hf.plain"},
    "src/tutelage/envs/adapters/verifiers.py": {"env.taskset"},  # of verifiers' own files
}
OLD_NAMES = "src/tutelage/config/renamed.py"


def known() -> set[str]:
    """Full names of settings and of the tables that hold them."""
    names = set(SECTIONS)
    for leaf in leaves():
        parts = leaf.key.split(".")
        names |= {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
    return names


KNOWN = known()
FREE = {name for name in KNOWN if name.endswith("options")} | {"algorithm", "warm_start"}
"""What a table of these holds is for somebody else to say: a suite, a template, an algorithm."""


def unknown(text: str) -> Iterator[str]:
    for found in NAMED.findall(text):
        name = found
        if name.rpartition(".")[2] in NO_SETTINGS:
            continue
        if name.startswith("policies."):  # policies.teacher.model is policy.model
            _, _, *rest = name.split(".")
            name = ".".join(["policy", *rest])
        parents = {".".join(name.split(".")[:k]) for k in range(1, name.count(".") + 1)}
        if name not in KNOWN and not parents & FREE:
            yield found


def texts(path: Path) -> Iterator[str]:
    """String literals; the parts of a formatted one as one text."""
    tree = ast.parse(path.read_text())
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(x.value if isinstance(x, ast.Constant) else "X" for x in node.values)
        elif isinstance(getattr(node, "value", None), str) and id(node) not in inside:
            yield node.value


def test_messages_name_settings_that_exist() -> None:
    wrong = {}
    for path in FILES:
        if found := {name for text in texts(path) for name in unknown(text)}:
            wrong[str(path.relative_to(ROOT))] = found
    del wrong[OLD_NAMES]  # what settings were called before
    assert wrong == EXCEPT


def test_pages_name_settings_that_exist() -> None:
    found = {page: wrong for page in PAGES if (wrong := set(unknown(page.read_text())))}
    assert PAGES
    assert not found


def test_an_old_name_would_be_found() -> None:
    text = 'choose another model, set context.kind = "window", or lower rollout.max_new_tokens'
    assert list(unknown(text)) == ["context.kind"]
    assert list(unknown("set policies.teacher.url, env.options.size or algorithm.kl")) == [
        "policies.teacher.url"
    ]
    assert section_of(Config.model_fields["policy"].annotation) is not None
