"""The plugin: what of vLLM it wraps, in every process, at import.

Nothing changes for an engine without a routing in its `additional_config`, or for a request without a path, but that
fields which name a path are refused where no routing could walk it.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# vLLM lives in an environment of its own
from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any

from stochroute.engines.vllm import requests
from stochroute.engines.vllm.prefix_cache import keyed_by_path
from stochroute.engines.vllm.routing import KEY, EngineRouting, Entry, routing_of
from stochroute.engines.vllm.support import check_engine, check_version

_MARK = "_wrapped_by_stochroute"
_PADDING = 1024  # vLLM pads the tokens of a step to the sizes of its graphs and to multiples of its ranks


def register() -> None:
    """What vLLM calls in every process, perhaps more than once.

    Raises:
        RuntimeError: this vLLM is unknown.
    """
    import vllm
    from vllm.engine.arg_utils import EngineArgs
    from vllm.sampling_params import SamplingParams
    from vllm.v1.core import block_pool, kv_cache_utils
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.parallel_sampling import ParentRequest

    check_version(vllm.__version__)
    _wrap(EngineArgs, "create_engine_config", _checked_engine)
    _wrap(SamplingParams, "_verify_greedy_sampling", _several_greedy_paths)
    _wrap(InputProcessor, "process_inputs", _admitting)
    _wrap(ParentRequest, "get_child_info", _own_path_for_each_child)
    for module in (kv_cache_utils, block_pool):  # the second imports the function by name
        _wrap(module, "generate_block_hash_extra_keys", keyed_by_path)
    _wrap_worker()


def _wrap_worker() -> None:
    from vllm.v1.worker.gpu_worker import Worker

    _wrap(Worker, "load_model", _attaching)


def _wrap(owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, _MARK):
        wrapped = wraps(original)(wrapper(original))
        setattr(wrapped, _MARK, True)
        setattr(owner, name, wrapped)


def _checked_engine(create: Callable[..., Any]) -> Callable[..., Any]:
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = create(self, *args, **kwargs)
        routing = routing_of(config.additional_config)
        if routing is not None:
            check_engine(config)
            config.additional_config = {**config.additional_config, KEY: Entry(routing.entry())}
        return config

    return create_engine_config


def _several_greedy_paths(verify: Callable[[Any], None]) -> Callable[[Any], None]:
    def verify_greedy_sampling(self: Any) -> None:
        # without paths n greedy texts would be one text; along n paths they are n
        if not requests.names_paths(self.extra_args):
            verify(self)

    return verify_greedy_sampling


def _admitting(process: Callable[..., Any]) -> Callable[..., Any]:
    from vllm.exceptions import VLLMValidationError

    class BadPath(VLLMValidationError, ValueError):
        """A ValueError that vLLM's server answers with status 400."""

    def process_inputs(self: Any, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        fields: Any = getattr(params, "extra_args", None)
        if not requests.names_paths(fields):
            return process(self, request_id, prompt, params, *args, **kwargs)
        try:
            routing = _routing_for(self.vllm_config, fields).config
            request = process(self, request_id, prompt, params, *args, **kwargs)
            embeds = request.prompt_embeds
            length = len(request.prompt_token_ids) if embeds is None else len(embeds)
            request.sampling_params.extra_args = requests.admit(fields, params.n, length, routing)
        except ValueError as error:
            raise BadPath(str(error)) from error
        return request

    return process_inputs


def _routing_for(config: Any, fields: dict[str, Any]) -> EngineRouting:
    routing = routing_of(config.additional_config)
    if routing is None:
        ours = ", ".join(name for name in fields if name.startswith(requests.PREFIX))
        raise ValueError(
            f"this engine has no routing, so a request cannot walk a path: start it with one in additional_config, or "
            f"leave out {ours}"
        )
    return routing


def _own_path_for_each_child(get: Callable[..., Any]) -> Callable[..., Any]:
    def get_child_info(self: Any, index: int) -> tuple[str, Any]:
        child, params = get(self, index)
        if (params.extra_args or {}).get(requests.PATHS) is not None:
            params = copy(params)  # vLLM may hand one object to all children
            params.extra_args = requests.of_choice(params.extra_args, index)
        return child, params

    return get_child_info


def _attaching(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        routing = routing_of(self.vllm_config.additional_config)
        if routing is not None:
            check_engine(self.vllm_config)
            _follow_steps(self.model_runner, routing)
        return result

    return load_model


def _follow_steps(runner: Any, routing: Any) -> None:
    """Attaches the noise to the runner's model, and has its places filled before each forward pass."""
    from stochroute.engines.vllm.sites import attach

    places = attach(runner.get_model(), routing, runner.max_num_tokens + _PADDING, runner.device)
    forward = runner._model_forward

    def model_forward(input_ids: Any = None, positions: Any = None, *args: Any, **kwargs: Any) -> Any:
        batch = runner.input_batch
        bounds = runner.query_start_loc.np[: batch.num_reqs + 1]
        walks = [requests.walk_of(runner.requests[name].sampling_params.extra_args) for name in batch.req_ids]
        places.fill(walks, (bounds[1:] - bounds[:-1]).tolist(), positions)
        return forward(input_ids, positions, *args, **kwargs)

    runner._model_forward = model_forward
