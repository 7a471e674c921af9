"""`train --dry-run` refuses what the run would refuse, and warns of truncated demonstrations."""

import importlib.util
import re
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.live_bytes import counted_prompts
from support.tiny_runs import Quiet, tiny_table

import tutelage as tl
from tutelage.cli import dry_run, fitting
from tutelage.cli.main import main
from tutelage.cli.model_sizes import KNOWN
from tutelage.cli.planned_memory import divided_memory
from tutelage.config.toml_file import load, override, parse
from tutelage.envs import requirements
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies.hf import lora, memory
from tutelage.runs import checkpoint, models


def plan(*settings: str) -> dry_run.Plan:
    table = tiny_table(
        run={"steps": 1, "folder": "nowhere"},
        env={"options": {"rooms": 3}},
        rollout={"tasks_per_step": 3, "max_new_tokens": 8},
        algorithm={"name": "sft"},
        policy={"tokenizer": "teacher"},
        policies={"teacher": {"model": "builtin:household-teacher"}},
        eval={"tasks": 9},
    )
    return dry_run.make(parse(override(table, settings)))


def test_a_file_without_faults_passes() -> None:
    assert plan().warnings == ()
    (short,) = plan("policy.build.context=130", "rollout.max_turns=40").warnings
    assert "tokens, and the context of student has 130: longer ones end there" in short


def test_the_plan_counts_what_the_run_writes(tmp_path: Path) -> None:
    """An expert plays each of 9 tasks once, a warm start has checkpoints of its own, and the start
    that a reference is read from again is kept."""
    table = tiny_table(
        run={"folder": str(tmp_path / "run"), "steps": 6, "checkpoint_every": 2},
        rollout={"tasks_per_step": 2, "group_size": 8},
        algorithm={"name": "opsd", "hint": "plan", "teacher": "reference"},
        warm_start={"name": "sft", "steps": 3, "lr": 0.1},
        eval={"every": 0},
    )
    facts = dict(dry_run.make(parse(table)).facts)
    run = tl.train(table, watch=Quiet())
    assert facts["episodes"] == f"16 per step (2 tasks x 8), {3 * 9 + 6 * 16} in all"
    assert len(run.episodes()) == 3 * 9 + 6 * 16
    # warm-000002, then step-000000, 2, 4 and 6
    assert facts["checkpoints"].startswith("5, 3 kept")
    assert checkpoint.names(run.folder) == ["step-000000", "step-000004", "step-000006"]


def test_what_plays_one_step_ahead_has_memory_of_its_own() -> None:
    teaches = "algorithm={name='guided_opd'}"
    alone, both = plan(teaches), plan(teaches, "rollout.concurrency={ahead=1}")
    student, teacher = alone.models
    assert [m.name for m in both.models[2:]] == ["student, playing ahead", "teacher, playing ahead"]
    own, other = both.models[2:]
    assert student.shape is not None
    trained = student.shape.trained(parse(tiny_table()).policy)
    assert own.weights == (student.weights or 0) + 4 * trained
    assert other.weights == teacher.weights
    # all of it stays while the student learns
    beside = sum((m.weights or 0) + (m.cache or 0) for m in (own, other))
    assert both.memory == alone.memory + beside
    assert both.models[0].saved == student.saved * 16 // 12


def test_the_reference_of_a_student_with_adapters_shares_its_weights() -> None:
    """It is a copy of the adapters; where layers are divided over ranks, the weights are its own."""
    (file,) = (path for path in PAPERS if path.stem.endswith("_7b"))
    student, reference = dry_run.make(load(file, ["policy.lora=16"]), gpu=80).models
    section = load(file, ["policy.lora=16"]).policy
    assert reference.shape is not None
    assert student.shape is not None
    trained = student.shape.adapters(16)
    assert reference.weights == 4 * trained
    assert "adapters" in reference.source
    whole = student.shape.weights(section, frozen=True)
    assert reference.alone == whole > 17e9
    apart = replace(reference, weights=whole, alone=None)
    both = [divided_memory([student, m], student.shape, section, 2) for m in (reference, apart)]
    assert both[0] == both[1] > whole
    assert dry_run.make(load(file), gpu=80).models[1].weights == whole - 4 * trained


def test_an_expert_that_needs_more_turns_is_refused_as_in_the_run() -> None:
    with pytest.raises(ConfigError, match=r"the expert takes 3 turns .* raise rollout.max_turns"):
        plan("rollout.max_turns=2")


def test_a_suite_without_an_expert_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an environment that has one"):
        plan("env.suite=test_dry_run:NoExpert", "env.options={}", "eval.split=test")


class NoExpert:
    def reset(self, task: object) -> str:
        return "Say yes."

    def step(self, action: str) -> tuple[str, float, bool]:
        return "thanks", 1.0, True


def test_expert_replies_that_are_cut_are_counted_with_the_students_tokenizer() -> None:
    (warning,) = plan("rollout.max_new_tokens=2").warnings
    assert "60 of 60 replies of the expert have more tokens" in warning
    assert "rollout.max_new_tokens = 2" in warning
    assert "set it to at least " in warning


def test_a_context_without_room_for_the_first_turn_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"first prompt of task doors/aaa has \d+ tokens"):
        plan("policy.build.context=16")


def test_a_tokenizer_is_trained_where_only_it_tells_whether_the_first_turn_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = []
    train = models.tokenizer_of

    def noted(*of: Any) -> Any:
        trained.append(of)
        return train(*of)

    monkeypatch.setattr(models, "tokenizer_of", noted)
    plan('policy.tokenizer=""', "policy.build.context=16384")
    assert not trained
    with pytest.raises(ConfigError, match=r"first prompt of task doors/aaa has \d+ tokens"):
        plan('policy.tokenizer=""', "policy.build.context=16")
    assert len(trained) == 1


def test_a_chat_template_of_the_file_is_the_one_that_is_tried(tmp_path: Path) -> None:
    own = (models.ASSETS / "household-teacher/chat_template.jinja").read_text()
    (tmp_path / "long.jinja").write_text("{{ 'x ' * 4000 }}" + own)
    setting = f'policy.chat={{template="{tmp_path}/long.jinja"}}'
    with pytest.raises(ConfigError, match=r"first prompt of task doors/aaa has [48]\d\d\d tokens"):
        plan(setting, "policy.build.context=512")


def test_what_a_teacher_with_another_tokenizer_can_do_is_said_as_in_the_run(tmp_path: Path) -> None:
    assert not [w for w in plan('algorithm={name="opd"}').warnings if "tokenizer" in w]
    other = tmp_path / "other"
    shutil.copytree(models.ASSETS / "household-teacher", other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"<think>"', '"<thinks>"'))
    student = f'policy={{model="{other}"}}'
    (warning,) = [w for w in plan('algorithm={name="opd"}', student).warnings if "tokenizer" in w]
    assert "teacher has another tokenizer than the student, with which it shares" in warning
    with pytest.raises(PolicyError, match=r"so it cannot finish a turn that the student began"):
        plan('algorithm={name="adaswitch"}', student)


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package were not installed."""
    find, version = importlib.util.find_spec, requirements.version

    def found(module: str) -> object:
        return None if module == name else find(module)

    def versioned(module: str) -> str:
        if module == name:
            raise PackageNotFoundError(name)
        return version(module)

    for module in (lora, memory):
        monkeypatch.setattr(module, "find_spec", found)
    monkeypatch.setattr(requirements, "version", versioned)


MODEL = 'policy={model="builtin:household-teacher", lora=4}'


def test_missing_extras_are_refused_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without("peft", monkeypatch)
    with pytest.raises(PolicyError, match=r"pip install 'tutelage\[lora\]'"):
        plan(MODEL)
    monkeypatch.undo()
    without("bitsandbytes", monkeypatch)
    with pytest.raises(PolicyError, match=r"pip install 'tutelage\[lora\]'"):
        plan(MODEL, "policy.quantize=nf4")
    monkeypatch.undo()
    without("bm25s", monkeypatch)
    suite = 'env={suite="search_qa", options={retriever="bm25s", size="small"}}'
    with pytest.raises(ConfigError, match=r"search_qa needs bm25s.*pip install 'tutelage\["):
        plan(suite, 'eval={split="test", tasks=1}', "rollout.max_turns=20")


def test_episodes_to_imitate_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.replay"):
        plan(f"rollout.replay={tmp_path / 'none.jsonl'}")


def test_hints_that_the_suite_cannot_give_are_refused() -> None:
    with pytest.raises(ConfigError, match="answer"):
        plan('algorithm={name="opsd", hint="answer"}', "rollout.group_size=2")


PAPERS = sorted((Path(__file__).parents[2] / "examples").glob("alfworld_*.toml"))


@pytest.mark.parametrize("file", PAPERS, ids=lambda file: file.stem)
def test_the_papers_settings_are_told_what_fits_a_card_of_80_gb(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None fits as published; what is named does, with that change alone."""
    monkeypatch.setattr(memory, "require", lambda: None)
    found = dry_run.make(load(file), gpu=80)
    (warning,) = [text for text in found.warnings if "more than 80.0 GB of GPU memory" in text]
    assert found.memory > 80e9
    ways = warning.partition("it fits with ")[2].split(", or with ")
    assert len(ways) == fitting.SUGGESTED
    for way in ways:
        changes = re.findall(r"(?:policy|update|policies\.teacher)\.\w+ = \S+", way)
        served = ['policies.teacher={model="http://127.0.0.1:9"}'] if "on a server" in way else []
        fits = dry_run.make(load(file, [*changes, *served]), gpu=80)
        assert fits.memory <= fitting.USABLE * 80e9
        assert f"({fits.memory / 1e9:.1f} GB)" in way
    with_teacher = any('policies.teacher.quantize = "nf4"' in way for way in ways)
    assert with_teacher == ("teacher" in load(file).policies)


def test_a_teacher_in_4_bits_and_main_memory_while_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """30.5 billion parameters in 4.127 bits (arXiv:2305.14314, section 3), but for the embeddings, the
    router and norms; and a layer's experts unpacked. They are read in 4 bytes."""
    monkeypatch.setattr(memory, "require", lambda: None)
    file = next(file for file in PAPERS if "0.6b" in file.stem)
    found = dry_run.make(load(file, ["policies.teacher.quantize=nf4"]), gpu=80)
    (teacher,) = [m for m in found.models if m.name == "teacher"]
    assert teacher.shape is not None
    assert teacher.weights is not None
    of = teacher.shape
    packed = of.linear() + of.in_experts()
    head = 2 * of.vocab * of.hidden
    expected = 4.127 / 8 * packed + 4 * (of.parameters() - packed) + head
    expected += 2 * 128 * 3 * 2048 * 768
    assert teacher.weights == pytest.approx(expected, rel=1e-6)
    assert 17e9 < teacher.weights < 20e9
    dry_run.show(found, Console(width=200))
    assert "loading takes 122.1 GB of main memory" in capsys.readouterr().out
    mixture = ["policy.model=Qwen/Qwen3-30B-A3B", "policy.lora=4", "policy.quantize=nf4"]
    with pytest.raises(ConfigError, match="policy is a mixture of experts, which take no adapters"):
        dry_run.make(load(file, mixture), gpu=80)


def test_a_gpu_to_plan_for_changes_where_models_are() -> None:
    """Keys and values take at most a third of it, and are not there when the update is."""
    small = dry_run.make(
        parse(
            {
                "run": {"steps": 1, "folder": "nowhere"},
                "env": {"suite": "doors"},
                "rollout": {"tasks_per_step": 9, "max_turns": 40, "max_new_tokens": 500},
                "algorithm": {"name": "grpo"},
                "policy": {"model": "Qwen/Qwen3-0.6B"},
            }
        ),
        gpu=40,
    )
    (student,) = small.models
    assert student.cache == pytest.approx(40e9 / 3, rel=1e-6)
    assert student.weights is not None
    assert small.memory == student.weights + student.moments + max(student.cache, student.update)
    assert small.machine.words == "40.0 GB of GPU memory"


def prompts_of(model: str) -> int:
    found = dry_run.make(
        parse(
            {
                "run": {"steps": 1, "folder": "nowhere"},
                "env": {"suite": "doors"},
                "rollout": {"tasks_per_step": 9, "max_turns": 40, "max_new_tokens": 500},
                "algorithm": {"name": "grpo"},
                "policy": {"model": f"Qwen/{model}", "dtype": "bfloat16", "lora": 8},
            }
        ),
        gpu=80,
    )
    (student,) = found.models
    assert student.cache is not None
    assert student.weights is not None
    playing = student.cache + student.prompts
    assert found.memory == student.weights + student.moments + max(playing, student.update)
    return student.prompts


@pytest.mark.parametrize("model", ["Qwen3-0.6B", "Qwen3-1.7B", "Qwen2.5-3B", "Qwen2.5-7B"])
def test_a_pass_over_prompts_takes_what_is_predicted(model: str) -> None:
    """Within a tenth of what the policy's own code allocates."""
    counted = counted_prompts(replace(KNOWN[model], layers=2), tokens=16_384, row=512)
    assert prompts_of(model) == pytest.approx(counted, rel=0.1)


def test_a_plan_that_leaves_too_little_is_told_what_leaves_more() -> None:
    file = next(file for file in PAPERS if "grpo_qwen2.5_3b" in file.stem)
    changes = ["policy.gradient_checkpointing=true"]
    wanted = dry_run.make(load(file, changes), gpu=200).memory
    for share, expected in ((1.01 / fitting.USABLE, ""), (1.01, "which leaves too little of")):
        found = dry_run.make(load(file, changes), gpu=share * wanted / 1e9)
        warned = [text for text in found.warnings if "the models need about" in text]
        assert [expected in text for text in warned] == [True] * bool(expected)
        assert all("it fits with" in text for text in warned)


def test_a_gpu_to_plan_for_is_refused_without_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('env.suite = "doors"\npolicy.model = "a/b"\nalgorithm.name = "grpo"\n')
    assert main(["train", str(file), "--gpu", "80"]) == 2
    assert "belongs to --dry-run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", str(file), "--dry-run", "--gpu", "none"])
    assert "'none' is not a number of GB" in capsys.readouterr().err
