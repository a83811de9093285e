"""Pictures of simulations, as PNG: what happened over a run's time, and how figures move over a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .results import SHOWN, Rows, middle, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI: Final = 72
COLOURS: Final = 128
"""With these a picture has 15 to 50 KB."""
UNITS: Final[Mapping[str, str]] = {
    "in_class": "share of jobs in their latency class",
    "first_token_ms_p50": "first token, median [ms]",
    "first_token_ms_p95": "first token, 95th percentile [ms]",
    "handover_ms_p95": "handover, 95th percentile [ms]",
    "verification_overhead": "checks, of the work's time",
    "lookup_peers": "peers that a search asks",
    "index_records_s": "busiest index node [1/s]",
    "node_bytes_s": "discovery of a node [B/s]",
    "wrongly_accepted": "wrong results accepted",
    "lies_caught": "lies caught",
}


def over_time(series: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """The run's figures over its hours are in the picture."""
    from matplotlib.figure import Figure

    t_h = series["t_h"]
    panels = [panel for panel in (_up, _jobs, _latency, _checks, _index, _serving) if panel(None, t_h, series)]
    figure = Figure(figsize=(9, 2.3 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for panel, axis in zip(panels, axes, strict=True):
        panel(axis, t_h, series)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)
    axes[0].set_title(title)
    axes[-1].set_xlabel("hours since the beginning")
    save(figure, path)


def over_sweep(rows: Rows, swept: Sequence[str], title: str, path: Path) -> None:
    """Each figure over the first setting that was swept is in the picture: its median over the seeds, its least and most.

    A second setting makes lines of its own.
    """
    from matplotlib.figure import Figure

    found = points(rows, swept)
    names = [name for name in SHOWN if any(not math.isnan(middle(each, name)[0]) for each in found.values())]
    names = [name for name in names if len({middle(each, name) for each in found.values()}) > 1] or names[:1]
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        for rest in sorted({point[1:] for point in found}):
            at = sorted(point for point in found if point[1:] == rest)
            figures = [middle(found[point], name) for point in at]
            xs = [point[0] for point in at]
            label = ", ".join(f"{key} {value:g}" for key, value in zip(swept[1:], rest, strict=True))
            axis.plot(xs, [each[0] for each in figures], marker="o", markersize=3, label=label)
            axis.fill_between(xs, [each[1] for each in figures], [each[2] for each in figures], alpha=0.2)
        if min(point[0] for point in found) > 0 and max(point[0] for point in found) >= 100 * min(p[0] for p in found):
            axis.set_xscale("log")
        axis.set_title(UNITS.get(name, name.replace("_", " ")), fontsize="small")
        axis.set_xlabel(swept[0], fontsize="small")
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize="small")
        if len(swept) > 1:
            axis.legend(fontsize="x-small")
    for axis in list(axes.flat)[len(names) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize="medium")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, dpi=DPI, format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)


Series = Mapping[str, Sequence[float]]


def _up(axis: Axes | None, t_h: Sequence[float], series: Series) -> bool:
    names = [name for name in series if name.startswith("up_")]
    if axis is None:
        return "up" in series
    axis.plot(t_h, series["up"], color="black", label="all")
    for name in names if len(names) > 1 else ():
        axis.plot(t_h, series[name], linewidth=1, label=name.removeprefix("up_"))
    axis.set_ylabel("nodes up")
    axis.set_ylim(0, 1.02)
    return True


def _jobs(axis: Axes | None, t_h: Sequence[float], series: Series) -> bool:
    if axis is None:
        return any(series.get("asked", ()))
    for name in ("asked", "interrupted", "unserved"):
        if any(series[name]):
            axis.plot(t_h, series[name], label=name)
    axis.set_ylabel("jobs an hour")
    axis.set_yscale("symlog", linthresh=10)
    axis.set_ylim(0)
    return True


def _latency(axis: Axes | None, t_h: Sequence[float], series: Series) -> bool:
    if axis is None:
        return any(not math.isnan(each) for each in series.get("first_token_ms_p50", ()))
    for quantile in ("p50", "p95"):
        axis.plot(t_h, series[f"first_token_ms_{quantile}"], label=quantile)
    axis.set_ylabel("first token [ms]")
    axis.set_ylim(0)
    return True


def _checks(axis: Axes | None, t_h: Sequence[float], series: Series) -> bool:
    if axis is None:
        return any(series.get("wrong", ())) or any(series.get("caught", ()))
    axis.plot(t_h, series["wrong"], color="tab:red", label="wrongly accepted")
    axis.plot(t_h, series["caught"], color="tab:green", label="caught")
    axis.set_ylabel("an hour")
    axis.set_ylim(0)
    return True


def _index(axis: Axes | None, t_h: Sequence[float], series: Series) -> bool:
    if axis is None:
        return any(series.get("index_busiest", ()))
    axis.plot(t_h, series["index_busiest"], label="busiest")
    axis.plot(t_h, series["index_mean"], label="mean")
    axis.set_ylabel("index node [1/s]")
    axis.set_ylim(0)
    return True


def _serving(axis: Axes | None, t_h: Sequence[float], series: Series) -> bool:
    names = [name for name in series if name.startswith("serving_") and len(set(series[name])) > 1]
    if axis is None:
        return bool(names)
    for name in names:
        axis.plot(t_h, series[name], label=name.removeprefix("serving_"))
    axis.set_ylabel("nodes that serve")
    axis.set_ylim(0)
    return True
