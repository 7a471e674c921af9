"""What the requests to one server cost, a limit to it, and the answers that were paid for.

Prices are those of a million tokens, in any currency. Before a request is sent, the most that it can
cost is set aside: no token is shorter than a byte of the messages, and no more are written than were
asked for. With a limit, a request that could exceed it together with those under way is not sent.
Answers are kept in a folder, one file each, so that a run that is started again, continued or
repeated pays for nothing twice; what was spent is kept beside them.
"""

import hashlib
import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.config import json_text
from tutelage.errors import ConfigError, PolicyError

MILLION = 1e6
MESSAGE_TOKENS = 16
"""Tokens of a message besides its content, at most."""
OWN = ("price", "limit", "cache")
"""Options that are not sent to the server."""


@dataclass(slots=True, kw_only=True)
class Account:
    """name   of the policy in messages, such as "policies.teacher"
    price  of a million tokens that are read, and of a million that are written
    limit  the most that may be spent; infinity for none
    cache  the folder of the answers; None for none
    """

    name: str
    price: tuple[float, float] = (0.0, 0.0)
    limit: float = math.inf
    cache: Path | None = None
    requests: int = 0
    cached: int = 0
    read: int = 0
    written: int = 0
    spent: float = 0.0
    unread: int = 0  # answers whose log-probabilities cannot be read
    under_way: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.cache is None:
            return
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            if self._bill.exists():
                self.spent = float(json_text.table(self._bill.read_text())["spent"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"{self.name}.chat.options: cache = {str(self.cache)!r} cannot be used "
                f"({type(error).__name__}); name a folder that can be written, or another one"
            ) from error

    @property
    def _bill(self) -> Path:
        assert self.cache is not None
        return self.cache / "bill.json"

    def _file(self, key: str) -> Path:
        assert self.cache is not None
        return self.cache / f"{key}.json"

    def key(self, url: str, body: Mapping[str, Any], seed: int) -> str:
        """Of a request: the same draw of the same question has the same key, also where the server
        takes no seed."""
        text = json.dumps([url, body, seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def known(self, key: str) -> Any:
        """The answer to a request that was paid for before; None for others."""
        if self.cache is None or not self._file(key).is_file():
            return None
        try:
            answer = json_text.parse(self._file(key).read_text())
        except (OSError, ValueError):
            return None  # half a file, of a process that was killed: it is asked again
        self.cached += 1
        return answer

    @property
    def priced(self) -> bool:
        return any(self.price)

    def most(self, body: Mapping[str, Any], written: int) -> float:
        """The most that a request can cost."""
        texts = [str(message["content"]) for message in body["messages"]]
        size = sum(len(text.encode("utf-8", "replace")) + MESSAGE_TOKENS for text in texts)
        return (size * self.price[0] + written * self.price[1]) / MILLION

    def reserve(self, key: str, body: Mapping[str, Any], written: int) -> None:
        """Set aside what a request can cost. Raises PolicyError where that is above the limit."""
        most = self.most(body, written)
        with self.lock:
            if self.spent + sum(self.under_way.values()) + most > self.limit:
                raise PolicyError(
                    f"{self.name} has cost {self.spent:.4g}, and its next request may cost "
                    f"{most:.2g}, which exceeds its limit of {self.limit:g}; raise "
                    f"{self.name}.chat.options.limit and continue with --resume"
                )
            self.under_way[key] = most

    def settle(self, key: str, answer: Any = None) -> None:
        """Book a request's answer; None for one that failed."""
        with self.lock:
            if self.under_way.pop(key, None) is None or answer is None:
                return
            usage = answer.get("usage") or {}
            read, written = (_count(usage.get(n)) for n in ("prompt_tokens", "completion_tokens"))
            self.requests += 1
            self.read, self.written = self.read + read, self.written + written
            self.spent += (read * self.price[0] + written * self.price[1]) / MILLION
            if self.cache is not None:
                _write(self._file(key), answer)
                _write(self._bill, {"spent": self.spent})

    def numbers(self) -> dict[str, float]:
        """What was asked in this process, and spent in all."""
        return {
            "requests": self.requests,
            "cached": self.cached,
            "read": self.read,
            "written": self.written,
            "spent": self.spent,
            **({"unread": self.unread} if self.unread else {}),
        }


def _count(value: object) -> int:
    """A number of tokens that a server told; 0 where it is none."""
    number = isinstance(value, int) and not isinstance(value, bool)
    return max(0, value) if number else 0  # type: ignore[call-overload]


def _write(path: Path, value: object) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        draft.write_text(json.dumps(value))
        draft.replace(path)
    except OSError as error:
        raise PolicyError(
            f"{path.parent} could not be written ({error.strerror}); make room, then continue with "
            "--resume"
        ) from error


def account_of(options: Mapping[str, Any], *, where: str) -> Account:
    """An account by the options of a policy's [chat] section. Raises ConfigError for others."""
    prices = options.get("price", [0.0, 0.0])
    numbers = prices if isinstance(prices, list) else []
    if len(numbers) != 2 or not all(_is_amount(x) for x in numbers):
        raise ConfigError(
            f"{where}.chat.options.price is {prices!r}; give the prices of a million tokens read "
            "and a million written, such as [0.15, 0.6]"
        )
    limit, cache = options.get("limit", math.inf), options.get("cache", "")
    if not _is_amount(limit, finite=False):
        raise ConfigError(f"{where}.chat.options.limit is {limit!r}; give the most to be spent")
    if limit != math.inf and not any(numbers):
        raise ConfigError(f"{where}.chat.options has a limit without a price; add the price")
    if not isinstance(cache, str):
        raise ConfigError(f"{where}.chat.options.cache is {cache!r}; name a folder")
    return Account(
        name=where,
        price=(float(numbers[0]), float(numbers[1])),
        limit=float(limit),
        cache=Path(cache).expanduser() if cache else None,
    )


def _is_amount(x: object, *, finite: bool = True) -> bool:
    number = isinstance(x, int | float) and not isinstance(x, bool)
    return number and x >= 0 and (math.isfinite(x) or not finite)  # type: ignore[operator, arg-type]
