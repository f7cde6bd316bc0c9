"""Is the number of answers that `explore` estimates right? On prompts that leave a known number of plots.

    python benchmarks/exploration.py                # about five minutes on one core

A prompt is the beginning of a told story, cut after a sentence or inside one, so that 4, 12 or 144 plots are left; they
are counted by going through all plots that agree with it. The embedded model continues it along paths, at temperature 1
and its own noise, until 95 % of the answers' probability is covered; the checker reads the plots.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from harness import save

import stochroute as sr
from stochroute.applications.explore import Exploration, Explored, SamePlot, explore
from stochroute.embedded import EMBEDDED
from stochroute.generation.decoding import Decoding
from stochroute.loading import load_model
from stochroute.world import WORLD, Plot, draw_plot
from stochroute.world.grammar import Template
from stochroute.world.plots import GENDERS, ROLES, THREAD
from stochroute.world.telling import grammar_for

SEED = 20261127  # of plots and paths
AT_TEMPERATURE_1 = Decoding(temperature=1.0)


@dataclass(frozen=True)
class Cut:
    """Where a prompt ends: after so many whole sentences, and then inside one of the next, after so many slots."""

    language: str
    where: str
    sentences: int
    template: int | None = None
    slots: int = 0


CUTS = (
    Cut("en", "before the ending", 6),
    Cut("en", "before the solution", 5),
    Cut("en", "the helper named, not its kind", 4, template=0, slots=1),
    Cut("en", "the helper's kind told, not its name", 4, template=1, slots=1),
    Cut("zh", "before the ending", 6),
    Cut("zh", "before the solution", 5),
    Cut("zh", "the helper's kind told, not its name", 4, template=0, slots=1),
)


def facts_of(plot: Plot) -> dict[str, str]:
    """Role -> value, the hero's pronoun among them."""
    return vars(plot) | {"hero_gender": GENDERS[plot.hero]}


def beginning(template: Template, facts: dict[str, str], slots: int) -> str:
    """The sentence up to the words after so many of its slots."""
    words = [slot.words[facts[slot.role]] for slot in template.slots[:slots]]
    return (
        template.literals[0] + "".join(w + rest for w, rest in zip(words, template.literals[1:], strict=False))
    ).rstrip()


def cut_prompt(plot: Plot, cut: Cut, telling: int) -> tuple[str, int]:
    """The prompt, and how many plots have a telling that begins with it."""
    grammar, facts = grammar_for(cut.language, "story"), facts_of(plot)
    chosen = [grammar.templates[beat.name] for beat in grammar.beats[: cut.sentences]]
    templates = [each[(telling + step) % len(each)] for step, each in enumerate(chosen)]
    told = {slot.role for template in templates for slot in template.slots} & set(ROLES)
    sentences = [template.fill(facts) for template in templates]
    following = grammar.templates[grammar.beats[cut.sentences].name]
    partial = "" if cut.template is None else beginning(following[cut.template], facts, cut.slots)
    prompt = grammar.separator.join([*sentences, partial] if partial else sentences)
    return prompt, sum(_goes_on_so(other, following, partial) for other in _agreeing(plot, told))


def _agreeing(plot: Plot, told: set[str]) -> list[Plot]:
    """All plots of the world with these roles of this plot."""
    free = [role for role in WORLD.cast if role not in told]
    threads = [
        values
        for thread in WORLD.threads
        if all(role not in told or thread[i] == getattr(plot, role) for i, role in enumerate(THREAD))
        for values in [dict(zip(THREAD, thread, strict=True))]
    ]
    casts = [dict(zip(free, values, strict=True)) for values in product(*(WORLD.cast[role] for role in free))]
    return [replace(plot, **cast, **thread) for cast in casts for thread in threads]


def _goes_on_so(plot: Plot, following: tuple[Template, ...], partial: str) -> bool:
    return any(template.fill(facts_of(plot)).startswith(partial) for template in following)


def measure(explored: Explored, known: int) -> dict[str, Any]:
    """What was found, and whether the known number lies in the interval, at the end and after each batch."""
    answers = explored.answers
    return {
        "paths": len(explored.texts),
        "incoherent": len(explored.texts) - explored.seen.texts,
        "known": known,
        "seen": explored.seen.answers,
        "estimate": asdict(answers),
        "coverage": asdict(explored.coverage),
        "inside": inside(asdict(answers), known),
        "saturated": explored.saturated,
        "on_the_way": [
            {
                "paths": step["texts"],
                "seen": step["answers"],
                **step["estimate"],
                "inside": inside(step["estimate"], known),
            }
            for step in explored.curve()
        ],
    }


def inside(interval: dict[str, Any], known: int) -> bool:
    """Whether the known number lies in the interval, whole numbers at its ends counted in."""
    return round(interval["low"]) <= known and (interval["high"] is None or known <= round(interval["high"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plots", type=int, default=2, help="stories cut in every way (default 2)")
    parser.add_argument("--most", type=int, default=1024, help="paths a prompt, at most (default 1024)")
    options = parser.parse_args()
    loaded = load_model(None, "cpu", "auto")
    routed = sr.RoutedModel.from_pretrained(loaded.model, EMBEDDED)
    found: list[dict[str, Any]] = []
    for number, cut in product(range(options.plots), CUTS):
        prompt, known = cut_prompt(draw_plot(SEED, number), cut, telling=number)
        settings = Exploration(
            seed=SEED + number, until=0.95, most=options.most, batch=64, decoding=AT_TEMPERATURE_1, new_tokens=160
        )
        explored = explore(prompt, settings, loaded, routed, SamePlot())
        found.append({"language": cut.language, "cut": cut.where, "prompt": prompt, **measure(explored, known)})
        print(
            {key: found[-1][key] for key in ("language", "cut", "known", "seen", "paths", "estimate", "inside")},
            flush=True,
        )
    result = {
        "prompts": found,
        "inside": sum(one["inside"] for one in found),
        "inside_on_the_way": sum(step["inside"] for one in found for step in one["on_the_way"]),
        "steps": sum(len(one["on_the_way"]) for one in found),
        "noise": routed.config.to_dict(),
    }
    print("written:", save("exploration", result))


if __name__ == "__main__":
    main()
