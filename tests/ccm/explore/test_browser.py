"""The page in a real browser: what is moved, what is shown, what is asked of the network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import ccm
from ccm.explore.state import ViewState
from tests.browser import Browser, chromium, missing, served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=f"missing: {missing()}; try make test-browser"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served("ccm") as found:
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


def values(browser: Browser, level: str) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in browser.rows() if row[0] == level]


def expected(spectrum: ccm.Spectrum) -> list[tuple[str, str]]:
    return [(level.label, f"{level.value:.6g}") for level in spectrum.levels]


@pytest.mark.parametrize("width", [1280, 400])
def test_a_url_restores_its_view(browser: Browser, address: str, width: int) -> None:
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    state = ViewState(dim=40, num_classes=4, snr=2.5, per_class=30, alpha=0.2)
    browser.open(address + state.query())
    assert values(browser, "1") == expected(ccm.symmetric_spectrum(state.model, 0.2))
    assert values(browser, "3") == expected(ccm.bayes_spectrum(state.model))
    assert browser.text("#error") == f"{state.model.bayes_error():.6g}"
    assert browser.text("[role=alert]") == ""
    page = "return document.documentElement.scrollWidth"
    assert browser.driver.execute_script(page) <= width
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_slider_moves_the_numbers_and_the_url(browser: Browser, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(address + ViewState(dim=1000, per_class=1000).query())
    handle = browser.all(".noUi-handle")[2]  # D, C, then t
    handle.send_keys(Keys.ARROW_RIGHT)
    browser.until(lambda: "snr=3.1&" in browser.driver.current_url)
    model = ccm.CanonicalClassificationModel(1000, 10, 3.1)
    browser.until(lambda: values(browser, "3") == expected(ccm.bayes_spectrum(model)))
    assert browser.text("#alpha") == f"{model.bayes_alpha():.6g}"
    assert "snr=3.1)" in browser.text("pre")


def test_the_line_at_t_can_be_dragged(browser: Browser, address: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(address)
    # Where the line is on the screen, and how many pixels a unit of t is.
    x, y, unit = browser.driver.execute_script(
        "const views = [...Bokeh.index.query(v => v.model.name === 'snr')];"
        "const frame = views[0].frame;"
        "views[0].el.scrollIntoView({block: 'center'});"
        "const at = views[0].el.getBoundingClientRect();"
        "const place = t => frame.x_scale.compute(t);"
        "return [at.left + place(3), at.top + at.height / 3, place(4) - place(3)]"
    )
    action = ActionChains(browser.driver, duration=50)
    action.w3c_actions.pointer_action.move_to_location(round(x), round(y)).pointer_down()
    for step in range(1, 6):
        action.w3c_actions.pointer_action.move_to_location(round(x + step * unit / 5), round(y))
    action.w3c_actions.pointer_action.pointer_up()
    action.perform()
    browser.until(lambda: "snr=4&" in browser.driver.current_url, 15)
    model = ccm.CanonicalClassificationModel(100, 10, 4.0)
    browser.until(lambda: values(browser, "3") == expected(ccm.bayes_spectrum(model)))


def test_bad_urls_get_a_message(browser: Browser, address: str) -> None:
    browser.open(address + "?dim=5&snr=<script>alert(1)</script>&colour=red")
    said = browser.text("[role=alert]")
    assert "dim must be at least classes" in said
    assert "snr takes a number from 0 to 12, got '<script>" in said
    assert "there is no 'colour'" in said
    assert values(browser, "3") == expected(ccm.bayes_spectrum(ViewState().model))


def press(browser: Browser, words: str) -> None:
    button = next(b for b in browser.all("button") if b.text == words)
    browser.driver.execute_script("arguments[0].click()", button)


def test_a_simulation_shows_its_draws(browser: Browser, address: str) -> None:
    browser.open(address + ViewState(dim=20, num_classes=4, per_class=30).query())
    press(browser, "Simulate one spectrum")
    browser.until(lambda: browser.text("#status") == "8 draws")
    assert [group for group, _ in values(browser, "4")] == ["outliers", "mini-bulk", "bulk"]
    assert "±" in values(browser, "4")[0][1]


def test_a_slow_simulation_is_cancelled_by_moving_on(browser: Browser, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(address + ViewState(dim=1000, per_class=100).query())
    press(browser, "Simulate one spectrum")
    browser.until(lambda: "draw 1 of 8" in browser.text("#status"))
    browser.all(".noUi-handle")[2].send_keys(Keys.ARROW_RIGHT)
    browser.until(lambda: browser.text("#status") == "")
    assert values(browser, "4") == []


def test_a_fit_measures_alpha(browser: Browser, address: str) -> None:
    state = ViewState(dim=10, num_classes=3, per_class=40, alpha="measured")
    browser.open(address + state.query())
    browser.until(lambda: browser.text("#status").startswith("fitted"))
    fitted = ccm.simulate(state.model, 40, seed=0).fitted_alpha
    assert browser.text("#alpha") == f"{fitted:.6g}"


def test_what_is_downloaded_is_the_table(browser: Browser, address: str, tmp_path: Path) -> None:
    state = ViewState(dim=20, num_classes=4, per_class=30)
    allow = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
    browser.open(address + state.query())
    link = next(a for a in browser.all("a") if "Download CSV" in a.text)
    browser.driver.execute_script("arguments[0].click()", link)
    browser.until(lambda: (tmp_path / "ccm-levels.csv").exists())
    from ccm.explore.levels import level_rows, to_csv

    alpha = state.model.bayes_alpha()
    assert (tmp_path / "ccm-levels.csv").read_text() == to_csv(
        level_rows(state, alpha), state, alpha
    )
