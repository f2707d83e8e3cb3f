"""``nura status --html FILE`` in a real browser: it renders, throws nothing and fetches nothing; by keyboard, and on a phone."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import Browser
from tests.conftest import Spool, need
from tests.pipeline.forks import Command, Ended

WORDS = "<img src=x onerror=alert(1)> & 'words'"


@pytest.fixture
def page(openai_spool: Spool) -> Path:
    """A page about work of which some is done, some failed for odd words, and some waits."""
    openai_spool.control.fault("rows", match="number 2", status=400, code="<b>", message=WORDS)
    openai_spool.fill(5)
    openai_spool.settle()
    openai_spool.clock.advance(24 * 3600)
    openai_spool.set("another-" + "x" * 50)
    openai_spool.fill(1, "another-" + "x" * 50)
    openai_spool.dispatch()
    openai_spool.enqueue({"id": "later", "text": "x"})
    assert Command(openai_spool.folder, openai_spool.clock(), "status", "--html", "s.html").end() == Ended(0, "")
    return openai_spool.folder / "s.html"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A running browser."""
    with Browser(need("chromium", "chromium"), tmp_path / "browser") as running:
        yield running


def test_the_page_stands_alone(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert not re.findall(r"(?:https?:)?//[a-z]", text)
    assert re.findall(r"(?:src|href)=\"(.*?)\"", text) == ["data:,"]
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def test_a_browser_shows_it_and_asks_nobody_for_anything(page: Path, browser: Browser) -> None:
    browser.open(page.as_uri())
    assert [
        sent["request"]["url"]
        for sent in browser.of("Network.requestWillBeSent")
        if "data:" not in sent["request"]["url"]
    ] == [page.as_uri()]
    assert browser.of("Runtime.exceptionThrown") == []
    assert browser.of("Log.entryAdded") == []
    assert browser.run("document.compatMode") == "CSS1Compat"
    assert browser.run("document.querySelector('h1').innerText") == "nura status"
    headings = browser.run("[...document.querySelectorAll('h2')].map(h => h.innerText)")
    assert headings == [
        "What needs a person",
        "Work by state",
        "Cost by day",
        "How long batches took",
        "Failures by reason",
        "Last runs",
    ]
    assert "1 task failed in the last 26h" in browser.run("document.querySelector('.needs').innerText")
    assert browser.run("[...document.querySelectorAll('rect')].every(r => r.getBoundingClientRect().width > 0)")
    assert browser.run("document.querySelectorAll('#cost ~ .scroll rect').length") >= 2
    fills = browser.run("[...new Set([...document.querySelectorAll('rect')].map(r => getComputedStyle(r).fill))]")
    assert len(fills) >= 4
    assert "rgb(0, 0, 0)" not in fills
    assert WORDS in browser.run("document.body.textContent")

    colours = []
    for scheme in ("light", "dark"):
        browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours.append(
            browser.run("getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color")
        )
    assert len(set(colours)) == 2

    browser.ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 360

    reached = set()
    for _ in range(30):
        browser.press("Tab", 9)
        reached.add(browser.run("document.activeElement.tagName + ' ' + (document.activeElement.ariaLabel || '')"))
        if browser.run("document.activeElement.tagName") == "SUMMARY" and not browser.run(
            "document.querySelector('details').open"
        ):
            browser.press("Enter", 13)
            assert browser.run("document.querySelector('details').open")
    assert {"SUMMARY ", "DIV Work by state, as a table", "DIV Cost by day, in US dollars, as a chart"} <= reached
    assert "DIV Cost by day, as a table" in reached


def test_a_page_about_nothing_is_whole_too(openai_spool: Spool) -> None:
    assert Command(openai_spool.folder, openai_spool.clock(), "status", "--html", "s.html").end().code == 0
    text = (openai_spool.folder / "s.html").read_text()
    assert "Nothing was paid in the last 30 days." in text
    assert "None has ended yet." in text
    assert text.rstrip().endswith("</html>")
    before = text
    openai_spool.fill(1)
    assert Command(openai_spool.folder, openai_spool.clock(), "status", "--html", "s.html").end().code == 0
    assert (openai_spool.folder / "s.html").read_text() != before
    refused = Command(openai_spool.folder, openai_spool.clock(), "status", "--html", "nura.yaml").end()
    assert refused.code == 2
    assert "--html nura.yaml: is another file" in refused.out
