"""Progress of a training run on the console: plain lines, or a live display on a terminal."""

import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tutelage.config.schema import Config
from tutelage.evaluation.statistics import wilson
from tutelage.rollout.record import Line

RECENT = 10
"""Number of most recent steps for the success rate and the estimated end."""
PHASES = ("wait", "generate", "environment", "prompts", "teacher", "update")
MIN_SHARE = 0.005
"""Of a step's time, from which on a phase is named."""
COLOURS = ("red", "cyan", "magenta", "blue", "yellow", "green")


def watch_for(
    console: Console, *, quiet: bool = False, as_json: bool = False, out: IO[str] | None = None
) -> "Lines | LiveDisplay | JsonLines | Quiet":
    """The live display on a terminal, plain lines anywhere else; or what was asked for.

    out  where JSON goes; standard output if left out
    """
    if as_json:
        return JsonLines(out or sys.stdout)
    if quiet:
        return Quiet()
    return LiveDisplay(console) if console.is_terminal else Lines(sys.stdout)


@contextlib.contextmanager
def results_only(*, wanted: bool) -> Iterator[IO[str]]:
    """Standard output for results alone, if `wanted`: meanwhile whatever else is printed, by an
    environment or a library, in Python or below, goes to standard error."""
    if not wanted:
        yield sys.stdout
        return
    sys.stdout.flush()
    out, saved = sys.stdout, -1
    try:
        if out.fileno() == 1:
            saved = os.dup(1)
            out = os.fdopen(saved, "w", encoding="utf-8")
            os.dup2(2, 1)
    except (OSError, ValueError):
        pass  # it is no file, as in a notebook
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield out
        out.flush()
    finally:
        if saved >= 0:
            os.dup2(saved, 1)
            with contextlib.suppress(OSError):  # its reader is gone, which is said elsewhere
                out.close()


def number(line: Mapping[str, object], name: str) -> float:
    """A number of a logged line; nan where the log holds null."""
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")


def percent(won: int, n: int) -> str:
    """Successes as a rate with its 95 % interval.

    >>> percent(3, 12)
    '3/12 = 25 % (9 to 53 %)'
    """
    return f"{won}/{n} = {rate(won / n if n else 0.0, *wilson(won, n))}"


def rate(middle: float, low: float, high: float) -> str:
    """A number in [0, 1] with its interval.

    >>> rate(0.25, 0.09, 0.53)
    '25 % (9 to 53 %)'
    """
    return f"{100 * middle:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"


@dataclass(slots=True)
class Track:
    """The state of the current phase and its last steps."""

    phase: str = ""
    steps: int = 0
    done: int = 0
    recent: deque[tuple[Line, Mapping[str, float]]] = field(
        default_factory=lambda: deque(maxlen=RECENT)
    )

    def begin(self, config: Config, phase: str, step: int) -> None:
        warm = config.warm_start.steps if config.warm_start else 0
        self.phase, self.done = phase, step
        self.steps = warm if phase == "warm_start" else config.run.steps
        self.recent.clear()

    def add(self, line: Line, seconds: Mapping[str, float]) -> None:
        self.done = int(number(line, "step")) + 1
        self.recent.append((line, seconds))

    def success(self) -> str:
        won = sum(int(number(line, "won")) for line, _ in self.recent)
        return percent(won, sum(int(number(line, "episodes")) for line, _ in self.recent))

    def seconds_left(self) -> float:
        took = [seconds["all"] for _, seconds in self.recent]
        return (self.steps - self.done) * sum(took) / max(1, len(took))

    def end(self) -> str:
        """The clock time at which the phase ends at the present pace."""
        left = self.seconds_left()
        clock = "%H:%M" if left < 86_400 else "%d %b %H:%M"
        return time.strftime(clock, time.localtime(time.time() + left))

    def shares(self) -> list[float]:
        """Each phase's share of a step's time; the remainder is overhead."""
        total = sum(seconds["all"] for _, seconds in self.recent) or 1.0
        return [sum(s.get(name, 0.0) for _, s in self.recent) / total for name in PHASES]


def _gap(line: Mapping[str, object]) -> str:
    means = line.get("means")
    found = [v for k, v in means.items() if k.startswith("gap[")] if isinstance(means, dict) else []
    return f"  gap {found[0]:+.3f}" if found and isinstance(found[0], float) else ""


def _won(line: Mapping[str, object]) -> str:
    """Successes of a step; if an expert takes every turn, they are not the student's."""
    actors = line.get("actors")
    expert = isinstance(actors, dict) and set(actors) == {"expert"}
    return f"{'the expert ' if expert else ''}won {line['won']}/{line['episodes']}"


def _broken(line: Mapping[str, object]) -> str:
    count = int(number(line, "broken"))
    return f"  {count} broken" if count else ""


def _evaluation(line: Mapping[str, object]) -> str:
    hint = f" with {line['hint']}" if line.get("hint") else ""
    text = percent(int(number(line, "won")), int(number(line, "n")))
    if line.get("scores") and line["scores"] != line["outcomes"]:
        ends = (number(line, name) for name in ("score", "score_low", "score_high"))
        text += f", score {rate(*ends)}"
    own = line.get("summary")
    for name, value in own.items() if isinstance(own, dict) else ():
        text += f", {name.replace('_', ' ')} {value:.3g}"
    return f"{text} at step {line['step']}{hint}"


class Lines:
    """One line per step, for a pipe or a file."""

    def __init__(self, out: IO[str]) -> None:
        self.out, self.track = out, Track()

    def _say(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def tested(self, names: Sequence[str]) -> None:
        self._say(f"{len(names)} self-tests passed")

    def started(self, config: Config, phase: str, step: int) -> None:
        self.track.begin(config, phase, step)
        self._say(f"{phase}: step {step} of {self.track.steps} in {config.run.folder}")

    def playing(self, done: int, total: int) -> None: ...

    def stepped(self, line: Line, seconds: Mapping[str, float]) -> None:
        self.track.add(line, seconds)
        self._say(
            f"step {line['step']}  {_won(line)}{_broken(line)}  "
            f"loss {number(line, 'loss'):.4f}{_gap(line)}  grad {number(line, 'grad_norm'):.3f}  "
            f"{seconds['all']:.1f} s  end about {self.track.end()}"
        )

    def evaluated(self, line: Line) -> None:
        self._say(f"evaluation: {_evaluation(line)}")

    def warned(self, sentence: str) -> None:
        self._say(f"note: {sentence}")

    def closed(self) -> None: ...


class Quiet:
    """Nothing but what the user should know, on stderr."""

    def tested(self, names: Sequence[str]) -> None: ...

    def started(self, config: Config, phase: str, step: int) -> None: ...

    def playing(self, done: int, total: int) -> None: ...

    def stepped(self, line: Line, seconds: Mapping[str, float]) -> None: ...

    def evaluated(self, line: Line) -> None: ...

    def warned(self, sentence: str) -> None:
        sys.stderr.write(f"note: {sentence}\n")

    def closed(self) -> None: ...


class JsonLines(Quiet):
    """A line of JSON for every event: what was logged, and what kind of event it is."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out

    def _say(self, event: str, line: Line) -> None:
        self.out.write(json.dumps({"event": event, **line}) + "\n")
        self.out.flush()

    def started(self, config: Config, phase: str, step: int) -> None:
        self._say("started", {"phase": phase, "step": step, "folder": config.run.folder})

    def stepped(self, line: Line, seconds: Mapping[str, float]) -> None:
        self._say("step", {**line, "seconds": dict(seconds)})

    def evaluated(self, line: Line) -> None:
        self._say("evaluation", line)

    def warned(self, sentence: str) -> None:
        self._say("note", {"text": sentence})


BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def sparkline(rates: Sequence[float], width: int = 30) -> str:
    """Numbers in [0, 1] as bars, the newest `width` of them.

    >>> sparkline([0.0, 0.5, 1.0])
    '\u2581\u2585\u2588'
    """
    return "".join(BARS[min(len(BARS) - 1, int(x * len(BARS)))] for x in rates[-width:])


class LiveDisplay:
    """A few lines at the bottom of the terminal that are redrawn; evaluations stay above them."""

    def __init__(self, console: Console) -> None:
        self.console, self.track = console, Track()
        self.live = Live(self._shown(), console=console, refresh_per_second=4, transient=False)
        self.now, self.folder, self.evaluation = "", "", "none yet"
        self.rates: list[float] = []  # success of the evaluations without a hint

    def tested(self, names: Sequence[str]) -> None:
        self.console.print(f"{len(names)} self-tests passed")

    def started(self, config: Config, phase: str, step: int) -> None:
        self.track.begin(config, phase, step)
        self.folder = config.run.folder
        self.live.start()
        self.live.update(self._shown())

    def playing(self, done: int, total: int) -> None:
        self.now = f"playing {done}/{total}"
        self.live.update(self._shown())

    def stepped(self, line: Line, seconds: Mapping[str, float]) -> None:
        self.track.add(line, seconds)
        self.now = ""
        self.live.update(self._shown())

    def evaluated(self, line: Line) -> None:
        self.evaluation, self.now = _evaluation(line), ""
        if not line.get("hint") and line.get("n"):
            self.rates.append(number(line, "won") / number(line, "n"))
        self.console.print(Text(f"evaluation: {self.evaluation}"))
        self.live.update(self._shown())

    def warned(self, sentence: str) -> None:
        self.console.print(Text(f"note: {sentence}", "yellow"))

    def closed(self) -> None:
        self.live.update(self._shown())
        self.live.stop()

    def _shown(self) -> RenderableType:
        track = self.track
        if not track.steps:
            return Text("")
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=track.steps, completed=track.done, width=30)
        grid.add_row(track.phase, bar, Text(f"{track.done}/{track.steps}  {self.now}"))
        rows: list[RenderableType] = [Text(self.folder, "dim"), grid]
        if track.recent:
            line, _ = track.recent[-1]
            who = "the expert's success" if _won(line).startswith("the expert") else "success"
            rows.append(Text(f"{who} in the last {len(track.recent)} steps: {track.success()}"))
            rows.append(
                Text(
                    f"loss {number(line, 'loss'):.4f}{_gap(line)}  "
                    f"gradient {number(line, 'grad_norm'):.3f}{_broken(line)}  "
                    f"{track.seconds_left() / 60:.0f} min left, until {track.end()}"
                )
            )
            rows.append(_time_bar(track.shares()))
        curve = f"{sparkline(self.rates)}  " if len(self.rates) > 1 else ""
        rows.append(Text(f"evaluation: {curve}{self.evaluation}"))
        return Group(*rows)


def _time_bar(shares: Sequence[float], width: int = 12) -> Text:
    """The phases' shares of time as a coloured bar with a legend of those that count."""
    text = Text("time  ", no_wrap=True)
    for share, colour in zip(shares, COLOURS, strict=True):
        text.append("█" * round(share * width), colour)
    text.append("  ")
    for name, share, colour in zip(PHASES, shares, COLOURS, strict=True):
        if share >= MIN_SHARE:
            text.append(f"{name} {100 * share:.0f} %  ", colour)
    return text
