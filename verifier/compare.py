"""Whether two results of the same work agree, and if not, in what: the words go into the verdict.

All of it in whole numbers: whoever recomputes a verdict, in whatever language, comes to the same.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import isfinite

from ..protocol.bundle import Tolerance
from ..protocol.distance import Rows, distance, exact
from ..protocol.work import Piece


def values_disagreement(one: Sequence[int], other: Sequence[int], tolerance: Tolerance) -> str | None:
    """Why two lists of proof values (micro-nats, token by token) cannot both be honest, or None."""
    if len(one) != len(other):
        return f"{len(other)} proof values instead of {len(one)}"
    worst = max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0)
    if worst > tolerance.value_micro:
        return f"log-probabilities differ by {worst} micro-nats (at most {tolerance.value_micro})"
    return None


def choice_disagreement(
    gaps_micro: Sequence[int], masses_ppm: Sequence[int], top_p_ppm: int, tolerance: Tolerance
) -> str | None:
    """Why the claimed tokens are not what the sampling gives, by a checker's figures for each of them, or None."""
    if (gap := max(gaps_micro, default=0)) > tolerance.gap_micro:
        return f"a token lies {gap} micro-nats below the best (at most {tolerance.gap_micro})"
    if (mass := max(masses_ppm, default=0)) > top_p_ppm + tolerance.mass_ppm:
        return f"a token lies outside the nucleus, behind {mass} ppm of the mass"
    return None


def beyond(masses_ppm: Sequence[int], top_p_ppm: int) -> tuple[int, ...]:
    """By how much each token lies outside of the nucleus: what is judged of a mass. Inside, two honest runs that rank equals
    otherwise may be as far apart as these are likely."""
    return tuple(max(0, mass - top_p_ppm) for mass in masses_ppm)


def figures_apart(name: str, one: Sequence[int], other: Sequence[int], most: int) -> str | None:
    """Why two lists of figures about the same tokens cannot both be honest, or None."""
    if len(one) != len(other):
        return f"{len(other)} {name} instead of {len(one)}"
    worst = max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0)
    return f"{name} differ by {worst} (at most {most})" if worst > most else None


def refutes(claimed: Sequence[int], found: Piece, top_p_ppm: int, tolerance: Tolerance) -> str | None:
    """Why a checker's figures for a window cannot be those of an honest executor that claims these values, or None."""
    return values_disagreement(claimed, found.values_micro, tolerance) or choice_disagreement(
        found.gaps_micro, found.masses_ppm, top_p_ppm, tolerance
    )


def numbers_of(piece: Piece) -> tuple[tuple[float, ...], ...] | None:
    """The output of a `call`, row by row; None if its bytes are not finite numbers of the shape that it names."""
    if len(piece.shape) != 2 or not all(piece.shape) or len(piece.tensor) != 4 * piece.shape[0] * piece.shape[1]:
        return None
    flat, width = struct.unpack(f"<{len(piece.tensor) // 4}f", piece.tensor), piece.shape[1]
    if not all(map(isfinite, flat)):
        return None
    return tuple(flat[start : start + width] for start in range(0, len(flat), width))


def rows_of(piece: Piece) -> Rows | None:
    """The output of a `call` as it is compared; None if it is no array of numbers."""
    numbers = numbers_of(piece)
    return exact(numbers) if numbers else None


def same_arrays(one: Piece, other: Piece, tolerance: Tolerance) -> bool:
    """Whether two outputs of the same `call` agree."""
    a, b = rows_of(one), rows_of(other)
    apart = distance(a, b) if a and b else None
    return apart is not None and apart <= tolerance.value_micro


def alike(one: Piece, other: Piece, tolerance: Tolerance) -> bool:
    """Whether two results of the same work agree: of a call by their arrays, of a check by their proof values."""
    if one.values_micro and other.values_micro:
        return values_disagreement(one.values_micro, other.values_micro, tolerance) is None
    return same_arrays(one, other, tolerance)
