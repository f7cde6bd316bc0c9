"""The conversation through pipes: a line in, a JSON object out.

A line is a message, a command such as /choose 2, or {"message": "…"} for a message that holds line breaks.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any

from stochroute.applications.chat.session import Session
from stochroute.applications.chat.transcript import Turn


def run(session: Session, lines: Iterable[bytes]) -> int:
    """Answers every line on standard output, one object each, and returns how many there were. Blank lines are skipped.

    A turn is {"turn", "message", "text", "path", "chosen", "left_out", "replies": [{"text", "path"}], "verdict"}; a
    command that brings no turn is {"command", "text"}.

    Raises:
        ValueError: a line cannot be understood or done; its number is named. What was said before stands.
    """
    count = 0
    for number, data in enumerate(lines, 1):
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number}: not UTF-8; convert it, for example with iconv -t utf-8") from error
        if not line:
            continue
        count += 1
        try:
            answer = session.say(_message(line)) if line.startswith("{") else session.take(line)
        except (ValueError, OSError) as error:
            raise ValueError(f"line {number}: {error}") from error
        if answer.leaves:
            break
        changed = answer.turn is not None or line.startswith("/choose")
        last = session.conversation.turns[-1] if changed else None
        row = (
            {"command": line, "text": answer.text or "\n".join(answer.suggestions)}
            if last is None
            else _row(session, last)
        )
        print(json.dumps(row, ensure_ascii=False), flush=True)
    sys.stdout.flush()
    return count


def _message(line: str) -> str:
    try:
        data: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f'begins with a brace but is no JSON ({error.msg}); write {{"message": "…"}}') from error
    message = data.get("message")
    if not isinstance(message, str):
        raise ValueError('has no "message" with a text')
    return message


def _row(session: Session, turn: Turn) -> dict[str, Any]:
    row: dict[str, Any] = {
        "turn": len(session.conversation.turns),
        "message": turn.message,
        "text": turn.reply.text,
        "path": turn.reply.receipt.path,
        "chosen": turn.chosen + 1,
        "left_out": turn.left_out,
        "replies": [{"text": reply.text, "path": reply.receipt.path} for reply in turn.replies],
    }
    if found := session.verdict():
        row["verdict"] = found
    return row
