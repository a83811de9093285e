"""One stream, many questions: who is late is not waited for, and an answer that has begun is given."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fallow.node.questions import IDLE_S, answer_at_once, answer_each
from fallow.protocol.errors import RemoteProtocolError
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.messages.discovery import Probe, ProbeReply
from fallow.protocol.messages.grid import FeederReply, FeederRequest

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


class Silent(Late):
    async def receive(self) -> bytes:
        await trio.sleep_forever()
        raise AssertionError


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
    async def answer(question: FeederRequest) -> FeederReply:
        pytest.fail("nothing was asked")

    await answer_each(Silent(), FeederRequest, answer, 2)  # type: ignore[arg-type]
    assert trio.current_time() == IDLE_S


class Prompt(Silent):
    """Asks now and then, and then no more."""

    def __init__(self, questions: int) -> None:
        super().__init__()
        self._left = questions

    async def receive(self) -> bytes:
        if not self._left:
            return await super().receive()
        self._left -= 1
        await trio.sleep(IDLE_S - 1)
        return QUESTION


async def test_who_asks_now_and_then_is_answered_until_it_asks_nothing(autojump_clock: trio.testing.MockClock) -> None:
    stream = Prompt(5)
    await answer_at_once(stream, FeederRequest, lambda question: FeederReply((), ()), 100)  # type: ignore[arg-type]
    assert len(stream.sent) == 5
    assert trio.current_time() == 5 * (IDLE_S - 1) + IDLE_S


async def test_whoever_takes_no_answer_is_left_too(autojump_clock: trio.testing.MockClock) -> None:
    class Full(Prompt):
        async def send(self, frame: bytes) -> None:
            await trio.sleep_forever()

    await answer_at_once(Full(1), FeederRequest, lambda question: FeederReply((), ()), 100)  # type: ignore[arg-type]
    assert trio.current_time() == 2 * IDLE_S - 1  # the answer has as long as the question before it had


async def test_so_many_are_answered_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    stream = Prompt(5)
    await answer_at_once(stream, FeederRequest, lambda question: FeederReply((), ()), 2)  # type: ignore[arg-type]
    assert len(stream.sent) == 2
    with pytest.raises(RemoteProtocolError, match="illegal_move"):
        await answer_at_once(Prompt(1), Probe, lambda probe: ProbeReply(probe.nonce), 2)  # type: ignore[arg-type]


async def test_whoever_gets_no_answer_any_more_is_left(autojump_clock: trio.testing.MockClock) -> None:
    stream, answers = Prompt(5), [FeederReply((), ()), None]
    await answer_at_once(stream, FeederRequest, lambda question: answers.pop(0), 100)  # type: ignore[arg-type]
    assert len(stream.sent) == 1
    assert trio.current_time() == 2 * (IDLE_S - 1)
