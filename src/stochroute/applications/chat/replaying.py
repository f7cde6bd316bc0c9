"""Walks every path of a transcript again, and says what comes out another way and under which circumstances."""

from collections.abc import Callable
from dataclasses import dataclass

from stochroute.applications.chat.routing import adopt
from stochroute.applications.chat.speaker import Speaker
from stochroute.applications.chat.transcript import Transcript
from stochroute.applications.chat.window import fit
from stochroute.paths import parse_path


@dataclass(frozen=True)
class Difference:
    """A reply that came out another way. Turn and reply are counted from 1."""

    turn: int
    reply: int
    path: str
    was: str
    now: str


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        turns, replies: how many were walked.
        circumstances: what differs from the receipts, each in one sentence; () when nothing does.
        differences: the replies that came out another way.
    """

    turns: int
    replies: int
    circumstances: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether every reply came out the same, under the same circumstances."""
        return not self.differences and not self.circumstances


def replay(
    transcript: Transcript, speaker: Speaker, own_routing: bool = True, on_turn: Callable[[int], None] | None = None
) -> Replay:
    """Every reply of the transcript again, each in the batch that it was computed in.

    Args:
        speaker: the model that replies; its decoding and new_tokens are compared with the transcript's receipts.
        own_routing: whether each turn takes the strengths that its receipt names; else the speaker's stay in force.
        on_turn: called with the number of turns done, after each.

    Raises:
        ValueError: a turn does not fit the model's context, or its routing differs from the model's in more than the
            strengths.
    """
    loaded, routed, before_all = speaker.loaded, speaker.routed, speaker.routed.config
    circumstances: dict[str, None] = {}
    differences: list[Difference] = []
    exchanges = [turn.exchange for turn in transcript.turns]
    try:
        for number, turn in enumerate(transcript.turns):
            fitted = fit(
                transcript.frame, loaded.tokenizer, exchanges[:number], turn.message, loaded.context, speaker.room
            )
            reply_number = 0
            for batch in turn.batches:
                if own_routing:
                    adopt(routed, transcript.routings[batch[0].receipt.routing])
                paths = [parse_path(reply.receipt.path) for reply in batch]
                for was, now in zip(batch, speaker.replies(fitted.ids, paths, transcript.frame.stop), strict=True):
                    reply_number += 1
                    circumstances |= dict.fromkeys(was.receipt.differences(now.receipt))
                    if was.text != now.text:
                        differences.append(Difference(number + 1, reply_number, was.receipt.path, was.text, now.text))
            if on_turn is not None:
                on_turn(number + 1)
    finally:
        routed.adopt_strengths(before_all)
    replies = sum(len(turn.replies) for turn in transcript.turns)
    return Replay(len(transcript.turns), replies, tuple(circumstances), tuple(differences))
