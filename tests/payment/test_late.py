"""A look back among work that goes on: what has not ended waits, and what is found wrong counts once, whoever can judge it."""

from __future__ import annotations

from pathlib import Path

import trio

from fallow.client.late import WHY
from fallow.protocol.envelope import verify_untrusted
from fallow.protocol.receipts import Receipt

from .village import CAROL, ERIN, RESIDENTS, Village, village

UNCHECKED = "audit:1"


def orders_kept(at: Village) -> set[bytes]:
    """Of Erin's work that was taken unchecked."""
    kept = at.history.kept(ERIN.owner, at.team.desk.now_ms())
    return {verify_untrusted(Receipt, each.receipt, signer=ERIN.id).record.order for _, each in kept}


async def lied(at: Village) -> None:
    """Erin has lied, unseen."""
    at.lies(ERIN)
    await at.text(UNCHECKED, ERIN, CAROL)
    at.only(*RESIDENTS)
    assert orders_kept(at)


async def test_what_is_still_under_way_is_looked_at_once_something_has_ended(tmp_path: Path) -> None:
    """Until then nothing opens its order: nobody could be asked to forfeit what is held of it."""
    with trio.fail_after(60):
        async with village(tmp_path) as at:
            await lied(at)
            under_way = orders_kept(at)
            at.team.desk.under_way.update(under_way)
            late = at.team.late
            late.suspect(ERIN.owner)
            await late.idle()
            assert (late.looked_at, late.wrong, orders_kept(at)) == (0, [], under_way)
            at.team.desk.under_way.clear()
            await at.text("adaptive:20000", CAROL, *RESIDENTS[3:])
            await late.idle()
            assert late.wrong and not orders_kept(at)
            assert at.history.at_fault(ERIN.id, WHY)


async def test_a_wallet_that_cannot_be_read_keeps_nobody_from_being_found_at_fault(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with village(tmp_path) as at:
            await lied(at)
            at.team.desk.wallet._database.execute("ALTER TABLE answers RENAME COLUMN opening TO gone")
            late = at.team.late
            for _ in range(2):
                late.suspect(ERIN.owner)
                await late.idle()
            faults = [reason for _, node, reason, _ in at.history.all_faults() if node == ERIN.id]
            assert faults == [WHY] and len(late.wrong) == 1
            assert orders_kept(at), "another time the wallet may be read, and judges be asked"
