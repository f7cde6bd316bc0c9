"""A server on a free port of 127.0.0.1, in a thread of the test's own process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

import stochroute as sr
from stochroute.loading import load_model
from stochroute.serving.app import build_app
from stochroute.serving.engine import Engine, Limits, Served
from stochroute.serving.metrics import Metrics

NAME = "tiny"


@dataclass(frozen=True)
class Live:
    """A running server.

    Attributes:
        url: without a path.
        engine: its engine.
        http: a client of it.
    """

    url: str
    engine: Engine
    http: httpx.Client

    def complete(self, **fields: Any) -> dict[str, Any]:
        """The answer of /v1/completions; an error fails."""
        answer = self.http.post("/v1/completions", json={"model": NAME, "prompt": "Once", **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, status: int, route: str = "/v1/completions", **fields: Any) -> dict[str, Any]:
        """The error object that is answered with this status."""
        body = {"model": NAME, **({"prompt": "Once"} if route == "/v1/completions" else {}), **fields}
        answer = self.http.post(route, json=body)
        assert answer.status_code == status, answer.text
        return error_of(answer)

    def until_idle(self) -> None:
        """Waits until every row has been given back."""
        for _ in range(1000):
            if self.engine.scheduler.idle and self.engine.unfinished == 0:
                return
            time.sleep(0.01)
        raise AssertionError(f"{self.engine.scheduler.rows_in_flight} rows are still in flight")


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def engine_of(folder: str | None, config: sr.RoutingConfig | None = None, dtype: str = "float64", **limits) -> Engine:
    loaded = load_model(folder, "cpu", dtype)
    routed = sr.route(loaded.model, config)
    served = Served(NAME, routed, loaded.tokenizer, loaded.context, loaded.stops, loaded.pad)
    return Engine(served, Limits(**limits), Metrics())


@contextmanager
def live(engine: Engine, **options: Any) -> Iterator[Live]:
    """The server of an engine; `options` are those of build_app."""
    config = uvicorn.Config(
        build_app(engine, **options), port=0, log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    socket = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    try:
        for _ in range(1000):
            if server.started:
                break
            time.sleep(0.01)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            yield Live(url, engine, http)
    finally:
        server.should_exit = True
        thread.join()
        socket.close()


def events_of(answer: httpx.Response) -> list[str]:
    """What the data lines of a stream hold."""
    lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]
