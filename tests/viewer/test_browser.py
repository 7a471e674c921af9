"""The page in a real Chromium: it loads, filters, follows a run, and shows hostile text as text."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live_viewer import Live

from scripts.large_run import write
from tutelage.viewer import html_file

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium; set CHROMIUM to its path"),
]
PATIENCE = 60_000  # milliseconds; only a page that fails waits so long
HOSTILE = (
    "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
    "</script><svg onload=\"document.title='broken'\"> &amp; ${1+1} javascript:alert(1) "
    "\x00\x07\x1b[31m \u202egnirts desrever\u202c \u2066isolated\u2069 \u200bhidden"
)
ROWS = "#episodes tbody tr"
LONG = "x" * 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


def until(page: Any, selector: str, *, count: int | None = None, text: str = "") -> None:
    """Wait for elements. Not by a function in the page: its policy forbids to evaluate strings."""
    found = api.expect(page.locator(selector))
    if count is not None:
        found.to_have_count(count, timeout=PATIENCE)
    else:
        found.to_contain_text(text, timeout=PATIENCE)


class Watched:
    """A page whose console, errors and requests are noted."""

    def __init__(self, browser: Any, address: str) -> None:
        self.context = browser.new_context(viewport={"width": 1400, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.address, self.wrong, self.asked = address, [], []
        self.page.on("console", lambda m: self.wrong.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))

    def open(self, where: str = "") -> Any:
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}{where}")
        return self.page

    def check(self) -> None:
        assert not self.wrong
        here = self.address.partition("#")[0].rpartition("/")[0]
        foreign = [u for u in self.asked if not u.startswith((here, "about:", "data:"))]
        assert not foreign, "the page asked for something from elsewhere"
        assert self.page.title() == "tutelage view"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "run"
    write(path, 48, per_step=16, turns=4, with_columns=True)
    lines = [json.loads(line) for line in (path / "episodes.jsonl").read_text().splitlines()]
    hostile = lines[-1]
    hostile["error"] = HOSTILE
    hostile["task"]["family"] = HOSTILE
    hostile["turns"][0] |= {"seen": HOSTILE, "text": f"<think>{HOSTILE}</think>{HOSTILE}"}
    hostile["turns"][1]["seen"] = LONG
    (path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    signals = [json.loads(line) for line in (path / "columns.jsonl").read_text().splitlines()]
    tokens = [i for turn in lines[0]["turns"] for i in turn["tokens"]]
    signals[0]["alternatives"] = {
        "student": [[[i, -0.5], [i + 1, -1.5]] for i in tokens],
        "teacher": [[[i + 1, -0.1], [i + 2, None]] for i in tokens[:-1]] + [None],
    }
    (path / "columns.jsonl").write_text("".join(json.dumps(line) + "\n" for line in signals))
    evaluation = {
        "step": 3,
        "hint": "",
        "name": HOSTILE,
        "split": "unseen",
        "n": 50,
        "won": 25,
        "success": 0.5,
        "low": 0.36,
        "high": 0.64,
        "turns": 3.0,
        "invalid": 0.1,
        "families": {HOSTILE: [1, 2, 0.0, 1.0]},
    }
    (path / "evals.jsonl").write_text(json.dumps(evaluation) + "\n")
    return path


@pytest.fixture(scope="module")
def live(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    started = Live([folder.parent], tmp_path_factory.mktemp("cache"))
    yield started
    started.close()


@pytest.fixture
def watched(browser: Any, live: Live) -> Iterator[Watched]:
    page = Watched(browser, f"http://127.0.0.1:{live.port}/")
    yield page
    page.check()
    page.context.close()


def run_of(live: Live) -> str:
    return str(live.json("runs")["runs"][0]["id"])


def test_the_list_of_runs_and_one_run(watched: Watched, live: Live) -> None:
    page = watched.open()  # of one run, which is shown at once
    page.wait_for_selector("#evaluations tbody tr")
    page.click("nav a")
    page.wait_for_selector("#runs tbody tr")
    row = page.inner_text("#runs tbody tr")
    assert "grpo" in row
    assert "50 % (36 to 64 %)" in row
    assert "finished" in row
    page.click("#runs tbody a")
    page.wait_for_selector("#evaluations tbody tr")
    page.wait_for_selector("#gates svg")
    assert "gap above 0" in page.inner_text("#gates")


def test_episodes_are_filtered_and_searched(watched: Watched, live: Live, folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    page = watched.open(f"#/episodes/{run_of(live)}")
    until(page, ROWS, count=48)
    page.select_option("#won", "no")
    lost = sum(not line["won"] for line in lines)
    until(page, ROWS, count=lost)
    page.fill("#low_step", "2")
    late = sum(not line["won"] and line["step"] >= 2 for line in lines)
    until(page, ROWS, count=late)
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type('"go to fridge"')
    matching = sum(
        not line["won"]
        and line["step"] >= 2
        and any("go to fridge" in turn["text"] for turn in line["turns"])
        for line in lines
    )
    until(page, "#count", text=f"{matching} episodes")
    page.reload()
    until(page, ROWS, count=matching)


def test_tokens_are_coloured_and_told(watched: Watched, live: Live, folder: Path) -> None:
    signals = [json.loads(line) for line in (folder / "columns.jsonl").read_text().splitlines()]
    gaps = signals[0]["columns"]["gap[teacher|student]"]
    page = watched.open(f"#/episode/{run_of(live)}/1")
    page.wait_for_selector(".turn")
    page.select_option("#column", "gap[teacher|student]")
    page.wait_for_selector(".token")
    tokens = page.query_selector_all(".token[data-at]")
    assert len(tokens) == len(gaps)
    for at in range(0, len(gaps), 7):
        side = "below" if gaps[at] < 0 else "above"
        assert side in tokens[at].get_attribute("class").split()
    tokens[3].hover()
    page.wait_for_selector("#inspector")
    shown = page.inner_text("#inspector tr.now td")
    assert float(shown.replace(",", "")) == pytest.approx(gaps[3], rel=1e-4)
    sampled = int(page.inner_text("#inspector p .soft").split(",")[0].removeprefix("id "))
    rows = [row.inner_text().split() for row in page.query_selector_all("#alternatives tr")]
    token, other = f'"#{sampled}', f'"#{sampled + 1}'  # the run has no tokenizer
    assert rows[0] == [token, '"', "sampled", "60.7", "%"]
    assert rows[1] == [other, '"', "22.3", "%"]
    assert rows[2] == [other, '"', "90.5", "%"]
    assert rows[3][-3:] == ["<", "0.1", "%"]
    assert len(page.query_selector_all("#alternatives caption")) == 2
    page.focus(".conversation")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector('.token.picked[data-at="4"]')
    assert page.query_selector("#group tr.now") is not None
    ends = [
        float(text.replace("e", "e"))
        for text in page.inner_text(".legend .ends").split()
        if text != "0"
    ]
    assert ends == pytest.approx([min(gaps), max(gaps)], rel=1e-3)


def test_hostile_text_is_shown_as_text(watched: Watched, live: Live) -> None:
    page = watched.open(f"#/episode/{run_of(live)}/48")
    page.wait_for_selector(".turn")
    text = page.inner_text("#turn-1 .seen")
    assert "<script>document.title='broken'</script>" in text
    assert "&amp; ${1+1}" in text
    assert "\u202e" not in text
    assert "\u27e8RLO\u27e9gnirts desrever" in text
    assert "\u2400\u2407\u241b[31m" in text
    assert not page.query_selector_all("main img, main script, main [onerror], main [onload]")
    shown = page.inner_text("#turn-2 .seen")
    assert "show all 1,000,000 characters" in shown
    assert len(shown) < 10_000
    page.click("#turn-2 .seen button")
    until(page, "#turn-2 .seen button", count=0)
    assert len(page.inner_text("#turn-2 .seen")) > 1_000_000
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    page.click('a[href^="#/run/"]')
    page.wait_for_selector("#evaluations tbody tr")


def test_curves_are_drawn(watched: Watched, live: Live) -> None:
    page = watched.open("#/curves")
    page.wait_for_selector(".chart canvas")
    page.select_option("#axis", "tokens")
    until(page, ".first .u-legend", text="tokens trained on")
    drawn = page.evaluate(
        """() => { const c = document.querySelector('.chart canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(d).size > 8; }"""
    )
    assert drawn


def test_two_episodes_of_a_task_side_by_side(watched: Watched, live: Live) -> None:
    run = run_of(live)
    page = watched.open(f"#/side?a={run}/1&b={run}/2&column=gap%5Bteacher%7Cstudent%5D")
    until(page, ".half .conversation", count=2)
    assert page.locator(".half .token").count() > 20


def test_a_run_that_goes_on_is_followed(browser: Any, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    whole = {}
    for name, n in (("episodes.jsonl", 32), ("metrics.jsonl", 2)):
        whole[name] = (copy / name).read_text().splitlines(keepends=True)
        (copy / name).write_text("".join(whole[name][:n]))
    started = Live([copy], tmp_path / "cache")
    try:
        watched = Watched(browser, f"http://127.0.0.1:{started.port}/")
        page = watched.open("#/")
        until(page, "#runs", text="2 / 3")
        other = Watched(browser, watched.address)
        list_of = other.open(f"#/episodes/{run_of(started)}")
        until(list_of, "#count", text="32 episodes")
        for name, lines in whole.items():
            (copy / name).write_text("".join(lines))
        until(page, "#runs", text="3 / 3")
        until(list_of, "#count", text="48 episodes")
        watched.check()
        other.check()
    finally:
        started.close()


def test_a_page_in_a_file_works_alone(
    browser: Any, folder: Path, live: Live, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    html_file.write(live.shelf, out, episodes=16)
    watched = Watched(browser, f"{out.as_uri()}")
    page = watched.open("#/")
    page.wait_for_selector("#runs tbody tr")
    run = run_of(live)
    page = watched.open(f"#/episodes/{run}?won=no")
    page.wait_for_selector("#episodes tbody tr")
    page = watched.open(f"#/episode/{run}/48?column=gap%5Bteacher%7Cstudent%5D")
    page.wait_for_selector(".token")
    assert "<script>document.title='broken'</script>" in page.inner_text("#turn-1 .seen")
    page = watched.open("#/curves")
    page.wait_for_selector(".chart canvas")
    watched.check()
    watched.context.close()


def test_pages_are_left_without_an_error(watched: Watched, live: Live) -> None:
    """From page to page by the addresses, as a reader goes: a curve is not drawn once it is gone."""
    run = run_of(live)
    page = watched.open("#/curves")
    for _ in range(3):
        until(page, ".chart canvas >> nth=0")
        page.goto(f"{watched.address}#/episodes/{run}")
        until(page, ROWS + " >> nth=0")
        page.set_viewport_size({"width": 900, "height": 900})
        page.goto(f"{watched.address}#/curves")
        page.set_viewport_size({"width": 1400, "height": 900})
    until(page, ".chart canvas >> nth=0")


@pytest.mark.parametrize("where", ["", "curves", "episodes/{}", "side", "run/{}", "episode/{}/47"])
def test_a_narrow_window_shows_every_page_whole(watched: Watched, live: Live, where: str) -> None:
    watched.page.set_viewport_size({"width": 400, "height": 800})
    page = watched.open(f"#/{where.format(run_of(live))}")
    until(page, "header")
    page.wait_for_load_state("networkidle")
    box = page.locator("header").bounding_box()
    right = [each.bounding_box() for each in page.locator("header > *").all()]
    assert max(each["x"] + each["width"] for each in right if each) <= 400
    assert box["x"] + box["width"] <= 400
