"""Chance as a pure function: the same number for the same seed, node and purpose, whoever asks, in whatever order.

SplitMix64's finaliser over a sum (Steele, Lea and Flood, 2014). No generator has a state, so one node's day can be told
without anybody else's. Only exact operations are used: the same bits on every machine.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Seeds: TypeAlias = NDArray[np.uint64]
Floats: TypeAlias = NDArray[np.float64]

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1


def mixed(seeds: Seeds, *salt: int) -> Seeds:
    """64 bits for each seed, others for every salt."""
    offset = 0
    for each in salt:
        offset = (offset * 0x2545F4914F6CDD1D + each + 1) & _MASK
    bits = seeds + np.uint64(((offset + 1) * _GOLDEN) & _MASK)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def lots(seeds: Seeds, *salt: int) -> Floats:
    """A number from 0 up to 1 for each seed: evenly spread."""
    return (mixed(seeds, *salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def bells(seeds: Seeds, *salt: int) -> Floats:
    """A number for each seed with mean 0 and deviation 1, never beyond 3.5: a sum of four, with nothing inexact in it."""
    total = np.zeros(len(seeds))
    for part in range(4):
        total += lots(seeds, *salt, part)
    return np.asarray((total - 2.0) * 3.0**0.5)


def seeds_of(seed: int, count: int, *salt: int) -> Seeds:
    """A seed for each of so many nodes."""
    return mixed(np.arange(count, dtype=np.uint64) + np.uint64((seed * _GOLDEN) & _MASK), *salt)
