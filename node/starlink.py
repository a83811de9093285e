"""What a Starlink dish says of its link, where the owner has set `starlink = true`: its one unauthenticated question.

The dish serves gRPC without TLS at a fixed address of its own network. One unary call needs no gRPC library: it is one
request and one reply over HTTP/2 (h2), each a length and a protobuf message of a few fields. Where it is (`get_location`) is
never asked.

    Request {1004: GetStatusRequest {}}
    Response {2004: DishGetStatusResponse {1003: drop rate, 1004: {1: fraction obstructed, 5: obstructed now}, 1009: ping ms}}
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import H2Error

from ..protocol.errors import Code, NetworkError

ADDRESS: Final = ("192.168.100.1", 9200)
METHOD: Final = "/SpaceX.API.Device.Device/Handle"
POLL_S: Final = 60.0
READ_S: Final = 5.0
REPLY_BYTES_MAX: Final = 32 * 1024
"""A real one has about 1 KB."""
_REQUEST: Final = b"\xe2\x3e\x00"
"""Field 1004, a message of no bytes."""
_STATUS, _DROPS, _OBSTRUCTION, _PING = 2004, 1003, 1004, 1009


@dataclass(frozen=True, slots=True)
class Dish:
    """The dish's own figures, towards its ground station. None: it does not say."""

    ping_us: int | None
    loss_ppm: int | None
    obstructed_ppm: int | None
    obstructed: bool


def dish_status(dish: Dish) -> str:
    """In words, for the owner."""
    ping = "no ping" if dish.ping_us is None else f"{dish.ping_us / 1000:.0f} ms to its ground station"
    lost = "" if dish.loss_ppm is None else f", {dish.loss_ppm / 10_000:.1f} % lost"
    hidden = "" if dish.obstructed_ppm is None else f", {dish.obstructed_ppm / 10_000:.1f} % of the sky is obstructed"
    return f"{ping}{lost}{hidden}{', obstructed now' if dish.obstructed else ''}"


async def watch_dish(on_dish: Callable[[Dish | None], None], address: tuple[str, int] = ADDRESS) -> None:
    """`on_dish` is told of each reading, None where no dish answers, until cancelled."""
    while True:
        try:
            on_dish(await read_dish(address))
        except NetworkError:
            on_dish(None)
        await trio.sleep(POLL_S)


async def read_dish(address: tuple[str, int] = ADDRESS) -> Dish:
    """The dish's status as of now. Raises `NetworkError(peer_unreachable)` if none answers, or not as one does."""
    try:
        with trio.fail_after(READ_S):
            stream = await trio.open_tcp_stream(*address)
            async with stream:
                return _dish_untrusted(await _call(stream, f"{address[0]}:{address[1]}"))
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, H2Error, ValueError, struct.error) as error:
        raise NetworkError(Code.PEER_UNREACHABLE, f"No Starlink dish answers at {address[0]}: {error}.") from None


async def _call(stream: trio.SocketStream, authority: str) -> bytes:
    """The reply's message. Raises `ValueError` if it is none, or too long."""
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", authority), ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]  # fmt: skip
    connection.send_headers(1, headers)
    connection.send_data(1, b"\0" + struct.pack(">I", len(_REQUEST)) + _REQUEST, end_stream=True)
    received = b""
    while True:
        await stream.send_all(connection.data_to_send())
        if not (read := await stream.receive_some(16384)):
            raise ValueError("it ended the connection")
        for event in connection.receive_data(read):
            match event:
                case DataReceived():
                    received += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, 1)
                case TrailersReceived() if dict(event.headers).get(b"grpc-status", b"0") != b"0":
                    raise ValueError("it refuses")
                case StreamReset() | ConnectionTerminated():
                    raise ValueError("it broke off")
                case StreamEnded():
                    return _message(received)
        if len(received) > REPLY_BYTES_MAX:
            raise ValueError("it says too much")


def _message(received: bytes) -> bytes:
    """What stands behind gRPC's head: a byte for compression, and the length."""
    if len(received) < 5 or received[0] or len(received) != 5 + int.from_bytes(received[1:5], "big"):
        raise ValueError("that is no reply")
    return received[5:]


def _dish_untrusted(message: bytes) -> Dish:
    """Raises `ValueError` or `struct.error` for what is no status."""
    status = dict(_fields(message)).get(_STATUS)
    if not isinstance(status, bytes):
        raise ValueError("that is no status")
    found = dict(_fields(status))
    obstruction = found.get(_OBSTRUCTION, b"")
    within = dict(_fields(obstruction)) if isinstance(obstruction, bytes) else {}
    return Dish(
        ping_us=_scaled(found.get(_PING), 1_000),
        loss_ppm=_scaled(found.get(_DROPS), 1_000_000),
        obstructed_ppm=_scaled(within.get(1), 1_000_000),
        obstructed=within.get(5) == 1,
    )


def _scaled(value: int | float | bytes | None, by: int) -> int | None:
    return round(value * by) if isinstance(value, float) and 0 <= value < 1e6 else None


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of a protobuf message: varints as int, 32-bit ones as float, what has a length as bytes."""
    at = 0
    while at < len(message):
        head, at = _varint(message, at)
        match head & 7:
            case 0:
                value, at = _varint(message, at)
                yield head >> 3, value
            case 1:
                at += 8
            case 2:
                length, at = _varint(message, at)
                if at + length > len(message):
                    raise ValueError("it is cut short")
                yield head >> 3, message[at : at + length]
                at += length
            case 5:
                yield head >> 3, struct.unpack_from("<f", message, at)[0]
                at += 4
            case _:
                raise ValueError("it is no protobuf")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut short")
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
    raise ValueError("it is no protobuf")
