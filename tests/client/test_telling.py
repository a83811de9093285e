"""What judges have found is told to each node that it is about: once, whoever tries, and whatever goes wrong meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from nacl.signing import SigningKey

from fallow.client.answers import Proof
from fallow.client.bundles import Bundles
from fallow.client.desk import Desk
from fallow.client.disputing import forfeit
from fallow.client.history import History
from fallow.client.late import Late
from fallow.client.settling import Settler
from fallow.client.team import Team
from fallow.client.telling import TRIES_MAX, Told, keep_telling, tell, tell_again
from fallow.client.wallet import Wallet
from fallow.client.wallet_cases import Case
from fallow.client.wallet_tellings import Telling
from fallow.node.accounts import Accounts
from fallow.node.journal import Journal
from fallow.node.log import wall_ms
from fallow.node.network.mesh import open_network
from fallow.node.network.seam import Stream
from fallow.node.network.table_rules import profile_rules
from fallow.protocol.channel import ChannelState, Ground
from fallow.protocol.checks import Finding, Outcome, Standing, Verdict
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import sign, verify_untrusted
from fallow.protocol.grounds import Judged, ground_id
from fallow.protocol.identity import EXECUTOR
from fallow.protocol.messages.codec import decode_message_untrusted, encode_message
from fallow.protocol.messages.payment import GroundReply, GroundRequest, VoucherReply, VoucherRequest
from fallow.protocol.orders import JobOrder
from fallow.protocol.payment import Voucher
from fallow.protocol.prices import Price
from fallow.protocol.receipts import Receipt
from fallow.protocol.streams import GROUND_PROTOCOL, VOUCHER_PROTOCOL
from fallow.protocol.work import Parameters

KEY, OWNER = SigningKey(b"\x01" * 32), b"\x0c" * 32
HOUR_MS = 3_600_000


@dataclass
class Party:
    """A node that keeps what it is told, and the client's channel to it, on which 6 ucr are held."""

    channel: ChannelState
    addresses: tuple[str, ...]
    says: int | None = None
    """What it calls forfeited, if it is not what it is told."""
    told: list[GroundRequest] = field(default_factory=list)
    heard: trio.Event = field(default_factory=trio.Event)

    async def hear(self, stream: Stream) -> None:
        request = decode_message_untrusted(await stream.receive())
        assert isinstance(request, GroundRequest)
        self.told.append(request)
        self.heard.set()
        await stream.send(
            encode_message(GroundReply(ground_of(request), request.ucr if self.says is None else self.says))
        )


@dataclass
class Scene:
    """A client and two nodes."""

    desk: Desk
    wallet: Path
    nodes: list[Party]


def ground_of(request: GroundRequest) -> bytes:
    """Of these tests' verdicts: they are all the same."""
    return ground_id(verify_untrusted(Verdict, request.verdicts[0], signer=bytes(KEY.verify_key)).record)


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    rules, now_ms = profile_rules(wall_ms), wall_ms()
    with trio.fail_after(60), closing(Wallet(folder / "wallet.db", KEY)) as wallet:
        async with AsyncExitStack() as stack:
            network = await stack.enter_async_context(open_network(b"\x0f" * 32, [], [], rules, mode="client"))
            parties = []
            for number in range(2, 4):
                key = SigningKey(bytes([number]) * 32)
                node = await stack.enter_async_context(open_network(bytes(key), ["/ip4/127.0.0.1/tcp/0"], [], rules))
                channel = await wallet.channel(bytes(key.verify_key), OWNER, 0, now_ms)
                for count in range(2):
                    paid = sign(Receipt(bytes([count]) * 32, 0, None, 0, 1, OWNER, (-1,), "c", 3, "final"), key)
                    await wallet.pay(channel, paid, Claim(3, 3, now_ms + HOUR_MS), now_ms)
                assert channel.held_ucr(now_ms) == 6
                party = Party(channel, node.addresses())
                node.serve(GROUND_PROTOCOL, party.hear)
                parties.append(party)
            yield Scene(Desk(network, wallet, Settler(network), KEY, wall_ms), folder / "wallet.db", parties)


def judged(channel: ChannelState) -> Judged:
    """A committee's word; whether it holds was looked at before."""
    finding = Finding(OWNER, OWNER, EXECUTOR, Standing.REFUTED.value, "", (), (), 0, 0)
    verdict = sign(Verdict(OWNER, OWNER, "none", OWNER, (), Outcome.REJECTED.value, (finding,)), KEY)
    anything: Any = channel.channel
    return Judged(channel.channel, anything, anything, (verdict,), (anything,))


async def test_each_of_two_nodes_that_one_verdict_refutes_forfeits(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        for party in at.nodes:
            done = await forfeit(at.desk, party.addresses, party.channel, judged(party.channel))
            assert (done.ucr, done.told) == (6, True)
        for party in at.nodes:
            assert [request.ucr for request in party.told] == [6]
            assert party.channel.held_ucr(wall_ms()) == 0


def telling(party: Party) -> Telling:
    made = judged(party.channel)
    ground = Ground("verdict", ground_id(made.verdicts[0].record))
    envelope = party.channel.channel.envelope
    request = GroundRequest(envelope, envelope, envelope, 0, (made.verdicts[0].envelope,), (envelope,))
    return Telling(b"\x01" * 32, ground, party.channel.channel.id, 6, encode_message(request), party.addresses)


async def test_who_tries_at_the_same_time_tells_it_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        party, found = at.nodes[0], []

        async def once() -> None:
            found.append(await tell(at.desk, telling(party)))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(once)
                nursery.start_soon(tell_again, at.desk)
        assert {(told.ucr, told.arrived) for told in found} == {(6, True)}
        assert [request.ucr for request in party.told] == [6]


async def test_what_another_process_of_the_client_has_told_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        with closing(Wallet(at.wallet, KEY)) as wallet:
            other, made = replace(at.desk, wallet=wallet), telling(at.nodes[0])
            assert await tell(other, made) == Told(0, False)  # whose the channel is tells it
            assert await tell_again(other) == []
            assert await tell_again(at.desk) == [Told(6, True)]
            assert await tell(other, made) == Told(6, True)


async def test_a_wallet_that_another_holds_ends_nobody_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fallow.client.telling.LOOK_S", 0)
    async with scene(tmp_path) as at:
        party, looks = at.nodes[0], 0
        await at.desk.wallet.keep_telling(telling(party))
        at.desk.wallet._disk.database.execute("PRAGMA busy_timeout = 0")
        with closing(sqlite3.connect(at.wallet, isolation_level=None)) as other:

            def now_ms() -> int:
                nonlocal looks
                looks += 1
                if looks == 3:
                    other.execute("ROLLBACK")
                return wall_ms()

            other.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_telling, replace(at.desk, now_ms=now_ms))
                await party.heard.wait()
                nursery.cancel_scope.cancel()
        assert caplog.text.count("nobody is told for now") == 2
        assert [request.ucr for request in party.told] == [6]


async def test_what_cannot_be_judged_or_looked_at_ends_nobody(tmp_path: Path) -> None:
    """A node agreed to two candidates, of whom no committee can be drawn; and the history cannot be read."""
    async with scene(tmp_path) as at:
        channel = at.nodes[0].channel
        node = channel.channel.record.payee
        order = sign(
            JobOrder(
                OWNER, "generate", Parameters(64), 1, 5, 64, OWNER, node, OWNER,
                Price(OWNER, "generate", 0, 1, 4, 0), channel.channel.id, 500, wall_ms(), bytes(16),
                1000, 1000, OWNER, 10**6, HOUR_MS, (b"\x21" * 32, b"\x22" * 32), None, None,
            ),
            KEY,
        )  # fmt: skip
        record = Receipt(order.id, 0, None, 0, 1, OWNER, (-1,), "c", 3, "final")
        receipt = sign(record, SigningKey(b"\x02" * 32))
        refuted = Finding(node, OWNER, EXECUTOR, Standing.REFUTED.value, "", (receipt.id,), (), 0, 3)
        verdict = sign(Verdict(order.id, OWNER, "none", OWNER, (), Outcome.REJECTED.value, (refuted,)), KEY)
        with closing(History(tmp_path / "history.sqlite")) as history:
            late = Late(history)
            proof = Proof((order, receipt)).file()
            case = Case(verdict.id, verdict.envelope, proof, channel.channel.id)
            assert await at.desk.wallet.keep_verdict(verdict, case, wall_ms())
            late.ended(verdict)
            async with trio.open_nursery() as nursery:
                team, bundles = cast(Team, SimpleNamespace(desk=at.desk)), cast(Bundles, None)
                nursery.start_soon(late.run, team, bundles, {})
                await late.idle()
                history._db.execute("ALTER TABLE kept RENAME TO lost")
                late.suspect(OWNER)
                await late.idle()
                again = Late(history)
                again.suspect(OWNER)
                nursery.start_soon(again.run, team, bundles, {})
                await again.idle()
                nursery.cancel_scope.cancel()
        assert late.forfeited == []
        assert not at.desk.wallet._database.execute("SELECT * FROM cases").fetchall(), "nobody can ever judge it"
        assert channel.held_ucr(wall_ms()) == 6


@dataclass
class Away:
    """A node that was away, with its own books and clock. (Whether a ground holds is looked at elsewhere.)"""

    channel: ChannelState
    accounts: Accounts

    async def hear(self, stream: Stream) -> None:
        request = decode_message_untrusted(await stream.receive())
        assert isinstance(request, GroundRequest)
        account, ground = await self.accounts.open(self.channel.channel), Ground("verdict", ground_of(request))
        if taken_ucr := self.accounts.takes(account, ground, request.ucr):
            await self.accounts.forfeit(account, ground, taken_ucr)
        await stream.send(encode_message(GroundReply(ground.id, taken_ucr)))

    async def take(self, stream: Stream) -> None:
        request = decode_message_untrusted(await stream.receive())
        assert isinstance(request, VoucherRequest)
        voucher = verify_untrusted(Voucher, request.voucher, signer=bytes(KEY.verify_key))
        await self.accounts.honour(await self.accounts.open(self.channel.channel), voucher)
        await stream.send(encode_message(VoucherReply(voucher.id)))


@pytest.mark.spec("P-35", "P-36")
@pytest.mark.parametrize(("away_ms", "taken_ucr"), [(0, 90), (HOUR_MS + HOUR_MS // 2, 30), (3 * HOUR_MS, 0)])
async def test_who_was_away_forfeits_what_is_still_held_and_is_paid_on(
    tmp_path: Path, away_ms: int, taken_ucr: int
) -> None:
    """Of 90 that are forfeited, 60 fall due after an hour and 30 after two, before the node can be told."""
    clock, key = [wall_ms()], SigningKey(b"\x02" * 32)
    rules = profile_rules(wall_ms)
    with (
        trio.fail_after(60),
        closing(Wallet(tmp_path / "wallet.db", KEY)) as wallet,
        closing(Journal(tmp_path)) as journal,
    ):
        async with (
            open_network(b"\x0f" * 32, [], [], rules, mode="client") as network,
            open_network(bytes(key), ["/ip4/127.0.0.1/tcp/0"], [], rules) as node,
        ):
            desk = Desk(network, wallet, Settler(network), KEY, lambda: clock[0])
            channel = await wallet.channel(bytes(key.verify_key), OWNER, 0, clock[0])
            away = Away(channel, Accounts(journal, lambda: clock[0]))
            account = await away.accounts.open(channel.channel)

            async def pay(number: int, ucr: int, hold_ms: int) -> None:
                paid = sign(Receipt(bytes([number]) * 32, 0, None, 0, 1, OWNER, (-1,), "c", ucr, "final"), key)
                claim = Claim(ucr, ucr, clock[0] + hold_ms)
                journal.add_receipt(paid, channel.channel.id, claim, clock[0])
                voucher = await wallet.pay(channel, paid, claim, clock[0])
                await away.accounts.honour(account, voucher)

            await pay(0, 60, HOUR_MS)
            await pay(1, 30, 2 * HOUR_MS)
            made = replace(telling(Party(channel, node.addresses())), most_ucr=90)
            assert await tell(desk, made) == Told(90, False)  # it answers nothing yet
            clock[0] += away_ms + 60_000
            node.serve(GROUND_PROTOCOL, away.hear)
            node.serve(VOUCHER_PROTOCOL, away.take)
            assert await tell_again(desk) == [Told(taken_ucr, True)]
            assert await tell_again(desk) == [] and await tell(desk, made) == Told(taken_ucr, True)
            await pay(2, 5, HOUR_MS)
            for side in (channel, account.state):
                assert (side.balance_ucr, side.forfeited_ucr) == (95 - taken_ucr, taken_ucr)
    with closing(Wallet(tmp_path / "wallet.db", KEY)) as again:
        kept = await again.state_of(channel.channel.id, clock[0])
        assert kept is not None and kept.grounds == channel.grounds and kept.latest == channel.latest
        assert again.owed_by_owner() == {OWNER: 95 - taken_ucr}


@pytest.mark.spec("P-36")
async def test_a_node_that_calls_released_what_is_held_is_not_believed(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        party = at.nodes[0]
        party.says = 5
        assert await tell(at.desk, telling(party)) == Told(6, False)
        assert party.channel.forfeited_ucr == 6
        assert party.heard.is_set()


@pytest.mark.parametrize("left_ucr", [6, 4])
async def test_what_was_decided_before_a_crash_is_decided_anew_by_what_is_still_held(
    tmp_path: Path, left_ucr: int
) -> None:
    async with scene(tmp_path) as at:
        party, wallet = at.nodes[0], at.desk.wallet
        made = replace(telling(party), most_ucr=9)
        await wallet.keep_telling(made)
        await wallet.note_telling(replace(made, ucr=9, voucher=b"the one of then"), 0)  # of 9, 3 fell due since
        if left_ucr == 4:
            await wallet.forfeit(party.channel, Ground("evidence", OWNER), 2, wall_ms())
        assert await tell_again(at.desk) == [Told(left_ucr, True)]
        assert [request.ucr for request in party.told] == [left_ucr]
        assert party.channel.grounds[made.ground] == left_ucr


async def test_a_forfeit_for_which_there_is_no_room_stays_to_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as at:
        party = at.nodes[0]
        with monkeypatch.context() as full:
            full.setattr("fallow.protocol.channel.GROUNDS_MAX", 0)
            assert await tell(at.desk, telling(party)) == Told(0, False)
        assert "nothing is forfeited for now" in caplog.text
        assert party.told == []
        assert await tell(at.desk, telling(party)) == Told(6, True)


@pytest.mark.parametrize(("later_ms", "left_ucr"), [(0, 6), (2 * HOUR_MS, 0)])
async def test_what_nobody_would_hear_for_a_week_is_given_up_once_it_is_due(
    tmp_path: Path, later_ms: int, left_ucr: int
) -> None:
    """Its node refuses every voucher that forfeits by it (P-11): without this the channel would be of no use."""
    async with scene(tmp_path) as at:
        party = at.nodes[0]
        party.says = 5  # no answer that is believed
        assert await tell(at.desk, telling(party)) == Told(6, False)
        kept = await at.desk.wallet.telling_of(telling(party).matter)
        assert kept is not None
        await at.desk.wallet.note_telling(replace(kept, tries=TRIES_MAX), 0)
        party.says = 7
        later = replace(at.desk, now_ms=lambda: wall_ms() + later_ms)
        assert await tell_again(later) == [Told(left_ucr, not left_ucr)]
        assert (party.channel.forfeited_ucr, party.channel.balance_ucr) == (left_ucr, 6 - left_ucr)
