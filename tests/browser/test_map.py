"""The map of explore in headless Chromium, on a phone's width and in the dark, with no network.

python -m pytest -m browser tests/browser
"""

from pathlib import Path
from typing import Any

import pytest

from stochroute.applications.explore import Explored, Text, cluster, write_map
from stochroute.evaluation.embedding import WordLlamaEmbedder
from stochroute.paths import format_path

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
TEXTS = (
    " a fox ran home",
    " a fox ran away",
    " a bear slept <b>long</b>",
    " a fox ran home",
    "",
    " the sea's waves 天地",
)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1100, "light")])
def test_the_map_draws_fits_and_hands_out_commands(chromium: Any, tmp_path: Path, width: int, scheme: str):
    found = Explored("It's", tuple(Text(format_path(i), t, True, t or None) for i, t in enumerate(TEXTS)), 2, 0.9)
    embedder = WordLlamaEmbedder()
    write_map(tmp_path / "map.html", found, cluster(found, embedder, 3), embedder, "--strength 0.1")
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto((tmp_path / "map.html").as_uri())
    page.wait_for_selector("#map .scatterlayer .point", state="attached", timeout=120_000)
    assert "6 paths gave 4 different answers (1 texts were none)" in page.inner_text("#verdict")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"
    assert page.locator("#map .point").count() == 4
    assert page.locator(".cluster").count() == 3
    assert page.locator(".cluster b").count() == 0, "texts are texts, not markup"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 24)"
    assert dark == (scheme == "dark")
    page.locator("#tree summary", has_text="4 paths, 2 ways").click(position={"x": 4, "y": 8})
    page.locator("#tree summary", has_text="fox ran").locator("button").click()
    page.wait_for_function("document.getElementById('said').textContent !== ''")  # the clipboard answers later
    assert "stochroute explore 'It'\\''s a fox ran' --strength 0.1" in page.inner_text("#said")
    page.locator("#tree summary", has_text="fox ran").click(position={"x": 4, "y": 8})
    page.locator("#tree .leaf", has_text="away").locator("button").click()
    page.wait_for_function("document.getElementById('said').textContent.includes('--replay 0000000000000001')")
    assert problems == []
    context.close()
