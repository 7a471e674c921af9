"""Validate the tasks that users' suites list: a run writes each into its files, and finds its
episodes by their ids."""

import json
from collections.abc import Mapping

from tutelage.types import Task


def checked(value: object, what: str) -> Task:
    """A task that can be sent, logged and read back.

    what  the beginning of an error message, such as "task 3"

    Raises TypeError or ValueError that say what is wrong.
    """
    if not isinstance(value, Task):
        raise TypeError(f"{what} is {type(value).__name__}; it must be a Task")
    if not isinstance(value.id, str) or not value.id:
        raise ValueError(f"{what} has the id {value.id!r:.80}; it must be a string, and not empty")
    for name, kind in (("family", str), ("seed", int), ("data", Mapping)):
        found = getattr(value, name)
        if not isinstance(found, kind):
            raise TypeError(
                f"{what} has a {name} that is {type(found).__name__}; it must be {kind.__name__}"
            )
    try:
        line = [value.id, value.family, value.seed, dict(value.data)]
        json.dumps(line, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"{what} cannot be written as JSON ({str(error)[:200]}); let its id and its family be "
            "text in UTF-8, and its data strings by name"
        ) from None
    return value
