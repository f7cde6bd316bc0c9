"""What the model can still read of a long conversation: the latest turns that fit, and how many that leaves out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stochroute.applications.chat.frames import Exchange, Frame, encode


@dataclass(frozen=True)
class Fitted:
    """Token ids that leave room for a reply, and the number of earliest turns that are not among them."""

    ids: list[int]
    left_out: int


def fit(
    frame: Frame, tokenizer: Any, before: Sequence[Exchange], message: str, context: int | None, new_tokens: int
) -> Fitted:
    """What the model reads before it replies: scene or system message, the latest turns that fit, the message.

    Args:
        before: what was said before the message.
        context: tokens that the model holds; None where nobody knows, and then everything is read.
        new_tokens: room for the reply.

    Raises:
        ValueError: the message alone does not fit.
    """
    for left_out in range(len(before) + 1):
        ids = encode(frame, tokenizer, before[left_out:], message)
        if context is None or len(ids) + new_tokens <= context:
            return Fitted(ids, left_out)
    raise ValueError(
        f"the message and what stands before it have {len(ids)} tokens, and a reply may have {new_tokens}, but the "
        f"model holds {context}: write a shorter message, or allow fewer new tokens"
    )
