"""One stream, many short questions: each is answered before the next is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, TypeVar

import trio

from ..protocol.errors import Code, NetworkError, RemoteProtocolError
from ..protocol.messages.codec import Message, decode_message_untrusted, encode_message
from .network.seam import Stream

Q = TypeVar("Q")

IDLE_S: Final = 30.0
"""A stream on which nothing is asked, or no answer taken, for so long is closed."""

Place = Callable[[], AbstractAsyncContextManager[Message | None]]
"""Where a question is, from its coming until its answer was taken; the answer, if there is none to be had in it."""


async def answer_each(
    stream: Stream,
    kind: type[Q],
    answer: Callable[[Q], Awaitable[Message]],
    most: int,
    place: Place = nullcontext,
) -> None:
    """Up to `most` questions have got their answers, until the asker ended the stream or fell silent.

    Raises `RemoteProtocolError` for anything but such a question.
    """
    for _ in range(most):
        question: Q | None = None
        with trio.move_on_after(IDLE_S):
            question = await _question_untrusted(stream, kind)
        if question is None:
            return
        async with place() as refusal:
            # In neither scope: an answer may have to wait for its turn, and one that has begun may not be given up half way.
            reply = await answer(question) if refusal is None else refusal
            with trio.move_on_after(IDLE_S) as idle:
                await stream.send(encode_message(reply))
        if idle.cancelled_caught:
            return


async def answer_at_once(stream: Stream, kind: type[Q], answer: Callable[[Q], Message | None], most: int) -> None:
    """As `answer_each`, where no answer waits for anything: one scope for all of them costs a fourth of two for each. From one
    question to the next, the answer's way included, it is `IDLE_S`. Where there is no answer, the stream is at its end, too."""
    with trio.move_on_after(IDLE_S) as idle:
        for _ in range(most):
            question = await _question_untrusted(stream, kind)
            if question is None or (reply := answer(question)) is None:
                return
            idle.deadline = trio.current_time() + IDLE_S
            await stream.send(encode_message(reply))


async def _question_untrusted(stream: Stream, kind: type[Q]) -> Q | None:
    """The next one; None if the asker has ended the stream. Raises `RemoteProtocolError` for anything else."""
    try:
        frame = await stream.receive()
    except NetworkError as error:
        if error.code is Code.STREAM_CLOSED:
            return None
        raise
    question = decode_message_untrusted(frame)
    if not isinstance(question, kind):
        raise RemoteProtocolError(Code.ILLEGAL_MOVE, "That cannot be asked on this stream.")
    return question
