"""A story world whose coherence and distinctness are facts, not opinions.

    plot = draw_plot(seed=0, index=0)
    text = tell(plot, language="en", form="story", telling=7)
    check(text).plot == plot

A simulator draws plots from a known, exact number of them; a teller puts them into English or Chinese, as a
story or as a dialogue; a checker reads any text back into its plot and says what is wrong with it. Pure
Python, no download.
"""

from stochroute.world.checker import Verdict, check
from stochroute.world.plots import WORLD, Plot, World, draw_plot, number_of, number_of_plots, plot_at
from stochroute.world.telling import FORMS, LANGUAGES, draw_text, tell

__all__ = [
    "FORMS", "LANGUAGES", "WORLD", "Plot", "Verdict", "World",
    "check", "draw_plot", "draw_text", "number_of", "number_of_plots", "plot_at", "tell",
]  # fmt: skip
