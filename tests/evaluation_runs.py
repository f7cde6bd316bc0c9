"""A small evaluation: a tiny random model, a judge that is another, three arms."""

from pathlib import Path

from cli_model import save_tiny_model
from stochroute.evaluation.arms import Arm, Setting
from stochroute.evaluation.sampling import Sampler
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel, encode, load_model

PROMPTS = ["ab", "cde", "fg hi"]
SAMPLES, NEW_TOKENS = 3, 6


def models(folder: Path) -> tuple[str, str]:
    """Folders of a generator and of a judge."""
    return save_tiny_model(folder / "generator"), save_tiny_model(folder / "judge", layers=2)


def load(folder: str, dtype: str = "float64") -> LoadedModel:
    return load_model(folder, "cpu", dtype)


def sampler(loaded: LoadedModel, batch: int = 6, seed: int = 7) -> Sampler:
    return Sampler(loaded, encode(loaded, PROMPTS, False), SAMPLES, NEW_TOKENS, seed, batch)


def arm(name: str, family: str, decoding: Decoding) -> Arm:
    return Arm(name, family, "", (Setting(name, family, "0", decoding),))  # type: ignore[arg-type]
