"""What every request passes before its route: a log line, the host, the key, the size of the body."""

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stochroute.serving.engine import Limits
from stochroute.serving.errors import ApiError, invalid
from stochroute.serving.metrics import Metrics

_log = logging.getLogger("stochroute.serving")
_OPEN = ("/health", "/", "/favicon.ico")  # what needs no key; the playground's files as well
_PLAYGROUND = "/playground/"


class Gate:
    """ASGI middleware.

    Args:
        app: what stands behind it.
        routes: known paths, the labels of the metrics.
        hosts: names that the Host header may have, None for any. A server on loopback takes only loopback's names, so
            that no web page can reach it through a name of its own (DNS rebinding).
        key: the bearer key, None when there is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        limits: Limits,
        routes: Iterable[str],
        hosts: Iterable[str] | None,
        key: str | None,
    ):
        self.app = app
        self.metrics = metrics
        self.limits = limits
        self.routes = frozenset(routes)
        self.hosts = None if hosts is None else frozenset(hosts)
        self._digest = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(scope, send)
        try:
            self._check(scope)
            receive = await self._read_body(scope, receive)
            await self.app(scope, receive, visit.send)
        except ApiError as error:
            await visit.answer(error)
        except Exception:
            _log.exception("a request failed", extra={"event": "request_failed", "request": visit.id})
            if visit.status is None:
                await visit.answer(ApiError(500, "the server failed; its log says how", "internal_error"))
        finally:
            self._record(scope, visit)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self.hosts is not None and _host(headers.get("host", "")) not in self.hosts:
            raise invalid(None, "this server answers to its own address only: name it in --allowed-host", "wrong_host")
        path: str = scope["path"]
        if self._digest is None or path in _OPEN or path.startswith(_PLAYGROUND):
            return
        kind, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        # digests have one length, so that the time of comparing tells nothing
        if kind.lower() != b"bearer" or not hmac.compare_digest(_digest(key.strip()), self._digest):
            raise ApiError(401, "the key is wrong or missing: send it as Authorization: Bearer KEY", "invalid_api_key")

    async def _read_body(self, scope: Scope, receive: Receive) -> Receive:
        """Reads the body, and returns a receive that hands it on."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return receive
        most = self.limits.body_bytes
        too_large = ApiError(413, f"the body is larger than the {most} bytes that this server takes", "body_too_large")
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > most:
            raise too_large
        body, last = b"", False
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while not last:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(499, "the client has gone", "cancelled")
                    body += message.get("body", b"")
                    last = not message.get("more_body", False)
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise ApiError(408, "the body took too long to arrive", "body_timeout") from None
        handed = False

        async def hand_on() -> Message:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        return hand_on

    def _record(self, scope: Scope, visit: "_Visit") -> None:
        route = scope["path"] if scope["path"] in self.routes else "other"
        seconds = time.monotonic() - visit.began
        status = visit.status or 499  # the client went before there was an answer
        self.metrics.requests.labels(route, str(status)).inc()
        if scope["method"] == "POST":
            self.metrics.request_seconds.observe(seconds)
        known: dict[str, Any] = scope.get("state", {}).get("log", {})
        _log.info(
            "request",
            extra={
                "event": "request",
                "request": visit.id,
                "method": scope["method"],
                "route": route,
                "status": status,
                "seconds": round(seconds, 4),
                **known,
            },
        )


class _Visit:
    """One request on its way: its id, and the status that was sent."""

    def __init__(self, scope: Scope, send: Send):
        self.id = secrets.token_hex(8)
        self.began = time.monotonic()
        self.status: int | None = None
        self._send = send
        scope.setdefault("state", {})["log"] = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", []), (b"x-request-id", self.id.encode())]}
        await self._send(message)

    async def answer(self, error: ApiError) -> None:
        """Sends the error; one with status 499 only ends in the log, since nobody is there."""
        if error.status == 499:
            return
        body = json.dumps(error.body()).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": body})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _host(header: str) -> str:
    """The host of a Host header, without its port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].lower()
