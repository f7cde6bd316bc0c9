"""Starts vLLM with a routing: offline, for texts along paths, and as vLLM's own OpenAI server."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# vLLM lives in an environment of its own
import os
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from stochroute.engines.vllm.requests import PATH, START
from stochroute.paths import format_path

_ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for rows
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_CPU_CACHE_BYTES = 1 << 30  # vLLM would otherwise take nine tenths of the memory, and not start where others use it


def prepare() -> None:
    """Makes sure that every process of vLLM that is started from here loads the plugin, and can host it.

    Raises:
        ImportError: vLLM is not installed.
        RuntimeError: the plugin would not be loaded, or this vLLM is unknown.
    """
    if not any(point.name == "stochroute" for point in entry_points(group="vllm.general_plugins")):
        raise RuntimeError("vLLM would not find the plugin: install stochroute with pip, not by PYTHONPATH alone")
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "stochroute" not in allowed.split(","):
        raise RuntimeError(f"VLLM_PLUGINS={allowed} leaves the plugin out: add stochroute to it")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from stochroute.engines.vllm.plugin import register

    register()


def engine_settings(additional: dict[str, Any], dtype: str, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of vLLM's engine.

    Args:
        additional: from `additional_config`.
        dtype: of the weights.
        options: further arguments of the engine, which come first.
    """
    from vllm.platforms import current_platform

    settings: dict[str, Any] = {"dtype": dtype, "generation_config": "vllm"}
    if current_platform.is_cpu() and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        settings["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    return {**settings, **options, "additional_config": {**options.get("additional_config", {}), **additional}}


class Writer:
    """A vLLM engine that writes texts along paths, greedily.

    Attributes:
        engine: its name and version, as a receipt names it.
    """

    def __init__(self, model: str, additional: dict[str, Any], dtype: str, options: dict[str, Any]):
        """Starts the engine; the arguments as in `engine_settings`, `model` a folder or a name on the hub."""
        prepare()
        import vllm

        self.engine = f"vllm {vllm.__version__}"
        self._llm = vllm.LLM(model, skip_tokenizer_init=True, **engine_settings(additional, dtype, options))

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        paths: Sequence[int],
        starts: Sequence[int],
        new_tokens: int,
        stops: Sequence[int],
    ) -> list[list[int]]:
        """The new token ids of each prompt along its own path, up to `new_tokens` or the first of `stops`.

        Args:
            prompts: token ids, one prompt a text.
            paths, starts: one a text.
        """
        from vllm import SamplingParams

        decoding = {**greedy(new_tokens, stops), "detokenize": False}
        parameters = [
            SamplingParams(extra_args={PATH: format_path(path), START: start}, **decoding)
            for path, start in zip(paths, starts, strict=True)
        ]
        given: list[Any] = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self._llm.generate(given, parameters, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


def greedy(new_tokens: int, stops: Sequence[int]) -> dict[str, Any]:
    """The arguments of `SamplingParams` for a greedy text."""
    return {"temperature": 0.0, "max_tokens": new_tokens, "stop_token_ids": list(stops), "ignore_eos": bool(stops)}


def serve(settings: dict[str, Any], announce: Callable[[str, int], None]) -> None:
    """Runs vLLM's OpenAI server until it is stopped.

    Args:
        settings: arguments of the server and of its engine, by their names in Python.
        announce: called with the host and port, once they are taken and before the engine has started.
    """
    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server_worker
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import setup_server
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    arguments = parser.parse_args([])
    unknown = [name for name in settings if not hasattr(arguments, name)]
    if unknown:
        raise ValueError(f"vLLM's server has no argument {unknown[0]!r}")
    for name, value in settings.items():
        setattr(arguments, name, value)
    validate_parsed_serve_args(arguments)
    address, bound = setup_server(arguments, reuse_port=False)
    announce(*bound.getsockname()[:2])
    uvloop.run(run_server_worker(address, bound, arguments))
