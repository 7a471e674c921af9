"""What ScienceWorld wants from the machine."""

from collections.abc import Iterator, Mapping

from tutelage.envs.requirements import Need, java, package


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """Java, and the package in which the simulator comes."""
    yield java(11)
    yield package("scienceworld", "scienceworld")
