"""Index the flights of TravelPlanner's database once, for many runs.

python -m tutelage_worlds.travelplanner FOLDER

FOLDER holds flights/clean_Flights_2022.csv.
"""

import argparse
import logging
from pathlib import Path

from tutelage.errors import EnvError
from tutelage_worlds.command import run
from tutelage_worlds.travelplanner.database import PATHS, index
from tutelage_worlds.travelplanner.tables import Flight


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tutelage_worlds.travelplanner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    run(parser, lambda: _index(folder))


def _index(folder: Path) -> None:
    if not (folder / PATHS[Flight]).is_file():
        raise EnvError(f"there is no {PATHS[Flight]} in {folder}; name the database's folder")
    logging.info("%s: %d flights", folder, index(folder))


if __name__ == "__main__":
    main()
