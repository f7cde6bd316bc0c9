"""Paths on a cluster: vLLM engines under Ray Data, for many prompts, and under Ray Serve, for many clients.

    processor = build_processor("model", "routing-folder", new_tokens=64)
    processor(ray.data.read_parquet("prompts")).write_parquet("texts")     # columns "prompt" and "path" -> "text"

    serve.run(build_app("model", "routing-folder", name="routed"))          # an OpenAI API, paths in vllm_xargs

Ray loads the vLLM plugin on every node by its entry point: stochroute has to be installed there, as vLLM has.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# Ray and vLLM live in an environment of their own

import os
from collections.abc import Callable, Sequence
from typing import Any

from stochroute.config import RoutingConfig
from stochroute.engines.vllm import additional_config
from stochroute.engines.vllm.launch import engine_settings, greedy, prepare
from stochroute.engines.vllm.requests import PATH, START
from stochroute.paths import format_path

Routing = RoutingConfig | str | os.PathLike[str]
_ROWS_A_TASK = 64
_ROW = "stochroute_row"  # carries the columns of the caller past those of the engine
# what an engine reads from its environment, and a worker of a cluster would not inherit
_VARIABLES = ("VLLM_USE_V2_MODEL_RUNNER", "VLLM_LOGGING_LEVEL", "VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS")


def build_processor(
    model: str,
    routing: Routing,
    *,
    new_tokens: int,
    dtype: str = "auto",
    stops: Sequence[int] = (),
    engine_options: dict[str, Any] | None = None,
    **settings: Any,
) -> Callable[[Any], Any]:
    """A Ray Data processor that continues each row's prompt greedily along the row's own path.

    A row has a "prompt" (a text) or "tokens" (ids), and a "path" of 16 hex digits, or None for a plain text. It may
    have a "start"; without one the routing's span says it. What comes out is the row with "text" and "new_tokens".

    Args:
        model: a folder on every node, or a name on the hub.
        routing: a config, a folder on every node, or a name on the hub.
        new_tokens: at most so many for each row.
        dtype: of the weights.
        stops: token ids that end a text, beside the model's own end token where there are none.
        engine_options: further arguments of vLLM's engine.
        **settings: further arguments of Ray's vLLMEngineProcessorConfig, such as concurrency.

    Raises:
        ValueError: vLLM cannot walk the routing; inside the dataset, a row's path is bad.
        RuntimeError: the plugin would not be loaded, or vLLM is unknown.
    """
    additional = additional_config(routing)
    return _processor(model, additional, new_tokens, dtype, stops, engine_options or {}, settings)


def build_app(
    model: str,
    routing: Routing,
    *,
    name: str,
    dtype: str = "auto",
    engine_options: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """A Ray Serve application with OpenAI's API; requests name their paths in `vllm_xargs`, as on vLLM's own server.

    Args:
        model, routing, dtype, engine_options: as in `build_processor`.
        name: the id that clients name.
        **settings: further arguments of Ray's LLMConfig, such as deployment_config.
    """
    prepare()
    from ray.serve.llm import LLMConfig, build_openai_app

    config = LLMConfig(
        model_loading_config={"model_id": name, "model_source": model},
        engine_kwargs=_engine(additional_config(routing), dtype, engine_options or {}),
        **{**_where_it_runs(), **settings},
    )
    return build_openai_app({"llm_configs": [config]})


class Writer:
    """Writes texts along paths through Ray Data, greedily; as `stochroute.engines.vllm.launch.Writer`."""

    def __init__(self, model: str, additional: dict[str, Any], dtype: str, options: dict[str, Any]):
        """Joins the cluster that RAY_ADDRESS names, or starts one here."""
        prepare()
        import ray
        import vllm

        self.engine = f"vllm {vllm.__version__} on ray {ray.__version__}"
        self._start = (model, additional, dtype, options)
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        paths: Sequence[int],
        starts: Sequence[int],
        new_tokens: int,
        stops: Sequence[int],
    ) -> list[list[int]]:
        """The new token ids of each prompt along its own path."""
        import ray

        model, additional, dtype, options = self._start
        processor = _processor(model, additional, new_tokens, dtype, stops, options, {})
        rows = [
            {"row": row, "tokens": list(prompt), "path": format_path(path), "start": start}
            for row, (prompt, path, start) in enumerate(zip(prompts, paths, starts, strict=True))
        ]
        given = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // _ROWS_A_TASK))
        written = {row["row"]: list(row["new_tokens"]) for row in processor(given).iter_rows()}
        return [[int(token) for token in written[row]] for row in range(len(rows))]


def _processor(
    model: str,
    additional: dict[str, Any],
    new_tokens: int,
    dtype: str,
    stops: Sequence[int],
    engine_options: dict[str, Any],
    settings: dict[str, Any],
) -> Callable[[Any], Any]:
    prepare()
    from ray.data import llm

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        # Ray's rows may be mappings of its own, on which Arrow crashes where they stand inside another row
        asked: dict[str, Any] = {_ROW: dict(row), "sampling_params": _sampling(row, new_tokens, stops)}
        if row.get("tokens") is not None:
            return {**asked, "tokenized_prompt": [int(token) for token in row["tokens"]]}
        return {**asked, "prompt": row["prompt"]}

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        return {**row[_ROW], "text": row["generated_text"], "new_tokens": row["generated_tokens"]}

    stages = {"chat_template_stage": False, "tokenize_stage": False, "detokenize_stage": False}
    config = llm.vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs=_engine(additional, dtype, engine_options),
        **{"batch_size": _ROWS_A_TASK, **stages, **_where_it_runs(), **settings},
    )
    return llm.build_processor(config, preprocess=ask, postprocess=answer)


def _sampling(row: dict[str, Any], new_tokens: int, stops: Sequence[int]) -> dict[str, Any]:
    # Arrow gives all rows the same fields, and None where one has none: the engine takes that as left out
    path, start = row.get("path"), row.get("start")
    fields = {PATH: None if path is None else format_path(path), START: None if start is None else int(start)}
    return {**greedy(new_tokens, stops), "extra_args": fields}


def _engine(additional: dict[str, Any], dtype: str, options: dict[str, Any]) -> dict[str, Any]:
    return {**engine_settings(additional, dtype, options), "distributed_executor_backend": "mp"}


def _where_it_runs() -> dict[str, Any]:
    """On GPUs Ray decides; vLLM's CPU build needs to be told to take a processor instead."""
    from vllm.platforms import current_platform

    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    here: dict[str, Any] = {"runtime_env": {"env_vars": variables}}
    return {**here, "placement_group_config": {"bundles": [{"CPU": 1}]}} if current_platform.is_cpu() else here
