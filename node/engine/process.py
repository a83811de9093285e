"""One worker process and its control socket: started, heard, killed, reaped."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from ...protocol.errors import Code, EngineError
from .messages import FrameBuffer, Message, encode

REAP_S_MAX: Final = 10.0
"""A killed worker is gone in 0.15 s, most of it freeing memory; one that the kernel holds much longer is left to it."""

_OUTGOING_MAX: Final = 256
"""Messages that wait for a worker which does not read them; at this it is killed. Credit comes four times a window."""

_READ_BYTES: Final = 256 * 1024
_LAST_WORDS_BYTES: Final = 4096


class WorkerProcess:
    """A worker that has been started. Iterate it for its messages, until its end of the socket closes.

    Raises `EngineError(worker_failed)` if it cannot be started at all.

    It is spawned by plain `Popen` from the caller's thread: a parent-death signal, which sandboxes set, follows the
    spawning *thread*, and trio's own spawning uses one that ends after ten seconds. It has a session of its own, so
    that a terminal's Ctrl-C does not reach it, and leaves by itself when the socket closes.
    """

    def __init__(self, command: Sequence[str], log_path: Path) -> None:
        self._log_path = log_path
        ours, theirs = socket.socketpair()
        try:
            with theirs, log_path.open("ab") as log:
                self._popen = subprocess.Popen(
                    [*command, "--control-fd", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise EngineError(Code.WORKER_FAILED, f"The worker cannot be started: {error}") from None
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._frames = FrameBuffer()
        self._messages: list[Message] = []
        self._outgoing, self._to_write = trio.open_memory_channel[Message](_OUTGOING_MAX)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, message: Message) -> None:
        """The message goes out as soon as the worker reads; a worker that has long not read is killed instead."""
        try:
            self._outgoing.send_nowait(message)
        except trio.WouldBlock:
            self.kill()

    async def write(self) -> None:
        """Passes on what `send` was given, until cancelled or the worker has gone."""
        with suppress(trio.BrokenResourceError):
            async for message in self._to_write:
                await self._stream.send_all(encode(message))

    def __aiter__(self) -> WorkerProcess:
        return self

    async def __anext__(self) -> Message:
        """The next message. Raises `RemoteProtocolError` for what is none."""
        while not self._messages:
            try:
                received = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:  # reset: it died with something of ours unread
                received = b""
            if not received:
                raise StopAsyncIteration
            self._messages = list(self._frames.feed_untrusted(received))
        return self._messages.pop(0)

    def kill(self) -> None:
        """The worker has got SIGKILL, or is gone already."""
        self._popen.kill()

    async def kill_and_reap(self) -> None:
        """The process is gone and its socket is closed, even if the caller is being cancelled."""
        self.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_S_MAX):
            await self.exit_code()

    async def exit_code(self) -> int:
        """Closes the socket, on which a worker leaves by itself, and waits for that."""
        await self._stream.aclose()
        if self._popen.poll() is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        return self._popen.wait()

    def last_words(self) -> str:
        """The last line of the log, for a person who has to find out why the worker ended."""
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - _LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
        return f"The last line of {self._log_path}: {last[:300]}"
