"""Structural paths inside vLLM, one a request: a general plugin, which vLLM finds by its entry point.

    from vllm import LLM, SamplingParams
    from stochroute.engines.vllm import additional_config

    llm = LLM("model", additional_config=additional_config("routing-folder"))
    llm.generate("Once upon a time", SamplingParams(extra_args={"stochroute_path": "00c0ffee00c0ffee"}))

A request without these fields is a plain request. Over HTTP the fields travel in `vllm_xargs`.
"""

from stochroute.engines.vllm.routing import additional_config

__all__ = ["additional_config"]
