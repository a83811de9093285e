"""The C library's heap, as far as a worker has a say in it."""

from __future__ import annotations

import ctypes


def trim() -> None:
    """What the heap holds free is the system's again, where the C library is glibc; elsewhere nothing happens.

    glibc keeps what threads have freed, up to the states of a whole batch. Giving it back takes some 10 ms,
    and what is allocated next is paged in anew.
    """
    if malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        malloc_trim(0)
