"""A run that is continued says so where its tasks hold something else under the same ids."""

import json
import sys
from pathlib import Path

import pytest
from support.tiny_runs import Quiet, tiny_table

import tutelage as tl
from tutelage.envs.doors import Doors
from tutelage.errors import RunError
from tutelage.runs.task_contents import DESCRIBED, HASHED, contents_of, difference
from tutelage.runs.task_order import SAMPLE, places

SUITE = """\
import json
from pathlib import Path
from tutelage.types import Observation, Task

FILE = Path(__file__).with_name("questions.jsonl")

class Quiz:
    def tasks(self, split):
        lines = map(json.loads, FILE.read_text().splitlines())
        return [Task(id=line["id"], data=line) for line in lines if line["split"] == split]

    def make(self):
        return self

    def reset(self, task):
        self.task = task
        return Observation(text=task.data["question"])

    def step(self, action):
        won = action == self.task.data["answer"]
        return Observation(text="Over.", done=True, won=won, reward=float(won))

    def close(self): ...
"""


class Heard(Quiet):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warned(self, sentence: object) -> None:
        self.warnings.append(str(sentence))


def questions(path: Path, **changes: str) -> None:
    """Twenty questions of each split, some of them changed by id."""
    lines = [
        {"id": f"{split}{k}", "split": split, "question": f"What is {k} + 1?", "answer": str(k + 1)}
        for split in ("train", "test")
        for k in range(20)
    ]
    for line in lines:
        line["question"] = changes.get(line["id"], line["question"])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def quiz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "quiz_of_tasks.py").write_text(SUITE)
    questions(tmp_path / "questions.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "quiz_of_tasks", raising=False)
    return tmp_path / "questions.jsonl"


def config(steps: int, *, every: int = 0, workers: int = 0) -> tl.Config:
    return tl.load(
        tiny_table(
            run={"steps": steps, "checkpoint_every": 1},
            env={"suite": "quiz_of_tasks:Quiz", "workers": workers},
            eval={"every": every, "tasks": 4, "split": "test"},
        )
    )


def test_a_run_is_not_continued_with_another_question_under_the_same_id(quiz: Path) -> None:
    tl.train(config(1), watch=(watch := Heard()))
    alone = places(20)[-1]  # one that is compared for itself, and one that is not
    together = min(set(range(20)) - set(places(20)))
    for number, words in (
        (alone, f"(task {alone} (train{alone}) has other data)"),
        (together, "(tasks have other data)"),
    ):
        questions(quiz, **{f"train{number}": "What is 2 + 2?"})
        with pytest.raises(RunError, match="the tasks of 'train' are not those") as refusal:
            tl.train(config(2), watch=Quiet(), resume=True)
        assert words in str(refusal.value)
    assert 'policy.model = "run" lets begin' in str(refusal.value)
    questions(quiz)
    assert len(tl.train(config(2), watch=watch, resume=True).metrics()) == 2
    assert not [sentence for sentence in watch.warnings if "contents" in sentence]


def test_evaluations_after_a_change_of_their_tasks_are_announced(quiz: Path) -> None:
    tl.train(config(1, every=1), watch=(watch := Heard()))
    before = json.loads(Path("run/meta.json").read_text())["panel"]
    assert "the evaluation show something else" not in "".join(watch.warnings)
    questions(quiz, test3="What is 2 + 2?")
    tl.train(config(2, every=1), watch=watch, resume=True)
    (warning,) = [w for w in watch.warnings if "the evaluation show something else" in w]
    meta = json.loads(Path("run/meta.json").read_text())
    assert meta["panel"] != before
    assert f"fingerprint {meta['panel']}, was {before}" in warning
    assert meta["panel_changed"] == [{"from": "step-000001", "before": {"panel": before}}]
    lines = [json.loads(line) for line in Path("run/evals.jsonl").read_text().splitlines()]
    assert [line["panel"] for line in lines] == [before, before, meta["panel"]]
    tl.train(config(3, every=1), watch=(again := Heard()), resume=True)
    assert "the evaluation show something else" not in "".join(again.warnings)
    assert "panel_changed" in json.loads(Path("run/meta.json").read_text())


NEW = SUITE.replace("data=line)", 'data={**line, "at": str(os.getpid())})').replace(
    "import json", "import json, os", 1
)


def test_tasks_that_hold_something_else_at_each_call_are_announced_and_not_compared(
    quiz: Path,
) -> None:
    quiz.with_name("quiz_of_tasks.py").write_text(NEW)
    for steps in (1, 2):
        watch = Heard()
        run = tl.train(config(steps, workers=1), watch=watch, resume=steps > 1)
        (warning,) = [w for w in watch.warnings if "other contents at each call" in w]
        assert "cannot notice changed data" in warning
    assert len(run.metrics()) == 2
    assert json.loads(Path("run/meta.json").read_text())["contents"] == {}


class Worded(Doors):
    """Doors that describe themselves, with an identity."""

    words, corpus = "Open {}.", "corpus 1"

    def describe(self, task: tl.Task) -> str:
        return self.words.format(task.id)

    def identity(self) -> str:
        return self.corpus


def test_each_thing_that_a_suite_tells_is_compared() -> None:
    suite, plain = Worded(), Doors()
    tasks = suite.tasks("train")
    first = contents_of(suite, tasks)
    assert difference(first, first, tasks) == ""
    suite.words = "Close {}."
    assert "`describe`" in difference(first, contents_of(suite, tasks), tasks)
    suite.words, suite.corpus = Worded.words, "corpus 2"
    assert "`identity`" in difference(first, contents_of(suite, tasks), tasks)
    # a method that a suite has gained or lost is no change of its tasks
    assert difference(first, contents_of(plain, tasks), tasks) == ""
    assert difference(contents_of(plain, tasks), first, tasks) == ""


def test_a_large_suite_is_asked_for_few_tasks_and_descriptions() -> None:
    class Counted(list[tl.Task]):
        asked = 0

        def __getitem__(self, at: object) -> tl.Task:  # type: ignore[override]
            Counted.asked += 1
            return super().__getitem__(at)  # type: ignore[no-any-return, call-overload]

    class Slow(Worded):
        described = 0

        def describe(self, task: tl.Task) -> str:
            Slow.described += 1
            return ""

    tasks = Counted(tl.Task(id=f"{k}", data={"q": "why"}) for k in range(5_000))
    contents_of(Slow(), tasks)
    assert Slow.described == DESCRIBED
    assert Counted.asked <= HASHED + DESCRIBED + SAMPLE
