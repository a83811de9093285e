"""What was measured, in rows of Markdown: each beside the aim that it meets or misses."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def head(*columns: str) -> None:
    """A table begins; without columns one of `row`s."""
    columns = columns or ("what", "measured", "aim")
    cells(*columns)
    cells(*["---"] * len(columns), gap="")


def row(what: str, measured: str, aim: str = "", met: bool = True) -> None:
    """One row of the common table."""
    cells(what, measured, aim if met else f"{aim}: **missed**")


def cells(*texts: str, gap: str = " ") -> None:
    """One row of any table. Shown at once, since the next may take minutes."""
    print("|" + "|".join(f"{gap}{text}{gap}" for text in texts) + "|", flush=True)


def ms(samples: Sequence[float]) -> str:
    """Seconds as a median in milliseconds, with the least and the most where there are several."""
    return f"{1e3 * median(samples):.0f} ms{_range([1e3 * sample for sample in samples])}"


def s(samples: Sequence[float]) -> str:
    """The same in seconds."""
    return f"{median(samples):.2f} s{_range(samples, 2)}"


def per_s(rates: Sequence[float], unit: str = "tokens/s") -> str:
    """The same of rates."""
    return f"{median(rates):.1f} {unit}{_range(rates, 1)}"


def _range(samples: Sequence[float], digits: int = 0) -> str:
    if len(samples) < 2:
        return ""
    return f" (median of {len(samples)}: {min(samples):.{digits}f} to {max(samples):.{digits}f})"
