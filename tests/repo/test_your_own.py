"""Everything on docs/environments/your_own.md runs: classes, adapters with the real packages where
they are installed, and what the page says that commands print."""

import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tutelage.cli.main import main
from tutelage.config.schema import EnvSection
from tutelage.envs.base import Suite
from tutelage.envs.check import check, splits_of
from tutelage.envs.registry import ADAPTERS, SUITES, suite_of

DOCS = Path(__file__).resolve().parents[2] / "docs/environments"
PAGE = (DOCS / "your_own.md").read_text(encoding="utf-8")
FENCES = re.findall(r"^```(.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {info.split('title="')[1].rstrip('"'): code for info, code in FENCES if "title=" in info}
OUTPUTS = [code for info, code in FENCES if not info]
Captured = pytest.CaptureFixture[str]


def needs(package: str) -> pytest.MarkDecorator:
    reason = f"{package} is not installed: pip install 'tutelage[{package}]'"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files, in the folder where commands are given."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def suite(name: str, **changes: object) -> Suite:
    """The suite of a file's [env]."""
    env = tomllib.loads(FILES[name])["env"]
    env["options"] = {**env.get("options", {}), **changes}
    return suite_of(EnvSection.model_validate(env))


def problems(suite: Suite, tasks: int = 3) -> list[str]:
    return [text for f in check(suite, splits_of(suite), tasks=tasks) for text in f.problems]


def count(name: str) -> int:
    return len([text for text in FILES[name].splitlines() if text.strip()])


def test_it_takes_few_lines() -> None:
    assert count("digits.py") <= 20
    assert all(count(f"{name}.toml") <= 10 for name in ("lake", "gem", "openenv", "verifiers"))
    assert count("pole.py") <= 10


def test_every_environment_is_on_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in index for name in SUITES)
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\((\w+\.md)\)", index))
    assert all(f'suite = "{name}"' in PAGE for name in ADAPTERS)


# -- classes


def test_the_check_says_what_the_page_says(folder: Path, capsys: Captured) -> None:
    assert main(["check-env", "digits:Digits"]) == 0
    saved, broken = OUTPUTS
    assert capsys.readouterr().out == saved
    lines = FILES["digits.py"].splitlines(keepends=True)
    at = next(k for k, text in enumerate(lines) if "isdecimal" in text)
    early = [*lines[:at], lines[at + 2], *lines[at : at + 2], *lines[at + 3 :]]
    (folder / "digits.py").write_text("".join(early))
    sys.modules.pop("digits", None)
    # as many bytes, perhaps in the same second: Python would take the bytecode of the other text
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    assert main(["check-env", "digits:Digits"]) == 1
    output = capsys.readouterr().out.replace(f"{folder}/", "")
    assert all(text in output for text in broken.splitlines())


def test_a_run_on_a_class(folder: Path) -> None:
    tiny = "{hidden = 16, context = 512}"
    changes = [
        "run.steps=2",
        "eval.every=2",
        "rollout.tasks_per_step=2",
        "rollout.group_size=2",
        "rollout.max_turns=3",
        "eval.tasks=3",
        f"policy.build={tiny}",
        "policy.layers=1",
    ]
    assert main(["train", "digits.toml", *changes]) == 0
    assert (folder / "runs/digits/metrics.jsonl").read_text().count("\n") == 2


def test_a_suite(capsys: Captured) -> None:
    assert main(["check-env", "vault:Vault", "digits=2", "--split", "train"]) == 0
    assert main(["check-env", "vault:Vault"]) == 0
    assert "(train, test: 5 tasks of each)" in capsys.readouterr().out
    assert main(["doctor", "digits.toml"]) == 0


# -- other libraries


@needs("gymnasium")
def test_gymnasium(capsys: Captured) -> None:
    assert problems(suite("lake.toml")) == []
    assert main(["check-env", "pole:pole", "won=195"]) == 0
    result = suite_of(EnvSection(suite="pole:pole"))
    env = result.make()
    seen = env.reset(result.tasks("train")[0])
    assert re.fullmatch(r"cart -?0\.\d\d [+-]0\.\d\d, pole -?0\.\d\d [+-]0\.\d\d", seen.text)
    while not seen.done:
        seen = env.step("left")
    assert seen.won is False


@needs("gem")
def test_gem() -> None:
    result = suite("gem.toml")
    assert problems(result) == []
    env = result.make()
    seen = env.reset(result.tasks("train")[0])
    assert seen.text.endswith("Enter your next guess.")
    guesses = range(1, 11)
    while not seen.done:
        low, high = guesses[0], guesses[-1]
        middle = (low + high) // 2
        seen = env.step(f"\\boxed{{{middle}}}")
        guesses = range(low, middle) if "lower" in seen.text else range(middle + 1, high + 1)
    assert (seen.reward, seen.won) == (1.0, True)


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """A real server on the loopback, started for one test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "server.py", str(port)], cwd=folder)
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline and server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@needs("openenv")
def test_openenv(address: str) -> None:
    result = suite("openenv.toml", url=address)
    assert problems(result) == []
    env = result.make()
    for task in result.tasks("test")[:3]:
        assert env.reset(task).text == "Guess a digit."
        seen = next(s for s in map(env.step, "0123456789") if s.done)
        assert (seen.text, seen.reward, seen.won) == ("right", 1.0, True)
    env.close()


@needs("verifiers")
def test_verifiers() -> None:
    result = suite("verifiers.toml")
    assert problems(result) == []
    assert [len(result.tasks(split)) for split in ("train", "dev", "test")] == [20, 10, 10]
    env = result.make()
    for answers, reward in (("21 22 23", 1.0), ("21 0 23", 2 / 3)):
        seen = env.reset(result.tasks("train")[0])
        assert seen.text == "What comes after 20?"
        for answer in answers.split():
            seen = env.step(answer)
            assert seen.done or seen.text == f"You said {answer}. And next?"
        assert (seen.reward, seen.score, seen.won) == (reward, reward, reward == 1)
    env.close()
