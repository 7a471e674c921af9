"""The search_qa suite: tasks, the environment, demonstrations, plans and renderings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from tutelage.envs import requirements
from tutelage.envs.base import Render
from tutelage.envs.generated_tasks import LazyTasks
from tutelage.errors import ConfigError
from tutelage.types import Task
from tutelage_worlds.read_once import forget_changed, read_once
from tutelage_worlds.search_qa import expert, generate, moves, questions, wording
from tutelage_worlds.search_qa.client import Dialect
from tutelage_worlds.search_qa.env import Library, Reward, Rules, SearchQAEnv
from tutelage_worlds.search_qa.moves import Protocol
from tutelage_worlds.search_qa.native import SearchQACalls
from tutelage_worlds.search_qa.passages import Corpus, load
from tutelage_worlds.search_qa.questions import SPLITS, Question
from tutelage_worlds.search_qa.render import compact
from tutelage_worlds.search_qa.retrieval import TOP, Engine, Local, build, opened
from tutelage_worlds.search_qa.world import FEWEST, PASSAGES, Size, world

_PACKAGES: Final = (
    ("bm25s", "bm25s", "search", "exact BM25 in numpy, the default"),
    ("tantivy", "tantivy", "search", "BM25 for large corpora"),
    ("faiss", "faiss-cpu", "search", "exact dense retrieval"),
    ("usearch", "usearch", "search", "dense retrieval by a graph"),
)
GET: Final = (
    "RUC-NLPIR/FlashRAG_datasets and PeterJinGo/wiki-18-corpus of Hugging Face (`Data` in "
    "docs/environments/search_qa.md)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQA:
    """Answering questions with a search engine, as Search-R1 does (arXiv:2503.09516).

    data       a folder of questions (see `questions`); without it, generated questions
    corpus     a file of passages to search (see `passages`)
    families   of generated questions: single, bridge, chain, compare; of files: data sets (all)
    size       of the generated corpus: "full", or "small" with plain, short passages for tiny
               models
    passages   number of generated passages (2,400; small: 240)
    seed       of the generated corpus
    train, dev, test  how many generated questions these splits have
    retriever  what searches: "bm25s", "lucene", "tantivy", "faiss" or "usearch" in this process
    index      a folder in which an index of the corpus was built; else it is built in memory
    encoder    what makes vectors for faiss and usearch (see `encoders`)
    url        a server that searches instead (see `client`)
    dialect    of that server: "queries", Search-R1's own, or "query", that of SkyRL and verl-agent
    topk       passages for a query
    protocol   actions and texts of "search_r1" or of "verl_agent" (see `moves`)
    reward     "em", 1 for an exact match; "f1", over words; or "format", Search-R1's mixture
    words      most words of passages that are shown after a search

    Raises ValueError for numbers out of range and for settings that exclude each other.
    """

    data: str | Path | None = None
    corpus: str | Path | None = None
    families: Sequence[str] = ()
    size: Size = "full"
    passages: int | None = None
    seed: int = 0
    train: int = 2000
    dev: int = 300
    test: int = 300
    retriever: Engine = "bm25s"
    index: str | Path | None = None
    encoder: str = ""
    url: str = ""
    dialect: Dialect = "queries"
    topk: int = TOP
    protocol: Protocol = "search_r1"
    reward: Reward = "em"
    words: int | None = None

    def __post_init__(self) -> None:
        forget_changed()
        object.__setattr__(self, "families", tuple(self.families))
        for name in ("train", "dev", "test"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: there cannot be fewer than 0.")
        for name in ("topk", "words"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: it must be at least 1.")
        if self.passages is not None and self.passages < FEWEST:
            raise ValueError(f"passages = {self.passages}: there must be at least {FEWEST}.")
        if len(set(self.families)) < len(self.families):
            raise ValueError("families names one of them twice.")
        if self.url and (self.corpus or self.index):
            raise ValueError("url names a server that has passages; leave corpus and index out.")
        if self.data is None:
            unknown = [f for f in self.families if f not in generate.FAMILIES]
            if unknown:
                known = ", ".join(generate.FAMILIES)
                raise ValueError(f"There is no family {unknown[0]!r}; the families are {known}.")
            if self.corpus:
                raise ValueError("corpus holds passages, but there are no questions: set data.")
        elif not self.corpus and not self.url:
            if not Path(str(self.data)).expanduser().exists():
                raise ValueError(
                    f"data = {str(self.data)!r}: there is no such file or folder; and beside "
                    "questions, set corpus to a file of passages, or url."
                )
            raise ValueError("data holds questions; set corpus to a file of passages, or url.")

    # -- tasks

    def prefix(self) -> str:
        """What the ids of all tasks begin with."""
        if self.data is not None:
            return "search_qa"
        return f"search_qa/{self.size}-{self._count()}-{self.seed}"

    def task(self, family: str, split: str, number: int, *, seed: int | None = None) -> Task:
        return Task(
            id=f"{self.prefix()}/{family}/{split}/{number:07d}",
            family=family,
            seed=number if seed is None else seed,
            data={"split": split},
        )

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        if self.data is not None:
            return LazyTasks(split, len(self.loaded(split)), SearchQA._loaded_task, (self, split))
        families, wanted = self.families or generate.FAMILIES, int(getattr(self, split))
        least = min(len(self._specs(family, split)) for family in families)
        if wanted > least * len(families):
            raise ValueError(
                f"{split} = {wanted}: there are only {least * len(families)} different questions; "
                "ask for fewer, or for more passages."
            )
        return LazyTasks(split, wanted, SearchQA._generated_task, (self, split))

    def _generated_task(self, split: str, index: int) -> Task:
        """Our own questions, the families taking turns."""
        families = self.families or generate.FAMILIES
        number, at = divmod(index, len(families))
        return self.task(families[at], split, number)

    def _loaded_task(self, split: str, index: int) -> Task:
        """The questions of local files, the data sets taking turns."""
        asked = self.loaded(split)[index]
        return self.task(asked.source, split, asked.number, seed=index)

    def _count(self) -> int:
        return PASSAGES[self.size] if self.passages is None else self.passages

    def _specs(self, family: str, split: str) -> Sequence[generate.Spec]:
        return generate.specs(family, split, self.size, self._count(), self.seed)

    def loaded(self, split: str) -> Sequence[Question]:
        """The questions of the files of a split."""
        return questions.load(str(self.data), split, tuple(self.families))

    def question(self, task: Task) -> Question:
        """What a task asks. Raises ValueError for a task of another suite."""
        split, family = task.data.get("split", ""), task.family
        if split in SPLITS and self.data is not None:
            asked = self.loaded(split)
            if 0 <= task.seed < len(asked):
                found = asked[task.seed]
                if task == self.task(found.source, split, found.number, seed=task.seed):
                    return found
        elif split in SPLITS and family in generate.FAMILIES:
            known = 0 <= task.seed < len(self._specs(family, split))
            if known and task == self.task(family, split, task.seed):
                return generate.question(
                    family, split, task.seed, self.size, self._count(), self.seed
                )
        raise ValueError(
            f"The task {task.id!r} is not one of these questions, whose tasks are named "
            f"{self.prefix()}/...: take one from tasks(split)."
        )

    # -- play

    def library(self) -> Library:
        """The retriever, created once per process."""
        if self.url:
            return _remote(self.url, self.dialect, self.topk)
        own = None if self.data is not None else (self.size, self._count(), self.seed)
        corpus, index = (None if p is None else str(p) for p in (self.corpus, self.index))
        return _local(own, corpus, self.retriever, index, self.encoder, self.topk)

    def identity(self) -> str:
        """The corpus; passages of the generated one are identified by the ids of its tasks."""
        if self.data is None or self.url:
            return self.url
        path = Path(str(self.corpus)).expanduser()
        return f"{path.name}-{path.stat().st_size}" if path.is_file() else path.name

    def make(self) -> SearchQAEnv:
        rules = Rules(self.protocol, self.reward, self.words)
        return SearchQAEnv(self.question, self.library, rules)

    def describe(self, task: Task) -> str:
        return self.question(task).text

    def answer(self, task: Task) -> str:
        return self.question(task).golds[0]

    def demonstrate(self, task: Task) -> Sequence[str]:
        return [move.action for move in self._demonstration(task)]

    def thoughts(self, task: Task) -> Sequence[str]:
        return [move.thought for move in self._demonstration(task)]

    def _demonstration(self, task: Task) -> Sequence[expert.Move]:
        library, rules = self.library(), Rules(self.protocol, self.reward, self.words)

        def search(query: str) -> Sequence[tuple[str, str]]:
            shown = wording.information(library.find(query), rules.protocol, rules.words)
            return wording.results(shown) or []

        reader = expert.Reader(search)
        reader.answer(self.question(task).text)
        return reader.moves

    def plan(self, task: Task) -> Sequence[str]:
        return expert.plan(self.question(task))

    def renders(self) -> Mapping[str, Render]:
        return {"compact": compact}

    def instructions(self) -> str:
        return wording.INSTRUCTIONS

    def with_tools(self) -> SearchQACalls:
        return SearchQACalls(self)

    def action_tags(self) -> Sequence[str]:
        return moves.SEARCH, moves.ANSWER


@lru_cache(maxsize=4)
def _remote(url: str, dialect: Dialect, k: int) -> Library:
    from tutelage_worlds.search_qa.client import Remote

    return Library(Remote(url, dialect=dialect), k)


@read_once(4)
def _local(
    own: tuple[Size, int, int] | None,
    corpus: str | None,
    engine: Engine,
    index: str | None,
    encoder: str,
    k: int,
) -> Library:
    passages: Corpus
    passages = world(*own).passages if own else load(Path(corpus or "").expanduser())
    if index is None:
        return Library(build(passages, engine, encoder=encoder), k)
    return Library(_opened(passages, engine, Path(index).expanduser()), k)


def _opened(corpus: Corpus, engine: Engine, folder: Path) -> Local:
    passages = opened(corpus, folder)
    if passages.engine != engine:
        raise ConfigError(
            f"env.options.index = {folder} was built for the retriever {passages.engine!r}; set "
            f"env.options.retriever to it, or build one for {engine!r}"
        )
    return passages


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """The package of the retriever, unless it is our own or a server; the user's files."""
    retriever = "" if options.get("url") else options.get("retriever", "bm25s")
    for name, distribution, extra, what in _PACKAGES:
        use = f'for retriever = "{name}": {what}'
        yield requirements.package(distribution, extra, required=retriever == name, use=use)
    table = str(options.get("corpus", "")).endswith(".parquet") or _tables(options.get("data"))
    yield requirements.package("pyarrow", "parquet", required=table, use="for Parquet files")
    for option in ("data", "corpus", "index"):
        if options.get(option):
            yield requirements.file(option, options[option], GET)
    if not options.get("data"):
        yield requirements.official("data", GET)


def _tables(data: object) -> bool:
    """Whether questions lie in Parquet files, in their folder or in those of data sets."""
    folder = Path(str(data or "")).expanduser()
    return bool(data) and any(any(folder.glob(each)) for each in ("*.parquet", "*/*.parquet"))
