"""The routes: OpenAI's, health and metrics, and the playground."""

import asyncio
import contextlib
import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from stochroute import __version__
from stochroute.serving import protocol
from stochroute.serving.answers import Answering
from stochroute.serving.engine import Engine
from stochroute.serving.errors import ApiError
from stochroute.serving.gate import Gate
from stochroute.serving.reading import Asked, describe, read_chat, read_completion

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": protocol.ErrorAnswer, "description": text}
    for status, text in {
        400: "The request cannot be done as it is; the message names the field and the remedy.",
        401: "The key is wrong or missing.",
        404: "There is no such model.",
        408: "The body took too long to arrive.",
        413: "The body is too large.",
        429: "Too much is waiting; Retry-After says when to try again.",
        500: "The model failed.",
        503: "The engine does not run.",
        504: "The request took longer than the server allows.",
    }.items()
}
_STREAM = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
_PLAYGROUND = {
    "index.html": "text/html",
    "style.css": "text/css",
    "main.js": "text/javascript",
    "api.js": "text/javascript",
    "tree.js": "text/javascript",
    "words.js": "text/javascript",
}
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def build_app(
    engine: Engine, *, key: str | None = None, hosts: list[str] | None = None, cors_origins: list[str] | None = None
) -> FastAPI:
    """The ASGI application; its lifespan starts and stops the engine.

    Args:
        engine: not started yet.
        key: the bearer key that clients have to send, None when there is none.
        hosts: host names that it answers to, None for any.
        cors_origins: web origins that may call it, besides its own.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        engine.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)

    app = FastAPI(
        title="stochroute",
        version=__version__,
        description="OpenAI-compatible, with paths: one id replays a text.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    started = int(time.time())
    _add_error_handlers(app)

    @app.post("/v1/completions", response_model=protocol.Completion, responses=_ERRORS | _STREAM)
    async def completions(request: Request, body: protocol.CompletionRequest) -> Response:
        return await _answer(engine, request, body, read_completion, chat=False)

    @app.post("/v1/chat/completions", response_model=protocol.ChatCompletion, responses=_ERRORS | _STREAM)
    async def chat_completions(request: Request, body: protocol.ChatRequest) -> Response:
        return await _answer(engine, request, body, read_chat, chat=True)

    @app.get("/v1/models", responses={401: _ERRORS[401]})
    async def models() -> protocol.ModelList:
        return protocol.ModelList(data=[describe(engine, started)])

    @app.get("/v1/models/{name:path}", responses={401: _ERRORS[401], 404: _ERRORS[404]})
    async def model(name: str) -> protocol.ModelCard:
        if name != engine.served.name:
            raise ApiError(404, f"model {name!r} is not served here: name {engine.served.name!r}", "model_not_found")
        return describe(engine, started)

    @app.get("/health", responses={503: _ERRORS[503]})
    async def health() -> protocol.Health:
        engine.check_alive()
        return protocol.Health(status="ok")

    @app.get("/metrics", response_class=Response, responses={401: _ERRORS[401]})
    async def metrics() -> Response:
        return Response(engine.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return _page("index.html")

    @app.get("/playground/{name}", include_in_schema=False)
    async def playground_file(name: str) -> Response:
        return _page(name)

    paths = [getattr(route, "path", "") for route in app.routes]
    routes = [path for path in paths if "{" not in path]
    app.add_middleware(Gate, metrics=engine.metrics, limits=engine.limits, routes=routes, hosts=hosts, key=key)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


Body = TypeVar("Body", protocol.CompletionRequest, protocol.ChatRequest)


async def _answer(
    engine: Engine, request: Request, body: Body, read: Callable[[Engine, Body], Asked], chat: bool
) -> Response:
    asked = await engine.read(functools.partial(read, engine, body))
    work = asked.work
    prompt_tokens = sum(map(len, work.prompts))
    log = request.scope["state"]["log"]
    log |= {"texts": sum(map(len, work.paths)), "prompt_tokens": prompt_tokens, "stream": work.streams}
    usage_in_stream = body.stream_options is not None and body.stream_options.include_usage
    answering = Answering(engine, asked, chat, usage_in_stream)
    engine.metrics.prompt_tokens.inc(prompt_tokens)
    if work.streams:
        return EventStream(answering, log)
    gone = asyncio.create_task(_cancel_when_gone(request.receive, answering))
    try:
        whole = await answering.whole()
    finally:
        answering.job.cancelled = True  # does nothing to rows that have ended
        gone.cancel()
        log["completion_tokens"] = answering.completion_tokens
    return JSONResponse(whole)


class EventStream(Response):
    """Server-sent events, for as long as the client is there."""

    def __init__(self, answering: Answering, log: dict[str, Any]):
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self.answering = answering
        self.log = log
        del self.headers["content-length"]  # of the empty body that Response has been given

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.create_task(_cancel_when_gone(receive, self.answering))
        try:
            async for events in self.answering.stream():
                await send({"type": "http.response.body", "body": events, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.answering.job.cancelled = True
            gone.cancel()
            self.log["completion_tokens"] = self.answering.completion_tokens


async def _cancel_when_gone(receive: Receive, answering: Answering) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    answering.job.cancelled = True


def _page(name: str) -> Response:
    if name not in _PLAYGROUND:
        raise ApiError(404, f"there is no {name!r} here", "not_found")
    content = (files("stochroute.serving") / "playground" / name).read_bytes()
    return Response(content, media_type=_PLAYGROUND[name], headers=_PAGE_HEADERS)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return JSONResponse(error.body(), error.status, error.headers())

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return await api_error(request, _named(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse(ApiError(error.status_code, detail, code).body(), error.status_code, error.headers)


def _named(error: RequestValidationError) -> ApiError:
    """What is wrong with the first bad field of a body, in the API's words; what was sent is not repeated."""
    problems = error.errors()
    first = problems[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "it ends too early")
        return ApiError(400, f"the body is no JSON: {reason}", "no_json")
    place = _place(first)
    if not place:
        return ApiError(400, "the body must be a JSON object, sent as application/json", "no_json_object")
    param = ".".join(place)
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"{param} is no field here, or one without effect: leave it out", "unknown_field", param)
    # a field of several types fails once for each of them
    wrong = dict.fromkeys(_words(p) for p in problems if _place(p)[:1] == place[:1])
    code = "missing_field" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, f"{param}: {', or '.join(wrong)}", code, param)


def _place(problem: Any) -> list[str]:
    return [str(part) for part in problem["loc"][1:] if not _is_type_name(part)]


def _words(problem: Any) -> str:
    if problem["type"] == "string_pattern_mismatch":
        return "a path id is a text of exactly 16 hex digits, such as '00c0ffee00c0ffee'"
    text: str = problem["msg"]
    return text[:1].lower() + text[1:]


def _is_type_name(part: Any) -> bool:
    """Whether pydantic put the name of a type into a place, as it does for fields of several types."""
    return isinstance(part, str) and ("[" in part or "-" in part or part in _TYPE_NAMES)


_TYPE_NAMES = {
    "str", "int", "float", "bool",
    *(name for name, _ in inspect.getmembers(protocol, inspect.isclass)),
}  # fmt: skip
