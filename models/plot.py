"""Distributions as a drawing that any browser shows: SVG, written here; a plotting library would be one more to install."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_ROW, _LEFT, _WIDTH, _TOP, _BINS = 34, 300, 640, 64, 80


def histograms(title: str, unit: str, rows: Mapping[str, Sequence[int]], mark: int) -> str:
    """One row of bars for each kind, over a logarithmic scale that they share; `mark` is drawn as a line: the tolerance."""
    top = max([mark, 10, *(max(values, default=1) for values in rows.values())])
    span = math.log10(top * 2)
    height = _TOP + _ROW * len(rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 20}" height="{height}" font-family="sans-serif"'
        ' font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="12" y="42" fill="#555">largest difference of each window, {escape(unit)}; the line is the tolerance</text>',
    ]
    for number, (name, values) in enumerate(rows.items()):
        parts += _row(name, values, _TOP + _ROW * number, span, mark)
    bottom = _TOP + _ROW * len(rows)
    x = _at(mark, span)
    parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{bottom}" stroke="#c00" stroke-width="1.5"/>')
    for power in range(math.ceil(span)):
        x = _at(10**power, span)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">1e{power}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _at(value: float, span: float) -> float:
    """Where a value lies; 0 lies with 1."""
    return _LEFT + _WIDTH * math.log10(max(value, 1)) / span


def _row(name: str, values: Sequence[int], y: int, span: float, mark: int) -> list[str]:
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int(_BINS * math.log10(max(value, 1)) / span))] += 1
    most, base, step = max([*counts, 1]), y + _ROW - 8, _WIDTH / _BINS
    above = sum(value > mark for value in values)
    parts = [
        f'<text x="{_LEFT - 10}" y="{base - 6}" text-anchor="end">{escape(name)}: {above} of {len(values)} above</text>',
        f'<line x1="{_LEFT}" y1="{base}" x2="{_LEFT + _WIDTH}" y2="{base}" stroke="#ddd"/>',
    ]
    for place, count in enumerate(counts):
        if count:
            high = max(1.5, (_ROW - 12) * count / most)
            fill = "#2a7" if name == "honest" else "#47a"
            parts.append(
                f'<rect x="{_LEFT + place * step:.1f}" y="{base - high:.1f}" width="{step:.1f}" height="{high:.1f}"'
                f' fill="{fill}"/>'
            )
    return parts
