"""One stream, many short questions: each is answered before the next is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
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
    with trio.CancelScope() as idle:
        for _ in range(most):
            idle.deadline = trio.current_time() + IDLE_S
            try:
                frame = await stream.receive()
            except NetworkError as error:
                if error.code is Code.STREAM_CLOSED:
                    return
                raise
            question = decode_message_untrusted(frame)
            if not isinstance(question, kind):
                raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")
            idle.deadline = inf
            reply = await answer(question)  # as long as it takes: an answer may have to wait for its turn
            idle.deadline = trio.current_time() + IDLE_S
            await stream.send(encode_message(reply))
