"""What the household wants from the machine."""

from collections.abc import Iterator, Mapping

from understudy.envs.needs import Need, file, package


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """Nothing, unless official games are to be played."""
    if options.get("games"):
        yield file("games", options["games"], "pip install alfworld && alfworld-download")
    yield package("textworld", "parity", wanted=False, use="to compare with TextWorld itself")
