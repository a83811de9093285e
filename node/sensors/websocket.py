"""One WebSocket connection to a sensor, with its failures in words.

The stream under it is opened and closed here: trio-websocket 0.12 leaves its socket open when it is cancelled while the other
side closes. Nor is there a handshake at the end: whoever is read from loses nothing when we go.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from .feed import Feed, SensorError

CONNECT_S: Final = 5.0
MESSAGE_BYTES_MAX: Final = 256 * 1024
"""The largest is a site's list of charging profiles; a signal has two hundred bytes."""
PORTS: Final = {"ws": 80, "wss": 443}


@asynccontextmanager
async def connected(url: str, subprotocol: str = "") -> AsyncIterator[WebSocketConnection]:
    """An open connection. Raises `SensorError` if there is none, and out of the block when it ends."""
    try:
        async with await _opened(url) as stream, trio.open_nursery() as nursery:
            parts = urlsplit(url)
            resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            with trio.fail_after(CONNECT_S):
                socket = await wrap_client_stream(
                    nursery, stream, parts.netloc, resource, subprotocols=[subprotocol] if subprotocol else None,
                    message_queue_size=16, max_message_size=MESSAGE_BYTES_MAX,
                )  # fmt: skip
            yield socket
            nursery.cancel_scope.cancel()
    except* HandshakeError:
        raise SensorError(f"what answers at {url} is no WebSocket server") from None
    except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
        raise SensorError(f"{url} has closed the connection") from None


async def _opened(url: str) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    """Raises `SensorError` if nobody is there, or shows a certificate that does not hold."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    try:
        with trio.fail_after(CONNECT_S):
            stream = await trio.open_tcp_stream(host, port)
            if parts.scheme == "ws":
                return stream
            secure = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=host, https_compatible=True)
            try:
                await secure.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return secure
    except trio.BrokenResourceError as error:
        raise SensorError(f"{url} shows no certificate that holds: {error.__cause__}") from None
    except OSError as error:
        raise SensorError(f"{url} cannot be reached: {error.strerror or error}") from None
    except trio.TooSlowError:
        raise SensorError(f"{url} does not answer") from None


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
