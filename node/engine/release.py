"""A killed worker's memory, taken apart by the daemon: process_mrelease(2), Linux 5.15.

By itself a process frees its memory in its own last moments, and at its own priority: a worker is nice, and beside busy
neighbours its gigabyte would go as slowly as it had worked. Whoever calls this does that work instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from typing import Final

import trio

PROCESS_MRELEASE: Final = 448
"""The number is one and the same on every architecture."""
TRIES_MAX: Final = 20
TRY_S: Final = 0.002
"""The kernel says to try again while the process changes its memory itself: a few steps of a scheduler."""


def release_soon(handle: int) -> None:
    """The memory of the process with this pidfd, which has got SIGKILL, goes at once, in a thread."""
    try:
        own = os.dup(handle)
    except OSError:  # no descriptor is left: the kernel frees it later
        return
    trio.lowlevel.start_thread_soon(lambda: _release(own), lambda _: None, name="release")


def release(handle: int) -> bool:
    """Whether the memory of the dying process with this pidfd was freed here. Not if it has freed it by itself already."""
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(TRIES_MAX):
        if libc.syscall(PROCESS_MRELEASE, handle, 0) == 0:
            return True
        if ctypes.get_errno() != errno.EAGAIN:
            return False
        time.sleep(TRY_S)
    return False


def _release(handle: int) -> None:
    try:
        release(handle)
    finally:
        os.close(handle)
