"""A small story model that travels with the package, so that the first run needs no download.

    model, tokenizer = load()

It was trained by this project on texts of `stochroute.world` alone; `weights/PROVENANCE.json` says how and
how well.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

# Openings that leave the plot open (who, where, what): English story, Chinese story, English dialogue.
DEFAULT_PROMPTS = ("Once upon a time", "从前", "Two friends met")


def load() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The embedded model (float32, CPU, eval mode) and its tokenizer (pads on the left, prepends BOS).

    Raises FileNotFoundError if the package was installed without its weights.
    """
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    weights = files(__name__) / "weights"
    if not (weights / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no weights in {weights}; train them with `python -m stochroute.embedded.train --out FOLDER`"
        )
    with as_file(weights) as folder:
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer
