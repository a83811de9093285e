"""Shared memory between daemon and worker: what is large in a message lies here, sealed, and the message says how long it is.

Each job has two areas of its own, one for its input and one for a piece of its answer. Over the socket a megabyte would be
packed, copied and unpacked in 4 ms; here it is copied once on each side. Pages that nobody has written take no memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final

from ...protocol.errors import Code, RemoteProtocolError
from ...protocol.limits import MESSAGE_BYTES_MAX

LEAST_BYTES: Final = 64 * 1024
"""What is shorter goes with its message: up to here both ways take the same time."""


class Areas:
    """The areas of `jobs` jobs, of `MESSAGE_BYTES_MAX` each way."""

    def __init__(self, descriptor: int, jobs: int) -> None:
        self._jobs = jobs
        self._memory = mmap.mmap(descriptor, 2 * jobs * MESSAGE_BYTES_MAX)

    def close(self) -> None:
        """It is not used any more."""
        self._memory.close()

    def put(self, area: int, content: bytes, *, answer: bool) -> int:
        """The content lies in the job's area, if it is long enough for that; returns its length there, else 0."""
        if len(content) < LEAST_BYTES:
            return 0
        begin = self._begin(area, answer=answer)
        self._memory[begin : begin + len(content)] = content
        return len(content)

    def take_untrusted(self, area: int, length_bytes: int, *, answer: bool) -> bytes:
        """What lies there, copied: whoever wrote it may go on writing. Raises `RemoteProtocolError` if it is too long."""
        if length_bytes > MESSAGE_BYTES_MAX:
            raise RemoteProtocolError(Code.TOO_LARGE, f"{length_bytes} bytes are said to lie in an area of memory.")
        begin = self._begin(area, answer=answer)
        return self._memory[begin : begin + length_bytes]

    def _begin(self, area: int, *, answer: bool) -> int:
        return (2 * (area % self._jobs) + answer) * MESSAGE_BYTES_MAX


def descriptor(jobs: int) -> int:
    """Memory for the areas of so many jobs, with no name that anybody could open.

    Its size is sealed: a worker that made it shorter would end the daemon at its next look (SIGBUS). Raises `OSError`.
    """
    made = os.memfd_create("fallow-areas", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(made, 2 * jobs * MESSAGE_BYTES_MAX)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(made)
        raise
    return made
