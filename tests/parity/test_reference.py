"""The yardstick itself: TextWorld with remembered parses says what TextWorld says, under ALFWorld's
own names.
"""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from parity.reference import ReferenceGame, Shown, cached, find_domain, missing, shown_names

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

from parity.games import case, make

WALK = """
import sys
from parity.test_reference import digest
from pathlib import Path
print(digest(Path(sys.argv[1])))
"""


def wander(path: Path, steps: int, seed: int = 0) -> list[Shown]:
    """What TextWorld shows on a random walk and after a reset."""
    rng = random.Random(seed)
    game = ReferenceGame(path)
    shown = [game.reset()]
    for _ in range(steps):
        shown.append(game.step(rng.choice((*shown[-1].admissible, "nonsense"))))
    shown.append(game.reset())
    game.close()
    return shown


def digest(path: Path) -> str:
    """A fingerprint of a walk, to compare across processes."""
    with cached():
        return hashlib.sha256(repr(wander(path, 40)).encode()).hexdigest()


@pytest.mark.parametrize("number", [0, 3, 5, 6, 13])
def test_remembering_changes_nothing(number: int, tmp_path: Path) -> None:
    path = make(case(number), tmp_path)
    stock = wander(path, 25, number)
    with cached():
        assert wander(path, 25, number) == stock
        assert wander(path, 25, number) == stock  # now with everything remembered


def test_caching_ends_with_its_block() -> None:
    import fast_downward
    from textworld.envs.pddl import textgen

    before = (textgen._parse_and_convert, fast_downward.pddl2sas)
    with cached():
        assert textgen._parse_and_convert is not before[0]
    assert (textgen._parse_and_convert, fast_downward.pddl2sas) == before


@pytest.mark.parametrize("number", [2, 4])
def test_textworld_does_not_depend_on_the_hash_seed(number: int, tmp_path: Path) -> None:
    path = make(case(number), tmp_path)
    tests = Path(__file__).parents[1]
    found = set()
    for seed in ("1", "2", "3"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tests.parent / 'src'}:{tests}"}
        done = subprocess.run(
            [sys.executable, "-c", WALK, str(path)],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_names_are_those_of_alfworld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    misc = pytest.importorskip(
        "alfworld.agents.utils.misc", reason="alfworld's code does not import here"
    )
    from textworld.generator.game import EntityInfo

    rng = random.Random(5)
    kinds = ("apple", "sink", "cabinet", "cabinetlamp", "tissuebox", "loc")
    ids = {
        f"{rng.choice(kinds)}_bar__{rng.choice(('plus', 'minus'))}_0{rng.randrange(10)}_dot_{n:03d}"
        + rng.choice(("", "_bar_sinkbasin", "_bar_appleslice_1", "_comma_2"))
        for n in range(300)
    } | {"agent1", "appletype", "sinkbasintype"}
    reference = misc.Demangler(game_infos={id: EntityInfo(id, "t") for id in ids})
    assert shown_names(ids) == {id: reference.demangle_alfred_name(id) for id in ids}


def test_the_domain_is_found() -> None:
    domain, grammar = find_domain()
    assert "(define (domain alfred)" in domain
    assert "UNKNOWN GOAL" in grammar
