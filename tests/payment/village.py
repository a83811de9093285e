"""Nodes of as many owners and one client, in one process: they write texts and check each other's, and all but what a model
would compute is real."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import cast

import trio
from nacl.signing import SigningKey
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

sys.path.insert(0, str(Path(__file__).parent))

from pair import (
    CLIENT,
    HOLDING,
    MANIFEST,
    NOW_MS,
    OWNER,
    PRICE,
    SERVED,
    WORKER,
    House,
    Line,
    Wire,
    desk_of,
)

from fallow.client.auditing import Auditor
from fallow.client.bundles import Bundles, ClientBundle
from fallow.client.discovery import Discovery
from fallow.client.draft import TextRequest
from fallow.client.history import History
from fallow.client.late import Late
from fallow.client.nodes import Node
from fallow.client.scheduler import Experience
from fallow.client.spotting import Spots
from fallow.client.team import Team
from fallow.client.text import TextJob
from fallow.client.tokenizer import Tokenizer
from fallow.client.wallet import Wallet
from fallow.node.log import wall_ms
from fallow.node.network.seam import Network
from fallow.node.profiles import Offer
from fallow.protocol.envelope import Signed, sign
from fallow.protocol.identity import CHECKER, EXECUTOR, Mandate, WorkerKey
from fallow.protocol.policy import Policy
from fallow.protocol.work import Parameters

LIE, TOKENS = -5_000, 8
"""What no honest node finds of a token; and the tokens of a text: one window."""
ENTRIES = ("generate", "score")
PUBLISHED = sign(replace(MANIFEST, entries=ENTRIES), OWNER)
PRICES = tuple(replace(PRICE, bundle=PUBLISHED.id, entry=entry, checked_token_ucr=2) for entry in ENTRIES)
OFFERED = replace(SERVED, bundle=PUBLISHED.id, entries=ENTRIES)
FRESH_S = 1e9
"""No node has to be asked again who it is."""


class Letters:
    """A tokenizer of one letter a token."""

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(96 + token) for token in tokens)


BUNDLE = ClientBundle("scripted", PUBLISHED, cast(Tokenizer, Letters()))


class Shelf(Bundles):
    """The client has its bundle."""

    def __init__(self) -> None:
        pass

    async def open(self, name: str, nodes: Sequence[Node]) -> ClientBundle:
        return BUNDLE


class Resident:
    """One node, of an owner of its own."""

    def __init__(self, number: int) -> None:
        self.key, owner = SigningKey(bytes([20 + number]) * 32), SigningKey(bytes([40 + number]) * 32)
        self.id, self.owner = bytes(self.key.verify_key), bytes(owner.verify_key)
        end_ms = NOW_MS + 3_600_000
        self.mandate: Signed[Mandate] = sign(
            Mandate(self.id, self.owner, (EXECUTOR, CHECKER), 1, NOW_MS, end_ms, None), owner
        )
        hpke = WORKER.public_key().public_bytes_raw()
        worker_key = sign(WorkerKey(self.id, hpke, NOW_MS, end_ms), self.key)
        self.offer = Offer(self.id, {PUBLISHED.id: PUBLISHED.record}, (OFFERED,), PRICES, worker_key)
        capability = replace(
            HOLDING.capability, node=self.id, mandate=self.mandate.id, roles=(EXECUTOR, CHECKER), served=(OFFERED,),
            prices=PRICES,
        )  # fmt: skip
        self.seen = replace(
            HOLDING, key=self.id, mandate=self.mandate, capability=capability, worker_key=worker_key, asked_at=FRESH_S,
            connectivity=replace(HOLDING.connectivity, node=self.id),
        )  # fmt: skip


ERIN, FRED, CAROL, DAVE, GRACE = RESIDENTS = [Resident(number) for number in range(5)]


@dataclass(kw_only=True)
class Streets(Line):
    """The client's network: each node of the village is in its house."""

    houses: dict[bytes, House]
    begin: Callable[[House, trio.abc.Stream], None]

    def peers(self) -> list[bytes]:
        return list(self.houses)

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = (), *, watched: bool = False) -> Wire:
        ours, theirs = memory_stream_pair()
        self.begin(self.houses[peer], theirs)
        wire = Wire(peer, ours)
        await wire.send(protocol.encode())
        return wire


@dataclass
class Village:
    """The client's side."""

    team: Team
    houses: dict[bytes, House]

    @property
    def history(self) -> History:
        return self.team.auditor.history

    def lies(self, resident: Resident) -> None:
        """From now on, whatever it is asked."""
        self.houses[resident.id].engine.value = LIE

    def only(self, *residents: Resident) -> None:
        """Nobody else is to be had from now on."""
        self.team.discovery.nodes = {resident.id: resident.seen for resident in residents}

    async def text(self, policy: str, *residents: Resident) -> None:
        """A text is written by the first of them who is dealt with, judged by the others and paid."""
        self.only(*residents)
        parameters, writers = Parameters(max_tokens=TOKENS), tuple(resident.id for resident in residents)
        asked = TextRequest(BUNDLE, (1, 2, 3), parameters, (), Policy.parse(policy), 10**6, writers)
        await TextJob(self.team, asked, lambda _: None).run()


@asynccontextmanager
async def village(folder: Path) -> AsyncIterator[Village]:
    """The client has come back: what a process before it left is paid and looked at, as `connect` has it done."""
    houses = {
        each.id: House(folder / f"node-{number}", holds=True, key=each.key, owner=each.owner, offer=each.offer,
                       mandate=each.mandate)
        for number, each in enumerate(RESIDENTS)
    }  # fmt: skip
    with (
        closing(Wallet(folder / "wallet.db", CLIENT)) as wallet,
        closing(History(folder / "history.sqlite")) as history,
    ):
        async with trio.open_nursery() as nursery:

            def begin(house: House, stream: trio.abc.Stream) -> None:
                nursery.start_soon(house.serve, stream)

            streets = Streets(trio.sleep_forever, houses=houses, begin=begin)
            desk, late = desk_of(wallet, streets), Late(history)
            auditor = Auditor(desk, history)
            for channel in await wallet.take_over(wall_ms()):
                desk.settler.add((), channel)
            discovery = Discovery(cast(Network, streets), wall_ms, nursery)
            spots = Spots(auditor, Random(0))
            made = Village(Team(desk, discovery, Experience(), Random(0), auditor, spots, late), houses)
            made.only(*RESIDENTS)
            nursery.start_soon(late.run, made.team, Shelf(), {})
            await wait_all_tasks_blocked()  # it has found what there is to be looked at
            yield made
            await late.idle()
            await desk.settler.drain()
            nursery.cancel_scope.cancel()
    for house in houses.values():
        house.journal.close()
