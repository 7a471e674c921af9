"""The HTTP server of the viewer: files of the page, and runs as JSON. It changes nothing in a run.

A run's files are untrusted: they are sent as JSON and shown as text nodes, and the content security
policy forbids external scripts, styles and requests.
"""

import base64
import hashlib
import ipaddress
import json
import math
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import RunError, TutelageError, first_line, install
from tutelage.viewer.index import Filter
from tutelage.viewer.shelf import Shelf

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
}
COOKIE = "tutelage_view"


def policy_of(page: str) -> str:
    """The content security policy of a page: nothing from elsewhere, and of inline scripts only the
    page's own, by their hashes."""
    inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", page, re.DOTALL)
    hashes = " ".join(f"'sha256-{digest(text)}'" for text in inline)
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> loopback("127.0.0.1"), loopback("localhost"), loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    return secrets.token_urlsafe(18)


def application(shelf: Shelf, *, token: str = "") -> "Starlette":
    """The page and its data. With a `token`, only who knows it is answered; without one, only
    requests that name a loopback address as their host are, so that no other site's page can ask.
    """
    require()
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse, RedirectResponse, Response
    from starlette.routing import Route

    page = (STATIC / "index.html").read_text(encoding="utf-8")
    policy = policy_of(page)

    def json_of(value: object, status: int = 200) -> Response:
        text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
        # a lone surrogate is no UTF-8
        return Response(text.encode("utf-8", "replace"), status, media_type="application/json")

    def answer(ask: Callable[["Request"], object]) -> Callable[["Request"], Awaitable[Response]]:
        async def respond(request: "Request") -> Response:
            try:
                return json_of(await run_in_threadpool(ask, request))
            except (TutelageError, OSError) as error:
                return json_of({"error": str(error)}, 404)
            except ValueError as error:
                return json_of({"error": f"the address asks for what there is not: {error}"}, 400)

        return respond

    def number(request: "Request") -> int:
        return int(request.path_params["episode"])

    def episodes(request: "Request") -> object:
        asked = request.query_params
        index = shelf.index(request.path_params["run"])
        found = index.search(
            filter_of(asked),
            order=asked.get("order", "step"),
            descending=asked.get("way", "down") == "down",
            limit=min(500, int(asked.get("limit", 100))),
            offset=int(asked.get("offset", 0)),
        )
        return {**found, "indexed": [index.done, index.total]}

    def series(request: "Request") -> object:
        asked = request.query_params
        keys = [key for key in asked.get("keys", "").split("\n") if key]
        return shelf.folder(request.path_params["run"]).series(keys, asked.get("phase", "train"))

    def histogram(request: "Request") -> object:
        asked = request.query_params
        step = asked.get("step", "")
        return shelf.histogram(
            request.path_params["run"],
            asked.get("phase", "train"),
            int(step) if step else None,
            asked.get("column", ""),
        )

    def run_of(request: "Request") -> object:
        return shelf.run(request.path_params["run"])

    def one(request: "Request") -> object:
        return shelf.episode(request.path_params["run"], number(request))

    def views(request: "Request") -> object:
        return shelf.views_of(request.path_params["run"], number(request))

    async def static(request: "Request") -> Response:
        wanted = request.path_params.get("file", "") or "index.html"
        path = (STATIC / wanted).resolve()
        if not path.is_relative_to(STATIC.resolve()) or path.suffix not in TYPES:
            return PlainTextResponse("not found", 404)
        if not path.is_file():
            return PlainTextResponse("not found", 404)
        text = page if path.name == "index.html" else path.read_text(encoding="utf-8")
        return Response(text, media_type=TYPES[path.suffix])

    class Guarded:
        """Checks access, and adds the content security policy to every response."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return
            from starlette.requests import Request

            request = Request(scope)

            async def with_policy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [
                        *message["headers"],
                        (b"content-security-policy", policy.encode()),
                        (b"x-content-type-options", b"nosniff"),
                        (b"referrer-policy", b"no-referrer"),
                        (b"cache-control", b"no-store"),
                        (b"cross-origin-resource-policy", b"same-origin"),
                    ]
                await send(message)

            refused = self.refusal(request)
            await (refused or self.app)(scope, receive, with_policy)

        @staticmethod
        def refusal(request: "Request") -> "Response | None":
            if not token:
                if loopback(host_of(request.headers.get("host", ""))):
                    return None
                return PlainTextResponse(
                    "this viewer answers at its loopback address only; start it with --host to "
                    "show it to other machines",
                    403,
                )
            given = request.query_params.get("token", "")
            if given and secrets.compare_digest(given.encode(), token.encode()):
                if request.url.path != "/":
                    return None
                response = RedirectResponse("./", 303)
                response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
                return response
            cookie = request.cookies.get(COOKIE, "")
            if cookie and secrets.compare_digest(cookie.encode(), token.encode()):
                return None
            return PlainTextResponse("open the address that `tutelage view` printed", 401)

    get = ["GET"]
    app = Starlette(
        routes=[
            Route("/api/runs", answer(lambda request: {"runs": shelf.rows()}), methods=get),
            Route("/api/run/{run}", answer(run_of), methods=get),
            Route("/api/run/{run}/series", answer(series), methods=get),
            Route("/api/run/{run}/histogram", answer(histogram), methods=get),
            Route("/api/run/{run}/episodes", answer(episodes), methods=get),
            Route("/api/run/{run}/episode/{episode:int}", answer(one), methods=get),
            Route("/api/run/{run}/episode/{episode:int}/views", answer(views), methods=get),
            Route("/", static, methods=get),
            Route("/{file:path}", static, methods=get),
        ]
    )
    app.add_middleware(Guarded)
    return app


def host_of(header: str) -> str:
    """The host of a Host header, without its port.

    >>> host_of("localhost:8000"), host_of("[::1]:80"), host_of("evil.example")
    ('localhost', '::1', 'evil.example')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def filter_of(asked: Mapping[str, str]) -> Filter:
    """A filter from the words of an address. Raises ValueError for a bound that is no number."""
    yes = {"yes": True, "no": False}

    def whole(name: str) -> int | None:
        return int(asked[name]) if asked.get(name) else None

    def number(name: str) -> float | None:
        return float(asked[name]) if asked.get(name) else None

    def word(name: str) -> str:
        return asked.get(name, "")

    return Filter(
        text=word("text"),
        low_step=whole("low_step"),
        high_step=whole("high_step"),
        low_return=number("low_return"),
        high_return=number("high_return"),
        won=yes.get(word("won")),
        invalid=yes.get(word("invalid")),
        actor=word("actor"),
        task=word("task"),
        group=word("group"),
        phase=word("phase"),
        split=word("split"),
        family=word("family"),
        stop=word("stop"),
        policy=word("policy"),
    )


def finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises RunError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # early requests wait until everything is loaded, instead of being refused
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        why = getattr(error, "strerror", "") or first_line(error)
        raise RunError(
            f"port {port} of {host} cannot be used ({why}); choose another --port, or "
            "--port 0 for any that is free"
        ) from error
    return listener


def require() -> None:
    """Raises RunError with the command that installs what the server needs, if it is missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise RunError(f"the viewer needs starlette and uvicorn: {install('view')}") from error


def serve(shelf: Shelf, listening: socket.socket, *, token: str = "") -> None:
    """Answer until interrupted."""
    import uvicorn

    app = application(shelf, token=token)
    shelf.start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        shelf.stop()
