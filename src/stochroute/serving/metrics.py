"""What the server counts, for Prometheus."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from stochroute.serving.scheduler import Scheduler

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named = {"namespace": "stochroute", "registry": self.registry}
        self.requests = Counter("requests", "Answered requests.", ["route", "status"], **named)
        self.texts = Counter("texts", "Texts that have ended.", ["finish"], **named)
        self.prompt_tokens = Counter("prompt_tokens", "Tokens of prompts taken on.", **named)
        self.written_tokens = Counter("written_tokens", "Tokens written.", **named)
        self.passes = Counter("forward_passes", "Forward passes that wrote tokens.", **named)
        self.in_flight = Gauge("texts_in_flight", "Texts being written.", **named)
        self.waiting = Gauge("texts_waiting", "Texts that have not begun.", **named)
        self.step_seconds = Histogram("step_seconds", "One token for every text in flight.", buckets=_SECONDS, **named)
        self.first_seconds = Histogram("first_token_seconds", "Until the first token.", buckets=_SECONDS, **named)
        self.request_seconds = Histogram("request_seconds", "Until the answer's end.", buckets=_SECONDS, **named)

    @contextmanager
    def step(self, scheduler: "Scheduler") -> Generator[None]:
        """Measures one step of the scheduler, and its state after it."""
        before, written, passes = time.perf_counter(), scheduler.written, scheduler.passes
        try:
            yield
        finally:
            self.step_seconds.observe(time.perf_counter() - before)
            self.written_tokens.inc(scheduler.written - written)
            self.passes.inc(scheduler.passes - passes)
            self.in_flight.set(scheduler.rows_in_flight)
            self.waiting.set(scheduler.rows_waiting)

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
