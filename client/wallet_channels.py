"""The channels in a wallet's file: which are this process's, and their counters as whoever used them last left them.

What is asked of `Channels` waits for the disk: in the wallet's thread.
"""

from __future__ import annotations

import sqlite3

from ..node.transaction import transaction
from ..protocol.channel import ChannelState, Ground, Party
from ..protocol.claims import Claim, Claims
from ..protocol.envelope import Signed, verify_untrusted
from ..protocol.payment import Channel, Voucher
from ..protocol.receipts import Receipt
from .wallet_disk import Statement
from .wallet_file import Tenure


class Channels:
    """Of one payer, as one process sees them."""

    def __init__(self, database: sqlite3.Connection, tenure: Tenure, payer: bytes) -> None:
        self._database = database
        self._tenure = tenure
        self._payer = payer
        self._states: dict[bytes, ChannelState] = {}
        """By id: there is one set of counters of each channel."""

    def kept(self, channel: Signed[Channel]) -> Statement:
        """A channel that is this process's."""
        record, ends_ms = channel.record, channel.record.expires_ms + channel.record.close_grace_ms
        who = (channel.id, self._payer, record.payee, record.payout_owner)
        row = (*who, record.expires_ms, ends_ms, self._tenure.process, channel.envelope)
        return "INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)", row

    def add(self, state: ChannelState) -> None:
        """These are the channel's counters from now on."""
        self._states[state.channel.id] = state

    def adopt(self, now_ms: int) -> None:
        """Channels of processes that have ended are this one's."""
        mine, of_mine = self._tenure.process, (self._payer, now_ms)
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

    def unfinished(self, now_ms: int) -> list[ChannelState]:
        """Of this process's channels, those on which a receipt is open or the latest voucher is not confirmed."""
        rows = self._database.execute(
            """SELECT c.envelope FROM channels c WHERE c.process = ? AND c.payer = ? AND c.ends_ms > ? AND (
                   EXISTS (SELECT 1 FROM receipts r WHERE r.channel = c.id AND NOT r.refused
                           AND NOT EXISTS (SELECT 1 FROM vouchers v WHERE v.receipt = r.id))
                   OR (SELECT id FROM vouchers v WHERE v.channel = c.id ORDER BY number DESC LIMIT 1) IS NOT c.confirmed)""",
            (self._tenure.process, self._payer, now_ms),
        )
        return [self._state(envelope) for (envelope,) in rows.fetchall()]

    def latest_to(self, node: bytes, now_ms: int) -> ChannelState | None:
        """This process's latest channel to the node, if one is on disk."""
        row = self._database.execute(
            """SELECT envelope FROM channels WHERE process = ? AND payee = ? AND payer = ? AND expires_ms > ?
               ORDER BY rowid DESC LIMIT 1""",
            (self._tenure.process, node, self._payer, now_ms),
        ).fetchone()
        return self._state(row[0]) if row else None

    def find(self, channel: bytes) -> ChannelState | None:
        """The channel by its id, if it is this process's."""
        row = self._database.execute(
            "SELECT envelope FROM channels WHERE id = ? AND process = ? AND payer = ?",
            (channel, self._tenure.process, self._payer),
        ).fetchone()
        return self._state(row[0]) if row else None

    def _state(self, envelope: bytes) -> ChannelState:
        """The channel as the process that died left it, or as it has become here."""
        channel = verify_untrusted(Channel, envelope, signer=self._payer)
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
        latest = verify_untrusted(Voucher, row[0], signer=self._payer) if row else None
        grounds = self._database.execute("SELECT kind, ground, ucr FROM forfeits WHERE channel = ?", (channel.id,))
        told = {Ground(kind, ground): ucr for kind, ground, ucr in grounds.fetchall()}
        self._states[channel.id] = ChannelState(Party.PAYER, channel, latest, Claims(named), told)
        return self._states[channel.id]


def serves(state: ChannelState, owner: bytes, needed_ucr: int, now_ms: int) -> bool:
    """Whether work for so much can be ordered on the channel."""
    record = state.channel.record
    return record.payout_owner == owner and now_ms < record.expires_ms and state.room_ucr >= needed_ucr


def open_receipts(database: sqlite3.Connection, channel: bytes) -> list[tuple[bytes, bytes, Claim]]:
    """(envelope, node, claim) of the channel's receipts that are neither answered nor refused, oldest first."""
    rows = database.execute(
        """SELECT r.envelope, r.node, r.owed_ucr, r.held_ucr_max, r.hold_until_ms FROM receipts r
           WHERE r.channel = ? AND NOT r.refused AND NOT EXISTS (SELECT 1 FROM vouchers v WHERE v.receipt = r.id)
           ORDER BY r.rowid""",
        (channel,),
    ).fetchall()
    return [(envelope, node, Claim(*claim)) for envelope, node, *claim in rows]


def receipt_kept(receipt: Signed[Receipt], owner: bytes, channel: bytes, claim: Claim) -> Statement:
    """A receipt that is to be answered."""
    row = (receipt.id, receipt.signer, owner, channel, *_columns(claim), receipt.envelope)
    return "INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)", row


def voucher_kept(voucher: Signed[Voucher], claim: Claim, *, restated: bool) -> Statement:
    """The channel's latest voucher. `restated`: it answers no receipt anew."""
    record = voucher.record
    row = (voucher.id, record.channel, record.receipt, int(restated), *_columns(claim), voucher.envelope)
    columns = "id, channel, receipt, restated, added_ucr, held_ucr_max, hold_until_ms, envelope"
    again = "OR IGNORE " if restated else ""
    return f"INSERT {again}INTO vouchers ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row


def forfeit_kept(channel: bytes, ground: Ground, ucr: int) -> Statement:
    """A ground, and what it forfeits: the first time that it is said."""
    return "INSERT OR IGNORE INTO forfeits VALUES (?, ?, ?, ?)", (ground.id, ground.kind, channel, ucr)


def forfeit_taken(channel: bytes, ground: Ground, ucr: int) -> Statement:
    """What the ground forfeits by what its node says; nothing of it is kept if it forfeits nothing."""
    where, of_it = "channel = ? AND kind = ? AND ground = ?", (channel, ground.kind, ground.id)
    if ucr:
        return f"UPDATE forfeits SET ucr = ? WHERE {where}", (ucr, *of_it)
    return f"DELETE FROM forfeits WHERE {where}", of_it


def _columns(claim: Claim) -> tuple[int, int, int]:
    return claim.owed_ucr, claim.held_ucr_max, claim.hold_until_ms
