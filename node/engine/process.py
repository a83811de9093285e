"""One worker process and its control socket: started, heard, killed, reaped."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

import trio

from ...protocol.errors import Code, EngineError
from . import areas, release
from .cgroup import Group
from .ended import status_in_words
from .messages import Begin, FrameBuffer, Message, encode
from .priority import come_last
from .sandbox import Box, environment
from .worker_log import WorkerLog

REAP_S_MAX: Final = 10.0
"""A killed worker is gone in 0.15 s, most of it freeing memory; one that the kernel holds much longer is left to it."""

BOX_S_MAX: Final = 1.0
"""A box ends within a millisecond of its worker, which it has reaped by then. Killed before that, it would leave a zombie to
whatever reaps this machine's orphans, and nobody would know how the worker ended."""

LEAVE_S_MAX: Final = 5.0
"""From the end of its socket to its own: a Python that leaves in order closes files first, and may take half a second."""

_OUTGOING_MAX: Final = 256
"""Messages that wait for a worker which does not read them; at this it is killed. Credit comes four times a window."""

_READ_BYTES: Final = 256 * 1024

_NAMED_S_MAX: Final = 2.0
"""bubblewrap names its child within 10 ms; a kill that comes sooner waits for that, so as to reach the worker itself."""


class WorkerProcess:
    """A worker that has been started. Iterate it for its messages, until its end of the socket closes.

    Raises `EngineError(worker_failed)` if it cannot be started at all.

    It is spawned by plain `Popen` from the caller's thread: a parent-death signal, which sandboxes set, follows the
    spawning *thread*, and trio's own spawning uses one that ends after ten seconds. It has a session of its own, so
    that a terminal's Ctrl-C does not reach it, and leaves by itself when the socket closes. Should we be killed, the
    kernel kills it, even if it is stopped.

    In a `box`, bubblewrap stands between: it is our child, and ends after the worker. A kill goes past it to the
    worker, since the memory is free when that one has gone.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        box: Box | None = None,
        bundles: tuple[bytes, ...] = (),
        max_jobs: int = 4,
        group: Group | None = None,
    ) -> None:
        self._group = group
        self.log = WorkerLog(log_path)
        self.bundles = bundles
        """What it was started to serve, in the order in which it loads them."""
        self.started_s = trio.current_time()
        """In trio's time."""
        self.boxed = box is not None
        """Whether it was started in a sandbox."""
        try:
            shared = areas.descriptor(max_jobs)
        except OSError as error:  # no memory or no descriptor left, or a limit on the size of files
            if group:
                group.remove()
            raise EngineError(Code.WORKER_FAILED, f"There is no memory to share with a worker: {error}") from None
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        self.areas = areas.Areas(shared, max_jobs)
        """Where what is large in messages lies."""
        words = [*command, "--max-jobs", str(max_jobs), "--control-fd", str(theirs.fileno()), "--areas-fd", str(shared)]
        try:
            with theirs, os.fdopen(write_end, "wb"), self.log.open() as log:
                self._popen = subprocess.Popen(
                    box.wrap(words, write_end) if box else words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(),
                    pass_fds=[theirs.fileno(), write_end, shared],
                    start_new_session=True,
                )
            come_last(self._popen.pid)  # it imports for seconds before it can see to that itself
        except OSError as error:
            ours.close()
            os.close(read_end)
            if group:
                group.remove()
            raise EngineError(Code.WORKER_FAILED, f"The worker cannot be started: {error}") from None
        finally:
            os.close(shared)
        self._named: FileIO | None = FileIO(read_end)
        """Where bubblewrap names its child, until that has been read."""
        self._pid = self._popen.pid
        self._handle: int | None = os.pidfd_open(self._popen.pid)
        """What a kill goes to: a pidfd, which never means another process that has got the same number."""
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._frames = FrameBuffer()
        self._messages: Iterator[Message] = iter(())
        self._outgoing, self._to_write = trio.open_memory_channel[Message](_OUTGOING_MAX)
        self._killed = False
        self._deaf = False
        """Whether it was killed because it did not read."""

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    @property
    def bounded(self) -> bool:
        """Whether its memory is bounded from outside."""
        return self._group is not None and self._group.holds

    @property
    def pid(self) -> int:
        """The worker's own; that of its box, if no worker came of it."""
        self._find_worker()
        return self._pid

    def send(self, message: Message) -> None:
        """The message goes out as soon as the worker reads; a worker that has long not read is killed instead."""
        try:
            self._outgoing.send_nowait(message)
        except trio.WouldBlock:
            self._deaf = True
            self.kill()

    async def begin(self, message: Begin) -> None:
        """The worker, which has only imported its libraries so far, begins, in its group; one that has died says so when it is
        heard."""
        if self._group:
            self._group.take(self.pid)
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(encode(message))

    async def write(self) -> None:
        """Passes on what `send` was given, until cancelled or the worker has gone."""
        with suppress(trio.BrokenResourceError):
            async for message in self._to_write:
                await self._stream.send_all(encode(message))

    def __aiter__(self) -> WorkerProcess:
        return self

    async def __anext__(self) -> Message:
        """The next message. Raises `RemoteProtocolError` for what is none.

        Others have their turn before each: thousands of small ones fit into one read, and a worker may send them without end.
        """
        await trio.lowlevel.checkpoint()
        while (message := next(self._messages, None)) is None:
            try:
                received = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:  # reset: it died with something of ours unread
                received = b""
            if not received:
                raise StopAsyncIteration
            self._find_worker()
            self._messages = self._frames.feed_untrusted(received)
        return message

    def kill(self) -> None:
        """The worker has got SIGKILL, or is gone already. Its memory goes meanwhile, in a thread."""
        if self._handle is not None:
            self._find_worker()
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            if self._group:
                self._group.kill()
            if not self._killed:
                self._killed = True
                release.release_soon(self._handle)

    async def how_it_ended(self) -> str:
        """In one sentence, once its end of the socket has closed; one that runs on without it is killed."""
        with trio.move_on_after(LEAVE_S_MAX) as leaving:
            await self._gone()
        if leaving.cancelled_caught:
            self.kill()
            return "The worker closed its socket and ran on, and was killed."
        if self._deaf:
            return f"The worker did not read what it was sent, {_OUTGOING_MAX} messages, and was killed."
        out_of_memory = self._group is not None and self._group.out_of_memory
        return status_in_words(self._popen.poll(), boxed=self.boxed, out_of_memory=out_of_memory)

    async def kill_and_reap(self) -> None:
        """The process is gone and its socket is closed, even if the caller is being cancelled."""
        self.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_S_MAX):
            await self._gone()
            self._popen.kill()  # a box that somebody has stopped would not end by itself
            await self.exit_code()

    async def exit_code(self) -> int:
        """Closes the socket, on which a worker leaves by itself, and waits for that.

        In a box, a worker that a signal ended has 128 and the signal's number, as in a shell.
        """
        await self._stream.aclose()
        await self._ended()
        self._let_go()
        self.areas.close()
        return self._popen.wait()

    async def _gone(self) -> None:
        """The worker has ended, and its box if that is not stopped."""
        self._find_worker()
        if self._handle is not None:
            await trio.lowlevel.wait_readable(self._handle)
        if self.boxed:
            with trio.move_on_after(BOX_S_MAX):
                await self._ended()

    async def _ended(self) -> None:
        """What we started, worker or box, has ended."""
        if self._popen.poll() is None:
            ended = os.pidfd_open(self._popen.pid)
            try:
                await trio.lowlevel.wait_readable(ended)
            finally:
                os.close(ended)

    def _find_worker(self) -> None:
        """`_pid` and `_handle` are the worker's own. In a box it is known a few milliseconds after the start."""
        if self._named is None or not self.boxed:
            return
        said, until = b"", time.monotonic() + _NAMED_S_MAX
        with self._named as named:
            while b"}" not in said and select.select([named], [], [], max(0.0, until - time.monotonic()))[0]:
                if not (part := named.read(4096)):
                    break
                said += part
        self._named = None
        # Until its box has ended, which is our child and not reaped, the worker's number is nobody else's.
        with suppress(ValueError, KeyError, ProcessLookupError):
            pid = json.loads(said)["child-pid"]
            handle = os.pidfd_open(pid)
            if self._handle is not None:
                os.close(self._handle)
            self._pid, self._handle = pid, handle

    def _let_go(self) -> None:
        if self._named:
            self._named.close()
            self._named = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._group:
            self._group.remove()
