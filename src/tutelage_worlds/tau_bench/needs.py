"""What tau_bench wants from the machine."""

from collections.abc import Iterator, Mapping
from typing import Final

from tutelage.envs.requirements import Need, file, official, variable

GET: Final = "git clone https://github.com/sierra-research/tau-bench"


def needs(options: Mapping[str, object]) -> Iterator[Need]:
    """Nothing, unless the original's own tasks are to be played, or a server plays the customer."""
    if options.get("data"):
        yield file("data", options["data"], GET)
    else:
        yield official("data", GET)
    user = options.get("user_options")
    key = user.get("key_variable") if isinstance(user, Mapping) else ""
    if key:
        yield variable(str(key), f"export {key}=KEY, the one of the customer's server")
