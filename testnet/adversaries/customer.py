"""A client that attacks: joined and ordering as anybody does, up to the point where it departs from the rules."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import trio

from ...client import connect
from ...client.bundles import ClientBundle
from ...client.desk import Desk
from ...client.events import Broken, Delivered, Receipted
from ...client.execution import Execution, execute
from ...client.mesh import Mesh
from ...client.nodes import Node
from ...client.ordering import Request
from ...client.scheduler import Need
from ...client.team import Team
from ...protocol.bundle import GENERATE, Manifest
from ...protocol.envelope import Signed
from ...protocol.errors import FallowError
from ...protocol.identity import peer_key_untrusted
from ...protocol.policy import check_commitment
from ...protocol.receipts import FINAL, Receipt
from ...protocol.work import Parameters, Work

PROMPT = "Go on."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack came to."""

    adversary: str
    trick: str
    node: str
    """Peer id of the one attacked."""
    tokens: int
    """Delivered to the attacker."""
    owed_ucr: int
    """Their price, by the node's receipts."""
    paid_ucr: int
    """Of that, what a voucher promises that the node can hold the attacker to."""
    stopped_by: str
    """Code of what ended it; empty if nothing did."""


class Customer:
    """One client, before one node and with an eye on another."""

    def __init__(
        self,
        team: Team,
        opened: ClientBundle,
        prompt: tuple[int, ...],
        judges: Mapping[bytes, str] = MappingProxyType({}),
    ) -> None:
        """`judges` are addresses of verifiers, by owner."""
        self.judges = judges
        self._team = team
        self._opened = opened
        self._prompt = prompt

    @property
    def desk(self) -> Desk:
        return self._team.desk

    @property
    def manifest(self) -> Signed[Manifest]:
        """Of the bundle that it orders."""
        return self._opened.signed

    async def node(self, *avoid: Node, wanted: bytes | None = None) -> Node:
        """One that takes the work, and is none of those. Raises `Refused(no_executor)`."""
        cap_ucr = 10**9
        need = Need(
            self._opened.hash, GENERATE, 1, len(self._prompt), 1, cap_ucr, avoid_nodes=frozenset(n.key for n in avoid)
        )
        return await self._team.pick(need, [wanted] if wanted else ())

    def request(self, tokens: int) -> Request:
        """An unchecked text of so many tokens."""
        return Request(
            self._opened.hash, self._opened.manifest, GENERATE, Work((self._prompt,)), Parameters(max_tokens=tokens),
            tokens, check_commitment(bytes(32), "none"),
        )  # fmt: skip

    @asynccontextmanager
    async def job(self, node: Node, tokens: int) -> AsyncIterator[Execution]:
        """The text is ordered from the node; how it is paid is the attacker's affair."""
        async with execute(self.desk, node, self.request(tokens)) as execution:
            yield execution


async def bought(execution: Execution) -> tuple[int, list[Signed[Receipt]]]:
    """Tokens and receipts of the whole text, each of them paid. Raises `FallowError` if it breaks off."""
    tokens, receipts = 0, list[Signed[Receipt]]()
    async for event in execution.events:
        match event:
            case Delivered(piece):
                tokens += len(piece.tokens)
            case Receipted(receipt):
                receipts.append(receipt)
                await execution.pay(event)
                if receipt.record.end == FINAL:
                    break
            case Broken(error):
                raise error
            case _:
                pass
    return tokens, receipts


@asynccontextmanager
async def customer(mesh: Mesh, bundle: str) -> AsyncIterator[Customer]:
    """A customer of the mesh for one bundle."""
    opened = await mesh._open(bundle, GENERATE)
    yield Customer(mesh._team, opened, opened.tokenizer.prompt(PROMPT), mesh._trust.verifiers)


Attack = Callable[[Customer, bytes | None], Awaitable[list[Outcome]]]
"""(customer, key of the node to be attacked) to what came of it."""


def main(attack: Attack) -> None:
    """One JSON line for each trick. The process ends with 0 if each was stopped, and with 1 if one got away."""
    parser = argparse.ArgumentParser(description="Attack a test network as a client.")
    parser.add_argument("--bootstrap", required=True, help="addresses to join by, comma-separated")
    parser.add_argument("--home", type=Path, required=True, help="where the attacker's keys and bundles are")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--node", help="peer id of the node to be attacked; else whoever is chosen")
    options = parser.parse_args()
    wanted = peer_key_untrusted(options.node) if options.node else None

    async def run() -> list[Outcome]:
        async with (
            connect(options.bootstrap.split(","), home=options.home) as mesh,
            customer(mesh, options.bundle) as attacker,
        ):
            return await attack(attacker, wanted)

    try:
        outcomes = trio.run(run)
    except FallowError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    for outcome in outcomes:
        print(json.dumps(asdict(outcome)), flush=True)
    raise SystemExit(0 if all(outcome.stopped_by for outcome in outcomes) else 1)
