"""Whole nodes that share power: two behind one transformer, and one beside chargers, each with its own settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from fallow.node.grid.ledger import LEDGER, Ledger
from fallow.node.keys import load_or_create
from fallow.node.log import wall_ms
from fallow.protocol.envelope import sign
from fallow.protocol.grid import FeederMember, FeederRoster

from .conftest import Daemon, Start

DAY_MS = 86_400_000
SHARE_W = 4_000


async def until(node: Daemon, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the node says of itself, once that holds."""
    with trio.fail_after(90):
        while True:
            said = await trio.to_thread.run_sync(node.command, "status")
            if holds(said):
                return said
            await trio.sleep(0.05)


def watts(said: dict[str, Any]) -> float:
    return float(said["budget"].split()[0])


async def test_what_one_node_does_not_need_another_draws(start: Start, tmp_path: Path) -> None:
    grid = load_or_create(tmp_path / "grid.key")
    folders = [tmp_path / name for name in ("spares", "wants")]
    for folder in folders:
        (folder / "state").mkdir(parents=True)
        Ledger(folder / "state" / LEDGER, wall_ms() - DAY_MS).close()  # it has been a member for a while
    keys = sorted(bytes(load_or_create(folder / "state" / "node.key").verify_key) for folder in folders)
    begins_ms = wall_ms() - DAY_MS
    members = tuple(FeederMember(key, SHARE_W) for key in keys)
    roster = sign(FeederRoster("t-17", 1, 2 * SHARE_W, members, begins_ms, begins_ms + 7 * DAY_MS), grid)
    (tmp_path / "roster").write_bytes(roster.envelope)
    feeder = {"name": "t-17", "grid_key": bytes(grid.verify_key).hex(), "roster": str(tmp_path / "roster")}
    settings: dict[str, Any] = {"bundles": ["tiny-embed"], "grid": {"feeder": feeder}}

    spares = await trio.to_thread.run_sync(
        partial(start, folders[0], **settings, power={"idle_w": 10, "full_w": 1_000})
    )
    await until(spares, lambda said: said["budget"] == "4000 W (its share of t-17, 4,000 W)")
    wants = await trio.to_thread.run_sync(
        partial(start, folders[1], **settings, power={"idle_w": 10, "full_w": 5_500}, bootstrap=[spares.address])
    )
    said = await until(wants, lambda said: "borrowed" in said["budget"])
    assert said["budget"] == "5500 W (its share of t-17, 4,000 W, and 1,500 W borrowed)"
    said = await until(spares, lambda said: "lent" in said["budget"])
    assert said["budget"] == "2500 W (its share of t-17, 4,000 W, 1,500 W of it lent)"
    await trio.to_thread.run_sync(spares.stop)
    again = await trio.to_thread.run_sync(partial(start, folders[0], **settings, power={"idle_w": 10, "full_w": 9_000}))
    said = await until(again, lambda said: "its share of t-17" in said["budget"])
    assert watts(said) <= 2_500, "what it lent before it ended is lent still"


async def test_work_gives_way_to_chargers_and_stops_when_nobody_says_what_they_draw(
    start: Start, tmp_path: Path
) -> None:
    meter = tmp_path / "meter.toml"

    def measured(chargers_w: int) -> None:
        scratch = tmp_path / "scratch"
        scratch.write_text(f"chargers_w = {chargers_w}\n")
        scratch.replace(meter)

    measured(0)
    site = {
        "limit_w": 10_000,
        "compute_w": 4_000,
        "chargers_w": 9_000,
        "charger_ramp_w_s": 1_000,
        "ramp_w_s": 4_000,
        "reaction_s": 1,
    }
    sensor = {"kind": "site", "file": str(meter), "interval_s": 0.2, "stale_s": 2}
    node = await trio.to_thread.run_sync(
        partial(
            start, bundles=["tiny-embed"], grid={"site": site}, sensors=[sensor], settle_s=0,
            power={"idle_w": 10, "full_w": 4_000},
        )
    )  # fmt: skip
    await until(node, lambda said: watts(said) > 3_900 and "by the site's plan" in said["budget"])
    measured(8_000)
    await until(node, lambda said: watts(said) <= 10_000 - 9_000)  # as far as chargers may still rise
    measured(9_500)
    await until(node, lambda said: watts(said) <= 10_000 - 9_500)
    measured(0)
    await until(node, lambda said: watts(said) > 3_900)
    meter.unlink()
    said = await until(
        node, lambda said: said["state"] == "not-eligible" and watts(said) == 0
    )  # the guard has its second
    assert any("meter.toml cannot be read" in reason or "last read" in reason for reason in said["reasons"])
