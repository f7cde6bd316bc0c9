"""What a request asks of the model, and the rows that answer it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stochroute.generation.receipts import Receipt
from stochroute.generation.spreading import Point
from stochroute.serving.noise import Noise
from stochroute.serving.sampling import Sampling
from stochroute.serving.text import GrowingText

Finish = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True)
class Work:
    """One request, checked: every prompt is continued along its paths.

    Attributes:
        prompts: token ids, at least one a prompt.
        paths: for each prompt the ids of its paths.
        noise: what the request changes in the routing.
        all_noised: whether noise begins with the prompt (span "all") or at its last token.
        sampling: how tokens are chosen.
        max_tokens: for each prompt, at most so many new tokens.
        stops: strings that end a text; they are not part of it.
        top_logprobs: None, or how many alternatives to report with each token's log-probability.
        streams: whether text is wanted as it comes.
    """

    prompts: list[tuple[int, ...]]
    paths: list[list[int]]
    noise: Noise
    all_noised: bool
    sampling: Sampling
    max_tokens: list[int]
    stops: tuple[str, ...]
    top_logprobs: int | None
    streams: bool


@dataclass(frozen=True)
class Token:
    """One written token.

    Attributes:
        id: the token id.
        logprob: its log-probability in nats, along the path, before temperature and top-p.
        top: the likeliest tokens with theirs.
    """

    id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one row has to say after a step.

    Attributes:
        job: the request it belongs to.
        row: the choice's index within the request.
        text: the text that has become certain.
        tokens: the tokens since the last piece, when log-probabilities are wanted.
        finish: why the row has ended, None while it goes on.
    """

    job: "Job"
    row: int
    text: str
    tokens: list[Token]
    finish: Finish | None


@dataclass(eq=False)
class Row:
    """One text being written."""

    job: "Job"
    index: int
    path: int
    prompt: tuple[int, ...]
    start: int
    max_tokens: int
    text: GrowingText
    point: Point | None = None  # where the texts of a prompt are spread
    written: list[int] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # text that is handed out at the end
    unsaid: list[Token] = field(default_factory=list)  # what log-probabilities were asked for, not in a piece yet
    finish: Finish | None = None

    @property
    def noise(self) -> Noise:
        """The noise of a forward pass on it: where it starts is the row's own."""
        return replace(self.job.work.noise, span=None)

    @property
    def reads_text(self) -> bool:
        """Whether the text is needed at every step."""
        return self.job.work.streams or bool(self.job.work.stops)

    def say(self, text: str) -> "Piece":
        """The piece with this text, and all tokens since the last piece."""
        tokens, self.unsaid = self.unsaid, []
        return Piece(self.job, self.index, text, tokens, self.finish)

    def end(self, finish: Finish) -> "Piece":
        """Ends the row without another word."""
        self.finish = finish
        return self.say("")

    @property
    def last_token(self) -> int:
        """The token that the model reads next."""
        return self.written[-1] if self.written else self.prompt[-1]


@dataclass(eq=False)
class Job:
    """A request on its way through the scheduler.

    Attributes:
        work: what it asks.
        receive: called with every piece, in the thread that pieces are handed out in.
        deadline: `time.monotonic()` at which it is given up.
        rows: all its rows: prompt by prompt, path by path.
        receipts: one a row, once the first row has begun.
        cancelled: set from any thread; the scheduler takes the rows out at its next step.
        waiting: how many of the last rows have not begun.
        prefilled: sources of its prompts, while rows are waiting.
    """

    work: Work
    receive: Callable[[Piece], None]
    deadline: float
    rows: list[Row] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    cancelled: bool = False
    waiting: int = 0
    prefilled: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def given_up(self, now: float) -> Finish | None:
        """Why nobody waits for it any more, if so."""
        if self.cancelled:
            return "cancelled"
        return "timeout" if now > self.deadline else None
