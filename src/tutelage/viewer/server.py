"""The HTTP server of the page: files of the page, and runs as JSON. It changes nothing in a run.

A run's files are untrusted: they are sent as JSON and shown as text nodes, and the content security
policy forbids external scripts, styles and requests.
"""

import base64
import contextlib
import hashlib
import ipaddress
import json
import math
import re
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import RunError, TutelageError, install
from tutelage.viewer.index import Filter, Index, cache_folder
from tutelage.viewer.runs import Folder, find
from tutelage.viewer.text import pieces, tokenizer_of

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
LOOKED = 2.0
"""Seconds between two searches for new folders, and between two checks of growing files."""
PATIENCE = 0.2
"""Seconds that a first answer waits for the index."""
COOKIE = "tutelage_view"

ADVANTAGE = re.compile(r"^(group_relative|.*advantage|leave_one_out)")
"""Signals that compare an episode with the others of its group."""

FIRST = ("gate", "t_dur", "gap", "group_relative")
"""Beginnings of signals whose spread is shown first."""

PrivilegedText = Callable[[Folder, Mapping[str, Any]], Mapping[str, str]]
"""What privileged text each view is shown, by the view's name, given a run and an episode's line.
Raises TutelageError with the reason where it cannot be known."""


def no_privileged_text(folder: Folder, line: Mapping[str, Any]) -> Mapping[str, str]:
    raise RunError("this viewer was started without privileged text")


class Shelf:
    """The folders on the page, and their indices. One thread extends the indices."""

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        cache: Path | None = None,
        privileged: PrivilegedText = no_privileged_text,
    ) -> None:
        self.paths, self.cache, self.privileged = list(paths), cache or cache_folder(), privileged
        self.folders: dict[str, Folder] = {}
        self.indices: dict[str, Index] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._wanted: list[str] = []  # whose index is asked for, the last first
        self._looked = 0.0
        self.look()
        if not self.folders:
            names = ", ".join(map(str, self.paths))
            raise RunError(
                f"there is no run in {names}; give a run's folder, or one that holds such folders"
            )

    def look(self) -> None:
        """Find folders that are new."""
        with self._lock:
            if self.folders and time.monotonic() - self._looked < LOOKED:
                return
            for folder in find([p for p in self.paths if p.exists() or not self.folders]):
                self.folders.setdefault(folder.id, folder)
            self._looked = time.monotonic()

    def folder(self, name: str) -> Folder:
        if name not in self.folders:
            raise RunError("there is no such run; go back to the list of runs")
        return self.folders[name]

    def index(self, name: str) -> Index:
        """The index of a run's episodes, which is complete only after a while."""
        folder = self.folder(name)
        with self._lock:
            new = name not in self.indices
            if new:
                try:
                    split = str((folder.config().get("env") or {}).get("split", ""))
                except RunError:
                    split = ""
                self.indices[name] = Index(
                    folder.path, cache=self.cache, file=folder.episodes, default_split=split
                )
            if name in self._wanted:
                self._wanted.remove(name)
            self._wanted.insert(0, name)
        if new:  # a small run is complete in its first answer
            until = time.monotonic() + PATIENCE
            with contextlib.suppress(OSError):  # the thread tries again, and reports the error
                self.indices[name].update(lambda: time.monotonic() < until)
        return self.indices[name]

    def rows(self) -> list[dict[str, Any]]:
        """The list of runs, the newest first."""
        self.look()
        rows = []
        for folder in self.folders.values():
            row = folder.summary()
            index = self.indices.get(folder.id)
            row["indexed"] = [index.done, index.total] if index else None
            rows.append(row)
        return sorted(rows, key=lambda row: (str(row["started"]), row["name"]), reverse=True)

    # -- the thread

    def work(self) -> None:
        """Extend the indices that were asked for until `stop` is called; the last asked first."""
        while not self._stop.is_set():
            with self._lock:
                wanted = list(self._wanted)
            for name in wanted:
                index = self.indices[name]
                first = name

                def going(first: str = first) -> bool:
                    return not self._stop.is_set() and self._wanted[:1] == [first]

                try:
                    index.update(going)
                except (OSError, TutelageError) as error:
                    index.problem = str(error)
                if self._stop.is_set() or self._wanted[:1] != wanted[:1]:
                    break  # another run is looked at now
            else:
                self._stop.wait(LOOKED / 2)

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.work, name="index", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        self._stop.set()

    # -- requests of the page

    def run(self, name: str) -> dict[str, Any]:
        """A run with its settings, evaluations, and what can be plotted and filtered."""
        folder = self.folder(name)
        index = self.index(name)
        summary = folder.summary()
        out: dict[str, Any] = {"summary": summary, "config": {}, "meta": {}, "evaluations": []}
        if summary["state"] != "broken":
            evaluations = [
                {k: v for k, v in line.items() if k != "scores"} for line in folder.evaluations()
            ]
            out |= {"config": folder.config(), "meta": folder.meta(), "evaluations": evaluations}
            out["keys"] = {phase: folder.keys(phase) for phase in ("train", "warm_start")}
        return {
            **out,
            "facets": index.facets(),
            "indexed": [index.done, index.total],
            "index_problem": index.problem,
        }

    def episode(self, name: str, number: int) -> dict[str, Any]:
        """An episode with the text of every token, and every recorded signal."""
        folder, index = self.folder(name), self.index(name)
        line, row = index.episode(number), index.row(number)
        columns = index.columns(number)
        try:
            tokenizer, problem = tokenizer_of(folder.path), ""
        except OSError as error:
            tokenizer, problem = None, str(error)
        if tokenizer is None and not problem:
            problem = "no checkpoint with a tokenizer: tokens are shown as their ids"
        turns, at = [], 0
        for turn in line["turns"]:
            ids = turn.get("tokens", [])
            turns.append(
                {
                    **{k: v for k, v in turn.items() if k not in ("prompt", "tokens")},
                    "ids": ids,
                    "tokens": pieces(tokenizer, ids),
                    "prompt_ids": turn.get("prompt", []),
                    "prompt": pieces(tokenizer, turn.get("prompt", [])),
                    "at": at,
                }
            )
            at += len(ids)
        if turns and any(turn.get("logps") for turn in turns):
            sampled = [x for turn in turns for x in turn.get("logps", [])]
            columns = {"log p when sampled": sampled, **columns}
        twins = Filter(
            task=row["task"],
            group=row["grp"],
            phase=row["phase"],
            policy=row["policy"],
            low_step=row["step"],
            high_step=row["step"],
        )
        others = Filter(task=row["task"])
        group = index.search(twins, order="step", descending=False, limit=64)["rows"]
        advantage = next((name for name in columns if ADVANTAGE.search(name)), "")
        for member in group if len(group) > 1 else ():
            values = [v for v in index.columns(member["id"]).get(advantage, []) if v is not None]
            member["advantage"] = sum(values) / len(values) if values else None
        return {
            "row": row,
            "line": {**{k: v for k, v in line.items() if k != "turns"}, "turns": turns},
            "columns": {k: v for k, v in columns.items() if len(v) == at},
            "tokenizer": problem,
            "group": group,
            "advantage": advantage,
            "same_task": index.search(others, order="step", descending=False, limit=64)["rows"],
        }

    def views_of(self, name: str, number: int) -> Mapping[str, Any]:
        """Privileged text of an episode's task, by view; `why` says why it cannot be known."""
        line = self.index(name).episode(number)
        try:
            return {"views": self.privileged(self.folder(name), line), "why": ""}
        except TutelageError as error:
            return {"views": {}, "why": str(error)}

    def histogram(self, name: str, phase: str, step: int | None, column: str) -> dict[str, Any]:
        """How a signal's values spread over the tokens of a step: counts in 20 bins, apart for
        tokens whose gap is above and below 0 where that is known."""
        index = self.index(name)
        steps = [s for p, s in index.recorded_steps() if p == phase]
        if not steps:
            return {"steps": [], "bins": [], "parts": {}, "columns": []}
        chosen = step if step in steps else steps[-1]
        lines = list(index.columns_of_step(phase, chosen))
        names = list(dict.fromkeys(name for line in lines for name in line["columns"]))
        if column not in names:
            liked = [n for start in FIRST for n in names if n.startswith(start)]
            column = (liked or names or [""])[0]
        gap = next((n for n in names if n.startswith("gap[")), "")
        pairs = []
        for line in lines:
            values = line["columns"].get(column, [])
            gaps = line["columns"].get(gap, []) if gap else values if _by_gap(column) else []
            middle = 0.0 if gap else 0.5  # sigmoid(beta gap) is above 1/2 where the gap is above 0
            for k, value in enumerate(values):
                sign = gaps[k] - middle if k < len(gaps) and gaps[k] is not None else None
                if value is not None:
                    pairs.append((value, sign))
        return {"step": chosen, "steps": steps, "columns": names, "column": column, **_bins(pairs)}


def _by_gap(column: str) -> bool:
    """Whether a gate alone tells the sign of the gap: sigmoid(beta gap) does."""
    return column.startswith("gate[")


BINS = 20


def _bins(pairs: list[tuple[float, float | None]]) -> dict[str, Any]:
    """Counts of values in equal bins, apart by the sign that goes with each.

    >>> _bins([(0.0, None), (1.0, None)])["parts"]["all"][0]
    1
    """
    if not pairs:
        return {"bins": [], "parts": {}}
    low, high = min(v for v, _ in pairs), max(v for v, _ in pairs)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    width = (high - low) / BINS or 1.0
    parts: dict[str, list[int]] = {}
    for value, sign in pairs:
        part = "all" if sign is None else "gap above 0" if sign > 0 else "gap 0 or below"
        at = min(BINS - 1, int((value - low) / width))
        parts.setdefault(part, [0] * BINS)[at] += 1
    return {"bins": [low + width * k for k in range(BINS + 1)], "parts": parts}


# -- HTTP


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
    except OSError as error:
        listener.close()
        raise RunError(
            f"port {port} of {host} cannot be used ({error.strerror}); choose another --port, or "
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
