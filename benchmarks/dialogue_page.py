"""Fills docs/chat.md from results/dialogue.json.

python benchmarks/dialogue_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

DOCS = Path(__file__).parents[1] / "docs"
LANGUAGES = {"en": "English", "zh": "Chinese"}
COLUMNS = ("coherent", "distinct coherent", "distinct reply 2", "distinct reply 3", "repeats other scenes")
OWN = "distinct coherent"


def figure(found: dict[str, float]) -> str:
    """A mean with its interval."""
    return f"{found['mean']:.3f} ({found['low']:.3f} – {found['high']:.3f})"


def table(families: dict[str, Any]) -> str:
    """Every family at its chosen setting, and what it is from tuned sampling in distinct coherent talks."""
    rows = [["", "chosen", *COLUMNS, f"{OWN}, minus tuned sampling"], ["---"] * (len(COLUMNS) + 3)]
    for name, family in families.items():
        difference = family.get("minus_tuned_sampling")
        minus = "" if difference is None else figure(difference[OWN]).replace("-", "−")
        rows.append([name, family["best"], *(figure(family["report"][column]) for column in COLUMNS), minus])
    return markdown(rows)


def main() -> None:
    found = read("dialogue")
    parts = [f"{LANGUAGES[language]}:\n\n{table(families)}" for language, families in found["languages"].items()]
    families = [family for language in found["languages"].values() for family in language.values()]
    itself = max(family["report"]["repeats itself"]["mean"] for family in families)
    note = (
        f"{found['scenes']} scenes, {found['talks_a_scene']} talks of {found['turns']} turns each. Within a talk the "
        f"share of repeated 4-grams is at most {itself:.3f} in every family. Intervals of 95 % by a bootstrap "
        "over scenes. "
        f"Measured by `{found['command']}` on {found['date']}, {found['processor']}, threads: {found['threads']}."
    )
    fill(DOCS / "chat.md", "benchmarks/dialogue_page.py", "\n\n".join([*parts, note]))


if __name__ == "__main__":
    main()
