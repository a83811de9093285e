"""A channel that its node says is spent: no more is ordered on it, but it stays owed, and what it holds can be forfeited."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from fallow.client.answers import Proof
from fallow.client.disputing import settle_disputes
from fallow.client.wallet import Wallet
from fallow.node.network.seam import Network
from fallow.protocol.envelope import sign
from fallow.protocol.identity import peer_id
from fallow.protocol.messages.assurance import VerdictReply
from fallow.protocol.messages.codec import encode_message
from fallow.protocol.policy import draw
from fallow.protocol.receipts import FINAL
from fallow.verifier.case import gather
from fallow.verifier.verdict import judge

from ..verifier.jobs import CLIENT, NOW_MS, Job
from ..verifier.test_disputes import OWNER, PAYEE
from ..verifier.test_grounds import JUDGES, verifier_of
from .test_lapsed import HOLD_MS, Away, Wire, away

NODE = bytes(PAYEE.verify_key)


@dataclass
class Seat:
    """The stream to a judge that comes to what the client has come to."""

    reply: bytes

    async def send(self, frame: bytes) -> None:
        pass

    async def receive(self) -> bytes:
        return self.reply

    async def close(self) -> None:
        pass


@dataclass
class Bench(Wire):
    """The way to the node, and to its judges."""

    replies: dict[bytes, bytes] = field(default_factory=dict)

    async def open(self, peer: bytes, protocol: str, addresses: Sequence[str] = ()) -> Seat:
        return Seat(self.replies[peer])


async def test_nothing_more_is_ordered_on_it_by_whoever_comes_after_and_what_is_owed_is_brought(tmp_path: Path) -> None:
    async with away(tmp_path) as at:
        job = Job("none")
        writer = job.text(10, channel=at.channel.channel.id, held_ppm=10**6, hold_ms=HOLD_MS)
        writer.write(0, 16)
        await at.works(writer, writer.receipt(FINAL))
        await at.desk.wallet.leave(at.channel)
        second = await at.desk.wallet.channel(NODE, OWNER, 1, NOW_MS)
        assert second.channel.id != at.channel.channel.id
        assert await at.desk.wallet.channel(NODE, OWNER, 1, NOW_MS) is second
    with closing(Wallet(tmp_path / "wallet.db", CLIENT)) as again:
        assert [one.channel.id for one in await again.take_over(NOW_MS)] == [at.channel.channel.id]
        assert (await again.channel(NODE, OWNER, 1, NOW_MS)).channel.id == second.channel.id
        assert again.owed_by_owner() == {OWNER: at.channel.balance_ucr}


@pytest.mark.parametrize("left", [False, True])
async def test_what_is_held_on_it_is_forfeited_as_on_any_other(tmp_path: Path, left: bool) -> None:
    """Else whoever has lied would call its channel spent before it is found out."""
    async with away(tmp_path) as at:
        at.wire.state = "whole"
        job = Job("adaptive:1", candidates=tuple(sorted(JUDGES)))
        writer = job.text(10, channel=at.channel.channel.id, held_ppm=10**6, hold_ms=HOLD_MS)
        writer.write(0, 16, 5_000)
        receipt = writer.receipt(FINAL)
        for checker in (11, 12):
            job.check(checker, receipt, 16)
        for ordered in job.ordered:
            ordered.open()
        held_ucr = await at.works(writer, receipt)
        if left:
            await at.desk.wallet.leave(at.channel)
        await at.desk.wallet.channel(NODE, OWNER, 1, NOW_MS)
        found = judge(gather(job.question, job.records, job.openings))
        verdict, bench, judges = sign(found, CLIENT), Bench(at.wire.services, "whole"), dict[bytes, str]()
        for owner in draw(job.nonce, receipt.id, JUDGES, (), 3):
            key, mandate = verifier_of(owner)
            seat = bytes(key.verify_key)
            judges[owner] = f"/judge/{peer_id(seat)}"
            bench.replies[seat] = encode_message(VerdictReply(sign(found, key).envelope, mandate.envelope))
        desk = replace(at.desk, network=cast(Network, bench))
        (forfeited,) = await settle_disputes(desk, judges, {}, verdict, Proof(tuple(job.records), tuple(job.openings)))
        assert (forfeited.node, forfeited.ucr, forfeited.told) == (NODE, held_ucr, True)
        assert both(at) == [held_ucr, held_ucr]


def both(at: Away) -> list[int]:
    """What either side counts as forfeited."""
    return [side.forfeited_ucr for side in (at.channel, at.account.state)]
