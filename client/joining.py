"""How a client joins the mesh: its home is opened, a way in found, and all that goes on beside its jobs begun."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from nacl.signing import SigningKey

from ..node.book import BOOK, Book, Met
from ..node.gossip import FAULTS
from ..node.keys import load_or_create
from ..node.machine import chance, wall_ms
from ..node.network.seam import Network
from ..node.network.table_rules import profile_rules
from ..node.rails.ledger import Ledger
from ..node.rails.opening import FOLDER, open_ledger
from ..node.trust import TrustList
from ..protocol.errors import Code, NetworkError
from ..protocol.streams import EVIDENCE_PROTOCOL
from .answering import answer_disputes
from .auditing import Auditor
from .bundles import Bundles
from .deposits import Deposits, open_cashu
from .desk import Desk
from .discovery import Discovery
from .faults import Faults
from .history import HISTORY, History
from .late import Late
from .mesh import Mesh
from .scheduler import Experience
from .settling import Settler
from .spotting import Spots
from .team import Team
from .telling import keep_telling
from .wallet import Wallet
from .wallet_books import wallet_books

LEAVE_S = 3.0
"""For paying what streams that were left early delivered, and telling of faults, before a client leaves."""


@asynccontextmanager
async def connect(bootstrap: Sequence[str], *, home: Path | str | None = None) -> AsyncIterator[Mesh]:
    """A client that has joined by one of the addresses or, if none of them answers, by nodes that it met before.

    State is kept in `home` (FALLOW_HOME, or ~/.fallow). Raises `NetworkError(bootstrap_unreachable)` if nobody answers,
    `StoreError` if the wallet cannot be read.
    """
    from ..node.network.mesh import open_network

    with _home(Path(home or os.environ.get("FALLOW_HOME") or Path.home() / ".fallow")) as kept:
        given, known = list(bootstrap), kept.book.ways_in()
        if not given and not known:
            raise NetworkError(
                Code.BOOTSTRAP_UNREACHABLE, "No bootstrap address was given, and no node was met before."
            )
        rules = profile_rules(wall_ms)
        async with open_network(chance().randbytes(32), [], given, rules, mode="client", known=known) as network:
            late = Late(kept.history)
            faults = Faults(network, kept.folder / FAULTS, chance(), kept.wallet, kept.history, late, kept.book)
            desk = _desk(kept, network, faults)
            deposits = Deposits(kept.trust.deposits, partial(open_cashu, kept.folder, kept.key))
            auditor = Auditor(
                desk, kept.history, deposits
            )  # before anything is paid that a process before this one left
            await _pay_what_was_left(kept, desk)
            failure: Exception | None = None
            async with trio.open_nursery() as nursery:
                mesh = _begin(kept, desk, auditor, late, faults, nursery)
                nursery.start_soon(deposits.run)
                try:
                    yield mesh
                except Exception as error:  # noqa: BLE001 - the caller's: raised below, without the nursery's group
                    failure = error
                with trio.move_on_after(LEAVE_S):
                    await mesh.leave()
                    await faults.gossip.drain()
                    await mesh.rest()
                kept.book.look(network)
                nursery.cancel_scope.cancel()
            if failure:
                raise failure


@dataclass(frozen=True)
class _Home:
    """What a client keeps from one time to the next."""

    folder: Path
    key: SigningKey
    trust: TrustList
    wallet: Wallet
    book: Book
    history: History
    ledger: Ledger


@contextmanager
def _home(folder: Path) -> Iterator[_Home]:
    key = load_or_create(folder / "keys" / "client")
    trust = TrustList.load(folder)
    with (
        closing(Wallet(folder / "wallet.db", key)) as wallet,
        closing(Book(folder / BOOK, wall_ms)) as book,
        closing(History(folder / HISTORY)) as history,
        closing(open_ledger(folder / FOLDER, key, wallet_books(folder / "wallet.db", bytes(key.verify_key)))) as ledger,
    ):
        yield _Home(folder, key, trust, wallet, book, history, ledger)


def _desk(kept: _Home, network: Network, faults: Faults) -> Desk:
    return Desk(
        network,
        kept.wallet,
        Settler(network, kept.wallet.confirmed),
        kept.key,
        wall_ms,
        kept.book,
        frozenset(kept.trust.verifiers),
        trusted=frozenset(kept.trust.owners.values()),
        ledger=kept.ledger,
        accuse=faults.accuse,
    )


async def _pay_what_was_left(kept: _Home, desk: Desk) -> None:
    """What processes that have ended left unpaid is on its way."""
    for channel in await kept.wallet.take_over(wall_ms()):
        desk.settler.add((kept.book.get(channel.channel.record.payee) or Met(b"")).addresses, channel)


def _begin(kept: _Home, desk: Desk, auditor: Auditor, late: Late, faults: Faults, nursery: trio.Nursery) -> Mesh:
    """The mesh, with everything under way that goes on beside the jobs until the client leaves."""
    book, trust = kept.book, kept.trust
    discovery = Discovery(desk.network, desk.now_ms, nursery, book, faults.accuse)
    experience = Experience(met=book.get)
    bundles = Bundles(kept.folder, trust, desk.network, lambda node: experience.failed(node, trio.current_time()))
    spots = Spots(auditor, chance())
    team = Team(desk, discovery, experience, chance(), auditor, spots, late)
    desk.network.serve(EVIDENCE_PROTOCOL, faults.gossip.serve)
    nursery.start_soon(faults.gossip.run)
    nursery.start_soon(spots.run, team)
    nursery.start_soon(late.run, team, bundles, trust.verifiers)
    nursery.start_soon(partial(answer_disputes, desk, trust.verifiers))
    nursery.start_soon(keep_telling, desk)
    nursery.start_soon(discovery.keep_fresh)
    nursery.start_soon(desk.settler.run)
    nursery.start_soon(book.keep, desk.network)
    return Mesh(team, bundles, trust, nursery)
