"""What a person can do in a conversation: say something, or give a command that begins with a slash."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from stochroute.applications.chat.conversation import Conversation
from stochroute.applications.chat.frames import Script
from stochroute.applications.chat.replaying import Replay, replay
from stochroute.applications.chat.routing import adopt, attach, other_model, resume
from stochroute.applications.chat.speaker import OnTexts
from stochroute.applications.chat.transcript import Transcript, Turn, read_transcript, write_transcript
from stochroute.applications.chat.world_talk import verdict
from stochroute.calibration.loaded import Calibration, calibrated
from stochroute.paths import format_path

Watch = Callable[[], AbstractContextManager[OnTexts | None]]  # shows replies while they are being written

_OVERWRITE = "--overwrite"


@dataclass(frozen=True)
class Answer:
    """What a line brought about.

    Attributes:
        text: to be shown; "" for nothing.
        turn: the turn whose replies are on offer now; None when nothing new is.
        suggestions: lines that the person could say.
        leaves: whether the conversation is over.
    """

    text: str = ""
    turn: Turn | None = None
    suggestions: list[str] = field(default_factory=list[str])
    leaves: bool = False


@contextmanager
def unwatched() -> Iterator[None]:
    """Replies are written unseen."""
    yield None


class Session:
    """A conversation with its file.

    Attributes:
        conversation: the conversation.
        output: the file that is written after every turn; None for a conversation that only /save keeps.
        watch: shows replies while they are written.
    """

    def __init__(self, conversation: Conversation, output: Path | None, watch: Watch = unwatched):
        self.conversation = conversation
        self.output = output
        self.watch = watch
        self._file = output  # what /save without a name writes
        self._saved = list(conversation.turns)
        self._commands: dict[str, Callable[[list[str]], Answer]] = {
            "/paths": self._paths,
            "/stay": self._stay,
            "/change": self._change,
            "/more": self._more,
            "/choose": self._choose,
            "/suggest": self._suggest,
            "/undo": self._undo,
            "/budget": self._budget,
            "/replay": self._replay,
            "/save": self._save,
            "/load": self._load,
            "/help": self._help,
            "/quit": self._quit,
        }

    @property
    def commands(self) -> list[str]:
        """The names of all commands."""
        return list(self._commands)

    @property
    def unsaved(self) -> bool:
        """Whether there is something that no file holds."""
        return self.conversation.turns != self._saved

    def take(self, line: str) -> Answer:
        """Does what the line says.

        Raises:
            ValueError: it cannot be done; everything stays as it was.
            OSError: a file cannot be read or written.
        """
        line = line.strip()
        if not line.startswith("/"):
            return self.say(line)
        try:
            name, *arguments = shlex.split(line)
        except ValueError as error:
            raise ValueError(f"{line}: {error}") from error
        if name not in self._commands:
            raise ValueError(f"{name} is no command: /help shows them all")
        return self._commands[name](arguments)

    def say(self, message: str) -> Answer:
        """The replies to the message."""
        with self.watch() as on_texts:
            turn = self.conversation.say(message, on_texts)
        self._keep()
        return Answer(_left_out(turn), turn)

    def choose(self, number: int) -> Answer:
        """Goes on with that reply, counted from 1, to the last message."""
        self.conversation.choose(number)
        self._keep()
        return Answer()

    def undo(self) -> Turn:
        """Takes the last turn back."""
        turn = self.conversation.undo()
        self._keep()
        return turn

    def verdict(self) -> str:
        """What the checker of the story world says so far; "" where the model is not of that world."""
        frame = self.conversation.frame
        if not self.conversation.speaker.loaded.embedded or not isinstance(frame, Script):
            return ""
        return verdict(frame, self.conversation.exchanges)[1]

    def _keep(self) -> None:
        if self.output is not None:
            write_transcript(self.output, self.conversation.transcript())
            self._saved = list(self.conversation.turns)

    def _paths(self, arguments: list[str]) -> Answer:
        """/paths [N]: the paths so far; or offer N replies a turn"""
        if arguments:
            self.conversation.offer(_whole_number("/paths", arguments))
            return Answer(f"{self.conversation.paths} replies a turn from now on")
        lines = [
            f"turn {number}: " + " ".join(
                f"[{reply.receipt.path}]" if reply is turn.reply else reply.receipt.path for reply in turn.replies
            )
            for number, turn in enumerate(self.conversation.turns, 1)
        ]  # fmt: skip
        stays = self.conversation.stays_on
        now = f"{self.conversation.paths} replies a turn, from new paths" if stays is None else ""
        return Answer("\n".join([*lines, now or f"every reply walks path {format_path(stays or 0)}"]))

    def _stay(self, arguments: list[str]) -> Answer:
        """/stay [ID]: from now on one reply a turn, along the chosen path or this one"""
        _at_most(1, "/stay", arguments)
        path = self.conversation.stay(*arguments)
        return Answer(f"every reply walks path {format_path(path)} from now on; /change offers new paths again")

    def _change(self, arguments: list[str]) -> Answer:
        """/change: offer new paths again"""
        _at_most(0, "/change", arguments)
        self.conversation.change()
        return Answer(f"{self.conversation.paths} replies a turn, from new paths")

    def _more(self, arguments: list[str]) -> Answer:
        """/more: further replies to the last message"""
        _at_most(0, "/more", arguments)
        with self.watch() as on_texts:
            turn = self.conversation.more(on_texts)
        self._keep()
        return Answer(turn=turn)

    def _choose(self, arguments: list[str]) -> Answer:
        """/choose N: go on with another reply to the last message"""
        self.choose(_whole_number("/choose", arguments))
        return Answer(f"reply {self.conversation.turns[-1].chosen + 1} it is")

    def _suggest(self, arguments: list[str]) -> Answer:
        """/suggest: what you could say, as the model would write it"""
        _at_most(0, "/suggest", arguments)
        with self.watch() as on_texts:
            lines = self.conversation.suggestions(on_texts)
        return Answer("" if lines else "the model has nothing to suggest", suggestions=lines)

    def _undo(self, arguments: list[str]) -> Answer:
        """/undo: take the last turn back"""
        _at_most(0, "/undo", arguments)
        return Answer(f"taken back: {self.undo().message}")

    def _budget(self, arguments: list[str]) -> Answer:
        """/budget [NATS]: the strength of the noise; or calibrate it to this effect"""
        routed = self.conversation.speaker.routed
        if not arguments:
            parts = [f"{kind} strength {part.strength}" for kind, part in routed.config.kinds().items()]
            return Answer(", ".join(parts) or "no noise inside the model: only sampling tells paths apart")
        _at_most(1, "/budget", arguments)
        try:
            nats = float(arguments[0])
        except ValueError as error:
            raise ValueError(f"/budget {arguments[0]}: is no number of nats; 0.05 is modest, 0.5 is much") from error
        report = calibrated(routed, self.conversation.speaker.loaded, Calibration(nats))
        parts = [f"{kind} strength {strength}" for kind, strength in report.strengths().items()]
        return Answer(f"{', '.join(parts)}: {report.nats:.3g} nats a noised position")

    def _replay(self, arguments: list[str]) -> Answer:
        """/replay: walk every path of the conversation again, and compare"""
        _at_most(0, "/replay", arguments)
        if not self.conversation.turns:
            raise ValueError("/replay: nothing has been said yet")
        total = len(self.conversation.turns)
        with Console(stderr=True).status("replaying") as status:
            found = replay(
                self.conversation.transcript(),
                self.conversation.speaker,
                on_turn=lambda done: status.update(f"replaying: turn {done} of {total}"),
            )
        return Answer(report_of(found))

    def _save(self, arguments: list[str]) -> Answer:
        """/save [FILE] [--overwrite]: write the conversation as JSON"""
        names = [argument for argument in arguments if argument != _OVERWRITE]
        _at_most(1, "/save", names)
        if not names and self._file is None:
            raise ValueError("/save: name a file, such as /save talk.json")
        file = Path(names[0]).expanduser() if names else self._file
        assert file is not None
        if file.is_dir() or not file.parent.is_dir():
            raise ValueError(f"/save {file}: name a file in a folder that exists")
        if file.exists() and file != self._file and _OVERWRITE not in arguments:
            raise ValueError(f"/save {file}: exists; add {_OVERWRITE}, or choose another name")
        write_transcript(file, self.conversation.transcript())
        self._file, self._saved = file, list(self.conversation.turns)
        return Answer(f"{file}: {len(self._saved)} turns; stochroute chat --replay {shlex.quote(str(file))} checks it")

    def _load(self, arguments: list[str]) -> Answer:
        """/load FILE: go on with a conversation that was saved"""
        if len(arguments) != 1:
            raise ValueError("/load: name one file, such as /load talk.json")
        if self.unsaved:
            raise ValueError("/load: this conversation is not saved; /save FILE first")
        if self.output is not None:
            raise ValueError(f"/load: {self.output} takes down this conversation; start without --output to load one")
        file = Path(arguments[0]).expanduser()
        transcript = read_transcript(file)
        self.conversation = self._reopened(transcript)
        self._file, self._saved = file, list(self.conversation.turns)
        note = other_model(transcript, self.conversation.speaker.loaded)
        return Answer(f"{file}: {len(transcript.turns)} turns" + (f"; {note}" if note else ""))

    def _reopened(self, transcript: Transcript) -> Conversation:
        loaded, paths = self.conversation.speaker.loaded, self.conversation.paths
        before = self.conversation.transcript()
        config = self.conversation.speaker.routed.config
        self.conversation.speaker.routed.detach()
        try:
            return resume(transcript, loaded, attach(loaded, transcript), paths)
        except (ValueError, OSError):
            routed = attach(loaded, before)
            adopt(routed, config)
            self.conversation = resume(before, loaded, routed, paths)
            raise

    def _help(self, arguments: list[str]) -> Answer:
        """/help: this list"""
        lines = [(command.__doc__ or "").partition(": ") for command in self._commands.values()]
        width = max(len(usage) for usage, _, _ in lines)
        return Answer("\n".join(f"{usage:{width}}  {what}" for usage, _, what in lines))

    def _quit(self, arguments: list[str]) -> Answer:
        """/quit: leave"""
        _at_most(0, "/quit", arguments)
        return Answer(leaves=True)


def report_of(found: Replay) -> str:
    """What a replay found, in lines."""
    what = f"{found.replies} replies in {found.turns} turns were walked again from their ids"
    lines = [
        f"{what}: identical" if not found.differences else f"{what}: {len(found.differences)} came out another way"
    ]
    lines += [f"turn {d.turn}, reply {d.reply}, path {d.path}: was {d.was!r}, now {d.now!r}" for d in found.differences]
    if found.circumstances:
        lines.append("other circumstances: " + "; ".join(found.circumstances))
    return "\n".join(lines)


def _left_out(turn: Turn) -> str:
    if not turn.left_out:
        return ""
    earliest = (
        "the first turn no longer fits" if turn.left_out == 1 else f"the first {turn.left_out} turns no longer fit"
    )
    return f"{earliest} into the model's context; it did not read {'it' if turn.left_out == 1 else 'them'}"


def _at_most(count: int, name: str, arguments: list[str]) -> None:
    if len(arguments) > count:
        raise ValueError(f"{name}: {' '.join(arguments)!r} is too much; /help shows what it takes")


def _whole_number(name: str, arguments: list[str]) -> int:
    if len(arguments) != 1 or not arguments[0].isdecimal():
        raise ValueError(f"{name} {' '.join(arguments)}: write one whole number, such as {name} 2")
    return int(arguments[0])
