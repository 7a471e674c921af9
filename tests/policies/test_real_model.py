"""Real weights, a real tokenizer and a real chat template go through everything a run does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.real_model import MODEL, REAL, installed
from support.tiny_runs import Quiet, tiny_table

from tutelage.config.toml_file import load, parse
from tutelage.envs.registry import SUITES, register
from tutelage.policies.hf.loading import load as load_policy
from tutelage.policies.hf.wheel import model_folder
from tutelage.prompts import answer_format
from tutelage.prompts.chat_template import Chat
from tutelage.rollout.record import read
from tutelage.runs import checkpoint
from tutelage.runs.assemble import assemble
from tutelage.runs.export import export
from tutelage.runs.train import train
from tutelage.types import Observation, Task

pytestmark = [
    REAL,
    pytest.mark.skipif(not installed("peft"), reason="needs peft"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"


class Letters:
    """Rewards what no untrained model fails at entirely: the share of letters in a reply."""

    def tasks(self, split: str) -> list[Task]:
        return [Task(id=f"{split}/{k}", data={}) for k in range(2)]

    def make(self) -> "Letters":
        return Letters()

    def reset(self, task: Task) -> Observation:
        return Observation(text="Say something.")

    def step(self, action: str) -> Observation:
        share = sum(map(str.isalpha, action)) / max(1, len(action))
        return Observation(text="Thanks.", reward=share, done=True, won=action == "hello")

    def close(self) -> None: ...

    def demonstrate(self, task: Task) -> list[str]:
        return ["hello"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step of imitation, a step of GRPO, and one more after a resume, with low-rank adapters."""
    folder = tmp_path_factory.mktemp("real") / "run"
    table: dict[str, Any] = tiny_table(
        env={"suite": register(Letters())},
        context={"instructions": False},
        rollout={"tasks_per_step": 1, "group_size": 2, "max_turns": 1, "max_new_tokens": 6},
        warm_start={"name": "sft", "steps": 1, "lr": 1e-3},
        eval={"every": 0},
    )
    table["policy"] = {"model": MODEL, "lora": 4}
    for steps in (1, 2):
        table["run"] = {"folder": str(folder), "steps": steps}
        train(parse(table), resume=steps > 1, watch=Quiet())
    return folder


def test_the_weights_act_are_scored_and_learn(run: Path) -> None:
    lines: list[dict[str, Any]] = list(read(run / "metrics.jsonl"))  # type: ignore[arg-type]
    assert [line["phase"] for line in lines] == ["warm_start", "train", "train"]
    for line in lines:
        assert line["grad_norm"] > 0
    for line in lines[1:]:
        assert 0 < line["mismatch"]["max"] < 1e-3  # nats, in float32


def test_the_run_goes_on_and_keeps_only_adapters(run: Path) -> None:
    newest = checkpoint.latest(run)
    assert "step-000002" in newest.name
    assert list(newest.glob("adapter_model.safetensors"))
    assert not list(run.rglob("model.safetensors"))


def test_an_export_gives_the_same_logits_in_transformers(run: Path, tmp_path: Path) -> None:
    """The adapters are merged into the weights, so sums differ in their last digits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export(run, "", tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = load_policy(str(checkpoint.latest(run)), device="cpu")
    assert ours.plain is None  # rounding of a token that was hardly trained is no misfit
    ids = tokenizer("The capital of France is Paris", return_tensors="pt").input_ids
    with torch.no_grad():
        ours.model.set_attn_implementation("sdpa")
        expected = ours.model(ids).logits
        logits = plain(ids).logits
        raw = AutoModelForCausalLM.from_pretrained(model_folder("smollm2-135m")).eval()(ids).logits
    assert torch.allclose(logits, expected, rtol=0, atol=1e-4)
    assert (logits - raw).abs().max() > 1e-2  # what was learnt is in it
    assert tokenizer.chat_template


@pytest.fixture(scope="module")
def chat() -> Chat:
    from transformers import AutoTokenizer

    return Chat(AutoTokenizer.from_pretrained(model_folder("smollm2-135m")))


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_a_first_prompt_is_what_the_model_s_own_template_renders(
    chat: Chat, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse({**tiny_table(), "env": {"suite": suite}})
    if suite != "doors":
        config = load(EXAMPLES / f"{suite}_grpo.toml", ["context.instructions = true"])
    parts = assemble(config, learns=False, evaluates=False)
    env = parts.suite.make()
    first = env.reset(parts.suite.tasks(config.eval.split)[0])
    env.close()
    context = parts.context
    assert answer_format.instruction(context.tags) in context.system()
    for system in (context.system(), ""):  # without one, the template writes its own
        user = context.user([first], [])
        messages = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        ids = chat.open(system, user)
        assert chat.tokenizer.decode(ids) == chat.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        assert len(ids) < 8192  # the model's context
