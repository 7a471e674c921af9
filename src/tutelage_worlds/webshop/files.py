"""WebShop's own files: find, read incrementally, and write them.

A folder holds `items_shuffle.json` or `items_shuffle_1000.json`, attributes in `items_ins_v2.json`
or `items_ins_v2_1000.json`, and `items_human_ins.json` where goals are those of people.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tutelage_worlds.json_text import parse, whole
from tutelage_worlds.webshop.product import CatalogueError, Goals
from tutelage_worlds.webshop.shop import Source

ITEMS: Final = ("items_shuffle.json", "items_shuffle_1000.json")
HUMANS: Final = "items_human_ins.json"
CHUNK: Final = 1 << 20
LONGEST: Final = 1 << 26
"""Characters of an entry; what is longer is the rest of a damaged file."""
IN_MEMORY: Final = 400_000_000
"""Bytes of items that are still taken into memory; a shop of more is to be built in a folder."""

_BETWEEN: Final = re.compile(r"[\s,]*")


def source(data: Path, *, goals: Goals, products: int | None = None) -> Source:
    """What WebShop's files sell: `data` is their folder, or the file of items in it.

    products  how many entries of the file count, from its beginning
    """
    items = _items(data)
    suffix = items.stem.removeprefix("items_shuffle")
    attributes = _object(items.with_name(f"items_ins_v2{suffix}.json"))
    humans = _object(items.with_name(HUMANS)) if goals == "human" else {}

    def entries() -> Iterator[tuple[object, str]]:
        for place, entry in enumerate(islice(stream(items), products)):
            yield entry, f"{items.name}, entry {place}"

    name = f"{items.stem}-{products}" if products is not None else items.stem
    return Source(name=name, products=entries, attributes=attributes, humans=humans)


def _items(data: Path) -> Path:
    if data.is_file():
        return data
    if not data.is_dir():
        raise CatalogueError(
            f"there is no folder {data}; give the folder of WebShop's files, which hold "
            f"{ITEMS[0]} or {ITEMS[1]}, or leave data out for the products that come with this"
        )
    found = [data / name for name in ITEMS if (data / name).is_file()]
    if not found:
        raise CatalogueError(
            f"{data} holds neither {ITEMS[0]} nor {ITEMS[1]}; download them as WebShop's setup.sh "
            "says, or leave data out for the products that come with this"
        )
    if len(found) > 1:
        raise CatalogueError(f"{data} holds both {ITEMS[0]} and {ITEMS[1]}; name the one to take")
    return found[0]


def too_large(data: Path) -> bool:
    """Whether a shop should be built in a folder instead of in memory."""
    return _items(data).stat().st_size > IN_MEMORY


def _object(path: Path) -> Mapping[str, object]:
    try:
        value = parse(path.read_bytes())
    except FileNotFoundError:
        raise CatalogueError(
            f"there is no {path.name} beside the items in {path.parent}; download it as WebShop's "
            'setup.sh says (without instructions of people, set goals = "synthetic")'
        ) from None
    except (OSError, ValueError) as error:
        raise _not_json(path, error) from None
    if not isinstance(value, dict):
        raise CatalogueError(f"{path} must hold an object whose keys are asins")
    return value


def _not_json(path: Path, error: object) -> CatalogueError:
    return CatalogueError(f"{path} is not JSON that can be read ({error}); download it again")


def stream(path: Path) -> Iterator[Any]:
    """The entries of a file that is one JSON list, without reading it whole."""
    decode = json.JSONDecoder().raw_decode
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(CHUNK).lstrip()
            if not text.startswith("["):
                raise CatalogueError(f"{path} must hold a list of products")
            at = 1
            while True:
                at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
                if text.startswith("]", at):
                    return
                try:
                    entry, end = decode(text, at)
                except RecursionError:
                    raise _not_json(path, "it is nested too deeply") from None
                except ValueError as error:
                    more = file.read(max(CHUNK, len(text) - at))
                    if not more or len(text) - at > LONGEST:
                        raise _not_json(path, error) from None
                    text, at = text[at:] + more, 0
                    continue
                yield whole(entry, text[at:end])
                at = end
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path} cannot be read ({error})") from None


def write(
    folder: Path,
    products: Iterable[object],
    attributes: Mapping[str, object],
    humans: Mapping[str, object],
) -> None:
    """Write files in WebShop's format."""
    for name, content in (
        (ITEMS[0], list(products)),
        ("items_ins_v2.json", attributes),
        (HUMANS, humans),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
