"""One WebSocket connection to a sensor, with its failures in words."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    DisconnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

from .feed import Feed, SensorError

CONNECT_S: Final = 5.0
CLOSE_S: Final = 1.0
MESSAGE_BYTES_MAX: Final = 256 * 1024
"""The largest is a site's list of charging profiles; a signal has two hundred bytes."""


@asynccontextmanager
async def connected(
    url: str, subprotocol: str = "", *, ca: ssl.SSLContext | None = None
) -> AsyncIterator[WebSocketConnection]:
    """An open connection. Raises `SensorError` if there is none, and out of the block when it ends."""
    try:
        context = open_websocket_url(
            url, ca, subprotocols=[subprotocol] if subprotocol else None, message_queue_size=16,
            max_message_size=MESSAGE_BYTES_MAX, connect_timeout=CONNECT_S, disconnect_timeout=CLOSE_S,
        )  # fmt: skip
        async with context as socket:
            yield socket
    except* (HandshakeError, ConnectionRejected) as group:
        raise SensorError(f"what answers at {url} is no WebSocket server: {_why(group)}") from None
    except* (ConnectionClosed, DisconnectionTimeout):
        raise SensorError(f"{url} has closed the connection") from None
    except* ssl.SSLError as group:
        raise SensorError(f"{url} shows a certificate that does not hold: {_why(group)}") from None
    except* OSError as group:
        raise SensorError(f"{url} cannot be reached: {_why(group)}") from None


def _why(group: BaseExceptionGroup[BaseException]) -> str:
    first = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(getattr(first, "strerror", None) or first or type(first).__name__)


async def send(socket: WebSocketConnection, message: dict[str, Any]) -> None:
    """The message is on its way, as JSON. Raises `SensorError` if nobody reads there."""
    with trio.move_on_after(CONNECT_S) as limit:
        await socket.send_message(json.dumps(message))
    if limit.cancelled_caught:
        raise SensorError("it does not read what it is sent")


async def receive_untrusted(socket: WebSocketConnection, feed: Feed) -> dict[str, Any]:
    """The next message, a JSON object. Raises `SensorError` for what is none, and for too many."""
    message = await socket.get_message()
    feed.hear()
    return parsed_untrusted(message)


def parsed_untrusted(message: str | bytes) -> dict[str, Any]:
    """Raises `SensorError` for what is no JSON object."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        raise SensorError("it sends what is no JSON") from None
    if not isinstance(value, dict):
        raise SensorError("it sends JSON that is no object")
    return value
