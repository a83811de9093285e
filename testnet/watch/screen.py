"""The network in a terminal, drawn anew at every look."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .looking import LOOK_S, Look, NodeLook

_COLOURS: Final = {
    "ready": "green", "busy": "cyan", "yielding": "magenta", "not-eligible": "yellow", "silent": "red", "gone": "red",
}  # fmt: skip
EVENTS_SHOWN: Final = 8
_CONTROLS: Final = dict.fromkeys((*range(32), *range(127, 160)), "�")


def live(console: Console) -> Live:
    """What is to be updated with `drawn` at each look; the last one stays."""
    return Live(console=console, refresh_per_second=2 / LOOK_S, auto_refresh=False)


def drawn(look: Look) -> RenderableType:
    """Sums on top, then each node, then what happened last."""
    return Group(_sums(look), _nodes(look), _events(look))


def _sums(look: Look) -> Text:
    point = look.point
    kinds = ", ".join(
        f"{sum(states.values())} {kind}{f' in {region}' if region else ''}"
        for kind, region, states in look.by_kind_and_region()
    )
    verdicts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(look.verdicts.items())) or "none yet"
    return Text(
        _plain(
            f"{len(look.nodes)} nodes ({kinds}), {point.ready} for hire; {point.jobs} jobs in flight; "
            f"verdicts: {verdicts}; {point.yields} yields; {point.promised_ucr} ucr promised"
        ),
        "bold",
    )


def _nodes(look: Look) -> Table:
    table = Table(header_style="bold", expand=False)
    for column in ("node", "id", "region", "state", "why"):
        table.add_column(column, overflow="fold")
    for column in ("jobs", "settled", "lost", "tokens", "yields", "claimed", "promised"):
        table.add_column(column, justify="right")
    for node in look.nodes:
        table.add_row(*_row(node))
    return table


def _row(node: NodeLook) -> list[Text]:
    why = "; ".join(node.reasons)
    if node.faults:
        why = f"found at fault by {node.faults}" + (f"; {why}" if why else "")
    name = Text(_plain(node.name))
    if node.adversary:
        name.append(f" {_plain(node.adversary)}", "bold red")
    yields = f"{node.yields}" if node.yield_ms is None else f"{node.yields} ({node.yield_ms} ms)"
    cells = [str(n) for n in (node.jobs, node.settled, node.lost, node.tokens)]
    cells += [yields, str(node.claimed_ucr), str(node.promised_ucr)]
    texts = [Text(_plain(node.peer_id[-8:])), Text(_plain(node.region)), Text(node.state, _COLOURS.get(node.state, ""))]
    return [name, *texts, Text(_plain(why)), *map(Text, cells)]


def _events(look: Look) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    for event in look.events[:EVENTS_SHOWN]:
        when = datetime.fromtimestamp(event.time_ms / 1000).strftime("%H:%M:%S")
        table.add_row(Text(when, "dim"), Text(_plain(event.node)), Text(_plain(event.what)))
    return table


def _plain(text: str) -> str:
    """Without control characters: a reason may come from a peer, and would steer the terminal."""
    return text.translate(_CONTROLS)
