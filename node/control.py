"""The owner's commands to a running node: a Unix socket in its state directory, one msgpack map each way."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias, cast

import msgpack
import trio

from ..protocol.errors import Code, ConfigError, FallowError, NetworkError
from .wish import PAUSE_S_MAX

CONTROL = "control.sock"
STATUS, WHY, DRIVE, PARK = "status", "why", "drive", "park"
PAUSE, RESUME, OPT_OUT, OPT_IN = "pause", "resume", "opt-out", "opt-in"
COMMANDS = (STATUS, WHY, DRIVE, PARK, PAUSE, RESUME, OPT_OUT, OPT_IN)
REQUEST_BYTES_MAX: Final = 4096
REPLY_BYTES_MAX: Final = 256 * 1024
ANSWER_S: Final = 10.0
"""A yield ends within 2 s; the rest is a busy machine."""

Reply: TypeAlias = Mapping[str, str | int | list[str]]
Handler: TypeAlias = Callable[[str, int], Awaitable[Reply]]
"""Of a command and, for `PAUSE`, its seconds."""


def request(state: Path, command: str, seconds: int = 0) -> dict[str, object]:
    """The running node's answer to a command; `seconds` are for `PAUSE`.

    Raises `ConfigError(not_running)`, or the node's own error.
    """
    with reachable(state) as address, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(address)
            connection.sendall(
                cast(bytes, msgpack.packb({"command": command} | ({"seconds": seconds} if seconds else {})))
            )
            connection.shutdown(socket.SHUT_WR)
            reply = _answer(connection)
        except TimeoutError:
            raise NetworkError(Code.TIMED_OUT, f"The node in {state} did not answer in {ANSWER_S:g} s.") from None
        except OSError:
            raise ConfigError(Code.NOT_RUNNING, f"No node is running in {state}.") from None
    if "code" in reply:
        raise ConfigError(Code(str(reply["code"])), str(reply.get("message", "")))
    return reply


def _answer(connection: socket.socket) -> dict[str, object]:
    received = b""
    while part := connection.recv(REPLY_BYTES_MAX):
        received += part
        if len(received) > REPLY_BYTES_MAX:
            break
    reply = _unpacked(received)
    if reply is None:
        raise NetworkError(Code.BAD_ENCODING, "What listens on the control socket is no node.")
    return reply


async def serve(
    state: Path, handler: Handler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Commands reach the handler, from this user only, until cancelled. A bad request costs its connection."""
    path = state / CONTROL
    path.unlink(missing_ok=True)  # of a node that was killed; that none runs, the state directory's lock has shown
    with reachable(state) as address, trio.socket.socket(socket.AF_UNIX) as listening:
        before = os.umask(0o177)
        try:
            await listening.bind(address)
        finally:
            os.umask(before)
        listening.listen(8)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    connection, _ = await listening.accept()
                    nursery.start_soon(_serve_one, connection, handler)
        finally:
            path.unlink(missing_ok=True)


async def _serve_one(connection: trio.socket.SocketType, handler: Handler) -> None:
    """Only reading and answering have a time limit. A command, once read, is carried out to its end: a yield cut short
    because its caller was slow would leave the node yielding for ever."""
    stream = trio.SocketStream(connection)
    async with stream:
        try:
            received: bytes | None = None
            with trio.move_on_after(ANSWER_S):
                received = await _read(stream)
            if received is None:
                return
            asked = _unpacked(received) or {}
            command, seconds = asked.get("command"), asked.get("seconds", 0)
            if command in COMMANDS and type(seconds) is int and 0 <= seconds <= PAUSE_S_MAX:
                try:
                    reply = await handler(str(command), seconds)
                except FallowError as error:
                    reply = {"code": str(error.code), "message": error.message}
            else:
                message = f"The node knows no such command; it knows {', '.join(COMMANDS)}."
                reply = {"code": str(Code.BAD_ENCODING), "message": message}
            with trio.move_on_after(ANSWER_S):
                await stream.send_all(cast(bytes, msgpack.packb(reply)))
        except trio.BrokenResourceError:
            pass  # whoever asked has gone


async def _read(stream: trio.SocketStream) -> bytes | None:
    """All that the asker sends. None if that is too much."""
    received = b""
    while part := await stream.receive_some(REQUEST_BYTES_MAX):
        received += part
        if len(received) > REQUEST_BYTES_MAX:
            return None
    return received


def _unpacked(received: bytes) -> dict[str, object] | None:
    try:
        value: object = msgpack.unpackb(received, raw=False)
    except (ValueError, msgpack.UnpackException):
        return None
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else None


@contextmanager
def reachable(state: Path, name: str = CONTROL) -> Iterator[str]:
    """An address of the socket that fits into its 107 bytes, however long the directory's path is.

    Raises `ConfigError(not_running)` without the directory.
    """
    try:
        directory = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        raise ConfigError(Code.NOT_RUNNING, f"There is no node's state directory at {state}.") from None
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)
