"""`tutelage doctor`: what is installed, what is missing, and the command that installs it.

It reads names, versions and paths and imports nothing heavy, so it answers at once; `--torch` asks
torch itself. With a training file, it checks what that run needs and nothing else.
"""

import importlib
import os
import platform
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Final, Literal

from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from tutelage import __version__, cpu
from tutelage.config.paths import expanded
from tutelage.config.schema import Config, PolicySection
from tutelage.envs.addresses import address
from tutelage.envs.registry import ADAPTERS, SUITES
from tutelage.envs.requirements import Need
from tutelage.errors import NAME, ConfigError, EnvError, PolicyError, install
from tutelage.hints.bank import load as load_bank
from tutelage.policies.hf.wheel import located
from tutelage.policies.registry import named

WIDTH: Final = 80
ASSETS: Final = Path(__file__).parents[1] / "assets"
PYPROJECT: Final = Path(__file__).parents[3] / "pyproject.toml"
GPUS: Final = Path("/proc/driver/nvidia/gpus")
CUDA: Final = (
    "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
)

State = Literal["ok", "missing", "-", "note"]
STYLES: Final = {"ok": "green", "missing": "bold red", "-": "dim", "note": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: its state is `ok`, `missing`, `-` (absent and not needed) or `note`."""

    state: State
    name: str
    detail: str = ""
    fix: str = ""  # the command that fixes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    title: str
    lines: tuple[Line, ...]


def everything(*, torch: bool = False) -> list[Part]:
    """The machine, the packages, all suites and all extras."""
    suites = [(name, path.partition(":")[0]) for name, path in SUITES.items()]
    others = [(name, path.partition(":")[0]) for name, path in ADAPTERS.items()]
    return [
        Part(title="machine", lines=(*machine(), *(asked_torch() if torch else ()))),
        Part(title="packages", lines=tuple(extras())),
        Part(title="suites", lines=tuple(_suites(suites))),
        Part(title="suites of other libraries", lines=tuple(_suites(others))),
    ]


def needed(config: Config, *, torch: bool = False) -> list[Part]:
    """What one run needs."""
    return [
        Part(title="machine", lines=(*machine(), *(asked_torch() if torch else ()))),
        Part(title="packages", lines=tuple(base())),
        Part(title=f"suite: {config.env.suite}", lines=tuple(suite_lines(config))),
        Part(title="models and files", lines=tuple(_files(config))),
    ]


def complete(parts: Iterable[Part]) -> bool:
    """Whether nothing is missing."""
    return not any(line.state == "missing" for part in parts for line in part.lines)


# -- the machine


def machine() -> Iterator[Line]:
    yield Line(state="ok", name="Python", detail=f"{platform.python_version()} on {sys.platform}")
    yield from _processors()
    size = cpu.memory()
    yield Line(state="ok", name="memory", detail=f"{size / 1e9:.1f} GB" if size else "unknown")
    free = shutil.disk_usage(Path.cwd()).free
    yield Line(state="ok", name="disk", detail=f"{free / 1e9:.1f} GB free here")
    yield _gpu()


def _processors() -> Iterator[Line]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = cpu.share()
    less = f", {share:g} of them by quota" if share and share < (count or 1) else ""
    yield Line(state="ok", name="processors", detail=f"{count}{less}")
    threads, wait = os.environ.get("OMP_NUM_THREADS"), os.environ.get("OMP_WAIT_POLICY")
    detail = f"OMP_NUM_THREADS = {threads}" if threads else "torch takes all processors"
    fix = [] if threads else ["OMP_NUM_THREADS=1"]
    if wait and wait.upper() != "PASSIVE":  # where it is not set, `tutelage` sets it
        detail += f", and OMP_WAIT_POLICY = {wait} lets threads spin while they wait"
        fix.append("OMP_WAIT_POLICY=PASSIVE")
    if fix:
        detail += "; to share the machine:"
    command = f"export {' '.join(fix)}" if fix else ""
    yield Line(state="note" if fix else "ok", name="threads", detail=detail, fix=command)


def gpus() -> list[str]:
    """The names of the NVIDIA GPUs, as the driver reports them."""
    try:
        files = sorted(GPUS.glob("*/information"))
        texts = [path.read_text() for path in files]
    except OSError:
        return []
    return [text.partition("Model:")[2].splitlines()[0].strip() or "unknown" for text in texts]


def _gpu() -> Line:
    found = gpus()
    if not found:
        return Line(state="-", name="GPU", detail="no NVIDIA driver; everything runs on the CPU")
    if _installed("torch").endswith("+cpu"):
        detail = f"{', '.join(found)}, which this torch was built without"
        return Line(state="note", name="GPU", detail=detail, fix=CUDA)
    return Line(state="ok", name="GPU", detail=", ".join(found))


def asked_torch() -> Iterator[Line]:
    """What torch itself says, which takes seconds to import."""
    import torch

    there = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    detail = f"CUDA {torch.version.cuda}: {', '.join(names)}" if there else "no CUDA"
    yield Line(state="ok", name="torch says", detail=f"{detail}; {torch.get_num_threads()} threads")


# -- packages


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _requirements() -> dict[str, list[Requirement]]:
    """By extra ("" for none), what this Python wants of it."""
    by_extra: dict[str, list[Requirement]] = {}
    for extra, texts in _declared().items():
        needs = [Requirement(text) for text in texts]
        by_extra[extra] = [
            n for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})
        ]
    # an extra may name others, as in tutelage[search]: their packages take its place
    return {
        extra: [
            each
            for need in needs
            for each in (
                [n for other in sorted(need.extras) for n in by_extra[other]]
                if need.name == NAME
                else [need]
            )
        ]
        for extra, needs in by_extra.items()
    }


def _declared() -> dict[str, list[str]]:
    """The requirements as the package declares them. In a checkout its own file is asked: what pip
    wrote down about it is as old as the last installation."""
    if PYPROJECT.is_file():
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        return {"": project["dependencies"], **project["optional-dependencies"]}
    about = metadata(NAME)
    texts = about.get_all("Requires-Dist") or []
    # a marker says which extra a text is of, and is looked at by who asks
    of_extras = [text for text in texts if "extra ==" in text]
    return {"": texts} | dict.fromkeys(about.get_all("Provides-Extra") or [], of_extras)


def _lacks(needs: Iterable[Requirement]) -> list[str]:
    """What is not installed, or too old."""
    lacking = []
    for need in needs:
        here = _installed(need.name)
        if not here:
            lacking.append(need.name)
        elif not need.specifier.contains(here, prereleases=True):
            lacking.append(f"{need.name} {need.specifier} (here is {here})")
    return lacking


def base() -> Iterator[Line]:
    """What every command needs."""
    yield _bundle(NAME, _requirements()[""], fix=f"pip install --upgrade {NAME}", needed=True)


def extras() -> Iterator[Line]:
    """What every command needs, and each extra."""
    yield from base()
    for extra, needs in _requirements().items():
        if extra:
            yield _bundle(f"[{extra}]", needs, fix=install(extra), needed=False)


def _bundle(name: str, needs: list[Requirement], *, fix: str, needed: bool) -> Line:
    lacks = _lacks(needs)
    if lacks:
        state: State = "missing" if needed else "-"
        return Line(state=state, name=name, detail=f"without {', '.join(lacks)}", fix=fix)
    detail = ", ".join(f"{need.name} {_installed(need.name)}" for need in needs)
    detail = detail or "nothing more for this Python"
    return Line(
        state="ok", name=name, detail=f"{__version__}: {detail}" if name == NAME else detail
    )


# -- suites


def _suites(named: Iterable[tuple[str, str]]) -> Iterator[Line]:
    for name, module in named:
        yield from suite(name, module, {}, needed=False)


def suite(name: str, module: str, options: Mapping[str, object], *, needed: bool) -> Iterator[Line]:
    """A suite, and below it what it needs with these options."""
    absent: State = "missing" if needed else "-"
    try:
        if module.partition(".")[0] in sys.stdlib_module_names:
            raise ImportError(f"{module} belongs to Python itself")
        ask = getattr(importlib.import_module(module), "needs", None)
        needs: list[Need] = list(ask(options)) if callable(ask) else []
    except (ImportError, SyntaxError, EnvError) as error:
        detail = f"{module} could not be imported: {error}"
        yield Line(state=absent, name=name, detail=detail, fix="install it, or fix it")
        return
    ready = not any(need.missing for need in needs)
    yield Line(state="ok" if ready else absent, name=name, detail="ready" if ready else "not ready")
    for need in needs:
        if need.found:
            yield Line(state="ok", name=f"  {need.name}", detail=need.found)
        else:
            state: State = absent if need.missing else "-"
            yield Line(state=state, name=f"  {need.name}", detail=need.use, fix=need.get)


def suite_lines(config: Config) -> Iterator[Line]:
    """What the suite of a configuration needs with its options."""
    name = config.env.suite
    path = {**SUITES, **ADAPTERS}.get(name, name)
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    module, colon, _ = path.partition(":")
    if not colon:
        detail = f"there is no suite of this name; there are {', '.join((*SUITES, *ADAPTERS))}"
        yield Line(state="missing", name=name, detail=detail, fix="set env.suite to one of them")
        return
    lines = suite(name, module, config.env.options, needed=True)
    yield from (line for line in lines if line.state != "-")


# -- models and files


def _files(config: Config) -> Iterator[Line]:
    policies = {"policy": config.policy}
    policies |= {f"policies.{name}": section for name, section in config.policies.items()}
    for where, section in policies.items():
        yield _model(where, section)
        if section.chat.template:
            yield _path(f"{where}.chat.template", section.chat.template)
        if section.device.startswith("cuda"):
            yield _cuda(where, section.device)
    if config.rollout.replay:
        yield _path("rollout.replay", config.rollout.replay)
    if config.hints.bank:
        yield _bank(config.hints.bank)


def _model(where: str, section: PolicySection) -> Line:
    if section.url or section.chats:
        url = section.url or section.model.removeprefix("chat:").partition("#")[0]
        shown = address(url, where=f"{where}.model").shown
        detail = f"{shown}, which is asked when the run starts"
        return Line(state="note", name=where, detail=detail)
    if section.build is not None:
        return Line(state="ok", name=where, detail="built from nothing")
    model = section.model
    if not named(section).ours:
        return Line(state="note", name=where, detail=f"{model}, an engine of yours")
    if model.startswith("builtin:"):
        there = (ASSETS / model.removeprefix("builtin:") / "config.json").is_file()
        fix = "`tutelage demo` names the one there is: builtin:household-teacher"
        return Line(
            state="ok" if there else "missing", name=where, detail=model, fix=fix * (not there)
        )
    if model.startswith("wheel:"):
        try:
            located(model.removeprefix("wheel:"))
        except PolicyError as error:
            detail, _, fix = str(error).partition("; ")
            return Line(state="missing", name=where, detail=detail, fix=fix)
        return Line(state="ok", name=where, detail=model)
    if expanded(model).is_dir():
        return Line(state="ok", name=where, detail=model)
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        return Line(
            state="missing", name=where, detail=f"{model}: no such folder", fix="correct the path"
        )
    if any((hub() / f"models--{model.replace('/', '--')}" / "snapshots").glob("*/config.json")):
        return Line(state="ok", name=where, detail=f"{model}, downloaded")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    detail = f"{model} is not here" + ("" if offline else "; the run downloads it, or you first:")
    state: State = "missing" if offline else "note"
    return Line(state=state, name=where, detail=detail, fix=f"hf download {model}")


def hub() -> Path:
    """Where Hugging Face keeps what was downloaded."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return expanded(os.environ.get("HF_HUB_CACHE") or f"{home}/hub")


def _path(where: str, path: str) -> Line:
    if expanded(path).is_file():
        return Line(state="ok", name=where, detail=path)
    return Line(state="missing", name=where, detail=f"{path}: no such file", fix="correct the path")


def _cuda(where: str, device: str) -> Line:
    if not gpus():
        detail, fix = f"{device}: no NVIDIA driver here", f'set {where}.device = "auto"'
        return Line(state="missing", name=f"{where}.device", detail=detail, fix=fix)
    if _installed("torch").endswith("+cpu"):
        detail = f"{device}: this torch was built without CUDA"
        return Line(state="missing", name=f"{where}.device", detail=detail, fix=CUDA)
    return Line(state="ok", name=f"{where}.device", detail=device)


def _bank(name: str) -> Line:
    try:
        bank = load_bank(name)
    except ConfigError as error:
        detail = str(error).removeprefix("hints.bank: ")
        return Line(state="missing", name="hints.bank", detail=detail, fix="correct hints.bank")
    return Line(state="ok", name="hints.bank", detail=f"{name}, {len(bank.skills)} skills")


# -- printing


def show(parts: Iterable[Part], console: Console) -> None:
    """Everything in at most 80 columns; the first word of a line is its state."""
    for part in parts:
        console.print(Text(part.title, style="bold"))
        wide = min(26, max((len(line.name) for line in part.lines), default=0)) + 2
        for line in part.lines:
            console.print(Text("\n").join(_written(line, wide)), soft_wrap=True)
        console.print()


def _written(line: Line, wide: int) -> Iterator[Text]:
    head = f"  {line.state:<9}{line.name:<{wide}}"
    blank = " " * (11 + wide)
    detail = textwrap.wrap(line.detail, WIDTH - len(blank), break_on_hyphens=False) or [""]
    if len(head) > len(blank):  # a name that is longer than its column stands alone
        detail, head = ["", *filter(None, detail)], head.rstrip()
    first = Text(f"{head}{detail[0]}".rstrip())
    first.stylize(STYLES[line.state], 2, 2 + len(line.state))
    yield first
    yield from (Text(f"{blank}{text}") for text in detail[1:])
    if line.fix:
        fix = textwrap.wrap(line.fix, WIDTH - 13, break_on_hyphens=False, break_long_words=False)
        yield from (
            Text(f"{' ' * 11}{'> ' if k == 0 else '  '}{text}") for k, text in enumerate(fix)
        )
