"""A customer played by a model on an OpenAI-compatible server."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

from tutelage.envs.addresses import address as checked
from tutelage.envs.addresses import key_in
from tutelage.errors import ConfigError, EnvError, first_line
from tutelage.types import Message
from tutelage_worlds.json_text import parse
from tutelage_worlds.tau_bench.customers import Reply

DAY: Final = 86_400
"""Seconds that are waited at most."""


def endpoint(
    *,
    url: str,
    model: str,
    key_variable: str = "",
    temperature: float = 0.0,
    max_tokens: int = 256,
    seconds: float = 60.0,
    retries: int = 2,
) -> Reply:
    """Replies of a server's model.

    url           the server's base, such as http://localhost:8000/v1
    key_variable  the environment variable that holds its key, where it wants one
    retries       how often a request is retried if the server is busy or away

    Raises ConfigError for a key that is not there, and, when it is called, EnvError for a server
    that does not answer as it should.
    """
    where = "env.options.user_options"
    for name, least, given in (("retries", 0, retries), ("max_tokens", 1, max_tokens)):
        if type(given) is not int or given < least:
            raise ConfigError(
                f"{where}.{name} must be a whole number from {least} on, got {given!r}"
            )
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < DAY:
        raise ConfigError(f"{where}.seconds must be above 0 and below {DAY}, got {seconds!r}")
    server = checked(url, where=f"{where}.url")
    headers = {"Content-Type": "application/json"}
    if key := key_in(key_variable, where=f"{where}.key_variable"):
        headers["Authorization"] = f"Bearer {key}"
    address = server.shown.rstrip("/") + "/chat/completions"

    def reply(messages: Sequence[Message]) -> str:
        body = {
            "model": model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        return _content(_fetch(request, seconds, retries), address)

    return reply


def _fetch(request: urllib.request.Request, seconds: float, retries: int) -> bytes:
    for attempt in range(retries + 1):
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            reason, again = f"HTTP {error.code}", error.code == 429 or error.code >= 500
        except (OSError, http.client.HTTPException) as error:
            reason, again = first_line(error), True
        if not again:
            break
        if attempt < retries:
            time.sleep(min(2.0**attempt, 8.0))
    raise EnvError(
        f"the customer's server at {request.full_url} did not answer ({reason}); check "
        "user_options.url, its model and key"
    )


def _content(answer: bytes, address: str) -> str:
    try:
        value: Any = parse(answer)
        words = value["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise EnvError(
            f"the customer's server at {address} answered something else than a chat completion; "
            "user_options.url must be the base of an OpenAI-compatible server"
        ) from error
    return words if isinstance(words, str) else ""
