"""What all peers together may have waiting unread, and who loses his when it is too much."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from libp2p.host.exceptions import StreamFailure
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError, StreamReset

from fallow.node.network.identity import id_of
from fallow.node.network.memory import Memory
from fallow.protocol import framing
from fallow.protocol.errors import Code, NetworkError

MIB = 1024 * 1024
BYTES_MAX = 1000


class Held:
    """A stream on which something waits, since the given time."""

    def __init__(self, memory: Memory, read_at: float) -> None:
        self.held_bytes = 0
        self.read_at = read_at
        self.was_shed = False
        self._memory = memory

    def shed(self) -> None:
        self.was_shed = True
        self._memory.hold(self, -self.held_bytes)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 400), st.booleans()), max_size=200))
def test_never_more_is_held_than_the_bound(steps) -> None:
    memory = Memory(BYTES_MAX, lambda: 100.0)
    holders = [Held(memory, float(index)) for index in range(21)]
    for index, length, comes in steps:
        held = holders[index]
        memory.hold(held, length if comes else -min(length, held.held_bytes))
        assert memory.held_bytes == sum(each.held_bytes for each in holders) <= BYTES_MAX
    assert set(memory._holders) == {each for each in holders if each.held_bytes}


def test_who_lets_it_lie_goes_before_who_reads_fast() -> None:
    memory = Memory(BYTES_MAX, lambda: 100.0)
    reader, idle = Held(memory, 99.99), [Held(memory, 60.0 + index) for index in range(8)]
    memory.hold(reader, 600)
    for each in idle:
        memory.hold(each, 60)
    assert not reader.was_shed
    assert [each.was_shed for each in idle] == [True] * 5 + [False] * 3


def test_credit_stands_still_while_half_of_it_is_taken() -> None:
    memory = Memory(BYTES_MAX, lambda: 0.0)
    held = Held(memory, 0.0)
    memory.hold(held, BYTES_MAX // 2)
    assert not memory.tight
    memory.hold(held, 1)
    assert memory.tight


async def _never_read(stream) -> None:
    await trio.sleep_forever()


async def _echo(stream) -> None:
    while True:
        await stream.send(await stream.receive())


@pytest.mark.parametrize(
    "content", [framing.frame(bytes(64 * 1024)) * 128, (4 * MIB).to_bytes(4, "big") + bytes(4 * MIB - 1)]
)
async def test_many_peers_that_are_not_read_leave_room_for_the_honest_one(start_node, nursery, content) -> None:
    """Whole frames that no handler takes, and such as never end: no peer comes near to its own bound."""
    attacked, honest = await start_node(1), await start_node(2)
    attacked.serve("/test/unread", _never_read)
    attacked.serve("/test/echo", _echo)
    memory = attacked._door.memory
    memory._bytes_max = 16 * MIB
    most = 0
    hold = memory.hold

    def watch(holder, length: int) -> None:
        nonlocal most
        hold(holder, length)
        if length > 0:  # and not while some are being shed
            most = max(most, memory.held_bytes)

    vars(memory)["hold"] = watch
    poured: Counter[bytes] = Counter()

    async def pour(hostile) -> None:
        with suppress(StreamFailure, StreamError, SwarmException, NetworkError):
            while poured[hostile.key] < 8:
                await hostile.connect(attacked.addresses()[0])
                stream = await hostile._host.new_stream(id_of(attacked.key), ["/test/unread"])
                with suppress(StreamError):
                    await stream.write(content)
                poured[hostile.key] += 1
        poured[hostile.key] = 8

    with trio.fail_after(60):
        stream = await honest.open(attacked.key, "/test/echo", attacked.addresses())
        hostile = [await start_node(number) for number in range(3, 7)]
        for each in hostile:
            nursery.start_soon(pour, each)
        while sum(poured.values()) < 8 * len(hostile):
            await stream.send(bytes(MIB))
            assert len(await stream.receive()) == MIB
        assert most <= 16 * MIB
        assert not attacked._door.peers.points(str(id_of(honest.key)), trio.current_time())
        now, standings = trio.current_time(), attacked._door.peers
        names = [str(id_of(each.key)) for each in hostile]
        assert all(standings.points(name, now) or standings.banned_s(name, now) for name in names)


async def test_a_stream_that_was_shed_says_so_and_holds_nothing(start_node) -> None:
    reader, writer = await start_node(1), await start_node(2)

    async def pour(stream) -> None:
        await stream.receive()
        for _ in range(4):
            await stream.send(bytes(MIB))
        await stream.receive()

    writer.serve("/test/pour", pour)
    with trio.fail_after(20):
        memory = reader._door.memory
        memory._bytes_max = 2 * MIB
        stream = await reader.open(writer.key, "/test/pour", writer.addresses())
        await stream.send(b"now")
        await stream._ended.wait()
        with pytest.raises(NetworkError) as caught:
            await stream.receive()
        assert caught.value.code is Code.TOO_LARGE
        assert memory.held_bytes == 0
        assert stream._conn.held_bytes == 0


async def test_a_connection_that_ends_leaves_nothing_held(start_node) -> None:
    attacked, hostile = await start_node(1), await start_node(2)
    ended = trio.Event()

    async def slow(stream) -> None:
        await stream._ended.wait()
        ended.set()

    attacked.serve("/test/slow", slow)
    attacked.serve("/test/echo", _echo)
    with trio.fail_after(20):
        await hostile.connect(attacked.addresses()[0])
        stream = await hostile._host.new_stream(id_of(attacked.key), ["/test/slow"])
        await stream.write(framing.frame(bytes(MIB)))
        raw = await hostile._host.get_network().new_stream(id_of(attacked.key))
        with suppress(StreamReset):  # no protocol begins so
            await raw.write(bytes(100_000))
        while attacked._door.memory.held_bytes < MIB:
            await trio.testing.wait_all_tasks_blocked(0.01)
        await hostile._host.disconnect(id_of(attacked.key))
        await ended.wait()
        while attacked._door.memory.held_bytes:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert not attacked._door.memory._holders
