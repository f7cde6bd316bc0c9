"""A conversation that is going on: messages in, several replies out, one of them chosen."""

from collections.abc import Sequence
from dataclasses import replace

from stochroute.applications.chat.frames import Exchange, Frame, Script
from stochroute.applications.chat.speaker import OnTexts, Speaker
from stochroute.applications.chat.transcript import Transcript, Turn
from stochroute.applications.chat.window import fit
from stochroute.config import RoutingConfig
from stochroute.generation.receipts import routing_hash
from stochroute.paths import derive_paths, parse_path

MOST_REPLIES = 64  # of one turn: more than anybody reads

# derive_paths numbers prompts below 2³²; the person's own lines take theirs from the far end
_SUGGESTIONS = 1 << 31


class Conversation:
    """Turns so far, and the path that the conversation stays on, if any.

    The replies of turn t walk `derive_paths(seed, n, prompt=t)`, its spread form where tokens are spread, so that the
    same words bring the same replies.

    Attributes:
        speaker: the model that replies.
        frame: how the conversation becomes text.
        seed: derives the path ids.
        paths: how many replies a turn offers, unless it stays on a path.
        stays_on: the path id of every coming reply; None for new paths at every turn.
        turns: so far.
        routing_folder: of the saved routing, for the transcript.
    """

    def __init__(
        self,
        speaker: Speaker,
        frame: Frame,
        seed: int,
        paths: int = 4,
        turns: Sequence[Turn] = (),
        routings: dict[str, RoutingConfig] | None = None,
        routing_folder: str | None = None,
    ):
        self.speaker = speaker
        self.frame = frame
        self.seed = seed
        self.offer(paths)
        self.stays_on: int | None = None
        self.turns: list[Turn] = list(turns)
        self.routing_folder = routing_folder
        self._routings = dict(routings or {})

    @property
    def exchanges(self) -> list[Exchange]:
        """(message, chosen reply) of every turn."""
        return [turn.exchange for turn in self.turns]

    def offer(self, paths: int) -> None:
        """Sets how many replies a turn offers; ValueError outside 1 … 64."""
        if not 1 <= paths <= MOST_REPLIES:
            raise ValueError(f"paths={paths}: offer 1 to {MOST_REPLIES} replies a turn")
        self.paths = paths

    def say(self, message: str, on_texts: OnTexts | None = None) -> Turn:
        """Adds a turn with the replies to this message, the first of them chosen.

        Raises:
            ValueError: the message is empty, cannot be said in this frame, or does not fit the model's context. The
                conversation stays as it was, as it does when the replies are interrupted.
        """
        message = message.strip()
        if not message:
            raise ValueError("the message is empty: say something")
        self.frame.check(message)
        number = len(self.turns)
        paths = self._paths(self.paths, number) if self.stays_on is None else [self.stays_on]
        turn = self._replied(message, self.exchanges, paths, on_texts)
        self.turns.append(turn)
        return turn

    def more(self, on_texts: OnTexts | None = None) -> Turn:
        """Adds further replies, along new paths, to the last message; what was chosen stays chosen.

        Raises:
            ValueError: nothing has been said yet, or there are 64 replies already.
        """
        last = self._last()
        known = {reply.receipt.path for reply in last.replies}
        room = MOST_REPLIES - len(known)
        if not room:
            raise ValueError(f"there are {MOST_REPLIES} replies already: choose one of them")
        ids = self._paths(MOST_REPLIES, len(self.turns) - 1)
        paths = [path for path in ids if f"{path:016x}" not in known][: min(self.paths, room)]
        new = self._replied(last.message, self.exchanges[:-1], paths, on_texts)
        self.turns[-1] = replace(last, replies=last.replies + new.replies, together=last.together + new.together)
        return self.turns[-1]

    def choose(self, number: int) -> Turn:
        """Goes on with this reply to the last message, counted from 1.

        Raises:
            ValueError: there is no such reply, or no turn yet.
        """
        last = self._last()
        if not 1 <= number <= len(last.replies):
            raise ValueError(f"there is no reply {number}: choose one of 1 to {len(last.replies)}")
        self.turns[-1] = replace(last, chosen=number - 1)
        return self.turns[-1]

    def undo(self) -> Turn:
        """Takes the last turn back, and returns it; ValueError when there is none."""
        last = self._last()
        self.turns.pop()
        return last

    def stay(self, path: int | str | None = None) -> int:
        """Stays on this path, or on that of the last chosen reply; returns its id.

        Raises:
            ValueError: it is no path id, or nothing has been said yet.
        """
        self.stays_on = parse_path(self._last().reply.receipt.path if path is None else path)
        return self.stays_on

    def change(self) -> None:
        """Offers new paths again."""
        self.stays_on = None

    def suggestions(self, on_texts: OnTexts | None = None) -> list[str]:
        """What the person could say next, as the model would write it along paths of its own; distinct.

        Raises:
            ValueError: the conversation has a chat template, in which the person's part is nobody's to write, or does
                not fit the model's context.
        """
        frame = self.frame
        if not isinstance(frame, Script):
            raise ValueError("the model writes the person's lines in a script only, not in a chat template")
        ids = list(self.speaker.loaded.tokenizer(frame.text_for_you(self.exchanges))["input_ids"])
        context = self.speaker.loaded.context
        if context is not None and len(ids) + self.speaker.room > context:
            raise ValueError(f"the conversation has {len(ids)} tokens, too many to suggest a line to it")
        paths = self._paths(self.paths, _SUGGESTIONS + len(self.turns))
        replies = self.speaker.replies(ids, paths, frame.stop, on_texts)
        return list(dict.fromkeys(reply.text for reply in replies if reply.text))

    def transcript(self) -> Transcript:
        """The conversation so far."""
        return Transcript(
            model=None if self.speaker.loaded.embedded else self.speaker.loaded.name,
            routing_folder=self.routing_folder,
            seed=self.seed,
            new_tokens=self.speaker.room,
            frame=self.frame,
            decoding=self.speaker.decoding,
            routings=self._routings or {routing_hash(self.speaker.routed): self.speaker.routed.config},
            turns=tuple(self.turns),
        )

    def _paths(self, count: int, prompt: int) -> list[int]:
        spread = self.speaker.decoding.spread or self.speaker.routed.config.spreads
        return derive_paths(self.seed, count, prompt=prompt, spread=spread)

    def _last(self) -> Turn:
        if not self.turns:
            raise ValueError("nothing has been said yet")
        return self.turns[-1]

    def _replied(self, message: str, before: list[Exchange], paths: list[int], on_texts: OnTexts | None) -> Turn:
        loaded = self.speaker.loaded
        fitted = fit(self.frame, loaded.tokenizer, before, message, loaded.context, self.speaker.room)
        replies = self.speaker.replies(fitted.ids, paths, self.frame.stop, on_texts)
        self._routings[replies[0].receipt.routing] = self.speaker.routed.config
        return Turn(message, replies, (len(replies),), 0, fitted.left_out)
