"""Chance for one purpose of one simulation: a generator whose numbers depend on the seed and the purpose alone."""

from __future__ import annotations

from random import Random


def chance_for(seed: int, *purpose: str | int) -> Random:
    """The same for the same seed and purpose, whatever else is drawn: a text seeds by its hash, SHA-512."""
    return Random(" ".join(map(str, (seed, *purpose))))
