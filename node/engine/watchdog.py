"""A limit on how long the worker may be busy with one thing. What XLA compiles or runs cannot be interrupted: the process ends.

Its last word names the bundle, so that the daemon leaves that one out and serves the others with a new worker.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Final, TypeAlias

from .messages import Overrun, encode

Limit: TypeAlias = Callable[[str, float], AbstractContextManager[None]]
"""(what is being done, seconds) to a block that may take no longer."""

_GRACE_S: Final = 5.0
"""What the thread gets to say its last word. After it the alarm clock ends the process without one: MLIR's readers are
native code that holds Python's lock, and no thread runs beside them."""


@dataclass(frozen=True, slots=True)
class _Busy:
    bundle: bytes
    doing: str
    seconds: float
    until: float


class Watchdog:
    """Holds one limit at a time. Owns this process's alarm clock (SIGALRM)."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._changed = threading.Condition()
        self._busy: _Busy | None = None
        self._wakes = inf
        _end_at_the_alarm()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def limit(self, bundle: bytes, doing: str, seconds: float) -> Iterator[None]:
        """The block ends within so many seconds, or the process does. Nothing may be sent to the daemon inside of it."""
        signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_S)
        with self._changed:
            self._busy = _Busy(bundle, doing, seconds, time.monotonic() + seconds)
            if self._busy.until < self._wakes:  # else it wakes early enough by itself: most limits cost no switch
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._busy = None
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._busy and self._busy.until <= now:
                    self._end(self._busy)
                self._wakes = self._busy.until if self._busy else inf
                self._changed.wait(None if self._wakes == inf else self._wakes - now)

    def _end(self, busy: _Busy) -> None:
        """Holds the lock, so that the block cannot end meanwhile and send something in the middle of this."""
        why = f"{busy.doing} took longer than the {busy.seconds:.1f} s that it may"
        self._control.sendall(encode(Overrun(busy.bundle, why)))
        os._exit(1)


def _end_at_the_alarm() -> None:
    """SIGALRM ends this process. By `_exit` as its handler, native code that waits for no lock: what the kernel would do
    by itself, it does not do to the first process of a namespace, which a worker in a sandbox is."""
    libc = ctypes.CDLL(None)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGALRM, ctypes.cast(libc._exit, ctypes.c_void_p))
