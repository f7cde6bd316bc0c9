"""What the plugin knows of vLLM, and what it refuses because paths would be wrong there or were never tested there."""

from typing import Any

KNOWN_VERSIONS = ("0.32",)

# Only these are known to load their model through the method that the plugin wraps.
_WORKERS = ("vllm.v1.worker.cpu_worker.CPUWorker", "vllm.v1.worker.gpu_worker.Worker")


def check_version(version: str) -> None:
    """RuntimeError for a vLLM whose insides are unknown."""
    if not any(version == known or version.startswith(f"{known}.") for known in KNOWN_VERSIONS):
        raise RuntimeError(
            f"stochroute's vLLM plugin knows vLLM {', '.join(KNOWN_VERSIONS)}, this is {version}: noise in the wrong "
            "place would go unseen. Install a known version, or leave the plugin out with VLLM_PLUGINS="
        )


def check_engine(config: Any) -> None:
    """ValueError, with the remedy, for an engine (a VllmConfig) whose requests could not walk paths truly."""
    model, parallel, cache = config.model_config, config.parallel_config, config.cache_config
    refused = {
        "Model Runner V2, which calls the model in another way: set VLLM_USE_V2_MODEL_RUNNER=0": (
            config.use_v2_model_runner
        ),
        f"the worker {parallel.worker_cls}: use a CPU or a CUDA GPU": parallel.worker_cls not in _WORKERS,
        "pooling models, which write no text": model.runner_type != "generate",
        "encoder-decoder and multimodal models: serve a decoder-only text model": (
            model.is_encoder_decoder or model.is_multimodal_model or model.uses_mrope
        ),
        "speculative decoding, whose draft model knows no paths: leave it out": config.speculative_config is not None,
        "key-value transfer and offloading, which may find blocks by their tokens alone: leave them out": (
            config.kv_transfer_config is not None or cache.kv_offloading_size is not None
        ),
        "pipeline parallelism: use tensor parallelism": parallel.pipeline_parallel_size > 1,
        "context parallelism: use tensor parallelism": (
            parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1
        ),
        "dual batch overlap, which splits a step: leave it out": parallel.use_ubatching,
        "LoRA adapters: merge them into the model": config.lora_config is not None,
    }
    for what, present in refused.items():
        if present:
            raise ValueError(f"stochroute's paths are not offered with {what}")
