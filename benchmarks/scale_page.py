"""Fills docs/scale.md: what the cost model of that page predicts for this machine, against what was measured.

python benchmarks/scale_page.py

Two numbers of the machine are fitted to two measurements (a decode step of one row and of 32 rows); everything else is
predicted.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from results import fill, markdown, read

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
LAYERS, HIDDEN = 12, 768  # of the 97M model in benchmarks/generation.py, whose heads are not grouped
WORD = 4  # bytes, float32
WARM_UP, PAIRS = 5, 240  # of the decode steps there: the static cache is as long as all steps together need
EMBEDDED_PARAMETERS = 3_067_584  # stochroute/embedded/weights/PROVENANCE.json


@dataclass(frozen=True)
class Model:
    """What the cost of a model depends on.

    Attributes:
        parameters: P.
        kv_bytes: of one token, 2 · layers · KV heads · head width · bytes of a number.
    """

    parameters: int
    kv_bytes: int

    @property
    def weight_bytes(self) -> int:
        return self.parameters * WORD


@dataclass(frozen=True)
class Machine:
    """Rates that a program reaches, not those of a data sheet.

    Attributes:
        flops: a second.
        bandwidth: bytes a second.
    """

    flops: float
    bandwidth: float

    def step(self, model: Model, rows: int, context: int) -> float:
        """Seconds for one token of each row."""
        read_bytes = model.weight_bytes + rows * context * model.kv_bytes
        return read_bytes / self.bandwidth + rows * 2 * model.parameters / self.flops

    def prefill(self, model: Model, tokens: int, attention_flops: float = 0.0) -> float:
        """Seconds for a prompt."""
        return (2 * model.parameters * tokens + attention_flops) / self.flops


def fit(model: Model, contexts: tuple[int, int], rows: tuple[int, int], seconds: tuple[float, float]) -> Machine:
    """The machine on which two decode steps take these seconds."""
    per_byte_and_flop = [
        [model.weight_bytes + n * c * model.kv_bytes, n * 2 * model.parameters]
        for n, c in zip(rows, contexts, strict=True)
    ]
    slowness = np.linalg.solve(np.array(per_byte_and_flop, dtype=float), np.array(seconds))
    return Machine(flops=1 / slowness[1], bandwidth=1 / slowness[0])


def compare() -> tuple[Machine, list[tuple[str, float, float, str]]]:
    """The fitted machine, and (what, predicted seconds, measured seconds, file) of everything else."""
    generation, attention, first = read("generation"), read("attention"), read("serving_first")
    model = Model(generation["model_parameters"], 2 * LAYERS * HIDDEN * WORD)
    prompt, paths, new = generation["prompt_tokens"], generation["paths"], generation["new_tokens"]
    many, one = generation["decode_step_routed_over_plain"]
    cache = prompt + WARM_UP + PAIRS
    machine = fit(
        model, (cache, cache), (one["batch"], many["batch"]), (one["plain_step_seconds"], many["plain_step_seconds"])
    )
    quadratic = 4 * LAYERS * HIDDEN * prompt**2 / 2
    prefill, steps = machine.prefill(model, prompt, quadratic), new * machine.step(model, paths, prompt + new)
    decode = attention["parts"]["decode"]
    rows = decode["batch"]
    embedded = Model(EMBEDDED_PARAMETERS, 0)
    return machine, [
        (
            f"decode step, {rows} rows of 1,024 tokens, another benchmark",
            machine.step(model, rows, 1024 + WARM_UP + decode["pairs"]),
            decode["plain_step_seconds"],
            "attention.json",
        ),
        (
            f"prefill of {first['prompt_tokens']} tokens, another model (3M)",
            machine.prefill(embedded, first["prompt_tokens"]),
            first["median_seconds"][1],
            "serving_first.json",
        ),
        (
            f"{paths} texts of {new} tokens, prompt of {prompt} computed once",
            prefill + steps,
            generation["greedy"]["seconds"]["routed"],
            "generation.json",
        ),
        (
            "the same, prompt computed for each text",
            paths * prefill + steps,
            generation["greedy"]["seconds"]["stock"],
            "generation.json",
        ),
    ]


def figures() -> str:
    """The table, and the two fitted numbers."""
    machine, rows = compare()
    table = [["what", "predicted", "measured", "predicted / measured", "from"], ["---"] * 5]
    table += [
        [what, f"{predicted:.3g} s", f"{measured:.3g} s", f"{predicted / measured:.2f}", f"`{file}`"]
        for what, predicted, measured, file in rows
    ]
    fitted = (
        f"Fitted to the decode steps of 1 and 32 rows in `generation.json`: R = {machine.flops / 1e9:.0f} GFLOP/s, "
        f"B = {machine.bandwidth / 1e9:.1f} GB/s, so n* = {WORD * machine.flops / (2 * machine.bandwidth):.0f} rows."
    )
    return f"{markdown(table)}\n\n{fitted}"


if __name__ == "__main__":
    fill(PAGE, "benchmarks/scale_page.py", figures())
