"""What sweeps bring, kept and shown: a Parquet file, and the spread over seeds at each point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .sweeps import Value

SHOWN: Final = (
    "asked",
    "unserved",
    "lost",
    "interrupted",
    "resumed",
    "wrongly_accepted",
    "lies_caught",
    "in_class",
    "first_token_ms_p50",
    "first_token_ms_p95",
    "handover_ms_p95",
    "verification_overhead",
    "lookup_peers",
    "index_records_s",
    "node_bytes_s",
)
"""Of the figures, those of a table and of the plots."""

Rows = Sequence[Mapping[str, Value]]


def write_parquet(rows: Rows, path: Path) -> None:
    """All rows are in the file."""
    import pyarrow
    import pyarrow.parquet

    names = list(rows[0])
    pyarrow.parquet.write_table(pyarrow.table({name: [row[name] for row in rows] for name in names}), path)


def read_parquet(path: Path) -> list[dict[str, Value]]:
    """The rows of the file."""
    import pyarrow.parquet

    rows: list[dict[str, Value]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def points(rows: Rows, swept: Sequence[str]) -> dict[tuple[float, ...], list[Mapping[str, Value]]]:
    """The rows at each point of the sweep."""
    found: dict[tuple[float, ...], list[Mapping[str, Value]]] = {}
    for row in rows:
        found.setdefault(tuple(number(row[name]) for name in swept), []).append(row)
    return found


def middle(rows: Rows, name: str) -> tuple[float, float, float]:
    """A figure's median over the rows, its least and its most; not numbers, if none has it."""
    values = sorted(value for row in rows if not math.isnan(value := number(row[name])))
    if not values:
        return math.nan, math.nan, math.nan
    return values[len(values) // 2], values[0], values[-1]


def number(value: Value) -> float:
    """The value as a number; not a number, if there is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def exponent(sizes: Sequence[float], figures: Sequence[float]) -> float:
    """The power of the size with which a figure grows: the slope of a line through the logarithms, by least squares."""
    xs, ys = [math.log(each) for each in sizes], [math.log(each) for each in figures]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return above / sum((x - mean_x) ** 2 for x in xs)
