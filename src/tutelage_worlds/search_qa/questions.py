"""Questions with their golden answers, from local files.

Two layouts, JSON lines or Parquet, are read as they are:

FlashRAG   FOLDER/nq/test.jsonl, FOLDER/hotpotqa/dev.jsonl, ... with `question` and
           `golden_answers` (arXiv:2405.13576; nq, triviaqa, popqa, hotpotqa, 2wikimultihopqa,
           musique and bamboogle are those of Search-R1)
Search-R1  FOLDER/train.parquet and FOLDER/test.parquet with `data_source`, and `question` and
           `golden_answers` or the answers in `reward_model` (arXiv:2503.09516)
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tutelage.envs.generated_tasks import in_turns
from tutelage.errors import did_you_mean
from tutelage_worlds.read_once import read_once
from tutelage_worlds.search_qa.rows import SUFFIXES, DataError, rows

SOURCES: Final = (
    "nq",
    "triviaqa",
    "popqa",
    "hotpotqa",
    "2wikimultihopqa",
    "musique",
    "bamboogle",
)
"""The data sets of Search-R1; it trains on the first and the fourth."""
SPLITS: Final = ("train", "dev", "test")


class Question(NamedTuple):
    """A question. `titles` are those of the passages that answer it, where they are known."""

    source: str
    number: int
    text: str
    golds: tuple[str, ...]
    titles: tuple[str, ...] = ()


@read_once(8)
def load(data: str, split: str, sources: tuple[str, ...] = ()) -> tuple[Question, ...]:
    """The questions of a split, of all data sets that are there or those named, which take turns.

    A data set without `test` is tested on its `dev`, as in Search-R1. Raises DataError for files
    that are missing or wrong.
    """
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}; set env.options.data to the folder of the questions, "
            "such as FOLDER with FOLDER/nq/test.jsonl or FOLDER/test.parquet"
        )
    files = _files(folder, split)
    found = [q for path, source in files for q in _read(path, source)]
    there = list(dict.fromkeys(q.source for q in found))
    for name in sources:
        if name not in there:
            raise DataError(
                f"{folder} has no questions of {name!r} for {split!r}{did_you_mean(name, there)}; "
                f"it has {', '.join(there)}"
            )
    wanted = [q for q in found if not sources or q.source in sources]
    return tuple(wanted[i] for i in in_turns([q.source for q in wanted]))


def _files(folder: Path, split: str) -> Sequence[tuple[Path, str]]:
    """The files of a split, each with its data set's name, empty where its rows say it."""
    single = _file(folder, split)
    if single is not None:
        return [(single, "")]
    names = sorted((p.name for p in folder.iterdir() if p.is_dir()), key=_order)
    found = [(path, name) for name in names if (path := _of(folder / name, split)) is not None]
    if not found:
        raise DataError(
            f"{folder} has no questions for {split!r}; there should be {split}.parquet or "
            f"{split}.jsonl in it, or in folders of it that are called like their data sets"
        )
    return found


def _order(name: str) -> tuple[int, str]:
    return (SOURCES.index(name) if name in SOURCES else len(SOURCES), name)


def _of(folder: Path, split: str) -> Path | None:
    found = _file(folder, split)
    return _file(folder, "dev") if found is None and split == "test" else found


def _file(folder: Path, split: str) -> Path | None:
    found = [folder / f"{split}{suffix}" for suffix in SUFFIXES]
    found = [path for path in found if path.is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} holds both {found[0].name} and {found[1].name}; remove one")
    return found[0] if found else None


def _read(path: Path, source: str) -> Iterable[Question]:
    counts: dict[str, int] = {}
    for row, where in rows(path):
        parsed = question(row, where, source)
        number = counts.get(parsed.source, 0)
        counts[parsed.source] = number + 1
        yield parsed._replace(number=number)


def question(row: object, where: str, source: str = "") -> Question:
    """A question from a row. Raises DataError that names the place and the key."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a question must be an object with question and golden_answers")
    text = row.get("question")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: `question` must be a text that is not empty")
    origin = source or row.get("data_source") or "questions"
    if not isinstance(origin, str):
        raise DataError(f"{where}: `data_source` must be the name of a data set")
    # the data sets of verl are called searchR1_nq and so on
    origin = origin.removeprefix("searchR1_")
    return Question(origin, 0, text.strip(), _golds(row, where), _titles(row))


def _golds(row: Mapping[str, object], where: str) -> tuple[str, ...]:
    found = row.get("golden_answers")
    judge = row.get("reward_model")
    if found is None and isinstance(judge, Mapping):
        truth = judge.get("ground_truth")
        found = truth.get("target") if isinstance(truth, Mapping) else None
    golds = [found] if isinstance(found, str) else found
    if (
        not isinstance(golds, list)
        or not golds
        or not all(isinstance(gold, str) and gold.strip() for gold in golds)
    ):
        raise DataError(
            f"{where}: `golden_answers` (or reward_model.ground_truth.target) must be a list of "
            "texts that are not empty"
        )
    return tuple(golds)


def _titles(row: Mapping[str, object]) -> tuple[str, ...]:
    """The titles of the supporting passages, as HotpotQA and 2WikiMultihopQA give them."""
    metadata = row.get("metadata")
    facts = metadata.get("supporting_facts") if isinstance(metadata, Mapping) else None
    titles = facts.get("title") if isinstance(facts, Mapping) else None
    if not isinstance(titles, list):
        return ()
    return tuple(dict.fromkeys(title for title in titles if isinstance(title, str)))
