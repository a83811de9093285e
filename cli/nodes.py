"""`fallow nodes`: what discovery finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..protocol.bundle import CALL, GENERATE
from ..protocol.profiles import ConnectivityProfile, ServedBundle
from .environment import AsJson, Bootstrap, joined
from .output import Json, print_json, progress, remark, table
from .verify import plain

if TYPE_CHECKING:
    from ..client import NodeView


async def nodes(
    bundle: Annotated[str | None, Parameter(help="Only nodes that serve this bundle.")] = None,
    /,
    *,
    bootstrap: Bootstrap = None,
    json: AsJson = False,
) -> None:
    """Every node that answered, with what it offers; --json has all that stands in the profiles that it signed."""
    with progress("looking for nodes"):
        async with joined(bootstrap) as mesh:
            found = await mesh.nodes(bundle)
    if json:
        print_json({"nodes": [_as_json(node) for node in found]})
    elif found:
        columns = ("node", "owner", "kind", "region", "state", "roles", "serves", "jobs ", "rtt ms ", "link")
        table(columns, [_row(node) for node in found])
    else:
        remark("No node answered. Nodes appear as they join; ask again, or see whether the bundle's name is right.")


def _row(node: NodeView) -> tuple[str, ...]:
    state = f"{node.state} ({'; '.join(node.reasons)})" if node.reasons else str(node.state)
    state += ", found at fault" if node.distrusted else ""
    return (
        node.peer_id[-8:],
        node.owner[:8],
        node.kind or "-",
        node.region or "-",
        state,
        "\n".join(node.capability.roles),
        "\n".join(_offer(node, *each) for each in zip(node.bundles, node.capability.served, strict=True)),
        str(node.jobs_running),
        f"{node.rtt_ms:.1f}",
        _link(node.connectivity),
    )


def _offer(node: NodeView, name: str, served: ServedBundle) -> str:
    """The bundle with its measured rate, and the price of what it is mostly asked for."""
    prices = {price.entry: price for price in node.capability.prices if price.bundle == served.bundle}
    if price := prices.get(GENERATE):
        return f"{name}: {served.output_tokens_per_s_milli / 1000:.0f} tokens/s, {price.output_token_ucr} ucr each"
    if price := prices.get(CALL):
        return f"{name}: {served.calls_per_s_milli / 1000:.0f} calls/s, {price.call_ucr} ucr each"
    return name


def _link(profile: ConnectivityProfile) -> str:
    """Its class, and the round trips to others (median, 95th percentile) that it follows from."""
    name = "interactive" if profile.interactive else "batch"
    if profile.rtt_p50_us is None or profile.rtt_p95_us is None:
        return f"{name}, not measured"
    return f"{name}, {profile.rtt_p50_us / 1000:.1f} to {profile.rtt_p95_us / 1000:.1f} ms"


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
        "distrusted": node.distrusted,
        "capability": plain("", node.capability),
        "connectivity": plain("", node.connectivity),
    }
