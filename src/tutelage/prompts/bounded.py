"""Render a foreign chat template within limits of time and memory."""

import contextlib
import ctypes
import re
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

T = TypeVar("T")
SECONDS = 10.0
"""A thousand times what the slowest known template takes."""
BYTES = 512 << 20
"""By which the process may grow meanwhile."""
PATIENCE = 30
"""Times that long on the clock, on a machine that is busy with something else."""
END_SECONDS = 60.0
"""In which a call that is ended must have ended; one that has not is left behind."""
TICK = 0.05
AGAIN = 0.5
"""Seconds to wait for a call that is ended before it is ended again."""


class _Ended(BaseException):
    """Raised inside the call, where no template can catch it."""


class TooMuch(Exception):
    """The call was ended; the text says why."""


MOST_REPEATED = 1_000_000
"""Times that a template may repeat a text or a list, and characters to which it may fill one up."""
FILLERS = ("center", "indent", "ljust", "rjust", "zfill", "wordwrap", "truncate", "expandtabs")
WIDE = re.compile(r"[%{][^a-zA-Z]*\d{7,}")
"""Of a format that fills a text up to millions of characters."""


@lru_cache(maxsize=256)
def check_operations(template: str) -> None:
    """Raise TooMuch for a single operation that would hold the processor or the memory for longer
    than a watching thread could wait: nothing else runs until it is done, and constants are
    calculated when the template is compiled. No template that shows messages has powers."""
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        # it only parses: nothing is calculated yet
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_plain_tags(template))
    except (TemplateSyntaxError, RecursionError):
        return  # said where it is compiled
    if next(tree.find_all(nodes.Pow), None) is not None:
        raise TooMuch("it raises numbers to powers")
    for product in tree.find_all(nodes.Mul):
        sizes = [_constant(side) for side in (product.left, product.right)]
        if any(isinstance(n, int) and n > MOST_REPEATED for n in sizes):
            raise TooMuch("it repeats something millions of times")
    calls: list[Any] = [*tree.find_all(nodes.Filter), *tree.find_all(nodes.Call)]
    for call in calls:
        name = call.name if isinstance(call, nodes.Filter) else getattr(call.node, "attr", "")
        widths = [_constant(argument) for argument in call.args]
        if name in FILLERS and any(isinstance(n, int) and n > MOST_REPEATED for n in widths):
            raise TooMuch("it fills a text up to millions of characters")
    for constant in tree.find_all(nodes.Const):
        if isinstance(constant.value, str) and WIDE.search(constant.value):
            raise TooMuch("it formats a text to millions of characters")


def _plain_tags(template: str) -> str:
    """The template without the tag that only transformers knows."""
    return re.sub(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}", "", template)


def _constant(node: Any) -> object:
    """The number that an expression always is; None for another one."""
    from jinja2 import nodes

    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Mul | nodes.Add):
        parts = _constant(node.left), _constant(node.right)
        if all(isinstance(n, int) and abs(n) < 10**18 for n in parts):
            left, right = parts
            return left * right if isinstance(node, nodes.Mul) else left + right  # type: ignore[operator]
    return None


def bounded(call: Callable[[], T], *, seconds: float = SECONDS, size: int = BYTES) -> T:
    """What a call returns, in a thread of its own. Raises what it raises, and TooMuch where it takes
    more than `seconds` of the processor, or the process `size` bytes more than it ever took."""
    results, errors, over = list[T](), list[BaseException](), threading.Event()

    def run() -> None:
        try:
            results.append(call())
        except _Ended:
            pass
        except BaseException as error:
            errors.append(error)
        over.set()

    def quietly() -> None:
        with contextlib.suppress(_Ended):  # a second one, which was on its way
            run()
        over.set()

    thread = threading.Thread(target=quietly, daemon=True)
    # of the processor, since a busy machine may give none to a template for seconds
    before, began, since = _peak(), time.process_time(), time.monotonic()
    thread.start()
    why = ""
    while not why:
        thread.join(TICK)
        if not thread.is_alive():
            break
        # Nothing here gives the interpreter away but `join`: each time, the other thread runs an
        # operation to its end, which may take seconds where numbers grow.
        if time.process_time() - began > seconds or time.monotonic() - since > PATIENCE * seconds:
            why = f"it was not done after {seconds:g} s"
        elif _peak() - before > size:
            why = f"it took more than {size >> 20} MB"
    # Again and again: an exception that arrives in a finaliser or a callback of the garbage
    # collector is printed or dropped, and the call goes on.
    until = time.monotonic() + END_SECONDS
    while why and not over.is_set() and time.monotonic() < until:
        target, error = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Ended)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(target, error)
        over.wait(AGAIN)
    if why:
        raise TooMuch(why)
    if errors:
        raise errors[0]
    return results[0]


def _peak() -> int:
    """Bytes of memory that the process held at most; 0 where the system does not say."""
    if resource is None:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
