"""HTTP/1.1 for this machine alone: each connection brings one request, within bounds, gets one answer, and is closed.

By h11, on sockets of the node's own. Whoever asks can hold a connection for `TAKES_S` at most, and all together
`CONNECTIONS_MAX` of them: nobody else on the machine uses up the node's file descriptors.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

import h11
import trio

from ..protocol.errors import REGISTRY, Code

CONNECTIONS_MAX: Final = 32
"""A browser opens six, a monitor one."""
HEAD_BYTES_MAX: Final = 16 * 1024
"""Browsers send one or two thousand bytes of headers."""
BODY_BYTES_MAX: Final = 4096
"""A command and its seconds."""
FIELDS_MAX: Final = 16
"""Of a query, or of a form."""
TAKES_S: Final = 10.0
"""For a request to arrive, and again for its answer to be taken."""
HTML, JSON, PLAIN = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. Header names are in small letters."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    body: bytes = b""
    kind: str = PLAIN
    headers: tuple[tuple[str, str], ...] = ()


class Unanswerable(Exception):
    """A request that is answered with its fault."""

    def __init__(self, status: int, code: Code, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.response = refusal(status, code, message, headers)


Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
"""May raise `Unanswerable`; what else it raises is a fault of ours."""
Failed: TypeAlias = Callable[[str], None]
"""Told of such a fault."""


def answer(status: int, value: object) -> Response:
    """The value as JSON."""
    return Response(status, json.dumps(value, ensure_ascii=False).encode(), JSON)


def refusal(status: int, code: Code, message: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """What is wrong, its stable code, and what to do."""
    said = {"code": str(code), "message": message, "advice": REGISTRY[code].advice}
    return Response(status, json.dumps(said, ensure_ascii=False).encode(), JSON, headers)


def fields_untrusted(text: str) -> dict[str, str]:
    """The fields of a query or a form, each given once. Raises `Unanswerable`."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError:
        if not text:
            return {}
        raise Unanswerable(400, Code.BAD_REQUEST, "The request's fields cannot be read.") from None
    if len(dict(pairs)) < len(pairs):
        raise Unanswerable(400, Code.BAD_REQUEST, "The request gives one of its fields twice.")
    return dict(pairs)


async def serve(
    listener: trio.SocketListener,
    handler: Handler,
    failed: Failed,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answers until cancelled, and then closes the listener. A request that has been read is carried out to its end, whether
    its asker waits for the answer or has left; one that fails by a fault of ours costs its own connection."""
    open_ = 0

    async def one(stream: trio.SocketStream) -> None:
        nonlocal open_
        if open_ >= CONNECTIONS_MAX:
            return
        open_ += 1
        try:
            await _serve_one(stream, handler, failed)
        finally:
            open_ -= 1

    async with trio.open_nursery() as nursery:
        task_status.started()
        await trio.serve_listeners(one, [listener], handler_nursery=nursery)


async def _serve_one(stream: trio.SocketStream, handler: Handler, failed: Failed) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    try:
        request = None
        with trio.move_on_after(TAKES_S):
            request = await _read_untrusted(stream, connection)
        if request is None:
            response = refusal(408, Code.TIMED_OUT, f"The request did not come within {TAKES_S:g} s.")
        else:
            response = await handler(request)
    except Unanswerable as fault:
        response = fault.response
    except (h11.RemoteProtocolError, UnicodeDecodeError):
        response = refusal(400, Code.BAD_REQUEST, "What came is no request of HTTP/1.1.")
    except trio.BrokenResourceError:
        return  # whoever asked has gone
    except Exception as error:  # noqa: BLE001 - a task boundary: who looks at a node does not end it
        failed("".join(traceback.format_exception_only(error)).strip())
        response = refusal(500, Code.WORKER_FAILED, "The node failed to answer; its log says why.")
    if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        with trio.move_on_after(TAKES_S):
            await _send(stream, connection, response)


async def _read_untrusted(stream: trio.SocketStream, connection: h11.Connection) -> Request:
    """Raises `Unanswerable`, `h11.RemoteProtocolError`, `UnicodeDecodeError`, `trio.BrokenResourceError`."""
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                await stream.send_all(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            connection.receive_data(await stream.receive_some(HEAD_BYTES_MAX))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                raise Unanswerable(413, Code.TOO_LARGE, f"The request has more than {BODY_BYTES_MAX} bytes.")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return _asked_untrusted(head, body)
        else:
            raise trio.BrokenResourceError  # it closed without having asked


def _asked_untrusted(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("ascii").partition("?")
    names = [name.decode("ascii") for name, _ in head.headers]
    if len(set(names)) < len(names):
        raise Unanswerable(400, Code.BAD_REQUEST, "The request gives one of its headers twice.")
    headers = {name: value.decode("latin-1") for name, (_, value) in zip(names, head.headers, strict=True)}
    return Request(head.method.decode("ascii"), path, fields_untrusted(query), headers, body)


async def _send(stream: trio.SocketStream, connection: h11.Connection, response: Response) -> None:
    headers = [
        ("Content-Type", response.kind),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
        *response.headers,
    ]
    reason = {200: b"OK", 303: b"See Other"}.get(response.status, b"")
    head = connection.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
    try:
        await stream.send_all(head + response.body)
        await stream.send_eof()
        # A close with bytes unread would be a reset, and might overtake the answer.
        while await stream.receive_some(HEAD_BYTES_MAX):
            pass
    except trio.BrokenResourceError:
        pass
