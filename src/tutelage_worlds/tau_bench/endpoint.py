"""A customer played by a model on an OpenAI-compatible server."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from tutelage.errors import ConfigError, EnvError
from tutelage.types import Message
from tutelage_worlds.tau_bench.customers import Reply


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
    retries       how often a request is made again that found the server busy or away

    Raises ConfigError for a key that is not there, and, when it is called, EnvError for a server
    that does not answer as it should.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"user_options.url must begin with http:// or https://, got {url!r}")
    headers = {"Content-Type": "application/json"}
    if key_variable:
        if key_variable not in os.environ:
            raise ConfigError(
                f"the environment variable {key_variable} is not set; put the server's key there, "
                "or leave user_options.key_variable out"
            )
        headers["Authorization"] = f"Bearer {os.environ[key_variable]}"
    address = url.rstrip("/") + "/chat/completions"

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
        except OSError as error:
            reason, again = str(error), True
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
        value: Any = json.loads(answer)
        words = value["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise EnvError(
            f"the customer's server at {address} answered something else than a chat completion; "
            "user_options.url must be the base of an OpenAI-compatible server"
        ) from error
    return words if isinstance(words, str) else ""
