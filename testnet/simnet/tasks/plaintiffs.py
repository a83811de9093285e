"""What the owner of a simulated node does about receipts that nobody pays: as `fallow dispute unpaid` or `mismatched`, and what
the judges are owed for it is paid.

The claim is kept apart from the node, as the command keeps it in its owner's home: a node that was killed meanwhile brings the
same one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio
from nacl.signing import SigningKey

from ....client.contesting import Contested, bring, claim, shown, told_by
from ....node.disputes import Disputes
from ....node.earnings import earnings
from ....node.journal import of_receipt
from ....node.machine import wall_ms
from ....node.paid import Payment
from ....protocol.disputes import UPHELD, Decided, Dispute, Kind, matter_id, share_ucr
from ....protocol.envelope import Signed
from ....protocol.errors import Code, FallowError, NetworkError, Refused
from ....protocol.identity import content_hash
from ....protocol.messages.codec import encode_message
from ....protocol.records import identify_untrusted
from ....verifier.disputes import NOT_OPENED
from .bundles import SimBundle
from .judges import ANSWER_MS
from .table import TableNetwork
from .world import World

PATIENCE_MS: Final = 30_000
"""So long after a receipt its owner waits for a voucher: one whose stream broke is brought on another within seconds."""
LOOK_S: Final = 15.0
FEE_UCR: Final = 9
"""Three for each judge, as the testnet's false accuser offers."""
TRIES_MAX: Final = 8
"""After that, the owner lets it be."""


@dataclass
class Claim:
    """One order that was taken before judges, or is to be."""

    contested: Contested
    dispute: Signed[Dispute]
    proof: bytes
    tries: int = 0
    decided: Decided | None = None
    told: bool = False
    """It is in the node's own books."""


@dataclass
class Plaintiff:
    """The owner of one node, over all its lives."""

    claims: dict[bytes, Claim] = field(default_factory=dict)
    """By order."""
    mismatched: set[bytes] = field(default_factory=set)
    """Payers who have opened another prompt than they had ordered."""

    async def watch(
        self,
        world: World,
        network: TableNetwork,
        state: Path,
        key: SigningKey,
        disputes: Disputes,
    ) -> None:
        """What the node is not paid for is taken before judges, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            for receipt in _unpaid(state):
                self._claim(receipt, state, key, world.bundles)
            for each in self.claims.values():
                await self._go_on(world, network, each, key, disputes)

    def _claim(self, receipt: bytes, state: Path, key: SigningKey, bundles: Sequence[SimBundle]) -> None:
        """One claim for each order, about the latest receipt that nobody has paid."""
        records: dict[bytes, Signed[Any]] = {one.id: one for one in map(identify_untrusted, of_receipt(state, receipt))}
        order = records[records[receipt].record.order]
        if order.id in self.claims or not order.record.candidates:
            return
        records |= {each.signed.id: each.signed for each in bundles if each.signed.id == order.record.bundle}
        contested, proof = Contested(records[order.record.channel], order, records[receipt]), shown([*records.values()])
        kind = Kind.MISMATCHED if order.signer in self.mismatched else Kind.UNPAID
        fee_ucr = FEE_UCR if contested.receipt.record.amount_ucr >= FEE_UCR else 0
        dispute = claim(kind, contested, proof, key, wall_ms(), fee_ucr=fee_ucr, answer_ms=ANSWER_MS)
        self.claims[order.id] = Claim(contested, dispute, proof)

    async def _go_on(
        self, world: World, network: TableNetwork, each: Claim, key: SigningKey, disputes: Disputes
    ) -> None:
        """The next step of a claim: it is brought, or the node is told what was decided, and the judges are paid."""
        number = network.place.number
        if each.decided is None and each.tries < TRIES_MAX:
            try:
                with trio.fail_after(ANSWER_MS / 1000):
                    each.decided = await bring(
                        network, world.judges, each.contested, each.dispute, each.proof, key, wall_ms()
                    )
            except Refused as refused:
                each.tries += refused.code is not Code.TIMED_OUT  # the accused may still answer
                return world.log.write(number, "not_judged", str(refused.code))
            except (FallowError, trio.TooSlowError):
                each.tries += 1
                return world.log.write(number, "not_judged", "unreachable")
            decision = each.decided.decisions[0].record
            world.log.write(number, "judged", str(each.dispute.record.kind), decision.outcome, decision.fee_ucr)
            if decision.outcome == UPHELD and decision.reason == NOT_OPENED:
                self.mismatched.add(each.contested.order.signer)
        if each.decided is not None and not each.told:
            await disputes.answer(_Told(network.key, encode_message(told_by(each.decided))))
            each.told = True
            world.decided.append((number, each.decided))
            await _pay(world, each.decided, bytes(key.verify_key))


async def _pay(world: World, decided: Decided, claimant: bytes) -> None:
    """Each judge that has signed has its part, at its bank, and has booked it by hand."""
    part_ucr = share_ucr(decided.decisions[0].record.fee_ucr)
    for decision in decided.decisions if part_ucr else ():
        reference = matter_id(decided.dispute.record).hex()
        paid = Payment(
            content_hash(decision.id + claimant), claimant, "manual", part_ucr, 0, reference, wall_ms()
        )  # fmt: skip
        await world.tills[decision.signer].take(paid)


def _unpaid(state: Path) -> list[bytes]:
    """The latest receipt of each order that no voucher covers, and for which one has had time to come."""
    rows = [
        each for each in earnings(state) if each.voucher is None and each.owed_ucr > each.paid_ucr + each.forfeited_ucr
    ]
    due = [each for each in rows if each.issued_ms + PATIENCE_MS < wall_ms()]
    return [each.receipt for each in sorted(due, key=lambda each: -each.window)]


class _Told:
    """The owner's command at its own node, as a stream: one frame, and the answer to it."""

    sent_bytes = 0

    def __init__(self, peer: bytes, frame: bytes) -> None:
        self.peer = peer
        self._frames = [frame]

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._frames:
            raise NetworkError(Code.STREAM_CLOSED, "this was all")
        return self._frames.pop()

    async def send(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    async def reset(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
