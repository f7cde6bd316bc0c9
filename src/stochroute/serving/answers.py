"""From the engine's pieces to what is sent back: whole answers, and the events of a stream."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from stochroute.serving.engine import Engine
from stochroute.serving.errors import ApiError
from stochroute.serving.jobs import Job, Piece, Token
from stochroute.serving.reading import Asked

_ENDED = {
    "timeout": (504, "the request took longer than this server allows: ask for fewer or shorter texts", "timeout"),
    "error": (500, "the model failed on this request; the server's log says how", "engine_error"),
    "cancelled": (499, "the client has gone", "cancelled"),
}


class Answering:
    """One request being answered."""

    def __init__(self, engine: Engine, asked: Asked, chat: bool, usage_in_stream: bool):
        """Hands the work to the engine; ApiError when it is full."""
        self.engine = engine
        self.asked = asked
        self.chat = chat
        self.usage_in_stream = usage_in_stream
        self.arrived = time.monotonic()
        self.completion_tokens = 0
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._offsets: dict[int, int] = {}
        self._names = engine.reading_tokenizer
        self.job: Job = engine.submit(asked.work, self._pieces.put_nowait)
        self._header = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "created": int(time.time()),
            "model": engine.served.name,
        }

    async def whole(self) -> dict[str, Any]:
        """The answer in one object; ApiError when a text did not come to its end."""
        ended: dict[int, Piece] = {}
        async for pieces in self._arriving():
            ended |= {piece.row: piece for piece in pieces if piece.finish}
        choices = [self._whole_choice(ended[row.index]) for row in self.job.rows]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._shared(), "object": kind, "choices": choices, "usage": self._usage()}

    async def stream(self) -> AsyncGenerator[bytes]:
        """The events of a stream, those of one step together; an error becomes the last event."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        extra = {"usage": None} if self.usage_in_stream else {}

        def event(choice: dict[str, Any]) -> bytes:
            return _event({**self._shared(), "object": kind, "choices": [choice], **extra})

        try:
            begun = False
            async for pieces in self._arriving():
                if self.chat and not begun:
                    yield b"".join(event(self._opening(row.index)) for row in self.job.rows)
                begun = True
                yield b"".join(event(choice) for piece in pieces for choice in self._chunks(piece))
        except ApiError as error:
            yield _event(error.body())
            return
        if self.usage_in_stream:
            yield _event({**self._shared(), "object": kind, "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    async def _arriving(self) -> AsyncGenerator[list[Piece]]:
        """All pieces that have come since the last time, until every row has ended."""
        left, first = len(self.job.rows), True
        while left:
            pieces = [await self._pieces.get()]
            while not self._pieces.empty():
                pieces.append(self._pieces.get_nowait())
            if first:
                self.engine.metrics.first_seconds.observe(time.monotonic() - self.arrived)
                first = False
            for piece in pieces:
                if not piece.finish:
                    continue
                self.engine.metrics.texts.labels(piece.finish).inc()
                left -= 1
                self.completion_tokens += len(self.job.rows[piece.row].written)
                if piece.finish in _ENDED:
                    self.job.cancelled = True  # the other rows of the request are of no use
                    raise ApiError(*_ENDED[piece.finish])
            yield pieces

    def _shared(self) -> dict[str, Any]:
        seed = None if self.asked.seed is None else str(self.asked.seed)
        return {**self._header, "system_fingerprint": self._fingerprint(), "seed": seed}

    def _fingerprint(self) -> str:
        receipt = self.job.receipts[0]
        return f"{receipt.model}-{receipt.routing}-noise{receipt.noise_version}-{receipt.dtype}"

    def _usage(self) -> dict[str, int]:
        prompt = sum(map(len, self.asked.work.prompts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt + self.completion_tokens,
        }

    def _whole_choice(self, piece: Piece) -> dict[str, Any]:
        receipt = self.job.receipts[piece.row]
        content = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
        return {
            "index": piece.row,
            **(content if self.chat else {"text": piece.text}),
            "logprobs": self._logprobs(piece),
            "finish_reason": piece.finish,
            "path": receipt.path,
            "receipt": receipt.to_dict(),
        }

    def _opening(self, row: int) -> dict[str, Any]:
        return self._chunk(row, {"delta": {"role": "assistant", "content": ""}}, None)

    def _chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """The choices of a piece: its text, and at the end a last one with the reason and the receipt."""
        if not self.chat:
            return [self._chunk(piece.row, {"text": piece.text}, piece)]
        chunks = []
        if piece.text or piece.tokens:
            chunks.append(self._chunk(piece.row, {"delta": {"content": piece.text}}, piece) | {"finish_reason": None})
        if piece.finish:
            chunks.append(self._chunk(piece.row, {"delta": {}}, None) | self._ending(piece))
        return chunks

    def _chunk(self, row: int, content: dict[str, Any], piece: Piece | None) -> dict[str, Any]:
        return {
            "index": row,
            **content,
            "logprobs": None if piece is None else self._logprobs(piece),
            "finish_reason": None,
            "path": self.job.receipts[row].path,
            **({} if piece is None or self.chat or not piece.finish else self._ending(piece)),
        }

    def _ending(self, piece: Piece) -> dict[str, Any]:
        return {"finish_reason": piece.finish, "receipt": self.job.receipts[piece.row].to_dict()}

    # -- log-probabilities

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if self.asked.work.top_logprobs is None:
            return None
        if self.chat:
            content = [
                {
                    **self._named(token.id, token.logprob),
                    "top_logprobs": [self._named(id, logprob) for id, logprob in token.top],
                }
                for token in piece.tokens
            ]
            return {"content": content, "refusal": None}
        return self._legacy_logprobs(piece.row, piece.tokens)

    def _legacy_logprobs(self, row: int, tokens: list[Token]) -> dict[str, Any]:
        names = [self._text(token.id) for token in tokens]
        offsets: list[int] = []
        offset = self._offsets.get(row, 0)
        for name in names:
            offsets.append(offset)
            offset += len(name)
        self._offsets[row] = offset
        tops = [{self._text(id): logprob for id, logprob in token.top} for token in tokens]
        return {
            "tokens": names,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": tops if self.asked.work.top_logprobs else None,
            "text_offset": offsets,
        }

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        # part of a character has bytes that the tokenizer does not tell
        return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}

    def _text(self, token: int) -> str:
        return self._names.decode([token])


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
