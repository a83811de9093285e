"""Faults that prove themselves, passed on between simulated machines by the node's own gossip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from ....client.faults import Faults
from ....client.history import History
from ....client.late import Late
from ....client.wallet import Wallet
from ....node.book import Book
from ....node.gossip import FAULTS, Gossip
from ....protocol.evidence import Proven
from ....protocol.streams import EVIDENCE_PROTOCOL
from .chance import chance_for
from .medium import Place
from .table import TableNetwork
from .world import Heard, World


def take_part(
    world: World, network: TableNetwork, place: Place, state: Path, nursery: trio.Nursery,
    concerns: Callable[[bytes], bool],
) -> Gossip:  # fmt: skip
    """The node hears of faults, and tells of them, until cancelled."""
    chance = chance_for(world.seed, "gossip", place.number, str(trio.current_time()))
    begun = False

    def noted(proven: Proven) -> None:
        if begun:
            _note(world, place, proven)

    gossip = Gossip(network, state / FAULTS, chance, noted, concerns)
    begun = True
    network.serve(EVIDENCE_PROTOCOL, gossip.serve)
    nursery.start_soon(gossip.run)
    return gossip


class NotedFaults(Faults):
    """A client's, of which it is noted when it heard of them."""

    def __init__(
        self, world: World, network: TableNetwork, place: Place, state: Path, wallet: Wallet, history: History,
        late: Late, book: Book,
    ) -> None:  # fmt: skip
        self._world = world
        self._place = place
        chance = chance_for(world.seed, "gossip", place.number)
        super().__init__(network, state / FAULTS, chance, wallet, history, late, book)

    def weigh(self, proven: Proven) -> None:
        super().weigh(proven)
        _note(self._world, self._place, proven)  # a simulated client has no earlier life


def _note(world: World, place: Place, proven: Proven) -> None:
    """Not what is read of an earlier life: of files that are as old as each other, nobody knows which comes first."""
    world.log.write(place.number, "heard", str(proven.fault), proven.accused.hex())
    world.heard.append(Heard(trio.current_time(), place.number, proven))
