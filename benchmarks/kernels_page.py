"""Fills docs/kernels.md and docs/img/attention_growth.svg from the results of attention.py, attention_cuda.py and
model_cuda.py.

python benchmarks/kernels_page.py
"""

import math
from pathlib import Path
from typing import Any

from results import fill, interval, markdown, read

DOCS = Path(__file__).parents[1] / "docs"
BARS = {
    "fused float32": (0.7, 0.9, 1.0, 1.1),
    "fused bfloat16": (1.15, 1.2, 1.5, 1.5),
    "avx2 float32": (1.2, 1.4, 1.6, 1.8),
    "backward float32": (0.8, 0.85, 0.9),
}
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 300, 70, 40  # pixels
INK, FAINT, TIME, MEMORY = "#1f2937", "#9ca3af", "#0e7490", "#b45309"


def ratio_rows(parts: dict[str, Any]) -> list[list[str]]:
    """One row a measure: what, the ratios by length, the bars."""
    forward, backward, naive = parts["forward"], parts["backward"], parts["naive"]
    lines = {
        "fused float32": ("forward, float32", forward["fused"]["float32"]),
        "fused bfloat16": ("forward, bfloat16", forward["fused"]["bfloat16"]),
        "avx2 float32": ("forward, float32, AVX2 kernels", parts["avx2"]["float32"]),
        "avx2 bfloat16": ("forward, bfloat16, AVX2 kernels", parts["avx2"]["bfloat16"]),
        "quiet float32": (
            "forward, float32, the same kernel without noise",
            forward["fused, no noise"]["float32"],
        ),
        "backward float32": ("forward + backward, float32", backward["float32"]),
        "backward bfloat16": ("forward + backward, bfloat16", backward["bfloat16"]),
        "naive float32": ("the formula as written, float32", naive["forward"]["float32"]),
        "naive bfloat16": ("the formula as written, bfloat16", naive["forward"]["bfloat16"]),
        "naive backward": (
            "the formula as written, forward + backward, float32",
            naive["forward and backward"]["float32"],
        ),
    }
    rows = [["time over SDPA without noise", "512", "1k", "2k", "4k", "at most"], ["---"] * 6]
    for key, (what, found) in lines.items():
        cells = [f"{r['median']:.2f} ({r['low']:.2f} – {r['high']:.2f})" for r in found.values()]
        bars = " / ".join(map(str, BARS.get(key, ()))) or "–"
        rows.append([what, *cells, *["–"] * (4 - len(cells)), bars])
    return rows


def other_rows(parts: dict[str, Any]) -> list[list[str]]:
    """Memory, decoding, growth and structural noise."""
    memory, growth, decode = parts["memory"], parts["growth"], parts["decode"]
    million = {name: f"{value / 1e6:.1f} MB" for name, value in memory.items()}
    over_sdpa = {name: memory[name] / memory["sdpa"] for name in memory}
    rows = [
        ["measure", "result", "at most"],
        ["---"] * 3,
        ["peak memory of a forward at 4k over SDPA's", f"{over_sdpa['fused']:.2f} × ({million['fused']})", "1.2 ×"],
        ["the same for the formula as written", f"{over_sdpa['naive']:.0f} × ({million['naive']})", "–"],
        ["a step of a 97M model, both kinds of noise, 16 rows of 1,024 tokens cached", interval(decode, 3), "1.03 ×"],
        ["growth of time with s, 1k to 16k", f"s^{growth['exponent_of_time']:.2f}", "s²"],
        ["growth of memory with s, 1k to 16k", f"s^{growth['exponent_of_memory']:.2f}", "s"],
    ]
    for name, found in parts["structural"].items():
        rows.append([f"structural noise, {name}, over the same in torch", interval(found["over_torch"], 3), "–"])
    return rows


def gpu_rows(result: dict[str, Any]) -> list[list[str]]:
    """The Triton kernels by head size, pass and length."""
    lengths = list(next(iter(result["prefill"].values())))
    rows = [["time over flash attention without noise", *(f"{int(length) // 1024}k" for length in lengths)]]
    rows.append(["---"] * len(rows[0]))
    for width, cells in result["prefill"].items():
        for passes in ("forward", "forward and backward"):
            for arm, what in (("fused", "with noise"), ("fused, no noise", "the same kernels without noise")):
                ratios = [cells[length][f"{arm}, {passes}"]["median"] for length in lengths]
                rows.append([f"{passes}, d = {width}, {what}", *(f"{ratio:.2f}" for ratio in ratios)])
        ratios = [result["decode"][width][length]["median"] for length in lengths]
        rows.append([f"one query, d = {width}, with noise", *(f"{ratio:.2f}" for ratio in ratios)])
    return rows


def model_rows(result: dict[str, Any]) -> list[list[str]]:
    """Whole steps of a model along paths over the plain model's, by the kind of noise."""
    measures = result["over_plain"]
    rows = [["noise", *measures], ["---"] * (1 + len(measures))]
    for kind in next(iter(measures.values())):
        rows.append([kind, *(interval(found[kind], 3) if kind in found else "–" for found in measures.values())])
    return rows


def _made_by(result: dict[str, Any]) -> str:
    return f"{result['gpu']}, torch {result['torch']}, {result['date']}: `{result['command']}`."


def gpu_section(attention: dict[str, Any], model: dict[str, Any]) -> str:
    """Both tables, with what they were measured on."""
    said = (
        f"bfloat16, causal, b = {attention['batch']}, h = {attention['heads']}, 0.5 nats; medians over interleaved "
        f"pairs. The rival is the flash backend of PyTorch's SDPA. {_made_by(attention)}"
    )
    shapes = (model[name] for name in ("trained", "prefilled", "decoded"))
    trained, prefilled, decoded = (f"{rows} × {length:,}" for rows, length in shapes)
    whole = (
        f"A Llama-shaped model of {model['parameters'] / 1e9:.1f}B parameters in bfloat16, over the same model without "
        f"a path: {trained} tokens trained, {prefilled} read, and a token decoded for each of {decoded} cached ones, "
        f"launched kernel by kernel or replayed as a CUDA graph. {_made_by(model)}"
    )
    if "unfinished" in model:
        whole += f" Not all is there: {model['unfinished']}."
    return "\n\n".join(["### On a GPU", markdown(gpu_rows(attention)), said, markdown(model_rows(model)), whole])


def growth_figure(growth: dict[str, Any]) -> str:
    """Time and memory over the length, both axes logarithmic, as an SVG."""
    lengths = growth["lengths"]
    gigabytes = [peak / 1e9 for peak in growth["peak_extra_bytes"]]
    series = {
        f"seconds: s^{growth['exponent_of_time']:.2f}": (growth["seconds"], TIME),
        f"peak memory in GB: s^{growth['exponent_of_memory']:.2f}": (gigabytes, MEMORY),
    }
    values = [v for points, _ in series.values() for v in points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(length: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * math.log2(length / lengths[0]) / math.log2(lengths[-1] / lengths[0])

    def y(value: float) -> float:
        return 20 + (HEIGHT - BOTTOM - 20) * (high - math.log10(value)) / (high - low)

    def text(at_x: float, at_y: float, words: str, anchor: str = "middle", colour: str = INK) -> str:
        return f'<text x="{at_x:.1f}" y="{at_y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'

    drawn = []
    for power in range(low, high + 1):
        drawn.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}" stroke="{FAINT}" />'
        )
        drawn.append(text(LEFT - 8, y(10**power) + 4, f"{10.0**power:g}", "end"))
    drawn += [text(x(length), HEIGHT - BOTTOM + 18, f"{length // 1024}k") for length in lengths]
    drawn.append(text((LEFT + WIDTH) / 2, HEIGHT - 4, "tokens"))
    for place, (name, (points, colour)) in enumerate(series.items()):
        places = zip(map(x, lengths), map(y, points), strict=True)
        line = " ".join(f"{at_x:.1f},{at_y:.1f}" for at_x, at_y in places)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" />')
        drawn.append(text(LEFT + 12, 36 + 18 * place, name, "start", colour))
    style = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white" />\n{body}\n</svg>\n'
    )


def main() -> None:
    result = read("attention")
    parts = result["parts"]
    tables = [markdown(ratio_rows(parts)), markdown(other_rows(parts))]
    commands = sorted({part["command"] for part in result["commands"].values()})
    machine = (
        f"b = {result['batch']}, h = {result['heads']}, d = {result['width']}, causal, "
        f"{result['strength_nats']} nats; medians over interleaved pairs, intervals of 95 %. Measured by "
        f"{' and '.join(f'`{command}`' for command in commands)}, finished on {result['date']}, "
        f"{result['processor']}, threads: {result['threads']}, torch {result['torch']}."
    )
    on_gpu = gpu_section(read("attention_cuda"), read("model_cuda"))
    fill(DOCS / "kernels.md", "benchmarks/kernels_page.py", "\n\n".join([*tables, machine, on_gpu]))
    (DOCS / "img" / "attention_growth.svg").write_text(growth_figure(parts["growth"]), encoding="utf-8")


if __name__ == "__main__":
    main()
