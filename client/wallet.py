"""The client's money and memory in SQLite: channels, receipts, vouchers, verdicts, and whom it no longer deals with.

Written before it is sent: a voucher that a node holds is always known here too. One thread writes. What a process that
died left behind is taken over by the next: its channels, the receipts that it had not answered yet, and the vouchers of
which it does not know that they arrived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import trio
from nacl.signing import SigningKey

from ..node.machine import beside, chance
from ..node.transaction import transaction
from ..protocol.channel import ChannelState, Ground, Party
from ..protocol.checks import Verdict
from ..protocol.claims import Claim, Claims
from ..protocol.envelope import Signed, sign, verify_untrusted
from ..protocol.errors import Code, LocalProtocolError, Refused, StoreError
from ..protocol.limits import HOLD_MS_MAX
from ..protocol.opening import Opening
from ..protocol.payment import LEDGER, Channel, Voucher
from ..protocol.receipts import Receipt
from .wallet_file import Tenure, open_file

T = TypeVar("T")
Statement: TypeAlias = tuple[str, tuple[bytes | int | str | None, ...]]

CREDIT_LIMIT_UCR = 100_000_000
"""Of one channel: what this process may come to owe one node, and more than a day of one node's work at default prices."""
CHANNEL_MS = HOLD_MS_MAX
"""As long as pay is held, which is what a lie is weighed against: what is held on one channel cannot be forfeited for a lie on
another, so with a new channel each day a node had nothing to lose each morning, and its next windows were all checked."""
CLOSE_GRACE_MS = 7 * 24 * 3600 * 1000

ANSWERABLE_MS: Final = 2 * HOLD_MS_MAX
"""An order may be taken before judges for a week, and the answer be asked for another one."""


@dataclass(frozen=True, slots=True)
class Telling:
    """What judges have found, which is to be told to the node of a channel."""

    matter: bytes
    """By which it is known: it is told once."""
    ground: Ground
    channel: bytes
    most_ucr: int
    """What may be forfeited."""
    request: bytes
    """The message that tells it, encoded, with the amount left open."""
    addresses: tuple[str, ...]
    """Where the node was last."""
    ucr: int | None = None
    """What is forfeited; None: that is not decided yet."""
    voucher: bytes | None = None
    """The channel's latest before the forfeit: it holds what is forfeited, and has to be there first."""
    tries: int = 0
    told: bool = False
    """The node has it on disk."""


class Wallet:
    """Channels of this process, and everything that was ever signed on them."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        """Opened, or begun anew. Raises `StoreError(corrupt_store)`."""
        self._key = key
        self._money = trio.Lock()
        """Held from reading a channel's counters to having the new ones on disk."""
        self.telling = trio.Lock()
        """Held from reading what is to be told to having on disk what came of it."""
        self._writer = trio.CapacityLimiter(1)
        self._channels: dict[bytes, ChannelState] = {}
        """By node, the one that is used."""
        self._states: dict[bytes, ChannelState] = {}
        """By id: there is one set of counters of each channel."""
        self._confirmed: dict[bytes, bytes] = {}
        """Channel -> the voucher that its node has said to have; not on disk yet."""
        self._database = open_file(path)
        self._tenure = Tenure(path)
        rows = self._database.execute("SELECT node FROM faults").fetchall()
        self.distrusted: set[bytes] = {row[0] for row in rows}
        """Nodes that a verdict of ours found at fault: not picked again."""

    @property
    def payer(self) -> bytes:
        """The client's public key."""
        return bytes(self._key.verify_key)

    def close(self) -> None:
        """Everything is on disk, and the channels may be taken over by another process."""
        with transaction(self._database):
            confirmed = [(voucher, channel) for channel, voucher in self._confirmed.items()]
            self._database.executemany("UPDATE channels SET confirmed = ? WHERE id = ?", confirmed)
        self._database.close()
        self._tenure.end()

    async def channel(self, node: bytes, owner: bytes, needed_ucr: int, now_ms: int) -> ChannelState:
        """This process's channel to a node, on disk, with room for `needed_ucr`; opened now if there is none that lasts.

        Raises `Refused(credit_exhausted)` for more than any channel's limit.
        """
        if needed_ucr > CREDIT_LIMIT_UCR:
            raise Refused(
                Code.CREDIT_EXHAUSTED, f"{needed_ucr} ucr are more than a channel's limit of {CREDIT_LIMIT_UCR}."
            )
        async with self._money:
            state = self._channels.get(node) or await self._in_thread(partial(self._kept, node, now_ms))
            if state and self._serves(state, owner, needed_ucr, now_ms):
                self._channels[node] = state
                return state
            record = Channel(
                self.payer,
                node,
                owner,
                LEDGER,
                CREDIT_LIMIT_UCR,
                chance().randbytes(16),
                now_ms,
                now_ms + CHANNEL_MS,
                CLOSE_GRACE_MS,
            )
            state = ChannelState(Party.PAYER, sign(record, self._key))
            channel, ends_ms = state.channel, record.expires_ms + record.close_grace_ms
            row = (channel.id, self.payer, node, owner, record.expires_ms, ends_ms, self._tenure.process)
            await self._write(("INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)", (*row, channel.envelope)))
            self._channels[node] = self._states[channel.id] = state
            return state

    async def keep_receipt(self, receipt: Signed[Receipt], owner: bytes, channel: ChannelState, claim: Claim) -> None:
        """The receipt is on disk, as one that is to be answered."""
        row = (receipt.id, receipt.signer, owner, channel.channel.id, *_columns(claim), receipt.envelope)
        await self._write(("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)", row))

    async def refuse(self, receipts: Sequence[Signed[Receipt]]) -> None:
        """It was decided that these receipts get no voucher: neither from this process nor from a later one."""
        if receipts:
            await self._write(
                *(("UPDATE receipts SET refused = 1 WHERE id = ?", (receipt.id,)) for receipt in receipts)
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
                await self._write(_voucher_row(voucher, claim, restated=False))
                channel.paid(voucher, claim)
            return voucher

    async def forfeit(self, channel: ChannelState, ground: Ground, ucr: int, now_ms: int) -> Signed[Voucher]:
        """A voucher without so much of what was held, on disk with the ground, and ready to be sent after it.

        Our caller has judged the verdict or evidence. Raises `LocalProtocolError` for more than is held, or after its release.
        """
        async with self._money:
            known = ground in channel.grounds
            channel.forfeit(ground, ucr, now_ms)
            try:
                voucher = sign(channel.restate(now_ms), self._key)
                with trio.CancelScope(shield=True):  # as long as a commit takes: both are on disk, or neither is
                    row = (ground.id, ground.kind, channel.channel.id, ucr)
                    await self._write(
                        ("INSERT OR IGNORE INTO forfeits VALUES (?, ?, ?, ?)", row),
                        _voucher_row(voucher, Claim(0), restated=True),
                    )
            except BaseException:
                if not known:
                    del channel.grounds[ground]
                raise
            channel.paid(voucher, channel.named[voucher.record.receipt])
            return voucher

    def confirmed(self, channel: bytes, voucher: bytes) -> None:
        """The node has this voucher. Noted on disk when the wallet is closed: a crash costs that it is brought once more."""
        self._confirmed[channel] = voucher

    async def take_over(self, now_ms: int) -> list[ChannelState]:
        """Channels of processes that have ended are this one's. Those come back of which the node may lack something: first
        every receipt that was kept and neither answered nor refused has got its voucher.

        A node that was found at fault is not paid for what was open.
        """
        await self._in_thread(partial(self._adopt, now_ms))
        lacking = []
        for state in await self._in_thread(partial(self._unfinished, now_ms)):
            if state.channel.record.payee not in self.distrusted:
                await self._answer_open(state, now_ms)
            if state.latest is not None and self._confirmed.get(state.channel.id) != state.latest.id:
                lacking.append(state)
        return lacking

    async def keep_answer(self, opening: Opening, opens: tuple[bytes, str] | None, now_ms: int) -> None:
        """What opens the order is on disk for as long as anybody may ask for it: in plain, as what was asked is.

        `opens`: nonce and policy to which it is committed, if they are to be shown.
        """
        nonce, policy = opens or (b"", "")
        row = (opening.order, nonce, policy, opening.encode(), now_ms)
        await self._write(
            ("DELETE FROM answers WHERE at_ms < ?", (now_ms - ANSWERABLE_MS,)),
            ("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", row),
        )

    def answer(self, order: bytes) -> tuple[bytes | None, str | None, bytes] | None:
        """Nonce, policy and encoded opening of the order; None if they are not kept."""
        row = self._database.execute(
            "SELECT nonce, policy, opening FROM answers WHERE order_id = ?", (order,)
        ).fetchone()
        return (row[0] or None, row[1] or None, row[2]) if row else None

    def vouchers_for(self, receipt: bytes) -> list[bytes]:
        """Envelopes of the vouchers that name the receipt."""
        rows = self._database.execute("SELECT envelope FROM vouchers WHERE receipt = ?", (receipt,)).fetchall()
        return [bytes(row[0]) for row in rows]

    async def keep_telling(self, telling: Telling) -> None:
        """It is on disk, as something of which its node does not know yet. Of one matter, the first one stands, and the latest
        addresses."""
        ground = telling.ground
        row = (
            telling.matter,
            ground.kind,
            ground.id,
            telling.channel,
            telling.most_ucr,
            telling.request,
            " ".join(telling.addresses),
        )
        columns = "matter, kind, ground, channel, most_ucr, request, addresses"
        again = "ON CONFLICT (matter) DO UPDATE SET addresses = excluded.addresses WHERE excluded.addresses != ''"
        await self._write((f"INSERT INTO telling ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?) {again}", row))

    async def telling_of(self, matter: bytes) -> Telling | None:
        """As it is on disk now; None once it is nothing any more."""
        found = await self._tellings("matter = ?", matter)
        return found[0] if found else None

    async def tellings(self, now_ms: int) -> list[Telling]:
        """Those on channels that are this process's, or of one that has ended, which are due for another try, oldest first. Of
        channels whose grace is over nothing is told any more, and nothing is kept."""
        await self._in_thread(partial(self._adopt, now_ms))
        over = "DELETE FROM telling WHERE channel IN (SELECT id FROM channels WHERE ends_ms <= ?)"
        await self._write((over, (now_ms,)))
        ours = "channel IN (SELECT id FROM channels WHERE process = ? AND payer = ?)"
        return await self._tellings(f"NOT told AND next_ms <= ? AND {ours}", now_ms, self._tenure.process, self.payer)

    async def note_telling(self, telling: Telling, next_ms: int) -> None:
        """What it has come to is on disk, and when it is tried again."""
        row = (telling.ucr, telling.voucher, telling.tries, int(telling.told), next_ms, telling.matter)
        await self._write(
            ("UPDATE telling SET ucr = ?, voucher = ?, tries = ?, told = ?, next_ms = ? WHERE matter = ?", row)
        )

    async def _tellings(self, which: str, *of: bytes | int) -> list[Telling]:
        columns = "matter, kind, ground, channel, most_ucr, request, addresses, ucr, voucher, tries, told"
        query = f"SELECT {columns} FROM telling WHERE {which} ORDER BY rowid"
        rows = await self._in_thread(lambda: self._database.execute(query, of).fetchall())
        return [
            Telling(
                matter, Ground(kind, id), channel, most, request, tuple(where.split()), ucr, voucher, tries, bool(told)
            )
            for matter, kind, id, channel, most, request, where, ucr, voucher, tries, told in rows
        ]

    async def state_of(self, channel: bytes, now_ms: int) -> ChannelState | None:
        """The channel's counters, if they are this process's, or of one that has ended; None while another has them."""
        await self._in_thread(partial(self._adopt, now_ms))
        query = "SELECT envelope FROM channels WHERE id = ? AND process = ? AND payer = ?"
        of_it = (channel, self._tenure.process, self.payer)
        row = await self._in_thread(lambda: self._database.execute(query, of_it).fetchone())
        return self._state(row[0]) if row else None

    async def keep_verdict(self, verdict: Signed[Verdict]) -> None:
        """The verdict is on disk."""
        await self._write(("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", (verdict.id, verdict.envelope)))

    async def distrust(self, node: bytes, owner: bytes, reason: str, verdict: bytes | None, now_ms: int) -> None:
        """The node is not picked again, by this process or a later one."""
        self.distrusted.add(node)
        await self._write(
            ("INSERT OR REPLACE INTO faults VALUES (?, ?, ?, ?, ?)", (node, owner, reason, verdict, now_ms))
        )

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

    def _adopt(self, now_ms: int) -> None:
        mine, of_mine = self._tenure.process, (self.payer, now_ms)
        with transaction(self._database):
            rows = self._database.execute(
                "SELECT DISTINCT process FROM channels WHERE payer = ? AND ends_ms > ?", of_mine
            ).fetchall()
            for (process,) in rows:
                if process != mine and not self._tenure.others_alive(process):
                    self._database.execute(
                        "UPDATE channels SET process = ? WHERE process = ? AND payer = ? AND ends_ms > ?",
                        (mine, process, *of_mine),
                    )

    def _unfinished(self, now_ms: int) -> list[ChannelState]:
        """Of this process's channels, those on which a receipt is open or the latest voucher is not confirmed."""
        rows = self._database.execute(
            """SELECT c.envelope FROM channels c WHERE c.process = ? AND c.payer = ? AND c.ends_ms > ? AND (
                   EXISTS (SELECT 1 FROM receipts r WHERE r.channel = c.id AND NOT r.refused
                           AND NOT EXISTS (SELECT 1 FROM vouchers v WHERE v.receipt = r.id))
                   OR (SELECT id FROM vouchers v WHERE v.channel = c.id ORDER BY number DESC LIMIT 1) IS NOT c.confirmed)""",
            (self._tenure.process, self.payer, now_ms),
        )
        return [self._state(envelope) for (envelope,) in rows.fetchall()]

    def _kept(self, node: bytes, now_ms: int) -> ChannelState | None:
        """This process's latest channel to the node, if one is on disk."""
        row = self._database.execute(
            """SELECT envelope FROM channels WHERE process = ? AND payee = ? AND payer = ? AND expires_ms > ?
               ORDER BY rowid DESC LIMIT 1""",
            (self._tenure.process, node, self.payer, now_ms),
        ).fetchone()
        return self._state(row[0]) if row else None

    @staticmethod
    def _serves(state: ChannelState, owner: bytes, needed_ucr: int, now_ms: int) -> bool:
        record = state.channel.record
        return record.payout_owner == owner and now_ms < record.expires_ms and state.room_ucr >= needed_ucr

    def _state(self, envelope: bytes) -> ChannelState:
        """The channel as the process that died left it, or as it has become here."""
        channel = verify_untrusted(Channel, envelope, signer=self.payer)
        if channel.id in self._states:
            return self._states[channel.id]
        rows = self._database.execute(
            "SELECT receipt, added_ucr, held_ucr_max, hold_until_ms FROM vouchers WHERE channel = ? AND NOT restated",
            (channel.id,),
        )
        named = {receipt: Claim(*claim) for receipt, *claim in rows.fetchall()}
        row = self._database.execute(
            "SELECT envelope FROM vouchers WHERE channel = ? ORDER BY number DESC LIMIT 1", (channel.id,)
        ).fetchone()
        latest = verify_untrusted(Voucher, row[0], signer=self.payer) if row else None
        grounds = self._database.execute("SELECT kind, ground, ucr FROM forfeits WHERE channel = ?", (channel.id,))
        told = {Ground(kind, ground): ucr for kind, ground, ucr in grounds.fetchall()}
        self._states[channel.id] = ChannelState(Party.PAYER, channel, latest, Claims(named), told)
        return self._states[channel.id]

    async def _answer_open(self, state: ChannelState, now_ms: int) -> None:
        rows = self._database.execute(
            """SELECT r.envelope, r.node, r.owed_ucr, r.held_ucr_max, r.hold_until_ms FROM receipts r
               WHERE r.channel = ? AND NOT r.refused AND NOT EXISTS (SELECT 1 FROM vouchers v WHERE v.receipt = r.id)
               ORDER BY r.rowid""",
            (state.channel.id,),
        ).fetchall()
        for envelope, node, *claim in rows:
            try:
                await self.pay(state, verify_untrusted(Receipt, envelope, signer=node), Claim(*claim), now_ms)
            except LocalProtocolError:
                return  # the channel's grace or limit is over: nothing that is signed now would count

    async def _write(self, *statements: Statement) -> None:
        await self._in_thread(partial(_execute, self._database, statements))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """A commit waits for the disk, so it may not run in the loop; and once begun it is not abandoned."""
        try:
            return await beside(call, self._writer)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                Code.CORRUPT_STORE, f"The wallet could not be written ({error}); what it held before is kept."
            ) from None


def _columns(claim: Claim) -> tuple[int, int, int]:
    return claim.owed_ucr, claim.held_ucr_max, claim.hold_until_ms


def _voucher_row(voucher: Signed[Voucher], claim: Claim, *, restated: bool) -> Statement:
    record = voucher.record
    row = (voucher.id, record.channel, record.receipt, int(restated), *_columns(claim), voucher.envelope)
    columns = "id, channel, receipt, restated, added_ucr, held_ucr_max, hold_until_ms, envelope"
    again = "OR IGNORE " if restated else ""
    return f"INSERT {again}INTO vouchers ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row


def _execute(database: sqlite3.Connection, statements: Sequence[Statement]) -> None:
    """All of them are on disk, or none is."""
    if len(statements) == 1:
        database.execute(*statements[0])
        return
    with transaction(database):
        for statement in statements:
            database.execute(*statement)
