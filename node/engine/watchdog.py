"""A limit on how long the worker may be busy with one thing. What XLA compiles or runs cannot be interrupted: the process ends.

The worker comes after everything else on its machine. So what lasts too long by the clock is left alone until it has had as
much of the processor, too: neighbours are no fault of a bundle's. What only waits gets `PATIENCE` times as long.

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
from dataclasses import dataclass, replace
from math import inf
from typing import Final, NoReturn, TypeAlias

from .messages import Overrun, encode

Limit: TypeAlias = Callable[[str, float], AbstractContextManager[None]]
"""(what is being done, seconds) to a block that may take no longer."""

PATIENCE: Final = 6.0
"""Beside a dozen busy processes, two cores leave a run a sixth of what it gets alone."""
_CORES: Final = os.cpu_count() or 1
_TICK_S: Final = 0.01

_GRACE_S: Final = 5.0
"""What the thread gets to say its last word. After it the alarm clock ends the process without one: MLIR's readers are
native code that holds Python's lock, and no thread runs beside them."""


@dataclass(frozen=True, slots=True)
class _Busy:
    bundle: bytes
    doing: str
    seconds: float
    until: float
    """By the clock: when to look."""
    late: float
    """When it is too late, whatever it has had."""
    processor_s: float
    """What this process had had when it began."""


class Watchdog:
    """Holds one limit at a time. Owns this process's alarm clock (SIGALRM)."""

    def __init__(self, control: socket.socket, *, patience: float = PATIENCE) -> None:
        """`patience` is 1 where the processor does not tell: an accelerator is nobody else's meanwhile."""
        self._control = control
        self._patience = patience
        self._changed = threading.Condition()
        self._busy: _Busy | None = None
        self._wakes = inf
        _end_at_the_alarm()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def limit(self, bundle: bytes, doing: str, seconds: float) -> Iterator[None]:
        """The block ends within so many seconds of the processor and of the clock, or the process does. Nothing may be sent to
        the daemon inside of it."""
        late_s = self._patience * seconds
        signal.setitimer(signal.ITIMER_REAL, late_s + _GRACE_S)
        with self._changed:
            now = time.monotonic()
            self._busy = _Busy(bundle, doing, seconds, now + seconds, now + late_s, time.process_time())
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
                    self._busy = self._postponed(self._busy, now)
                self._wakes = self._busy.until if self._busy else inf
                self._changed.wait(None if self._wakes == inf else self._wakes - now)

    def _postponed(self, busy: _Busy, now: float) -> _Busy:
        """It is looked at again when it can have had all that it may, with every core to itself. Ends the process if it has."""
        left_s = busy.seconds - (time.process_time() - busy.processor_s)
        if left_s <= 0 or now >= busy.late:
            self._end(busy)
        return replace(busy, until=min(busy.late, now + max(_TICK_S, left_s / _CORES)))

    def _end(self, busy: _Busy) -> NoReturn:
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
