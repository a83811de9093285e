"""A verdict that waits for its judges: on disk, until enough of them have signed it, will not, or nothing is held any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing

from fallow.client import wallet_cases
from fallow.client.bundles import Bundles
from fallow.client.disputing import FIRST_MS, LAST_MS, MOST_MS, settle_case
from fallow.client.dossier import Dossier
from fallow.client.history import History
from fallow.client.late import Late
from fallow.client.team import Team
from fallow.client.wallet import Wallet
from fallow.protocol.errors import Code
from fallow.protocol.limits import HOLD_MS_MAX
from fallow.protocol.policy import Policy

from ..verifier.jobs import CLIENT, MANIFEST, NOW_MS
from .bench import Lied, lied
from .test_lapsed import HOLD_MS, Away, away
from .test_spent import both


async def settle(liar: Lied) -> list[int]:
    """What was forfeited by the case that is due now; none if none is."""
    case = await liar.desk.wallet.due_case(liar.desk.now_ms())
    return [each.ucr for each in await settle_case(liar.desk, liar.addresses, case)] if case else []


@asynccontextmanager
async def looking(at: Away, liar: Lied, folder: Path) -> AsyncIterator[Late]:
    """As a client that runs."""
    with closing(History(folder / "history.sqlite")) as history:
        late, team = Late(history), cast(Team, SimpleNamespace(desk=liar.desk))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late.run, team, cast(Bundles, None), liar.addresses)
            yield late
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("there", [0, 1])
async def test_judges_that_cannot_be_had_are_asked_again_later(tmp_path: Path, there: int) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        assert await liar.keep()
        liar.sit(there)
        assert await settle(liar) == []
        asked = liar.bench.asked
        assert asked == len(liar.addresses)
        at.clock[0] += FIRST_MS - 1
        assert await settle(liar) == []
        assert liar.bench.asked == asked
        at.clock[0] += 1
        liar.sit()
        assert await settle(liar) == [liar.held_ucr]
        assert both(at) == [liar.held_ucr] * 2
        assert not liar.waiting()


async def test_the_more_often_in_vain_the_longer_until_the_next_time_and_once_more_at_last(tmp_path: Path) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        await liar.keep()
        released_ms, tried = NOW_MS + HOLD_MS, []
        while at.clock[0] < released_ms:
            assert await settle(liar) == []
            ((tries, next_ms),) = liar.waiting()
            tried.append(next_ms - at.clock[0])
            assert tries == len(tried)
            at.clock[0] = next_ms
        assert tried[:10] == [min(MOST_MS, FIRST_MS << tries) for tries in range(10)]
        assert released_ms - LAST_MS == at.clock[0] - tried[-1], "the last try while anything is held"
        assert await settle(liar) == []
        assert not liar.waiting()


async def test_nobody_is_asked_again_once_nothing_is_held(tmp_path: Path) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        await liar.keep()
        assert await settle(liar) == []
        at.clock[0] += HOLD_MS + 1
        asked = liar.bench.asked
        assert await settle(liar) == []
        assert liar.bench.asked == asked
        assert not liar.waiting()


@pytest.mark.parametrize(
    ("code", "again"),
    [(Code.BUSY, True), (Code.WORKER_DIED, True), (Code.REJECTED, False), (Code.INPUT_MISMATCH, False)],
)
async def test_who_cannot_now_is_asked_again_and_who_comes_to_something_else_is_not(
    tmp_path: Path, code: Code, again: bool
) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        await liar.keep()
        liar.refuse(code)
        assert await settle(liar) == []
        assert bool(liar.waiting()) == again


async def test_a_judge_of_whom_nobody_says_where_it_is_may_be_found_later(tmp_path: Path) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        await liar.keep()
        known, liar.addresses = liar.addresses, {}
        assert await settle(liar) == []
        liar.sit()
        liar.addresses = known
        at.clock[0] += FIRST_MS
        assert await settle(liar) == [liar.held_ucr]


async def test_a_later_process_goes_on_with_what_one_has_left_and_no_other_does(tmp_path: Path) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        await liar.keep()
        with closing(Wallet(tmp_path / "wallet.db", CLIENT)) as beside:
            assert await beside.due_case(NOW_MS) is None, "whose the channel is brings it"
        at.desk.wallet._tenure.end()  # its process has
        with closing(Wallet(tmp_path / "wallet.db", CLIENT)) as after:
            assert await after.due_case(NOW_MS) == liar.case
            liar.desk = replace(liar.desk, wallet=after)
            liar.sit()
            assert await settle(liar) == [liar.held_ucr]
            assert at.account.state.forfeited_ucr == liar.held_ucr
            assert not liar.waiting()


async def test_only_so_many_are_kept_and_none_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallet_cases, "CASES_MAX", 0)
    async with away(tmp_path) as at:
        liar = await lied(at)
        assert not await liar.keep()
        assert not liar.waiting()
        monkeypatch.undo()
        assert await liar.keep()
        assert await at.desk.wallet.due_case(NOW_MS + HOLD_MS_MAX) == liar.case
        assert await at.desk.wallet.due_case(NOW_MS + HOLD_MS_MAX + 1) is None


async def test_whoever_looks_back_looks_from_time_to_time_for_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fallow.client.late.LOOK_S", 0.1)
    async with away(tmp_path) as at:
        liar = await lied(at)
        async with looking(at, liar, tmp_path) as late:
            await liar.keep()
            late.ended(liar.verdict)
            await late.idle()
            assert liar.bench.asked == len(liar.addresses) and not late.forfeited
            liar.sit()
            at.clock[0] += FIRST_MS
            with trio.fail_after(30):
                while not late.forfeited:
                    await trio.testing.wait_all_tasks_blocked(0.01)
        assert both(at) == [liar.held_ucr] * 2


async def test_who_is_interrupted_while_judges_think_does_not_wait_for_them_the_next_time(tmp_path: Path) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        await liar.keep()
        liar.bench.silent = True
        async with looking(at, liar, tmp_path):
            await liar.bench.opened.wait()
        assert liar.waiting() == [(1, NOW_MS + FIRST_MS)]
        at.clock[0] += FIRST_MS
        liar.bench.opened = trio.Event()
        async with looking(at, liar, tmp_path) as late:
            await liar.bench.opened.wait()
            await late.idle()


async def test_a_new_verdict_does_not_wait_for_what_was_left(tmp_path: Path) -> None:
    """Of those that wait from before one is under way, and there are more."""
    async with away(tmp_path) as at:
        liar = await lied(at)
        wallet, old = at.desk.wallet, [bytes([number]) * 32 for number in range(1, 4)]
        for id in old:
            await wallet._disk.write(
                ("INSERT INTO verdicts VALUES (?, ?)", (id, liar.case.verdict)),
                ("INSERT INTO cases VALUES (?, ?, ?, 1, 0, ?)", (id, liar.case.channel, NOW_MS, liar.case.proof)),
            )
        liar.bench.silent = True
        async with looking(at, liar, tmp_path) as late:
            await liar.bench.opened.wait()
            await liar.keep()
            late.ended(liar.verdict)
            liar.bench.opened = trio.Event()
            liar.bench.go_on()
            await liar.bench.opened.wait()
            assert liar.waiting()[-1][0] == 1, "it comes next"
            liar.bench.go_on()
            await late.idle()
            assert len(liar.waiting()) == len(old) + 1


async def test_what_cannot_be_read_keeps_nothing_else_from_its_judges(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        await liar.keep()
        at.desk.wallet._database.execute("PRAGMA foreign_keys = OFF")
        for number, (envelope, proof) in enumerate([(b"no", b"no"), (liar.case.verdict, b"no")], 1):
            await at.desk.wallet._disk.write(
                ("INSERT INTO verdicts VALUES (?, ?)", (bytes([number]) * 32, envelope)),
                (
                    "INSERT INTO cases VALUES (?, ?, ?, 0, 0, ?)",
                    (bytes([number]) * 32, liar.case.channel, NOW_MS, proof),
                ),
            )
        await at.desk.wallet._disk.write(("UPDATE cases SET next_ms = 1 WHERE verdict = ?", (liar.case.id,)))
        liar.sit()
        async with looking(at, liar, tmp_path) as late:
            late.ended(liar.verdict)
            await late.idle()
            assert [each.ucr for each in late.forfeited] == [liar.held_ucr]
        assert not liar.waiting()
        assert caplog.text.count("cannot be read") == 2


async def test_a_verdict_is_kept_and_counts_where_there_is_no_room_for_its_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with away(tmp_path) as at:
        liar = await lied(at)
        wallet, dossier = at.desk.wallet, Dossier(MANIFEST, Policy.parse(liar.job.policy))
        dossier.keep(*liar.job.records, liar.verdict)

        async def kept() -> tuple[bool, list[bytes]]:
            room = await dossier._keep(wallet, liar.verdict, NOW_MS)
            return room, [id for (id,) in wallet._database.execute("SELECT id FROM verdicts")]

        monkeypatch.setattr(wallet_cases, "CASES_MAX", 0)
        assert await kept() == (False, [liar.verdict.id])
        monkeypatch.undo()
        wallet._database.execute("DELETE FROM verdicts")
        wallet._database.execute("ALTER TABLE cases RENAME TO gone")
        assert await kept() == (False, [liar.verdict.id])
        assert caplog.text.count("brought before no judges") == 2
        wallet._database.execute("ALTER TABLE gone RENAME TO cases")
        assert await kept() == (True, [liar.verdict.id])
        case = await wallet.due_case(NOW_MS)
        assert case and (case.id, case.channel) == (liar.verdict.id, at.channel.channel.id)
