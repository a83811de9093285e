"""Frames between two processes, and what happens to them when the other side misbehaves."""

from __future__ import annotations

import pytest
import trio

from fallow.node.network.seam import FRAME_BYTES_MAX, UNREAD_BYTES_MAX
from fallow.protocol.errors import Code, NetworkError


async def test_frames_of_any_size_come_back_whole_and_in_order(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(20):
        stream = await node.open(peer.key, "/test/echo", peer.addresses)
        assert stream.peer == peer.key
        frames = [b"", b"x", bytes(range(256)) * 256, bytes(3_000_000), bytes(FRAME_BYTES_MAX)]
        for frame in frames:
            await stream.send(frame)
        for frame in frames:
            assert await stream.receive() == frame
        assert await node.request(peer.key, "/test/echo", b"again") == b"again"
        assert node.peers() == [peer.key]


@pytest.mark.spec("J-2")
async def test_a_frame_beyond_the_bound_is_not_sent(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(10):
        stream = await node.open(peer.key, "/test/echo", peer.addresses)
        with pytest.raises(NetworkError) as caught:
            await stream.send(bytes(FRAME_BYTES_MAX + 1))
        assert caught.value.code is Code.TOO_LARGE
        await stream.send(b"the stream is unharmed")
        assert await stream.receive() == b"the stream is unharmed"


async def test_a_killed_peer_ends_the_stream(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(10):
        stream = await node.open(peer.key, "/test/echo", peer.addresses)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        await peer.kill()
        with pytest.raises(NetworkError) as caught:
            await stream.receive()
        assert caught.value.code is Code.STREAM_CLOSED
        with pytest.raises(NetworkError) as caught:
            await node.open(peer.key, "/test/echo")
        assert caught.value.code is Code.PEER_UNREACHABLE


@pytest.mark.spec("E-5")
async def test_a_failing_handler_resets_its_own_stream_only(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(10):
        good = await node.open(peer.key, "/test/echo", peer.addresses)
        with pytest.raises(NetworkError) as caught:
            await node.request(peer.key, "/test/fail", b"now")
        assert caught.value.code is Code.STREAM_CLOSED
        await good.send(b"still here")
        assert await good.receive() == b"still here"


@pytest.mark.spec("J-1")
async def test_a_protocol_nobody_serves_is_told_apart_from_a_dead_peer(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(10):
        with pytest.raises(NetworkError) as caught:
            await node.open(peer.key, "/test/nothing", peer.addresses)
        assert caught.value.code is Code.PROTOCOL_UNSUPPORTED


async def test_a_flood_that_nobody_reads_resets_the_stream(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(30):
        stream = await node.open(peer.key, "/test/flood", peer.addresses)
        await stream._ended.wait()
        for _ in range(UNREAD_BYTES_MAX // (1024 * 1024)):
            assert len(await stream.receive()) == 1024 * 1024
        with pytest.raises(NetworkError) as caught:
            await stream.receive()
        assert caught.value.code is Code.TOO_LARGE
        assert await node.request(peer.key, "/test/echo", b"fine") == b"fine"


async def test_every_call_on_a_frozen_peer_can_be_cancelled(start_peer, start_node) -> None:
    peer, node = await start_peer(1), await start_node(2)
    with trio.fail_after(20):
        stream = await node.open(peer.key, "/test/echo", peer.addresses)
        bystander = await node.open(peer.key, "/test/echo")
        peer.freeze()
        with trio.move_on_after(0.2) as opening:
            await node.open(peer.key, "/test/echo")
        with trio.move_on_after(0.2) as sending:
            while True:
                await stream.send(bytes(FRAME_BYTES_MAX))
        with trio.move_on_after(0.2) as receiving:
            await bystander.receive()
        assert opening.cancelled_caught
        assert sending.cancelled_caught
        assert receiving.cancelled_caught
        peer.thaw()
        await bystander.send(b"the connection is whole")
        assert await bystander.receive() == b"the connection is whole"
        with pytest.raises(NetworkError):
            await stream.send(b"after half a frame")


async def test_cancelling_senders_harms_no_other_stream(start_node) -> None:
    left, right = await start_node(1), await start_node(2)

    async def echo(stream) -> None:
        while True:
            await stream.send(await stream.receive())

    right.serve("/test/echo", echo)
    with trio.fail_after(60):
        bystander = await left.open(right.key, "/test/echo", right.addresses())
        for steps in range(60):
            stream = await left.open(right.key, "/test/echo")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send, bytes(500_000))
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await bystander.send(b"%d" % steps)
            assert await bystander.receive() == b"%d" % steps


async def test_closing_lets_the_other_side_read_everything_first(start_node) -> None:
    left, right = await start_node(1), await start_node(2)
    frames: list[bytes] = []
    ended = trio.Event()

    async def collect(stream) -> None:
        try:
            while True:
                frames.append(await stream.receive())
        finally:
            ended.set()

    right.serve("/test/collect", collect)
    with trio.fail_after(20):
        stream = await left.open(right.key, "/test/collect", right.addresses())
        for index in range(10):
            await stream.send(b"%d" % index * 10_000)
        await stream.close()
        await ended.wait()
        assert frames == [b"%d" % index * 10_000 for index in range(10)]
        with pytest.raises(NetworkError) as caught:
            await stream.receive()
        assert caught.value.code is Code.STREAM_CLOSED


async def test_peers_that_come_and_go_leave_no_trace_on_standard_error(start_peer, start_node) -> None:
    first = await start_peer(1)
    second, node = await start_peer(2, first.addresses), await start_node(3, first.addresses)
    with trio.fail_after(30):
        for peer in (first, second):
            stream = await node.open(peer.key, "/test/echo", peer.addresses)
            await stream.send(b"hello")
            await stream.reset()
            flood = await node.open(peer.key, "/test/flood")
            await flood.receive()
        await second.kill()
        assert await first.call("find", "serve/nothing") == []
        with pytest.raises(NetworkError):
            await node.open(second.key, "/test/echo")
        assert first.complaints() == ""
        assert second.complaints() == ""
