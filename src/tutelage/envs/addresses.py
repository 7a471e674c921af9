"""Addresses and keys of servers: checked once, before anything is sent, and never shown."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from tutelage.errors import ConfigError

SHORTEST = 8
"""Characters of a key from which on it is taken out of whole answers: a shorter one may be a word."""
HIDDEN = "***"


class Address(NamedTuple):
    """Where a server is. `shown` holds nothing that could be secret."""

    secure: bool
    host: str
    port: int | None
    path: str
    shown: str


def address(url: str, *, where: str) -> Address:
    """The parts of a server's address. Raises ConfigError, which shows no more of it than its host:
    other parts may hold a key."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise ConfigError(f"{where} is not the address of a server ({_reason(error)})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(
            f'{where} is not the address of a server; write it as "http://127.0.0.1:8000"'
        )
    shown = f"{parts.scheme}://{_bracketed(host)}{f':{port}' if port is not None else ''}"
    problem = _problem(parts)
    if problem:
        raise ConfigError(f"{where}, at {shown}, {problem}")
    return Address(parts.scheme == "https", host, port, parts.path, shown + _harmless(parts.path))


PLAIN = re.compile(r"[A-Za-z]{0,12}|v\d{1,2}")
"""Of a part of a path that is a word or a version, and no key."""


def _harmless(path: str) -> str:
    return "/".join(part if PLAIN.fullmatch(part) else HIDDEN for part in path.split("/"))


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeError):
        return "its host is not a name that a machine can have"
    # Python's words hold what stands in the place of the port or the host
    return "its port is no number from 0 to 65535" if "ort" in str(error) else "its host is not one"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _problem(parts: SplitResult) -> str:
    if parts.username is not None or parts.password is not None:
        return (
            "holds a user's name or a password, which would be written into every log; put it into "
            "an environment variable and name that as the key"
        )
    if parts.query or parts.fragment:
        return "goes on after its path; leave that out (a key belongs in an environment variable)"
    if not parts.path.isascii() or any(c <= " " for c in parts.path):
        return "has a path that cannot be sent; write its characters percent-encoded"
    return ""


def key_in(variable: str, *, where: str, environment: Mapping[str, str] = os.environ) -> str:
    """The key that an environment variable holds, without spaces and line ends around it; "" for no
    variable. Raises ConfigError. Neither the key nor the variable's name is shown: people put the
    key itself in the name's place."""
    if not variable:
        return ""
    try:
        found = environment.get(variable)
    except (ValueError, UnicodeError):
        found = None
    if found is None:
        raise ConfigError(
            f"{where} names an environment variable that is not set; write the name of the "
            "variable there, not the key itself, and set it to the server's key"
        )
    key = found.strip()
    if not key:
        raise ConfigError(f"{where} names an environment variable that is empty; set it to the key")
    if not all("!" <= c <= "~" for c in key):
        raise ConfigError(
            f"{where} names an environment variable whose value holds spaces, line ends or other "
            "characters that no key has; set it to the key alone"
        )
    return key


def without_key(text: str, key: str) -> str:
    """A server's words without the key, which some repeat."""
    return text.replace(key, HIDDEN) if key else text
