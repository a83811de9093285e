"""A dish's status, read from a server of the same protocol: gRPC over HTTP/2, without TLS."""

from __future__ import annotations

import struct
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from fallow.node import starlink
from fallow.node.starlink import METHOD, Dish, dish_status, read_dish
from fallow.protocol.errors import NetworkError


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(field: int, value: float) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<f", value)


def flag(field: int) -> bytes:
    return varint(field << 3) + b"\x01"


OBSTRUCTION = message(1004, number(1, 0.015) + number(4, 3600.0) + flag(5))
DEVICE = message(1, message(1, b"ut-0000") + message(2, b"rev3"))
STATUS = DEVICE + number(1003, 0.02) + OBSTRUCTION + number(1007, 1.5e6) + number(1009, 34.5)
REPLY = varint(3 << 3) + varint(17) + message(2004, STATUS)


def framed(body: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(body)) + body


Serve = Callable[..., tuple[str, int]]


@pytest.fixture
def dish(nursery: trio.Nursery) -> Callable[..., object]:
    """A dish that answers with these bytes: `address = await dish(body)`."""

    async def start(body: bytes, grpc_status: str = "0", silent: bool = False) -> tuple[str, int]:
        async def serve(stream: trio.SocketStream) -> None:
            connection = h2.connection.H2Connection(
                h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
            )
            connection.initiate_connection()
            asked = b""
            while not silent:
                await stream.send_all(connection.data_to_send())
                if not (read := await stream.receive_some()):
                    return
                for event in connection.receive_data(read):
                    if isinstance(event, h2.events.RequestReceived):
                        headers = dict(event.headers)
                        assert headers[":path"] == METHOD and headers["content-type"] == "application/grpc"
                    elif isinstance(event, h2.events.DataReceived):
                        asked += event.data
                    elif isinstance(event, h2.events.StreamEnded):
                        assert asked == framed(message(1004, b""))
                        connection.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
                        for at in range(0, len(body), 16_384):
                            connection.send_data(1, body[at : at + 16_384])
                        connection.send_headers(1, [("grpc-status", grpc_status)], end_stream=True)
            await trio.sleep_forever()

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        host, port = listener.socket.getsockname()
        return host, port

    return start


async def test_a_dishes_status_is_read(dish) -> None:
    found = await read_dish(await dish(framed(REPLY)))
    assert found == Dish(34_500, 20_000, 15_000, True)
    assert dish_status(found) == (
        "34 ms to its ground station, 2.0 % lost, 1.5 % of the sky is obstructed, obstructed now"
    )


async def test_what_a_dish_does_not_say_is_absent(dish) -> None:
    assert await read_dish(await dish(framed(message(2004, DEVICE)))) == Dish(None, None, None, False)


@pytest.mark.parametrize(
    "body",
    [b"", framed(b""), framed(REPLY)[:-1], framed(REPLY[:-1]), framed(b"\xff" * 40), b"\x01" + framed(REPLY)[1:],
     framed(message(2006, STATUS)), framed(bytes(starlink.REPLY_BYTES_MAX))],
    ids=["nothing", "empty", "cut", "cut inside", "noise", "compressed", "another answer", "too much"],
)  # fmt: skip
async def test_what_is_no_status_is_no_dish(dish, body) -> None:
    with pytest.raises(NetworkError):
        await read_dish(await dish(body))


async def test_a_refusal_and_a_silence_are_no_dish(dish, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NetworkError):
        await read_dish(await dish(framed(REPLY), grpc_status="12"))
    monkeypatch.setattr(starlink, "READ_S", 0.2)
    with pytest.raises(NetworkError):
        await read_dish(await dish(b"", silent=True))
