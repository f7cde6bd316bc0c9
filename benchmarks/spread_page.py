"""Fills docs/spread.md from the results of benchmarks/spread.py.

python benchmarks/spread_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

DOCS = Path(__file__).parents[1] / "docs"


def signed(interval: dict[str, float], digits: int) -> str:
    """A difference with its interval."""
    mean, low, high = (f"{interval[key]:+.{digits}f}".replace("-", "−") for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def cells(record: dict[str, Any], digits: int) -> list[str]:
    """What spreading does: different texts, how many more, the Vendi score, and the nats to so many digits."""
    different = record["different"]
    return [
        f"{different['independent']['mean']:.2f}",
        f"{different['spread']['mean']:.2f}",
        f"{different['ratio'] - 1:+.0%}".replace("-", "−"),
        signed(record["vendi"]["difference"], 2),
        signed(record["nats"]["difference"], digits),
    ]


def rows(records: list[dict[str, Any]], paths: int) -> list[list[str]]:
    """One row a temperature and length."""
    table = [
        ["T", "tokens", f"different texts of {paths}: independent", "spread", "more", "Vendi score of n-grams", "nats"],
        ["---"] * 7,
    ]
    for record in records:
        table.append([f"{record['temperature']:g}", str(record["tokens"]), *cells(record, digits=2)])
    return table


def main() -> None:
    found = read("spread")
    said = (
        f"{found['prompts']} prompts, {found['families']} families of {found['paths']} paths each. The last two "
        f"columns are differences, spread minus independent, with 95 % intervals over prompts; a text has the same "
        f"nats under the model, as it must. Measured by `{found['command']}` on {found['date']}, "
        f"{found['processor']}."
    )
    parts = [f"**{name}**\n\n{markdown(rows(records, found['paths']))}" for name, records in found["models"].items()]
    fill(DOCS / "spread.md", "benchmarks/spread_page.py", "\n\n".join([*parts, said]))


if __name__ == "__main__":
    main()
