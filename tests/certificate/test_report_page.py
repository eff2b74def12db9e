"""The page of a report: in a browser where there is one, and its text everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_vdist.certificate.report.html import html_text, write_html
from pytest_vdist.certificate.requirements import registry
from tests.certificate.browser import NAMES, Browser, find_browser
from tests.certificate.sample_reports import conformant_results, report, result, results

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!-- {{ 7*7 }} '\" & \u2028"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_browser()
    if executable is None:
        pytest.skip(f"no browser on this machine: looked for {', '.join(NAMES)}")
    with Browser(executable, tmp_path_factory.mktemp("browser")) as started:
        yield started


def hostile_page(path: Path) -> Path:
    tests = results(40)
    tests[0] = result("a/test_b.py::test_c[" + HOSTILE + "]", "failed")
    tests[0] |= {"reason": HOSTILE, "failure": {"headline": HOSTILE, "text": HOSTILE, "reproduce": HOSTILE}}
    whole = report(
        tests,
        implementation={
            "name": HOSTILE,
            "backend": "cpu",
            "device_names": [HOSTILE],
            "proof": {HOSTILE: HOSTILE},
        },
        settings=[{"name": HOSTILE, "value": HOSTILE, "source": HOSTILE}],
        environment={HOSTILE: [HOSTILE]},
    )
    whole["waivers"] = [
        {"requirement": HOSTILE, "issue": f"https://{HOSTILE}", "owner": HOSTILE, "reason": HOSTILE}
        | {"expires": "2027-01-01", "state": HOSTILE}
    ]
    write_html(whole, path)
    return path


def test_a_page_needs_no_network_and_says_the_verdict_in_words() -> None:
    text = html_text(report(conformant_results()))
    assert "Every requirement of the profile was tested and is met." in text
    assert registry().requirements["VD-AR-001"].text in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "url(" not in text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    text = hostile_page(tmp_path / "report.html").read_text()
    assert "<img" not in text
    assert text.count("</script>") == 2
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["tests"][0][8]["text"] == HOSTILE


def test_the_same_report_gives_the_same_page_whatever_the_order_of_its_keys() -> None:
    whole = report(results(60))
    assert html_text(whole) == html_text(dict(reversed(whole.items())))


def test_hostile_text_does_nothing_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    browser.open(hostile_page(tmp_path / "report.html"))
    assert browser.evaluate("document.title") != "owned"
    assert browser.evaluate("document.images.length") == 0
    assert HOSTILE.replace("\u2028", "") in browser.evaluate("document.body.innerText").replace("\u2028", "")
    assert browser.errors == []


def test_ten_thousand_results_open_and_fit_any_window(browser: Browser, tmp_path: Path) -> None:
    write_html(report(results(10_000)), tmp_path / "report.html")
    for width, dark in ((1280, False), (390, True), (1280, True), (390, False)):
        browser.resize(width, 900, dark=dark)
        if width == 1280:
            assert browser.open(tmp_path / "report.html") < 20  # 0.7 s on a quiet machine of two cores
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("document.querySelectorAll('#tests-table tbody tr').length") == 100
        colours = "(e => [e.color, e.backgroundColor])(getComputedStyle(document.body))"
        ink, ground = (sum(map(int, re.findall(r"\d+", each))) for each in browser.evaluate(colours))
        assert (ink > ground) == dark
    assert browser.errors == []


def test_the_page_is_used_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    write_html(report(results(400)), tmp_path / "report.html")
    browser.resize(1280, 900)
    browser.open(tmp_path / "report.html")
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    browser.evaluate("document.getElementById('filter-text').focus()")
    for letter in "vd-ar-001":
        browser.press(letter, letter)
    rows = "document.querySelectorAll('#matrix-table tbody th').length"
    look = f"{rows} === 1 ? done() : setTimeout(look, 20)"
    until = f"new Promise(done => {{ const look = () => {look}; look(); }})"
    browser.evaluate(until)
    assert browser.evaluate(
        "[...document.querySelectorAll('#matrix-table tbody th')].map(e => e.textContent)"
    ) == ["VD-AR-001"]
    browser.evaluate("document.querySelector('#tests-table .name button').focus()")
    browser.press("Enter", "\r")
    assert browser.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert browser.evaluate("document.querySelector('tr.detail').textContent").startswith("test")
    assert browser.errors == []


def test_failures_come_first_and_a_cell_of_the_matrix_leads_to_its_tests(
    browser: Browser, tmp_path: Path
) -> None:
    whole = report([*conformant_results()[:20], result("a/test_b.py::test_c[cpu-4]", "hang", world_size=4)])
    write_html(whole, tmp_path / "report.html")
    browser.resize(1280, 900)
    browser.open(tmp_path / "report.html")
    assert "rank 2 did not answer within 60 s" in browser.evaluate(
        "document.querySelector('.failure').innerText"
    )
    cell = "document.querySelector('#matrix-table tbody tr button.cell')"
    assert browser.evaluate(f"{cell}.getAttribute('aria-label')").endswith("4 ranks: 1 hang")
    browser.evaluate(f"{cell}.click()")
    assert browser.evaluate("document.activeElement.textContent") == "a/test_b.py::test_c[cpu-4]"
    assert browser.evaluate("document.querySelectorAll('#tests-table tbody tr').length") == 1
