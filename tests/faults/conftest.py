"""A finished run, trained once for all tests of faults, and copies of it to damage."""

import shutil
from pathlib import Path

import pytest
from support.fault_runs import config
from support.kill_chains import begin, ended
from support.tiny_runs import Quiet

from tutelage.runs import train


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    ended(begin(folder, lambda: train.train(config(), watch=Quiet())), folder)
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))
