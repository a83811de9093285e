"""Whether two results of the same work agree, and if not, in what: the words go into the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from ..protocol.bundle import Tolerance
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


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a function's output, with their lengths."""

    rows: tuple[tuple[float, ...], ...]
    norms: tuple[float, ...]


def rows_of(piece: Piece) -> Rows | None:
    """The output of a `call` as rows of numbers; None if its bytes are not what its shape says or it has no direction."""
    if len(piece.shape) != 2 or not all(piece.shape) or len(piece.tensor) != 4 * piece.shape[0] * piece.shape[1]:
        return None
    flat, width = memoryview(piece.tensor).cast("f").tolist(), piece.shape[1]
    rows = tuple(tuple(flat[start : start + width]) for start in range(0, len(flat), width))
    norms = tuple(sqrt(sum(x * x for x in row)) for row in rows)
    return Rows(rows, norms) if all(0 < norm < float("inf") for norm in norms) else None


def distance_ppm(one: Rows, other: Rows) -> int | None:
    """The largest 1 - cosine over the rows, in millionths, with the rows' lengths taken as part; None if the shapes differ."""
    if len(one.rows) != len(other.rows) or len(one.rows[0]) != len(other.rows[0]):
        return None
    worst = 0.0
    for a, norm_a, b, norm_b in zip(one.rows, one.norms, other.rows, other.norms, strict=True):
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / (norm_a * norm_b)
        stretch = abs(norm_a - norm_b) / max(norm_a, norm_b)
        worst = max(worst, 1.0 - cosine, stretch)
    return round(worst * 1_000_000)
