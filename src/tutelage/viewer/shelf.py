"""The runs that the viewer shows: their lists, episodes and histograms, as plain data."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tutelage.errors import RunError, TutelageError
from tutelage.viewer.index import Filter, Index, cache_folder
from tutelage.viewer.runs import Folder, find
from tutelage.viewer.text import pieces, tokenizer_of

LOOKED = 2.0
"""Seconds between two searches for new folders, and between two checks of growing files."""
PATIENCE = 0.2
"""Seconds that a first answer waits for the index."""
ADVANTAGE = re.compile(r"^(group_relative|.*advantage|leave_one_out)")
"""Signals that compare an episode with the others of its group."""
CONSTANT = re.compile(r"^[\d\s.*+-]+$")
"""Signals that are a number, such as "0.01 * 1": they say nothing of a token."""
FIRST = ("gate", "t_dur", "gap", "group_relative")
"""Beginnings of signals whose spread is shown first."""

PrivilegedText = Callable[[Folder, Mapping[str, Any]], Mapping[str, str]]
"""What privileged text each view is shown, by the view's name, given a run and an episode's line.
Raises TutelageError with the reason where it cannot be known."""


def no_privileged_text(folder: Folder, line: Mapping[str, Any]) -> Mapping[str, str]:
    raise RunError("this viewer was started without privileged text")


class Shelf:
    """The folders on the page, and their indices. One thread extends the indices."""

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        cache: Path | None = None,
        privileged: PrivilegedText = no_privileged_text,
    ) -> None:
        self.paths, self.cache, self.privileged = list(paths), cache or cache_folder(), privileged
        self.folders: dict[str, Folder] = {}
        self.indices: dict[str, Index] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._wanted: list[str] = []  # whose index is asked for, the last first
        self._looked = 0.0
        self.look()
        if not self.folders:
            names = ", ".join(map(str, self.paths))
            raise RunError(
                f"there is no run in {names}; give a run's folder, or one that holds such folders"
            )

    def look(self) -> None:
        """Find folders that are new."""
        with self._lock:
            if self.folders and time.monotonic() - self._looked < LOOKED:
                return
            for folder in find([p for p in self.paths if p.exists() or not self.folders]):
                self.folders.setdefault(folder.id, folder)
            self._looked = time.monotonic()

    def folder(self, name: str) -> Folder:
        if name not in self.folders:
            raise RunError("there is no such run; go back to the list of runs")
        return self.folders[name]

    def index(self, name: str) -> Index:
        """The index of a run's episodes, which is complete only after a while."""
        folder = self.folder(name)
        with self._lock:
            new = name not in self.indices
            if new:
                try:
                    split = str((folder.config().get("env") or {}).get("split", ""))
                except RunError:
                    split = ""
                self.indices[name] = Index(
                    folder.path, cache=self.cache, file=folder.episodes, default_split=split
                )
            if name in self._wanted:
                self._wanted.remove(name)
            self._wanted.insert(0, name)
        if new:  # a small run is complete in its first answer
            until = time.monotonic() + PATIENCE
            with contextlib.suppress(OSError):  # the thread tries again, and reports the error
                self.indices[name].update(lambda: time.monotonic() < until)
        return self.indices[name]

    def rows(self) -> list[dict[str, Any]]:
        """The list of runs, the newest first."""
        self.look()
        rows = []
        for folder in self.folders.values():
            row = folder.summary()
            index = self.indices.get(folder.id)
            row["indexed"] = [index.done, index.total] if index else None
            rows.append(row)
        return sorted(rows, key=lambda row: (str(row["started"]), row["name"]), reverse=True)

    # -- the thread

    def work(self) -> None:
        """Extend the indices that were asked for until `stop` is called; the last asked first."""
        while not self._stop.is_set():
            with self._lock:
                wanted = list(self._wanted)
            for name in wanted:
                index = self.indices[name]
                first = name

                def going(first: str = first) -> bool:
                    return not self._stop.is_set() and self._wanted[:1] == [first]

                try:
                    index.update(going)
                except (OSError, TutelageError) as error:
                    index.problem = str(error)
                if self._stop.is_set() or self._wanted[:1] != wanted[:1]:
                    break  # another run is looked at now
            else:
                self._stop.wait(LOOKED / 2)

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.work, name="index", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        self._stop.set()

    # -- requests of the page

    def run(self, name: str) -> dict[str, Any]:
        """A run with its settings, evaluations, and what can be plotted and filtered."""
        folder = self.folder(name)
        index = self.index(name)
        summary = folder.summary()
        out: dict[str, Any] = {"summary": summary, "config": {}, "meta": {}, "evaluations": []}
        if summary["state"] != "broken":
            evaluations = [
                {k: v for k, v in line.items() if k != "scores"} for line in folder.evaluations()
            ]
            out |= {"config": folder.config(), "meta": folder.meta(), "evaluations": evaluations}
            out["keys"] = {phase: folder.keys(phase) for phase in ("train", "warm_start")}
        return {
            **out,
            "facets": index.facets(),
            "indexed": [index.done, index.total],
            "index_problem": index.problem,
        }

    def episode(self, name: str, number: int) -> dict[str, Any]:
        """An episode with the text of every token, and every recorded signal."""
        folder, index = self.folder(name), self.index(name)
        line, row = index.episode(number), index.row(number)
        recorded = index.recorded(number)
        columns = recorded.get("columns", {})
        try:
            tokenizer, problem = tokenizer_of(folder.path), ""
        except OSError as error:
            tokenizer, problem = None, str(error)
        if tokenizer is None and not problem:
            problem = "no checkpoint with a tokenizer: tokens are shown as their ids"
        turns, at = [], 0
        for turn in line["turns"]:
            ids = turn.get("tokens", [])
            turns.append(
                {
                    **{k: v for k, v in turn.items() if k not in ("prompt", "tokens")},
                    "ids": ids,
                    "tokens": pieces(tokenizer, ids),
                    "prompt_ids": turn.get("prompt", []),
                    "prompt": pieces(tokenizer, turn.get("prompt", [])),
                    "at": at,
                }
            )
            at += len(ids)
        alternatives = {
            view: tokens
            for view, tokens in sorted(
                recorded.get("alternatives", {}).items(), key=lambda item: item[0] == "reference"
            )
            if len(tokens) == at
        }
        likely = {i for tokens in alternatives.values() for pairs in tokens for i, _ in pairs or ()}
        first = next((i for turn in turns for i in turn["ids"]), 0)
        if turns and any(turn.get("logps") for turn in turns):
            sampled = [x for turn in turns for x in turn.get("logps", [])]
            columns = {"log p when sampled": sampled, **columns}
        twins = Filter(
            task=row["task"],
            group=row["grp"],
            phase=row["phase"],
            policy=row["policy"],
            low_step=row["step"],
            high_step=row["step"],
        )
        others = Filter(task=row["task"])
        group = index.search(twins, order="step", descending=False, limit=64)["rows"]
        advantage = next((name for name in columns if ADVANTAGE.search(name)), "")
        for member in group if len(group) > 1 else ():
            values = [v for v in index.columns(member["id"]).get(advantage, []) if v is not None]
            member["advantage"] = sum(values) / len(values) if values else None
        return {
            "row": row,
            "line": {**{k: v for k, v in line.items() if k != "turns"}, "turns": turns},
            "columns": {k: v for k, v in columns.items() if len(v) == at and not CONSTANT.match(k)},
            "alternatives": alternatives,
            # after another token: alone, one that begins with a space would lose it
            "texts": {i: pieces(tokenizer, [first, i])[1] for i in sorted(likely)},
            "tokenizer": problem,
            "group": group,
            "advantage": advantage,
            "same_task": index.search(others, order="step", descending=False, limit=64)["rows"],
        }

    def views_of(self, name: str, number: int) -> Mapping[str, Any]:
        """Privileged text of an episode's task, by view; `why` says why it cannot be known."""
        line = self.index(name).episode(number)
        try:
            return {"views": self.privileged(self.folder(name), line), "why": ""}
        except TutelageError as error:
            return {"views": {}, "why": str(error)}

    def histogram(self, name: str, phase: str, step: int | None, column: str) -> dict[str, Any]:
        """How a signal's values spread over the tokens of a step: counts in 20 bins, apart for
        tokens whose gap is above and below 0 where that is known."""
        index = self.index(name)
        steps = [s for p, s in index.recorded_steps() if p == phase]
        if not steps:
            return {"steps": [], "bins": [], "parts": {}, "columns": []}
        chosen = step if step in steps else steps[-1]
        lines = list(index.columns_of_step(phase, chosen))
        every = dict.fromkeys(name for line in lines for name in line["columns"])
        names = [name for name in every if not CONSTANT.match(name)]
        if column not in names:
            liked = [n for start in FIRST for n in names if n.startswith(start)]
            column = (liked or names or [""])[0]
        gap = next((n for n in names if n.startswith("gap[")), "")
        pairs = []
        for line in lines:
            values = line["columns"].get(column, [])
            gaps = line["columns"].get(gap, []) if gap else values if _by_gap(column) else []
            middle = 0.0 if gap else 0.5  # sigmoid(beta gap) is above 1/2 where the gap is above 0
            for k, value in enumerate(values):
                sign = gaps[k] - middle if k < len(gaps) and gaps[k] is not None else None
                if value is not None:
                    pairs.append((value, sign))
        return {"step": chosen, "steps": steps, "columns": names, "column": column, **_bins(pairs)}


def _by_gap(column: str) -> bool:
    """Whether a gate alone tells the sign of the gap: sigmoid(beta gap) does."""
    return column.startswith("gate[")


BINS = 20


def _bins(pairs: list[tuple[float, float | None]]) -> dict[str, Any]:
    """Counts of values in equal bins, apart by the sign that goes with each.

    >>> _bins([(0.0, None), (1.0, None)])["parts"]["all"][0]
    1
    """
    if not pairs:
        return {"bins": [], "parts": {}}
    low, high = min(v for v, _ in pairs), max(v for v, _ in pairs)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    width = (high - low) / BINS or 1.0
    parts: dict[str, list[int]] = {}
    for value, sign in pairs:
        part = "all" if sign is None else "gap above 0" if sign > 0 else "gap 0 or below"
        at = min(BINS - 1, int((value - low) / width))
        parts.setdefault(part, [0] * BINS)[at] += 1
    return {"bins": [low + width * k for k in range(BINS + 1)], "parts": parts}
