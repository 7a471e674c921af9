"""`tutelage runs` and `tutelage show`: the list of runs, and episodes, on a terminal."""

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tutelage.cli.tables import print_table
from tutelage.errors import RunError
from tutelage.viewer.index import Filter, Index, cache_folder
from tutelage.viewer.runs import Folder, find
from tutelage.viewer.text import pieces, tokenizer_of, visible

STATES = {"running": "bold green", "stopped": "yellow", "finished": "", "broken": "bold red"}
ACTORS = {"student": "cyan", "expert": "bright_black"}
"""Anybody else is a teacher."""
SHADES = (
    ("bold white on blue", -0.5),
    ("white on dark_blue", -0.1),
    ("", 0.1),
    ("white on dark_orange3", 0.5),
    ("bold white on red", 2.0),
)
"""Styles of tokens, each up to a share of the largest value in the episode."""


def list_runs(folders: Sequence[Path], console: Console, *, as_json: bool = False) -> None:
    """A row for each run; with `as_json`, a line of JSON for each."""
    rows = [folder.summary() for folder in find(folders)]
    if not rows:
        raise RunError(
            f"there is no run in {', '.join(map(str, folders))}; give the folder that holds runs"
        )
    rows.sort(key=lambda row: (str(row["started"]), row["name"]), reverse=True)
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "method", "suite", "state", "steps", "tasks solved, last panel"):
        table.add_column(name, overflow="fold", no_wrap=name not in ("run", "method"))
    for row in rows:
        found = row["evaluation"]
        table.add_row(
            visible(str(row["path"])),
            visible(str(row["method"] or row["kind"])),
            visible(str(row["suite"])),
            Text(str(row["state"]), style=STATES[row["state"]]),
            f"{row['done']}/{row['steps']}" if row["kind"] == "run" else "",
            _solved(found),
        )
    print_table(console, table)
    for row in rows:
        if row["problem"]:
            console.print(Text(f"{row['name']}: {visible(row['problem'])}", style="red"))


def _solved(found: Mapping[str, Any]) -> str:
    if any(found.get(name) is None for name in ("success", "low", "high", "n")):
        return "not evaluated"
    middle, low, high = (100 * float(found[name]) for name in ("success", "low", "high"))
    return f"{middle:.0f} % ({low:.0f} to {high:.0f} %), n = {found['n']}"


def show(
    folder: Path,
    console: Console,
    *,
    episode: int | None,
    asked: Filter,
    limit: int,
    colour: str = "",
    as_json: bool = False,
) -> None:
    """The newest episodes of a run that pass a filter, or one of them in full.

    colour  a recorded signal that tokens are coloured by
    """
    run = _one(folder)
    index = Index(run.path, cache=cache_folder(), file=run.episodes)
    _read(index)
    if index.problem:
        console.print(Text(visible(index.problem), style="red"))
    if episode is None:
        _list(index, asked, console, limit=limit, as_json=as_json)
        return
    line = index.episode(episode)
    if as_json:
        sys.stdout.write(json.dumps(line) + "\n")
        return
    columns = index.columns(episode)
    if colour and colour not in columns:
        names = ", ".join(columns) or "none: set run.columns = true"
        raise RunError(f"episode {episode} has no signal {colour!r}; recorded are {names}")
    _conversation(run, line, console, values=columns.get(colour), colour=colour)


def _one(path: Path) -> Folder:
    found = find([path])
    here = [folder for folder in found if folder.path.resolve() == path.resolve()] or found
    if len(here) != 1 and not path.is_file():
        names = ", ".join(str(folder.path) for folder in here[:5])
        raise RunError(
            f"{path} holds several runs; give one of them: {names}"
            if here
            else f"{path} holds no run and no episodes.jsonl; give the folder of a run"
        )
    return here[0]


def _read(index: Index) -> None:
    """Complete the index, with progress on a terminal where it takes long."""
    since = time.monotonic()

    def going() -> bool:
        if sys.stderr.isatty() and time.monotonic() - since > 1:
            sys.stderr.write(f"\rreading episodes: {100 * index.done / max(1, index.total):.0f} %")
            sys.stderr.flush()
        return True

    index.update(going)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


def _list(index: Index, asked: Filter, console: Console, *, limit: int, as_json: bool) -> None:
    found = index.search(asked, limit=limit)
    if as_json:
        for row in found["rows"]:
            sys.stdout.write(json.dumps(row) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("episode", "step", "task", "outcome", "return", "turns", "invalid", "who acted"):
        table.add_column(name, overflow="fold", no_wrap=name == "task")
    for row in reversed(found["rows"]):
        warm = "warm " if row["phase"] == "warm_start" else ""
        table.add_row(
            str(row["id"]),
            f"{warm}{row['step']}",
            visible(row["task"]),
            outcome(row["won"]),
            f"{row['ret']:.3g}",
            str(row["turns"]),
            str(row["invalid"] or ""),
            visible(row["actors"].strip(",").replace(",", ", ")),
        )
    print_table(console, table)
    console.print(
        f"{found['total']} episodes, {found['won']} won; --episode N shows one", highlight=False
    )


def outcome(won: object) -> Text:
    """Won or lost, in colour."""
    return Text("\u2713 won", style="green") if won else Text("\u2717 lost", style="red")


def _conversation(
    run: Folder,
    line: Mapping[str, Any],
    console: Console,
    *,
    values: Sequence[float | None] | None,
    colour: str,
) -> None:
    task = line["task"]
    head = Text(visible(task["id"]), style="bold")
    head.append(f"  step {line['step']}, copy {line['copy']}, return {line['return']:.3g}  ")
    head.append_text(outcome(line["won"]))
    console.print(head)
    try:
        tokenizer = tokenizer_of(run.path) if values is not None else None
    except OSError as error:
        raise RunError(str(error)) from error
    known = [abs(v) for v in values or () if v is not None]
    most, at = max(known, default=0.0), 0
    for number, turn in enumerate(line["turns"], 1):
        before_reply(number, turn, console)
        if values is None:
            console.print(reply(turn["text"]), soft_wrap=True)
        else:
            of = values[at : at + len(turn["tokens"])]
            console.print(_coloured(pieces(tokenizer, turn["tokens"]), of, most), soft_wrap=True)
        at += len(turn["tokens"])
    end(line, console)
    if values is not None and known:
        low, high = min(v for v in values if v is not None), max(v for v in values if v is not None)
        console.print(Text(f"{colour} from {low:.4g} (blue) to {high:.4g} (red)", style="dim"))


def end(line: Mapping[str, Any], console: Console) -> None:
    """Why an episode ended."""
    ended = Text(f"ended by {line['stop']}", style="dim")
    if line.get("error"):
        ended.append(f": {visible(line['error'])}", style="red")
    console.print(ended)


def before_reply(number: int, turn: Mapping[str, Any], console: Console) -> None:
    """What was seen before a turn, and who answered it how."""
    console.print(Text(visible(turn["seen"]), style="dim"), soft_wrap=True)
    who = Text(f"{number} ", style="dim")
    who.append(visible(turn["actor"]), style=f"bold {ACTORS.get(turn['actor'], 'magenta')}")
    if turn.get("taken"):
        who.append(f", ended by {visible(turn['taken'][1])}", style="magenta")
    if not turn["valid"]:
        who.append("  \u2717 invalid action", style="bold red")
    if turn["reward"]:
        who.append(f"  reward {turn['reward']:.3g}", style="green")
    console.print(who)


def reply(text: str) -> Text:
    """A reply with its thoughts dimmed and its action bold."""
    out = Text("  ")
    for part in re.split(r"(<think>.*?</think>|<action>.*?</action>)", text, flags=re.DOTALL):
        style = "italic dim" if part.startswith("<think>") else ""
        style = "bold" if part.startswith("<action>") else style
        out.append(visible(re.sub(r"^<(think|action)>|</(think|action)>$", "", part)), style=style)
    return out


def _coloured(texts: Sequence[str], values: Sequence[float | None], most: float) -> Text:
    out = Text("  ")
    for text, value in zip(texts, values, strict=False):
        part = value / most if value is not None and most else 0.0
        style = next(style for style, end in SHADES if part <= end)
        out.append(visible(text), style="dim strike" if value is None else style)
    return out
