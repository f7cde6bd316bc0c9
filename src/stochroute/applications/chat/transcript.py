"""A conversation as JSON: what was said, every reply that was offered, and the receipts that walk them again.

{"format": "stochroute chat 1", "model", "routing_folder", "seed", "new_tokens", "frame": {…}, "decoding": {…},
 "routings": {hash: config}, "turns": [{"message", "left_out", "together", "chosen",
                                        "replies": [{"text", "receipt": {…}}]}]}
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stochroute.applications.chat.frames import Exchange, Frame, frame_from_dict, frame_to_dict
from stochroute.atomic import write_text
from stochroute.config import RoutingConfig
from stochroute.generation.decoding import Decoding
from stochroute.generation.receipts import Receipt

FORMAT = "stochroute chat 1"


@dataclass(frozen=True)
class Reply:
    """One reply that was offered, with all that walks its path again."""

    text: str
    receipt: Receipt


@dataclass(frozen=True)
class Turn:
    """A message and the replies to it.

    Attributes:
        message: what the person said.
        replies: in the order in which they were offered.
        together: how many replies were computed at once, batch by batch; their sum is the number of replies. In
            float32 another batch can decide a tie another way, so a replay computes the same ones together.
        chosen: index of the reply that the conversation goes on with.
        left_out: how many of the earliest turns the model did not read, because its context was full.
    """

    message: str
    replies: tuple[Reply, ...]
    together: tuple[int, ...]
    chosen: int = 0
    left_out: int = 0

    def __post_init__(self) -> None:
        if sum(self.together) != len(self.replies) or not self.replies or min(self.together) < 1:
            raise ValueError(f"together={self.together} does not count {len(self.replies)} replies")
        if not 0 <= self.chosen < len(self.replies):
            raise ValueError(f"chosen={self.chosen}: there are {len(self.replies)} replies, 0 is the first")

    @property
    def reply(self) -> Reply:
        """The chosen reply."""
        return self.replies[self.chosen]

    @property
    def exchange(self) -> Exchange:
        """(message, chosen reply)."""
        return self.message, self.reply.text

    @property
    def batches(self) -> list[tuple[Reply, ...]]:
        """The replies as they were computed together."""
        ends = [sum(self.together[: i + 1]) for i in range(len(self.together))]
        return [self.replies[end - size : end] for end, size in zip(ends, self.together, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        replies = [{"text": reply.text, "receipt": reply.receipt.to_dict()} for reply in self.replies]
        return {"message": self.message, "left_out": self.left_out, "together": list(self.together),
                "chosen": self.chosen, "replies": replies}  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Turn":
        """What `to_dict` wrote; ValueError, KeyError or TypeError for anything else."""
        replies = tuple(Reply(_text(r["text"]), Receipt.from_dict(r["receipt"])) for r in data["replies"])
        return cls(_text(data["message"]), replies, tuple(data["together"]), data["chosen"], data["left_out"])


@dataclass(frozen=True)
class Transcript:
    """A whole conversation.

    Attributes:
        model: the model's name as it was given; None for the embedded model.
        routing_folder: the saved routing that the conversation began with; None where options described it.
        seed: derives the path ids.
        new_tokens: the most that a reply could have.
        frame: how the conversation became text.
        decoding: how tokens were chosen.
        routings: routing hash -> config, for every routing that a receipt names.
        turns: in order.
    """

    model: str | None
    routing_folder: str | None
    seed: int
    new_tokens: int
    frame: Frame
    decoding: Decoding
    routings: dict[str, RoutingConfig]
    turns: tuple[Turn, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "format": FORMAT,
            "model": self.model,
            "routing_folder": self.routing_folder,
            "seed": self.seed,
            "new_tokens": self.new_tokens,
            "frame": frame_to_dict(self.frame),
            "decoding": self.decoding.to_dict(),
            "routings": {name: config.to_dict() for name, config in self.routings.items()},
            "turns": [turn.to_dict() for turn in self.turns],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Transcript":
        """What `to_dict` wrote; ValueError, KeyError, TypeError or AttributeError for anything else."""
        data = dict(data)
        if data.pop("format") != FORMAT:
            raise ValueError(f"is no {FORMAT}")
        routings = {name: RoutingConfig.from_dict(config) for name, config in data.pop("routings").items()}
        turns = tuple(map(Turn.from_dict, data.pop("turns")))
        unknown = {reply.receipt.routing for turn in turns for reply in turn.replies} - set(routings)
        if unknown:
            raise ValueError(f"names no config of routing {sorted(unknown)[0]}")
        frame, decoding = frame_from_dict(data.pop("frame")), Decoding(**data.pop("decoding"))
        if not isinstance(data["seed"], int) or not isinstance(data["new_tokens"], int):
            raise ValueError("seed and new_tokens must be integers")
        return cls(frame=frame, decoding=decoding, routings=routings, turns=turns, **data)


def write_transcript(file: Path, transcript: Transcript) -> None:
    """Replaces the file in one step.

    Raises:
        OSError: the folder cannot be written; the old file stands.
    """
    write_text(file, json.dumps(transcript.to_dict(), ensure_ascii=False, indent=1) + "\n")


def read_transcript(file: Path) -> Transcript:
    """The transcript in the file.

    Raises:
        ValueError: the file holds none, or only a part of one.
        OSError: the file cannot be read.
    """
    try:
        return Transcript.from_dict(json.loads(file.read_bytes().decode("utf-8")))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not UTF-8, so no transcript of stochroute chat") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}: no JSON ({error.msg}); it is no transcript, or was cut short: "
            "copy the whole file again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{file}: is no transcript of stochroute chat ({error!r}); name one that it saved") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
