"""Build a shop in a folder once, for many runs and processes.

python -m tutelage_worlds.webshop DATA FOLDER [--goals human] [--seed 0] [--products N]

DATA is the folder of WebShop's files. Products are read one by one: the full catalogue of 1.18
million takes minutes and about 4 GB of memory. Set env.options.data to FOLDER afterwards.
"""

import argparse
import logging
import os
import shutil
from pathlib import Path
from typing import get_args

from tutelage_worlds.command import run
from tutelage_worlds.webshop import files, shop
from tutelage_worlds.webshop.product import CatalogueError, Goals
from tutelage_worlds.webshop.storage import Folder


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tutelage_worlds.webshop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--goals", choices=get_args(Goals), default="human")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--products", type=int, help="use only the first N products")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    run(parser, lambda: _build(given))


def _build(given: argparse.Namespace) -> None:
    if given.products is not None and given.products < 0:
        raise CatalogueError(f"--products must not be below 0, got {given.products}")
    shop = build(
        given.data, given.folder, goals=given.goals, seed=given.seed, products=given.products
    )
    logging.info("%s: %d products, %d goals", given.folder, len(shop.products), len(shop))


def build(data: Path, folder: Path, *, goals: Goals, seed: int, products: int | None) -> shop.Shop:
    """Build a shop beside its folder, which appears when it is whole."""
    if folder.exists():
        raise CatalogueError(f"{folder} is there already; remove it, or name another folder")
    source = files.source(data, goals=goals, products=products)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        shop.build(source, Folder(partial), goals=goals, seed=seed)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return shop.built(folder)


if __name__ == "__main__":
    main()
