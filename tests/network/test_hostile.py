"""What strangers can send to a node's socket, and that the node goes on."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.host.exceptions import StreamFailure
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError
from libp2p.stream_muxer.exceptions import MuxedStreamError

from fallow.node.network.identity import id_of
from fallow.node.network.kad import KAD_ID, SERVED_PER_PEER_MAX
from fallow.node.network.limits import BUFFERED_CONNECTION_MAX, STREAMS_IN_MAX
from fallow.node.network.mesh import Mesh
from fallow.node.network.seam import FRAME_BYTES_MAX, STREAMS_PER_PEER_MAX
from fallow.node.network.standing import POINTS_BANNED
from fallow.protocol.errors import Code, NetworkError


async def _raw_stream(node: Mesh, peer: bytes, protocol: str = "") -> INetStream:
    """A stream on which the test writes what it likes, before or after the protocol was agreed."""
    if protocol:
        return await node._host.new_stream(id_of(peer), [protocol])
    return await node._host.get_network().new_stream(id_of(peer))


@pytest.mark.spec("E-4")
async def test_garbage_on_the_socket_harms_nobody(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    port = int(peer.addresses[0].split("/")[4])
    with trio.fail_after(20):
        for garbage in (b"\x00" * 10_000, b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n\xff\xff\xff", b""):
            socket = await trio.open_tcp_stream("127.0.0.1", port)
            await socket.send_all(garbage)
            await socket.aclose()
        assert await node.request(peer.key, "/test/echo", b"alive", peer.addresses) == b"alive"


async def test_a_header_that_is_no_text_harms_nobody(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(20):
        await node.connect(peer.addresses[0])
        for header in (b"\x05\xff\xfe\xfd\xfc\n", b"\x13/multistream/1.0.0\n\x04\xff\xfe\xfd\n", b"\xff" * 20):
            stream = await _raw_stream(node, peer.key)
            await stream.write(header)
            await stream.close()
        assert await node.request(peer.key, "/test/echo", b"alive") == b"alive"


@pytest.mark.spec("J-3")
async def test_an_announced_frame_beyond_the_bound_resets_the_stream(start_node) -> None:
    honest, hostile = await start_node(1), await start_node(2)
    seen: list[NetworkError] = []
    ended = trio.Event()

    async def read(stream) -> None:
        try:
            await stream.receive()
        except NetworkError as error:
            seen.append(error)
        ended.set()

    honest.serve("/test/read", read)
    with trio.fail_after(20):
        await hostile.connect(honest.addresses()[0])
        stream = await _raw_stream(hostile, honest.key, "/test/read")
        await stream.write((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
        await ended.wait()
        assert [error.code for error in seen] == [Code.TOO_LARGE]


async def test_a_frame_cut_short_is_an_end_and_not_a_frame(start_node) -> None:
    honest, hostile = await start_node(1), await start_node(2)
    seen: list[NetworkError] = []
    ended = trio.Event()

    async def read(stream) -> None:
        try:
            await stream.receive()
        except NetworkError as error:
            seen.append(error)
        ended.set()

    honest.serve("/test/read", read)
    with trio.fail_after(20):
        await hostile.connect(honest.addresses()[0])
        stream = await _raw_stream(hostile, honest.key, "/test/read")
        await stream.write((100).to_bytes(4, "big") + b"only this")
        await stream.close()
        await ended.wait()
        assert [error.code for error in seen] == [Code.STREAM_CLOSED]


async def test_one_peer_cannot_take_every_slot(start_node) -> None:
    honest, greedy, other = await start_node(1), await start_node(2), await start_node(3)

    async def hold(stream) -> None:
        await stream.send(b"you have a slot")
        await stream.receive()

    honest.serve("/test/hold", hold)
    with trio.fail_after(30):
        for _ in range(STREAMS_PER_PEER_MAX):
            stream = await greedy.open(honest.key, "/test/hold", honest.addresses())
            assert await stream.receive() == b"you have a slot"
        with pytest.raises(NetworkError) as caught:
            await greedy.request(honest.key, "/test/hold", b"one more")
        assert caught.value.code is Code.STREAM_CLOSED
        stream = await other.open(honest.key, "/test/hold", honest.addresses())
        assert await stream.receive() == b"you have a slot"


async def test_idle_streams_of_one_peer_leave_the_table_to_the_others(start_node) -> None:
    honest, idle, other = await start_node(1), await start_node(2), await start_node(3)
    with trio.fail_after(30):
        await idle.connect(honest.addresses()[0])
        for _ in range(2 * SERVED_PER_PEER_MAX):
            with suppress(StreamFailure):  # the reset may come before the protocol is agreed
                await _raw_stream(idle, honest.key, KAD_ID)
        await other.connect(honest.addresses()[0])
        await other._table.join([id_of(honest.key)])
        assert await other.put("/fallow/x", b"ok") == 1
        assert honest._table._kad._served[id_of(idle.key)] == SERVED_PER_PEER_MAX


async def test_an_address_of_another_peer_is_not_believed(start_node) -> None:
    honest, impostor, node = await start_node(1), await start_node(2), await start_node(3)
    where = impostor.addresses()[0].partition("/p2p/")[0]
    claim = where + "/p2p/" + honest.addresses()[0].partition("/p2p/")[2]
    with trio.fail_after(20):
        with pytest.raises(NetworkError) as caught:
            await node.connect(claim)
        assert caught.value.code is Code.PEER_UNREACHABLE
        assert node.peers() == []


@pytest.mark.parametrize("protocol", ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", KAD_ID])
@pytest.mark.parametrize("garbage", [b"\xff" * 70_000, b"\x05\xff\xfe\xfd\xfc\xfb", bytes(1000), b"\x80" * 20])
async def test_garbage_on_libp2ps_own_protocols_harms_nobody(start_node, protocol, garbage) -> None:
    honest, hostile = await start_node(1), await start_node(2)

    async def answer(stream) -> None:
        await stream.send(await stream.receive())

    honest.serve("/test/echo", answer)
    with trio.fail_after(20):
        await hostile.connect(honest.addresses()[0])
        with suppress(StreamFailure, StreamError):  # that it is refused is as good
            stream = await _raw_stream(hostile, honest.key, protocol)
            await stream.write(garbage)
            await stream.close()
        assert await hostile.request(honest.key, "/test/echo", b"alive") == b"alive"


async def test_a_flood_of_streams_ends_with_a_ban(start_node) -> None:
    honest, hostile, other = await start_node(1), await start_node(2), await start_node(3)
    with trio.fail_after(30):
        await hostile.connect(honest.addresses()[0])
        await other.connect(honest.addresses()[0])
        [connection] = hostile._host.get_network().get_connections(id_of(honest.key))
        with suppress(MuxedStreamError):
            for _ in range(STREAMS_IN_MAX + 2 * POINTS_BANNED):
                await connection.muxed_conn.open_stream()
        await connection.muxed_conn.event_closed.wait()
        assert honest.peers() == [other.key]


async def test_messages_that_never_end_take_no_more_than_the_bound(start_node) -> None:
    honest, hostile, other = await start_node(1), await start_node(2), await start_node(3)

    async def read(stream) -> None:
        await stream.receive()

    honest.serve("/test/read", read)
    begun = (FRAME_BYTES_MAX).to_bytes(4, "big") + bytes(FRAME_BYTES_MAX - 1)
    with trio.fail_after(60):
        await other.connect(honest.addresses()[0])
        await hostile.connect(honest.addresses()[0])
        [connection] = honest._host.get_network().get_connections(id_of(hostile.key))
        with suppress(StreamFailure, StreamError, SwarmException):
            for _ in range(2 * BUFFERED_CONNECTION_MAX // FRAME_BYTES_MAX):
                stream = await _raw_stream(hostile, honest.key, "/test/read")
                await stream.write(begun)
                assert connection.muxed_conn.held_bytes <= BUFFERED_CONNECTION_MAX + FRAME_BYTES_MAX
        assert other.key in honest.peers()
        assert honest._door.peers.points(str(id_of(hostile.key)), trio.current_time()) > 0 or not hostile.peers()
