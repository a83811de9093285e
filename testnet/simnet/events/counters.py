"""A count for each of millions of pairs, of which few occur: a hash table in two arrays, asked for many at once.

Linear probing over a power of two that is kept at most half full (Knuth, vol. 3, 6.4).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..lots import mixed

Keys = NDArray[np.int64]
Counts = NDArray[np.int32]
_EMPTY: Final = -1
_FIRST: Final = 1 << 10


class Counters:
    """Counts by key; keys are not negative, and not twice in one call."""

    def __init__(self) -> None:
        self._keys: Keys = np.full(_FIRST, _EMPTY, dtype=np.int64)
        self._counts: Counts = np.zeros(_FIRST, dtype=np.int32)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def get(self, keys: Keys, usual: Counts) -> Counts:
        """The count of each, or what is usual for those that have none."""
        if not self._used:
            return usual.copy()
        at = self._places(keys)
        return np.where(self._keys[at] == keys, self._counts[at], usual).astype(np.int32)

    def put(self, keys: Keys, counts: Counts) -> None:
        """Each has that count from now on."""
        while 2 * (self._used + len(keys)) > len(self._keys):
            self._grow()
        self._put(keys, counts)

    def _put(self, keys: Keys, counts: Counts) -> None:
        left = np.arange(len(keys))
        while len(left):
            at = self._places(keys[left])
            free = self._keys[at] == _EMPTY
            # Of several new keys that come to the same place the first one gets it; the others look again.
            _, first = np.unique(at, return_index=True)
            mine = np.zeros(len(left), dtype=np.bool_)
            mine[first] = True
            mine |= ~free
            self._keys[at[mine]] = keys[left[mine]]
            self._counts[at[mine]] = counts[left[mine]]
            self._used += int((free & mine).sum())
            left = left[~mine]

    def _places(self, keys: Keys) -> Keys:
        """Where each key is, or would be put."""
        mask = len(self._keys) - 1
        at = (mixed(keys.astype(np.uint64)) & np.uint64(mask)).astype(np.int64)
        there = self._keys[at]
        while True:
            elsewhere = (there != keys) & (there != _EMPTY)
            if not elsewhere.any():
                return at
            at[elsewhere] = (at[elsewhere] + 1) & mask
            there[elsewhere] = self._keys[at[elsewhere]]

    def _grow(self) -> None:
        old = self._keys != _EMPTY
        keys, counts = self._keys[old], self._counts[old]
        self._keys = np.full(2 * len(self._keys), _EMPTY, dtype=np.int64)
        self._counts = np.zeros(len(self._keys), dtype=np.int32)
        self._used = 0
        self._put(keys, counts)
