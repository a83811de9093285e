"""How much of what all peers of one host have sent may wait to be read, and whose goes when it is too much.

Bounds for each peer alone do not bound a host: keys are free. Nor does it help to cut off whoever holds most at a moment,
since that is whoever works fastest. What counts is bytes times the time for which nobody has read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

SHED_TO: Final = 0.75
"""Of the bound, so that a full host does not look for the next one at every frame."""

TIGHT: Final = 0.5
"""Of the bound: beyond it nobody gets more credit than he has."""

FRESH_S: Final = 0.1
"""Added to every wait: of bytes that have just come, the most go first."""


class Holder(Protocol):
    """A stream on which something waits."""

    held_bytes: int
    read_at: float
    """When somebody has last read of it."""

    def shed(self) -> None:
        """What waits was dropped, and the stream with it."""


class Memory:
    """What waits on all streams of one host."""

    def __init__(self, bytes_max: int, clock: Callable[[], float]) -> None:
        self.held_bytes = 0
        self._bytes_max = bytes_max
        self._clock = clock
        self._holders: set[Holder] = set()

    @property
    def tight(self) -> bool:
        """Whether nobody should be let send more at once than before."""
        return self.held_bytes > TIGHT * self._bytes_max

    def hold(self, holder: Holder, length: int) -> None:
        """So many bytes more wait on the stream, or fewer; if that is too much on all together, some are shed."""
        holder.held_bytes += length
        self.held_bytes += length
        if holder.held_bytes:
            self._holders.add(holder)
        else:
            self._holders.discard(holder)
        if length > 0 and self.held_bytes > self._bytes_max:
            self._shed()

    def _shed(self) -> None:
        now = self._clock()
        waits = {each: each.held_bytes * (now - each.read_at + FRESH_S) for each in self._holders}
        for holder in sorted(waits, key=waits.__getitem__, reverse=True):
            if self.held_bytes <= SHED_TO * self._bytes_max:
                return
            holder.shed()
