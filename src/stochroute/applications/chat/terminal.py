"""The conversation on a terminal: replies side by side while they are written, a number to choose one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stochroute.applications.chat.frames import Script
from stochroute.applications.chat.session import Answer, Session
from stochroute.applications.chat.speaker import OnTexts
from stochroute.applications.chat.transcript import Turn
from stochroute.applications.chat.world_talk import verdict

_REFRESH = 12  # times a second
_LINES = 2  # of each reply, its end, while it is written: all of them stay on the screen


@dataclass
class Terminal:
    """Reads lines from a person and shows what they bring about.

    Attributes:
        console: where it is shown.
        session: the conversation.
    """

    console: Console
    session: Session

    def run(self) -> None:
        """Talks until the person leaves by /quit or Ctrl-D."""
        _set_up_line_editing(self.session.commands)
        warned, draft = False, ""
        while True:
            try:
                line = _read(f"{self._you} › ", draft)
            except KeyboardInterrupt:
                self._say("Ctrl-D or /quit leaves")
                draft = ""
                continue
            except EOFError:
                self.console.print()
                line = "/quit"
            draft = ""
            if not line.strip():
                continue
            try:
                answer = self.session.take(line)
                if answer.leaves and self.session.unsaved and not warned:
                    warned = True
                    self._say("not saved: /save FILE keeps the conversation; Ctrl-D or /quit once more leaves it")
                    continue
                if answer.leaves:
                    return
                warned = False
                draft = self._show(answer)
            except KeyboardInterrupt:
                self._say("interrupted: the conversation is as it was before")
                draft = "" if line.startswith("/") else line
            except (ValueError, OSError) as error:
                self._say(str(error), style="red")
                draft = "" if line.startswith("/") else line

    @property
    def _you(self) -> str:
        frame = self.session.conversation.frame
        return frame.you if isinstance(frame, Script) else "You"

    @property
    def _other(self) -> str:
        frame = self.session.conversation.frame
        return frame.other if isinstance(frame, Script) else "Model"

    def _show(self, answer: Answer) -> str:
        """Shows the answer, lets the person choose where there is a choice, and returns what to begin the next line
        with."""
        if answer.text:
            self._say(answer.text)
        if answer.suggestions:
            return self._choose_line(answer.suggestions)
        if answer.turn is None:
            return ""
        turn = answer.turn
        self.console.print(self._table([reply.text for reply in turn.replies], turn))
        while len(turn.replies) > 1:
            try:
                line = _read(f"1–{len(turn.replies)}, Enter for {turn.chosen + 1}, /more › ").strip()
            except KeyboardInterrupt:
                self._say("taken back")
                return self.session.undo().message
            except EOFError:
                self.console.print()
                break
            if not line:
                break
            try:
                if line == "/more":
                    turn = self._taken(line).turn or turn
                    self.console.print(self._table([reply.text for reply in turn.replies], turn))
                    continue
                self.session.choose(_number(line, len(turn.replies)))
                break
            except KeyboardInterrupt:
                self._say("interrupted: no further replies")
            except ValueError as error:
                self._say(str(error), style="red")
        chosen = self.session.conversation.turns[-1].reply
        self._say(f"{self._other}: {chosen.text}" if chosen.text else f"{self._other} has nothing more to say", "bold")
        if found := self.session.verdict():
            self._say(found)
        return ""

    def _taken(self, line: str) -> Answer:
        answer = self.session.take(line)
        if answer.text:
            self._say(answer.text)
        return answer

    def _choose_line(self, suggestions: list[str]) -> str:
        self.console.print(self._table(suggestions))
        while True:
            try:
                line = _read(f"1–{len(suggestions)} to take one, Enter for none › ").strip()
                return suggestions[_number(line, len(suggestions)) - 1] if line else ""
            except (KeyboardInterrupt, EOFError):
                self.console.print()
                return ""
            except ValueError as error:
                self._say(str(error), style="red")

    def _table(self, texts: list[str], turn: Turn | None = None) -> Table:
        table = Table.grid(padding=(0, 2))
        marks = self._marks(turn)
        for index, text in enumerate(texts):
            same = texts.index(text)
            shown = Text(printable(text) or "(nothing)", style="dim" if same < index or not text else "")
            path = Text(turn.replies[index].receipt.path if turn else "", style="cyan")
            table.add_row(Text(f"{index + 1:2}", style="bold"), marks[index] if marks else "", shown, path)
        return table

    def _marks(self, turn: Turn | None) -> list[str]:
        """Whether each reply keeps the dialogue coherent, where the story world's checker can say so."""
        frame, before = self.session.conversation.frame, self.session.conversation.exchanges[:-1]
        if turn is None or not self.session.verdict() or not isinstance(frame, Script):
            return []
        return ["✓" if verdict(frame, [*before, (turn.message, r.text)])[0] else "✗" for r in turn.replies]

    def _say(self, text: str, style: str = "dim") -> None:
        self.console.print(Text(printable(text), style=style))

    @contextmanager
    def watch(self) -> Iterator[OnTexts]:
        """Shows replies while they are written; they are wiped away at the end."""
        with Live(console=self.console, transient=True, refresh_per_second=_REFRESH) as live:
            most = _LINES * self.console.width

            def show(texts: list[str]) -> None:
                live.update(self._table([text if len(text) <= most else f"…{text[-most:]}" for text in texts]))

            yield show


def printable(text: str) -> str:
    """The text without control characters, which could play with the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _number(line: str, most: int) -> int:
    if not line.isdecimal() or not 1 <= int(line) <= most:
        raise ValueError(f"{line!r} is none of the numbers: write 1 to {most}, or press Enter")
    return int(line)


def _set_up_line_editing(commands: list[str]) -> None:
    """History with the arrow keys and completion of commands, where Python has readline."""
    try:
        import readline
    except ImportError:
        return

    def complete(text: str, state: int) -> str | None:
        found = [name for name in commands if text and name.startswith(text)]
        return found[state] if state < len(found) else None

    readline.set_completer_delims(" ")
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")


def _read(prompt: str, draft: str = "") -> str:
    """A line from the person, beginning with a draft that can be edited where Python has readline."""
    if not draft:
        return input(prompt)
    try:
        import readline
    except ImportError:
        return input(prompt)
    readline.set_startup_hook(lambda: readline.insert_text(draft))
    try:
        return input(prompt)
    finally:
        readline.set_startup_hook(None)
