"""The file of a purse of ecash: its tables, and how what its first form had begun and paid is carried over."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Final

from ..private import database
from ..transaction import transaction
from .cashu_crypto import lock_of
from .cashu_means import NAME
from .rail import Invoice, read_means

PAID_BEFORE: Final = "pay "
"""In the first form of the purse a payment was known by its reference alone: so it is until it is asked for again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS proofs (
    secret TEXT PRIMARY KEY, amount INTEGER NOT NULL, keyset TEXT NOT NULL, signature TEXT NOT NULL,
    spent TEXT NOT NULL DEFAULT '') STRICT;
CREATE TABLE IF NOT EXISTS asked (
    id TEXT PRIMARY KEY, path TEXT NOT NULL, body TEXT NOT NULL, outputs TEXT NOT NULL, payer BLOB NOT NULL,
    reference TEXT NOT NULL, fee INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY, fee INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, means BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS quotes (id TEXT PRIMARY KEY, amount INTEGER NOT NULL, request TEXT NOT NULL) STRICT;
"""
# `quotes`: what the mint gives tokens for once somebody has paid it. `asked`: until the mint's answer is here; the
# `proofs` that it spends are set aside so long. `done`: what came to us.


def open_file(path: Path) -> sqlite3.Connection:
    """The purse's tables. Other processes of its party may have them open, too: what is written survives a power cut."""
    db = database(path)
    for setting in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
        db.execute(setting)
    db.executescript(_SCHEMA)
    _carry_over(db)
    return db


def adopt(db: sqlite3.Connection, id: str, invoice: Invoice) -> None:
    """What the purse's first form paid, or asked for, under this reference and locked to this payee, is the payment `id`."""
    before = PAID_BEFORE + invoice.reference
    if row := db.execute("SELECT means FROM payments WHERE id = ?", (before,)).fetchone():
        found = read_means(bytes(row[0]), NAME)
        secrets = [each["secret"] for each in json.loads(found.body)["proofs"]]
        ours = found.payer == invoice.payer
    elif row := db.execute("SELECT outputs FROM asked WHERE id = ?", (before,)).fetchone():
        secrets = [secret for _, _, secret, _, kept in json.loads(row[0]) if not kept]
        ours = True
    else:
        return
    if not ours or {lock_of(secret)[0] for secret in secrets} != {invoice.address}:
        return  # it went to somebody else
    with transaction(db):
        db.execute("UPDATE OR IGNORE payments SET id = ? WHERE id = ?", (id, before))
        db.execute("UPDATE asked SET id = ?, payer = ? WHERE id = ?", (id, invoice.payer, before))
        db.execute("UPDATE proofs SET spent = ? WHERE spent = ?", (id, before))


def _carry_over(db: sqlite3.Connection) -> None:
    """What the first form of the purse (`requests`, `paid`) had asked for and paid is in the tables of this one."""
    before = "SELECT 1 FROM sqlite_schema WHERE name = 'requests'"
    if not db.execute(before).fetchone():
        return
    with transaction(db):
        if not db.execute(before).fetchone():
            return  # another process has done it meanwhile
        db.execute("INSERT INTO payments SELECT ? || reference, means FROM paid", (PAID_BEFORE,))
        rows = db.execute("SELECT id, path, body, outputs, done FROM requests").fetchall()
        for id, path, body, outputs, done in rows:
            _carry_request(db, id, path, body, outputs, bool(done))
        db.execute("DROP TABLE requests")
        db.execute("DROP TABLE paid")


def _carry_request(db: sqlite3.Connection, id: str, path: str, body: str, outputs: str, done: bool) -> None:
    asked, kept = json.loads(body), json.loads(outputs)
    if id.startswith(PAID_BEFORE):
        if db.execute("SELECT 1 FROM payments WHERE id = ?", (id,)).fetchone():
            return
        if done:  # the change is in the purse, or was spent; what was to be given away is still to be had from the mint
            pairs = [(out, one) for out, one in zip(asked["outputs"], kept, strict=True) if not one[-1]]
            asked["outputs"], kept = [out for out, _ in pairs], [one for _, one in pairs]
        reference, fee = id.removeprefix(PAID_BEFORE), 0
    else:
        given = sum(each["amount"] for each in asked.get("inputs", ()))
        reference, fee = "", max(0, given - sum(amount for amount, *_ in kept))
        if done:
            db.execute("INSERT INTO done VALUES (?, ?)", (id, fee))
            return
    row = (id, path, json.dumps(asked), json.dumps(kept), b"", reference, fee)
    db.execute("INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?)", row)
