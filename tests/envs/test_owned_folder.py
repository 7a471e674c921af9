"""Folders of processes that were killed."""

import subprocess
import sys
from pathlib import Path

from tutelage.envs.owned_folder import owned_folder, remove_left

MAKES = """
import sys, time
from pathlib import Path
from tutelage.envs.owned_folder import owned_folder

folder, remove = owned_folder(Path(sys.argv[1]))
(folder / "file").write_text("something")
print(folder, flush=True)
time.sleep(600)
"""


def test_the_next_folder_removes_those_of_killed_processes(tmp_path: Path) -> None:
    other = tmp_path / "tutelage-of-something-else"
    other.mkdir()
    started = [
        subprocess.Popen([sys.executable, "-c", MAKES, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        killed, living = (Path(p.stdout.readline().decode().strip()) for p in started if p.stdout)
        assert killed.is_dir()
        assert living.is_dir()
        started[0].kill()
        started[0].wait()
        own, remove = owned_folder(tmp_path)
        assert not killed.exists()
        assert (living / "file").exists()
        assert remove_left(tmp_path) == []  # its own is locked as well
        remove()
        assert not own.exists()
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert remove_left(tmp_path) == [living]
    assert sorted(tmp_path.iterdir()) == [other]
