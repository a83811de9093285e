"""Run as a program: a client does its jobs at a node and then settles what the node owes it by a set-off; one of the two is
killed at one write of its disk, for each of its writes.

    python -m ... FOLDER

Like `crashes`, but with the ledger of each side, and over the node's own `/fallow/means/1`.
"""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import cast

import trio

sys.path.insert(0, str(Path(__file__).parent))

from crashes import FallowError, client, kill_each, serve
from pair import CLIENT, CLIENT_KEY, NODE, NODE_KEY, House, Line

from fallow.client.paying import pay
from fallow.client.wallet_books import wallet_books
from fallow.node.log import wall_ms
from fallow.node.network.seam import Network
from fallow.node.paying import Paying
from fallow.node.rails.journal_books import journal_books
from fallow.node.rails.ledger import Ledger
from fallow.protocol.disputes import reference_of
from fallow.protocol.streams import MEANS_PROTOCOL

MATTER = b"\x0d" * 32
FEE_UCR = 60
"""Judges have said that the node owes it to the client."""


def client_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "client-ledger.sqlite", CLIENT, wallet_books(folder / "wallet.db", CLIENT_KEY))


def node_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "node-ledger.sqlite", NODE, journal_books(folder / "node"))


async def node_with_a_ledger(folder: Path, door: socket.socket) -> None:
    house = House(folder / "node")
    house.journal.add_fees(MATTER, {CLIENT_KEY: -FEE_UCR}, wall_ms())
    with closing(node_ledger(folder)) as ledger:
        house.handlers[MEANS_PROTOCOL] = Paying({ledger.name: ledger}, house.accounts).answer
        await serve(house, door)


async def client_that_settles(folder: Path, door: socket.socket) -> None:
    address = door.getsockname()
    await client(folder, door)

    async def dial() -> trio.SocketStream:
        return await trio.open_unix_socket(address)

    network = cast(Network, Line(dial))
    with closing(client_ledger(folder)) as ledger:
        ledger.post(NODE_KEY, reference_of(MATTER), ours_ucr=FEE_UCR)
        while True:
            try:
                await pay(network, NODE_KEY, (), ledger, CLIENT_KEY, FEE_UCR, "the fee", ledger=ledger)
                return
            except FallowError:
                pass  # the node is being started again


if __name__ == "__main__":
    kill_each(Path(sys.argv[1]), node_with_a_ledger, client_that_settles)
