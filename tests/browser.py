"""A headless Chromium for the tests of pages: what it needs, and how it looks into them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DRAWN = ("#levels", ".noUi-handle")
# All elements of a selector, those within shadow roots too.
DEEP = """
const found = [];
(function look(root) {
  for (const e of root.querySelectorAll('*')) {
    if (e.matches(arguments[0] || SELECTOR)) found.push(e);
    if (e.shadowRoot) look(e.shadowRoot);
  }
})(document);
return found;
"""


def missing() -> str:
    """What is missing for these tests, or nothing."""
    parts = [name for name in ("panel", "selenium") if find_spec(name) is None]
    if shutil.which("chromium") is None:
        parts.append("chromium")
    if shutil.which("chromedriver") is None:
        parts.append("chromedriver")
    return ", ".join(parts)


@contextmanager
def served(program: str, *arguments: str) -> Iterator[str]:
    """``ccm explore`` or ``deepspec explore`` in a process of its own; its address."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", program, "explore", "--port", "0", "--no-browser", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http"), process.stderr.read() if process.stderr else ""
        yield line.split("?")[0]
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """What a test asks of a page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.hosts: set[str] = set()
        self.errors: list[str] = []

    def open(self, address: str, *drawn: str) -> None:
        """Go there and wait until the page is drawn: until these selectors find something."""
        self.driver.get("about:blank")
        self.driver.get(address)
        self.until(lambda: all(self.all(selector) for selector in drawn or DRAWN))

    def until(self, true: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"did not happen in {seconds} s"
            time.sleep(0.05)

    def all(self, selector: str) -> list[Any]:
        """The elements of a selector, within shadow roots too."""
        script = DEEP.replace("arguments[0] || SELECTOR", json.dumps(selector))
        return list(self.driver.execute_script(script))

    def read(self, selector: str, script: str) -> Any:
        """Something of the first such element, in one step: the page may redraw between two."""
        look = DEEP.replace("arguments[0] || SELECTOR", json.dumps(selector))
        return self.driver.execute_script(
            f"const all = (() => {{ {look} }})(); if (!all.length) return null;"
            f"const e = all[0]; return {script}"
        )

    def text(self, selector: str) -> str:
        """The text of the first such element; nothing without one."""
        return str(self.read(selector, "e.textContent") or "")

    def rows(self) -> list[list[str]]:
        """The table of levels, cell by cell."""
        cells = "[...e.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        return list(self.read("#levels", cells) or [])

    def listen(self) -> None:
        """Note the hosts that were asked and the errors that were logged since the last look."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = message["params"]
                url = parameters.get("url") or parameters["request"]["url"]
                if not url.startswith(("data:", "blob:", "about:", "chrome:")):
                    self.hosts.add(url.split("/")[2].split(":")[0])
        self.errors += [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]
