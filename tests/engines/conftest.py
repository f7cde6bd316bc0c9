"""vLLM engines in this process: several may live beside each other, and each is made once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_models import SETTINGS, save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny Llama."""
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def engine() -> Iterator[Callable[..., Any]]:
    """Makes an engine of a model's folder; options are vLLM's own."""
    vllm = pytest.importorskip("vllm", reason="needs vLLM, in an environment of its own: see .ci/run")
    made = []

    def make(model: str, routing: Any = None, **options: Any) -> Any:
        from stochroute.engines.vllm import additional_config

        settings = {**SETTINGS, "enforce_eager": True}
        if routing is not None:
            settings["additional_config"] = additional_config(routing)
        made.append(vllm.LLM(model, **{**settings, **options}))
        return made[-1]

    yield make
    for llm in made:
        llm.llm_engine.engine_core.shutdown()
