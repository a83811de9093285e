"""What a host remembers of peers that have gone.

py-libp2p 0.8.1 keeps a thousand peers, and gives up first those of which it knows no address (peer/peerstore.py:216): the
host itself is the first of them, with its key, so that a node that had met a thousand others could sign nothing any more.
Its auto-connector, which is stopped here, goes on to remember everybody who ever left (network/auto_connector.py:625).
"""

from __future__ import annotations

from typing import Final, cast

from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore

PEERS_MAX: Final = 1024
"""Peers of which addresses, keys and protocols are known: some 3 KB each. A table of 10^6 index nodes has 400 of them."""

SPARE: Final = PEERS_MAX // 16
"""So many are given up at once: rarely, so that it costs little for each."""


def bound_acquaintances(swarm: Swarm) -> None:
    """From now on `PEERS_MAX` peers are remembered: this host and those connected, of the others those heard of last."""
    store = cast(PeerStore, swarm.peerstore)
    store.max_peers = PEERS_MAX

    def make_room() -> None:
        standing = {swarm.get_peer_id(), *swarm.get_connections_map()}
        gone = [peer for peer in store.peer_data_map if peer not in standing]

        def worth(peer: ID) -> tuple[bool, int]:
            known = store.peer_data_map[peer]
            return bool(known.addrs), known.last_identified

        for peer in sorted(gone, key=worth)[: len(store.peer_data_map) - PEERS_MAX + SPARE]:
            store.clear_peerdata(peer)

    def forget(peer: ID) -> None:
        """The connector connects nobody."""

    vars(store)["_enforce_peer_limit"] = make_room
    vars(swarm.auto_connector)["record_disconnect"] = forget
