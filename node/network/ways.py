"""The ways to this node, as others are told of them: its own addresses, or those through the relays that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from random import SystemRandom
from typing import Final

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID

from ...protocol.errors import NetworkError
from .boundary import Tasks
from .circuit import Circuits, relayed
from .dht import Table
from .dialback import Dialback, can_be_dialled, seen_ip
from .dialling import Dialler
from .host import own_addresses, own_ip, swarm_of
from .identity import CIRCUIT, Multiaddr, key_of
from .punching import Puncher
from .reach import DIRECT, RELAYED, Reach
from .relaying import Relay
from .reserving import Reservations
from .seam import Reachability

_SOME_RELAY: Final = Multiaddr(CIRCUIT)
"""What a node says of itself that has no relay yet: it leads nowhere, and tells nothing."""
_HERE: Final = ("/ip4/127.", "/ip6/::1/")
"""What only this machine can dial: no router is in between."""
_ASKED_MAX: Final = 3
"""Peers asked from where this host comes."""


class Told:
    """What others are told of a host's addresses."""

    def __init__(self, reach: Reach) -> None:
        self.relayed = reach.way != DIRECT
        """Nothing but `circuits`: also until it is known whether that is needed."""
        self.circuits: list[Multiaddr] = []
        self._announced = [Multiaddr(address) for address in reach.announce]

    def __call__(self, listening: list[Multiaddr]) -> list[Multiaddr]:
        """See `host.make_host`: not empty while there is something to hide."""
        if self.relayed:
            return self.circuits or [_SOME_RELAY]
        return self._announced or own_addresses(listening)


async def settle(
    told: Told, reach: Reach, host: BasicHost, tasks: Tasks, dialler: Dialler, peers: Sequence[ID]
) -> bool | None:
    """`told` knows whether the host is reached through relays alone; and whether others got through to it, if they tried.

    `peers` are connected; where none of them can say, the host's own addresses are believed in.
    """
    if reach.way in (DIRECT, RELAYED):
        return None
    own = [Multiaddr(each) for each in reach.announce] or host.get_transport_addrs()
    outside = [each for each in own if not str(each).startswith(_HERE)]
    dialled = await can_be_dialled(tasks, dialler, peers, host.get_id(), outside) if outside else None
    told.relayed = dialled is False
    return dialled


class Ways:
    """One host's ways to others and theirs to it, once it is settled which."""

    def __init__(
        self, reach: Reach, told: Told, host: BasicHost, tasks: Tasks, dialler: Dialler, table: Table,
        dialled: bool | None,
    ) -> None:  # fmt: skip
        self._told = told
        self._host = host
        self._tasks = tasks
        self._dialler = dialler
        self._dialled = dialled
        self.changed = trio.Event()
        """Set at the next change of `addresses`, and replaced then."""
        circuits = Circuits(host, tasks, dialler, lambda: self._reservations.chosen())
        dialler.through_relay = circuits.dial
        self._reservations = Reservations(
            tasks, dialler, table, circuits, reach.relay_keys, reach.relays_wanted, SystemRandom(), self._tell
        )
        self._puncher = Puncher(host, tasks, dialler, self._own_ips) if reach.punches else None
        self._relay: Relay | None = None
        if told.relayed:
            tasks.spawn(self._reservations.run)
        elif host.get_transport_addrs():
            Dialback(host)
            if reach.relay is not None:
                self._relay = Relay(host, tasks, reach.relay, dialler.connected)

    def addresses(self) -> list[Multiaddr]:
        """Where others can dial this host: none while it has no relay and needs one."""
        return [address for address in self._host.get_addrs() if not str(address).startswith(CIRCUIT)]

    def go_direct(self, peer: ID) -> None:
        """See `Network.go_direct`."""
        if self._puncher:
            self._puncher.punch(peer)

    def kept(self) -> set[ID]:
        """Peers to whom a connection has to stand: relays of this host, and those whose relay it is."""
        return self._reservations.chosen() | set(self._relay.ledger.reserved if self._relay else ())

    def reachability(self) -> Reachability:
        """See `Network.reachability`."""
        carried = self._relay.ledger.carrying if self._relay else (0, 0)
        return Reachability(
            relayed=self._told.relayed,
            dialled=self._dialled,
            relays=tuple(key_of(relay) for relay in self._reservations.chosen()),
            why=self._reservations.why if self._told.relayed else "",
            relays_for=carried[0],
            circuits=carried[1],
        )

    def _tell(self, circuits: list[Multiaddr]) -> None:
        self._told.circuits = circuits
        self.changed.set()
        self.changed = trio.Event()

    async def _own_ips(self) -> list[str]:
        """Those from which peers see this host come, and the one that it has at home."""
        ips: dict[str, None] = {}
        swarm = swarm_of(self._host)
        chosen = self._reservations.chosen()
        near = [peer for peer, each in swarm.get_connections_map().items() if not any(map(relayed, each))]
        for peer in sorted(near, key=lambda peer: peer not in chosen)[:_ASKED_MAX]:
            with suppress(NetworkError):
                ips[await seen_ip(self._tasks, self._dialler, peer)] = None
        return list(ips | {own_ip(): None})
