"""A headless Chromium, as all pages are driven in."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CHROMIUM = os.environ.get("STOCHROUTE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[[], Any]]:
    """Starts a Chromium, which the caller closes."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the path: install it (Debian: apt-get install chromium) or set STOCHROUTE_CHROMIUM")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        yield lambda: playwright.chromium.launch(executable_path=CHROMIUM, args=options)


@pytest.fixture(scope="module")
def chromium(launch: Callable[[], Any]) -> Iterator[Any]:
    """One for all tests of a module."""
    browser = launch()
    yield browser
    browser.close()
