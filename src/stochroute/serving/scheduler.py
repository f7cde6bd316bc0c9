"""Which rows share a forward pass: requests wait in order, rows join and leave between two tokens.

Rows with the same noise stand in one group, whatever request they belong to; a group writes one token to each of its
rows in one forward pass. A path's noise and its draws are keyed by the path and the position, so company changes
nothing in a text (in float32, but for ties).
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

from stochroute.generation.receipts import Receipt, computed_in, fingerprint
from stochroute.generation.spreading import points_of
from stochroute.noise import NOISE_VERSION
from stochroute.paths import format_path
from stochroute.routed import RoutedModel
from stochroute.serving.budgets import Budgets
from stochroute.serving.group import Group
from stochroute.serving.jobs import Finish, Job, Piece, Row, Token, Work
from stochroute.serving.noise import Noise, Variants
from stochroute.serving.prefilling import Prefiller
from stochroute.serving.text import GrowingText

_PROMPT_TOKENS_A_STEP = 4096  # so that long prompts do not hold up the rows in flight for long


class Scheduler:
    """Rows in flight and requests that wait. All of it happens in one thread.

    Attributes:
        most_rows: rows in flight at once.
        groups: the rows in flight, by their noise.
        waiting: jobs with rows that have not begun, in order.
        passes: forward passes over groups so far.
        written: tokens written so far.
    """

    def __init__(
        self,
        routed: RoutedModel,
        tokenizer: Any,
        stops: frozenset[int],
        pad: int,
        most_rows: int,
        budgets: Budgets | None = None,
    ):
        self.variants = Variants(routed, budgets)
        self.most_rows = most_rows
        self.groups: dict[Noise, Group] = {}
        self.waiting: deque[Job] = deque()
        self.passes = 0
        self.written = 0
        self._tokenizer = tokenizer
        self._stops = stops
        self._prefiller = Prefiller(self.variants, pad)
        self._beginning: list[Row] = []  # neither waiting nor in a group yet
        self._said: list[Piece] = []
        self._same_for_all: dict[str, Any] = {
            "noise_version": NOISE_VERSION,
            "model": fingerprint(routed.model),
            "engine": f"transformers {transformers.__version__}",
            "dtype": computed_in(routed.model),
        }

    @property
    def rows_in_flight(self) -> int:
        """Rows that are being written."""
        return sum(len(group.rows) for group in self.groups.values())

    @property
    def rows_waiting(self) -> int:
        """Rows that have not begun."""
        return sum(job.waiting for job in self.waiting)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and not self.groups

    def new_job(self, work: Work, receive: Callable[[Piece], None], timeout: float) -> Job:
        """The job of a request, with `timeout` seconds to live. Any thread may call this."""
        job = Job(work, receive, time.monotonic() + timeout)
        for prompt, paths, most in zip(work.prompts, work.paths, work.max_tokens, strict=True):
            start = 0 if work.all_noised else len(prompt) - 1
            positions = torch.full((len(paths),), len(prompt))
            points = points_of(paths, positions) if work.sampling.spread else [None] * len(paths)
            for path, point in zip(paths, points, strict=True):
                text = GrowingText(self._tokenizer, prompt, work.stops)
                job.rows.append(Row(job, len(job.rows), path, prompt, start, most, text, point))
        job.waiting = len(job.rows)
        return job

    def add(self, job: Job) -> None:
        """Puts a job at the end of the queue."""
        self.waiting.append(job)

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """Lets rows in, writes one token to every row, lets ended rows go. Returns what the rows have to say."""
        self._drop(time.monotonic())
        self._admit()
        for group in self.groups.values():
            self._advance(group)
        self._forget_empty_groups()
        return self._all_said()

    def fail(self) -> list[Piece]:
        """Ends every row: a forward pass went wrong, and no cache can be trusted. Returns what is left to say."""
        rows = [row for group in self.groups.values() for row in group.rows]
        rows += self._beginning
        rows += [row for job in self.waiting for row in _not_begun(job)]
        self.groups.clear()
        self.waiting.clear()
        self._beginning = []
        self._said += [row.end("error") for row in dict.fromkeys(rows) if row.finish is None]
        return self._all_said()

    def _all_said(self) -> list[Piece]:
        said, self._said = self._said, []
        return said

    def _drop(self, now: float) -> None:
        """Ends the rows of requests that nobody waits for any more."""
        reasons: dict[Job, Finish] = {}
        for job in {*self.waiting, *(row.job for group in self.groups.values() for row in group.rows)}:
            reason = job.given_up(now)
            if reason:
                reasons[job] = reason
        if not reasons:
            return
        for job in [job for job in self.waiting if job in reasons]:
            self._said += [row.end(reasons[job]) for row in _not_begun(job)]
            self.waiting.remove(job)
            job.waiting = 0
            job.prefilled.clear()
        for group in self.groups.values():
            places = [place for place, row in enumerate(group.rows) if row.job in reasons]
            self._said += [group.rows[place].end(reasons[group.rows[place].job]) for place in places]
            group.leave(places)
        self._forget_empty_groups()

    def _admit(self) -> None:
        """Takes rows of waiting jobs, in order, into free places, their prompts computed first."""
        free, tokens = self.most_rows - self.rows_in_flight, _PROMPT_TOKENS_A_STEP
        begun = self._beginning
        while self.waiting and free > 0 and tokens > 0:
            job = self.waiting[0]
            taken = _not_begun(job)[:free]
            begun += taken
            free -= len(taken)
            tokens -= sum(map(len, {row.prompt for row in taken}))
            job.waiting -= len(taken)
            if not job.waiting:
                self.waiting.popleft()
        if not begun:
            return
        sources = self._prefiller.compute(begun)
        for noise in dict.fromkeys(row.noise for row in begun):
            places = [place for place, row in enumerate(begun) if row.noise == noise]
            group = self.groups.setdefault(noise, Group(self.variants, noise))
            group.join([begun[place] for place in places], [sources[place] for place in places])
        for job in {row.job for row in begun}:
            job.receipts = job.receipts or self._receipts(job)
            if not job.waiting:
                job.prefilled.clear()
        self._beginning = []

    def _advance(self, group: Group) -> None:
        """Writes one token to every row of the group."""
        ended: list[int] = []
        ids, probabilities = group.write()
        self.passes += 1
        self.written += len(ids)
        for place, (row, token) in enumerate(zip(group.rows, ids, strict=True)):
            text = self._take(row, token, probabilities.get(place))
            if row.finish:
                ended.append(place)
                self._said.append(row.say("".join(row.kept) + text))
            elif row.job.work.streams and text:
                self._said.append(row.say(text))
            elif text:
                row.kept.append(text)
        group.leave(ended)

    def _take(self, row: Row, token: int, probability: Token | None) -> str:
        """Writes the token to the row, and its end where it has come. Returns the text that has become certain."""
        row.written.append(token)
        text, stops = "", token in self._stops
        if not stops:
            if probability is not None:
                row.unsaid.append(probability)
            if row.reads_text:
                text = row.text.push([token])
        full = len(row.written) >= row.max_tokens
        if not (stops or full or row.text.stopped):
            return text
        if not row.reads_text:
            text = row.text.push([id for id in row.written if id not in self._stops])
        text += row.text.finish()
        row.finish = "stop" if stops or row.text.stopped else "length"
        return text

    def _forget_empty_groups(self) -> None:
        """An empty group goes, and its cache with it."""
        self.groups = {noise: group for noise, group in self.groups.items() if group.rows}

    def _receipts(self, job: Job) -> list[Receipt]:
        work, routing = job.work, self.variants.hash(job.work.noise)
        decoding: dict[str, Any] = work.sampling.settings()
        if self._stops:
            decoding["eos_token_id"] = next(iter(self._stops)) if len(self._stops) == 1 else sorted(self._stops)
        if work.stops:
            decoding["stop_strings"] = list(work.stops)
        return [
            Receipt(
                path=format_path(row.path),
                start=row.start,
                routing=routing,
                decoding={**decoding, "max_new_tokens": row.max_tokens},
                **self._same_for_all,
            )
            for row in job.rows
        ]


def _not_begun(job: Job) -> Sequence[Row]:
    return job.rows[len(job.rows) - job.waiting :]
