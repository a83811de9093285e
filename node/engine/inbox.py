"""What the daemon sends, read by a thread of its own, so that its going is noticed in the middle of a long run."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from typing import Final

from ...protocol.errors import RemoteProtocolError
from .messages import Begin, FrameBuffer, Message

_INBOX_MAX: Final = 1024
"""Messages read but not yet acted upon; the daemon bounds jobs and credit far below."""


class Inbox:
    """What has come. The process ends when the socket does."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._messages: queue.Queue[Message] = queue.Queue(_INBOX_MAX)
        self._any = threading.Event()
        threading.Thread(target=self._read, name="control", daemon=True).start()

    def first(self) -> Begin:
        """Waits until the daemon says so. Does not return if it says something else."""
        message = self._messages.get()
        if not isinstance(message, Begin):
            raise SystemExit(f"{type(message).__name__} came before `Begin`")
        return message

    def wait(self, seconds: float) -> None:
        """Returns as soon as something is there, at the latest after so many seconds."""
        until = time.monotonic() + seconds
        while self.empty and (left := until - time.monotonic()) > 0:
            self._any.wait(left)
            self._any.clear()

    @property
    def empty(self) -> bool:
        """Whether nothing is there that was not taken."""
        return self._messages.empty()

    def take(self, *, wait: bool) -> list[Message]:
        """Everything that has come; with `wait` at least one message."""
        taken = [self._messages.get()] if wait else []
        while not self._messages.empty():
            taken.append(self._messages.get())
        return taken

    def _read(self) -> None:
        frames = FrameBuffer()
        try:
            while received := self._control.recv(256 * 1024):
                for message in frames.feed_untrusted(received):
                    self._messages.put_nowait(message)
                    self._any.set()
        except (OSError, queue.Full, RemoteProtocolError) as error:
            os.write(2, f"The control socket failed: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)  # the daemon has gone or wants us gone; nothing here is worth unwinding
