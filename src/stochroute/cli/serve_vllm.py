"""`stochroute serve --engine vllm`: vLLM's own OpenAI server, whose requests may walk paths."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from stochroute.cli.engines import Engine, hosted, temporary_folder
from stochroute.cli.errors import BadInput, Interrupted
from stochroute.cli.request import Noise
from stochroute.errors import one_line
from stochroute.loading import STORY_TEMPLATE, load_model

SERVING = ("transformers", "vllm")


@dataclass(frozen=True)
class Asked:
    """What the command line says of the server, checked as for the other engine."""

    model: str | None
    name: str | None
    chat_template: str | None
    routing: str | None
    noise: Noise
    dtype: str
    host: str
    port: int
    api_key: str | None
    cors_origins: list[str] | None
    log_level: str
    as_json: bool


def serve_with_vllm(asked: Asked, engine: Engine) -> None:
    """Runs the server until it is stopped.

    Raises:
        BadInput: vLLM is not there, or cannot do what is asked.
        Interrupted: the user pressed Ctrl-C.
    """
    loaded = load_model(asked.model, "cpu", asked.dtype)

    # imported only now, since they bring in torch and transformers, and after them vLLM
    from stochroute.cli.routings import calibrated_model
    from stochroute.engines.vllm import launch

    routed, _ = calibrated_model(loaded, asked.routing, asked.noise)
    with temporary_folder() as folder:
        start = hosted(loaded, routed, asked.routing, Path(folder))
        name = asked.name or loaded.short_name
        template = asked.chat_template or (STORY_TEMPLATE if loaded.embedded else None)
        del loaded, routed
        try:
            launch.prepare()
            own = launch.engine_settings(start.additional, start.dtype, engine.options)
            settings = {**own, **_server(asked, start.model, name, template)}
            launch.serve(settings, lambda host, port: _announce(asked, name, host, port))
        except (ImportError, RuntimeError, ValueError) as error:
            raise BadInput(f"--engine vllm: {one_line(error)}; see docs/engines.md") from error
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted: the server has ended") from error


def _server(asked: Asked, model: str, name: str, template: str | None) -> dict[str, Any]:
    return {
        "model": model,
        "served_model_name": [name],
        "host": asked.host,
        "port": asked.port,
        "api_key": None if asked.api_key is None else [asked.api_key],
        "allowed_origins": asked.cors_origins or [],
        "chat_template": template,
        "uvicorn_log_level": asked.log_level,
        "disable_uvicorn_access_log": True,
    }


def _announce(asked: Asked, name: str, host: str, port: int) -> None:
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if asked.as_json:
        typer.echo(json.dumps({"url": url, "model": name}))
        sys.stdout.flush()
    else:
        typer.echo(f"{name} will be served by vLLM at {url}/v1 once it has started; Ctrl-C ends it", err=True)
