"""The page that `write` leaves, in headless Chromium: a tree that folds, readable in the dark, alone with itself.

python -m pytest -m browser tests/browser
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stochroute as sr
from contrast import contrast, luminance
from stochroute.applications.write import Author, Choice, Clean, Node, Tree, form_named, grow, write_tree
from stochroute.loading import load_model

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
OPENING = "Once upon a time <b>there & then</b>, there lived a fox named Mira."
HOSTILE = (
    '<script>document.title = "taken"</script><img src="http://elsewhere.example/a.png" onerror="x()"> <b>bold</b>'
)


@pytest.fixture(scope="module")
def tree() -> Tree:
    """Two levels that the embedded model wrote, and beside them a text that would like to be markup."""
    loaded = load_model(None, "cpu", "auto")
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=sr.Structural(strength=0.6)))
    author = Author(loaded, routed, form_named("story"))
    grown = grow(author, Clean(loaded, routed), OPENING, 7, Choice(6, 2), depth=2)
    routed.detach()
    hostile = Node(HOSTILE, grown.root.children[0].receipt, 1.0, 0.5, finished=True)
    return replace(grown, root=replace(grown.root, children=(*grown.root.children, hostile)))


@pytest.fixture(params=[(390, "dark"), (1100, "light")], ids=["phone, dark", "desk, light"])
def page(chromium: Any, tree: Tree, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened; what it logs as an error, and whatever it asks for but itself, fails the test."""
    width, scheme = request.param
    write_tree(tmp_path / "tree.html", tree)
    address = (tmp_path / "tree.html").as_uri()
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: None if asked.url == address else problems.append(asked.url))
    page.goto(address, wait_until="networkidle")
    page.is_dark = scheme == "dark"
    yield page
    context.close()
    assert problems == []


def test_every_continuation_folds_out_into_its_own(page: Any, tree: Tree):
    tops = page.locator("main > ol > li")
    assert tops.count() == len(tree.root.children) == 3
    for place, child in enumerate(tree.root.children):
        top = tops.nth(place)
        below = top.locator("ol > li")
        assert below.count() == len(child.children)
        shown = top.locator("span").first
        assert shown.is_visible()
        assert shown.text_content() == child.text.strip()
        assert child.receipt is not None
        assert f"path {child.receipt.path} · {child.nats:.2f} nats a word" in top.locator("small").first.inner_text()
        if not child.children:
            continue
        assert not below.first.is_visible()
        top.locator("summary").first.click()
        assert [span.inner_text() for span in below.locator("span").all()] == [c.text.strip() for c in child.children]
        assert below.first.is_visible()
        top.locator("summary").first.press("Enter")
        assert not below.first.is_visible()


def test_the_opening_and_the_texts_stand_there_as_text(page: Any):
    assert page.inner_text("h1") == OPENING
    assert page.title() == OPENING
    assert page.locator("main > ol > li").last.locator("span").text_content() == HOSTILE
    assert page.locator("b, img, script").count() == 0


def test_the_page_follows_the_readers_light_and_fits_the_screen(page: Any):
    """A contrast of 4.5, as WCAG 2 asks for at level AA."""
    for selector in ("h1", "header p", "main span", "main small"):
        assert contrast(page, selector, "body") >= 4.5, selector
    assert (luminance(page, "body", "backgroundColor") < 0.1) == page.is_dark
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
