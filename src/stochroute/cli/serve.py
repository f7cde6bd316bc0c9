"""`stochroute serve`: an OpenAI-compatible server with paths, and a playground in the browser.

stochroute serve --port 8000
"""

import json
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stochroute.cli import model_options, noise_options
from stochroute.cli.engines import EngineName, EngineOptions, check_device, read_engine
from stochroute.cli.errors import BadInput, Interrupted
from stochroute.cli.request import Noise, check_routing
from stochroute.cli.serve_vllm import SERVING, Asked, serve_with_vllm
from stochroute.errors import one_line
from stochroute.loading import STORY_TEMPLATE, LoadedModel, load_model

_NETWORK, _LIMITS = "Network", "Limits"
_BACKLOG = 2048
_MAX_WAITING, _MAX_CHOICES, _TIMEOUT, _MAX_BODY = 1024, 128, 600, 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def serve(
    model: model_options.Model = None,
    name: Annotated[
        str | None, typer.Option(help="Id that clients name. Default: the folder's name, or: embedded.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(metavar="FILE", help="Jinja chat template in place of the tokenizer's.")
    ] = None,
    routing: noise_options.RoutingFolder = None,
    strength: noise_options.Strength = None,
    budget: noise_options.Budget = None,
    budgets: Annotated[
        bool | None,
        typer.Option(
            "--budgets/--no-budgets",
            help="Measure at the start what strengths do, so that requests may give a budget. Default: for the "
            "embedded model.",
            rich_help_panel=noise_options.PANEL,
        ),
    ] = None,
    layers: noise_options.Layers = None,
    hold: noise_options.Hold = None,
    form: noise_options.Form = None,
    span: noise_options.Span = None,
    attention_strength: noise_options.AttentionStrength = None,
    expert_strength: noise_options.ExpertStrength = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.", rich_help_panel=_NETWORK)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", rich_help_panel=_NETWORK)] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="STOCHROUTE_API_KEY",
            show_envvar=True,
            help="Clients must send it. Better set in the environment: arguments are seen by all users.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A further Host header to answer to. Repeat for more. On loopback: its own names; elsewhere: any.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="A web origin that may call. Repeat for more. Default: none.",
            rich_help_panel=_NETWORK,
        ),
    ] = None,
    max_rows: Annotated[
        int | None,
        typer.Option(help="Texts written at once. Default: what memory holds, at most 256.", rich_help_panel=_LIMITS),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option(help="Texts that may wait; then 429.", rich_help_panel=_LIMITS)
    ] = _MAX_WAITING,
    max_choices: Annotated[int, typer.Option(help="Texts of one request.", rich_help_panel=_LIMITS)] = _MAX_CHOICES,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a request may take.", rich_help_panel=_LIMITS)
    ] = _TIMEOUT,
    max_body: Annotated[int, typer.Option(help="Bytes of a request's body.", rich_help_panel=_LIMITS)] = _MAX_BODY,
    device: model_options.Device = "auto",
    dtype: model_options.Dtype = "auto",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    as_json: Annotated[bool, typer.Option("--json", help="Say where it listens as one JSON object on stdout.")] = False,
    engine: EngineName = "transformers",
    engine_option: EngineOptions = None,
) -> None:
    """Serve a model over the OpenAI API, with paths; a playground is at / (not with --engine vllm).

    Example: stochroute serve --port 8000

    \b
    curl localhost:8000/v1/completions -H 'content-type: application/json' \\
        -d '{"model": "embedded", "prompt": "Once upon a time", "n": 4, "seed": 7, "max_tokens": 40}'
    """
    _check(host, port, api_key, log_level, max_rows, max_waiting, max_choices, timeout, max_body)
    noise = Noise(strength, layers, hold, form, span, attention_strength, expert_strength, budget)
    check_routing(routing, noise)
    template = None if chat_template is None else _read_template(chat_template)
    asked = read_engine(engine, engine_option or [], SERVING)
    if asked.name == "vllm":
        _refuse_without_effect(
            {
                "--budgets": budgets is not None,
                "--allowed-host": allowed_host is not None,
                "--max-rows": max_rows is not None,
                "--max-waiting": max_waiting != _MAX_WAITING,
                "--max-choices": max_choices != _MAX_CHOICES,
                "--timeout": timeout != _TIMEOUT,
                "--max-body": max_body != _MAX_BODY,
            }
        )
        check_device(asked, device)
        serve_with_vllm(
            Asked(model, name, template, routing, noise, dtype, host, port, api_key, cors_origin, log_level, as_json),
            asked,
        )
        return
    try:
        from stochroute.serving.app import build_app
        from stochroute.serving.engine import Engine, Limits, Served
        from stochroute.serving.logs import log_as_json
        from stochroute.serving.metrics import Metrics
    except ImportError as error:
        raise BadInput(f"serving needs more packages ({one_line(error)}): pip install 'stochroute[serve]'") from error
    with _bind(host, port) as bound:
        loaded = load_model(model, device, dtype)

        # imported only now, since it brings in torch and transformers
        from stochroute.cli.routings import calibrated_model

        routed, _ = calibrated_model(loaded, routing, noise)
        if template is not None:
            loaded.tokenizer.chat_template = template
        elif loaded.embedded:
            loaded.tokenizer.chat_template = STORY_TEMPLATE
        wanted = loaded.embedded and not routed.silent if budgets is None else budgets
        curve = _measure(routed, loaded) if wanted else None
        served = Served(
            name or loaded.short_name, routed, loaded.tokenizer, loaded.context, loaded.stops, loaded.pad, curve
        )
        limits = Limits(max_rows, max_waiting, max_choices, timeout, max_body)
        hosts = [*_LOOPBACK, *(allowed_host or [])] if host in _LOOPBACK else allowed_host
        app = build_app(Engine(served, limits, Metrics()), key=api_key, hosts=hosts, cors_origins=cors_origin)
        log_as_json(log_level)
        _listen(app, bound, served.name, as_json, guarded=api_key is not None)


def _measure(routed: Any, loaded: LoadedModel) -> Any:
    from rich.console import Console

    from stochroute.serving.budgets import Budgets

    if routed.silent:
        raise BadInput("--budgets has no effect without noise: leave it out, or give a strength above 0")
    with Console(stderr=True).status("measuring budgets") as status:
        return Budgets.measured(
            routed,
            loaded.tokenizer,
            loaded.context,
            lambda done, all_points: status.update(f"measuring budgets: {done} of {all_points}"),
        )


def _bind(host: str, port: int) -> socket.socket:
    """A socket with the address, taken before a model is loaded for nothing."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise BadInput(
            f"--host {host} --port {port}: {error.strerror or error}; choose others, 0 is a free port"
        ) from error
    return bound


def _listen(app: Any, bound: socket.socket, name: str, as_json: bool, guarded: bool) -> None:
    import uvicorn

    bound.listen(_BACKLOG)  # from here on clients can connect, so that what is said next is true
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if as_json:
        typer.echo(json.dumps({"url": url, "model": name}))
        sys.stdout.flush()
    else:
        typer.echo(f"{name} is served at {url}/v1, with a playground at {url}/; Ctrl-C ends it", err=True)
    if host not in _LOOPBACK and not guarded:
        typer.echo("stochroute: warning: everybody who reaches this address may use it; set --api-key", err=True)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        backlog=_BACKLOG,
    )
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted: the server has ended") from error


def _check(
    host: str,
    port: int,
    api_key: str | None,
    log_level: str,
    max_rows: int | None,
    max_waiting: int,
    max_choices: int,
    timeout: float,
    max_body: int,
) -> None:
    if not 0 <= port < 1 << 16:
        raise BadInput(f"--port {port}: give 0 … 65535")
    if not host.strip():
        raise BadInput(f"--host {host!r}: give an address, such as 127.0.0.1")
    if api_key is not None and not api_key.strip():
        raise BadInput("--api-key is empty: give a key, or leave it out for a server without one")
    if log_level not in ("debug", "info", "warning", "error"):
        raise BadInput(f"--log-level {log_level}: choose debug, info, warning or error")
    sizes = {"--max-rows": max_rows or 1, "--max-choices": max_choices, "--max-body": max_body, "--timeout": timeout}
    for option, value in sizes.items():
        if not value > 0:
            raise BadInput(f"{option} {value}: give a positive number")
    if max_rows == 0:
        raise BadInput("--max-rows 0: give a positive number")
    if max_waiting < 0:
        raise BadInput(f"--max-waiting {max_waiting}: give 0 or more")


def _read_template(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--chat-template {file}: {one_line(error)}; name a readable Jinja file") from error


def _refuse_without_effect(given: dict[str, bool]) -> None:
    for option, present in given.items():
        if present:
            raise BadInput(
                f"{option} has no effect with --engine vllm, which has limits of its own: see --engine-option"
            )
