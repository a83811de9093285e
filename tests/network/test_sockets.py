"""What a socket gives, however it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream

from fallow.node.network.sockets import PIECE_BYTES, PIECE_BYTES_MAX, Socket

CONTENT = bytes(range(256)) * 4096


class Counted:
    """A stream of trio's that says how often, and for how much, the system was asked."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.asked: list[int | None] = []
        self.send_all, self.aclose = stream.send_all, stream.aclose

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.asked.append(max_bytes)
        return await self._stream.receive_some(max_bytes)


@pytest.fixture
async def ends() -> tuple[Socket, Counted, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    ours.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4 * len(CONTENT))
    counted = Counted(trio.SocketStream(ours))
    return Socket(TrioTCPStream(cast(Any, counted))), counted, trio.SocketStream(theirs)


async def read(socket: Socket, count: int, n: Callable[[], int]) -> bytes:
    got = b""
    while len(got) < count:
        more = await socket.read(min(n(), count - len(got)))
        assert more
        got += more
    return got


@pytest.mark.parametrize("size", [1, 2, 100, PIECE_BYTES, PIECE_BYTES + 1, len(CONTENT)])
async def test_all_comes_once_and_in_order(ends, nursery: trio.Nursery, size: int) -> None:
    socket, _, other = ends
    content = CONTENT[: 1000 * size]
    with trio.fail_after(20):
        nursery.start_soon(other.send_all, content)
        assert await read(socket, len(content), lambda: size) == content
        await other.aclose()
        assert await socket.read(1) == await socket.read() == b""
    await socket.close()


async def test_the_system_is_asked_once_for_what_is_there(ends) -> None:
    socket, counted, other = ends
    with trio.fail_after(20):
        await other.send_all(b"\x13/multistream/1.0.0\n\x07/noise\n")
        assert [await socket.read(1), await socket.read(19), await socket.read(1)] == [
            b"\x13",
            b"/multistream/1.0.0\n",
            b"\7",
        ]
        assert len(counted.asked) == 1
        socket.unread(b"\x07")
        assert await socket.read() == b"\x07/noise\n"
        assert len(counted.asked) == 1
    await other.aclose()
    await socket.close()


async def test_what_a_beginning_says_goes_with_the_wait_for_an_answer(ends) -> None:
    socket, _, other = ends
    with trio.fail_after(20):
        for line in (b"one", b"two", b"three"):
            await socket.write(line)
        await other.send_all(b"answer")
        assert await socket.read() == b"answer"
        assert await other.receive_some() == b"onetwothree"
        await socket.write(b"four")
        await socket.begun()
        await socket.write(b"five")
        assert await other.receive_some() == b"fourfive"
    await other.aclose()
    await socket.close()


@pytest.mark.parametrize(
    ("said", "left"), [(b"yes", b""), (b"yes, and", b", and"), (b"no", None), (b"yet", None), (b"", None)]
)
async def test_an_answer_that_is_expected_is_not_read_and_another_is_the_end(
    ends, said: bytes, left: bytes | None
) -> None:
    socket, _, other = ends
    socket.expect(b"yes")
    with trio.fail_after(20):
        await other.send_all(said)
        await other.send_eof()
        if left is None:
            with pytest.raises(ConnectionClosedError):
                await socket.read()
        else:
            assert await socket.read() == left
    await other.aclose()
    await socket.close()


async def test_pieces_grow_for_whoever_sends_much(ends, nursery: trio.Nursery) -> None:
    socket, counted, other = ends
    with trio.fail_after(20):
        nursery.start_soon(other.send_all, CONTENT)
        await read(socket, len(CONTENT), lambda: 65_537)
    assert counted.asked[0] == PIECE_BYTES
    assert max(each or 0 for each in counted.asked) <= PIECE_BYTES_MAX
    await other.aclose()
    await socket.close()


async def test_a_socket_that_was_closed_says_so(ends) -> None:
    socket, _, other = ends
    await other.aclose()
    await socket.begun()
    await socket.close()
    assert await socket.read(1) == b""
    with pytest.raises(ConnectionClosedError):
        await socket.write(b"too late")
