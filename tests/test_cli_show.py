"""What a person sees, and the numbers in the closing line."""

import io

import pytest
from rich.console import Console

from stochroute.cli.difference import difference
from stochroute.cli.rows import Row
from stochroute.cli.show import Summary, show


def row(text: str, path: str = "00c0ffee00c0ffee", prompt: str = "Once") -> Row:
    return Row(prompt, 0, text, path, 0, 7, {})


def shown(width: int, terminal: bool = True, no_color: bool = False, rows: list[Row] | None = None) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, no_color=no_color, legacy_windows=False)
    show(console, rows or [row(" upon a [time]"), row(" more", "00000000000000ff")])
    return stream.getvalue()


def test_texts_stand_side_by_side_on_a_wide_terminal():
    first, *_ = shown(120).splitlines()
    assert "00c0ffee00c0ffee" in first
    assert "00000000000000ff" in first


@pytest.mark.parametrize(("width", "terminal", "no_color"), [(60, True, False), (120, False, False), (120, True, True)])
def test_texts_stand_one_after_another_elsewhere(width: int, terminal: bool, no_color: bool):
    plain = shown(width, terminal, no_color)
    assert "── path 00c0ffee00c0ffee\nOnce upon a [time]\n\n── path 00000000000000ff\nOnce more\n" in plain
    assert "\x1b" not in plain


def test_a_long_prompt_is_shown_once():
    long = "word " * 50
    assert shown(120, rows=[row(" a", prompt=long), row(" b", prompt=long)]).count("word") == 50


def test_distance_is_one_minus_the_shared_words():
    assert difference(["a b c", "b c d"]).distance == 0.5
    assert difference(["Same words", "words, same!"]).distance == 0
    assert difference(["one"]).distance is None
    assert difference(["", ""]).distance == 0
    assert difference(["一二", "二三"]).distance == pytest.approx(2 / 3)
    assert difference(["a", "a ", "b"]).distinct == 2


def test_the_closing_line_counts_texts_within_their_prompt():
    summary = Summary()
    summary.add([row(" a"), row(" a")], story_world=False)
    summary.add([row(" a"), row(" b")], story_world=False)
    line = summary.line(seed=7, story_world=False)
    assert line.startswith("2 prompts × 2 paths from seed 7: 3 distinct texts, mean pairwise distance 0.50")


def test_the_closing_line_says_what_the_checker_found():
    from stochroute.world import draw_plot, tell

    summary = Summary()
    story = tell(draw_plot(seed=0, index=0), language="en", form="story", telling=0)
    summary.add([row(story[4:], prompt=story[:4]), row(" upon nothing")], story_world=True)
    assert summary.line(seed=None, story_world=True).endswith("1 of 2 coherent by the checker, 1 distinct plot")
    assert summary.line(seed=None, story_world=True).startswith("2 paths replayed: ")
