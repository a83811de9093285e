"""What is left of sequences that have ended: a conversation's next turn, or a text's next window, need not read it all again.

Each client finds its own only: how quickly an answer begins would tell one what another has asked.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from .programs import State
from .sequences import copied

LEAST_TOKENS: Final = 16
"""Shorter beginnings are quicker read again than looked after."""

PREFIXES_MAX: Final = 256
"""Of one model: each of a client's prompts is compared with all of its own, and states may be of any size, or of none."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The state after some tokens."""

    tokens: tuple[int, ...]
    state: State
    context: int

    @property
    def length_bytes(self) -> int:
        """Of the state."""
        return sum(array.nbytes for array in self.state)


class Prefixes:
    """Ended sequences of one model, the least recently used forgotten first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.length_bytes = 0
        """Of all that is kept."""
        self._kept: OrderedDict[tuple[bytes, tuple[int, ...]], Prefix] = OrderedDict()

    def keep(self, client: bytes, prefix: Prefix) -> None:
        """It can be found by this client, unless it alone is more than there is room for."""
        if len(prefix.tokens) < LEAST_TOKENS or prefix.length_bytes > self._bytes_max:
            return
        self._forget(client, prefix.tokens)
        self._kept[client, prefix.tokens] = prefix
        self.length_bytes += prefix.length_bytes
        while self.length_bytes > self._bytes_max or len(self._kept) > PREFIXES_MAX:
            self._forget(*next(iter(self._kept)))

    def find(self, client: bytes, tokens: tuple[int, ...]) -> tuple[int, Prefix] | None:
        """How many of `tokens` are there already, and in whose state: the caller's, to use up. None if too few are.

        A state that goes on where it ended is handed over; one that is needed at an earlier place is copied and kept.
        """
        own = (prefix for (owner, _), prefix in self._kept.items() if owner == client)
        common, best = max(((_common(p.tokens, tokens), p) for p in own), key=lambda pair: pair[0], default=(0, None))
        if best is None or common < LEAST_TOKENS:
            return None
        if common == len(best.tokens):
            self._forget(client, best.tokens)
            return common, best
        self._kept.move_to_end((client, best.tokens))
        return common, Prefix(best.tokens, copied(best.state), best.context)

    def _forget(self, client: bytes, tokens: tuple[int, ...]) -> None:
        if prefix := self._kept.pop((client, tokens), None):
            self.length_bytes -= prefix.length_bytes


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many first tokens they share."""
    shorter = min(len(a), len(b))
    return next((index for index in range(shorter) if a[index] != b[index]), shorter)
