"""One stream, many questions: who is late is not waited for, and an answer that has begun is given."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fallow.node.questions import IDLE_S, answer_each
from fallow.protocol.messages import FeederReply, FeederRequest, encode_message

QUESTION = encode_message(FeederRequest((), bytes(32), 0))


class Late:
    """A stream whose every frame is there just as the time for it runs out."""

    peer = bytes(32)

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def receive(self) -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep(IDLE_S)
        return QUESTION

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(frame)


async def test_an_answer_that_has_begun_is_given_though_its_question_came_at_the_last_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begun = 0

    async def answer(question: FeederRequest) -> FeederReply:
        nonlocal begun
        begun += 1
        await trio.sleep(2 * IDLE_S)
        return FeederReply((), ())

    stream = Late()
    await answer_each(stream, FeederRequest, answer, 2)  # type: ignore[arg-type]
    assert (begun, len(stream.sent)) == (2, 2)


async def test_who_asks_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    class Silent(Late):
        async def receive(self) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

    async def answer(question: FeederRequest) -> FeederReply:
        pytest.fail("nothing was asked")

    await answer_each(Silent(), FeederRequest, answer, 2)  # type: ignore[arg-type]
    assert trio.current_time() == IDLE_S
