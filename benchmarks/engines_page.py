"""Writes the figures of docs/engines.md from the result files.

python benchmarks/engines_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"


def agreement(result: dict[str, Any]) -> str:
    """One row an engine, and every parting under the table."""
    head = ("engine", "texts as transformers writes them", "tokens compared", "largest difference of a log-probability")
    rows = [head, ("---", "---:", "---:", "---:")]
    partings: list[str] = []
    for name, row in result["engines"].items():
        same = f"{row['identical_to_transformers_generate']} of {row['texts']}"
        measured = row["largest_logprob_difference_nats"]
        rows.append(
            (name, same, f"{row['tokens_compared']:,}", f"{measured:.1e} nats" if measured else "not asked for")
        )
        partings += [
            f"- {name}, text {p['text']}, token {p['step']}: the two best logits are {p['gap']:.1e} apart, "
            f"{'a tie' if p['tie'] else '**no tie**'}"
            for p in row["partings"]
        ]
    what = f"{result['prompts']} prompts × {result['paths_each']} paths, {result['new_tokens']} tokens each"
    listed = "\n".join(["Texts that part:", "", *partings]) if partings else "No text parts anywhere."
    return f"{what}, greedy, model: {result['model']} (`{result['command']}`):\n\n{markdown(rows)}\n\n{listed}"


def throughput(compiled: dict[str, Any], eager: dict[str, Any]) -> str:
    """The ratios of the compiled engine, as vLLM starts it, and of the one without compilation."""
    rows: list[tuple[str, ...]] = [
        ("engine", "pairs", "by the clock", "by the processor's time", "command"),
        ("---", "---:", "---:", "---:", "---"),
    ]
    for name, result in (("compiled (vLLM's default)", compiled), ("not compiled", eager)):
        ratios = [result[which]["throughput_ratio"] for which in ("clock", "processor_time")]
        clock, processor = (f"{r['mean']:.3f} × ({r['low']:.3f} – {r['high']:.3f})" for r in ratios)
        pairs = result["clock"]["pairs_of_each_process"]
        count = f"{len(pairs[0])} in each of {len(pairs)} processes"
        rows.append((name, count, clock, processor, f"`{result['command']}`"))
    return (
        f"Tokens a second with paths over an engine without a routing, {compiled['requests']} requests at once, a "
        f"random Llama of {compiled['parameters'] / 1e6:.0f} million parameters in {compiled['dtype']}, one thread:\n\n"
        f"{markdown(rows)}"
    )


if __name__ == "__main__":
    fill(
        PAGE,
        "engines.py",
        f"{agreement(read('engines'))}\n\n{throughput(read('vllm_throughput'), read('vllm_throughput_eager'))}",
    )
