"""The documentation as it is built, in headless Chromium: complete, readable on a phone, and alone with its own host.

python -m pytest -m browser tests/browser/test_documentation.py
"""

import functools
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the documentation's tools are not installed: pip install -e '.[docs]'")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
PHONE = {"width": 375, "height": 740}
WAIT = 120_000  # milliseconds, on a busy machine
# what a browser fetches by itself; a link that is followed by hand may lead anywhere
FETCHED = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\ssrc="(https?:)?//|<link[^>]*rel="(?:stylesheet|preload|preconnect)'
)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a strict build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def url(site: Path):
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pages(site: Path) -> list[str]:
    return sorted(f.relative_to(site).as_posix().removesuffix("index.html") for f in site.rglob("index.html"))


def test_no_page_names_a_foreign_host_for_anything_that_it_fetches(site: Path):
    for page in site.rglob("*.html"):
        for found in FETCHED.finditer(page.read_text(encoding="utf-8")):
            tag = page.read_text(encoding="utf-8")[found.start() : found.end() + 200].split(">")[0]
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), f"{page.name}: {tag}"
    for sheet in (site / "css").rglob("*.css"):
        assert "//" not in sheet.read_text(encoding="utf-8")


def test_every_page_opens_on_a_phone_in_the_dark_without_sideways_scrolling_or_foreign_requests(
    chromium, site: Path, url: str
):
    context = chromium.new_context(viewport=PHONE, color_scheme="dark", locale="en-GB")
    context.set_default_timeout(WAIT)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith((url, "data:")) else problems.append(asked.url))
    for name in pages(site):
        page.goto(f"{url}/{name}", wait_until="load")
        assert page.evaluate("document.body.getAttribute('data-md-color-scheme')") == "slate", name
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], f"{name} is {wide} pixels wide"
        broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert not broken, name
    context.close()
    assert not problems


def test_formulas_are_mathematics_and_chinese_pages_say_that_they_are_chinese(chromium, url: str):
    page = chromium.new_page()
    page.set_default_timeout(WAIT)
    page.goto(f"{url}/mathematics/")
    assert page.locator("math").count() > 80
    text = page.locator("article").inner_text()
    assert "\\frac" not in text
    assert "\\[" not in text
    assert page.locator("html").get_attribute("lang") == "en"
    page.goto(f"{url}/zh/")
    assert page.locator("html").get_attribute("lang") == "zh"
    page.close()


def test_the_languages_lead_to_each_other_and_the_search_finds_a_page(chromium, url: str):
    page = chromium.new_page()
    page.set_default_timeout(WAIT)
    page.goto(f"{url}/routing/token/")
    hrefs = page.locator(".md-select__link").evaluate_all("links => links.map(l => l.href)")
    assert hrefs == [f"{url}/", f"{url}/zh/"]
    page.click("input[name=query]")
    page.keyboard.type("philox")
    page.wait_for_selector(".md-search-result__item", state="attached")
    assert "athematics" in page.locator(".md-search-result__list").inner_text()
    page.close()
