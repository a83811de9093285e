"""Distributions as a drawing that any browser shows: SVG, written here; a plotting library would be one more to install."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_ROW: Final = 34
_TOP: Final = 78
_NAMES: Final = 330
"""Room for what stands before each row."""
_WIDTH: Final = 400
_GAP: Final = 40
"""Of a panel, and between two."""
_BINS: Final = 60


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure of every row, on a logarithmic scale."""

    title: str
    values: Mapping[str, Sequence[int]]
    """By row."""
    mark: int
    """Drawn as a line: the tolerance."""

    @property
    def span(self) -> float:
        """Powers of ten from 1 to the right end."""
        return math.log10(2 * max([self.mark, 10, *(max(values, default=1) for values in self.values.values())]))

    def at(self, value: float) -> float:
        """Where a value lies, in pixels from the left end; 0 lies with 1."""
        return _WIDTH * math.log10(max(value, 1)) / self.span

    def counts(self, row: str) -> list[int]:
        """Values in each bin."""
        counts = [0] * _BINS
        for value in self.values[row]:
            counts[min(_BINS - 1, int(_BINS * self.at(value) / _WIDTH))] += 1
        return counts


def histograms(title: str, rows: Mapping[str, str], panels: Sequence[Panel]) -> str:
    """A row of bars for each kind, beside what `rows` says of it, in each of the panels. The row `honest` stands out."""
    width, height = _NAMES + len(panels) * (_WIDTH + _GAP), _TOP + _ROW * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
        '<text x="12" y="42" fill="#555">the largest of each window; the line is the tolerance</text>',
    ]
    for number, label in enumerate(rows.values()):
        y = _base(number) - 6
        parts.append(f'<text x="{_NAMES - 10}" y="{y}" text-anchor="end">{escape(label)}</text>')
    for number, panel in enumerate(panels):
        parts += _panel(panel, list(rows), _NAMES + number * (_WIDTH + _GAP))
    return "\n".join([*parts, "</svg>\n"])


def _base(number: int) -> int:
    """On what a row's bars stand."""
    return _TOP + _ROW * (number + 1) - 8


def _panel(panel: Panel, rows: Sequence[str], left: int) -> Iterator[str]:
    bottom, mark = _TOP + _ROW * len(rows), left + panel.at(panel.mark)
    yield f'<text x="{left}" y="{_TOP - 16}" fill="#555">{escape(panel.title)}</text>'
    for number, row in enumerate(rows):
        yield from _bars(panel.counts(row), left, _base(number), "#2a7" if row == "honest" else "#47a")
    yield f'<line x1="{mark:.1f}" y1="{_TOP - 8}" x2="{mark:.1f}" y2="{bottom}" stroke="#c00" stroke-width="1.5"/>'
    for power in range(math.ceil(panel.span)):
        x = left + panel.at(10**power)
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">1e{power}</text>'


def _bars(counts: Sequence[int], left: int, base: int, fill: str) -> Iterator[str]:
    most, step = max(counts), _WIDTH / _BINS
    yield f'<line x1="{left}" y1="{base}" x2="{left + _WIDTH}" y2="{base}" stroke="#ddd"/>'
    for place, count in enumerate(counts):
        if count:
            high = max(1.5, (_ROW - 12) * count / most)
            x, y = left + place * step, base - high
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{step:.1f}" height="{high:.1f}" fill="{fill}"/>'
