"""What travelplanner wants from the machine."""

from collections.abc import Iterator, Mapping
from typing import Final

from tutelage.envs.requirements import Need, file, official

GET: Final = "git clone https://github.com/OSU-NLP-Group/TravelPlanner"


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """Nothing, unless the original's own queries are to be played."""
    if options.get("data"):
        yield file("data", options["data"], GET)
    else:
        yield official("data", GET)
