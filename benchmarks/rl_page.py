"""Fills docs/rl.md from the results of benchmarks/rl.py.

python benchmarks/rl_page.py
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from results import fill, markdown, read

PAGE = Path(__file__).parents[1] / "docs" / "rl.md"
_LAST = 4  # steps of a run, whose mean stands for where it got to


def rows(result: dict[str, Any]) -> list[list[str]]:
    """One row an arm, means over its seeds."""
    head = [
        "what makes stories differ",
        "seeds",
        "before",
        f"last {_LAST} steps",
        "new stories",
        "coherent",
        "different",
    ]
    table = [[*head, "clean model, T 1", "coherent"], ["---"] * 9]
    arms = dict.fromkeys(run["arm"] for run in result["runs"])
    for arm in arms:
        runs = [run for run in result["runs"] if run["arm"] == arm]
        means = [fmean(run[part][what] for run in runs) for part, what in _COLUMNS]
        steps = fmean(reward for run in runs for reward in run["rewards"][-_LAST:])
        shares = [result["before"][arm]["reward"], steps, *means]
        table.append([arm, str(len(runs)), *(f"{share:.2f}" for share in shares)])
    return table


_COLUMNS = (("own", "reward"), ("own", "coherent"), ("own", "distinct"), ("clean", "reward"), ("clean", "coherent"))


def main() -> None:
    result = read("rl")
    said = (
        "Shares: before, last steps, new stories and clean model are of rewarded stories; different, of plots among "
        f"the coherent ones. {result['stories']} stories a share, so ± 0.1 at most for one seed. Measured by "
        f"`{result['command']}`, finished on {result['date']}, {result['processor']}, threads: {result['threads']}, "
        f"torch {result['torch']}."
    )
    fill(PAGE, "benchmarks/rl_page.py", f"{markdown(rows(result))}\n\n{said}")


if __name__ == "__main__":
    main()
