"""HTTP as the gateway needs it: bounded JSON in, errors in OpenAI's shape out, work that ends when its reader goes."""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ..protocol.errors import Code, ConfigError, FallowError, Refused
from .gateway_requests import ApiError
from .gateway_responses import api_error, error_body, error_headers

BODY_BYTES_MAX = 1024 * 1024
"""Of a request: several times the longest context that an order can carry."""
BACKLOG = 128

Work = Callable[[Scope, Receive, Send], Awaitable[None]]


async def read_json(request: Request, *, local_only: bool) -> object:
    """The request's JSON. Raises `ApiError` if it is none, is too long, or may come from a web page.

    A page can have the browser post anything but `application/json` to any address, and anything at all to a name of
    its own that resolves to this machine; hence the two checks.
    """
    if local_only and not _names_this_machine(request.url.hostname or ""):
        raise ApiError(403, "This gateway serves its own machine only: call it by localhost.", "foreign_host")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "The content type must be application/json.", "unsupported_media_type")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise ApiError(413, f"The request exceeds {BODY_BYTES_MAX} bytes.", Code.TOO_LARGE)
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not JSON.", "invalid_body") from None
    return parsed


class Working(Response):
    """The response of a job: it is cancelled when the client goes, and refused while too many others run."""

    def __init__(self, free: trio.Semaphore, work: Work) -> None:
        super().__init__()
        self._free = free
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what the work raises, while an error still fits into a status."""
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            raise Refused(Code.BUSY, "This gateway is at work on as many requests as it takes at once.") from None
        failure: FallowError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                try:
                    await self._work(scope, receive, send)
                except FallowError as error:
                    failure = error  # out of the nursery before it is raised: handlers know no groups
                nursery.cancel_scope.cancel()
        finally:
            self._free.release()
        if failure is not None:
            raise failure


class EventStream:
    """Server-sent events. The status goes out with the first of them: an error before can have its own."""

    def __init__(self, send: Send, opening: bytes) -> None:
        self._send = send
        self._opening = opening
        self.started = False

    async def start(self) -> None:
        """The status, and what every stream begins with, are sent; once."""
        if self.started:
            return
        self.started = True
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.write(self._opening)

    async def write(self, events: bytes) -> None:
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def on_error(request: Request, error: Exception) -> Response:
    """An exception handler: any refusal in OpenAI's shape, with the headers that OpenAI's clients retry by."""
    match error:
        case ApiError():
            told = error
        case FallowError():
            told = api_error(error)
        case HTTPException():
            told = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}.", "unknown_url")
        case _:
            raise error
    return JSONResponse(error_body(told), told.status, error_headers(told))


def listening(listen: str) -> socket.socket:
    """A listening socket for `HOST:PORT`. Raises `ConfigError`: `port_busy`, or `bad_config` for no such address."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ConfigError(
            Code.BAD_CONFIG, f"{listen[:80]!r} is no address to listen on; say for example 127.0.0.1:8765."
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(BACKLOG)  # only this fails where another process was quicker since the bind
        except OSError:
            opened.close()
            raise
    except UnicodeError:
        raise ConfigError(Code.BAD_CONFIG, f"{host[:80]!r} is no host name.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(Code.PORT_BUSY, f"Something listens on {listen} already.") from None
        raise ConfigError(Code.BAD_CONFIG, f"This machine cannot listen on {listen}: {error.strerror}.") from None
    return opened


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach the listener."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _names_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the body was read; nothing else comes
    scope.cancel()
