"""The wallet survives: what was promised, whom to avoid, and a damaged file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from nacl.signing import SigningKey

from fallow.client.wallet import CHANNEL_MS, CLOSE_GRACE_MS, CREDIT_LIMIT_UCR, Wallet
from fallow.client.wallet_file import VERSION, dues, open_file
from fallow.client.wallet_tellings import Telling
from fallow.protocol.channel import ChannelState, Ground, Party
from fallow.protocol.claims import Claim
from fallow.protocol.envelope import Signed, sign, verify_untrusted
from fallow.protocol.errors import Code, LocalProtocolError, Refused, StoreError
from fallow.protocol.limits import HOLD_MS_MAX
from fallow.protocol.payment import LEDGER, Channel, Voucher
from fallow.protocol.receipts import Receipt

KEY, NODE = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
A, B, OWNER = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32


def receipt(number: int) -> Signed[Receipt]:
    return sign(Receipt(bytes([number]) * 32, 0, None, 0, 1, A, (-1,), "c", 5, "final"), NODE)


Opened = Callable[[Path], Wallet]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens the wallet in a folder, as often as a test likes; all are closed after it."""
    wallets: list[Wallet] = []

    def open_wallet(folder: Path) -> Wallet:
        wallets.append(Wallet(folder / "wallet.db", KEY))
        return wallets[-1]

    yield open_wallet
    for wallet in wallets:
        with suppress(sqlite3.ProgrammingError):  # the test has closed it
            wallet.close()


@pytest.mark.spec("P-4")
async def test_vouchers_are_cumulative_and_on_disk_before_they_are_given_out(tmp_path: Path, opened: Opened) -> None:
    wallet = opened(tmp_path)
    channel = await wallet.channel(A, OWNER, 0, 0)
    assert await wallet.channel(A, OWNER, 0, 1) is channel
    first = await wallet.pay(channel, receipt(1), Claim(5), 0)
    second = await wallet.pay(channel, receipt(2), Claim(7), 0)
    assert (first.record.due_ucr, second.record.due_ucr) == (5, 12)
    assert verify_untrusted(Voucher, second.envelope, signer=wallet.payer) == second
    other = await wallet.channel(B, OWNER, 0, 0)
    await wallet.pay(other, receipt(3), Claim(1), 0)
    reader = opened(tmp_path)  # as after a crash: the first one was never closed
    assert reader.owed_by_owner() == {OWNER: 13}


@pytest.mark.spec("P-1")
async def test_another_process_opens_channels_of_its_own(tmp_path: Path, opened: Opened) -> None:
    first = await opened(tmp_path).channel(A, OWNER, 0, 0)
    second = await opened(tmp_path).channel(A, OWNER, 0, 0)
    assert first.channel.id != second.channel.id


async def test_whom_a_verdict_found_at_fault_is_remembered(tmp_path: Path, opened: Opened) -> None:
    await opened(tmp_path).distrust(A, OWNER, "lied", None, 0)
    assert opened(tmp_path).distrusted == {A}


def test_a_damaged_wallet_is_said_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "wallet.db"
    path.write_bytes(b"not a database, certainly" * 100)
    with pytest.raises(StoreError) as caught:
        Wallet(path, KEY)
    assert caught.value.code is Code.CORRUPT_STORE and path.read_bytes().startswith(b"not a database")


async def test_a_channel_that_is_nearly_used_up_is_followed_by_another(tmp_path: Path, opened: Opened) -> None:
    wallet = opened(tmp_path)
    first = await wallet.channel(A, OWNER, 10, 0)
    await wallet.pay(first, receipt(1), Claim(CREDIT_LIMIT_UCR - 5), 0)
    assert await wallet.channel(A, OWNER, 5, 0) is first
    second = await wallet.channel(A, OWNER, 10, 0)
    assert second.room_ucr == CREDIT_LIMIT_UCR
    with pytest.raises(Refused) as caught:
        await wallet.channel(A, OWNER, CREDIT_LIMIT_UCR + 1, 0)
    assert caught.value.code is Code.CREDIT_EXHAUSTED


async def test_what_is_held_is_at_stake_until_it_falls_due(tmp_path: Path, opened: Opened) -> None:
    """It lies on the channel on which work goes on: on another, it could not be forfeited for what is done now. Where a node
    works each day, a week's pay lies there until the channel ends."""
    wallet, day_ms = opened(tmp_path), HOLD_MS_MAX // 7
    channel = await wallet.channel(A, OWNER, 0, 0)
    for day in range(CHANNEL_MS // day_ms):
        assert await wallet.channel(A, OWNER, 0, day * day_ms) is channel
        await wallet.pay(channel, receipt(day), Claim(100, 50, day * day_ms + HOLD_MS_MAX), day * day_ms)
        assert wallet.held_ucr(A, (day + 1) * day_ms - 1) == 50 * min(day + 1, 7)


async def test_a_payment_that_is_cancelled_is_whole_or_not_at_all(tmp_path: Path, opened: Opened) -> None:
    wallet = opened(tmp_path)
    channel = await wallet.channel(A, OWNER, 0, 0)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(wallet.pay, channel, receipt(number), Claim(5), 0)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert channel.promised_ucr == sum(wallet.owed_by_owner().values())
    voucher = await wallet.pay(channel, receipt(99), Claim(1), 0)
    assert voucher.record.due_ucr == wallet.owed_by_owner()[OWNER]


@pytest.mark.spec("P-18")
async def test_what_is_forfeited_is_on_disk_and_owed_no_more(tmp_path: Path, opened: Opened) -> None:
    wallet, ground = opened(tmp_path), Ground("verdict", A)
    channel = await wallet.channel(A, OWNER, 0, 0)
    await wallet.pay(channel, receipt(1), Claim(10, 10, 1_000), 0)
    with pytest.raises(LocalProtocolError):
        await wallet.forfeit(channel, ground, 11, 1)
    voucher = await wallet.forfeit(channel, ground, 4, 1)
    assert (voucher.record.due_ucr, voucher.record.held_ucr, voucher.record.forfeited_ucr) == (0, 6, 4)
    assert await wallet.forfeit(channel, ground, 4, 2) == voucher
    assert opened(tmp_path).owed_by_owner() == {OWNER: 6}
    later = await wallet.pay(channel, receipt(2), Claim(1), 1_000)
    assert (later.record.due_ucr, later.record.held_ucr, later.record.forfeited_ucr) == (7, 0, 4)


@pytest.mark.spec("P-36")
async def test_a_forfeit_is_given_up_on_disk_in_one_piece(tmp_path: Path, opened: Opened) -> None:
    wallet, ground = opened(tmp_path), Ground("verdict", A)
    channel = await wallet.channel(A, OWNER, 0, 0)
    await wallet.pay(channel, receipt(1), Claim(10, 10, 1_000), 0)
    await wallet.forfeit(channel, ground, 4, 1)
    told = Telling(B, ground, channel.channel.id, 4, b"a request", (), ucr=4)
    await wallet.keep_telling(told)
    before = replace(channel, grounds=dict(channel.grounds))
    with closing(sqlite3.connect(tmp_path / "wallet.db", isolation_level=None)) as database:
        database.execute("CREATE TRIGGER torn BEFORE UPDATE ON telling BEGIN SELECT RAISE(ABORT, 'torn'); END")
        with pytest.raises(StoreError):
            await wallet.give_up(channel, told, 1, 2)
        database.execute("DROP TRIGGER torn")
    assert channel == before and opened(tmp_path).owed_by_owner() == {OWNER: 6}
    assert await wallet.give_up(channel, told, 1, 2) == replace(told, ucr=1, told=True)
    assert opened(tmp_path).owed_by_owner() == {OWNER: 9} and channel.grounds == {ground: 1}
    assert channel.latest and (channel.latest.record.due_ucr, channel.latest.record.forfeited_ucr) == (3, 1)
    kept = await wallet.telling_of(B)
    assert kept and kept.told and kept.ucr == 1
    await wallet.give_up(channel, kept, 0, 3)
    assert opened(tmp_path).owed_by_owner() == {OWNER: 10} and channel.grounds == {}


@pytest.mark.spec("P-24")
async def test_what_a_process_left_open_is_taken_over_once_it_has_ended(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path)
    channel = await first.channel(A, OWNER, 0, 0)
    await first.pay(channel, receipt(1), Claim(5), 0)
    await first.keep_receipt(receipt(2), OWNER, channel, Claim(7))
    await first.keep_receipt(receipt(3), OWNER, channel, Claim(9))
    await first.refuse([receipt(3)])
    assert await opened(tmp_path).take_over(1) == []  # the first one lives
    first.close()
    second = opened(tmp_path)
    (state,) = await second.take_over(1)
    assert state.channel == channel.channel
    assert state.latest is not None
    assert (state.promised_ucr, state.latest.record.receipt) == (12, receipt(2).id)
    assert await second.channel(A, OWNER, 0, 1) is state
    assert second.owed_by_owner() == {OWNER: 12}
    second.confirmed(state.channel.id, state.latest.id)
    second.close()
    third = opened(tmp_path)
    assert await third.take_over(1) == []
    again = await third.pay(await third.channel(A, OWNER, 0, 1), receipt(4), Claim(1), 1)
    assert again.record.due_ucr == 13


async def test_nobody_pays_for_what_a_node_at_fault_had_open(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path)
    await first.keep_receipt(receipt(1), OWNER, await first.channel(A, OWNER, 0, 0), Claim(5))
    await first.distrust(A, OWNER, "lied", None, 0)
    first.close()
    assert await opened(tmp_path).take_over(1) == []


async def test_a_channel_whose_grace_is_over_is_left_alone(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path)
    channel = await first.channel(A, OWNER, 0, 0)
    await first.pay(channel, receipt(1), Claim(5), 0)
    first.close()
    assert await opened(tmp_path).take_over(CHANNEL_MS + CLOSE_GRACE_MS) == []


async def test_a_wallet_of_the_version_before_is_carried_over(tmp_path: Path, opened: Opened) -> None:
    record = Channel(
        bytes(KEY.verify_key), A, OWNER, LEDGER, 1000, bytes(16), 0, CHANNEL_MS, CLOSE_GRACE_MS,
    )  # fmt: skip
    channel = ChannelState(Party.PAYER, sign(record, KEY))
    voucher = sign(channel.pay(receipt(1).id, Claim(5), 0), KEY)
    with closing(sqlite3.connect(tmp_path / "wallet.db")) as old, old:
        old.executescript(OLD_SCHEMA)
        old.execute(
            "INSERT INTO channels VALUES (?, ?, ?, ?)", (channel.channel.id, A, OWNER, channel.channel.envelope)
        )
        old.execute("INSERT INTO receipts VALUES (?, ?, ?, ?)", (receipt(1).id, A, OWNER, receipt(1).envelope))
        row = (voucher.id, channel.channel.id, receipt(1).id, 5, voucher.envelope)
        old.execute("INSERT INTO vouchers VALUES (?, ?, ?, ?, ?)", row)
        old.execute("INSERT INTO faults VALUES (?, ?, 'lied', NULL, 0)", (B, OWNER))
    wallet = opened(tmp_path)
    assert (wallet.owed_by_owner(), wallet.distrusted) == ({OWNER: 5}, {B})
    assert await wallet.take_over(1) == []  # its vouchers are of a form that nobody reads; what they promise is owed
    assert dues(tmp_path / "wallet.db", wallet.payer, None, 1) == [(channel.channel.id, A, 5)]
    assert (await wallet.channel(A, OWNER, 0, 1)).channel.id != channel.channel.id


OLD_SCHEMA = """
CREATE TABLE channels (id BLOB PRIMARY KEY, payee BLOB NOT NULL, owner BLOB NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE TABLE receipts (id BLOB PRIMARY KEY, node BLOB NOT NULL, owner BLOB NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE TABLE vouchers (
    id BLOB PRIMARY KEY, channel BLOB NOT NULL REFERENCES channels(id), receipt BLOB NOT NULL UNIQUE,
    added_ucr INTEGER NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE TABLE forfeits (
    ground BLOB NOT NULL, kind TEXT NOT NULL, channel BLOB NOT NULL REFERENCES channels(id), ucr INTEGER NOT NULL,
    voucher BLOB, PRIMARY KEY (channel, kind, ground)) STRICT;
CREATE TABLE verdicts (id BLOB PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE faults (
    node BLOB PRIMARY KEY, owner BLOB NOT NULL, reason TEXT NOT NULL, verdict BLOB, at_ms INTEGER NOT NULL) STRICT;
"""


async def test_what_a_node_is_to_be_told_outlasts_its_process(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path)
    channel = await first.channel(A, OWNER, 0, 0)
    telling = Telling(B, Ground("decision", A), channel.channel.id, 7, b"a request", ("/one", "/two"))
    await first.keep_telling(telling)
    await first.keep_telling(replace(telling, most_ucr=9, addresses=()))
    assert await first.telling_of(B) == telling  # the first one stands
    moved = replace(telling, addresses=("/three",))
    await first.keep_telling(moved)
    assert await first.telling_of(B) == moved
    tried = replace(moved, ucr=5, voucher=b"a voucher", tries=1)
    await first.note_telling(tried, 100)
    second = opened(tmp_path)
    assert await second.tellings(100) == []
    assert await second.state_of(channel.channel.id, 1) is None  # the first one lives
    assert await first.tellings(99) == []
    assert await first.tellings(100) == [tried]
    first.close()
    assert await second.tellings(100) == [tried]
    assert (await second.state_of(channel.channel.id, 1)) == channel
    await second.note_telling(replace(tried, told=True), 100)
    assert await second.tellings(100) == []
    kept = await second.telling_of(B)
    assert kept is not None
    assert kept.told


async def test_what_is_to_be_told_ends_with_its_channel(tmp_path: Path, opened: Opened) -> None:
    wallet = opened(tmp_path)
    channel = await wallet.channel(A, OWNER, 0, 0)
    for matter, told in ((A, True), (B, False)):
        telling = Telling(matter, Ground("verdict", matter), channel.channel.id, 7, b"a request", (), told=told)
        await wallet.keep_telling(telling)
        await wallet.note_telling(telling, 0)
    ends_ms = CHANNEL_MS + CLOSE_GRACE_MS
    assert [one.matter for one in await wallet.tellings(ends_ms - 1)] == [B]
    assert await wallet.telling_of(A) is not None
    assert await wallet.tellings(ends_ms) == []
    assert [await wallet.telling_of(matter) for matter in (A, B)] == [None, None]


_TAKEN_BACK = (
    "DROP TABLE answers;", "DROP TABLE telling;", "DROP TABLE pleas;", "ALTER TABLE answers DROP COLUMN job;",
    "ALTER TABLE answers DROP COLUMN accept; ALTER TABLE answers DROP COLUMN mandate;", "DROP TABLE cases;",
)  # fmt: skip
"""What each version had not that the next one has, from the first on."""


def taken_back(path: Path, version: int) -> None:
    """The wallet's file is as that version made it."""
    with closing(sqlite3.connect(path)) as old:
        for statement in _TAKEN_BACK[: version - 2 if version > 1 else None : -1]:
            old.executescript(statement)
        old.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_wallet_of_any_version_is_carried_over(tmp_path: Path, version: int) -> None:
    path = tmp_path / "wallet.db"

    def tables() -> set[tuple[str, str]]:
        with closing(open_file(path)) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_schema")]
            return {(name, row[1]) for name in names for row in database.execute(f"PRAGMA table_info({name})")}

    new = tables()
    taken_back(path, version)
    assert tables() == new


def test_a_wallet_that_was_not_opened_since_is_old_and_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "wallet.db"
    open_file(path).close()
    taken_back(path, 3)
    with pytest.raises(StoreError, match=r"wallet\.db is of an older version"):
        dues(path, OWNER, None, 0)
    open_file(path).close()
    assert dues(path, OWNER, None, 0) == []
