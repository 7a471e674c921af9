"""No configuration calls what was not written to be called, and none of somebody else's is believed."""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_runs import TABLE, config, everything
from support.kill_chains import begin, ended
from support.tiny_runs import Quiet

from tutelage.cli.main import main
from tutelage.config import trust
from tutelage.config.toml_file import load, parse, write
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.hf.loading import load as load_model
from tutelage.runs import train
from tutelage_worlds.search_qa.encoders import encoder
from tutelage_worlds.tau_bench.customers import customer

MINE = """
from pathlib import Path
Path({ran!r}).touch()
from tutelage.envs.doors import Doors
from os import system

class Mine(Doors):
    pass

class NoSuite:
    def __init__(self) -> None:
        Path({called!r}).touch()

def make(rooms: int = 2) -> Doors:
    return Doors(rooms)

def grpo_of_mine():
    from tutelage import algorithms
    return algorithms.grpo()
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that appears when the module `mine_<n>` in the working folder is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = tmp_path / "ran"
    text = MINE.format(ran=str(ran), called=str(tmp_path / "called"))
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield ran
    sys.modules.pop("mine", None)


def toml(folder: Path, **changes: object) -> Path:
    """A file of settings, as a stranger may have written them."""
    path = folder / "theirs.toml"
    path.write_text(write(config("run", **changes)))
    return path


CALLABLE: dict[str, dict[str, object]] = {
    "os:system": {"command": "touch {ran}"},
    "subprocess:getoutput": {"cmd": "touch {ran}"},
    "subprocess:Popen": {"args": "touch {ran}", "shell": True},
    "shutil:rmtree": {"path": "{victim}"},
    "runpy:run_path": {"path_name": "{script}"},
    "builtins:exec": {},
    "antigravity:geohash": {},
    "code:interact": {},
    "pathlib:Path": {},
    "os.path:exists": {"path": "{victim}"},
    "importlib:import_module": {"name": "antigravity"},
    "torch:load": {"f": "{script}"},
    "pydantic:BaseModel": {},
    "numpy:save": {"file": "{ran}", "arr": 1},
    "huggingface_hub:snapshot_download": {"repo_id": "a/b", "local_dir": "{ran}"},
    "tutelage.rollout.disk:remove": {"path": "{victim}"},
    "tutelage.types:Task": {"id": "1", "family": "doors"},
}
"""What is no suite, and options with which a call of it would succeed or leave a trace."""


@pytest.mark.parametrize("name", CALLABLE)
def test_code_that_is_no_suite_is_not_called(name: str, tmp_path: Path) -> None:
    victim, script = tmp_path / "victim", tmp_path / "script.py"
    victim.mkdir()
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    before = everything(tmp_path)
    filled = {
        key: value.format(ran=tmp_path / "ran", victim=victim, script=script)
        if isinstance(value, str)
        else value
        for key, value in CALLABLE[name].items()
    }
    with pytest.raises(ConfigError) as refusal:
        train.train(config(tmp_path / "run", env__suite=name, env__options=filled), watch=Quiet())
    assert name.partition(":")[0] in str(refusal.value)
    assert everything(tmp_path) == before
    assert victim.is_dir()


@pytest.mark.parametrize(
    "name", ["os:system", "shutil:rmtree", "torch:load", "tutelage.rollout.disk:remove"]
)
def test_code_that_is_no_algorithm_is_not_called(name: str, tmp_path: Path) -> None:
    for section in ("algorithm", "warm_start"):
        table = json.loads(json.dumps(TABLE))
        table["run"]["folder"] = str(tmp_path / "run")
        table[section]["name"] = name
        table["algorithm"].pop("entropy", None)
        with pytest.raises(ConfigError):
            train.train(parse(table), watch=Quiet())
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("name", ["os:system", "shutil:rmtree", "numpy:save"])
def test_code_in_a_suite_s_options_is_not_called(name: str) -> None:
    with pytest.raises(ConfigError):
        encoder(name)
    with pytest.raises(ConfigError):
        customer(name, {})


@pytest.mark.parametrize(
    "command", ["train --dry-run", "train", "eval", "collect", "bench", "doctor"]
)
def test_no_command_calls_it(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = toml(tmp_path, env__suite="os:system", env__options={"command": "touch ran"})
    name, *more = command.split()
    code = main([name, str(path), *more])
    message = capsys.readouterr()
    assert code in (1, 2), message
    assert "Traceback" not in message.err
    assert not (tmp_path / "ran").exists()


def test_your_own_module_is_used(ran: Path) -> None:
    for name in ("mine:Mine", "mine:make"):
        assert load(toml(ran.parent, env__suite=name)).env.suite == name
        assert main(["train", "theirs.toml", "--dry-run"]) == 0
    assert ran.exists()


@pytest.mark.parametrize("name", ["mine:Nothing", "mine:os", "mine:rmtree"])
def test_a_module_without_what_is_named_is_not_even_run(name: str, ran: Path) -> None:
    with pytest.raises(ConfigError, match="mine has no class"):
        train.train(config(ran.parent / "run", env__suite=name), watch=Quiet())
    assert not ran.exists()


def test_what_your_own_module_imported_is_not_called(ran: Path) -> None:
    with pytest.raises(ConfigError, match="not written as one"):
        train.train(
            config(
                ran.parent / "run",
                env__suite="mine:system",
                env__options={"command": "touch called"},
            ),
            watch=Quiet(),
        )
    assert not (ran.parent / "called").exists()


# -- runs and files of somebody else's


@pytest.fixture
def theirs(ran: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a suite of one's own, which another user finished."""
    folder = ran.parent
    monkeypatch.setenv(trust.SECRET, str(folder / "their-secret"))
    settings = config("run", env__suite="mine:Mine", env__workers=0)
    ended(begin(folder, lambda: train.train(settings, watch=Quiet())), folder)
    monkeypatch.setenv(trust.SECRET, str(folder / "my-secret"))
    ran.unlink()
    return folder / "run"


@pytest.mark.parametrize(
    "command",
    [
        ["eval", "run"],
        ["train", "run", "--resume"],
        ["bench", "run"],
        ["train", "run", "--dry-run"],
        ["collect", "run"],
        ["train", "run/config.toml", "run.folder=new"],
    ],
)
def test_a_stranger_s_run_runs_nothing(
    command: list[str], theirs: Path, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(theirs)
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "--trust" in message
    assert str(ran.parent / "mine.py") in message
    assert not ran.exists()
    assert everything(theirs) == before


def test_a_stranger_s_run_that_is_trusted(theirs: Path, ran: Path) -> None:
    assert main(["eval", "run", "--trust", "--tasks", "1"]) == 0
    assert ran.exists()


def test_one_s_own_run_needs_no_trust(
    theirs: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trust.SECRET, str(ran.parent / "their-secret"))
    assert main(["eval", "run", "--tasks", "1"]) == 0
    # and no longer, once its configuration was changed
    text = (theirs / "config.toml").read_text()
    (theirs / "config.toml").write_text(text.replace("mine:Mine", "mine:make"))
    assert main(["eval", "run", "--tasks", "1"]) == 2


# -- models


def model_folder(target: Path) -> Path:
    from tutelage.runs.models import ASSETS

    return Path(shutil.copytree(ASSETS / "household-teacher", target))


EVIL = "from pathlib import Path\nPath({ran!r}).touch()\nclass EvilC: ...\nclass EvilM: ...\n"


@pytest.mark.parametrize("kind", ["config", "tokenizer"])
def test_a_model_s_own_code_is_not_run_nor_asked_about(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    folder = model_folder(tmp_path / "model")
    (folder / "evil.py").write_text(EVIL.format(ran=str(tmp_path / "ran")))
    name = "config.json" if kind == "config" else "tokenizer_config.json"
    table = json.loads((folder / name).read_text())
    if kind == "config":
        table |= {
            "auto_map": {"AutoConfig": "evil.EvilC", "AutoModelForCausalLM": "evil.EvilM"},
            "model_type": "evil",
        }
    else:
        table |= {"auto_map": {"AutoTokenizer": ["evil.EvilC", None]}, "tokenizer_class": "EvilC"}
    (folder / name).write_text(json.dumps(table))
    asked = io.StringIO("y\ny\ny\n")
    monkeypatch.setattr(sys, "stdin", asked)
    with contextlib.suppress(PolicyError):
        load_model(str(folder))
    assert asked.tell() == 0
    assert not (tmp_path / "ran").exists()


def test_weights_in_pickles_are_not_read(tmp_path: Path) -> None:
    import torch

    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(PolicyError, match="could not be loaded"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "[]"),
        ("config.json", "{"),
        ("tokenizer.json", '{"model": {"type": "X"}}'),
        ("tokenizer.json", "[]"),
        ("tokenizer_config.json", "[]"),
        ("config.json", "\0"),
        ("config.json", '{"model_type": "qwen3", "num_hidden_layers": -1}'),
        ("config.json", '{"model_type": "qwen3", "num_attention_heads": 0}'),
        ("adapter_config.json", "[]"),
        ("adapter_config.json", '{"peft_type": "NOPE"}'),
        ("adapter_config.json", '{"base_model_name_or_path": 3}'),
        (
            "adapter_config.json",
            '{"base_model_name_or_path": "x", "peft_type": "LORA", '
            '"auto_mapping": {"parent_library": "evil"}}',
        ),
    ],
)
def test_a_model_s_folder_that_is_broken_is_one_sentence(
    name: str, text: str, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / name).write_text(text)
    with pytest.raises(PolicyError) as refusal:
        load_model(str(folder))
    assert "\n" not in str(refusal.value)
