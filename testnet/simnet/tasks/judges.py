"""Judges as machines of the simulation: a verifier's own code, put together as `fallow verifier run` does it."""

from __future__ import annotations

from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final

import trio
from nacl.signing import SigningKey

from ....client.arbiter import Arbiter
from ....client.docket import Docket
from ....client.ordering import COMMITTEE_MIN
from ....client.tribunal import Tribunal
from ....node.accounts import Accounts
from ....node.journal import Journal
from ....node.machine import HERE, wall_ms
from ....node.paying import Paying
from ....protocol.envelope import sign
from ....protocol.identity import VERIFIER, Mandate
from ....protocol.limits import MANDATE_MS_MAX
from ....protocol.streams import DISPUTE_PROTOCOL, VERDICT_PROTOCOL
from .chance import chance_for
from .characters import Character
from .engine import SimEngine
from .medium import Place
from .sealing import seal_openly
from .table import TableNetwork
from .world import World

JUDGES: Final = COMMITTEE_MIN
"""As few as there may be for a committee: each of them is drawn for every dispute."""
SLOTS: Final = 4
DOCKET: Final = "docket.sqlite"
ANSWER_MS: Final = 60_000
"""A day, in a simulation of minutes: for so long who is accused may answer."""


@dataclass(frozen=True)
class JudgeSpec:
    """One verifier. Clients and nodes have its owner and address in their own lists; the table does not know it."""

    place: Place
    key: SigningKey
    owner: SigningKey
    character: Character
    """Of the worker by which it runs work again."""


async def run_judge(world: World, spec: JudgeSpec) -> None:
    """It judges, until cancelled."""
    chance, number = chance_for(world.seed, "judging", spec.place.number), spec.place.number
    HERE.set(world.machine(chance, lambda: 0.0))
    state = world.folder / f"judge-{number}"
    state.mkdir()
    with closing(Docket(state / DOCKET)) as docket, closing(Journal(state)) as journal:
        async with trio.open_nursery() as nursery:
            network = TableNetwork(world.medium, spec.place, copy_context(), nursery)
            try:
                rates = {each.signed.id: (each.given.name, each.rates(1.0)) for each in world.bundles}
                engine = SimEngine(rates, SLOTS, chance, number, spec.character, nursery, lambda: None)
                await engine.restart()
                now_ms = wall_ms()
                owner, node = bytes(spec.owner.verify_key), bytes(spec.key.verify_key)
                record = Mandate(node, owner, (VERIFIER,), now_ms, now_ms, now_ms + MANDATE_MS_MAX, None)
                arbiter = Arbiter(spec.key, sign(record, spec.owner), engine, frozenset(rates), seal_openly)
                accounts = world.tills[node] = Accounts(journal, wall_ms)
                tribunal = Tribunal(
                    spec.key, arbiter.mandate, engine, arbiter.bundles, docket, network, wall_ms, accounts,
                    Paying({}, accounts).owe, ANSWER_MS, seal=seal_openly,
                )  # fmt: skip
                network.serve(VERDICT_PROTOCOL, arbiter.serve)
                network.serve(DISPUTE_PROTOCOL, tribunal.serve)
                await trio.sleep_forever()
            finally:
                network.close()
