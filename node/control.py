"""The owner's commands to a running node: HTTP on a Unix socket in its state directory, for its user alone.

    GET  /status, /why, /page, /metrics
    POST /drive, /park, /resume, /opt-out, /opt-in, /pause    {"seconds": 7200}

JSON both ways (`/metrics`: text); each command answers with the status that follows. What is refused comes with `code`,
`message` and `advice`.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import trio

from ..protocol.errors import Code, ConfigError, FallowError, NetworkError, Refused
from . import http as local
from .wish import PAUSE_S_MAX

CONTROL = "control.sock"
STATUS, WHY, PAGE, DRIVE, PARK = "status", "why", "page", "drive", "park"
PAUSE, RESUME, OPT_OUT, OPT_IN = "pause", "resume", "opt-out", "opt-in"
QUESTIONS = (STATUS, WHY, PAGE)
COMMANDS = (DRIVE, PARK, PAUSE, RESUME, OPT_OUT, OPT_IN)
METRICS = "metrics"
REPLY_BYTES_MAX: Final = 256 * 1024
ANSWER_S: Final = 10.0
"""A yield ends within 2 s; the rest is a busy machine."""

Reply: TypeAlias = Mapping[str, str | int | list[str]]
Answer: TypeAlias = Callable[[str, int], Awaitable[Reply]]
"""Of a question or command and, for `PAUSE`, its seconds."""


def request(state: Path, command: str, seconds: int = 0) -> dict[str, object]:
    """The running node's answer to a question or a command; `seconds` are for `PAUSE`.

    Raises `ConfigError(not_running)`, or the node's own error.
    """
    method = "GET" if command in QUESTIONS else "POST"
    body = json.dumps({"seconds": seconds}).encode() if command == PAUSE else None
    headers = {"Content-Type": local.JSON} if body else {}
    with reachable(state) as address:
        connection = _Connection(address)
        try:
            connection.request(method, f"/{command}", body, headers)
            response = connection.getresponse()
            status, received = response.status, response.read(REPLY_BYTES_MAX + 1)
        except TimeoutError:
            raise NetworkError(Code.TIMED_OUT, f"The node in {state} did not answer in {ANSWER_S:g} s.") from None
        except OSError:
            raise ConfigError(Code.NOT_RUNNING, f"No node is running in {state}.") from None
        except http.client.HTTPException:
            status, received = 0, b""
        finally:
            connection.close()
    return _reply(status, received)


class _Connection(http.client.HTTPConnection):
    """To the Unix socket at an address."""

    def __init__(self, address: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self._address)


def _reply(status: int, received: bytes) -> dict[str, object]:
    try:
        reply = json.loads(received) if len(received) <= REPLY_BYTES_MAX else None
        if isinstance(reply, dict) and status >= 400:
            raise ConfigError(Code(str(reply["code"])), str(reply["message"]))
    except (ValueError, KeyError, RecursionError):
        reply = None
    if not isinstance(reply, dict) or status != 200:
        raise NetworkError(Code.BAD_ENCODING, "What listens on the control socket is no node.")
    return reply


async def serve(
    state: Path,
    answer: Answer,
    metrics: Callable[[], bytes] = lambda: b"",
    failed: local.Failed = lambda why: None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Commands are carried out, of this user only, until cancelled. A bad request costs its connection."""
    path = state / CONTROL
    path.unlink(missing_ok=True)  # of a node that was killed; that none runs, the state directory's lock has shown
    with reachable(state) as address:
        listening = trio.socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            await listening.bind(address)
        finally:
            os.umask(before)
        listening.listen(8)

        async def handle(asked: local.Request) -> local.Response:
            if asked.path == f"/{METRICS}" and asked.method == "GET":
                return local.Response(200, metrics(), local.PLAIN)
            command, seconds = _command(asked)
            return local.answer(200, await carried_out(answer, command, seconds))

        try:
            await local.serve(trio.SocketListener(listening), handle, failed, task_status=task_status)
        finally:
            path.unlink(missing_ok=True)


async def carried_out(answer: Answer, command: str, seconds: int) -> Reply:
    """What the node says to it. Raises `Unanswerable` with what keeps it from obeying."""
    try:
        return await answer(command, seconds)
    except FallowError as error:
        status = 409 if isinstance(error, ConfigError | Refused) else 500
        raise local.Unanswerable(status, error.code, error.message) from None


def pause_s(seconds: object) -> int:
    """The seconds, if they are a pause's. Raises `Unanswerable`."""
    if type(seconds) is not int or not 0 < seconds <= PAUSE_S_MAX:
        problem = f"A pause has `seconds`, a whole number from 1 to {PAUSE_S_MAX}."
        raise local.Unanswerable(400, Code.BAD_REQUEST, problem)
    return seconds


def _command(asked: local.Request) -> tuple[str, int]:
    """What is asked for, and the seconds of a pause. Raises `Unanswerable`."""
    command = asked.path.removeprefix("/")
    if command not in (*QUESTIONS, *COMMANDS, METRICS):
        known = ", ".join((*QUESTIONS, METRICS, *COMMANDS))
        raise local.Unanswerable(404, Code.BAD_REQUEST, f"The node knows no such command; it knows {known}.")
    method = "POST" if command in COMMANDS else "GET"
    if asked.method != method:
        raise local.Unanswerable(405, Code.BAD_REQUEST, f"/{command} is asked by {method}.", (("Allow", method),))
    given = _object(asked.body)
    if set(given) - ({"seconds"} if command == PAUSE else set()) or asked.query:
        raise local.Unanswerable(400, Code.BAD_REQUEST, f"/{command} takes nothing of what it was given.")
    return command, pause_s(given.get("seconds")) if command == PAUSE else 0


def _object(body: bytes) -> dict[str, object]:
    """The body's JSON object; an empty one if there is no body. Raises `Unanswerable`."""
    try:
        value: object = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise local.Unanswerable(400, Code.BAD_REQUEST, "The body is no JSON object.")
    return value


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
