"""The playground in headless Chromium, against a server in this process.

python -m pytest -m browser tests/browser
"""

import json
import time

import pytest

import stochroute as sr
from cli_model import save_tiny_model
from contrast import contrast, luminance
from live_server import Live, engine_of, live

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
WAIT = 120_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def server():
    with live(engine_of(None, sr.RoutingConfig(), dtype="float32", rows=32)) as server:
        yield server


@pytest.fixture
def browser(launch):
    """One a test: nothing is carried over, and a test that hangs holds up no other."""
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture
def page(browser, server: Live):
    """A fresh page that has loaded; whatever it logs as an error, or asks of another origin, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", offline=False)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith((server.url, "data:")) else problems.append(asked.url)
    )
    page.problems = problems
    page.goto(server.url)
    page.wait_for_selector("#run:not([disabled])")
    yield page
    context.close()
    assert not problems


def settle(page) -> None:
    page.wait_for_selector("body:not(.walking)")
    page.wait_for_timeout(150)  # the last drawing


def walk(page, prompt: str = "Once upon a time", n: int = 4, tokens: int = 24, seed: str = "7") -> None:
    page.fill("#prompt", prompt)
    for setting, value in (("n", n), ("max_tokens", tokens)):
        page.locator(f"#{setting}").fill(str(value))
    page.fill("#seed", seed)
    page.click("#run")
    settle(page)


def expected(server: Live, prompt: str = "Once upon a time", **fields) -> list[dict]:
    asked = {"model": "tiny", "prompt": prompt, "n": 4, "max_tokens": 24, "seed": 7, **fields}
    answer = server.http.post("/v1/completions", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"]


def texts(page, arm: str = "along") -> dict[str, str]:
    """The text of every path as it stands on the page: the words from the root to its leaf."""
    return page.evaluate(
        """(arm) => Object.fromEntries([...document.querySelectorAll(`.arm.${arm} .leaf`)].map((leaf) => {
            let text = "";
            for (let node = leaf; node; node = node.parentElement.closest(".node")) {
                const words = [...node.querySelector(".text").querySelectorAll(".word")];
                text = words.map((word) => word.textContent).join("") + text;
            }
            return [leaf.querySelector(".id").textContent, text];
        }))""",
        arm,
    )


def without_space(text: str) -> str:
    return "".join(text.split())


def same_texts(shown: dict[str, str], choices: list[dict]) -> None:
    """White space at a branch is not drawn, so it is left out of the comparison."""
    assert {path: without_space(text) for path, text in shown.items()} == {
        choice["path"]: without_space(choice["text"]) for choice in choices
    }


# -- walking


def test_paths_are_drawn_as_a_tree_that_holds_what_the_server_wrote(page, server: Live):
    walk(page)
    same_texts(texts(page), expected(server, strength=0.1, hold="sequence", span="generated", temperature=1))
    assert page.locator(".given").first.text_content() == "Once upon a time"
    assert page.locator(".leaf").count() == 4
    assert "4 texts" in page.locator(".arm h2").text_content()
    assert "seed 7" in page.locator(".arm h2").text_content()


def test_a_shared_beginning_is_drawn_once(page):
    walk(page, n=8)
    words = [text.split() for text in texts(page).values()]
    shared = [node for node in page.locator(".node:not(.leaf) > .text").all() if node.text_content()]
    assert len(shared) > 1  # two of eight stories begin alike
    first = [own[0].strip(",") for own in words]
    for node in shared[1:]:
        begin = (node.text_content() or "").split()[0].strip(",")
        assert first.count(begin) != 1


def test_texts_stream_and_can_be_stopped(page, server: Live, monkeypatch):
    step = server.engine.scheduler.step

    def slow_step():
        time.sleep(0.1)  # so that no text ends before it is stopped
        return step()

    monkeypatch.setattr(server.engine.scheduler, "step", slow_step)
    page.fill("#prompt", "Once upon a time")
    page.locator("#max_tokens").fill("400")
    page.click("#run")
    page.wait_for_selector(".word")
    assert page.locator(".cursor").count() > 0
    page.keyboard.press("Escape")
    settle(page)
    assert page.locator("#status").text_content() == "Stopped."
    server.until_idle()


def test_a_replay_is_the_same_text(page):
    walk(page)
    page.locator(".leaf button", has_text="Replay").nth(2).click()
    page.wait_for_selector(".badge")
    assert page.locator(".badge").text_content() == "identical"


def test_a_path_goes_on_where_it_was_cut(page, server: Live):
    walk(page)
    before = texts(page)
    path = next(iter(before))
    page.locator(".leaf", has_text=path).get_by_role("button", name="Continue").click()
    settle(page)
    after = texts(page)
    assert len(after[path]) > len(before[path])
    assert without_space(after[path]).startswith(without_space(before[path])[:-8])
    (longer,) = expected(server, n=1, seed=None, paths=[path], max_tokens=48, strength=0.1) if path else [{}]
    assert without_space(after[path]) == without_space(longer["text"])


def test_a_click_on_a_word_forks_there_and_the_earlier_walk_is_kept(page):
    walk(page)
    before = texts(page)
    word = page.locator(".leaf .word").nth(3)
    word.click()
    settle(page)
    prompt = page.input_value("#prompt")
    assert prompt.startswith("Once upon a time")
    assert len(prompt) > len("Once upon a time")
    assert any(without_space(before_text).startswith(without_space(prompt[16:])) for before_text in before.values())
    assert page.locator(".given").first.text_content() == prompt
    page.keyboard.press("Alt+ArrowLeft")
    page.wait_for_timeout(100)
    assert texts(page) == before


def test_plain_sampling_stands_beside_and_has_no_noise(page, server: Live):
    page.check("#compare")
    page.locator("#strength").fill("0.8")
    walk(page)
    same_texts(texts(page, "plain"), expected(server, strength=0))
    same_texts(texts(page, "along"), expected(server, strength=0.8))


def test_spread_texts_share_the_distribution_out_and_each_replays_and_goes_on(page, server: Live):
    page.check("#spread")
    walk(page)
    before = texts(page)
    assert set(before) == {sr.format_path(path) for path in sr.derive_paths(7, 4, spread=True)}
    same_texts(before, expected(server, strength=0.1, spread=True))
    path = list(before)[2]
    leaf = page.locator(".leaf", has_text=path)
    leaf.get_by_role("button", name="Replay").click()
    page.wait_for_selector(".badge")
    assert page.locator(".badge").text_content() == "identical"
    leaf.get_by_role("button", name="Continue").click()
    settle(page)
    (longer,) = expected(server, n=1, seed=None, paths=[path], max_tokens=48, strength=0.1, spread=True)
    assert without_space(texts(page)[path]) == without_space(longer["text"])
    assert without_space(longer["text"]).startswith(without_space(before[path])[:-8])


def test_a_pin_outlives_the_page_and_replays(page, server: Live):
    walk(page)
    page.locator(".leaf button", has_text="Pin").first.click()
    page.reload()
    page.wait_for_selector("#run:not([disabled])")
    card = page.locator("#pins .card")
    assert card.count() == 1
    card.get_by_role("button", name="Replay").click()
    page.wait_for_selector("#pins .badge")
    assert page.locator("#pins .badge").text_content() == "identical"
    card.get_by_role("button", name="Unpin").click()
    assert page.locator("#pins").is_hidden()


# -- settings


def test_settings_without_effect_are_off_and_say_why(page):
    def is_off(name: str) -> bool:
        label = page.locator(f'[data-field="{name}"]')
        off = "off" in (label.get_attribute("class") or "").split()
        assert off == bool(label.get_attribute("title"))
        assert off == label.locator("input, select").is_disabled()
        return off

    assert not any(map(is_off, ("strength", "hold", "span", "top_p", "spread", "compare", "n")))
    assert is_off("budget")
    page.check("#spread")
    page.locator("#temperature").fill("0")
    assert is_off("top_p")
    assert is_off("spread")
    page.locator("#strength").fill("0")
    assert all(map(is_off, ("hold", "span", "compare")))
    walk(page)
    assert page.locator(".leaf").count() == 1  # greedy without noise: one text
    page.locator("#strength").fill("0.4")
    walk(page)
    assert page.locator(".leaf").count() >= 1
    assert not page.problems


@pytest.mark.parametrize("spread", [False, True], ids=["independent", "spread"])
def test_the_copied_request_gives_the_texts_on_the_page(page, server: Live, spread: bool):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.set_checked("#spread", spread)
    walk(page, seed="")
    shown = texts(page)
    page.click("#copy-curl")
    page.locator("#status", has_text="Copied").wait_for()
    curl = page.evaluate("navigator.clipboard.readText()")
    assert curl.startswith(f"curl {server.url}/v1/completions")
    body = curl[curl.index("-d '") + 4 : curl.rindex("'")].replace("'\\''", "'")
    assert json.loads(body).get("spread") == (True if spread else None)
    same_texts(shown, server.http.post("/v1/completions", json=json.loads(body)).json()["choices"])

    page.click("#copy-python")
    page.wait_for_timeout(200)
    script = page.evaluate("navigator.clipboard.readText()")
    assert ('"spread": True' in script) == spread
    lines: list[str] = []
    exec(script, {"print": lambda *parts: lines.append(" ".join(map(str, parts)))})
    same_texts(shown, [dict(zip(("path", "text"), line.split(" ", 1), strict=True)) for line in lines])


def test_a_refused_request_is_shown_in_the_servers_words(page):
    page.fill("#prompt", "word " * 600)
    page.click("#run")
    page.wait_for_selector("#status.bad")
    assert "shorten it" in page.locator("#status").text_content()
    page.problems.clear()  # the browser logs the 400


def test_a_server_with_a_key_asks_for_it(browser, tmp_path):
    with live(engine_of(save_tiny_model(tmp_path)), key="secret") as guarded:
        page = browser.new_page()
        page.goto(guarded.url)
        page.wait_for_selector("#key-row:not([hidden])", timeout=WAIT)
        page.fill("#key", "secret")
        page.keyboard.press("Tab")
        page.wait_for_selector("#run:not([disabled])", timeout=WAIT)
        assert page.locator("#model").text_content() == "tiny"
        page.close()


# -- keys, languages, looks


def test_everything_can_be_done_from_the_keyboard(page):
    page.keyboard.press("/")
    page.keyboard.press("Control+a")
    page.keyboard.type("Two friends met")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".word")
    settle(page)
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("p")
    assert page.locator("#pins .card").count() == 1
    page.locator(".word").first.focus()
    page.keyboard.press("r")
    page.wait_for_selector(".arm .badge")
    page.locator(".word").nth(2).focus()
    page.keyboard.press("Enter")
    settle(page)
    assert page.input_value("#prompt").startswith("Two friends met")
    assert page.input_value("#prompt") != "Two friends met"
    page.locator("#trees").click(position={"x": 1, "y": 1})
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()


def test_both_languages_name_every_control(page):
    english = page.locator("main").inner_text()
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert page.locator("#run").text_content() == "出发"
    chinese = page.locator("main").inner_text()
    assert "undefined" not in english + chinese
    labels = page.locator("[data-word]").all_text_contents()
    assert all(labels)
    keys = page.evaluate("import('/playground/words.js').then(() => 1)")
    assert keys == 1
    page.fill("#prompt", "从前")
    page.click("#run")
    settle(page)
    assert "段文本" in page.locator(".arm h2").text_content()
    page.reload()
    page.wait_for_selector("#run:not([disabled])")
    assert page.locator("#run").text_content() == "出发"  # the choice is kept


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_in_both_themes(page, theme):
    """A contrast of 4.5 for text, as WCAG 2 asks for at level AA."""
    page.emulate_media(color_scheme=theme)
    for selector, behind in (("body", "body"), (".quiet", "body"), (".prompt span", "#composer"), ("#run", "#run")):
        assert contrast(page, selector, behind) >= 4.5, selector
    assert (luminance(page, "body", "backgroundColor") < 0.1) == (theme == "dark")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_is_never_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    walk(page, n=8)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
