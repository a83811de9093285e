"""The client's money and memory in SQLite: channels, receipts, vouchers, verdicts, and whom it no longer deals with.

Written before it is sent: a voucher that a node holds is always known here too. One thread writes.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio
from nacl.signing import SigningKey

from ..protocol.channel import ChannelState, Ground, Party
from ..protocol.checks import Verdict
from ..protocol.claims import Claim
from ..protocol.envelope import Signed, sign
from ..protocol.errors import Code, Refused, StoreError
from ..protocol.payment import LEDGER, Channel, Voucher
from ..protocol.receipts import Receipt

T = TypeVar("T")

CREDIT_LIMIT_UCR = 100_000_000
"""Of one channel: what this process may come to owe one node, and more than a day of one node's work at default prices."""
CHANNEL_MS = 24 * 3600 * 1000
"""A process that runs longer opens new channels."""
CLOSE_GRACE_MS = 7 * 24 * 3600 * 1000

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
CREATE TABLE IF NOT EXISTS channels (
    id BLOB PRIMARY KEY, payee BLOB NOT NULL, owner BLOB NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS receipts (
    id BLOB PRIMARY KEY, node BLOB NOT NULL, owner BLOB NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS vouchers (
    id BLOB PRIMARY KEY, channel BLOB NOT NULL REFERENCES channels(id), receipt BLOB NOT NULL UNIQUE,
    added_ucr INTEGER NOT NULL, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS forfeits (
    ground BLOB NOT NULL, kind TEXT NOT NULL, channel BLOB NOT NULL REFERENCES channels(id), ucr INTEGER NOT NULL,
    voucher BLOB, PRIMARY KEY (channel, kind, ground)) STRICT;
CREATE TABLE IF NOT EXISTS verdicts (id BLOB PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS faults (
    node BLOB PRIMARY KEY, owner BLOB NOT NULL, reason TEXT NOT NULL, verdict BLOB, at_ms INTEGER NOT NULL) STRICT;
"""


class Wallet:
    """Channels of this process, and everything that was ever signed on them."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        self._key = key
        self._money = trio.Lock()
        """Held from reading a channel's counters to having the new ones on disk."""
        self._writer = trio.CapacityLimiter(1)
        self._channels: dict[bytes, ChannelState] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.executescript(_SCHEMA)
            rows = self._database.execute("SELECT node FROM faults").fetchall()
        except (sqlite3.DatabaseError, OSError) as error:
            raise StoreError(
                Code.CORRUPT_STORE, f"The wallet {path} cannot be read ({error}); it was left as it is."
            ) from None
        self.distrusted: set[bytes] = {row[0] for row in rows}
        """Nodes that a verdict of ours found at fault: not picked again."""

    @property
    def payer(self) -> bytes:
        """The client's public key."""
        return bytes(self._key.verify_key)

    def close(self) -> None:
        """Everything is on disk."""
        self._database.close()

    async def channel(self, node: bytes, owner: bytes, needed_ucr: int, now_ms: int) -> ChannelState:
        """This process's channel to a node, on disk, with room for `needed_ucr`; opened now if there is none that lasts.

        Raises `Refused(credit_exhausted)` for more than any channel's limit.
        """
        if needed_ucr > CREDIT_LIMIT_UCR:
            raise Refused(
                Code.CREDIT_EXHAUSTED, f"{needed_ucr} ucr are more than a channel's limit of {CREDIT_LIMIT_UCR}."
            )
        async with self._money:
            state = self._channels.get(node)
            if state and now_ms < state.channel.record.expires_ms and state.room_ucr >= needed_ucr:
                return state
            record = Channel(
                self.payer,
                node,
                owner,
                LEDGER,
                CREDIT_LIMIT_UCR,
                secrets.token_bytes(16),
                now_ms,
                now_ms + CHANNEL_MS,
                CLOSE_GRACE_MS,
            )
            state = ChannelState(Party.PAYER, sign(record, self._key))
            channel = state.channel
            await self._write("INSERT INTO channels VALUES (?, ?, ?, ?)", channel.id, node, owner, channel.envelope)
            self._channels[node] = state
            return state

    async def keep_receipt(self, receipt: Signed[Receipt], owner: bytes) -> None:
        """The receipt is on disk."""
        await self._write(
            "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", receipt.id, receipt.signer, owner, receipt.envelope
        )

    def channel_to(self, node: bytes) -> ChannelState | None:
        """This process's channel to the node, if it has opened one."""
        return self._channels.get(node)

    def held_ucr(self, node: bytes, now_ms: int) -> int:
        """What this process holds back of the node's pay."""
        state = self._channels.get(node)
        return state.held_ucr(now_ms) if state else 0

    async def pay(self, channel: ChannelState, receipt: Signed[Receipt], claim: Claim, now_ms: int) -> Signed[Voucher]:
        """A voucher that answers the receipt, on disk and ready to be sent. Once begun, it is not left half done."""
        async with self._money:
            voucher = sign(channel.pay(receipt.id, claim, now_ms), self._key)
            with trio.CancelScope(shield=True):  # as long as a commit takes
                await self._write(
                    "INSERT INTO vouchers VALUES (?, ?, ?, ?, ?)",
                    voucher.id,
                    channel.channel.id,
                    receipt.id,
                    claim.owed_ucr,
                    voucher.envelope,
                )
                channel.paid(voucher, claim)
            return voucher

    async def forfeit(self, channel: ChannelState, ground: Ground, ucr: int, now_ms: int) -> Signed[Voucher]:
        """A voucher without so much of what was held, on disk with the ground, and ready to be sent after it.

        Our caller has judged the verdict or evidence. Raises `LocalProtocolError` for more than is held, or after its release.
        """
        async with self._money:
            channel.check_forfeit(ground, ucr, now_ms)
            with trio.CancelScope(shield=True):  # as long as two commits take
                key = (channel.channel.id, ground.kind, ground.id)
                await self._write(
                    "INSERT OR IGNORE INTO forfeits (channel, kind, ground, ucr) VALUES (?, ?, ?, ?)", *key, ucr
                )
                channel.forfeit(ground, ucr, now_ms)
                voucher = sign(channel.restate(now_ms), self._key)
                await self._write(
                    "UPDATE forfeits SET voucher = ? WHERE channel = ? AND kind = ? AND ground = ?",
                    voucher.envelope,
                    *key,
                )
                channel.paid(voucher, channel.named[voucher.record.receipt])
            return voucher

    async def keep_verdict(self, verdict: Signed[Verdict]) -> None:
        """The verdict is on disk."""
        await self._write("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", verdict.id, verdict.envelope)

    async def distrust(self, node: bytes, owner: bytes, reason: str, verdict: bytes | None, now_ms: int) -> None:
        """The node is not picked again, by this process or a later one."""
        self.distrusted.add(node)
        await self._write("INSERT OR REPLACE INTO faults VALUES (?, ?, ?, ?, ?)", node, owner, reason, verdict, now_ms)

    def sign_verdict(self, verdict: Verdict) -> Signed[Verdict]:
        """A client's own verdict: it stops its own dealings, and anyone can recompute it."""
        return sign(verdict, self._key)

    def owed_by_owner(self) -> dict[bytes, int]:
        """Micro-credits promised and not forfeited, by the owner they are promised to, over all channels of this wallet."""
        rows = self._database.execute(
            """SELECT owner, SUM(ucr) FROM channels JOIN (
                   SELECT channel, added_ucr AS ucr FROM vouchers UNION ALL SELECT channel, -ucr FROM forfeits
               ) ON channel = channels.id GROUP BY owner"""
        )
        return dict(rows.fetchall())

    async def _write(self, statement: str, *values: bytes | int | str | None) -> None:
        await _in_thread(self._writer, partial(self._database.execute, statement, values))


async def _in_thread(limiter: trio.CapacityLimiter, call: Callable[[], T]) -> T:
    """A commit waits for the disk, so it may not run in the loop; and once begun it is not abandoned."""
    try:
        return await trio.to_thread.run_sync(call, limiter=limiter)
    except sqlite3.DatabaseError as error:
        raise StoreError(
            Code.CORRUPT_STORE, f"The wallet could not be written ({error}); what it held before is kept."
        ) from None
