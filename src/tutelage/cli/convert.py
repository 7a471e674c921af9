"""`tutelage convert`: recorded episodes in forms that other tools read, and theirs as episodes."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tutelage import __version__
from tutelage.config import json_text
from tutelage.config.plain_file import read_text
from tutelage.errors import RunError, TutelageError, first_line
from tutelage.rollout import formats, record
from tutelage.rollout.disk import move_to_new, refuse_existing, remove

EPISODES = "episodes.jsonl"


def convert(source: Path, out: Path, form: str, *, won: bool, tokenizer: str = "") -> int:
    """Write the episodes of a run or a file in another form; their number.

    form       "atif", "messages", "parquet" or "inspect"; "episodes" to read what others wrote
    won        leave out what was lost
    tokenizer  a model: conversations become episodes in its ids

    Raises RunError rather than overwrite a file, and for what cannot be read.
    """
    refuse_existing(out)
    path = source / EPISODES if source.is_dir() else source
    if not path.exists():
        raise RunError(f"{path} does not exist; give a run's folder or a file of episodes")
    lines = _read(path, form, tokenizer)
    chosen = (line for line in lines if not won or line["won"])
    # a name that nobody else has, also where the same is converted twice at the same time
    part = out.with_name(f".{out.stem}.draft-{os.getpid()}{out.suffix}")
    try:
        if form in ("parquet", "inspect"):
            from tutelage.rollout import tables

            write = tables.write_parquet if form == "parquet" else tables.write_inspect
            count = write(chosen, part, source=str(source))
        else:
            count = 0
            with part.open("w", encoding="utf-8") as file:
                for line in chosen:
                    file.write(record.dump(_written(line, form)) + "\n")
                    count += 1
        move_to_new(part, out)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror})") from error
    except (TutelageError, LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, TutelageError):
            raise RunError(f"{source}: {error}") from error
        raise RunError(
            f"{path} holds a line that is no episode ({type(error).__name__}: {first_line(error)}); "
            "give the folder of a run, or a file that `tutelage collect` wrote"
        ) from error
    finally:
        remove(part)
    return count


def _written(line: Mapping[str, Any], form: str) -> record.Line:
    try:
        if form == "atif":
            return formats.atif(line, version=__version__)
        return formats.messages(line) if form == "messages" else line
    except (KeyError, TypeError) as error:
        raise RunError(
            f"a line is no episode ({type(error).__name__}: {error}); give a file that "
            "`tutelage train` or `tutelage collect` wrote"
        ) from error


def _read(path: Path, form: str, tokenizer: str) -> Iterator[Mapping[str, Any]]:
    if form != "episodes":
        yield from record.read(path)
        return
    if path.suffix in (".parquet", ".eval"):
        from tutelage.rollout import tables

        read = tables.read_parquet if path.suffix == ".parquet" else tables.read_inspect
        yield from _talks(list(read(path)), path, tokenizer)
        return
    if path.suffix == ".json":  # one trajectory, over several lines
        try:
            trajectories = [json_text.table(read_text(path))]
        except ValueError as error:
            raise RunError(f"{path} is not JSON: {error}") from error
        for trajectory in trajectories:
            yield formats.from_atif(trajectory)
        return
    first = next(record.read(path), {})
    if "messages" in first:
        yield from _talks(None, path, tokenizer)
        return
    for trajectory in record.read(path):
        yield formats.from_atif(trajectory)


def _talks(
    lines: list[Mapping[str, Any]] | None, path: Path, tokenizer: str
) -> Iterator[Mapping[str, Any]]:
    """Conversations as episodes in the ids of a model's tokenizer."""
    from tutelage.envs.adapters.messages import conversation
    from tutelage.rollout.conversations import episode_lines

    if not tokenizer:
        raise RunError(
            f"{path} holds conversations, whose ids depend on a tokenizer; name the student's model "
            "with --tokenizer"
        )
    if lines is None:
        yield from episode_lines(path, _chat(tokenizer))
        return
    # the suite that plays them needs them as lines, so they are written beside
    beside = path.with_suffix(".messages.jsonl")
    if beside.exists():
        raise RunError(f"{beside} exists already; remove it, or convert that file")
    for k, line in enumerate(lines, 1):
        conversation(line, where=f"{path}, row {k}")
    with beside.open("x", encoding="utf-8") as file:
        for line in lines:
            file.write(record.dump(line) + "\n")
    print(f"the conversations are in {beside}, for the suite messages")
    yield from episode_lines(beside, _chat(tokenizer))


def _chat(model: str) -> Any:
    from transformers import AutoTokenizer

    from tutelage.prompts.chat_template import Chat
    from tutelage.runs import models

    models.quiet()
    folder = models.locate(model, where="--tokenizer")
    try:
        return Chat(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), "append")
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise RunError(f"the tokenizer of {model} could not be loaded ({reason})") from error
