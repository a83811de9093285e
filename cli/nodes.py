"""`fallow nodes`: what discovery finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .environment import AsJson, Bootstrap, joined
from .output import Json, print_json, progress, remark, table

if TYPE_CHECKING:
    from ..client import NodeView


async def nodes(
    bundle: Annotated[str | None, Parameter(help="Only nodes that serve this bundle.")] = None,
    /,
    *,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """Every node that answered, with the profiles that it signed."""
    with progress("looking for nodes"):
        async with joined(bootstrap) as mesh:
            found = await mesh.nodes(bundle)
    if json:
        print_json({"nodes": [_as_json(node) for node in found]})
    elif found:
        columns = ("node", "owner", "kind", "region", "state", "serves", "jobs ", "rtt ms ", "link")
        table(columns, [_row(node) for node in found])
    else:
        remark("No node answered. Nodes appear as they join; ask again, or see whether the bundle's name is right.")


def _row(node: NodeView) -> tuple[str, ...]:
    state = f"{node.state} ({'; '.join(node.reasons)})" if node.reasons else str(node.state)
    rtt = f"{node.rtt_ms:.1f}" if node.rtt_ms is not None else "-"
    link = "interactive" if node.interactive else "batch"
    jobs, serves = str(node.jobs_running), ", ".join(node.bundles)
    return node.peer_id[-8:], node.owner[:8], node.kind or "-", node.region or "-", state, serves, jobs, rtt, link


def _as_json(node: NodeView) -> Json:
    return {
        "peer_id": node.peer_id,
        "owner": node.owner,
        "kind": node.kind,
        "region": node.region,
        "state": str(node.state),
        "reasons": list(node.reasons),
        "bundles": list(node.bundles),
        "jobs_running": node.jobs_running,
        "rtt_ms": node.rtt_ms,
        "interactive": node.interactive,
        "addresses": list(node.addresses),
    }
