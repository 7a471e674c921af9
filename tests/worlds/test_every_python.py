"""Suites are equal in every version of Python.

Pythons are looked for under ~/.pyenv/versions and among those that TUTELAGE_PYTHONS names, paths
between blanks. Some worlds want numpy there.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITES = {
    "tau_bench": "TauBench(size='small')",
    "travelplanner": "TravelPlanner(size='small', mode='two-stage')",
    "search_qa": "SearchQA(retriever='lucene', passages=300)",
    "webshop": "WebShop(products=200, test=10, dev=10)",
}
WITH_NUMPY = ("search_qa", "webshop")
# what is seen, step by step, with the demonstrations and plans that lead there
FINGERPRINT = """
import hashlib
from tutelage_worlds.{world} import {name}
suite, digest = {suite}, hashlib.sha256()
for split in ("train", "test"):
    for task in list(suite.tasks(split)[:6]):
        env, script = suite.make(), list(suite.demonstrate(task))
        seen = [env.reset(task), *(env.step(action) for action in script)]
        texts = [(s.text, s.reward, s.done, s.won, s.score, s.valid, s.actions) for s in seen]
        digest.update(repr((task, script, list(suite.plan(task)), texts)).encode())
print(digest.hexdigest())
"""


@cache
def fingerprint(python: str, world: str, hash_seed: str) -> str:
    result = SUITES[world]
    code = FINGERPRINT.format(world=world, name=result.partition("(")[0], suite=result)
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": hash_seed, "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@cache
def asked(python: str, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def pythons(version: str) -> list[str]:
    """Those of a version, the ones that the user named first."""
    named = os.environ.get("TUTELAGE_PYTHONS", "").split()
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    there = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return [each for each in named if asked(each, code) == version] + [*map(str, there)]


@pytest.mark.parametrize("world", SUITES)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_suites_are_the_same_in_every_version_of_python(version: str, world: str) -> None:
    found = pythons(version)
    if not found:
        pytest.skip(f"Python {version} is not installed, nor named in TUTELAGE_PYTHONS")
    if world in WITH_NUMPY and not asked(found[0], "import numpy; print(1)"):
        pytest.skip(f"{found[0]} has no numpy: name one in TUTELAGE_PYTHONS")
    assert fingerprint(found[0], world, "7") == fingerprint(sys.executable, world, "1")
