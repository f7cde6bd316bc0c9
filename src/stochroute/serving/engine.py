"""The thread that owns the model, and how an event loop talks to it."""

import asyncio
import contextlib
import copy
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from stochroute.generation.prefill import can_be_shared, rows_that_fit
from stochroute.routed import RoutedModel
from stochroute.serving.budgets import Budgets
from stochroute.serving.errors import ApiError
from stochroute.serving.jobs import Job, Piece, Work
from stochroute.serving.metrics import Metrics
from stochroute.serving.scheduler import Scheduler

_MOST_ROWS = 256  # beyond it a step takes longer in proportion
Result = TypeVar("Result")
_log = logging.getLogger("stochroute.serving")


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        name: the model id that clients name.
        routed: the model with its routing, in eval mode.
        tokenizer: its tokenizer.
        context: tokens it can hold, None when its config does not say.
        stops: token ids that end a text.
        pad: token id that fills up shorter prompts.
        budgets: what strengths do; None where it was not measured, and requests may give no budget.
    """

    name: str
    routed: RoutedModel
    tokenizer: Any
    context: int | None
    stops: frozenset[int]
    pad: int
    budgets: Budgets | None = None


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        rows: texts written at once; None fits them to half of the free memory, at most 256.
        waiting: texts that may wait; a request that would add more gets a 429.
        choices: texts of one request, over all its prompts.
        seconds: that a request may take, waiting included.
        body_bytes: size of a request's body.
        body_seconds: that a client may take to send it.
    """

    rows: int | None = None
    waiting: int = 1024
    choices: int = 128
    seconds: float = 600.0
    body_bytes: int = 1 << 20
    body_seconds: float = 30.0


class Engine:
    """Takes work from an event loop and hands pieces of text back to it.

    Attributes:
        served, limits, metrics: as given.
        scheduler: what runs in the thread.
        unfinished: texts that were submitted and have not ended; counted in the loop.
        reading_tokenizer: the tokenizer for requests, used in one thread at a time.

    Raises:
        ValueError: the model keeps more than keys and values, so rows cannot join and leave.
    """

    def __init__(self, served: Served, limits: Limits, metrics: Metrics):
        model = served.routed.model
        if not can_be_shared(model):
            raise ValueError(
                f"model type {model.config.model_type!r} keeps more than keys and values, so its texts cannot join "
                f"and leave a batch: serve another model"
            )
        self.served = served
        self.limits = limits
        self.metrics = metrics
        rows = limits.rows or min(_MOST_ROWS, rows_that_fit(model, 2 * (served.context or 2048)))
        self.scheduler = Scheduler(served.routed, served.tokenizer, served.stops, served.pad, rows, served.budgets)
        self._wake = threading.Condition()
        self._arrived: deque[Job] = deque()
        self.unfinished = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="stochroute-model", daemon=True)
        self._ending = False
        # one thread: a tokenizer is not made for several at once, and it has one of its own
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="stochroute-reader")
        self.reading_tokenizer = copy.deepcopy(served.tokenizer)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive() and not self._ending

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to work; pieces are handed out in the loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its step; rows in flight are ended with an error."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def read(self, reading: Callable[[], Result]) -> Result:
        """The result of a function that uses the reading tokenizer, off the event loop; ApiError 503 when stopped."""
        self.check_alive()
        return await asyncio.get_running_loop().run_in_executor(self._reader, reading)

    def submit(self, work: Work, receive: Callable[[Piece], None]) -> Job:
        """Queues the work; `receive` is called in the loop with each piece. Called in the loop.

        Raises:
            ApiError: 429 when too much is waiting; 503 when the engine does not run.
        """
        self.check_alive()
        rows = sum(map(len, work.paths))
        room = self.scheduler.most_rows + self.limits.waiting - self.unfinished
        if rows > room:
            raise ApiError(
                429,
                f"this request asks for {rows} texts, and there is room for {max(room, 0)}: try again later",
                "queue_full",
                retry_after=1,
            )
        self.unfinished += rows
        job = self.scheduler.new_job(work, receive, self.limits.seconds)
        with self._wake:
            self._arrived.append(job)
            self._wake.notify()
        return job

    def check_alive(self) -> None:
        """Raises ApiError 503 when the thread does not run."""
        if not self.alive:
            raise ApiError(503, "the model's thread has ended: restart the server", "engine_stopped")

    def _run(self) -> None:
        scheduler = self.scheduler
        while True:
            with self._wake:
                while scheduler.idle and not self._arrived and not self._ending:
                    self._wake.wait()
                while self._arrived:
                    scheduler.add(self._arrived.popleft())
                if self._ending:
                    self._hand_out(scheduler.fail())
                    return
            try:
                with self.metrics.step(scheduler):
                    pieces = scheduler.step()
            except Exception:  # whatever the model raised, its requests are answered and the server goes on
                _log.exception("a step failed", extra={"event": "step_failed"})
                pieces = scheduler.fail()
            self._hand_out(pieces)

    def _hand_out(self, pieces: list[Piece]) -> None:
        """One call into the loop for all pieces of a step."""
        if pieces and self._loop is not None:
            # a loop that has closed has nobody left to tell
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver, pieces)

    def _deliver(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.finish:
                self.unfinished -= 1
            piece.job.receive(piece)
