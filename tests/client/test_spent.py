"""A channel that its node says is spent: no more is ordered on it, but it stays owed, and what it holds can be forfeited."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fallow.client.disputing import settle_case
from fallow.client.wallet import Wallet
from fallow.protocol.receipts import FINAL

from ..verifier.jobs import CLIENT, NOW_MS, Job
from ..verifier.test_disputes import OWNER, PAYEE
from .bench import lied
from .test_lapsed import HOLD_MS, Away, away

NODE = bytes(PAYEE.verify_key)


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
        liar = await lied(at)
        if left:
            await at.desk.wallet.leave(at.channel)
        await at.desk.wallet.channel(NODE, OWNER, 1, NOW_MS)
        liar.sit()
        (forfeited,) = await settle_case(liar.desk, liar.addresses, liar.case)
        assert (forfeited.node, forfeited.ucr, forfeited.told) == (NODE, liar.held_ucr, True)
        assert both(at) == [liar.held_ucr] * 2


def both(at: Away) -> list[int]:
    """What either side counts as forfeited."""
    return [side.forfeited_ucr for side in (at.channel, at.account.state)]
