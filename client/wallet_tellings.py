"""What the wallet keeps of findings by judges, until the node that each is about has it on disk, too."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ..protocol.channel import Ground
from .wallet_disk import Statement


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


def telling_kept(telling: Telling) -> Statement:
    """Its node does not know of it yet. Of one matter, the first one stands, and the latest addresses."""
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
    return f"INSERT INTO telling ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?) {again}", row


def telling_noted(telling: Telling, next_ms: int) -> Statement:
    """What it has come to, and when it is tried again."""
    row = (telling.ucr, telling.voucher, telling.tries, int(telling.told), next_ms, telling.matter)
    return "UPDATE telling SET ucr = ?, voucher = ?, tries = ?, told = ?, next_ms = ? WHERE matter = ?", row


def telling_taken(telling: Telling) -> Statement:
    """Its node has said what it forfeits."""
    return "UPDATE telling SET ucr = ?, told = 1 WHERE matter = ?", (telling.ucr, telling.matter)


def tellings_over(now_ms: int) -> Statement:
    """Of channels whose grace is over nothing is kept."""
    return "DELETE FROM telling WHERE channel IN (SELECT id FROM channels WHERE ends_ms <= ?)", (now_ms,)


def tellings_due(database: sqlite3.Connection, process: bytes, payer: bytes, now_ms: int) -> list[Telling]:
    """Those on the process's channels that are due for another try, oldest first."""
    ours = "channel IN (SELECT id FROM channels WHERE process = ? AND payer = ?)"
    return _tellings(database, f"NOT told AND next_ms <= ? AND {ours}", now_ms, process, payer)


def telling_of(database: sqlite3.Connection, matter: bytes) -> Telling | None:
    """As it is on disk now; None once it is nothing any more."""
    found = _tellings(database, "matter = ?", matter)
    return found[0] if found else None


def _tellings(database: sqlite3.Connection, which: str, *of: bytes | int) -> list[Telling]:
    columns = "matter, kind, ground, channel, most_ucr, request, addresses, ucr, voucher, tries, told"
    rows = database.execute(f"SELECT {columns} FROM telling WHERE {which} ORDER BY rowid", of).fetchall()
    return [
        Telling(matter, Ground(kind, id), channel, most, request, tuple(where.split()), ucr, voucher, tries, bool(told))
        for matter, kind, id, channel, most, request, where, ucr, voucher, tries, told in rows
    ]
