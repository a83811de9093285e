"""How long a fetch waits, and for whom: in virtual time, with sources that need no socket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from fallow.node.engine.bundles import Bundle, BundleStore
from fallow.node.fetching import Progress, fetch
from fallow.node.network.seam import Network, Provider, Stream
from fallow.node.swarm import BUSY_S, PATIENCE_S
from fallow.protocol.errors import Code, NetworkError
from fallow.protocol.messages.codec import Message
from fallow.protocol.messages.discovery import BlobReply
from fallow.protocol.messages.refusals import RefuseMessage

from .line import Answer, Line


class Alone:
    """A network with one source, and the streams to it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.opened = 0

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = ()) -> Stream:
        await trio.lowlevel.checkpoint()
        self.opened += 1
        return cast(Stream, Line(self._answer))

    async def find(self) -> list[Provider]:
        await trio.lowlevel.checkpoint()
        return [Provider(bytes(32), ())]


def refusing(bundle: Bundle, until_s: float, code: Code = Code.BUSY) -> Answer:
    def answer(wanted: bytes) -> Message:
        if trio.current_time() < until_s:
            return RefuseMessage(code.value, "not now", 5000)
        return BlobReply(bundle.chunk(wanted))

    return answer


async def fetched(answer: Answer, bundle: Bundle, folder: Path) -> list[Progress]:
    network, said = Alone(answer), list[Progress]()
    store = BundleStore(folder / "store")
    done = await fetch(cast(Network, network), store, bundle.cid, network.find, on_progress=said.append)
    assert done.bundle.signed == bundle.signed
    return said


@pytest.mark.spec("D-39")
async def test_a_busy_source_is_waited_for_and_the_owner_is_told(
    origin: Bundle, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    said = await fetched(refusing(origin, 4 * PATIENCE_S), origin, tmp_path)
    assert trio.current_time() >= 4 * PATIENCE_S
    assert [now.waits for now in said if now.waits] == [", waiting for a turn (busy sources: 1)"]
    assert not said[-1].waits


@pytest.mark.parametrize(
    ("code", "said", "after_s"), [(Code.BUSY, Code.BUSY, BUSY_S), (Code.BAD_RECORD, Code.PEER_UNREACHABLE, PATIENCE_S)]
)
async def test_nobody_is_waited_for_for_ever(
    origin: Bundle, tmp_path: Path, autojump_clock: trio.testing.MockClock, code: Code, said: Code, after_s: float
) -> None:
    with pytest.raises(NetworkError) as caught:
        await fetched(refusing(origin, float("inf"), code), origin, tmp_path)
    assert caught.value.code is said
    assert ("busy with others: 1" in caught.value.message) == (said is Code.BUSY)
    assert after_s < trio.current_time() < after_s + 60


async def test_a_source_that_was_busy_and_has_gone_is_not_waited_for(
    origin: Bundle, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    def answer(wanted: bytes) -> Message:
        if trio.current_time() > PATIENCE_S / 2:
            raise NetworkError(Code.STREAM_CLOSED, "it has left")
        return RefuseMessage(Code.BUSY.value, "not now", 5000)

    with pytest.raises(NetworkError) as caught:
        await fetched(answer, origin, tmp_path)
    assert caught.value.code is Code.PEER_UNREACHABLE
    assert 1.5 * PATIENCE_S < trio.current_time() < 1.5 * PATIENCE_S + 60


@pytest.mark.spec("D-39")
async def test_whose_turn_comes_late_is_not_given_up_at_that_moment(
    origin: Bundle, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The first answer is that the source has not got it, so that nothing is kept, nor anybody busy."""
    busy, lacked = refusing(origin, 2 * PATIENCE_S), False

    def answer(wanted: bytes) -> Message:
        nonlocal lacked
        said = busy(wanted)
        if isinstance(said, BlobReply) and not lacked:
            lacked = True
            return BlobReply(None)
        return said

    await fetched(answer, origin, tmp_path)
    assert (
        lacked and trio.current_time() > 2 * PATIENCE_S
    )  # how much later is no measure: the clock jumps while a disk writes
