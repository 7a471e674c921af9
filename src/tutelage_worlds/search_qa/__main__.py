"""Commands of search_qa: build an index, serve it, or write generated questions and passages.

python -m tutelage_worlds.search_qa index CORPUS FOLDER [--retriever bm25s] [--encoder ENCODER]
python -m tutelage_worlds.search_qa serve [CORPUS] [--index FOLDER] [--retriever bm25s]
python -m tutelage_worlds.search_qa write FOLDER [--passages 2400] [--seed 0]

`index` builds an index once for many runs: set env.options.index to FOLDER. `serve` answers the
clients of Search-R1 and SkyRL on POST /retrieve; without CORPUS it serves the generated one. `write`
writes the generated corpus and questions: corpus.jsonl, train.jsonl, dev.jsonl and test.jsonl.
"""

import argparse
import json
import logging
import os
import shutil
from pathlib import Path

from tutelage.errors import ConfigError
from tutelage_worlds.command import run
from tutelage_worlds.search_qa.passages import Corpus, each, load
from tutelage_worlds.search_qa.passages import write as write_passages
from tutelage_worlds.search_qa.questions import SPLITS
from tutelage_worlds.search_qa.retrieval import DENSE, ENGINES, TOP, Local, build, opened
from tutelage_worlds.search_qa.rows import DataError
from tutelage_worlds.search_qa.server import PORT, Server
from tutelage_worlds.search_qa.suite import SearchQA
from tutelage_worlds.search_qa.world import PASSAGES, world

LOG = logging.getLogger(__name__)
LAST_PORT = 65_535


def main(arguments: list[str] | None = None) -> None:
    parser = _parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    run(parser, lambda: given.run(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tutelage_worlds.search_qa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    index = commands.add_parser("index", help="build an index of a corpus in a folder")
    index.add_argument("corpus", type=Path)
    index.add_argument("folder", type=Path)
    index.set_defaults(run=_index)
    serve = commands.add_parser("serve", help="answer searches over HTTP")
    serve.add_argument("corpus", type=Path, nargs="?")
    serve.add_argument("--index", type=Path, help="a folder that `index` made")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=PORT)
    serve.add_argument("--topk", type=int, default=TOP, help="where a request does not say")
    serve.set_defaults(run=_serve)
    for command in (index, serve):
        command.add_argument("--retriever", choices=ENGINES, default="bm25s")
        command.add_argument("--encoder", default="", help="for faiss and usearch")
    write = commands.add_parser("write", help="write our own world as files")
    write.add_argument("folder", type=Path)
    write.add_argument("--passages", type=int, default=PASSAGES["full"])
    write.add_argument("--seed", type=int, default=0)
    write.set_defaults(run=_write)
    return parser


def _index(given: argparse.Namespace) -> None:
    _check_encoder(given)
    corpus = load(given.corpus)
    index_folder(corpus, given.folder, given.retriever, given.encoder)
    LOG.info("%s: %d passages of %s", given.folder, len(corpus), given.corpus)


def index_folder(corpus: Corpus, folder: Path, engine: str, encoder: str = "") -> None:
    """Build an index beside its folder, which appears when it is whole."""
    if folder.exists():
        raise DataError(f"{folder} is there already; remove it, or name another folder")
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        build(corpus, engine, encoder=encoder, folder=partial)  # type: ignore[arg-type]
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def served(given: argparse.Namespace) -> Local:
    """The retriever that a command line asks for."""
    if given.corpus is None:
        return build(_own(), given.retriever, encoder=given.encoder)
    corpus = load(given.corpus)
    if given.index is not None:
        return opened(corpus, given.index)
    return build(corpus, given.retriever, encoder=given.encoder)


def _check_encoder(given: argparse.Namespace) -> None:
    if given.encoder and given.retriever not in DENSE:
        raise ConfigError(
            f"--encoder makes vectors, and the retriever {given.retriever!r} searches by words; "
            f"leave it out, or set --retriever to {' or '.join(DENSE)}"
        )


def _own() -> Corpus:
    return world("full", PASSAGES["full"], 0).passages


def _serve(given: argparse.Namespace) -> None:
    _check_encoder(given)
    if not 0 <= given.port <= LAST_PORT:
        raise ConfigError(f"--port must be from 0 (any that is free) to {LAST_PORT}")
    if given.topk < 1:
        raise ConfigError(f"--topk must be at least 1, got {given.topk}")
    retriever = served(given)
    try:
        server = Server(retriever, host=given.host, port=given.port, k=given.topk)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {given.host} with port {given.port} ({error}); give another --port, "
            "0 for any that is free, or an address of this machine as --host"
        ) from error
    LOG.info("%s: %d passages, %s", server.address, len(retriever.corpus), retriever.engine)
    with server.socket:
        server.serve_forever()


def _write(given: argparse.Namespace) -> None:
    try:
        suite = SearchQA(passages=given.passages, seed=given.seed)
        tasks = {split: suite.tasks(split) for split in SPLITS}
    except ValueError as error:
        raise ConfigError(f"--passages {given.passages} cannot be written: {error}") from error
    for name in ("corpus.jsonl", *(f"{split}.jsonl" for split in SPLITS)):
        if (given.folder / name).exists():
            raise DataError(
                f"{given.folder / name} is there already; remove it, or name another folder"
            )
    given.folder.mkdir(parents=True, exist_ok=True)
    passages = world("full", given.passages, given.seed).passages
    write_passages(given.folder / "corpus.jsonl", each(passages))
    for split in SPLITS:
        with (given.folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for task in tasks[split]:
                asked = suite.question(task)
                row = {
                    "id": f"{asked.source}_{asked.number}",
                    "question": asked.text,
                    "golden_answers": list(asked.golds),
                    "data_source": asked.source,
                    "metadata": {"supporting_facts": {"title": list(asked.titles)}},
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    LOG.info("%s: %d passages, and questions for %s", given.folder, len(passages), SPLITS)


if __name__ == "__main__":
    main()
