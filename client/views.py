"""What a caller sees of the nodes that were found."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from ..node.book import Met
from ..node.network.seam import CIRCUIT
from ..protocol.identity import cid, peer_id
from .answers import NodeView
from .desk import Desk
from .nodes import Node
from .scheduler import at_fault


def view_of(node: Node, desk: Desk, names: Mapping[bytes, str]) -> NodeView:
    """The node as it is known here now. `names` are those of bundles by their hashes; the others go by their CIDs."""
    network, met = desk.network, desk.book.get(node.key) or Met(node.key)
    direct_or_not = "relayed" if network.relayed(node.key) else "direct"
    return NodeView(
        peer_id(node.key),
        node.owner.hex(),
        node.capability.kind,
        node.capability.region,
        node.state,
        node.reasons,
        tuple(names.get(served.bundle, cid(served.bundle)) for served in node.capability.served),
        round(node.rtt_ms, 1),
        node.interactive,
        node.addresses,
        node.jobs_running,
        at_fault(node, desk.wallet.distrusted),
        node.capability,
        node.connectivity,
        trio.current_time() - node.asked_at,
        all(CIRCUIT in address for address in node.addresses),
        direct_or_not if node.key in network.peers() else "",
        met.tries,
        met.answers,
        met.jobs_done,
        met.jobs_failed,
        len(node.witnesses),
    )
