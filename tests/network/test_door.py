"""Who is let in, whatever else arrives: sockets that say nothing, or anything, and peers that broke the rules."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from libp2p.network.stream.exceptions import StreamError

from fallow.node.network.door import GREETING
from fallow.node.network.identity import id_of
from fallow.node.network.standing import BAN_S, BAN_S_MAX, HALF_LIFE_S, POINTS_BANNED, Fault, Standings
from fallow.protocol.errors import NetworkError

HALF_OPEN = 300
CONNECTS = 1000


def _port(address: str) -> int:
    return int(address.split("/")[4])


async def _knock(port: int, words: bytes) -> trio.SocketStream:
    """A connection on which so much was said; whether anybody listened is not known."""
    socket = await trio.open_tcp_stream("127.0.0.1", port)
    with suppress(trio.BrokenResourceError):
        await socket.send_all(words)
    return socket


async def _ended(socket: trio.SocketStream) -> None:
    """The other side has closed it."""
    with suppress(trio.BrokenResourceError):
        while await socket.receive_some():
            pass
    await socket.aclose()


def test_a_name_is_banned_at_so_many_points_and_each_time_for_longer() -> None:
    standings, now = Standings(), 1000.0
    assert not standings.blame("x", Fault.BAD_FRAME, now)
    assert not standings.blame("x", Fault.BAD_FRAME, now)
    assert standings.blame("x", Fault.BAD_FRAME, now)
    for expected in (BAN_S, 2 * BAN_S, 4 * BAN_S):
        assert standings.banned_s("x", now) == expected
        now += expected
        assert standings.banned_s("x", now) == 0
        assert standings.blame("x", Fault.OVERRUN, now)
    assert standings.banned_s("y", now) == 0


@given(st.lists(st.tuples(st.sampled_from(Fault), st.floats(HALF_LIFE_S * 8, HALF_LIFE_S * 50)), max_size=50))
def test_faults_far_apart_never_add_up_to_a_ban(faults) -> None:
    standings, now = Standings(), 0.0
    for fault, later_s in faults:
        now += later_s
        banned = standings.banned_s("x", now) > 0
        assert standings.blame("x", fault, now) == (fault >= POINTS_BANNED and not banned)
        assert standings.banned_s("x", now) <= BAN_S_MAX


def test_the_table_of_standings_stays_small_and_keeps_the_guilty() -> None:
    standings = Standings(known_max=64)
    assert standings.blame("guilty", Fault.OVERRUN, 0.0)
    for index in range(10_000):
        standings.blame(f"somebody {index}", Fault.SILENT_HANDSHAKE, 1.0)
    assert len(standings) <= 64
    assert standings.banned_s("guilty", 1.0) > 0


@pytest.mark.spec("W-4")
@pytest.mark.parametrize("words", [b"", GREETING[:7], GREETING, GREETING + b"\x07/noise\n"])
async def test_half_open_connections_keep_nobody_out(start_peer, start_node, words) -> None:
    attacked, standing = await start_peer(1), await start_node(2)
    sockets: list[trio.SocketStream] = []
    with trio.fail_after(60):
        await standing.connect(attacked.addresses[0])
        for _ in range(HALF_OPEN):
            sockets.append(await _knock(_port(attacked.addresses[0]), words))
        assert await standing.request(attacked.key, "/test/echo", b"stands") == b"stands"
        fresh = await start_node(3)
        while not fresh.peers():
            with suppress(NetworkError):  # the handshakes of the others have two seconds
                await fresh.connect(attacked.addresses[0])
        assert await fresh.request(attacked.key, "/test/echo", b"came in") == b"came in"
        for socket in sockets:
            await socket.aclose()


async def test_a_thousand_connects_are_no_harm(start_peer, start_node) -> None:
    attacked, standing = await start_peer(1), await start_node(2)
    port = _port(attacked.addresses[0])

    async def knock_and_go(times: int) -> None:
        for _ in range(times):
            await (await _knock(port, b"")).aclose()

    with trio.fail_after(60):
        await standing.connect(attacked.addresses[0])
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(knock_and_go, CONNECTS // 20)
        assert await standing.request(attacked.key, "/test/echo", b"stands") == b"stands"
        fresh = await start_node(3)
        await fresh.connect(attacked.addresses[0])
        assert await fresh.request(attacked.key, "/test/echo", b"came in") == b"came in"
        assert attacked.complaints() == ""


async def test_connections_that_come_and_go_leave_nothing_behind(start_node) -> None:
    server, client = await start_node(1), await start_node(2)
    with trio.fail_after(30):
        for _ in range(5):
            await client.connect(server.addresses()[0])
            [connection] = server._door._swarm.get_connections()
            await client._host.disconnect(id_of(server.key))
            await connection.muxed_conn.event_closed.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert server._door._swarm._inbound_limiter.borrowed_tokens == 0
        assert server._door.arriving == []


async def test_an_address_that_sends_garbage_is_banned_unless_an_honest_peer_is_there(start_node) -> None:
    server = await start_node(1)
    port = _port(server.addresses()[0])
    with trio.fail_after(30):
        while not server._door.banned_s("127.0.0.1"):
            await _ended(await _knock(port, b"GET / HTTP/1.1\r\n\r\n"))
        late = await start_node(2)
        with pytest.raises(NetworkError):
            await late.connect(server.addresses()[0])
        await server.connect(late.addresses()[0])  # we dial whom we like
        other = await start_node(3)
        with pytest.raises(NetworkError):
            await other.connect(server.addresses()[0])
        assert server._door.banned_s("127.0.0.1") > 0

        second, honest = await start_node(4), await start_node(5)
        await honest.connect(second.addresses()[0])
        while not second._door.addresses.banned_s("127.0.0.1", trio.current_time()):
            await _ended(await _knock(_port(second.addresses()[0]), GREETING + b"\xff" * 100))
        await other.connect(second.addresses()[0])
        assert sorted(second.peers()) == sorted([honest.key, other.key])


@pytest.mark.spec("W-5")
async def test_a_peer_that_broke_the_rules_is_cut_off_and_stays_out(start_node) -> None:
    honest, hostile, other = await start_node(1), await start_node(2), await start_node(3)

    async def unread(stream) -> None:
        await trio.sleep_forever()

    honest._host.set_stream_handler("/test/unread", unread)
    with trio.fail_after(20):
        await other.connect(honest.addresses()[0])
        await hostile.connect(honest.addresses()[0])
        stream = await hostile._host.new_stream(id_of(honest.key), ["/test/unread"])
        stream.muxed_stream._send_window = 2**30
        with pytest.raises(StreamError):
            await _pour(stream)
        with pytest.raises(NetworkError):
            await hostile.connect(honest.addresses()[0])
        with pytest.raises(NetworkError):
            await honest.connect(hostile.addresses()[0])
        assert honest.peers() == [other.key]


async def _pour(stream) -> None:
    while True:
        await stream.write(bytes(1024 * 1024))
