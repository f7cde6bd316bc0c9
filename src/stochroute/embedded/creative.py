"""The models of the creativity benchmark that travel with the package: the best with bound paths, one for each task.

    shipped = load_creative("circle")
    shipped.score(samples=1024, seed=7)

Each was trained from nothing by `benchmarks/creativity.py`; PROVENANCE.json beside it holds the command and the score.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stochroute.generation.decoding import Decoding
    from stochroute.routed import RoutedModel
    from stochroute.tasks import Score, TokenTask

CREATIVE_TASKS = ("circle", "line")


@dataclass(frozen=True)
class CreativeModel:
    """A model with paths, and the task that it was trained for.

    Attributes:
        routed: float32, in eval mode, on the CPU.
        task: with the training set that it learned from.
        decoding: what its score was reported with.
        provenance: PROVENANCE.json.
    """

    routed: RoutedModel
    task: TokenTask
    decoding: Decoding
    provenance: dict[str, Any]

    def score(self, samples: int, seed: int | None = None) -> Score:
        """The score along `samples` fresh paths of a seed; of the reported paths, where none is given."""
        from stochroute.measuring.creativity import write_samples
        from stochroute.paths import derive_paths

        paths = derive_paths(**self.provenance["paths"], n=samples) if seed is None else derive_paths(seed, samples)
        return self.task.score(write_samples(self.routed, self.task, self.decoding, paths))


def load_creative(name: str) -> CreativeModel:
    """The model of a task in CREATIVE_TASKS.

    Raises:
        ValueError: there is none for this name.
        FileNotFoundError: the package was installed without it.
    """
    if name not in CREATIVE_TASKS:
        raise ValueError(f"no model for {name!r} travels with the package: choose {' or '.join(CREATIVE_TASKS)}")
    from transformers import LlamaForCausalLM

    from stochroute.generation.decoding import Decoding
    from stochroute.routed import RoutedModel
    from stochroute.tasks import TASKS, TokenTask

    weights = files(__name__.rpartition(".")[0]) / "creative_weights" / name
    if not (weights / "model.safetensors").is_file():
        raise FileNotFoundError(f"no weights in {weights}: install the package again")
    with as_file(weights) as folder:
        provenance = json.loads((folder / "PROVENANCE.json").read_text(encoding="utf-8"))
        model = LlamaForCausalLM.from_pretrained(folder)
        routed = RoutedModel.from_pretrained(model.eval(), folder)
    task = TASKS[name](**provenance["task"])
    assert isinstance(task, TokenTask)
    return CreativeModel(routed, task, Decoding(**provenance["decoding"]), provenance)
