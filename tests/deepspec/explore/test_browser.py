"""The page on saved attributions in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import deepspec
from tests.browser import Browser, chromium, missing, served
from tests.deepspec.explore.saved import save_two

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=f"missing: {missing()}; try make test-browser"),
]
DRAWN = ("#verdicts", "input[type=checkbox]", "canvas, svg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_two(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served("deepspec", str(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def _quiet(browser: Browser) -> Iterator[None]:
    """No test leaves an error in the console or asks another host than this one."""
    yield
    browser.listen()
    assert browser.errors == []
    assert browser.hosts == {"127.0.0.1"}


@pytest.mark.parametrize("width", [1280, 400])
def test_a_url_restores_its_view(browser: Browser, address: str, folder: Path, width: int) -> None:
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.open(f"{address}?run=1&without=own_class", *DRAWN)
    split = deepspec.Attribution.load(folder / "epoch-10").train
    assert browser.text("#run") == "epoch-10"
    assert browser.text("#largest") == f"{float(split.top[0]):.6g}"
    assert browser.text("[role=alert]") == ""
    page = "return document.documentElement.scrollWidth"
    assert browser.driver.execute_script(page) <= width
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_knockout_is_clicked_on(browser: Browser, address: str) -> None:
    browser.open(f"{address}?without=", *DRAWN)
    browser.all("input[type=checkbox]")[1].click()
    browser.until(lambda: "without=cross_class" in browser.driver.current_url)


def test_a_bad_url_gets_a_message(browser: Browser, address: str) -> None:
    browser.open(f"{address}?run=99&split=<b>x", *DRAWN)
    assert "run: expected a number from 0 to 1, got '99'" in browser.text("[role=alert]")
    assert browser.text("#run") == "epoch-9"
