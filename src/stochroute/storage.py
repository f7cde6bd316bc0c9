"""A routing on disk: JSON for the config, safetensors for the parameters, both written atomically."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedModel

from stochroute.config import RoutingConfig
from stochroute.embedded import EMBEDDED, routing_folder
from stochroute.noise import NOISE_VERSION

CONFIG_FILE = "routing.json"
PARAMETER_FILE = "routing.safetensors"

_SHAPE_OF_MODEL = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads")


def write_routing(folder: Path, config: RoutingConfig, parameters: dict[str, Tensor], model: PreTrainedModel) -> None:
    """Writes both files. The config names the hash of the parameters, so files of two routings never pass for one.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.float().cpu().contiguous() for name, tensor in parameters.items()})
    record = {
        "noise_version": NOISE_VERSION,
        "model": _shape_of(model),
        "parameters_sha256": hashlib.sha256(weights).hexdigest(),
        "routing": config.to_dict(),
    }
    _replace_all(folder, {PARAMETER_FILE: weights, CONFIG_FILE: (json.dumps(record, indent=2) + "\n").encode()})


@dataclass(frozen=True)
class Record:
    """What the JSON file of a routing says.

    Attributes:
        routing: the config, as `RoutingConfig.to_dict` wrote it.
        made_for: the shape of the model it was made for.
        sha256: hash of the parameter file.
    """

    routing: dict[str, Any]
    made_for: dict[str, Any]
    sha256: str


def read_record(folder: Path) -> Record:
    """The JSON file of the routing in the folder, without its parameters.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is corrupt, or comes from another noise version.
    """
    text = (folder / CONFIG_FILE).read_bytes()
    try:
        data = json.loads(text)
        version = data["noise_version"]
        record = Record(data["routing"], dict(data["model"]), data["parameters_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_FILE} is corrupt ({error!r}): save the routing again") from error
    if version != NOISE_VERSION:
        raise ValueError(
            f"{folder} was made with noise version {version}, this is version {NOISE_VERSION}: its paths cannot be "
            f"replayed here; use the stochroute version that made it"
        )
    return record


def read_routing(folder: Path, model: PreTrainedModel) -> tuple[RoutingConfig, dict[str, Tensor]]:
    """The config and the parameters of the routing in the folder.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is corrupt, comes from another noise version, or was made for another model.
    """
    record, weights = read_record(folder), (folder / PARAMETER_FILE).read_bytes()
    if hashlib.sha256(weights).hexdigest() != record.sha256:
        raise ValueError(
            f"{folder / PARAMETER_FILE} is truncated, corrupt or of another routing (its hash differs from the one in "
            f"{CONFIG_FILE}): copy both files again, or save the routing again"
        )
    here, made_for = _shape_of(model), record.made_for
    differing = [
        f"{key} {made_for.get(key)!r} (this model: {here[key]!r})" for key in here if made_for.get(key) != here[key]
    ]
    if differing:
        raise ValueError(f"the routing in {folder} was made for another model: {', '.join(differing)}")
    try:
        return RoutingConfig.from_dict(record.routing), load(weights)
    except SafetensorError as error:
        raise ValueError(f"{folder / PARAMETER_FILE} is corrupt ({error}): save the routing again") from error


def find_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder itself, that of the package's own routing for "embedded", or the hub's files downloaded where it
    names a repository.

    Raises:
        FileNotFoundError: it is none of these.
    """
    if folder == EMBEDDED:
        return routing_folder()
    if Path(folder).is_dir():
        return Path(folder)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(folder), allow_patterns=[CONFIG_FILE, PARAMETER_FILE]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"routing {str(folder)!r} is no folder here, and no repository on the hub could be read: {error}"
        ) from error


def _shape_of(model: PreTrainedModel) -> dict[str, Any]:
    return {name: getattr(model.config, name, None) for name in _SHAPE_OF_MODEL}


def _replace_all(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes all files beside their targets and then moves them over; a failure on the way puts the old ones back."""
    before = {name: (folder / name).read_bytes() if (folder / name).exists() else None for name in contents}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".routing.") as staging:
        for name, content in contents.items():
            with open(Path(staging, name), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        try:
            for name in contents:
                os.replace(Path(staging, name), folder / name)
        except BaseException:
            for name, old in before.items():
                if old is None:
                    (folder / name).unlink(missing_ok=True)
                else:
                    (folder / name).write_bytes(old)
            raise
