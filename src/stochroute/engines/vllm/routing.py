"""The routing of a vLLM engine: an entry of the engine's `additional_config`.

vLLM hands that dictionary to every process and hashes it into the key of its compile cache, so a routing that
stands there with its contents can never meet a graph that was compiled for another.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stochroute import __version__
from stochroute.config import RoutingConfig, Structural
from stochroute.noise import NOISE_VERSION

KEY = "stochroute"
_KEYS = ("config", "folder", "sha256", "noise_version", "stochroute")
_HOW = "give additional_config(routing) of stochroute.engines.vllm, or stochroute serve --engine vllm"


class Entry(dict[str, Any]):
    """An entry as vLLM hands it on: a process without stochroute cannot unpickle it, and so cannot run clean."""


@dataclass(frozen=True)
class EngineRouting:
    """A routing that a vLLM engine can walk: structural noise, its strengths known.

    Attributes:
        config: the routing config.
        folder: where the learned parameters lie; None for a routing that was never trained.
        sha256: hash of the parameter file; None without a folder.
    """

    config: RoutingConfig
    folder: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        refuse_what_vllm_cannot_walk(self.config)

    @property
    def structural(self) -> Structural:
        """The structural noise, which is always on."""
        assert self.config.structural is not None
        return self.config.structural

    @classmethod
    def of(cls, routing: "RoutingConfig | str | os.PathLike[str]") -> "EngineRouting":
        """The routing of a config, of a folder that `save_pretrained` has written, or of a repository on the hub.

        Raises:
            ValueError: the routing is corrupt, or vLLM cannot walk it.
            OSError: there is no such folder.
        """
        if isinstance(routing, RoutingConfig):
            return cls(routing)
        from stochroute.storage import find_folder, read_record

        folder = find_folder(routing)
        record = read_record(folder)
        return cls(RoutingConfig.from_dict(record.routing), str(folder.resolve()), record.sha256)

    @classmethod
    def from_entry(cls, entry: object) -> "EngineRouting":
        """The routing of an entry of `additional_config`: {"folder": …} or {"config": …}, or what `entry` has made.

        Raises:
            ValueError: the entry is malformed, or the folder has changed since the entry was made.
        """
        if not isinstance(entry, Mapping) or not entry.keys() & {"folder", "config"} or entry.keys() - set(_KEYS):
            raise ValueError(f"additional_config[{KEY!r}]={entry!r} is no routing: {_HOW}")
        if entry.get("noise_version") not in (None, NOISE_VERSION):
            raise ValueError(
                f"additional_config[{KEY!r}] was made with noise version {entry['noise_version']}, this is version "
                f"{NOISE_VERSION}: install the same stochroute everywhere"
            )
        if entry.get("folder") is None:
            return cls(RoutingConfig.from_dict(dict(entry["config"])))
        found = cls.of(str(entry["folder"]))
        if entry.get("sha256") not in (None, found.sha256) or entry.get("config") not in (None, found._config()):
            raise ValueError(f"the routing in {found.folder} has changed since this engine was described: start again")
        return found

    def entry(self) -> dict[str, Any]:
        """The entry of `additional_config`, JSON types, complete enough to key a cache."""
        contents = {"config": self._config(), "noise_version": NOISE_VERSION, "stochroute": __version__}
        return contents if self.folder is None else {**contents, "folder": self.folder, "sha256": self.sha256}

    def _config(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.config.to_dict()))  # tuples become lists, as after a journey


def additional_config(routing: "RoutingConfig | str | os.PathLike[str]") -> dict[str, Any]:
    """What `LLM(additional_config=…)`, or --additional-config as JSON, takes to give the engine's requests paths.

    Args:
        routing: a config, a folder that `save_pretrained` has written, or the name of a repository on the hub.

    Raises:
        ValueError: the routing is corrupt, or holds what vLLM cannot walk.
        OSError: there is no such folder.
    """
    return {KEY: EngineRouting.of(routing).entry()}


def routing_of(additional: object) -> EngineRouting | None:
    """The routing that an engine's `additional_config` names, None for an engine without one."""
    if not isinstance(additional, Mapping) or KEY not in additional:
        return None
    return EngineRouting.from_entry(additional[KEY])


def refuse_what_vllm_cannot_walk(config: RoutingConfig) -> None:
    """ValueError unless the routing has structural noise of known strength and no other."""
    if config.attention is not None:
        raise ValueError(
            "attention routing is not offered on vLLM: its attention kernels give no access to the scores, and noise "
            "on the queries instead would be another model; use the transformers engine, or set attention=None"
        )
    if config.experts is not None:
        raise ValueError(
            "expert routing is not offered on vLLM: its fused experts choose inside the kernel; use the transformers "
            "engine, or set experts=None"
        )
    if config.structural is None:
        raise ValueError("this routing has no structural noise, so nothing on vLLM would walk a path: set structural=")
    if config.structural.strength == "auto":
        raise ValueError(
            "structural.strength='auto' is not known yet: calibrate with the transformers engine (stochroute "
            "calibrate), and give the saved routing"
        )
