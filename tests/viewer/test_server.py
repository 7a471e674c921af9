"""The server answers what the page asks, to those alone who may ask, and lets in no script."""

import base64
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live_viewer import Live

from scripts.large_run import write
from tutelage.errors import RunError
from tutelage.viewer import server
from tutelage.viewer.shelf import Shelf
from tutelage.viewer.text import pieces

pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "run"
    write(path, 32, per_step=16, turns=4, with_columns=True)
    return path


@pytest.fixture(scope="module")
def live(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    started = Live([folder], tmp_path_factory.mktemp("cache"))
    yield started
    started.close()


def test_the_page_and_its_files_are_sent(live: Live) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/vendor/preact.mjs", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ):
        status, headers, body = live.ask(path)
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
        assert body == (server.STATIC / (path[1:] or "index.html")).read_bytes()


def test_every_module_is_asked_for_at_once() -> None:
    page = (server.STATIC / "index.html").read_text()
    modules = {p.relative_to(server.STATIC).as_posix() for p in server.STATIC.rglob("*.*js")}
    assert set(re.findall(r'modulepreload" href="([^"]*)"', page)) == modules - {"app.js"}


@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "/vendor/LICENSE.htm", "/x.js"],
)
def test_nothing_else_of_the_disk_is_sent(live: Live, path: str) -> None:
    assert live.ask(path)[0] == 404


def test_every_answer_carries_a_policy_that_lets_no_foreign_script_in(live: Live) -> None:
    for path in ("/", "/api/runs", "/nowhere.js"):
        _, headers, _ = live.ask(path)
        policy = dict(
            part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == policy["style-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert "http" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = (server.STATIC / "index.html").read_text()
    (inline,) = re.findall(r'<script type="importmap">(.*?)</script>', page)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"


def test_runs_and_episodes_are_told(live: Live, folder: Path) -> None:
    (row,) = live.json("runs")["runs"]
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    about = live.json(f"run/{row['id']}")
    assert about["config"]["algorithm"]["name"] == "grpo"
    assert about["facets"]["n"] == 32
    assert about["facets"]["actor"] == ["student", "teacher"]
    series = live.json(f"run/{row['id']}/series?keys=loss%0Awon")
    assert series["values"]["loss"] == [1.0, 0.5]
    lost = live.json(f"run/{row['id']}/episodes?won=no&limit=5&order=step&way=up")
    assert lost["total"] == sum(not line["won"] for line in lines)
    first = lost["rows"][0]
    episode = live.json(f"run/{row['id']}/episode/{first['id']}")
    line = lines[first["id"] - 1]
    assert [turn["text"] for turn in episode["line"]["turns"]] == [t["text"] for t in line["turns"]]
    ids = [i for turn in line["turns"] for i in turn["tokens"]]
    assert [i for turn in episode["line"]["turns"] for i in turn["ids"]] == ids
    assert all(len(values) == len(ids) for values in episode["columns"].values())
    assert set(episode["columns"]) == {"log p when sampled", "token_mean", "gap[teacher|student]"}
    assert [member["copy"] for member in episode["group"]] == list(range(8))


def test_a_histogram_counts_every_token_once(live: Live, folder: Path) -> None:
    (row,) = live.json("runs")["runs"]
    found = live.json(f"run/{row['id']}/histogram?step=1&column=gap%5Bteacher%7Cstudent%5D")
    lines = [json.loads(line) for line in (folder / "columns.jsonl").read_text().splitlines()]
    gaps = [v for x in lines if x["step"] == 1 for v in x["columns"]["gap[teacher|student]"]]
    assert sum(found["parts"]["gap above 0"]) == sum(gap > 0 for gap in gaps)
    assert sum(found["parts"]["gap 0 or below"]) == sum(gap <= 0 for gap in gaps)
    assert found["bins"][0] == min(gaps)
    assert abs(found["bins"][-1] - max(gaps)) < 1e-9


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("run/nothing", 404, "no such run"),
        ("run/{id}/episode/999", 404, "no episode 999"),
        ("run/{id}/episodes?order=x", 404, "cannot be ordered"),
        ("run/{id}/episodes?low_step=x", 400, "invalid literal"),
        ("run/{id}/episode/999/views", 404, "no episode 999"),
    ],
)
def test_a_wrong_question_gets_a_sentence(live: Live, path: str, status: int, reason: str) -> None:
    (row,) = live.json("runs")["runs"]
    got, _, body = live.ask(f"/api/{path.format(id=row['id'])}")
    assert got == status
    assert reason in json.loads(body)["error"]


def test_privileged_text_that_cannot_be_known_has_a_reason(live: Live) -> None:
    (row,) = live.json("runs")["runs"]
    answer = live.json(f"run/{row['id']}/episode/1/views")
    assert answer["views"] == {}
    assert "without privileged text" in answer["why"]


def test_a_page_of_another_site_cannot_ask(live: Live) -> None:
    assert live.ask("/api/runs", Host="evil.example")[0] == 403
    assert live.ask("/api/runs", Host="127.0.0.1.evil.example:80")[0] == 403
    assert live.ask("/api/runs", Host=f"localhost:{live.port}")[0] == 200
    assert live.ask("/api/runs", Host="[::1]:80")[0] == 200


def test_away_from_loopback_a_token_is_asked_for(folder: Path, tmp_path: Path) -> None:
    token = server.new_token()
    started = Live([folder], tmp_path, token=token)
    try:
        for path in ("/", "/api/runs", "/app.js", "/?token=wrong", f"/?token={token[:-1]}"):
            status, headers, _ = started.ask(path)
            assert status == 401
            assert "set-cookie" not in headers
        status, headers, _ = started.ask(f"/?token={token}", Host="a.machine:80")
        assert status == 303
        assert "token" not in headers["location"]
        cookie = headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert started.ask("/api/runs", Cookie=cookie.split(";")[0], Host="a.machine")[0] == 200
        assert started.ask("/api/runs", Cookie=f"{server.COOKIE}=wrong")[0] == 401
    finally:
        started.close()


def test_a_run_that_grows_is_followed(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    lines = (copy / "episodes.jsonl").read_text().splitlines(keepends=True)
    (copy / "episodes.jsonl").write_text("".join(lines[:20]))
    started = Live([tmp_path], tmp_path / "cache")
    try:
        (row,) = started.json("runs")["runs"]
        assert started.json(f"run/{row['id']}/episodes")["total"] == 20
        with (copy / "episodes.jsonl").open("a") as file:
            file.write("".join(lines[20:]))
        shutil.copytree(copy, tmp_path / "another")
        until = time.monotonic() + 30
        while time.monotonic() < until:
            total = started.json(f"run/{row['id']}/episodes")["total"]
            names = {r["name"] for r in started.json("runs")["runs"]}
            if total == 32 and names == {"run", "another"}:
                break
            time.sleep(0.2)
        assert total == 32
        assert names == {"run", "another"}
    finally:
        started.close()


def test_a_folder_without_runs_and_a_port_in_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run in"):
        Shelf([tmp_path], cache=tmp_path)
    taken = server.bound("127.0.0.1", 0)
    taken.listen()
    with pytest.raises(RunError, match="choose another --port"):
        server.bound("127.0.0.1", taken.getsockname()[1])
    taken.close()


def test_pieces_of_tokens_join_to_the_text() -> None:
    from tokenizers import Tokenizer, decoders, models

    letters = {letter: k for k, letter in enumerate(["a", "b", "<0xC3>", "<0xA9>", "\u2581c"])}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Replace("\u2581", " "), decoders.Fuse()]
    )
    assert pieces(tokenizer, [0, 2, 3, 4, 1]) == ["a", "", "\u00e9", " c", "b"]
    assert pieces(tokenizer, [0, 2]) == ["a", "\N{REPLACEMENT CHARACTER}"]
    assert pieces(None, [7, 8]) == ["#7 ", "#8 "]
