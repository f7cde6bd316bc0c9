"""Quality against diversity on stories3M and on the story world: paths against every tuned sampler.

    python benchmarks/evaluation.py                # all; an hour on a free core, and goes on where it was stopped
    python benchmarks/evaluation.py story_world small_world    # the embedded model alone, which needs no other files

Each run is one `stochroute evaluate`, whose report is left in runs/NAME/report.html. stories3M, its judge and the texts
are looked for in ../shared, or where STOCHROUTE_SHARED says.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from exploration import CUTS, SEED, cut_prompt
from harness import record, save
from results import RESULTS

from stochroute.evaluation.inputs import read_texts
from stochroute.evaluation.judging import Judge
from stochroute.loading import load_model
from stochroute.world import draw_plot

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("STOCHROUTE_SHARED", os.path.join("..", "shared")))
TEXTS = SHARED / "data" / "tinystories_valid_256k.txt"
RUNS: dict[str, list[str]] = {
    "stories3M": [
        *["--model", str(SHARED / "models" / "stories3M"), "--judge", str(SHARED / "models" / "stories260K")],
        *["--texts", str(TEXTS), "--prompt-count", "128", "--samples", "10", "--max-new-tokens", "40"],
        *["--seed", "2"],  # arms were chosen with the prompts of other seeds
    ],
    "story_world": ["--prompt-count", "16", "--samples", "8", "--max-new-tokens", "96"],
    "small_world": ["--prompts-file", "runs/few_plots_left.txt", "--samples", "32", "--max-new-tokens", "80"],
}
KINDS = ("structural", "attention", "experts")
JUDGES = ("stories260K", "gpt2-bytes-1M")
JUDGED_TEXTS, JUDGED_CHARACTERS = 60, 200


def write_few_plots_left() -> None:
    """Beginnings of stories after which 144 plots are left: among 32 texts some say the same unless they share out."""
    cuts = [cut for cut in CUTS if cut.language == "en" and cut.slots]
    prompts = [cut_prompt(draw_plot(SEED, i), cuts[i % len(cuts)], telling=i)[0] for i in range(16)]
    (ROOT / "runs").mkdir(exist_ok=True)
    (ROOT / "runs" / "few_plots_left.txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")


def evaluate(name: str) -> dict[str, Any]:
    """The figures of a run: read where it is finished (delete its folder to do it again), else done or gone on with."""
    output = Path("runs") / name
    if (ROOT / output / "evaluation.json").exists():
        return json.loads((ROOT / output / "evaluation.json").read_text(encoding="utf-8"))
    write_few_plots_left()
    resume = ["--resume"] if (ROOT / output / "run.json").exists() else []
    command = [sys.executable, "-c", "from stochroute.cli import main; main()", "evaluate"]
    subprocess.run([*command, *RUNS[name], "--output", str(output), *resume], cwd=ROOT, check=True)
    return json.loads((ROOT / output / "evaluation.json").read_text(encoding="utf-8"))


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run: the verdict and all that it rests on, without texts."""
    quality, diversity = found["headline"]["quality"], found["headline"]["diversity"]
    kept = (
        *("command", "fingerprint", "samples_each", "max_new_tokens", "seed", "judge", "checker", "embedder", "engine"),
        *("dtype", "headline", "verdict", "kinds", "levels", "thresholds", "standard", "coherent_texts", "costs"),
        *("arms", "measures"),
    )
    compared = found["comparisons"].items()
    families = {name: rows[0] for name, rows in compared if rows and rows[0]["first"] == "all paths"}
    measured = dict.fromkeys((quality, diversity, "coherent", "repetition"))
    return {
        **{key: found[key] for key in kept},
        "prompts": len(found["prompts"]),
        "paths_over_samplers": families,
        "arms_compared": found["comparisons"][diversity],
        "settings": [
            {
                **{key: setting[key] for key in ("arm", "family", "label", "budget")},
                "strength": [setting["routing"][kind]["strength"] for kind in KINDS if setting["routing"][kind]],
                "mauve": setting.get("mauve"),
                **{name: setting["measured"][name] for name in measured},
            }
            for setting in found["settings"]
        ],
    }


def judges() -> dict[str, dict[str, float]]:
    """How well each judge at hand, and the generator, predict real stories: bits per byte, lower is better."""
    inputs = read_texts(TEXTS, 12, JUDGED_TEXTS)
    assert inputs.references is not None
    texts = [text[:JUDGED_CHARACTERS] for text in inputs.references]
    size = sum(len(text.encode()) for text in texts)
    loaded = {name: load_model(str(SHARED / "models" / name), "cpu", "auto") for name in (*JUDGES, "stories3M")}
    found: dict[str, dict[str, float]] = {}
    for name, model in loaded.items():
        other = next(m.model for n, m in loaded.items() if n != name)
        bits = Judge(model, other).nats(inputs.prompts, texts).sum() / size / math.log(2)
        found[name] = {"bits_per_byte": round(float(bits), 4), "texts": len(texts)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", choices=[*RUNS, []], help="default: all")
    names = parser.parse_args().runs or list(RUNS)
    here = {key: record()[key] for key in ("date", "processor")}
    found = {name: summary(evaluate(name)) | here for name in names}
    path = RESULTS / "evaluation.json"
    earlier: dict[str, Any] = json.loads(path.read_text()).get("runs", {}) if path.exists() else {}
    result = {name: {**earlier, **found}[name] for name in RUNS if name in earlier or name in found}
    print("written:", save("evaluation", {"judges": judges() if TEXTS.exists() else None, "runs": result}))


if __name__ == "__main__":
    main()
