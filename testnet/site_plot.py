"""The picture of a site's day: what the connection carries, the battery, work beside its price, and what each way brings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..node.grid.site_config import SiteConfig
from ..node.rules.hours import HOUR_MS, Tariff
from .simnet.plots import save

if TYPE_CHECKING:
    from .site_day import Strategy


def draw(found: Sequence[Strategy], site: SiteConfig, tariff: Tariff, seed: int, path: Path) -> None:
    """It is in the file."""
    from matplotlib.figure import Figure

    ours, t_h = found[0].series, found[0].series["t_h"]
    figure = Figure(figsize=(9, 10), layout="constrained")
    grid, battery, work, net = figure.subplots(4, 1, sharex=True, height_ratios=(3, 1.4, 1.8, 1.8))

    others = [watts / 1000 for watts in ours["others_w"]]
    computing = [watts / 1000 for watts in ours["work_w"]]
    storing = [max(0.0, watts) / 1000 for watts in ours["battery_w"]]
    grid.stackplot(
        t_h, others, computing, storing, labels=("chargers and the rest", "work", "into the battery"),
        colors=("#9db4c0", "#e07a3f", "#6a994e"), linewidth=0,
    )  # fmt: skip
    above = [a + b for a, b in zip(others, computing, strict=True)]
    total = [watts / 1000 for watts in ours["total_w"]]
    given = [each < most for each, most in zip(total, above, strict=True)]
    grid.fill_between(t_h, total, above, where=given, facecolor="none", edgecolor="white", hatch="////", linewidth=0)
    grid.fill_between(
        t_h, 0, 0, facecolor="#9db4c0", edgecolor="white", hatch="////", linewidth=0, label="out of the battery"
    )
    grid.plot(t_h, total, color="black", linewidth=0.8, label="the connection")
    grid.axhline(site.limit_w / 1000, color="tab:red", linestyle="--", linewidth=1.2, label="its limit")
    grid.set_ylabel("power [kW]")
    grid.set_ylim(0, 1.25 * site.limit_w / 1000)

    battery.plot(t_h, ours["soc_pct"], color="#6a994e", label="charge")
    if site.battery:
        battery.axhline(site.battery.min_pct, color="grey", linestyle=":", linewidth=1, label="kept for chargers")
    battery.set_ylabel("battery [%]")
    battery.set_ylim(0, 100)

    work.plot(t_h, computing, color="#e07a3f", label=found[0].name)
    work.plot(
        t_h,
        [watts / 1000 for watts in found[1].series["work_w"]],
        color="#e07a3f",
        alpha=0.4,
        linewidth=0.8,
        label=found[1].name,
    )
    work.set_ylabel("work [kW]")
    work.set_ylim(0, 1.1 * site.compute_w / 1000)
    price = work.twinx()
    paid = [tariff.at(round(hour * HOUR_MS)) / 1e6 for hour in t_h]
    price.step(t_h, paid, where="post", color="tab:blue", linewidth=1)
    price.set_ylabel("price [credits/kWh]", color="tab:blue")
    price.set_ylim(0, 0.5)

    for each, colour in zip(found, ("#e07a3f", "#f2b880", "black", "tab:purple"), strict=True):
        net.plot(t_h, [ucr / 1e6 for ucr in each.series["net_ucr"]], color=colour, label=each.name)
    net.axhline(0, color="grey", linewidth=0.6)
    net.set_ylabel("net [credits]")
    net.set_xlabel("hour of the day")
    for axis in (grid, battery, work, net):
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", bbox_to_anchor=(1.07, 1.0), fontsize="small", frameon=False)
    net.set_xlim(0, 24)
    net.set_xticks(range(0, 25, 3))
    grid.set_title(f"A charging site's day (seed {seed})")
    save(figure, path)
