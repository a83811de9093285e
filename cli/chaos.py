"""`fallow testnet chaos`: a test network under random faults, and what came of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from ..testnet import chaos as running
from ..testnet.faults import RATE_PER_MINUTE
from ..testnet.report import Report, Spread
from .environment import AsJson, cancel_when_terminated, usable
from .output import line, progress, remark, stderr, stdout, table
from .testnet import (
    SERVED,
    Adversaries,
    Bundles,
    DayS,
    Kinds,
    Liars,
    Namespaces,
    Nodes,
    Owners,
    PlanFile,
    Regions,
    TokenMs,
    planned,
)

MIB = 1024 * 1024


async def chaos(
    *,
    directory: Annotated[
        Path | None,
        Parameter(
            name="--dir", help="The run's folder, which must not have one yet; unless said, chaos-SEED-TIME here."
        ),
    ] = None,
    minutes: Annotated[float, Parameter(help="How long faults come and clients ask.")] = 10.0,
    seed: Annotated[int, Parameter(help="Of the faults, and of what is asked.")] = 0,
    rate: Annotated[float, Parameter(help="Faults a minute.")] = RATE_PER_MINUTE,
    assurance: Annotated[str, Parameter(help="What the clients ask for.")] = "quorum:2/3",
    clients: Annotated[int, Parameter(help="How many clients ask.")] = 2,
    at_once: Annotated[int, Parameter(help="Jobs of each of them side by side.")] = 2,
    pause_ms: Annotated[int, Parameter(help="Between two of them.")] = 200,
    nodes: Nodes = None,
    liars: Liars = 0,
    kinds: Kinds = None,
    adversaries: Adversaries = None,
    bundles: Bundles = SERVED,
    owners: Owners = 0,
    regions: Regions = "",
    namespaces: Namespaces = False,
    day_s: DayS = 0.0,
    token_ms: TokenMs = 0,
    plan: PlanFile = None,
    replay: Annotated[
        Path | None, Parameter(help="The folder of a run that is made again, with its very faults.")
    ] = None,
    json: AsJson = False,
) -> int:
    """0 if nothing came out that must not: no job lost, no wrong result accepted, no credit gone, no node ended."""
    faults, directory = None, directory or Path(f"chaos-{seed}-{datetime.now():%Y-%m-%d-%H%M%S}")
    if replay:
        options, faults = running.Options.load(replay), running.recorded(replay)
    else:
        chosen = planned(nodes, liars, kinds, adversaries, bundles, owners, regions, namespaces, day_s, token_ms, plan)
        options = running.Options(
            replace(chosen, seed=seed), minutes, seed, rate, assurance, clients, at_once, pause_ms
        )
    found: list[Report] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_when_terminated, nursery.cancel_scope)
        with progress("starting nodes") as show, usable("--dir", directory):
            found.append(await running.run(directory, options, faults=faults, on_progress=show))
        nursery.cancel_scope.cancel()
    if not found:
        return 1  # by SIGTERM
    _show(found[0], directory, json)
    return 0 if found[0].sound else 1


def _show(report: Report, folder: Path, as_json: bool) -> None:
    """Everything on stdout, or beside `--json` on stderr; then its one line."""
    console = stderr if as_json else stdout
    faults = ", ".join(f"{count} {name}" for name, count in sorted(report.faults.items())) or "none"
    wrong = "no bound" if report.wrongly_accepted_max is None else f"at most {report.wrongly_accepted_max}"
    rows = [
        ("faults", faults),
        ("jobs asked, completed, verified", f"{report.asked}, {report.completed}, {report.verified}"),
        ("wrongly accepted", f"{report.wrongly_accepted} ({wrong}, with 99.9 %: {report.bound})"),
        ("wrong, and unchecked", str(report.wrong_unchecked)),
        ("resumed at another node", str(report.resumed)),
        ("lost", str(report.lost)),
        ("first token", _spread(report.first_token_ms)),
        ("handover", _spread(report.handover_ms)),
        ("whole job", _spread(report.took_ms)),
        ("credits", _credits(report)),
        ("nodes that ended by themselves", ", ".join(report.crashed) or "none"),
        ("growing", ", ".join(f"{each.node} {each.what}" for each in report.growth if each.grew) or "nothing"),
    ]
    for name, value in rows:
        line(f"{name:<32} {value}", console=console)
    if not as_json:
        _show_growth(report)
    for trouble in report.broken:
        line(f"not as it should be: {trouble}", console=console)
    for loss in report.losses[:20]:
        line(f"lost: {loss}", console=console)
    remark(f"the whole run is in {folder}; again: fallow testnet chaos --replay {folder} --dir {folder}-again")
    if as_json:
        stdout.file.write(report.line() + "\n")
        stdout.file.flush()


def _show_growth(report: Report) -> None:
    by_node: dict[str, dict[str, str]] = {}
    for each in report.growth:
        unit = MIB if each.what.endswith("bytes") else 1
        by_node.setdefault(each.node, {})[each.what] = (
            f"{each.first / unit:.0f} to {each.last / unit:.0f} ({each.rise / unit:+.1f})"
        )
    rows = [
        (node, *(found.get(what, "") for what in ("daemon_bytes", "worker_bytes", "descriptors")))
        for node, found in by_node.items()
    ]
    table(("node", "daemon, MiB (line)", "worker, MiB (line)", "descriptors (line)"), rows)


def _spread(found: Spread) -> str:
    if not found.count:
        return "none"
    return f"p50 {found.p50} ms, p95 {found.p95} ms, p99 {found.p99} ms, most {found.most} ms, of {found.count}"


def _credits(report: Report) -> str:
    if report.credits_conserved:
        return (
            f"conserved: {report.promised_ucr} ucr promised and held; {report.unpaid_ucr} ucr of work without a voucher"
        )
    apart = ", ".join(f"{owner[:8]} {ucr:+d}" for owner, ucr in report.credits_apart_ucr.items())
    return f"not conserved: owners hold more (+) or less (-) than promised: {apart} ucr"
