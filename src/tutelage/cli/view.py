"""`tutelage view`: the page of runs, served or written to a file."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, RunError, TutelageError
from tutelage.viewer import html_file, server
from tutelage.viewer.runs import Folder
from tutelage.viewer.shelf import Shelf


def serve(folders: Sequence[Path], *, host: str, port: int) -> None:
    """Answer until interrupted. An address that other machines reach asks for a token."""
    server.require()
    shelf = Shelf(folders, privileged=Privileged())
    token = "" if server.loopback(host) else server.new_token()
    listening = server.bound(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    count = len(shelf.folders)
    query = f"?token={token}" if token else ""
    print(f"{count} run{'s' if count > 1 else ''} at {address}{query}", flush=True)
    print("Ctrl-C ends it", flush=True)
    server.serve(shelf, listening, token=token)


def write(folders: Sequence[Path], path: Path, *, episodes: int) -> None:
    shelf = Shelf(folders, privileged=Privileged())
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{count} episodes")
            sys.stderr.flush()

    left_out = html_file.write(shelf, path, episodes=episodes, tick=tick)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    more = f"; {left_out} older ones left out (--episodes)" if left_out else ""
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {count} episodes{more}")


class Privileged:
    """Makes the privileged text of a run's views again, as the run made it.

    Only for suites of this package: the settings of a run folder from elsewhere may name any
    Python class, and looking at a run must not run its code.
    """

    def __init__(self) -> None:
        self._views: dict[str, Callable[[Mapping[str, Any]], Mapping[str, str]]] = {}
        self._making = threading.Lock()

    def __call__(self, folder: Folder, line: Mapping[str, Any]) -> Mapping[str, str]:
        """The text of each view by its name, "" for a view that is shown nothing.

        Raises TutelageError where it cannot be known.
        """
        with self._making:
            if folder.id not in self._views:
                self._views[folder.id] = _maker(folder)
            return self._views[folder.id](line)


def _maker(folder: Folder) -> Callable[[Mapping[str, Any]], Mapping[str, str]]:
    from tutelage.config.toml_file import load
    from tutelage.envs.registry import SHIPPED
    from tutelage.hints import kinds_in
    from tutelage.runs import assemble
    from tutelage.types import Task

    if folder.kind != "run":
        raise RunError("only a run's settings say what its views are shown")
    suite = str((folder.config().get("env") or {}).get("suite", ""))
    if suite not in SHIPPED:
        raise RunError(
            f"privileged text is made again for the suites of this package alone, not for {suite!r}"
        )
    try:
        config = load(folder.path / "config.toml")
        parts = assemble.assemble(config, evaluates=False)
    except ConfigError as error:
        raise RunError(f"the settings of this run no longer make its views: {error}") from error

    def view_texts(line: Mapping[str, Any]) -> Mapping[str, str]:
        task = Task(**line["task"])
        phase = next((p for p in parts.phases if p.name == line.get("phase", "train")), None)
        if phase is None:
            return {}
        out = {"student": ""}
        for name, view in phase.algorithm.all_views().items():
            if not view.hint:
                continue
            if "written" in kinds_in(view.hint):
                parts.hints.written[task.id] = folder.hint_written(task.id)
            if parts.hints.uses_ucb(view.hint):
                out[name] = "(a skill that was chosen while the run went on; which is not recorded)"
                continue
            try:
                out[name] = parts.hints.text(parts.suite, task, view.hint)
            except TutelageError as error:
                out[name] = f"({error})"
        return out if len(out) > 1 else {}

    return view_texts
