"""A plan, and a run before its first step, say which models leave the fast path, and why."""

from pathlib import Path
from typing import Any

import pytest
from support.architectures import build
from support.tiny_models import small_chat, words
from support.tiny_runs import Quiet, tiny_table
from transformers import AutoConfig

from tutelage.cli.main import main
from tutelage.config.toml_file import override, parse
from tutelage.runs import train


class Listening(Quiet):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warned(self, sentence: object) -> None:
        self.sentences.append(str(sentence))


def saved(name: str, folder: Path, **more: Any) -> Path:
    chat, pad = small_chat(), words().pad_token_id
    build(name, size=chat.size, end=chat.end, pad=pad, **more).save_pretrained(folder)
    words().save_pretrained(folder)
    return folder


def settings(student: Path, teacher: Path, folder: Path) -> list[str]:
    return [
        f'policy={{model="{student}"}}',
        f'policies={{teacher={{model="{teacher}"}}}}',
        f'run={{steps=1, folder="{folder}"}}',
        'algorithm={name="opd"}',
        "rollout.tasks_per_step=1",
        "rollout.max_turns=1",
        "eval.every=0",
    ]


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    student, teacher = saved("gemma2", tmp_path / "student"), saved("qwen3", tmp_path / "teacher")
    return settings(student, teacher, tmp_path / "run")


def test_a_plan_names_the_plain_path_with_its_reason_and_cost(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[env]\nsuite = "doors"\n[update]\nlr = 1e-3\n[rollout]\nmax_new_tokens = 4\n')
    assert main(["train", str(file), *tiny, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        "how student is computed plain path: it has layers of sliding_attention; turns are "
        "sampled one at a time, which is slower" in shown
    )
    assert shown.count("is computed") == 1  # the teacher takes the fast path


def test_a_run_says_which_path_each_model_takes(tiny: list[str], tmp_path: Path) -> None:
    watch = Listening()
    train.train(parse(override(tiny_table(), tiny)), watch=watch)
    paths = [s for s in watch.sentences if "path" in s]
    assert paths == [
        "the student takes the plain path: it has layers of sliding_attention; turns are sampled "
        "one at a time, which is slower"
    ]


def test_a_run_says_that_a_model_is_recomputed_and_what_that_costs(tmp_path: Path) -> None:
    """A sparse indexer of few heads, whose ties change with what follows."""
    student = saved("deepseek_v32", tmp_path / "student", index_n_heads=2)
    watch = Listening()
    given = settings(student, student, tmp_path / "run")
    train.train(parse(override(tiny_table(), given)), watch=watch)
    first, second = (s for s in watch.sentences if "path" in s)
    (kind,) = set(AutoConfig.from_pretrained(student).layer_types)  # renamed in transformers 5.24
    assert first == (
        f"the student takes the plain path: it has layers of {kind}; each token's "
        "probabilities depend on the tokens after it, so every token is sampled, and scored, by a "
        "pass of its own over all before it; turns are sampled one at a time, which is slower"
    )
    assert second.startswith("teacher takes the plain path: ")
