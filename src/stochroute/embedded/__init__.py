"""A small story model that travels with the package, so that the first run needs no download.

    model, tokenizer = load()
    routed = sr.RoutedModel.from_pretrained(model, "embedded")    # with the paths that it was trained with

It was trained by this project on texts of `stochroute.world` alone, first plainly and then with paths inferred from
the texts; `weights/PROVENANCE.json` says how and how well.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

# What model and routing are called where a name is asked for; a folder of that name is written ./embedded.
EMBEDDED = "embedded"

ROUTING_FOLDER = "routing"  # the folder of the routing, beside the weights

# Openings that leave the plot open (who, where, what): English story, Chinese story, English dialogue.
DEFAULT_PROMPTS = ("Once upon a time", "从前", "Two friends met")


def weights_folder() -> Path:
    """The folder of the weights and the tokenizer.

    Raises FileNotFoundError if the package was installed without them.
    """
    folder = Path(str(files(__name__))) / "weights"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no weights in {folder}; train them with `python -m stochroute.embedded.train --out FOLDER`"
        )
    return folder


def routing_folder() -> Path:
    """The folder of the routing; apart from the weights, since vLLM takes every .safetensors beside them for more.

    Raises FileNotFoundError as `weights_folder` does.
    """
    return weights_folder() / ROUTING_FOLDER


def load() -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The embedded model (float32, CPU, eval mode) and its tokenizer (pads on the left, prepends BOS).

    Raises FileNotFoundError if the package was installed without its weights.
    """
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = weights_folder()
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)
