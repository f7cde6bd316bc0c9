"""How a conversation becomes the text that a model continues: its chat template, or a script of named lines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Exchange = tuple[str, str]  # what the person said, what the model replied


@dataclass(frozen=True)
class Script:
    """Lines such as "Zoe: What is the problem?", for models without a chat template. A reply ends with its line.

    Attributes:
        you: the name of the person.
        other: the name that the model speaks for.
        scene: what stands before the first line; "" for nothing.
        colon: what stands between a name and what is said.
    """

    you: str = "You"
    other: str = "Friend"
    scene: str = ""
    colon: str = ": "

    def __post_init__(self) -> None:
        for name in ("you", "other", "colon"):
            if not getattr(self, name).strip() or "\n" in getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r}: a script needs a name on one line")
        if self.you == self.other:
            raise ValueError(f"you and other are both {self.you!r}: a script needs two names")

    @property
    def stop(self) -> str | None:
        """The string that ends a reply."""
        return "\n"

    def check(self, message: str) -> None:
        """ValueError for a message that cannot be a line."""
        if "\n" in message:
            raise ValueError("the message has several lines, but in a script a line is a turn: write it on one line")

    def text(self, before: Sequence[Exchange], message: str) -> str:
        """The text whose continuation is the model's reply to `message`."""
        return self._lines(before) + self._line(self.you, message) + self._cue(self.other)

    def text_for_you(self, before: Sequence[Exchange]) -> str:
        """The text whose continuation is the person's next line."""
        return self._lines(before) + self._cue(self.you)

    def whole(self, exchanges: Sequence[Exchange]) -> str:
        """All that has been said, as a text."""
        return self._lines(exchanges).rstrip("\n")

    def _lines(self, exchanges: Sequence[Exchange]) -> str:
        scene = f"{self.scene}\n" if self.scene else ""
        return scene + "".join(self._line(self.you, said) + self._line(self.other, reply) for said, reply in exchanges)

    def _line(self, name: str, said: str) -> str:
        return f"{name}{self.colon}{said}\n"

    def _cue(self, name: str) -> str:
        # white space before a word belongs to the word's token, so that a cue must not end in it
        return f"{name}{self.colon}".rstrip()


@dataclass(frozen=True)
class Template:
    """The chat template of the model's own tokenizer.

    Attributes:
        system: the system message; None for none.
    """

    system: str | None = None

    @property
    def stop(self) -> str | None:
        """None: a reply ends with the model's own end token."""
        return None

    def check(self, message: str) -> None:
        """Every message is possible."""

    def messages(self, before: Sequence[Exchange], message: str) -> list[dict[str, str]]:
        """The messages of the template, in order."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        earlier = [
            {"role": role, "content": content}
            for exchange in before
            for role, content in zip(("user", "assistant"), exchange, strict=True)
        ]
        return [*system, *earlier, {"role": "user", "content": message}]


Frame = Script | Template


def encode(frame: Frame, tokenizer: Any, before: Sequence[Exchange], message: str) -> list[int]:
    """The token ids that the model reads before it replies to `message`.

    Raises:
        ValueError: the tokenizer has no chat template, or the template refuses these messages.
    """
    if isinstance(frame, Script):
        return list(tokenizer(frame.text(before, message))["input_ids"])
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: hold the conversation as a script")
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            frame.messages(before, message), tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses the conversation: {error}") from error
    # a chat template writes its own beginning-of-text token
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def frame_to_dict(frame: Frame) -> dict[str, Any]:
    """The frame as JSON types."""
    return {"kind": "script" if isinstance(frame, Script) else "template", **asdict(frame)}


def frame_from_dict(data: dict[str, Any]) -> Frame:
    """The frame that `frame_to_dict` wrote; ValueError, KeyError or TypeError for anything else."""
    data = dict(data)
    kinds: dict[str, type[Script] | type[Template]] = {"script": Script, "template": Template}
    return kinds[data.pop("kind")](**data)
