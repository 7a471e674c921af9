"""Start a JVM and call into it by py4j's text protocol, with a deadline for each call.

py4j's own client frees objects from whatever thread collects garbage, has no timeouts, and tells
the log of every call that finds its machine gone. Here objects are freed when that is said, and a
machine that died or hangs is one exception.
"""

import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tutelage.envs.requirements import java_command
from tutelage.errors import ConfigError, EnvError

START_SECONDS: Final = 180.0
"""That a machine may take until it answers, on a computer that is busy with other things."""


class Ref(str):
    """The name of an object that the machine keeps for us until it is dropped."""


Value = str | float | bool | None
"""What a call gives back; the name of an object is a `Ref`."""


class Gone(EnvError):
    """The machine died or ran out of memory; nothing that was in it can be used."""


class Late(Gone):
    """The machine missed its deadline, and was ended."""


class Thrown(EnvError):
    """A call raised an exception in Java."""


def program(suite: str = "scienceworld") -> str:
    """The Java to be used. Raises ConfigError, in the name of a suite, where there is none."""
    home = os.environ.get("JAVA_HOME")
    found = java_command()
    if found is None:
        where = f"in JAVA_HOME = {home}" if home else "on the PATH"
        raise ConfigError(
            f"{suite} runs in Java, and there is none {where}: install Java 11 or newer, such "
            "as openjdk-17-jre-headless"
        )
    return found


class Java:
    """A machine that ends when this process does.

    options   of the machine, such as "-Xmx512m"
    classes   files and folders of classes, the first of which are taken; among them py4j's
    folder    in which it runs
    deadline  seconds that a call may take
    suite     whose machine it is, for messages

    Raises ConfigError where it does not start. Ctrl-C does not reach it.
    """

    def __init__(
        self,
        options: Sequence[str],
        classes: Sequence[Path],
        folder: Path,
        deadline: float,
        suite: str = "scienceworld",
    ) -> None:
        self._owner, self._deadline, self._suite = os.getpid(), deadline, suite
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the machine)
        server = ("py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0")
        self.process = subprocess.Popen(
            [program(suite), *options, "-classpath", os.pathsep.join(map(str, classes)), *server],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        port, token = self._line(), self._line()
        if not port.isdigit():
            reason = self._last_words()
            self._free()
            raise ConfigError(f"Java did not start ({reason}); {suite} needs Java 11 or newer")
        try:
            self._socket = socket.create_connection(("127.0.0.1", int(port)), timeout=deadline)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answers = self._socket.makefile("rb")
            self._ask("A", token, end=False)
        except EnvError:
            self._free()
            raise
        except OSError as error:
            self._free()
            raise ConfigError(
                f"Java started and cannot be asked ({error}); {suite} speaks with it over "
                f"127.0.0.1, port {port}, which must not be blocked"
            ) from None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def call(self, target: str, method: str, *arguments: str | int) -> Value:
        """Call a method of an object, or of a class: the name of one has `z:` before it.

        Raises Thrown for an exception in Java; Gone or Late.
        """
        return self._ask("c", target, method, *map(_part, arguments))

    def new(self, kind: str, *arguments: str | int) -> Ref:
        """An object of a class."""
        return ref(self._ask("i", kind, *map(_part, arguments)))

    def static(self, kind: str, field: str) -> Ref:
        """The object in a static field of a class."""
        return ref(self._ask("r", "m", kind, field))

    def drop(self, *objects: Ref) -> None:
        """The machine need not keep these any longer."""
        for each in objects:
            self._ask("m", "d", each)

    def end(self) -> None:
        """At once. In a process that was forked from the one it belongs to, only let go of it."""
        if os.getpid() == self._owner:
            self._free()

    # -- how it is done

    def _ask(self, *lines: str, end: bool = True) -> Value:
        message = "\n".join((*lines, "e", "") if end else (*lines, ""))
        try:
            self._socket.sendall(message.encode(errors="replace"))
            answer = self._answers.readline()
        except TimeoutError:
            self.end()
            raise Late(f"{self._suite} gave no answer within {self._deadline:g} s") from None
        except (OSError, ValueError):
            raise self._gone() from None
        if not answer.endswith(b"\n"):
            raise self._gone()
        reply = answer.decode(errors="replace")[:-1]
        if reply.startswith("!y"):
            return _value(reply[2:])
        raise self._thrown(_value(reply[2:]))

    def _thrown(self, what: Value) -> EnvError:
        if isinstance(what, Ref):
            thrown, what = what, self.call(what, "toString")
            self.drop(thrown)
        first = str(what).strip().partition("\n")[0]
        return Gone(first) if "OutOfMemoryError" in first else Thrown(first)

    def _gone(self) -> Gone:
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return Gone(f"the Java machine died ({self._last_words()})")

    def _line(self) -> str:
        """A line of what the machine writes; empty where there is none in time."""
        assert self.process.stdout is not None
        line, last = b"", time.monotonic() + START_SECONDS
        while not line.endswith(b"\n"):
            patience = max(0.0, last - time.monotonic())
            if not select.select([self.process.stdout], [], [], patience)[0]:
                return ""
            letter = os.read(self.process.stdout.fileno(), 1)
            if not letter:
                return ""
            line += letter
        return line.decode().strip()

    def _last_words(self) -> str:
        """Its error output."""
        if self._errors.closed:
            return "it was ended"
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip().partition("\n")[0]
        code = self.process.poll()
        return text or ("no answer" if code is None else f"exit code {code}")

    def _free(self) -> None:
        self.process.kill()
        self.process.wait()
        for name in ("_answers", "_socket"):
            if (connection := getattr(self, name, None)) is not None:
                connection.close()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            assert stream is not None
            stream.close()


def ref(value: Value) -> Ref:
    """An answer that must be an object."""
    if not isinstance(value, Ref):
        raise Thrown(f"an object was expected, and {value!r} came")
    return value


def _part(value: str | int) -> str:
    if isinstance(value, Ref):
        return f"r{value}"
    if isinstance(value, bool):
        return f"b{str(value).lower()}"
    if isinstance(value, int):
        return f"i{value}" if -(2**31) <= value < 2**31 else f"L{value}"
    return "s" + value.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")


def _value(answer: str) -> Value:
    """An answer without its first two letters, which say whether there was an exception.

    >>> _value("sa\\\\nb"), _value("i7"), _value("btrue"), _value("ro12")
    ('a\\nb', 7, True, 'o12')
    """
    kind, rest = answer[:1], answer[1:]
    if kind == "s":
        parts = rest.split("\\\\")
        return "\\".join(part.replace("\\r", "\r").replace("\\n", "\n") for part in parts)
    if kind in ("i", "L"):
        return int(rest)
    if kind == "d":
        return float(rest)
    if kind == "b":
        return rest == "true"
    return None if kind in ("", "v", "n") else Ref(rest)
