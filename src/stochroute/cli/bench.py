"""`stochroute bench`: what runs on this machine, how fast, against a named rival, and how creative it is.

stochroute bench attention --length 2048 --dtype bfloat16
stochroute bench creativity --rescore circle
"""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from stochroute.cli.errors import BadInput
from stochroute.cli.model_options import DTYPES

bench = typer.Typer(no_args_is_help=True, help="What runs on this machine, how fast, and how creative it is.")

_FUSED, _SLOW = ("fused", "fused, no noise"), ("blocked", "naive")
_SLOW_PAIRS = 3  # enough where the rival is ten times faster


@bench.callback()
def _bench() -> None:  # pyright: ignore[reportUnusedFunction]
    pass


@bench.command()
def attention(
    length: Annotated[int, typer.Option(help="Tokens of the sequence.")] = 1024,
    batch: Annotated[int, typer.Option(help="Sequences.")] = 1,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 8,
    width: Annotated[int, typer.Option(help="Channels of a head.")] = 64,
    dtype: Annotated[str, typer.Option(help="float64, float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda; auto takes a GPU where there is one.")] = "auto",
    pairs: Annotated[int, typer.Option(help="Interleaved pairs behind each ratio.")] = 20,
    backward: Annotated[bool, typer.Option("--backward", help="Time forward and backward together.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Attention with noise on its scores, timed against PyTorch's SDPA without noise.

    Example: stochroute bench attention --length 2048 --dtype bfloat16
    """
    sizes = {"--length": length, "--batch": batch, "--heads": heads, "--width": width, "--pairs": pairs}
    for option, value in sizes.items():
        if value < 1:
            raise BadInput(f"{option} {value}: give a positive number")
    if dtype not in DTYPES[1:]:
        raise BadInput(f"--dtype {dtype}: choose one of {', '.join(DTYPES[1:])}")
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise BadInput(f"--device {device}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: torch sees no CUDA device here; choose cpu")
    from stochroute.measuring.attention import Shape

    shape = Shape(batch, heads, length, width, getattr(torch, dtype), device)
    ratios, left_out = _ratios(shape, pairs, backward)
    report = {
        "implementations": _implementations(),
        "shape": {**asdict(shape), "dtype": dtype},
        "threads": torch.get_num_threads(),
        "backward": backward,
        "over_sdpa": ratios,
        "left_out": left_out,
    }
    print(json.dumps(report)) if as_json else _show(report)


@bench.command()
def creativity(
    rescore: Annotated[str, typer.Option(help="The task: circle or line.")],
    samples: Annotated[int, typer.Option(help="Paths to walk, one sample each.")] = 1024,
    seed: Annotated[int | None, typer.Option(help="Of the paths; none: the reported ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Scores the shipped model of a task with a known ceiling along fresh paths, in seconds.

    Example: stochroute bench creativity --rescore circle
    """
    if samples < 1:
        raise BadInput(f"--samples {samples}: give a positive number")
    from stochroute.embedded.creative import CREATIVE_TASKS, load_creative

    if rescore not in CREATIVE_TASKS:
        raise BadInput(f"--rescore {rescore}: choose {' or '.join(CREATIVE_TASKS)}")
    shipped = load_creative(rescore)
    found, ceiling = shipped.score(samples, seed), shipped.task.ceiling(samples)
    report = {
        "task": rescore,
        "seed": seed,
        **asdict(found),
        "ceiling": ceiling,
        "share_of_ceiling": found.creativity / ceiling,
        "reported": shipped.provenance["test"],
        "command": shipped.provenance["command"],
    }
    print(json.dumps(report)) if as_json else _show_score(report)


def _show_score(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    which = "the reported paths" if report["seed"] is None else f"fresh paths of seed {report['seed']}"
    title = f"{report['task']}: {report['samples']} samples along {which}"
    table = Table("", "here", "reported", title=title)
    for name in ("creativity", "coherence", "memorised", "unique"):
        here = report[name]  # None: nothing is coherent, and no share of it memorised
        table.add_row(name, "–" if here is None else f"{here:.3f}", f"{report['reported'][name]:.3f}")
    table.add_row("memorised by chance", f"{report['chance']:.3f}", "")
    table.add_row("ceiling of creativity", f"{report['ceiling']:.3f}", "")
    table.add_row("share of the ceiling", f"{report['share_of_ceiling']:.3f}", "")
    console = Console()
    console.print(table)
    console.print(f"trained by: {report['command']}", highlight=False)


def _implementations() -> list[dict[str, str]]:
    """One row for each device and dtype: what attention and structural noise run on, and why."""
    import torch

    from stochroute.kernels import choose_attention, choose_structural

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows: list[dict[str, str]] = []
    for name in devices:
        for dtype in DTYPES[1:]:
            arguments = torch.device(name), getattr(torch, dtype)
            attention, structural = choose_attention(*arguments), choose_structural(*arguments)
            rows.append(
                {
                    "device": name,
                    "dtype": dtype,
                    "attention": attention.name,
                    "structural": structural.name,
                    "why": attention.reason,
                }
            )
    return rows


def _ratios(shape: Any, pairs: int, backward: bool) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """The ratio of each implementation, and why one was left out."""
    import torch
    from psutil import virtual_memory
    from rich.console import Console
    from rich.progress import track

    from stochroute.kernels import choose_attention
    from stochroute.measuring.attention import naive_bytes, over_stock

    left_out: dict[str, str] = {}
    choice = choose_attention(torch.device(shape.device), shape.dtype)
    if choice.name != "fused":
        left_out |= dict.fromkeys(_FUSED, choice.reason)
    free = torch.cuda.mem_get_info()[0] if shape.device == "cuda" else virtual_memory().available
    if naive_bytes(shape) > free / 2:
        left_out["naive"] = f"it would take {naive_bytes(shape) / 2**30:.0f} GiB"
    timed = dict.fromkeys(_FUSED, pairs) | {arm: min(pairs, _SLOW_PAIRS) for arm in _SLOW}
    arms = [arm for arm in timed if arm not in left_out]
    progress = track(arms, "timing", console=Console(stderr=True), transient=True)
    return {arm: over_stock(arm, shape, timed[arm], backward) for arm in progress}, left_out


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, shape = Console(), report["shape"]
    table = Table("device", "dtype", "attention", "structural", "why", title="What runs here")
    for row in report["implementations"]:
        table.add_row(*row.values())
    console.print(table)
    passes = "forward and backward" if report["backward"] else "forward"
    title = (
        f"Time over SDPA without noise: {passes}, b = {shape['batch']}, h = {shape['heads']}, s = {shape['length']}, "
        f"d = {shape['width']}, {shape['dtype']}, {shape['device']}, threads: {report['threads']}"
    )
    table = Table("implementation", "ratio", "95 % interval", title=title)
    for arm, found in report["over_sdpa"].items():
        table.add_row(arm, f"{found['median']:.2f}", f"{found['low']:.2f} – {found['high']:.2f}")
    for arm, why in report["left_out"].items():
        table.add_row(arm, "–", f"left out: {why}")
    console.print(table)
