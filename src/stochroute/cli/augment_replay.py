"""`stochroute augment --replay FILE`: makes rows of an earlier output again, and compares."""

import json
from dataclasses import asdict
from typing import Any

import typer

from stochroute.cli.errors import BadInput, Failed
from stochroute.loading import LoadedModel, load_model


def replay_rows(
    file: str, count: int, model: str | None, routing: str | None, split: str, device: str, as_json: bool
) -> None:
    """The first `count` new rows of the file, 0 for all; Failed where one of them gives another text."""
    from stochroute.applications.augment import new_rows, open_source
    from stochroute.applications.augment import replay as run
    from stochroute.applications.augment.engine import LocalEngine
    from stochroute.cli.progress import progress_bar

    if count < 0:
        raise BadInput(f"--rows {count}: give how many rows to make again, or 0 for all")

    def load(name: str | None, dtype: str) -> LoadedModel:
        return load_model(name if model is None else model, device, dtype)

    rows = list(new_rows(open_source(file, split)))
    if not rows:
        raise BadInput(f"--replay {file}: has no row that augment made")
    chosen = rows[: count or None]
    same = 0
    differing: list[dict[str, Any]] = []
    others: set[str] = set()
    with progress_bar("rows") as progress:
        for row in run(chosen, load, routing):
            same += row.same
            others |= {row.engine} - {LocalEngine.name}
            differing += [] if row.same else [asdict(row)]
            progress(same + len(differing), len(chosen))
    if others:
        typer.echo(
            f"rows were made by {', '.join(sorted(others))}, and again by {LocalEngine.name}: at a tie of two tokens "
            f"texts may part",
            err=True,
        )
    if as_json:
        print(json.dumps({"same": same, "differing": differing, "rows": len(rows)}, ensure_ascii=False))
    else:
        typer.echo(f"{file}: {same} of {len(chosen)} rows made again alone, text for text; it has {len(rows)}")
    if differing:
        first = differing[0]
        raise Failed(
            f"row {first['row'] + 1}, path {first['path']}, gave another text: {first['now'][:80]!r}. Alone and in a "
            f"batch two tokens may be closer than the rounding; a run with --dtype float64 decides such ties"
        )
