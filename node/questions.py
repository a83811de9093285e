"""One stream, many short questions: each is answered before the next is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.messages import Message, decode_message_untrusted, encode_message
from .network.seam import Stream

Q = TypeVar("Q")

IDLE_S: Final = 30.0
"""A stream on which nothing is asked, or no answer taken, for so long is closed."""


async def answer_each(stream: Stream, kind: type[Q], answer: Callable[[Q], Awaitable[Message]], most: int) -> None:
    """Up to `most` questions have got their answers, until the asker ended the stream or fell silent.

    Raises `RemoteProtocolError` for anything but such a question.
    """
    for _ in range(most):
        with trio.move_on_after(IDLE_S) as idle:
            try:
                frame = await stream.receive()
            except NetworkError as error:
                if error.code is Code.STREAM_CLOSED:
                    return
                raise
        if idle.cancelled_caught:
            return
        question = decode_message_untrusted(frame)
        if not isinstance(question, kind):
            raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")
        # In neither scope: an answer may have to wait for its turn, and one that has begun may not be given up half way.
        reply = await answer(question)
        with trio.move_on_after(IDLE_S) as idle:
            await stream.send(encode_message(reply))
        if idle.cancelled_caught:
            return
